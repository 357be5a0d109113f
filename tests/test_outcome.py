"""A run that comes to nothing says so: by its exit status, in the server's words, and it goes on once it can."""

import json
from collections import Counter

import pytest
from asked import EVOLVE_RULES, TRAIN_RULES, WHOLE
from datasets import load_dataset
from datasets.exceptions import DataFilesNotFoundError
from endpoint_server import Behaviour, EndpointServer

from teamsrl_hf import Ledger
from teamsrl_hf.cli import main
from teamsrl_hf.runs import read_run

IN_FLIGHT = 4
ALL = ["expert", "reviewer", "instructor"]
METHODS = {"stepwise": ALL[:2], "evol_instruct": ALL[:1], "plan": ALL, "plan_answer": ALL, "packed": ALL}
STATUSES = [401, 402, 403, 404, 400, 422]
COMBINATIONS = [(method, role) for method, roles in METHODS.items() for role in roles]


def is_question(content):
    """Whether a request asks for the answer to an instruction, as it stands."""
    return "\n[" not in content


@pytest.fixture
def seeds(tmp_path):
    path = tmp_path / "seeds.jsonl"
    rows = [{"instruction": f"Explain to a beginner how machine number {i} came about."} for i in range(60)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def evolve(seeds, tmp_path, capsys):
    """A function that evolves; gives the exit status, what was printed, and of that the lines that say why."""

    def run(*options, folder="out"):
        where = ["--seeds", str(seeds), "--output_dir", str(tmp_path / folder), "--operations_per_episode", "2"]
        status = main(
            [
                "evolve",
                *where,
                *EVOLVE_RULES,
                *WHOLE,
                "--chooser",
                "uniform",
                "--concurrency",
                str(IN_FLIGHT),
                *map(str, options),
            ]
        )
        printed = capsys.readouterr()
        told = [line for line in printed.err.splitlines() if line and "Evolving" not in line]
        why = [line for line in told if line.startswith(("stopped: ", "nothing made: ", "error: "))]
        return status, printed.out + "\n".join(told), why

    return run


def refusing(status=401, refuses=lambda content: True, **behaviour):
    return EndpointServer(refuses=refuses, refused_status=status, **behaviour)


def mend(server):
    """From now on everybody is answered; what was received before is forgotten."""
    server.endpoint.behaviour = Behaviour()
    server.endpoint.reset()


@pytest.mark.parametrize(
    ("method", "role", "status"),
    [(*pair, STATUSES[i % len(STATUSES)]) for i, pair in enumerate(COMBINATIONS)],
    ids=[f"{method}-{role}" for method, role in COMBINATIONS],
)
def test_where_all_calls_are_refused_a_run_stops_and_the_same_command_goes_on_later(
    method, role, status, evolve, tmp_path
):
    with refusing(status) as server:
        command = ["--method", method, "--instructor", "rulebook", f"--{role}", f"endpoint:stand-in@{server.url}"]
        ended, out, (line,) = evolve(*command)
        assert ended == 4
        with pytest.raises(DataFilesNotFoundError):
            load_dataset(str(tmp_path / "out"))
        assert f'HTTP {status}: {{"error": "' in line
        assert f"error     {server.counts()['received']} times: HTTP {status}" in out
        assert IN_FLIGHT <= server.counts()["received"] <= 2 * IN_FLIGHT
        refused = server.counts()["received"]
        mend(server)
        status, out, err = evolve(*command)
        assert (status, err) == (0, [])
        assert "error" not in out
        assert "call_failed" not in out
        with Ledger(tmp_path / "out" / "ledger.sqlite") as ledger:
            totals = ledger.totals()
        roles = [role, "judge"] if method == "evol_instruct" else [role]
        assert sum(totals[role].calls for role in roles) == refused + server.counts()["received"]


def test_a_reviewer_that_refuses_all_costs_no_call_of_the_expert_twice(evolve):
    with EndpointServer(latency=0.01) as expert, refusing(403) as reviewer:
        command = ["--expert", f"endpoint:a@{expert.url}", "--reviewer", f"endpoint:b@{reviewer.url}"]
        assert evolve(*command)[0] == 4
        # A few waves, however the two models' answers interleave; the whole run asks for some hundred.
        assert 0 < expert.counts()["received"] <= 8 * IN_FLIGHT
        mend(reviewer)
        assert evolve(*command)[0] == 0
        asked = Counter(entry.key for entry in expert.log)
        assert max(asked.values()) == 1
        assert asked == Counter(entry.key for entry in expert.log if entry.answered)


@pytest.mark.parametrize("method", ["stepwise", "plan", "evol_instruct"])
def test_an_expert_that_refuses_answers_alone_is_found_out_among_its_rewrites(method, evolve):
    with refusing(400, is_question) as server:
        command = ["--method", method, "--instructor", "rulebook", "--expert", f"endpoint:m@{server.url}"]
        status, _, (line,) = evolve(*command)
        assert (status, line.count("HTTP 400")) == (4, 1)
        assert sum(is_question(entry.content) for entry in server.log) <= 2 * IN_FLIGHT
        rewrites = {entry.key for entry in server.log if not is_question(entry.content)}
        mend(server)
        assert evolve(*command)[0] == 0
        assert not rewrites & {entry.key for entry in server.log}


@pytest.mark.parametrize("status", [402, 400])
def test_credit_that_runs_out_in_the_middle_loses_no_row(status, evolve, seeds, tmp_path):
    seeds.write_text("".join(json.dumps({"instruction": f"Draw plan {i} of a house."}) + "\n" for i in range(120)))
    asked = []

    def poor(content):
        asked.append(content)
        return len(asked) > 20

    assert evolve(folder="whole")[0] == 0
    with refusing(status, poor) as server:
        command = ["--expert", f"endpoint:m@{server.url}"]
        assert evolve(*command)[0] == 4
        # A model that has answered may refuse requests one by one for a while, if that is what its status says.
        # Those that had been rewritten are sent for answers, too.
        assert len(asked) <= 20 + 20 + 3 * IN_FLIGHT + (100 if status == 400 else 0)
        mend(server)
        assert evolve(*command)[0] == 0
    whole, out = (read_run(tmp_path / folder)["summary"] for folder in ("whole", "out"))
    assert {name: out[name] for name in ("rows", "rejections", "calls")} == {
        name: whole[name] for name in ("rows", "rejections", "calls")
    }


def test_a_few_refused_requests_are_final_and_told_at_the_end(evolve, tmp_path):
    with refusing(400, lambda content: "machine number 7 " in content) as server:
        command = ["--expert", f"endpoint:m@{server.url}"]
        status, out, err = evolve(*command)
        assert (status, err) == (0, [])
        lines = [line for line in out.splitlines() if not line.startswith("no row    by ")]
        summary = read_run(tmp_path / "out")["summary"]
        assert lines[0] == f"rows      {summary['rows']} from 60 seeds"
        assert "call_failed 2" in lines[1]
        failed = summary["spent"]["failed_calls"]["expert"]
        assert f"({failed} failed)" in lines[2]
        assert lines[3:] == [f'error     {failed} times: HTTP 400: {{"error": "refused"}}']
        assert evolve(*command) == (0, f"{tmp_path}/out is already complete.\n", [])
        before = len(server.log)
        assert evolve(*command, "--retry_errors", "true")[0] == 0
        assert len(server.log) == before + failed


def test_a_run_without_a_row_has_a_status_of_its_own_and_is_not_complete(evolve, tmp_path):
    for _ in range(2):
        status, out, err = evolve("--max_words", 2)
        assert status == 3
        assert err == ["nothing made: no row came of 60 seeds; see above why."]
        assert out.startswith("rows      0 from 60 seeds\nrejected  ")
    assert read_run(tmp_path / "out")["summary"]["rows"] == 0
    with pytest.raises(ValueError, match="no data"):
        load_dataset(str(tmp_path / "out"))


def test_calls_too_few_to_stop_a_run_end_it_without_a_row_and_are_asked_again(evolve, seeds):
    seeds.write_text(json.dumps({"instruction": "Name a river in the north of the country."}) + "\n")
    with refusing(401) as server:
        command = ["--expert", f"endpoint:m@{server.url}", "--test_size", "0", "--concurrency", 16]
        status, out, _ = evolve(*command)
        assert status == 3
        assert 'times: HTTP 401: {"error": "401"} (a token is wanted, but TEAMSRL_API_KEY is not set)' in out
        mend(server)
        assert evolve(*command)[0] == 0


def test_an_outage_that_outlasts_all_patience_stops_the_run_and_costs_no_row(evolve):
    with EndpointServer() as server:
        pass
    spec = {"endpoint": f"m@{server.url}", "max_retries": 1, "backoff": 0.01}
    status, _, (line,) = evolve("--expert", json.dumps(spec))
    assert status == 4
    assert "connection failed" in line
    with EndpointServer(port=server.port):
        assert evolve("--expert", json.dumps(spec))[0] == 0


def test_what_a_server_says_is_shown_without_control_characters(evolve):
    with refusing(400) as server:
        server.endpoint.refuse = lambda fault: _reply(400, "no \x1b[31m such\nmodel sk-12345678")
        status, out, (line,) = evolve("--expert", f"endpoint:m@{server.url}")
    assert status == 4
    assert "no [31m such model ***" in line
    assert "\x1b" not in out + line


@pytest.mark.parametrize("role", ["instructor", "reviewer"])
@pytest.mark.parametrize("chooser", ["policy", "linucb"])
def test_no_chooser_is_trained_where_calls_are_refused_and_the_same_command_trains_one_later(
    chooser, role, seeds, tmp_path, capsys
):
    options = ["--max_steps", "32", "--use_cpu", "true", "--report_to", "none", "--per_device_train_batch_size", "1"]
    command = [
        "train-policy",
        *TRAIN_RULES,
        *WHOLE,
        "--chooser",
        chooser,
        "--seeds",
        str(seeds),
        "--output_dir",
        str(tmp_path / "out"),
    ]
    saved = tmp_path / "out" / {"policy": "model.safetensors", "linucb": "chooser.safetensors"}[chooser]
    with refusing(403) as server:
        command += [*options, f"--{role}", f"endpoint:m@{server.url}"]
        assert main(command) == 4
        assert 'HTTP 403: {"error": "403"}' in capsys.readouterr().err.splitlines()[-1]
        assert server.counts()["received"] <= 2 * 16
        assert not saved.exists()
        mend(server)
        assert main(command) == 0
    assert saved.exists()


def test_a_comparison_stops_where_calls_are_refused_and_goes_on_later(tmp_path, capsys):
    sizes = ["--budget", "50", "--repetitions", "2", "--rollouts", "1", "--test_size", "0.5"]
    command = ["compare", "--methods", "linucb", "uniform", *sizes, *WHOLE, "--output_dir", str(tmp_path / "out")]
    with refusing(402) as server:
        spec = f"endpoint:m@{server.url}"
        command += ["--expert", spec, "--instructor", spec, "--reviewer", "rulebook"]
        assert main(command) == 4
        assert 'HTTP 402: {"error": "402"}' in capsys.readouterr().err
        assert server.counts()["received"] <= 2 * 16
        assert not (tmp_path / "out" / "results.json").exists()
        mend(server)
        assert main(command) == 0


def _reply(status, text):
    from aiohttp import web

    return web.Response(status=status, text=text)
