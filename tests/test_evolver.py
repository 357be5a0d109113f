import asyncio
import random
import subprocess
import sys
from collections import Counter
from types import SimpleNamespace

import pytest
from asked import changed, pack_of, review_of, rewrite_of
from signalling import heed_signals

from teamsrl_hf import (
    Completion,
    DatasetEvolver,
    EndpointGenerator,
    EvolverConfig,
    Example,
    Ledger,
    OperationPolicy,
    OperationPolicyConfig,
    Rejection,
    Rulebook,
    ScriptedGenerator,
    Seed,
    State,
    load_seeds,
    uniform_chooser,
)
from teamsrl_hf.environment.bandits import LinUCBChooser, train_chooser
from teamsrl_hf.environment.rollout import next_state, uniform
from teamsrl_hf.evolve.concurrency import in_order
from teamsrl_hf.evolve.config import METHODS, PLANNED
from teamsrl_hf.models.budget import Budget, BudgetExhausted
from teamsrl_hf.text.operations import OPERATIONS
from teamsrl_hf.text.plans import write_rows

SEEDS = [Seed(f"s{i}", f"Explain subject {i} to somebody from town {i * 7}.") for i in range(12)]


def _expert(request):
    """Rewrites by appending, answers by quoting; deepen never changes anything."""
    if found := rewrite_of(request):
        name, text = found
        return text if name == "deepen" else changed(name, text)
    return f"Answer to: {request.messages[-1]['content']}"


class Late:
    """A model that takes its time, differently for every call."""

    model, whole = "late", True

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
        (Completion("It begins with", "m", finish_reason="length"), "answer_cut_off"),
        (Completion("", "m", error="HTTP 500"), "call_failed"),
    ],
)
def test_bad_answers_cost_their_row_and_are_kept_with_a_reason(answer, reason):
    def expert(request):
        return _expert(request) if rewrite_of(request) else answer

    evolver = _evolver(ScriptedGenerator(expert), chooser=lambda s, u: [1], operations_per_episode=1)
    assert [result.reason for result in _evolve(evolver, SEEDS[:1])] == [reason]


def test_a_verdict_of_equal_rejects_and_the_chain_goes_on_from_before():
    reviewer = ScriptedGenerator(lambda request: "Equal" if len(review_of(request)[0]) < 60 else "Different")
    evolver = _evolver(reviewer=reviewer, chooser=lambda s, u: [1], operations_per_episode=2)
    first, second = _evolve(evolver, SEEDS[:1])
    assert (first.reason, second.reason) == ("equal", "equal")
    assert second.candidate.transition.instruction == SEEDS[0].text


def test_a_rejected_text_does_not_block_the_rows_after_it():
    """Two seeds give one text; the verdict on the first is that nothing was gained."""
    text = "Name three birds that nest on cliffs and say what each of them eats in winter."
    verdicts = iter(["Equal", "Different"])
    expert = ScriptedGenerator(lambda request: text if rewrite_of(request) else "Gulls.")
    reviewer = ScriptedGenerator(lambda request: next(verdicts))
    breadth = {"chooser": lambda states, u: [0] * len(states), "operations_per_episode": 1, "concurrency": 1}
    results = _evolve(_evolver(expert, reviewer, **breadth), SEEDS[:2])
    assert [getattr(result, "reason", None) for result in results] == ["equal", None]


def test_an_answer_that_failed_leaves_its_reason_and_no_text():
    def expert(request):
        rewriting = rewrite_of(request)
        return _expert(request) if rewriting else Completion("half", "m", error="HTTP 500: gone")

    results = _evolve(_evolver(ScriptedGenerator(expert), chooser=lambda s, u: [1], operations_per_episode=1))
    assert {result.reason for result in results} == {"call_failed"}
    assert {result.candidate.response for result in results} == {""}
    assert {result.candidate.transition.error for result in results} == {"HTTP 500: gone"}


def test_candidates_are_told_apart_by_seed_and_step_though_they_say_the_same():
    same = ScriptedGenerator(lambda request: "Name a gull.")
    equal = ScriptedGenerator(lambda request: "Equal")
    evolver = DatasetEvolver(same, equal, lambda s, u: [1], OPERATIONS, EvolverConfig(operations_per_episode=2))
    results = _evolve(evolver, SEEDS[:2])
    assert {result.candidate.transition.rewrite for result in results} == {"Name a gull."}
    assert len({result.candidate.id for result in results}) == 4


def test_a_verdict_is_named_before_a_filter_and_the_threshold_of_near_duplicates_is_the_setting():
    base = "Name three birds that nest on cliffs and say what each of them eats in the long winter"
    texts = {seed.text: f"{base} of year {place}." for place, seed in enumerate(SEEDS[:2])}
    expert = ScriptedGenerator(lambda r: texts[f[1]] if (f := rewrite_of(r)) else "Gulls.")
    for threshold, kept in ((0.5, 1), (1.0, 2)):
        settings = {"operations_per_episode": 1, "dedup_threshold": threshold}
        assert len(_rows(_evolve(_evolver(expert, chooser=lambda s, u: [0], **settings), SEEDS[:2]))) == kept
    equal, args = ScriptedGenerator(lambda request: "Equal"), EvolverConfig(1)
    models = ScriptedGenerator(_expert), equal, lambda s, u: [1]
    evolver = DatasetEvolver(*models, OPERATIONS, args, filters=[lambda candidate: "too_short"])
    assert [result.reason for result in _evolve(evolver, SEEDS[:1])] == ["equal"]


def test_four_packs_are_walked_together_and_else_one_seed():
    sizes = {
        method: [len(group) for group in _planned(method, rows_per_call=2).groups(SEEDS[:10])]
        for method in ("packed", "plan")
    }
    assert sizes == {"packed": [8, 2], "plan": [1] * 10}


def test_a_plan_is_held_against_the_sentences_of_all_its_operations():
    plan = iter([1, 3] * 9)
    sentence = OPERATIONS[3].sentence
    expert = Counting(answer=lambda request, number: Completion(f"Name a bird. {sentence}", "m"))
    evolver = _planned("plan", expert, lambda s, u: [next(plan)], operations_per_episode=2)
    instructed = ScriptedGenerator(_expert)
    evolver = DatasetEvolver(
        expert, Rulebook(), lambda s, u: [next(plan)], OPERATIONS, evolver.args, instructor=instructed
    )
    (result,) = _evolve(evolver, SEEDS[:1])
    assert (result.reason, result.candidate.operations) == ("template_leak", ("add_constraints", "concretize"))
    assert dict(result.candidate.calls).keys() == {"rewrite", "walk", "review"}
    assert dict(result.candidate.calls)["review"] == 2  # Of the walk; rules decided on the rewrite.


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


# The methods.


class Counting:
    """A model with its answers, and every request it got."""

    whole = True

    def __init__(self, model=None, answer=None):
        self.inner, self.answer, self.requests = model or Rulebook(), answer, []
        self.model = self.inner.model

    async def __call__(self, request):
        self.requests.append(request)
        given = self.answer(request, len(self.requests)) if self.answer else None
        return given or await self.inner(request)


def _planned(method, expert=None, chooser=None, instructor=None, **settings):
    expert = expert or Counting()
    args = EvolverConfig(method=method, **settings)
    chooser = chooser or uniform_chooser(OPERATIONS)
    return DatasetEvolver(expert, Rulebook(), chooser, OPERATIONS, args, instructor=instructor or Rulebook())


def _sum_of_calls(results):
    calls = Counter()
    for result in results:
        calls.update(dict(result.candidate.calls))
    return calls


def _rows(results):
    return [result.candidate for result in results if isinstance(result, Example)]


def _texts(results):
    return [(row.transition.rewrite, row.response) for row in _rows(results)]


@pytest.mark.parametrize("method", METHODS)
def test_the_calls_booked_on_candidates_are_the_calls_made(method):
    expert, instructor, seeds = Counting(), Counting(), load_seeds()[:40]
    results = _evolve(_planned(method, expert, instructor=instructor), seeds)
    calls = _sum_of_calls(results)
    asked = Counter(request.role for request in expert.requests)
    assert calls["rewrite"] + calls["answer"] == asked["expert"]
    assert asked["judge"] == (calls["review"] if method == "evol_instruct" else 0)
    assert calls["walk"] == (len(instructor.requests) if method in PLANNED else 0)
    assert {result.candidate.seed.id for result in results} == {seed.id for seed in seeds}


def test_fewer_calls_a_row_from_method_to_method_and_no_row_lost():
    seeds = load_seeds()[:80]
    per_row, texts, paid, attempted = {}, {}, {}, {}
    for method in METHODS:
        expert = Counting()
        results = _evolve(_planned(method, expert, rows_per_call=4), seeds)
        texts[method], paid[method] = _texts(results), len(expert.requests)
        attempted[method] = sum("nothing_planned" not in r.candidate.transition.review.violations for r in results)
        per_row[method] = paid[method] / len(texts[method])
    assert paid["plan_answer"] == attempted["plan_answer"]
    assert texts["packed"] == texts["plan_answer"] == texts["plan"]
    assert len(texts["packed"]) > 60
    # Every pack but the last of each group of 16 seeds is full.
    assert paid["packed"] <= attempted["packed"] / 4 + 5
    assert per_row["packed"] < 0.35 < per_row["plan_answer"] == 1 < per_row["plan"] == 2
    assert per_row["plan"] < per_row["stepwise"] < per_row["evol_instruct"]


def test_a_plan_holds_what_came_to_something_and_ends_in_one_row():
    named = iter(["deepen", "complicate_input", "deepen", "add_constraints"])  # The second has nothing to work on.
    names = [operation.name for operation in OPERATIONS]
    chooser = lambda states, u: [names.index(next(named))]  # noqa: E731
    expert = Counting()
    evolver = _planned("plan", expert, chooser, operations_per_episode=4, concurrency=1)
    (row,) = _rows(_evolve(evolver, [Seed("s", "Explain how a bicycle stays upright.")]))
    assert row.operations == ("deepen", "deepen", "add_constraints")
    assert (row.parent_id, row.step, row.transition.operation) == ("s", 3, "add_constraints")
    assert row.transition.instruction == "Explain how a bicycle stays upright."
    assert dict(row.calls) == {"walk": 4, "review": 4, "rewrite": 1, "answer": 1}
    assert expert.requests[0].task.plans == (row.operations,)


def test_a_walk_does_not_go_on_from_a_rewrite_that_was_turned_down():
    asked = []

    def instructor(request):
        asked.append(rewrite_of(request)[1])
        return f"{asked[-1]} Consider point {len(asked)} too."

    equal = ScriptedGenerator(lambda request: "Equal")
    args, models = EvolverConfig(3, method="plan"), (Rulebook(), equal, lambda s, u: [1])
    evolver = DatasetEvolver(*models, OPERATIONS, args, instructor=ScriptedGenerator(instructor))
    assert [result.reason for result in _evolve(evolver, SEEDS[:1])] == ["nothing_planned"]
    assert set(asked) == {SEEDS[0].text}


def test_a_row_for_every_so_many_operations_of_the_plan():
    chooser = lambda states, u: [[2, 1, 2][states[0].step]]  # noqa: E731
    evolver = _planned("plan_answer", None, chooser, plan_length=2, operations_per_episode=3)
    rows = _rows(_evolve(evolver, [Seed("s", "Explain how a bicycle stays upright.")]))
    assert [row.operations for row in rows] == [
        ("deepen", "add_constraints"),
        ("deepen", "add_constraints", "deepen"),
    ]
    assert [dict(row.calls)["walk"] for row in rows] == [2, 1]


def test_calls_after_the_last_row_of_a_walk_are_booked_on_that_row():
    plan = iter([1, 2, 2])
    evolver = DatasetEvolver(
        ScriptedGenerator(lambda r: changed("concretize", SEEDS[0].text) if rewrite_of(r) else "It hums."),
        ScriptedGenerator(lambda request: "Different"),
        lambda s, u: [next(plan)],
        OPERATIONS,
        EvolverConfig(3, method="plan", plan_length=1),
        instructor=ScriptedGenerator(_expert),
    )
    (row,) = _rows(_evolve(evolver, SEEDS[:1]))
    assert dict(row.calls)["walk"] == 2  # One that came to something, and one that did not; it is not asked twice.


def _answer_pack(request, rows=None, **changes):
    """What a model answers to a pack: rows of the shape asked for, some of them changed."""
    key, items = pack_of(request)
    written = [(f"{text} Add {len(text)} facts.", f"An answer to {text}") for _, text in items]
    return write_rows([changes.get(items[i][1], row) for i, row in enumerate(written)], key)


def test_only_the_malformed_rows_of_a_pack_are_asked_for_again():
    seeds = [Seed(f"s{i}", f"Explain how machine {i} works in town {i * 7}.") for i in range(8)]
    spoilt = seeds[2].text

    def answer(request, number):
        text = _answer_pack(request)
        return Completion(text.replace("[answer 3", "[reply 3") if number == 1 else text, "m")

    expert = Counting(answer=answer)
    results = _evolve(_planned("packed", expert, chooser=lambda s, u: [2], rows_per_call=4), seeds)
    assert all(isinstance(result, Example) for result in results)
    asked = [[text for _, text in pack_of(r)[1]] for r in expert.requests]
    assert sorted(asked, key=len) == [[spoilt], [s.text for s in seeds[:4]], [s.text for s in seeds[4:]]]
    assert [dict(result.candidate.calls).get("rewrite", 0) for result in results] == [1, 0, 1, 0, 1, 0, 0, 0]


def test_the_call_that_a_pack_shares_stays_booked_on_its_first_row_when_that_is_asked_for_again():
    seeds = [Seed(f"s{i}", f"Explain how machine {i} works in town {i * 7}.") for i in range(4)]

    def answer(request, number):
        text = _answer_pack(request)
        return Completion(text.replace("[answer 1", "[reply 1") if number == 1 else text, "m")

    expert = Counting(answer=answer)
    results = _evolve(_planned("packed", expert, chooser=lambda s, u: [2], rows_per_call=4), seeds)
    assert [dict(result.candidate.calls).get("rewrite", 0) for result in results] == [2, 0, 0, 0]
    assert len(expert.requests) == 2


def test_after_a_failed_call_each_row_is_asked_for_alone_and_a_row_that_fails_alone_not_again():
    seeds = [Seed(f"s{i}", f"Explain how machine {i} works in town {i * 7}.") for i in range(4)]

    def answer(request, number):
        texts = [text for _, text in pack_of(request)[1]]
        if seeds[2].text in texts:
            return Completion("", "m", error="HTTP 500")
        return Completion(_answer_pack(request), "m")

    expert = Counting(answer=answer)
    evolver = _planned("packed", expert, chooser=lambda s, u: [2], rows_per_call=4, row_retries=3)
    results = _evolve(evolver, seeds)
    assert [isinstance(result, Example) for result in results] == [True, True, False, True]
    sizes = [len(pack_of(request)[1]) for request in expert.requests]
    assert sizes == [4, 1, 1, 1, 1]


def test_a_cut_pack_is_not_asked_for_with_more_tokens_but_its_missing_rows_alone():
    def answer(request, number):
        text = _answer_pack(request)
        whole = len(pack_of(request)[1]) == 1
        return Completion(text if whole else "It begins", "m", finish_reason="stop" if whole else "length")

    expert = Counting(answer=answer)
    settings = {"rows_per_call": 2, "retry_cut": True, "row_retries": 1, "max_tokens": 100}
    results = _evolve(_planned("packed", expert, chooser=lambda s, u: [2], **settings), SEEDS[:2])
    assert all(isinstance(result, Example) for result in results)
    assert [request.sampling.max_tokens for request in expert.requests] == [200, 100, 100]


def test_a_packed_row_is_held_against_all_of_its_plan_and_names_no_responder_without_an_answer():
    plan = iter([1, 3, 1, 3])
    leak = f"Name a bird. {OPERATIONS[3].sentence}"
    seeds = SEEDS[:2]

    def answer(request, number):
        rows = {seeds[0].text: (leak, "An answer."), seeds[1].text: ("Name a gull.", "")}
        return Completion(_answer_pack(request, **rows), "m")

    args = EvolverConfig(2, method="packed", rows_per_call=2, row_retries=0)
    models = Counting(answer=answer), Rulebook(), lambda s, u: [next(plan)]
    results = _evolve(DatasetEvolver(*models, OPERATIONS, args, instructor=ScriptedGenerator(_expert)), seeds)
    assert results[0].reason == "template_leak"
    assert (results[1].candidate.response, results[1].candidate.responder) == ("", "")


def test_where_a_model_often_slips_packed_keeps_the_rows_that_plan_answer_keeps():
    def answer(request, number):
        key, items = pack_of(request)
        slips = [uniform(text, request.sample_index) < 0.4 for _, text in items]
        rows = [(f"{text} Add facts.", "" if slip else "An answer.") for (_, text), slip in zip(items, slips)]
        return Completion(write_rows(rows, key), "m")

    seeds = [Seed(f"s{i}", f"Explain how machine {i} works in town {i * 7}.") for i in range(60)]
    kept, asked = {}, {}
    for method in ("plan_answer", "packed"):
        expert = Counting(answer=answer)
        results = _evolve(_planned(method, expert, lambda s, u: [1]), seeds)
        kept[method] = [result.candidate.seed.id for result in results if isinstance(result, Example)]
        asked[method] = len(expert.requests)
        assert len(results) == 60
    assert kept["packed"] == kept["plan_answer"]
    assert 40 <= len(kept["packed"]) < 60
    # Four in ten rows are asked for twice, in packed once in company and then alone.
    assert asked["plan_answer"] - asked["packed"] == 60 - 15


def test_a_row_that_stays_malformed_is_rejected_and_no_other():
    def answer(request, number):
        return Completion(_answer_pack(request, **{SEEDS[1].text: ("", "")}), "m")

    expert = Counting(answer=answer)
    results = _evolve(_planned("packed", expert, lambda s, u: [1], rows_per_call=3, row_retries=2), SEEDS[:3])
    assert [getattr(result, "reason", None) for result in results] == [None, "malformed", None]
    assert results[1].candidate.transition.rewrite == answer(expert.requests[-1], 0).text
    assert len(expert.requests) == 3
    assert len({request.sample_index for request in expert.requests}) == 3


def test_a_row_that_the_server_refuses_costs_itself_alone():
    def answer(request, number):
        content = request.messages[0]["content"]
        return Completion("", "m", error="HTTP 400") if SEEDS[1].text in content else None

    expert = Counting(answer=answer)
    results = _evolve(_planned("packed", expert, lambda s, u: [1], rows_per_call=3), SEEDS[:3])
    assert [getattr(result, "reason", None) for result in results] == [None, "call_failed", None]
    assert results[1].candidate.transition.error == "HTTP 400"
    assert len(expert.requests) == 4  # The pack, then each of its rows.


def test_a_pack_that_was_cut_keeps_its_whole_rows():
    def answer(request, number):
        text = _answer_pack(request)
        return Completion(text[:-30], "m", finish_reason="length") if number == 1 else Completion(text, "m")

    expert = Counting(answer=answer)
    results = _evolve(_planned("packed", expert, lambda s, u: [1], rows_per_call=3, max_tokens=100), SEEDS[:3])
    assert all(isinstance(result, Example) for result in results)
    assert [request.sampling.max_tokens for request in expert.requests] == [300, 100]


@pytest.mark.parametrize("method", ["plan_answer", "packed"])
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("Sorry, I can't.", "refusal"),
        ("...", "empty_response"),
        ("<|im_start|>assistant", "control_tokens"),
        ("As asked: [item 1 0123456789ab]", "template_leak"),
    ],
)
def test_answers_that_come_with_their_row_are_judged_too(method, answer, reason):
    def write(request, number):
        key, items = pack_of(request)
        return Completion(write_rows([(f"{text} Add facts.", answer) for _, text in items], key), "m")

    results = _evolve(_planned(method, Counting(answer=write), lambda s, u: [1]), SEEDS[:2])
    assert [result.reason for result in results] == [reason, reason]
    assert results[0].candidate.response == answer


def test_evol_instruct_pays_for_each_round_and_goes_on_from_before_what_it_eliminates():
    def answer(request, number):
        if request.role == "judge":
            return Completion(
                "Equal" if "first" in request.messages[-1]["content"] and number == 2 else "Not equal", "m"
            )
        found = rewrite_of(request)
        if found:
            return Completion(f"{changed(*found)[:-1]} {number}.", "m")
        return Completion("Sorry." if number == 5 else "Here you are: forty-two.", "m")

    expert = Counting(answer=answer)
    evolver = _planned("evol_instruct", expert, operations_per_episode=3, concurrency=1)
    results = _evolve(evolver, SEEDS[:1])
    # Round 1: rewrite, judge (equal). Round 2: rewrite, judge, answer (an apology). Round 3: all well.
    assert [request.role for request in expert.requests] == ["expert", "judge"] + ["expert", "judge", "expert"] * 2
    assert [getattr(result, "reason", None) for result in results] == ["equal", "refusal", None]
    assert {result.candidate.transition.instruction for result in results} == {SEEDS[0].text}
    assert [dict(result.candidate.calls).get("answer", 0) for result in results] == [0, 1, 1]


def test_a_chain_asks_nothing_twice_but_evol_instruct_asks_for_another_try():
    asked = {}
    for method in ("stepwise", "evol_instruct"):
        expert = Counting(ScriptedGenerator(lambda request: rewrite_of(request)[1]))
        evolver = DatasetEvolver(
            expert, ScriptedGenerator([]), lambda s, u: [0], OPERATIONS[:1], EvolverConfig(method=method)
        )
        if method == "evol_instruct":
            expert.answer = lambda request, number: Completion("Equal", "m") if request.role == "judge" else None
        assert {result.reason for result in _evolve(evolver, SEEDS[:1])} == {"unchanged"}
        asked[method] = [request.sample_index for request in expert.requests if request.role == "expert"]
    assert asked == {"stepwise": [0], "evol_instruct": [0, 1, 2, 3, 4, 5]}


def test_another_try_of_evol_instruct_is_one_at_the_same_operation_on_the_same_text():
    """Of two operations one never changes anything; the other makes a new text each time."""
    expert = Counting(
        ScriptedGenerator(_expert), lambda r, number: Completion("Different", "m") if r.role == "judge" else None
    )
    args = EvolverConfig(8, method="evol_instruct", seed=3)
    evolver = DatasetEvolver(expert, ScriptedGenerator([]), lambda s, u: [0], OPERATIONS[1:3], args)
    _evolve(evolver, SEEDS[:3])
    tries = Counter()
    for request in expert.requests:
        if found := rewrite_of(request):
            assert request.sample_index == tries[found]
            tries[found] += 1
    assert max(tries.values()) > 1
    assert {name for (name, _), count in tries.items() if count > 1} == {"deepen"}


def test_evol_instruct_asks_which_of_both_texts_comes_first_and_judges_no_empty_one():
    judged = []

    def answer(request):
        if request.role == "judge":
            judged.append(review_of(request))
            return "Different"
        found = rewrite_of(request)
        return " \n" if found and found[1] == SEEDS[1].text else _expert(request)

    args = EvolverConfig(1, method="evol_instruct")
    evolver = DatasetEvolver(ScriptedGenerator(answer), ScriptedGenerator([]), lambda s, u: [0], OPERATIONS[1:2], args)
    assert [getattr(result, "reason", None) for result in _evolve(evolver, SEEDS[:2])] == [None, "empty"]
    text = SEEDS[0].text
    assert judged == [(text, f"{text} Add add_constraints {len(text)}.")]


def test_evol_instruct_eliminates_a_rewrite_that_goes_back_to_the_seed():
    seed = SEEDS[0].text

    def answer(request):
        if request.role == "judge":
            return "Different"
        found = rewrite_of(request)
        return "An answer." if found is None else f"{seed} Name a cause." if found[1] == seed else seed

    args = EvolverConfig(2, method="evol_instruct")
    models = ScriptedGenerator(answer), ScriptedGenerator([]), lambda s, u: [0]
    results = _evolve(DatasetEvolver(*models, OPERATIONS[1:2], args), SEEDS[:1])
    assert [getattr(result, "reason", None) for result in results] == [None, "repeats_earlier"]


def test_a_walk_waits_for_a_reviewer_that_takes_its_time():
    reviewer = Late(lambda request: "Different")
    args = EvolverConfig(2, method="plan")
    models = ScriptedGenerator(lambda r: "A row."), reviewer, lambda s, u: [1]
    evolver = DatasetEvolver(*models, OPERATIONS, args, instructor=ScriptedGenerator(_expert))
    assert len(_evolve(evolver, SEEDS[:3])) == 3


def test_evol_instruct_draws_operations_itself():
    def never(states, u):
        raise AssertionError("asked")

    results = _evolve(_planned("evol_instruct", chooser=never), load_seeds()[:30])
    drawn = Counter(result.candidate.transition.operation for result in results)
    assert set(drawn) == {operation.name for operation in OPERATIONS}
    assert all(15 <= count <= 45 for count in drawn.values())


@pytest.mark.parametrize("method", ["stepwise", "plan", "plan_answer", "evol_instruct"])
def test_a_cut_answer_is_asked_for_once_more_with_twice_the_tokens(method):
    def answer(request, number):
        if request.sampling.max_tokens == 100 and request.role == "expert":
            return Completion("It begins with", "m", finish_reason="length")

    settings = {"max_tokens": 100, "operations_per_episode": 1}
    for retry_cut in (False, True):
        expert = Counting(answer=answer)
        evolver = _planned(method, expert, lambda s, u: [1], retry_cut=retry_cut, row_retries=0, **settings)
        (result,) = _evolve(evolver, SEEDS[:1])
        assert isinstance(result, Example) == retry_cut
        assert retry_cut or result.reason in ("cut_off", "answer_cut_off")
        calls = dict(result.candidate.calls)
        assert {r.sampling.max_tokens for r in expert.requests if r.role == "expert"} <= {100, 200}
        spent = (
            calls["rewrite"] + calls.get("answer", 0) + (calls.get("review", 0) if method == "evol_instruct" else 0)
        )
        assert spent == len(expert.requests)


def test_settings_that_fit_no_run_are_named():
    with pytest.raises(ValueError, match="Unknown method 'plans'; use stepwise, plan,"):
        EvolverConfig(method="plans")
    with pytest.raises(ValueError, match="'packed' needs an instructor"):
        DatasetEvolver(Rulebook(), Rulebook(), None, OPERATIONS, EvolverConfig(method="packed"))
    with pytest.raises(ValueError, match="'uniform' does not; leave stop_below out"):
        _planned("plan", stop_below=0.1)
    for name in ("rows_per_call", "row_retries", "plan_length"):
        with pytest.raises(ValueError, match=name):
            EvolverConfig(**{name: -1})


# Timing, filters, ends.


def _walkers(expert, reviewer=None, **settings):
    args = EvolverConfig(concurrency=16, **settings)
    instructor = Rulebook() if "method" in settings else None
    return DatasetEvolver(
        expert, reviewer or Rulebook(), uniform_chooser(OPERATIONS), OPERATIONS, args, instructor
    ).walkers


def test_a_quarter_more_chains_are_walked_than_requests_go_out_where_the_models_keep_to_these(tmp_path):
    url = "http://127.0.0.1:1/v1"
    narrow, wide = EndpointGenerator("m", url, concurrency=16), EndpointGenerator("m", url, concurrency=17)
    boundless = SimpleNamespace(model="m")
    assert _walkers(narrow) == _walkers(narrow, narrow) == 20
    assert _walkers(wide) == _walkers(narrow, wide) == _walkers(narrow, boundless) == 16
    assert (_walkers(narrow, method="packed"), _walkers(wide, method="packed")) == (5, 4)  # Each asks for four packs.
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert _walkers(ledger.record(narrow)) == 20
        assert _walkers(ledger.record(boundless)) == 16


@pytest.mark.parametrize("method", METHODS)
def test_timing_changes_no_method(method):
    def evolver(expert, concurrency=16):
        args = EvolverConfig(method=method, concurrency=concurrency, rows_per_call=3)
        chooser = uniform_chooser(OPERATIONS)
        return DatasetEvolver(expert, Rulebook(), chooser, OPERATIONS, args, instructor=Rulebook())

    class Slow(Rulebook):
        immediate = False

        async def __call__(self, request):
            await asyncio.sleep(random.random() * 0.003)
            return await super().__call__(request)

    seeds = load_seeds()[:60]
    at_once = _evolve(evolver(Rulebook()), seeds)
    assert _evolve(evolver(Slow()), seeds) == at_once
    assert _evolve(evolver(Slow(), concurrency=2), seeds) == at_once


@pytest.mark.parametrize("method", METHODS)
def test_the_stages_by_hand_give_what_the_stream_gives(method):
    seeds = load_seeds()[:30]
    evolver = _planned(method, Rulebook())

    async def by_hand():
        results = []
        for group in evolver.groups(iter(seeds)):
            for candidates in await evolver.walk(group):
                results += [await evolver.answer(candidate, evolver.accept(candidate)) for candidate in candidates]
        return results

    assert asyncio.run(by_hand()) == _evolve(_planned(method, Rulebook()), seeds)


def test_filters_are_asked_before_the_answer_is_paid_for_and_about_the_answer():
    seen = []

    def judge(candidate):
        seen.append((candidate.seed.id, bool(candidate.response)))
        if candidate.seed.id == "s1":
            return "about_s1"
        return "says_seven" if "town 14" in candidate.response else None

    args = EvolverConfig(operations_per_episode=1)
    expert = ScriptedGenerator(_expert)
    chooser = lambda states, u: [1]  # noqa: E731
    evolver = DatasetEvolver(expert, Rulebook(), chooser, OPERATIONS, args, filters=(judge,))
    results = _evolve(evolver, SEEDS[:4])
    assert [getattr(result, "reason", None) for result in results] == [None, "about_s1", "says_seven", None]
    assert expert.calls == 4 + 3
    assert [seed for seed, answered in seen if not answered] == ["s0", "s1", "s2", "s3"]
    assert [seed for seed, answered in seen if answered] == ["s0", "s2", "s3"]


def test_seeds_are_taken_as_they_are_needed():
    taken = []

    def seeds():
        for number in range(10_000_000):
            taken.append(number)
            yield Seed(f"s{number}", f"Explain subject {number} to somebody from town {number * 7}.")

    chains = _evolver(operations_per_episode=1).evolve(seeds())
    first = [next(chains) for _ in range(10)]
    chains.close()
    assert [results[0].candidate.seed.id for results in first] == [f"s{number}" for number in range(10)]
    assert len(taken) < 5000


def test_what_was_sent_when_the_budget_ran_out_is_recorded(tmp_path):
    def slow_answers(seconds):
        async def answer(request):
            calls.append(request)
            await asyncio.sleep(seconds)
            return Completion(_expert(request), "slow")

        answer.model = "slow"
        return answer

    calls = []
    reviewer = ScriptedGenerator(lambda request: "Different")

    def run(budget):
        with Ledger(tmp_path / "ledger.sqlite", budget=Budget(calls=budget)) as ledger:
            expert = ledger.record(slow_answers(0.02))
            evolver = DatasetEvolver(expert, reviewer, lambda s, u: [1], OPERATIONS, EvolverConfig(concurrency=4))
            return _evolve(evolver)

    with pytest.raises(BudgetExhausted, match="budget of 21 calls"):
        run(21)
    assert len(calls) == 21
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.totals()["expert"].calls == 21
    whole = run(None)
    assert len(calls) == len(set(map(repr, calls)))
    unlimited = DatasetEvolver(slow_answers(0), reviewer, lambda s, u: [1], OPERATIONS)
    assert whole == _evolve(unlimited)


def test_an_interrupted_run_stops_within_seconds_and_records_what_was_under_way(tmp_path):
    code = f"""
import asyncio, os, signal, time
from teamsrl_hf import Completion, DatasetEvolver, EvolverConfig, Ledger, Seed
from teamsrl_hf.text.operations import OPERATIONS

started = []

async def model(request):
    started.append(request)
    if len(started) == 8:
        started.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)
    hangs = len(started) == 5
    await asyncio.sleep(60 if hangs else 0.2)
    rewrite = request.task.kind == "rewrite"
    return Completion(request.task.texts[0] + " Add more facts." if rewrite else "Different", "slow", 9, 9)

model.model = "slow"
seeds = [Seed(f"s{{i}}", f"Explain subject {{i}}.") for i in range(1000)]
with Ledger({str(tmp_path / "ledger.sqlite")!r}) as ledger:
    recorded = ledger.record(model)
    evolver = DatasetEvolver(recorded, recorded, lambda s, u: [1], OPERATIONS, EvolverConfig(concurrency=8))
    try:
        list(evolver.evolve(seeds))
    except KeyboardInterrupt:
        *calls, interrupted = started
        print(len(calls), sum(t.calls for t in ledger.totals().values()), time.monotonic() - interrupted)
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, preexec_fn=heed_signals)
    assert done.stderr == ""
    sent, recorded, seconds = done.stdout.split()
    assert (sent, recorded) == ("8", "7")  # All but the one that hangs for a minute.
    assert float(seconds) < 10  # 3 and what the machine adds.


# Stopping where nothing is expected.


@pytest.fixture(scope="module")
def bandit():
    chooser = LinUCBChooser(OPERATIONS)
    train_chooser(chooser, load_seeds()[40:], OPERATIONS, Rulebook(), Rulebook(), rounds=6)
    chooser.explore = False
    return chooser


def test_a_trained_bandit_spends_fewer_calls_a_row_when_it_may_stop(bandit):
    seeds, per_row, expected = load_seeds()[:40], {}, {}
    for stop_below in (None, 0.4):
        args = EvolverConfig(stop_below=stop_below)
        results = _evolve(DatasetEvolver(Rulebook(), Rulebook(), bandit, OPERATIONS, args), seeds)
        calls = _sum_of_calls(results)
        per_row[stop_below] = (calls["rewrite"] + calls["answer"]) / len(_rows(results))
        expected[stop_below] = [bandit.value([state])[0] for state in _states(results)]
    assert min(expected[None]) < 0.4 <= min(expected[0.4])
    # Two calls a row are needed; what is spent beyond them came to nothing.
    assert per_row[0.4] - 2 < 0.8 * (per_row[None] - 2)


def _states(results):
    """The state before each operation that was tried."""
    states, state, seed = [], None, None
    for candidate in (result.candidate for result in results):
        if candidate.seed != seed:
            seed, state = candidate.seed, State(candidate.seed.text)
        states.append(state)
        state = next_state(state, candidate.transition)
    return states


@pytest.mark.parametrize("method", ["stepwise", *PLANNED])
def test_where_nothing_is_expected_no_call_is_made_and_the_seed_leaves_a_trace(bandit, method):
    expert, reviewer, instructor = Counting(), Counting(), Counting()
    args = EvolverConfig(method=method, stop_below=100.0)
    evolver = DatasetEvolver(expert, reviewer, bandit, OPERATIONS, args, instructor=instructor)
    results = _evolve(evolver, SEEDS)
    assert [result.reason for result in results] == ["nothing_planned"] * 12
    assert {result.candidate.transition.operation for result in results} == {"stop"}
    assert expert.requests + reviewer.requests + instructor.requests == []


def test_a_policys_value_head_ends_chains_the_same_way_in_every_run():
    import torch

    torch.manual_seed(3)
    policy = OperationPolicy(OperationPolicyConfig())
    seeds = load_seeds()[:30]
    first = policy.value([State(seed.text) for seed in seeds])
    threshold = sorted(first)[15]

    def run():
        args = EvolverConfig(method="plan_answer", stop_below=threshold, operations_per_episode=2)
        return _evolve(
            DatasetEvolver(Rulebook(), Rulebook(), policy.choose, OPERATIONS, args, instructor=Rulebook()), seeds
        )

    results = run()
    untouched = [dict(result.candidate.calls).get("walk", 0) == 0 for result in results]
    assert untouched == [value < threshold for value in first]
    assert sum(untouched) == 15
    assert run() == results
