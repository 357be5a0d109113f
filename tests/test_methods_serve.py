"""The methods against a server this project did not write, which ignores `response_format`: `transformers serve`.

The model's answers are noise: what is shown is that each seed ends as a row or as a rejection with a reason, that the
calls booked are those that were made, and that a second run on the same ledger makes none.
"""

from collections import Counter

import pytest
from serve import served_model

from teamsrl_hf import (
    DatasetEvolver,
    EndpointGenerator,
    EvolverConfig,
    Example,
    Ledger,
    Rulebook,
    load_seeds,
    uniform_chooser,
)
from teamsrl_hf.environment.rollout import run_async
from teamsrl_hf.text.operations import OPERATIONS

pytestmark = pytest.mark.slow  # The server takes half a minute to start.


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    for needed in ("fastapi", "uvicorn"):
        pytest.importorskip(needed, reason="needs the extra: pip install 'teamsrl-hf[serving]'")
    with served_model(tmp_path_factory.mktemp("serve")) as server:
        yield server


def _run(served, method, path, own_reviewer=True):
    name, url = served
    model = EndpointGenerator(name, url, concurrency=4)
    args = EvolverConfig(method=method, operations_per_episode=2, rows_per_call=3, max_tokens=16, retry_cut=True)
    try:
        with Ledger(path) as ledger:
            recorded = ledger.record(model)
            evolver = DatasetEvolver(
                recorded,
                recorded if own_reviewer else Rulebook(),
                uniform_chooser(OPERATIONS),
                OPERATIONS,
                args,
                instructor=Rulebook(),
            )
            results = [result for chain in evolver.evolve(load_seeds()[:6]) for result in chain]
            return results, {role: totals.calls for role, totals in ledger.totals().items()}, ledger.replayed
    finally:
        run_async(model.close())


@pytest.mark.parametrize("method", ["stepwise", "plan", "plan_answer", "packed", "evol_instruct"])
def test_a_real_server_drives_each_method_to_its_end(served, method, tmp_path):
    path = tmp_path / "ledger.sqlite"
    results, bought, replayed = _run(served, method, path, own_reviewer=method == "stepwise")
    assert {result.candidate.seed.id for result in results} == {seed.id for seed in load_seeds()[:6]}
    booked = Counter()
    for result in results:
        assert isinstance(result, Example) or result.reason
        assert result.candidate.transition.error is None
        booked.update(dict(result.candidate.calls))
    assert bought["expert"] == booked["rewrite"] + booked["answer"] > 0
    if method == "packed":  # Two packs of three at most, then each of their rows by itself, and once more if cut.
        assert bought["expert"] <= 2 + 6 * 2
    again, still, replayed = _run(served, method, path, own_reviewer=method == "stepwise")
    assert again == results
    assert still == bought
    assert replayed >= sum(bought.values())
