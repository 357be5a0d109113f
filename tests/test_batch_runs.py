"""Runs of `teamsrl evolve` in batches: a dataset with the bytes of the online run, whatever happens on the way."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from asked import EVOLVE_RULES, WHOLE, changed, read_task
from batch_server import BatchServer, lost, refused, rulebook_text, twice, twice_and_lost
from signalling import heed_signals

from teamsrl_hf.calls import run_async
from teamsrl_hf.cli import main
from teamsrl_hf.environment.choosers import CHOOSERS
from teamsrl_hf.evolve.config import EvolverConfig
from teamsrl_hf.evolve.evolver import DatasetEvolver
from teamsrl_hf.models.base import ScriptedGenerator
from teamsrl_hf.models.batch.endpoint import BatchEndpoint
from teamsrl_hf.models.ledger import Ledger
from teamsrl_hf.text.operations import select_operations
from teamsrl_hf.types import Seed

SEEDS = [f"Explain to a beginner how machine number {i} came about." for i in range(8)]


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("TEAMSRL_API_KEY", "PLANTED-71f0")


def dataset(folder):
    """The files of a dataset, apart from the record of the run and the ledger."""
    names = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(("ledger", "run.json"))]
    return {str(path.relative_to(folder)): path.read_bytes() for path in names if ".cache" not in path.parts}


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    path = tmp_path_factory.mktemp("seeds") / "seeds.jsonl"
    path.write_text("".join(json.dumps({"instruction": text}) + "\n" for text in SEEDS))
    return path


def command(seeds, out, server, *options, batch=True, **spec):
    more = {"batch": True, "poll_interval": 0.02, "max_wait": 2} if batch else {"backoff": 0.01}
    expert = json.dumps({"endpoint": f"stand-in@{server.url}", **more, **spec})
    where = ["--seeds", str(seeds), "--output_dir", str(out), "--test_size", "0", "--operations_per_episode", "3"]
    return ["evolve", *where, *EVOLVE_RULES, *WHOLE, "--chooser", "uniform", "--expert", expert, *options]


def evolve(*where, **spec):
    return main(command(*where, **spec))


METHODS = {
    "stepwise": ([], 4),
    "plan": (["--method", "plan", "--instructor", "rulebook"], 2),
    "plan_answer": (["--method", "plan_answer", "--instructor", "rulebook"], 1),
    "packed": (["--method", "packed", "--instructor", "rulebook"], 1),
}


@pytest.fixture(scope="module")
def online(seeds, tmp_path_factory):
    """The dataset of a run without batches, by method, and what it bought."""
    made = {}

    def run(method):
        if method not in made:
            out = tmp_path_factory.mktemp(method) / "out"
            with BatchServer(rulebook_text) as server:
                assert evolve(seeds, out, server, *METHODS[method][0], batch=False) == 0
            made[method] = dataset(out), server.bought
        return made[method]

    return run


@pytest.mark.parametrize("method", METHODS)
def test_a_run_in_batches_makes_the_dataset_of_one_without_in_as_few_waves_as_it_has_steps(
    method, seeds, tmp_path, online
):
    options, waves = METHODS[method]
    with BatchServer(rulebook_text) as server:
        assert evolve(seeds, tmp_path / "out", server, *options) == 0
    files, bought = online(method)
    assert {"README.md", "lineage.json", "report.html"} < set(files)
    assert any(name.endswith(".parquet") for name in files)
    assert dataset(tmp_path / "out") == files
    assert server.bought == bought
    assert len(server.jobs) == waves


def ended(status, share):
    return lambda job, ids: (status, ids[: int(len(ids) * share)])


def doubled(results):
    return [*results, *((name, 200, "Late.") for name, _, _ in results[:2])]


def flagged(body):
    return (400, {"error": {"message": "Flagged."}}) if "number 3" in json.dumps(body) else None


# Faults of the server, how often the command is run until it ends well, and the highest count of one purchase.
FAULTS = {
    "create answer lost": ({"faults": {"create": [lost]}}, 1),
    "create done twice": ({"faults": {"create": [twice]}, "polls": 2}, 1),
    "create done twice, answer lost": ({"faults": {"create": [twice_and_lost]}, "polls": 2}, 1),
    "expired with part done": ({"endings": [ended("expired", 0.4)]}, 1),
    "cancelled": ({"endings": [ended("cancelled", 0.4)]}, 2),
    "order swapped": ({"order": lambda lines: lines[::-1]}, 1),
    "duplicate ids": ({"order": doubled}, 1),
    "quota in the middle": ({"credit": 5}, 2),
    "result file gone for a while": ({"faults": {"output": [refused(404)] * 2}}, 1),
    "result file gone for a run": ({"faults": {"output": [refused(404)] * 3}}, 2),
    "429 on create": ({"faults": {"create": [refused(429)] * 2}}, 1),
    "upload answer lost": ({"faults": {"upload": [lost]}}, 1),
    "poll answers lost": ({"faults": {"get": [lost, refused(502), refused(429)]}}, 1),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_no_fault_changes_a_byte_or_buys_anything_twice(fault, seeds, tmp_path, online, capsys):
    how, runs = FAULTS[fault]
    how = dict(how)
    credit = how.pop("credit", float("inf"))
    with BatchServer(rulebook_text, **how) as server:
        server.credit = credit
        for _ in range(runs - 1):
            assert evolve(seeds, tmp_path / "out", server, *METHODS["plan"][0]) == 4
            server.credit = float("inf")
        assert evolve(seeds, tmp_path / "out", server, *METHODS["plan"][0]) == 0
    files, bought = online("plan")
    assert dataset(tmp_path / "out") == files
    assert server.bought == bought
    assert set(bought.values()) == {1}


def test_an_error_file_alone_stops_the_run_and_the_next_one_asks_again(seeds, tmp_path, online, capsys):
    with BatchServer(rulebook_text, refuse=lambda body: (400, {"error": {"message": "No such voice."}})) as server:
        assert evolve(seeds, tmp_path / "out", server, *METHODS["plan"][0]) in (3, 4)
        assert "No such voice." in capsys.readouterr().err
        server.refuse = None
        assert evolve(seeds, tmp_path / "out", server, *METHODS["plan"][0]) == 0
    files, bought = online("plan")
    assert (dataset(tmp_path / "out"), server.bought) == (files, bought)


def test_another_account_is_refused_and_the_first_one_goes_on(seeds, tmp_path, online, monkeypatch, capsys, caplog):
    monkeypatch.setenv("TEAMSRL_API_KEY", "first")
    with BatchServer(rulebook_text, faults={"get": [refused(403)]}) as server:
        assert evolve(seeds, tmp_path / "out", server, *METHODS["plan"][0]) == 4
        assert "batches under way" in caplog.text
        assert "batch_1" in caplog.text
        monkeypatch.setenv("TEAMSRL_API_KEY", "second")
        assert evolve(seeds, tmp_path / "out", server, *METHODS["plan"][0]) == 2
        assert "was made by the account" in capsys.readouterr().err
        monkeypatch.setenv("TEAMSRL_API_KEY", "first")
        assert evolve(seeds, tmp_path / "out", server, *METHODS["plan"][0]) == 0
    files, bought = online("plan")
    assert (dataset(tmp_path / "out"), server.bought) == (files, bought)


def test_cancel_keeps_what_was_answered_and_the_next_run_asks_for_the_rest(seeds, tmp_path, online, capsys):
    with BatchServer(rulebook_text, polls=1) as server:
        assert evolve(seeds, tmp_path / "out", server, *METHODS["plan"][0], "--cancel") == 2
        assert "no batch to cancel" in capsys.readouterr().err
        server.faults["get"] = [lambda server, do: do(), refused(403)]
        assert evolve(seeds, tmp_path / "out", server, *METHODS["plan"][0]) == 4
        del server.faults["get"]
        server.polls = 10
        assert evolve(seeds, tmp_path / "out", server, *METHODS["plan"][0], "--cancel") == 0
        assert "batches cancelled: 1, answers kept: 4" in capsys.readouterr().err
        server.polls = 1
        assert evolve(seeds, tmp_path / "out", server, *METHODS["plan"][0]) == 0
    files, bought = online("plan")
    assert (dataset(tmp_path / "out"), server.bought) == (files, bought)


def test_a_model_without_a_limit_of_its_own_gets_that_of_the_run_while_all_chains_wait(tmp_path):
    class Reviewer(ScriptedGenerator):
        immediate, now, most = False, 0, 0

        async def __call__(self, request):
            self.now += 1
            self.most = max(self.most, self.now)
            await asyncio.sleep(0.01)
            self.now -= 1
            return await super().__call__(request)

    def text(body):
        task = read_task(body["messages"][-1]["content"])
        return changed(task.plans[0][0], task.texts[0]) if task.kind == "rewrite" else rulebook_text(body)

    operations = select_operations((), (), "large")
    args = EvolverConfig(operations_per_episode=1, concurrency=3)
    with BatchServer(text) as server, Ledger(tmp_path / "l") as ledger:
        expert = BatchEndpoint("stand-in", server.url, poll_interval=0.02)
        reviewer = Reviewer(lambda request: "Different")
        evolver = DatasetEvolver(expert, reviewer, CHOOSERS["uniform"](operations), operations, args)
        made = list(evolver.recorded(ledger).evolve([Seed(text, text) for text in SEEDS]))
        run_async(expert.close())
    assert (len(made), reviewer.most) == (8, 3)
    assert len(server.jobs["batch_1"]["lines"]) == 8


def start(seeds, out, server, *dies, **spec):
    """The command in a process of its own, which may end before a statement of its ledger."""
    client = Path(__file__).with_name("batch_client.py")
    words = command(seeds, out, server, *METHODS["plan"][0], **spec)
    environment = {**os.environ, "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    return subprocess.Popen(
        [sys.executable, str(client), *(map(str, dies) if dies else ("", "0")), *words],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_signals,
    )


def kill_at(moment, number=1):
    """A callback for the server that kills a process at the n-th such moment; the process is in its list."""
    processes, left = [], [number]

    def kill(now):
        left[0] -= now == moment
        if now == moment and left[0] == 0:
            processes[0].kill()
            processes[0].wait()

    return kill, processes


STEPS = ("upload", "create", "list", "get", "output")


def same_in_the_end(seeds, out, server, online):
    """Run the command until its end, and compare."""
    assert evolve(seeds, out, server, *METHODS["plan"][0]) == 0
    files, bought = online("plan")
    assert dataset(out) == files
    assert server.bought == bought


@pytest.mark.parametrize("moment", [f"{when} {step}" for step in STEPS for when in ("before", "after")])
def test_a_process_killed_at_any_call_loses_nothing_and_buys_nothing_again(moment, seeds, tmp_path, online, capsys):
    kill, processes = kill_at(moment)
    with BatchServer(rulebook_text, kill=kill) as server:
        processes.append(start(seeds, tmp_path / "out", server))
        processes[0].communicate(timeout=60)
        assert processes[0].returncode == -signal.SIGKILL
        server.kill = None
        same_in_the_end(seeds, tmp_path / "out", server, online)


@pytest.mark.parametrize(
    "moment", [None, *(f"{when} {s}" for s in ("create", "get", "results") for when in ("before", "after"))]
)
def test_anthropics_form_makes_the_same_dataset_and_survives_as_much(moment, seeds, tmp_path, online, capsys):
    kill, processes = kill_at(moment)
    with BatchServer(rulebook_text, kill=kill) as server:
        if moment is not None:
            processes.append(start(seeds, tmp_path / "out", server, batch_form="messages"))
            processes[0].communicate(timeout=60)
            assert processes[0].returncode == -signal.SIGKILL
        server.kill = None
        assert evolve(seeds, tmp_path / "out", server, *METHODS["plan"][0], batch_form="messages") == 0
    files, bought = online("plan")
    assert dataset(tmp_path / "out") == files
    assert sorted(server.bought.values()) == sorted(bought.values())
    assert len(server.jobs) == 2


STATEMENTS = {
    "written down": ("INSERT INTO batches", 1),
    "its lines": ("INSERT INTO batch_lines", 3),
    "before the creation": ("UPDATE batches", 1),
    "created": ("UPDATE batches", 2),
    "in the middle of the harvest": ("UPDATE batches", 3),
    "at the end of the harvest": ("DELETE FROM batch_lines", 1),
    "in the second wave": ("UPDATE batches", 5),
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_process_killed_between_two_statements_loses_nothing_and_buys_nothing_again(
    name, seeds, tmp_path, online, capsys
):
    with BatchServer(rulebook_text) as server:
        process = start(seeds, tmp_path / "out", server, *STATEMENTS[name])
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        same_in_the_end(seeds, tmp_path / "out", server, online)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_process_killed_at_fifty_moments_loses_nothing_and_buys_nothing_again(seeds, tmp_path, online, capsys):
    luck = random.Random(15)
    with BatchServer(rulebook_text) as server:
        begun = time.monotonic()
        start(seeds, tmp_path / "whole", server).communicate(timeout=60)
        longest = time.monotonic() - begun
    killed = 0
    for number in range(50):
        out = tmp_path / str(number)
        with BatchServer(rulebook_text) as server:
            for _ in range(luck.choice([1, 1, 2, 3])):
                process = start(seeds, out, server)
                # Most of the time goes into imports, at which nothing can go wrong.
                time.sleep(longest * luck.uniform(0.3, 0.95))
                killed += process.poll() is None
                process.kill()
                process.communicate()
            same_in_the_end(seeds, out, server, online)
    assert killed >= 50


def test_ctrl_c_says_how_to_come_back_to_a_batch(seeds, tmp_path, online, capsys):
    with BatchServer(rulebook_text, polls=10**6) as server:
        process = start(seeds, tmp_path / "out", server)
        while server.count("get") < 3:
            time.sleep(0.02)
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=10)
        assert time.monotonic() - begun < 5
        assert process.returncode == 130
        assert "stopped by SIGINT; run the same command again to go on" in said
        assert "has 1 batches under way" in said
        assert "batch_1. The same command fetches their answers; with --cancel it cancels them" in said
        server.jobs["batch_1"]["polls"] = 0
        server.polls = 1
        same_in_the_end(seeds, tmp_path / "out", server, online)
