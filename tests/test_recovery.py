"""Killed at any moment and run again, an evolution ends with the same bytes and buys nothing twice.

The command is killed while 64 requests are in flight to an endpoint in a process of its own, whose log tells what was
asked and how often. What stops a run more gently is told in one line, and the same command goes on from there.
"""

import json
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing

import pytest
from asked import EVOLVE_RULES, WHOLE
from endpoint_server import EndpointServer, ask_process, endpoint_process
from signalling import heed_signals

from teamsrl_hf import Ledger
from teamsrl_hf.cli import load_recipe, main
from teamsrl_hf.paths import resource as recipe
from teamsrl_hf.runs import NOT_ROWS

IN_FLIGHT = 64
EVOLVE = ["--chooser", "uniform", "--operations_per_episode", "2", "--concurrency", str(IN_FLIGHT)]


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    path = tmp_path_factory.mktemp("seeds") / "seeds.jsonl"
    rows = [{"instruction": f"Explain to a beginner how machine number {i} came about."} for i in range(150)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _command(folder, seeds, url=None, *options):
    expert = [*EVOLVE_RULES, *(["--expert", f"endpoint:stand-in@{url}", *WHOLE] if url else [])]
    script = str(recipe("recipes/evolve_dataset.py"))
    return [sys.executable, script, *EVOLVE, "--seeds", str(seeds), "--output_dir", str(folder), *expert, *options]


def _start(command, prepare=heed_signals):
    env = {**os.environ, "PYTHONPATH": str(recipe("recipes").parent)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=env, preexec_fn=prepare, **pipes)


def _finish(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err[-2000:]
    return out


def _bytes(folder):
    files = [*folder.rglob("*.parquet"), folder / "README.md"]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def _recorded(folder):
    if not (folder / "ledger.sqlite").exists():
        return 0
    with closing(sqlite3.connect(folder / "ledger.sqlite")) as ledger:
        return ledger.execute("SELECT COUNT(*) FROM calls WHERE role = 'expert'").fetchone()[0]


def _told(process_error):
    """The lines on standard error without those of the progress bar."""
    lines = process_error.replace("\r", "\n").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("Evolving")]


def _kill_and_compare(tmp_path, seeds, kills, luck):
    """Returns how many requests the kills wasted."""
    moments = random.Random(luck)
    with endpoint_process("--latency", "0.05") as url:
        _finish(_start(_command(tmp_path / "whole", seeds, url)))
        whole = Counter(entry["key"] for entry in ask_process(url, "log"))
        assert set(whole.values()) == {1}
        ask_process(url, "counts", "DELETE")
        lost, late, folder = 0, 0, tmp_path / "killed"
        for progress in sorted(moments.choices(range(1, len(whole)), k=kills)):
            process = _start(_command(folder, seeds, url))
            # Spread over all of it: so and so many requests were new, then at any moment up to the next answers.
            while ask_process(url).get("received", 0) - lost < progress and process.poll() is None:
                time.sleep(0.01)
            time.sleep(moments.uniform(0, 0.06))
            process.send_signal(signal.SIGKILL)
            process.communicate()
            if process.returncode == 0:
                late += 1
                continue
            unrecorded = ask_process(url)["received"] - _recorded(folder) - lost
            assert 0 <= unrecorded <= IN_FLIGHT
            lost += unrecorded
            assert not (folder / "README.md").exists(), "a partial run looks whole"
        _finish(_start(_command(folder, seeds, url)))
        asked = Counter(entry["key"] for entry in ask_process(url, "log"))
    assert _bytes(folder) == _bytes(tmp_path / "whole")
    assert asked.keys() == whole.keys()
    assert asked.total() - len(asked) == lost
    assert late <= kills // 2, "most kills came when all was done"
    return lost


def test_two_kills_change_no_byte_and_repeat_only_what_was_in_flight(seeds, tmp_path):
    assert 0 < _kill_and_compare(tmp_path, seeds, kills=2, luck=7) <= 2 * IN_FLIGHT


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_twenty_kills_change_no_byte_and_repeat_only_what_was_in_flight(seeds, tmp_path):
    assert 0 < _kill_and_compare(tmp_path, seeds, kills=20, luck=1) <= 20 * IN_FLIGHT


@pytest.fixture(scope="module")
def unbroken(seeds, tmp_path_factory):
    """What the rulebook makes of the seeds, in one go."""
    folder = tmp_path_factory.mktemp("unbroken") / "out"
    load_recipe("evolve_dataset").main(_command(folder, seeds)[2:])
    return folder


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_within_seconds_and_the_same_command_goes_on(sign, seeds, tmp_path):
    with endpoint_process("--latency", "0.3") as url:
        process = _start(_command(tmp_path, seeds, url))
        while not (known := ask_process(url).get("answered", 0)):
            time.sleep(0.05)
        asked = time.monotonic()
        process.send_signal(sign)
        _, err = process.communicate(timeout=30)
        assert time.monotonic() - asked < 5
        assert process.returncode == 128 + sign
        assert _told(err) == [f"stopped by {sign.name}; run the same command again to go on"]
        received = ask_process(url)["received"]
        assert known <= _recorded(tmp_path)
        # What was in flight was let to end, and is paid for: nothing of it is asked again.
        assert _recorded(tmp_path) == received
        _finish(_start(_command(tmp_path, seeds, url)))
        assert len({entry["key"] for entry in ask_process(url, "log")}) == ask_process(url)["received"]


def test_a_full_disk_is_told_in_one_line_and_the_same_command_goes_on(seeds, unbroken, tmp_path):
    def small_disk():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    process = _start(_command(tmp_path, seeds), small_disk)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    (line,) = _told(err)
    assert line.startswith("error: ")
    assert "run again" in line or "Errno" in line or "Error writing" in line
    assert not (tmp_path / "README.md").exists()
    _finish(_start(_command(tmp_path, seeds)))
    assert _bytes(tmp_path) == _bytes(unbroken)


def test_a_spent_budget_is_told_in_one_line_and_a_higher_one_goes_on(seeds, unbroken, tmp_path, capsys):
    command = _command(tmp_path, seeds)[2:]
    assert main(["evolve", *command, "--budget_calls", "250"]) == 4
    told = capsys.readouterr()
    assert _told(told.err)[1:] == [
        "stopped: The budget of 250 calls is spent: 250 so far, and the next call may take 1; run again with a higher "
        "budget_calls to go on where this stopped."
    ]
    assert "calls     expert" in told.err
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.calls == 250
    assert not (tmp_path / "README.md").exists()
    assert main(["evolve", *command, "--budget_calls", "100000"]) == 0
    assert _bytes(tmp_path) == _bytes(unbroken)


def test_a_ledger_in_use_is_named_and_nothing_is_written(seeds, tmp_path, capsys):
    with Ledger(tmp_path / "ledger.sqlite"):
        options = ["--ledger", str(tmp_path / "ledger.sqlite")]
        assert main(["evolve", *_command(tmp_path / "out", seeds)[2:], *options]) == 2
    assert "ledger.sqlite is in use by another process" in capsys.readouterr().err
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"run.json", NOT_ROWS}


def test_a_refused_row_costs_itself_alone_and_is_asked_again_when_told_so(tmp_path):
    rows = [{"instruction": f"Explain how machine number {i} came about."} for i in range(20)]
    rows[7]["instruction"] = "Explain REFUSE-THIS to a beginner."
    (tmp_path / "seeds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with EndpointServer(refused="REFUSE-THIS") as server:
        command = _command(tmp_path / "out", tmp_path / "seeds.jsonl", server.url)[2:]
        evolve = load_recipe("evolve_dataset").main
        first = evolve(command)
        assert first["rejections"]["call_failed"] == 2  # Both operations tried on that seed.
        before = len(server.log)
        assert evolve(command) == first
        assert len(server.log) == before
        assert evolve([*command, "--retry_errors", "true"])["rejections"]["call_failed"] == 2
        asked_again = [entry.content for entry in server.log[before:]]
        assert len(asked_again) == 2
        assert all("REFUSE-THIS" in content for content in asked_again)
