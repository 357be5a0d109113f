"""SIGINT, SIGTERM and SIGHUP stop every command alike: what was paid for is recorded, and the process leaves soon."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
from asked import EVOLVE_RULES, TRAIN_RULES, WHOLE
from endpoint_server import ask_process, endpoint_process
from sft_data import CONFIG, write_folder
from signalling import heed_signals

from teamsrl_hf.cli import load_recipe
from teamsrl_hf.commands.arguments import guarded
from teamsrl_hf.models.accounting import report
from teamsrl_hf.paths import resource
from teamsrl_hf.runs import LOCK_FILE

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def _run(code, *signals, prepare=heed_signals):
    """Start code inside `guarded`, send it (seconds, signal) once it has printed a line; seconds, status and error."""
    body = "\n".join(f"    {line}" for line in code.strip().splitlines())
    imports = "import os, signal, sys, threading, time\nfrom teamsrl_hf.commands.arguments import guarded"
    imports += "\nfrom teamsrl_hf.commands.signals import leave"
    whole = f"{imports}\ndef main():\n{body}\nsys.exit(leave(guarded(main)))"
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


# Whole commands. The endpoint's own count says what was paid for.


@dataclass(frozen=True)
class Case:
    """A command, how far it is, and which roles of its ledger ask the endpoint.

    `length` is the progress at its end, in steps or in requests.
    """

    command: Callable[[Path, str], list[str]]
    length: int
    roles: tuple[str, ...] = ()

    def progress(self, out: Path, url: str, before: int) -> int:
        if self.roles == ("expert",):
            return ask_process(url).get("received", 0) - before
        return max([int(path.name.partition("-")[2]) for path in out.glob("checkpoint-*")], default=0)

    def recorded(self, out: Path) -> int:
        if not (out / "ledger.sqlite").exists():
            return 0
        roles = report(out)["roles"]
        return sum(roles[role]["attempts"] for role in self.roles if role in roles)


def _evolve(root: Path, url: str) -> list[str]:
    options = ["--chooser", "uniform", "--operations_per_episode", "2", "--concurrency", "4"]
    models = ["--reviewer", "rulebook", "--expert", f"endpoint:m@{url}", *WHOLE]
    return ["evolve", *options, "--seeds", str(_seeds(root, 150)), *models]


def _train_policy(root: Path, url: str) -> list[str]:
    models = ["--instructor", f"endpoint:m@{url}", "--reviewer", f"endpoint:m@{url}", *WHOLE]
    sizes = ["--per_device_train_batch_size", "4", "--num_mini_batches", "2", "--num_ppo_epochs", "2"]
    sizes += ["--operations_per_episode", "2", "--max_steps", "240", "--save_steps", "4", "--save_total_limit", "3"]
    options = ["--use_cpu", "true", "--report_to", "none", "--logging_steps", "8", "--disable_tqdm", "true"]
    return ["train-policy", "--seeds", str(_seeds(root, 60)), *models, *sizes, *options]


def _sft(root: Path, url: str) -> list[str]:
    data = write_folder(root / "data")
    options = ["--max_steps", "1600", "--save_strategy", "steps", "--save_steps", "16", "--save_total_limit", "3"]
    return ["sft", "--config", CONFIG, "--dataset_name", data, *options, "--disable_tqdm", "true"]


CASES = {
    "evolve": Case(_evolve, 300, ("expert",)),
    "train-policy": Case(_train_policy, 240, ("instructor", "reviewer")),
    "sft": Case(_sft, 1_600),
}


def _seeds(root: Path, count: int) -> Path:
    path = root / "seeds.jsonl"
    rows = [{"instruction": f"Explain to a beginner how machine number {i} came about."} for i in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _start(command: Sequence[str], out: Path) -> subprocess.Popen:
    words = [sys.executable, "-m", "teamsrl_hf.cli", *command, "--output_dir", str(out)]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(words, preexec_fn=heed_signals, **pipes)


def _finish(command: Sequence[str], out: Path) -> None:
    process = _start(command, out)
    error = process.communicate()[1]
    assert process.returncode == 0, error[-3000:]


def _stop(process: subprocess.Popen, sign: signal.Signals) -> bool:
    """Send a signal; whether it came before the end. What heeds it leaves in time, with one line."""
    asked = time.monotonic()
    process.send_signal(sign)
    error = process.communicate()[1]
    if process.returncode in (0, -sign) and sign != signal.SIGKILL:
        return False  # It was done, and Python about to end.
    if sign == signal.SIGKILL:
        return process.returncode == -sign
    assert process.returncode == 128 + sign, error[-3000:]
    assert time.monotonic() - asked < 5 + 1  # What a busy machine adds.
    assert "Traceback" not in error
    assert error.count(f"stopped by {sign.name}; run the same command again to go on") == 1
    return True


def _made(out: Path) -> dict[str, bytes]:
    """Rows, weights, card and pictures."""
    files = [path for path in out.rglob("*") if path.suffix in (".parquet", ".safetensors", ".md", ".png", ".html")]
    return {str(path.relative_to(out)): path.read_bytes() for path in files if "checkpoint-" not in str(path)}


def _stop_again_and_again(case: Case, moments: int, luck: int, root: Path) -> None:
    random, signs = Random(luck), [*SIGNALS, signal.SIGKILL] * (moments // 4)
    random.shuffle(signs)
    with endpoint_process("--latency", "0.1", "--no_log") as url:
        command, out = case.command(root, url), root / "stopped" / "out"
        _finish(command, root / "whole" / "out")
        before = ask_process(url).get("received", 0)
        lost = stopped = 0
        for sign, progress in zip(signs, sorted(random.randrange(case.length) for _ in signs)):
            (out / LOCK_FILE).unlink(missing_ok=True)  # A kill left it; here it is to tell when the run has begun.
            process = _start(command, out)
            while process.poll() is None and not (out / LOCK_FILE).exists():
                time.sleep(0.02)
            time.sleep(random.uniform(0, 3) if progress < case.length / 10 else 0)
            while process.poll() is None and case.progress(out, url, before) < progress:
                time.sleep(0.005)
            time.sleep(random.uniform(0, 0.2))
            stopped += _stop(process, sign)
            unrecorded = ask_process(url).get("received", 0) - before - case.recorded(out)
            assert unrecorded >= lost if sign == signal.SIGKILL else unrecorded == lost, sign.name
            lost = unrecorded
        _finish(command, out)
    assert _made(out) == _made(root / "whole" / "out")
    assert stopped >= moments // 2, "most signals came when all was done"


def _stop_once_asked(command: Sequence[str], out: Path, url: str, sign: signal.Signals, enough: int = 20) -> int:
    """Stop a command when so many requests are answered; returns how many the server got."""
    process = _start(command, out)
    while process.poll() is None and ask_process(url).get("answered", 0) < enough:
        time.sleep(0.02)
    assert _stop(process, sign), "it had ended"
    return ask_process(url)["received"]


def test_training_a_policy_keeps_what_was_under_way_when_it_is_stopped(tmp_path):
    with endpoint_process("--latency", "0.4", "--no_log") as url:
        received = _stop_once_asked(_train_policy(tmp_path, url), tmp_path / "out", url, signal.SIGTERM)
        assert CASES["train-policy"].recorded(tmp_path / "out") == received


@pytest.mark.slow
@pytest.mark.parametrize("sign", SIGNALS)
def test_training_a_bandit_keeps_what_was_under_way_when_it_is_stopped(sign, tmp_path):
    with endpoint_process("--latency", "0.4", "--no_log") as url:
        command = [*_train_policy(tmp_path, url), "--chooser", "linucb"]
        received = _stop_once_asked(command, tmp_path / "out", url, sign)
        assert CASES["train-policy"].recorded(tmp_path / "out") == received


@pytest.mark.slow
@pytest.mark.parametrize("sign", SIGNALS)
def test_a_comparison_keeps_what_was_under_way_when_it_is_stopped(sign, tmp_path):
    with endpoint_process("--latency", "0.2", "--no_log") as url:
        command = ["compare", "--methods", "uniform", "--budget", "60", "--repetitions", "2", *TRAIN_RULES, *WHOLE]
        received = _stop_once_asked([*command, "--expert", f"endpoint:m@{url}"], tmp_path / "out", url, sign)
    (ledger,) = (tmp_path / "out" / "runs").glob("*.sqlite")
    assert report(ledger)["roles"]["all"]["attempts"] == received


@pytest.mark.slow
@pytest.mark.parametrize("sign", SIGNALS)
def test_several_processes_keep_what_was_under_way_and_one_of_them_tells(sign, tmp_path):
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2", "--main_process_port", "0"]
    launcher += [
        "--config_file",
        str(resource("accelerate_configs/ddp.yaml")),
        str(resource("recipes/evolve_dataset.py")),
    ]
    with endpoint_process("--latency", "0.3", "--no_log") as url:
        words = [*launcher, *_evolve(tmp_path, url)[1:], "--output_dir", str(tmp_path / "out")]
        process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, preexec_fn=heed_signals)
        while process.poll() is None and ask_process(url).get("answered", 0) < 10:
            time.sleep(0.05)
        asked = time.monotonic()
        process.send_signal(sign)
        error = process.communicate()[1]
        assert time.monotonic() - asked < 5 + 1
        assert error.count(f"stopped by {sign.name}") == 1
        assert CASES["evolve"].recorded(tmp_path / "out") == ask_process(url)["received"]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_the_launcher_of_fine_tuning_passes_a_signal_on_and_ends_with_its_number(processes, tmp_path):
    options = ["--accelerate_config", "ddp", "--num_processes", str(processes), "--main_process_port", "0"]
    process = _start([*_sft(tmp_path, ""), *options, "--max_steps", "100000"], tmp_path / "out")
    while process.poll() is None and not list((tmp_path / "out").glob("checkpoint-*")):
        time.sleep(0.05)
    assert _stop(process, signal.SIGTERM)


@pytest.mark.slow
@pytest.mark.parametrize("sign", SIGNALS)
def test_a_push_to_a_hub_that_does_not_answer_is_stopped(sign, tmp_path):
    made = load_recipe("evolve_dataset").main([*_rules(tmp_path), "--output_dir", str(tmp_path / "rows")])
    assert made["rows"]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hub = {"HF_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}", "HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_x"}
        words = [sys.executable, "-m", "teamsrl_hf.cli", "push", str(tmp_path / "rows"), "me/rows"]
        pipes = {"stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(words, env={**os.environ, **hub}, preexec_fn=heed_signals, **pipes)
        silent.accept()
        assert _stop(process, sign)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_quickstart_that_is_stopped_in_each_stage_ends_as_if_it_had_not_been(tmp_path):
    for sign, stage in zip(SIGNALS, ("policy", "dataset", "model")):
        process = _start(["quickstart"], tmp_path / "stopped" / "out")
        while process.poll() is None and not (tmp_path / "stopped" / "out" / stage / LOCK_FILE).exists():
            time.sleep(0.01)
        assert _stop(process, sign)
    for name in ("stopped", "whole"):
        _finish(["quickstart"], tmp_path / name / "out")
    assert _made(tmp_path / "stopped" / "out") == _made(tmp_path / "whole" / "out")


def _rules(root: Path) -> list[str]:
    return [*EVOLVE_RULES, "--chooser", "uniform", "--license", "mit", "--seeds", str(_seeds(root, 12))]


@pytest.mark.slow
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("name", CASES)
def test_twenty_signals_change_no_byte_and_all_but_kills_lose_nothing(name, tmp_path):
    _stop_again_and_again(CASES[name], 20, 1, tmp_path)
