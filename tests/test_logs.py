"""The log of a run: one line for each change of state, in the server's words, and not one for each request."""

import asyncio
import json
import logging
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
from endpoint_server import EndpointServer, echo_answer

from teamsrl_hf import Completion, EndpointGenerator, Ledger, Request, ScriptedGenerator
from teamsrl_hf.models.parts import merge_parts, open_part, prepare_parts

MODEL = ScriptedGenerator(lambda request: "Because.")


def question(text):
    return Request("expert", ({"role": "user", "content": text},))


def ask(url, texts, model="tiny", **options):
    async def run():
        generator = EndpointGenerator(model, url, **{"backoff": 0.05, "concurrency": 8, **options})
        try:
            return await asyncio.gather(*(generator(question(text)) for text in texts))
        finally:
            await generator.close()

    return asyncio.run(run())


@pytest.fixture
def log(caplog):
    """The lines so far, each as its level and its text."""
    caplog.set_level(logging.INFO, "teamsrl_hf")

    def lines():
        found = [(record.levelname, record.getMessage()) for record in caplog.records if "teamsrl_hf" in record.name]
        caplog.clear()
        return found

    return lines


@pytest.mark.parametrize(("status", "said"), [(429, "limit"), (503, "unavailable")])
def test_a_pause_is_a_line_when_it_begins_and_one_when_it_ends(log, status, said):
    with EndpointServer(echo_answer, outage=0.6, outage_status=status, retry_after=0.1) as server:
        ask(server.url, [f"Question {i}?" for i in range(40)])
    (begins, first), (ends, last) = log()
    assert (begins, ends) == ("WARNING", "INFO")
    assert first == f'tiny: HTTP {status}: {{"error": "{said}"}}; requests wait, and are tried again for up to 300 s'
    assert last.startswith("tiny: answers again after ")
    refused = int(last.rpartition("requests refused: ")[2])
    assert refused == server.counts()[said]


def test_pauses_that_follow_each_other_closely_are_one_line(log):
    with EndpointServer(echo_answer, shares={"limit": 0.3}, retry_after=0.01) as server:
        ask(server.url, [f"Question {i}?" for i in range(60)], backoff=0.01)
        assert server.counts()["limit"] > 10
    assert [level for level, _ in log()].count("WARNING") == 1


def test_requests_that_are_given_up_in_an_outage_are_one_line(log):
    with EndpointServer(echo_answer, outage=30, outage_status=503, retry_after=0) as server:
        answers = ask(server.url, [f"Question {i}?" for i in range(8)], max_wait=0.5)
    assert {answer.error is None for answer in answers} == {False}
    assert log() == [
        ("WARNING", 'tiny: HTTP 503: {"error": "unavailable"}; requests wait, and are tried again for up to 0.5 s'),
        ("WARNING", 'tiny: HTTP 503: {"error": "unavailable"}, for 0.5 s by now; requests fail'),
    ]


def test_a_wait_that_is_longer_than_allowed_is_said_to_be(log):
    with EndpointServer(echo_answer, outage=30, retry_after=60) as server:
        ask(server.url, ["Why?"], max_wait=5)
    assert [text for _, text in log()] == [
        'tiny: HTTP 429: {"error": "limit"}; it asks for a wait of 60 s, longer than max_wait (5 s); requests fail'
    ]


def test_no_token_is_in_any_line(log, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "sk-PLANTED0123456789")
    with EndpointServer(echo_answer, shares={"error": 0.5, "limit": 0.2}, retry_after=0.01) as server:
        ask(server.url, [f"Question {i}?" for i in range(20)], api_key_env="SECRET_TOKEN")
    assert log()
    assert "PLANTED" not in str(log())


def test_a_ledger_says_what_it_holds_and_at_its_end_what_it_replayed(log, tmp_path):
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        for text in "abc":
            asyncio.run(ledger.record(MODEL)(question(text)))
    assert log() == []
    with Ledger(path) as ledger:
        for text in "bcd":
            asyncio.run(ledger.record(MODEL)(question(text)))
    ledger.close()
    assert log() == [
        ("INFO", f"The ledger {path} holds 3 calls; what was answered is replayed."),
        ("INFO", f"The ledger {path} replayed 2 answers."),
    ]


def test_a_ledger_of_an_older_version_is_a_line_when_it_is_migrated(log, tmp_path):
    path = tmp_path / "ledger.sqlite"
    Ledger(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version=2")
    for _ in range(2):
        Ledger(path).close()
    assert log() == [("INFO", f"The ledger {path} was of an older version, and is now of version 7.")]


def test_tokens_that_are_estimated_are_one_warning_for_a_model(log, tmp_path):
    class Silent:
        model = "silent"

        async def __call__(self, request):
            return Completion("A wren sings.", self.model)

    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        recorded = ledger.record(Silent())
        for text in "abc":
            asyncio.run(recorded(question(text)))
    assert log() == [("WARNING", "silent reports no tokens; one is booked for every four bytes.")]


def test_ledgers_of_other_processes_that_are_taken_in_are_one_line(log, tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        identity = prepare_parts(ledger, 2)
        for rank in range(2):
            open_part(ledger.path, identity, rank).close()
        merge_parts(ledger)
        merge_parts(ledger)
    assert log() == [("INFO", f"The ledger {tmp_path}/ledger.sqlite took in those of 2 processes.")]


def test_the_command_shows_an_outage_on_stderr(tmp_path):
    seeds = tmp_path / "seeds.jsonl"
    seeds.write_text(json.dumps({"instruction": "Name a bird of prey."}) + "\n")
    with EndpointServer(echo_answer, outage=0.5, outage_status=503, retry_after=0.1) as server:
        expert = json.dumps({"endpoint": f"tiny@{server.url}", "backoff": 0.05})
        command = [sys.executable, "-m", "teamsrl_hf.cli", "evolve", "--expert", expert, "--chooser", "uniform"]
        command += ["--reviewer", "rulebook", "--instructor", "rulebook"]
        command += ["--seeds", str(seeds), "--output_dir", str(tmp_path / "out"), "--test_size", "0"]
        done = subprocess.run(command, capture_output=True, text=True)
    said = [line for line in done.stderr.splitlines() if "HTTP 503" in line]
    assert len(said) == 1
    assert said[0].endswith(
        'tiny: HTTP 503: {"error": "unavailable"}; requests wait, and are tried again for up to 300 s'
    )
