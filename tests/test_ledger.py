import asyncio
import sqlite3
import subprocess
import sys
from dataclasses import replace

import pytest

from teamsrl_hf import Completion, Ledger, Request, Sampling, ScriptedGenerator
from teamsrl_hf.ledger import request_key


def _request(text="Name a bird.", **changes):
    return replace(Request("expert", ({"role": "user", "content": text},)), **changes)


def test_an_answered_request_is_replayed_and_not_asked_again(tmp_path):
    model = ScriptedGenerator(lambda request: "A wren.")
    for _ in range(2):
        with Ledger(tmp_path / "ledger.sqlite") as ledger:
            assert asyncio.run(ledger.record(model)(_request())).text == "A wren."
    assert model.calls == 1


def test_the_answer_is_on_disk_before_anyone_sees_it(tmp_path):
    script = f"""
import asyncio, os
from teamsrl_hf import Ledger, Request, ScriptedGenerator
async def main():
    model = Ledger({str(tmp_path / "ledger.sqlite")!r}).record(ScriptedGenerator(lambda request: "bought"))
    await model(Request("expert", ({{"role": "user", "content": "Name a bird."}},)))
    os.kill(os.getpid(), 9)
asyncio.run(main())
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == -9
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.find(request_key(_request(), "scripted")).text == "bought"


def test_two_equal_requests_in_flight_buy_one_answer(tmp_path):
    calls = []

    class Slow:
        model = "slow"

        async def __call__(self, request):
            calls.append(request)
            await asyncio.sleep(0.02)
            return Completion("A wren.", "slow")

    async def main():
        with Ledger(tmp_path / "ledger.sqlite") as ledger:
            model = ledger.record(Slow())
            return await asyncio.gather(model(_request()), model(_request()))

    first, second = asyncio.run(main())
    assert first == second
    assert len(calls) == 1


@pytest.mark.parametrize(
    "other",
    [
        _request("Name a bird!"),
        _request(role="judge"),
        _request(sampling=Sampling(temperature=0.1)),
        _request(sampling=Sampling(seed=1)),
        _request(sample_index=1),
        _request(messages=({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a bird."})),
    ],
)
def test_whatever_could_change_the_answer_changes_the_key(other):
    assert request_key(other, "m") != request_key(_request(), "m")
    assert request_key(_request(), "n") != request_key(_request(), "m")


def test_a_failure_is_replayed_unless_the_user_asks_to_retry(tmp_path):
    answers = [Completion("", "scripted", error="HTTP 400"), Completion("A wren.", "scripted")]
    model = ScriptedGenerator(answers)
    texts = []
    for retry in (False, False, True):
        with Ledger(tmp_path / "ledger.sqlite", retry_errors=retry) as ledger:
            texts.append(asyncio.run(ledger.record(model)(_request())).text)
    assert texts == ["", "", "A wren."]
    assert model.calls == 2


def test_totals_add_up_by_role(tmp_path):
    model = ScriptedGenerator(lambda request: Completion("x", "m", prompt_tokens=10, completion_tokens=3))
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        recorded = ledger.record(model)
        for text, role in (("a", "expert"), ("b", "expert"), ("a", "reviewer")):
            asyncio.run(recorded(_request(text, role=role)))
        totals = ledger.totals()
    assert {role: (t.calls, t.prompt_tokens, t.completion_tokens) for role, t in totals.items()} == {
        "expert": (2, 20, 6),
        "reviewer": (1, 10, 3),
    }


def test_a_second_process_is_told_that_the_ledger_is_in_use(tmp_path):
    path = tmp_path / "ledger.sqlite"
    script = f"from teamsrl_hf import Ledger; Ledger({str(path)!r})"
    with Ledger(path):
        second = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "is in use by another process" in second.stderr


def test_a_file_that_is_no_ledger_is_refused_and_left_as_it_was(tmp_path):
    path = tmp_path / "ledger.sqlite"
    path.write_text("my diary " * 100)
    with pytest.raises(ValueError, match="is not a ledger"):
        Ledger(path)
    assert path.read_text() == "my diary " * 100


def test_a_full_disk_is_told_in_one_line_and_the_answer_is_not_handed_out(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger._connection.execute("PRAGMA max_page_count=8")
    model = ledger.record(ScriptedGenerator(lambda request: "x" * 100_000))
    with pytest.raises(OSError, match=r"can't be written \(database or disk is full\)"):
        asyncio.run(model(_request()))


def test_the_ledger_holds_no_prompt_text(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        asyncio.run(ledger.record(ScriptedGenerator(lambda request: "A wren."))(_request("a secret question")))
    columns = [row[1] for row in sqlite3.connect(path).execute("PRAGMA table_info(calls)")]
    assert "messages" not in columns
    assert b"a secret question" not in path.read_bytes()
