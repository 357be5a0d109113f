"""Killed at any moment and run again, an evolution ends with the same bytes and buys nothing twice."""

import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

# One process of an evolution: models that take their time, each answered call noted in a log beside the ledger.
SCRIPT = """
import asyncio, hashlib, sys
from pathlib import Path
from teamsrl_hf import DatasetEvolver, EvolverConfig, Ledger, Rulebook, load_seeds, uniform_chooser
from teamsrl_hf.cards import front_matter
from teamsrl_hf.ledger import request_key
from teamsrl_hf.operations import OPERATIONS
from teamsrl_hf.schema import write_folder

folder, log = Path(sys.argv[1]), open(sys.argv[2], "a")

class Noted(Rulebook):
    async def __call__(self, request):
        answer = await super().__call__(request)
        await asyncio.sleep(0.001)
        log.write(request_key(request, self.model).hex() + "\\n")
        log.flush()
        return answer

with Ledger(folder / "ledger.sqlite") as ledger:
    model = ledger.record(Noted())
    evolver = DatasetEvolver(model, model, uniform_chooser(OPERATIONS), OPERATIONS, EvolverConfig(concurrency=8))
    results = [result for chain in evolver.evolve(load_seeds()[:60]) for result in chain]
    write_folder(folder, results, frozenset(), lambda configs: front_matter({"configs": configs}))
"""


def _start(folder: Path) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(folder), str(folder / "log.txt")])


def _logged(folder: Path) -> list[str]:
    return (folder / "log.txt").read_text().split() if (folder / "log.txt").exists() else []


def _recorded(folder: Path) -> set[str]:
    if not (folder / "ledger.sqlite").exists():
        return set()
    with closing(sqlite3.connect(folder / "ledger.sqlite")) as ledger:
        return {key.hex() for (key,) in ledger.execute("SELECT key FROM calls")}


def _parquet(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*.parquet"))}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    started = time.monotonic()
    assert _start(folder).wait() == 0
    return folder, time.monotonic() - started


def test_ten_kills_change_no_byte_and_repeat_no_answered_call(unbroken, tmp_path):
    whole, seconds = unbroken
    moments = random.Random(7)
    kills = 0
    for _ in range(10):
        recorded, logged = _recorded(tmp_path), len(_logged(tmp_path))
        process = _start(tmp_path)
        # Spread over the whole run: start-up, walking, answering, writing.
        time.sleep(seconds * moments.uniform(0.3, 1.0))
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        assert not recorded & set(_logged(tmp_path)[logged:])
    recorded, logged = _recorded(tmp_path), len(_logged(tmp_path))
    assert _start(tmp_path).wait() == 0
    assert not recorded & set(_logged(tmp_path)[logged:])
    assert kills >= 3
    assert _parquet(tmp_path) == _parquet(whole)
    # What was under way when a kill came, at most eight chains walked and eight answered, is all that was asked again.
    assert len(_logged(tmp_path)) - len(set(_logged(tmp_path))) <= kills * 16
    assert _recorded(tmp_path) == _recorded(whole)
