"""Generators around generators: what they pass on, and what may be remembered of a model without keeping it alive."""

import asyncio
import gc
import math
import weakref

import pytest

from teamsrl_hf import Ledger, Rulebook, ScriptedGenerator
from teamsrl_hf.environment.rollout import carry_out
from teamsrl_hf.evolve.candidates import Counted
from teamsrl_hf.models.base import Completion, Request, Wrapper, concurrency_of, is_deterministic, is_immediate
from teamsrl_hf.models.endpoint import EndpointGenerator
from teamsrl_hf.text.operations import OPERATIONS

ASK = Request("expert", ({"role": "user", "content": "Name a bird."},))


class Polite:
    """Rewrites every text alike, and counts how often it is asked."""

    model, immediate, deterministic, whole = "polite", True, True, True

    def __init__(self):
        self.calls = 0

    async def __call__(self, request):
        self.calls += 1
        return Completion("Name three birds of Chile, please.", self.model)


class Unreferable:
    """The same, but it allows no weak reference."""

    __slots__ = ("calls",)
    model, immediate, deterministic, whole = "polite", True, True, True

    def __init__(self):
        self.calls = 0

    __call__ = Polite.__call__


def _step(instructor, reviewer):
    return asyncio.run(carry_out(["Name a bird."], OPERATIONS[0], instructor, reviewer))


@pytest.fixture(params=["ledger", "chain", "plain"])
def wrap(request, tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        yield {"ledger": ledger.record, "chain": Counted, "plain": Wrapper}[request.param]


@pytest.mark.parametrize(
    ("generator", "expected"),
    [
        (Rulebook(), (True, True, math.inf)),
        (ScriptedGenerator(["x"]), (True, False, math.inf)),
        (EndpointGenerator("m", "http://127.0.0.1:9/v1", concurrency=7), (False, False, 7)),
    ],
    ids=["rules", "script", "endpoint"],
)
def test_a_wrapper_waits_answers_and_limits_itself_as_what_it_wraps(wrap, generator, expected):
    for wrapped in (wrap(generator), Wrapper(wrap(generator))):
        assert (is_immediate(wrapped), is_deterministic(wrapped), concurrency_of(wrapped)) == expected
        assert wrapped.model == generator.model


def test_a_wrapper_asks_what_it_wraps(wrap):
    assert asyncio.run(wrap(ScriptedGenerator(["A heron."]))(ASK)).text == "A heron."


def test_a_wrapper_round_a_recorded_model_lets_the_ledger_settle(tmp_path):
    sent, recorded = asyncio.Event(), []

    class Slow:
        model = "slow"

        async def __call__(self, request):
            sent.set()
            await asyncio.sleep(0.05)
            return Completion("A heron.", self.model)

    async def leave_early(model):
        asking = asyncio.create_task(model(ASK))
        await sent.wait()
        asking.cancel()
        await model.settle(None)
        recorded.append(ledger.calls)

    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        asyncio.run(leave_early(Wrapper(ledger.record(Slow()))))
    assert recorded == [1]


def test_the_tasks_that_wait_inside_an_endpoint_are_seen_through_a_wrapper():
    endpoint = EndpointGenerator("m", "http://127.0.0.1:9/v1")
    assert Wrapper(Wrapper(endpoint)).waiting is endpoint.waiting
    assert list(Wrapper(Polite()).waiting) == []


def test_the_concurrency_of_an_endpoint_is_set_once():
    with pytest.raises(AttributeError):
        EndpointGenerator("m", "http://127.0.0.1:9/v1").concurrency = 3


def test_every_call_reaches_a_wrapper_even_if_the_model_inside_is_deterministic():
    class Watched(Wrapper):
        seen = 0

        async def __call__(self, request):
            self.seen += 1
            return await super().__call__(request)

    watched, bare = Watched(Polite()), Polite()
    for _ in range(3):
        _step(watched, bare)
    assert (watched.seen, watched.generator.calls) == (3, 3)
    for _ in range(3):
        _step(watched.generator, bare)
    assert watched.generator.calls == 4


def test_what_is_remembered_of_a_model_keeps_neither_it_nor_its_partner_alive():
    instructor, reviewer = Polite(), Polite()
    freed = weakref.ref(instructor), weakref.ref(reviewer)
    assert _step(instructor, reviewer) is _step(instructor, reviewer)
    del reviewer
    gc.collect()
    assert (freed[0]() is instructor, freed[1]()) == (True, None)
    assert _step(instructor, instructor).rewrite == "Name three birds of Chile, please."
    del instructor
    gc.collect()
    assert freed[0]() is None


def test_a_model_that_nobody_can_watch_is_asked_each_time():
    model = Unreferable()
    first, again = _step(model, model), _step(model, model)
    assert first == again
    assert model.calls == 4
