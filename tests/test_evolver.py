import asyncio
import random

import pytest

from teamsrl_hf import (
    Completion,
    DatasetEvolver,
    EvolverConfig,
    Example,
    Ledger,
    Rejection,
    ScriptedGenerator,
    Seed,
    uniform_chooser,
)
from teamsrl_hf.evolver import in_order
from teamsrl_hf.operations import OPERATIONS, read_review, read_rewrite

SEEDS = [Seed(f"s{i}", f"Explain subject {i} to somebody from town {i * 7}.") for i in range(12)]


def _expert(request):
    """Rewrites by appending, answers by quoting; deepen never changes anything."""
    content = request.messages[-1]["content"]
    if found := read_rewrite(content):
        name, text = found
        return text if name == "deepen" else f"{text} Consider {name} {len(text)} too."
    return f"Answer to: {content}"


class Late:
    """A model that takes its time, differently for every call."""

    model = "late"

    def __init__(self, answer, most=0.004):
        self.answer, self.most, self.running, self.peak = answer, most, 0, 0

    async def __call__(self, request):
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            await asyncio.sleep(random.random() * self.most)
        finally:
            self.running -= 1
        return Completion(self.answer(request), self.model)


def _evolver(expert=None, reviewer=None, chooser=None, **settings):
    expert = expert or ScriptedGenerator(_expert)
    reviewer = reviewer or ScriptedGenerator(lambda request: "Different")
    chooser = chooser or uniform_chooser(OPERATIONS)
    return DatasetEvolver(expert, reviewer, chooser, OPERATIONS, EvolverConfig(**settings))


def _evolve(evolver, seeds=SEEDS):
    return [result for chain in evolver.evolve(seeds) for result in chain]


def test_every_step_of_every_seed_is_a_row_or_a_rejection():
    results = _evolve(_evolver())
    assert len(results) == 12 * 6
    assert [result.candidate.step for result in results] == [0, 1, 2, 3, 4, 5] * 12
    reasons = {result.reason for result in results if isinstance(result, Rejection)}
    assert reasons == {"unchanged", "near_duplicate"}


def test_a_row_names_its_parent_its_path_and_its_calls():
    plan = iter([1, 2, 3])
    evolver = _evolver(chooser=lambda states, u: [next(plan)], operations_per_episode=3, concurrency=1)
    first, second, third = (result.candidate for result in _evolve(evolver, SEEDS[:1]))
    assert (first.parent_id, second.parent_id, third.parent_id) == ("s0", first.id, first.id)
    assert third.operations == ("add_constraints", "concretize")
    assert first.calls == (("answer", 1), ("review", 1), ("rewrite", 1))
    assert second.calls == (("rewrite", 1),)
    assert first.response == f"Answer to: {first.transition.rewrite}"


def test_timing_never_changes_what_comes_out():
    in_step = _evolve(_evolver(expert=ScriptedGenerator(_expert, model="late")))
    assert _evolve(_evolver(expert=Late(_expert), concurrency=8)) == in_step
    assert _evolve(_evolver(expert=Late(_expert), concurrency=3)) == in_step


def test_chains_overlap_up_to_the_concurrency():
    late = Late(_expert, most=0.02)
    _evolve(_evolver(expert=late, concurrency=5, operations_per_episode=2))
    # Up to five chains are walked while up to five others are answered, two rows of each at once.
    assert 5 <= late.peak <= 15


def test_a_slow_chain_does_not_hold_back_the_others():
    started = []

    async def work(item):
        started.append(item)
        await asyncio.sleep(0.2 if item == 0 else 0)
        return item

    async def items():
        for item in range(14):
            yield item

    async def main():
        return [made async for made in in_order(work, items(), concurrency=2)]

    assert asyncio.run(main()) == list(range(14))
    assert len(started) == 14


def test_only_rows_that_are_kept_are_answered():
    twins = [Seed("a", "Explain subject 1 to a friend."), Seed("b", "Explain subject 1 to a friend!")]
    expert = ScriptedGenerator(_expert)
    evolver = _evolver(expert=expert, chooser=lambda states, u: [1], operations_per_episode=1, concurrency=1)
    results = _evolve(evolver, twins)
    assert isinstance(results[0], Example)
    assert results[1].reason == "near_duplicate"
    assert expert.calls == 3


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Completion("Sorry, I can't.", "m"), "refusal"),
        (Completion("...", "m"), "empty_response"),
        (Completion("It begins with", "m", finish_reason="length"), "cut_off"),
        (Completion("", "m", error="HTTP 500"), "call_failed"),
    ],
)
def test_bad_answers_cost_their_row_and_are_kept_with_a_reason(answer, reason):
    def expert(request):
        return _expert(request) if read_rewrite(request.messages[0]["content"]) else answer

    evolver = _evolver(ScriptedGenerator(expert), chooser=lambda s, u: [1], operations_per_episode=1)
    assert [result.reason for result in _evolve(evolver, SEEDS[:1])] == [reason]


def test_a_verdict_of_equal_rejects_and_the_chain_goes_on_from_before():
    reviewer = ScriptedGenerator(
        lambda request: "Equal" if len(read_review(request.messages[0]["content"])[0]) < 60 else "Different"
    )
    evolver = _evolver(reviewer=reviewer, chooser=lambda s, u: [1], operations_per_episode=2)
    first, second = _evolve(evolver, SEEDS[:1])
    assert (first.reason, second.reason) == ("equal", "equal")
    assert second.candidate.transition.instruction == SEEDS[0].text


def test_a_subclass_decides_what_comes_next_and_what_is_kept():
    class Mine(DatasetEvolver):
        def choose(self, state, seed):
            return self.operations[3]

        def accept(self, candidate):
            return "boring" if candidate.step else super().accept(candidate)

    reviewer = ScriptedGenerator(lambda request: "Different")
    evolver = Mine(ScriptedGenerator(_expert), reviewer, uniform_chooser(OPERATIONS), OPERATIONS)
    results = _evolve(evolver, SEEDS[:1])
    assert {result.candidate.transition.operation for result in results} == {"concretize"}
    assert [getattr(result, "reason", None) for result in results] == [None, *["boring"] * 5]


def test_stopping_early_cancels_what_is_under_way():
    late = Late(_expert, most=0.01)
    chains = _evolver(expert=late).evolve(SEEDS)
    next(chains)
    chains.close()
    assert late.running == 0


def test_an_exhausted_script_reaches_the_caller_and_leaves_nothing_running():
    with pytest.raises(ValueError):
        _evolve(_evolver(expert=ScriptedGenerator(["one answer"])))


def test_a_second_run_on_the_same_ledger_buys_nothing(tmp_path):
    expert = ScriptedGenerator(_expert)
    runs = []
    for _ in range(2):
        with Ledger(tmp_path / "ledger.sqlite") as ledger:
            runs.append(_evolve(_evolver(expert=ledger.record(expert))))
    assert runs[0] == runs[1]
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert expert.calls == ledger.totals()["expert"].calls


@pytest.mark.parametrize("setting", [{"concurrency": 0}, {"operations_per_episode": 0}, {"dedup_threshold": 0}])
def test_settings_out_of_range_are_named(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        EvolverConfig(**setting)
