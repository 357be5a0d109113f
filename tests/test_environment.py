import asyncio
import gc
import threading
import weakref

import pytest
from asked import changed, rewrite_of

from teamsrl_hf import Completion, Ledger, Rulebook, Sampling, ScriptedGenerator, Seed, rollout, uniform_chooser
from teamsrl_hf.environment.rollout import carry_out, run_all, run_async, states_of, uniform
from teamsrl_hf.errors import CallsRefused
from teamsrl_hf.text.operations import OPERATIONS
from teamsrl_hf.types import State

DIFFERENT = ScriptedGenerator(lambda request: "Different")
SEED = Seed("s1", "Name a bird.")


def _appending(request):
    """Appends the operation's name, except that deepen never changes anything."""
    name, text = rewrite_of(request)
    return text if name == "deepen" else changed(name, text)


def test_a_rewrite_that_fails_leaves_the_chain_where_it_was():
    chain = rollout([SEED], lambda states, u: [2], OPERATIONS, ScriptedGenerator(_appending), DIFFERENT, steps=2)[0]
    assert [t.rewrite for t in chain.transitions] == ["Name a bird.", "Name a bird."]
    assert [t.review.reason for t in chain.transitions] == ["unchanged", "unchanged"]
    assert chain.texts == ("Name a bird.",)


def test_a_chain_goes_on_from_the_last_rewrite_that_passed():
    plan = iter([1, 2, 3])
    chain = rollout(
        [SEED], lambda states, u: [next(plan)], OPERATIONS, ScriptedGenerator(_appending), DIFFERENT, steps=3
    )[0]
    assert chain.texts == (
        "Name a bird.",
        "Name a bird. Add add_constraints 12.",
        "Name a bird. Add add_constraints 12. Add concretize 36.",
    )


def test_a_chain_does_not_go_on_from_a_rewrite_that_was_turned_down():
    seen = []

    def choose(states, uniforms):
        seen.append(states[0].text)
        return [1]

    instructor, equal = ScriptedGenerator(_appending), ScriptedGenerator(lambda request: "Equal")
    chain = rollout([SEED], choose, OPERATIONS, instructor, equal, steps=3)[0]
    assert seen == ["Name a bird."] * 3
    assert [t.instruction for t in chain.transitions] == ["Name a bird."] * 3
    assert {t.rewrite for t in chain.transitions} == {"Name a bird. Add add_constraints 12."}


def test_states_tell_what_was_tried_and_what_came_of_it():
    plan = iter([1, 2])
    chain = rollout(
        [SEED], lambda states, u: [next(plan)], OPERATIONS, ScriptedGenerator(_appending), DIFFERENT, steps=2
    )[0]
    after = "Name a bird. Add add_constraints 12."
    assert states_of(chain) == [
        State("Name a bird."),
        State(after, ("add_constraints",), (True,), 1),
        State(after, ("add_constraints", "deepen"), (True, False), 2),
    ]


def test_going_back_to_the_seed_is_no_gain():
    def back_and_forth(request):
        _, text = rewrite_of(request)
        return "Name a bird." if text != "Name a bird." else "Name a bird of prey."

    chain = rollout([SEED], lambda s, u: [2], OPERATIONS, ScriptedGenerator(back_and_forth), DIFFERENT, steps=2)[0]
    assert [t.review.reason for t in chain.transitions] == [None, "repeats_earlier"]


def test_a_failed_call_is_a_counted_rejection_and_no_exception():
    broken = ScriptedGenerator(lambda request: Completion("", "m", error="HTTP 500"))
    transition = asyncio.run(carry_out(["Name a bird."], OPERATIONS[0], broken, DIFFERENT))
    assert (transition.review.reason, transition.error, transition.result) == (
        "call_failed",
        "HTTP 500",
        "Name a bird.",
    )


def test_an_operation_whose_call_failed_is_no_step_of_a_chain():
    def failing(request):
        name, text = rewrite_of(request)
        return Completion("", "m", error="HTTP 400: no") if name == "deepen" else changed(name, text)

    def judge(request):
        failed = "Describe the" in request.messages[-1]["content"]
        return Completion("", "j", error="HTTP 500") if failed else "Different"

    names = [operation.name for operation in OPERATIONS]
    plan = [names.index(name) for name in ("concretize", "deepen", "breadth", "concretize")]
    states = []

    def choose(batch, uniforms):
        states.extend(batch)
        return [plan[len(states) - 1]]

    models = ScriptedGenerator(failing), ScriptedGenerator(judge)
    (chain,) = rollout([SEED], choose, OPERATIONS, *models, steps=4)
    assert [t.operation for t in chain.transitions] == ["concretize", "concretize"]
    assert [(t.operation, t.failure) for t in chain.failed] == [("deepen", "HTTP 400: no"), ("breadth", "HTTP 500")]
    assert states[1] == states[2] == states[3] == states_of(chain)[1]
    assert states_of(chain)[2].step == 2


def test_a_rollout_of_which_most_calls_failed_is_refused_with_the_commonest_reason():
    reasons = iter(["HTTP 401: no such key", "HTTP 401: no such key", "no answer within 9 s"])

    def failing(request):
        error = next(reasons, None)
        return Completion("", "m", error=error) if error else _appending(request)

    with pytest.raises(
        CallsRefused, match=r"3 of 4 calls to the instructor failed, 2 of them with: HTTP 401: no such"
    ):
        rollout([SEED], lambda states, u: [0], OPERATIONS, ScriptedGenerator(failing), DIFFERENT, steps=4)
    failures = iter([Completion("", "m", error="HTTP 402: no credit")] * 3)
    reviewer = ScriptedGenerator(lambda request: next(failures, "Different"))
    with pytest.raises(CallsRefused, match="3 of 4 calls to the reviewer failed, 3 of them with: HTTP 402: no credit"):
        rollout([SEED], lambda states, u: [0], OPERATIONS, ScriptedGenerator(_appending), reviewer, steps=4)


def test_half_of_the_calls_may_fail_and_one_of_any_number_but_not_all():
    def failing(*failed):
        numbers = iter(range(9))

        def answer(request):
            lost = next(numbers) in failed
            return Completion("", "m", error="HTTP 400: no") if lost else _appending(request)

        return ScriptedGenerator(answer)

    def steps_made(instructor, steps, reviewer=DIFFERENT):
        (chain,) = rollout([SEED], lambda states, u: [0], OPERATIONS, instructor, reviewer, steps=steps)
        return len(chain.transitions)

    assert steps_made(failing(0, 1), 4) == 2
    assert steps_made(failing(0), 2) == 1
    with pytest.raises(CallsRefused, match="1 of 1 calls to the instructor failed"):
        steps_made(failing(0), 1)
    # One failed verdict, where rules decided on all else, is no sign that the reviewer refuses all.
    operations = iter([0, 2])
    once = ScriptedGenerator([Completion("", "m", error="HTTP 500")])
    (chain,) = rollout([SEED], lambda states, u: [next(operations)], OPERATIONS, failing(), once, steps=2)
    assert [transition.review.reason for transition in chain.transitions] == ["unchanged"]
    # What the reviewer did not answer was written all the same.
    verdicts = iter([Completion("", "m", error="HTTP 500")] * 2 + ["Different"] * 2)
    assert steps_made(failing(2, 3, 4), 7, ScriptedGenerator(lambda request: next(verdicts))) == 2


def test_a_rollout_tells_after_each_step_how_many_chains_took_it():
    told = []
    seeds = [Seed(f"s{i}", f"Name bird {i}.") for i in range(3)]
    models = ScriptedGenerator(_appending), DIFFERENT
    rollout(seeds, lambda states, u: [1] * 3, OPERATIONS, *models, steps=2, on_step=told.append)
    assert told == [3, 3]


def test_the_calls_beside_one_that_raises_come_to_their_end_first():
    ended = []

    async def fails():
        raise KeyError("broken")

    async def pays():
        await asyncio.sleep(0.05)
        ended.append("paid")

    with pytest.raises(KeyError, match="broken"):
        run_all([fails(), pays()])
    assert ended == ["paid"]


def test_what_was_cut_is_kept_as_it_came():
    cut = ScriptedGenerator([Completion("Name a bird that", "m", finish_reason="length")])
    transition = asyncio.run(carry_out(["Name a bird."], OPERATIONS[1], cut, DIFFERENT))
    assert (transition.rewrite, transition.review.reason) == ("Name a bird that", "cut_off")


def test_an_answer_cut_by_the_token_limit_is_not_taken():
    cut = ScriptedGenerator(lambda request: Completion("Name a bird that", "m", finish_reason="length"))
    assert asyncio.run(carry_out(["Name a bird."], OPERATIONS[0], cut, DIFFERENT)).review.reason == "cut_off"


def test_random_numbers_depend_on_their_key_alone_and_spread_evenly():
    assert uniform("train", 42, 0, "s1", 0, 3) == 0.3342743199217761
    drawn = [uniform("x", i) for i in range(10_000)]
    assert 0.49 < sum(drawn) / len(drawn) < 0.51


def test_the_luck_of_a_chain_depends_on_run_seed_and_step():
    def luck(key):
        seen = []

        def choose(states, uniforms):
            seen.append(uniforms[0])
            return [2]

        rollout([SEED], choose, OPERATIONS, ScriptedGenerator(_appending), DIFFERENT, steps=2, key=key)
        return seen

    assert len({*luck(("run", 1)), *luck(("run", 2))}) == 4
    assert luck(("run", 1)) == luck(("run", 1))


class _Fixed:
    """A model that never waits and always answers the same request alike."""

    immediate, deterministic, whole, model = True, True, True, "fixed"

    def __init__(self, answer):
        self.answer = answer

    async def __call__(self, request):
        return Completion(self.answer(request), self.model)


def test_what_a_deterministic_model_made_is_remembered_for_the_whole_chain_and_the_sampling():
    back = _Fixed(lambda request: "Name a bird of prey" + (" at sea" if request.sampling.max_tokens == 10 else ""))
    judge = _Fixed(lambda request: "Different")

    def reason(texts, most=100):
        sampling = Sampling(max_tokens=most)
        return asyncio.run(carry_out(texts, OPERATIONS[1], back, judge, sampling)).review.reason

    assert reason(["Name a bird."]) is None
    assert reason(["Name a bird of prey.", "Name a bird."]) == "repeats_earlier"
    assert reason(["Name a bird of prey."]) == "unchanged"
    assert reason(["Name a bird of prey."], most=10) is None


def test_white_space_round_a_rewrite_is_cut():
    transition = asyncio.run(
        carry_out(["Name a bird."], OPERATIONS[1], ScriptedGenerator([" Name a tall bird.\n\n"]), DIFFERENT)
    )
    assert transition.rewrite == "Name a tall bird."


def test_one_seed_twice_in_a_batch_is_walked_with_different_luck():
    seen = []

    def chooser(states, uniforms):
        seen.append(tuple(uniforms))
        return [0] * len(states)

    rollout([SEED, SEED], chooser, OPERATIONS, ScriptedGenerator(_appending), DIFFERENT, steps=1)
    assert seen[0][0] != seen[0][1]


def test_a_model_that_never_waits_and_one_that_might_walk_the_same_chains():
    class Waiting:
        model, whole = "scripted", True

        async def __call__(self, request):
            await asyncio.sleep(0)
            return Completion(_appending(request), self.model)

    seeds = [Seed(f"s{i}", f"Name bird {i}.") for i in range(5)]
    choose = uniform_chooser(OPERATIONS)
    at_once = rollout(seeds, choose, OPERATIONS, ScriptedGenerator(_appending), DIFFERENT, steps=4)
    assert rollout(seeds, choose, OPERATIONS, Waiting(), DIFFERENT, steps=4) == at_once


class Counting(ScriptedGenerator):
    """Counts what it is asked to carry out."""

    def __init__(self):
        super().__init__(_appending)


class CountingDeterministic(Counting):
    deterministic = True


class WaitingDeterministic(CountingDeterministic):
    immediate = False

    async def __call__(self, request):
        await asyncio.sleep(0)
        return await super().__call__(request)


def test_a_deterministic_model_carries_a_step_out_once_and_others_each_time():
    def walk_twice(instructor, reviewer):
        return [rollout([SEED], lambda s, u: [1], OPERATIONS, instructor, reviewer, steps=2) for _ in range(2)]

    class Judge(CountingDeterministic):
        async def __call__(self, request):
            self.calls += 1
            return Completion("Different", self.model)

    asked_once, judge, asked_again, waiting = CountingDeterministic(), Judge(), Counting(), WaitingDeterministic()
    first, second = walk_twice(asked_once, judge)
    assert first == second == walk_twice(asked_again, DIFFERENT)[0] == walk_twice(waiting, judge)[0]
    assert (asked_once.calls, asked_again.calls, waiting.calls) == (2, 4, 4)
    walk_twice(asked_once, DIFFERENT)  # Who judges may not be deterministic.
    assert asked_once.calls == 6


def test_a_ledger_is_told_of_every_call_of_a_deterministic_model(tmp_path):
    model = CountingDeterministic()
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        recorded = ledger.record(model), ledger.record(Rulebook())
        for _ in range(2):
            rollout([SEED], lambda s, u: [1], OPERATIONS, *recorded, steps=1)
        assert (ledger.calls, ledger.replayed, model.calls) == (2, 2, 1)


def test_rulebooks_of_one_seed_are_one_and_those_of_another_rewrite_otherwise():
    assert Rulebook() == Rulebook(0) != Rulebook(1)
    seeds = [Seed(f"s{i}", f"Explain why bird {i} sings.") for i in range(20)]
    walks = [
        rollout(seeds, uniform_chooser(OPERATIONS), OPERATIONS, Rulebook(seed), Rulebook(seed), steps=3)
        for seed in (0, 0, 1)
    ]
    assert walks[0] == walks[1] != walks[2]


def test_calls_work_where_an_event_loop_already_runs():
    async def notebook():
        return run_async(asyncio.sleep(0, "done"))

    assert asyncio.run(notebook()) == "done"
    assert any(thread.name == "teamsrl-calls" and thread.daemon for thread in threading.enumerate())


class Alike:
    """A model that always answers alike, counts its calls, and has a length of 0; equal to none, hashed by none."""

    model, immediate, deterministic, whole = "counting", True, True, True
    __hash__ = None

    def __init__(self):
        self.calls = 0

    def __len__(self):
        return 0

    def __eq__(self, other):
        return False

    async def __call__(self, request):
        self.calls += 1
        return Completion("Name two birds of Peru, please.", self.model)


def test_what_deterministic_models_made_is_remembered_as_long_as_they_live():
    def step(instructor, reviewer):
        return asyncio.run(carry_out(["Name a bird."], OPERATIONS[0], instructor, reviewer))

    first, second = Alike(), Alike()
    assert step(first, second) is step(first, second)
    assert first.calls == 1
    assert step(first, first).rewrite == step(first, second).rewrite
    assert first.calls == 3  # Another pair: a rewrite, and a verdict.
    gone = weakref.ref(first)
    del first
    gc.collect()
    assert gone() is None
    step(Alike(), second)
    assert second.calls == 2
