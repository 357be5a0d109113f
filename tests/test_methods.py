"""The methods against servers: everything a real endpoint does to structured output, and what becomes of the rows."""

from contextlib import contextmanager

import pytest
from endpoint_server import EndpointServer

from teamsrl_hf import (
    DatasetEvolver,
    EndpointGenerator,
    EvolverConfig,
    Example,
    Ledger,
    Rulebook,
    Seed,
    load_seeds,
    uniform_chooser,
)
from teamsrl_hf.environment.rollout import run_async
from teamsrl_hf.text.operations import with_prompts

OPERATIONS = with_prompts("large")  # The served model writes whole rewrites.

METHODS = ("stepwise", "plan", "plan_answer", "packed")


def _evolver(expert, method, **settings):
    args = EvolverConfig(method=method, operations_per_episode=4, **settings)
    chooser = uniform_chooser(OPERATIONS)
    return DatasetEvolver(expert, Rulebook(), chooser, OPERATIONS, args, instructor=Rulebook())


def _evolve(evolver, seeds):
    return [result for chain in evolver.evolve(seeds) for result in chain]


def _texts(results):
    return [(result.candidate.id, result.candidate.response, getattr(result, "reason", None)) for result in results]


@contextmanager
def _endpoint(server):
    generator = EndpointGenerator("any", server.url, backoff=0.01, timeout=20.0, concurrency=32)
    try:
        yield generator
    finally:
        run_async(generator.close())


@pytest.mark.parametrize("method", METHODS)
def test_an_endpoint_with_faults_gives_the_rows_that_rules_give_in_this_process(method, tmp_path):
    seeds = load_seeds()[:40]
    # Without "empty": such an answer is asked for once more, so that two of them lose the row.
    faults = dict.fromkeys(("limit", "unavailable", "error", "reset", "truncated", "malformed"), 0.08)
    with (
        EndpointServer(shares=faults, faulty_attempts=2, retry_after=0.01) as server,
        Ledger(tmp_path / "ledger.sqlite") as ledger,
        _endpoint(server) as expert,
    ):
        results = _evolve(_evolver(ledger.record(expert), method), seeds)
        calls = ledger.totals()["expert"].calls
        counts = server.counts()
    expected = _evolve(_evolver(Rulebook(), method), seeds)
    assert _texts(results) == _texts(expected)
    assert counts["sound"] == calls < counts["received"]
    booked = [dict(result.candidate.calls) for result in results]
    assert calls == sum(kinds.get("rewrite", 0) + kinds.get("answer", 0) for kinds in booked)


@pytest.mark.parametrize("method", METHODS)
def test_answers_cut_by_the_server_cost_no_row_that_can_be_had(method):
    seeds = load_seeds()[:40]
    with EndpointServer(shares={"length": 0.2}) as server, _endpoint(server) as expert:
        results = _evolve(_evolver(expert, method, retry_cut=True), seeds)
    expected = _evolve(_evolver(Rulebook(), method), seeds)
    kept = sum(isinstance(result, Example) for result in results)
    assert {r.candidate.seed.id for r in results} == {r.candidate.seed.id for r in expected}
    # One in five answers is cut, and of those asked for again one in five once more: one call in 25 is lost for good.
    assert kept >= 0.8 * sum(isinstance(result, Example) for result in expected)
    assert {getattr(result, "reason", None) for result in results} <= {
        *(None, "cut_off", "answer_cut_off", "nothing_planned", "unchanged", "near_duplicate", "repeats_earlier")
    }


@pytest.mark.parametrize("method", METHODS)
def test_a_request_refused_with_400_costs_its_own_row_alone(method):
    seeds = [Seed(f"s{i}", f"Explain how machine {i} works in town {i * 7}.") for i in range(12)]
    seeds[5] = Seed("s5", "Explain how machine REFUSE-THIS works.")
    with EndpointServer(refused="REFUSE-THIS") as server, _endpoint(server) as expert:
        results = _evolve(_evolver(expert, method, rows_per_call=4), seeds)
    lost = {result.candidate.seed.id for result in results if getattr(result, "reason", None) == "call_failed"}
    kept = {result.candidate.seed.id for result in results if isinstance(result, Example)}
    assert lost == {"s5"}
    assert kept == {seed.id for seed in seeds} - lost
