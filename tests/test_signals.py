"""SIGINT, SIGTERM and SIGHUP stop every command alike: what was paid for is recorded, and the process leaves soon."""

import signal
import subprocess
import sys
import time

import pytest
from signalling import heed_signals

from teamsrl_hf.arguments import guarded

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def _run(code, *signals, prepare=heed_signals):
    """Start code inside `guarded`, send it (seconds, signal) once it has printed a line; seconds, status and error."""
    body = "\n".join(f"    {line}" for line in code.strip().splitlines())
    imports = "import os, signal, sys, threading, time\nfrom teamsrl_hf.arguments import guarded"
    whole = f"{imports}\nfrom teamsrl_hf.signals import leave\ndef main():\n{body}\nsys.exit(leave(guarded(main)))"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", whole], preexec_fn=prepare, **pipes)
    assert process.stdout.readline() == "ready\n"
    started = time.monotonic()
    for seconds, sign in signals:
        time.sleep(seconds)
        process.send_signal(sign)
    out, err = process.communicate(timeout=30)
    return time.monotonic() - started, process.returncode, out, err.strip()


@pytest.mark.parametrize("sign", SIGNALS)
def test_a_signal_ends_a_command_with_its_number_and_one_line_after_all_has_come_to_rest(sign):
    code = """
try:
    print("ready", flush=True)
    time.sleep(60)
finally:
    print("at rest")
"""
    _, status, out, err = _run(code, (0, sign))
    assert (status, out) == (128 + sign, "at rest\n")
    assert err == f"stopped by {sign.name}; run the same command again to go on"


def _ignore_all():
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_IGN)


def test_signals_that_were_ignored_from_the_start_stay_ignored():
    """As those of `nohup` and of a job in the background."""
    code = "print('ready', flush=True)\ntime.sleep(0.3)\nprint('whole')"
    _, status, out, err = _run(code, *((0, sign) for sign in SIGNALS), prepare=_ignore_all)
    assert (status, out, err) == (0, "whole\n", "")


def test_a_handler_that_somebody_has_installed_is_left_alone():
    before = signal.getsignal(signal.SIGTERM)
    heard = []
    try:
        signal.signal(signal.SIGTERM, lambda signum, frame: heard.append(signum))
        assert guarded(lambda: signal.raise_signal(signal.SIGTERM)) == 0
        assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_handlers_are_given_back_when_the_command_ends():
    before = [signal.getsignal(signum) for signum in SIGNALS]
    assert guarded(lambda: None) == 0
    assert [signal.getsignal(signum) for signum in SIGNALS] == before


HANGS = """
try:
    print("ready", flush=True)
    time.sleep(60)
finally:
    time.sleep(60)
"""


def test_a_second_signal_ends_a_command_at_once():
    seconds, status, _, err = _run(HANGS, (0, signal.SIGTERM), (0.8, signal.SIGTERM))
    assert seconds < 3
    assert status == 143
    assert err == "stopped by SIGTERM; run the same command again to go on"


def test_what_a_terminal_and_a_launcher_pass_on_at_once_is_one_signal():
    code = (
        "try:\n    print('ready', flush=True)\n    time.sleep(60)\nfinally:\n    time.sleep(1)\n    print('at rest')"
    )
    _, status, out, _ = _run(code, (0, signal.SIGINT), (0.1, signal.SIGINT), (0.1, signal.SIGTERM))
    assert (status, out) == (130, "at rest\n")


# A lock of the C library that is taken twice by one thread is waited for for ever, whatever signal comes.
STUCK = """
import ctypes
library, lock = ctypes.CDLL(None), ctypes.create_string_buffer(64)
library.pthread_mutex_lock(lock)
print("ready", flush=True)
library.pthread_mutex_lock(lock)
"""


@pytest.mark.parametrize("code", [HANGS, STUCK], ids=["does not come to rest", "waits where python can't interrupt"])
def test_a_command_that_can_t_stop_is_ended_within_five_seconds(code):
    seconds, status, _, err = _run(code, (0, signal.SIGHUP))
    assert 3.5 < seconds < 5
    assert status == 129
    assert err == "stopped by SIGHUP; run the same command again to go on"


def test_a_thread_of_a_library_does_not_hold_up_the_exit():
    code = "threading.Thread(target=time.sleep, args=(60,)).start()\nprint('ready', flush=True)\ntime.sleep(60)"
    seconds, status, _, _ = _run(code, (0, signal.SIGTERM))
    assert seconds < 5.5
    assert status == 143


def test_a_terminal_that_is_gone_does_not_turn_a_stop_into_a_failure():
    """Every write fails then: that of a progress bar as it closes, and that of the last line."""
    code = """
from tqdm import tqdm
terminal, theirs = os.openpty()
os.dup2(theirs, 2)
try:
    with tqdm(total=9):
        os.close(terminal)
        print("ready", flush=True)
        time.sleep(60)
finally:
    print("at rest")
"""
    assert _run(code, (0, signal.SIGHUP))[1:] == (129, "at rest\n", "")


def test_what_ends_a_process_that_the_command_forked_is_no_signal_to_the_command():
    code = """
import multiprocessing
worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
worker.start()
print("ready", flush=True)
time.sleep(0.2)
worker.terminate()
worker.join()
time.sleep(0.2)
print(worker.exitcode)
"""
    _, status, out, err = _run(code)
    assert (status, out, err) == (0, "-15\n", "")


def test_an_error_after_the_signal_is_its_consequence_and_no_bug():
    code = "print('ready', flush=True)\ntry:\n    time.sleep(60)\nfinally:\n    raise RuntimeError('a worker is gone')"
    _, status, _, err = _run(code, (0, signal.SIGTERM))
    assert status == 143
    assert err == "stopped by SIGTERM; run the same command again to go on"


def test_of_several_processes_only_the_first_tells():
    code = "os.environ['RANK'] = '1'\nprint('ready', flush=True)\ntime.sleep(60)"
    assert _run(code, (0, signal.SIGTERM))[1:] == (143, "", "")
