"""`teamsrl evolve --dry_run` and `--pilot`: what is shown, asked, bought and left behind."""

import json
import re
import sqlite3
import time

import pytest
from asked import EVOLVE_RULES, WHOLE
from datasets import load_dataset
from endpoint_server import EndpointServer
from scripted_server import Server, status

from teamsrl_hf.cli import load_recipe, main
from teamsrl_hf.evolve.shards import Team
from teamsrl_hf.runs import NOT_ROWS, open_run, peek_run, prepare_run

SEEDS = [f"Explain to a beginner how machine number {i} came about." for i in range(12)]
KEY = "Kx9-dry-run-key-4471"


@pytest.fixture
def evolve(tmp_path, capsys, monkeypatch):
    """A function that runs `teamsrl evolve` on twelve seeds; returns exit status, output and errors."""
    monkeypatch.setenv("STAND_IN_KEY", KEY)
    seeds = tmp_path / "seeds.jsonl"
    seeds.write_text("".join(json.dumps({"instruction": text}) + "\n" for text in SEEDS))

    def run(*options, folder="out", rules=EVOLVE_RULES):
        where = ["--seeds", str(seeds), "--output_dir", str(tmp_path / folder), "--test_size", "0"]
        short = ["--operations_per_episode", "2", "--chooser", "uniform"]
        done = main(["evolve", *where, *rules, *WHOLE, *short, *map(str, options)])
        said = capsys.readouterr()
        return done, said.out, said.err

    return run


def spec(server, **options):
    return json.dumps({"endpoint": f"stand-in@{server.url}", "api_key_env": "STAND_IN_KEY", **options})


def bought(folder):
    """Calls to the stand-in that the ledger of a folder holds."""
    connection = sqlite3.connect(folder / "ledger.sqlite")
    found = connection.execute("SELECT COUNT(*), COUNT(error) FROM calls WHERE model = 'stand-in'").fetchone()
    connection.close()
    return found


def forecast_of(said):
    """Likeliest, least and most by (role, amount), as the table of the forecast shows them."""
    line = re.compile(r"^(\w+) +([a-z][a-z ,]*[a-z])((?: +[\d,.]+){2,3})$", re.M)
    return {
        (role, name.split(",")[0]): [float(n.replace(",", "")) for n in numbers.split()]
        for role, name, numbers in line.findall(said)
    }


def test_each_role_is_asked_the_request_that_is_shown_and_no_secret_is(evolve, tmp_path):
    with EndpointServer() as server, Server() as judge:
        done, said, _ = evolve("--dry_run", "--expert", spec(server), "--reviewer", spec(judge))
        (asked,) = [entry.content for entry in server.log]
    assert done == 0
    assert f"POST {server.url}/chat/completions\nAuthorization: Bearer *** (STAND_IN_KEY)\n" in said
    assert f"POST {judge.url}/chat/completions\nAuthorization: Bearer *** (STAND_IN_KEY)\n" in said
    shown = [json.loads(body) for body in re.findall(r"^\{$.*?^\}$", said, re.S | re.M)]
    assert [body["max_tokens"] for body in shown] == [2048, 64]
    assert shown[0]["messages"][-1]["content"] == asked
    assert [shown[1]] == judge.bodies
    assert judge.tokens == [f"Bearer {KEY}"]
    assert re.search(
        r"^expert stand-in answered within \d\.\d s, \d+ prompt tokens and \d+ answer tokens: \w", said, re.M
    )
    assert "reviewer stand-in answered within" in said
    assert KEY not in said
    assert KEY.encode() not in (tmp_path / "out" / "ledger.sqlite").read_bytes()


def test_a_dry_run_writes_the_ledger_alone_and_loads_as_no_dataset(evolve, tmp_path):
    assert evolve("--dry_run")[0] == 0
    assert {file.name for file in (tmp_path / "out").iterdir()} == {NOT_ROWS, "ledger.sqlite"}
    with pytest.raises(FileNotFoundError):
        load_dataset(str(tmp_path / "out"))


def test_what_was_asked_is_asked_neither_by_another_dry_run_nor_by_the_run(evolve, tmp_path):
    with EndpointServer() as server:
        evolve("--dry_run", "--expert", spec(server))
        (first,) = [entry.key for entry in server.log]
        assert evolve("--dry_run", "--expert", spec(server))[0] == 0
        assert len(server.log) == 1
        assert evolve("--expert", spec(server))[0] == 0
        keys = [entry.key for entry in server.log]
    assert keys.count(first) == 1
    assert len(set(keys)) == len(keys) > 12
    assert load_dataset(str(tmp_path / "out"), split="train").num_rows > 0


@pytest.mark.parametrize("method", ["stepwise", "packed"])
def test_the_run_after_a_pilot_buys_the_rest_and_writes_the_rows_of_a_run_without_one(method, evolve, tmp_path):
    with EndpointServer() as server:
        options = "--method", method, "--instructor", "rulebook", "--expert", spec(server)
        assert evolve(*options, folder="plain")[0] == 0
        alone = {entry.key for entry in server.log}
        server.endpoint.reset()
        done, said, _ = evolve(*options, "--pilot", "4")
        assert done == 0
        assert re.search(r"Pilot: \d+ rows from (4|12) seeds; rejected: ", said)
        early = [entry.key for entry in server.log]
        assert evolve(*options)[0] == 0
        keys = [entry.key for entry in server.log]
    assert len(set(keys)) == len(keys) >= len(early) > 1
    assert len(set(early) - alone) <= (method == "packed")  # A made-up pack, to ask the expert before the walk.
    assert alone <= set(keys)
    rows = [load_dataset(str(tmp_path / folder), split="train").to_list() for folder in ("plain", "out")]
    assert rows[0] == rows[1]


def test_a_pilot_of_all_seeds_forecasts_the_very_numbers_of_the_run(evolve, tmp_path):
    (tmp_path / "prices.yaml").write_text("prices: {stand-in: {prompt: 2, completion: 8}}\n")
    with EndpointServer() as server:
        done, said, _ = evolve("--pilot", "12", "--expert", spec(server), "--config", tmp_path / "prices.yaml")
        received = len(server.log)
        assert done == 0
        assert evolve("--expert", spec(server), "--config", tmp_path / "prices.yaml")[0] == 0
        assert len(server.log) == received
    found = forecast_of(said)
    rows = load_dataset(str(tmp_path / "out"), split="train").num_rows
    assert found["dataset", "rows"] == [rows] * 3
    assert found["expert", "calls"] == [received] * 3
    prompt, answer = (found["expert", f"{kind} tokens"][0] for kind in ("prompt", "answer"))
    assert found["expert", "cost"] == [pytest.approx((2 * prompt + 8 * answer) / 1e6, abs=1e-4)] * 3


def test_without_a_pilot_the_forecast_states_bounds_and_without_prices_says_nothing_of_cost(evolve):
    done, said, _ = evolve("--dry_run")
    assert done == 0
    found = forecast_of(said)
    assert found["dataset", "rows"] == [0, 24]
    assert found["expert", "calls"] == [12, 48]
    assert found["reviewer", "calls"] == [0, 24]
    assert found["expert", "answer tokens"] == [12, 48 * 2048]
    assert ("all", "cost") not in found
    assert "No prices are given" in said
    assert "bounds that follow from the method" in said


WRONG = {
    "a wrong key": (status(401, '{"error": {"message": "Incorrect API key provided"}}'), "Incorrect API key provided"),
    "a wrong model": (status(404, '{"error": {"message": "no model stand-in here"}}'), "no model stand-in here"),
    "no credit": (status(402, "Your credit is used up"), "Your credit is used up"),
    "a broken server": (status(500, "kaput"), "kaput"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("role", ["expert", "reviewer"])
def test_a_model_that_does_not_answer_ends_the_dry_run_soon_with_its_servers_words(name, role, evolve, tmp_path):
    handler, words = WRONG[name]
    with Server(always=handler) as server:
        started = time.monotonic()
        done, said, errors = evolve("--pilot", "4", f"--{role}", spec(server))
        assert time.monotonic() - started < 3
        assert 1 <= len(server.bodies) <= 2
    assert done == 4
    assert f"stopped: No answer came from {role} stand-in: " in errors
    assert words in errors
    assert "Forecast" not in said
    assert KEY not in said + errors
    assert bought(tmp_path / "out") == (1, 1)


def test_a_server_that_is_not_there_is_told_soon_and_all_that_failed_are_told_at_once(evolve):
    nobody = json.dumps({"endpoint": "stand-in@http://127.0.0.1:9/v1"})
    started = time.monotonic()
    done, _, errors = evolve("--dry_run", "--expert", nobody, "--reviewer", nobody)
    assert time.monotonic() - started < 3
    assert done == 4
    assert "expert stand-in: connection failed" in errors
    assert "reviewer stand-in: connection failed" in errors


def test_once_corrected_the_question_is_asked_again(evolve, tmp_path):
    with EndpointServer(refuses=lambda content: True, refused_status=401) as server:
        assert evolve("--dry_run", "--expert", spec(server))[0] == 4
        url, port = server.url, server.port
    with EndpointServer(port=port) as server:
        assert server.url == url
        assert evolve("--dry_run", "--expert", spec(server))[0] == 0
    assert bought(tmp_path / "out") == (1, 0)


def test_a_variable_without_a_key_is_told_with_the_request(evolve, monkeypatch):
    with EndpointServer() as server:
        monkeypatch.delenv("TEAMSRL_API_KEY", raising=False)
        _, said, _ = evolve("--dry_run", "--expert", f"endpoint:stand-in@{server.url}")
    assert "Authorization: Bearer *** (TEAMSRL_API_KEY, which is not set: none is sent)" in said


def test_headers_and_queries_are_shown_without_their_values(evolve):
    with EndpointServer() as server:
        options = {"api_key_env": "", "headers": {"api-key": "STAND_IN_KEY"}, "query": {"api-version": "2024-10-21"}}
        _, said, _ = evolve("--dry_run", "--expert", spec(server, bill_to="ada", **options))
    assert f"POST {server.url}/chat/completions?api-version=2024-10-21\nX-HF-Bill-To: ada\n" in said
    assert "\napi-key: *** (STAND_IN_KEY)\n{" in said
    assert KEY not in said


def test_a_budget_that_does_not_cover_the_pilot_stops_it_and_a_higher_one_goes_on(evolve, tmp_path):
    with EndpointServer() as server:
        options = "--pilot", "6", "--expert", spec(server)
        done, _, errors = evolve(*options, "--budget_calls", "5")
        assert done == 4
        assert len(server.log) <= 5
        assert "The budget of 5 calls is spent" in errors
        assert evolve(*options)[0] == 0
        keys = [entry.key for entry in server.log]
    assert len(set(keys)) == len(keys)


def test_settings_may_change_after_a_dry_run_but_not_in_a_run_that_has_begun(evolve):
    assert evolve("--pilot", "4")[0] == 0
    assert evolve("--dry_run", "--method", "plan", "--instructor", "rulebook")[0] == 0
    assert evolve("--temperature", "0.5")[0] == 0
    done, _, errors = evolve("--dry_run", "--temperature", "0.6")
    assert done == 2
    assert "holds a run with temperature = 0.5, not 0.6" in errors


def test_a_finished_folder_needs_no_forecast(evolve):
    assert evolve()[0] == 0
    done, said, _ = evolve("--dry_run")
    assert done == 0
    assert "is already complete: its run takes no further call." in said


def test_a_folder_of_something_else_is_left_alone(evolve, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    assert "is not empty" in evolve("--dry_run")[2]
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_a_ledger_that_stands_alone_belongs_to_nobody_and_that_of_a_dry_run_to_every_run(tmp_path):
    (tmp_path / "ledger.sqlite").touch()
    with pytest.raises(ValueError, match="is not empty"):
        peek_run(tmp_path, {})
    prepare_run(tmp_path)
    assert peek_run(tmp_path, {"seed": 1}) is None
    assert open_run(tmp_path, {"seed": 1}) is None
    with pytest.raises(ValueError, match="seed = 1, not 2"):
        peek_run(tmp_path, {"seed": 2})


@pytest.mark.parametrize("size", ["1", "0", "2.5"])
def test_a_pilot_needs_two_seeds(size, evolve):
    done, _, errors = evolve("--pilot", size)
    assert done == 2
    assert "pilot" in errors


def test_several_processes_are_refused(evolve, monkeypatch):
    monkeypatch.setattr(Team, "join", classmethod(lambda cls: Team(0, 2)))
    monkeypatch.setattr(load_recipe("evolve_dataset").Team, "join", classmethod(lambda cls: Team(0, 2)))
    done, _, errors = evolve("--dry_run")
    assert (done, "A dry run takes one process" in errors) == (2, True)


def test_what_a_model_says_cannot_move_the_cursor(evolve):
    with EndpointServer(lambda payload: "Fine.\x1b[2J\u202e") as server:
        _, said, _ = evolve("--dry_run", "--expert", spec(server))
    assert "answer tokens: Fine.�[2J�\n" in said


@pytest.mark.parametrize(("method", "roles"), [("stepwise", ["expert"]), ("plan_answer", ["expert"])])
def test_what_code_carries_out_is_asked_of_nobody(method, roles, evolve):
    options = "--operations", "add_constraints", "--constraints", "rules", "--instructor", "rulebook"
    done, said, _ = evolve("--dry_run", "--method", method, *options)
    assert done == 0
    assert re.findall(r"^(\w+) rulebook answered", said, re.M) == [*roles, "reviewer"]
    assert '"content": "Explain to a beginner how machine number 0 came about."' in said
    assert forecast_of(said)["expert", "calls"][0] == 0


@pytest.mark.parametrize("method", ["plan", "plan_answer", "packed", "evol_instruct"])
def test_every_role_that_a_method_asks_is_asked_and_no_other(method, evolve):
    with EndpointServer() as expert, EndpointServer() as instructor, EndpointServer() as reviewer:
        models = ("--expert", spec(expert), "--instructor", spec(instructor), "--reviewer", spec(reviewer))
        done, said, _ = evolve("--dry_run", "--method", method, *models)
        asked = [len(server.log) for server in (expert, instructor, reviewer)]
    assert done == 0
    assert asked == ([2, 0, 0] if method == "evol_instruct" else [1, 1, 1])
    roles = {role for role, _ in forecast_of(said)} - {"dataset", "all"}
    assert roles == ({"expert", "judge"} if method == "evol_instruct" else {"expert", "instructor", "reviewer"})
    if method == "packed":
        assert '"max_tokens": 8192' in said


def test_the_sampling_that_a_specification_names_is_shown_and_asked(evolve):
    with EndpointServer() as server, Server() as judge:
        options = {"max_tokens": 77, "temperature": 0.25, "seed": 5}
        done, said, _ = evolve("--dry_run", "--expert", spec(server, **options), "--reviewer", spec(judge, seed=6))
        (asked,) = judge.bodies
    assert done == 0
    shown = [json.loads(body) for body in re.findall(r"^\{$.*?^\}$", said, re.S | re.M)]
    assert [shown[0][name] for name in options] == [77, 0.25, 5]
    assert shown[1] == asked
    assert asked["seed"] == 6
    assert forecast_of(said)["expert", "answer tokens"] == [12, 48 * 77]
