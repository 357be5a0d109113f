"""Budgets against the count of a server that charges for answers and for failures, whatever it says of them."""

import asyncio
import itertools
import json
import subprocess
import sys
import time

import pytest
from aiohttp import web
from scripted_server import Server

from teamsrl_hf import Completion, EndpointGenerator, Ledger, Request, Sampling
from teamsrl_hf.models.budget import Budget, BudgetExhausted, Price

PRICE = Price(prompt=2.0, completion=8.0)
MOST = 200  # max_tokens of a request.
QUESTION = "Which bird sings on number {}, and what does it eat in winter, when the ground is frozen?"


class Till:
    """A chat endpoint that keeps its own count of requests, tokens and money.

    Args:
        faults: What requests meet, in the order in which they arrive, again and again; None: an answer.
    """

    def __init__(self, *faults):
        self.faults = itertools.cycle(faults)
        self.calls, self.tokens, self.money = 0, 0, 0.0
        self.dearest = (1, 0, 0.0)  # What a single request has taken at most.

    async def __call__(self, request):
        body = await request.json()
        self.calls += 1
        fault, number = next(self.faults), self.calls
        if fault == "refused":
            return web.Response(status=429, text="slow down", headers={"Retry-After": "0.01"})
        if fault == "parameter" and "top_p" in body:
            said = {"error": {"message": "Unsupported parameter: 'top_p'", "param": "top_p"}}
            return web.Response(status=400, text=json.dumps(said))
        prompt = 20 + sum(len(message["content"].encode()) for message in body["messages"]) // 3
        shown = 30 + 37 * number % (body["max_tokens"] - 60)
        thoughts = {"thoughts": 30, "endless": 700}.get(fault, 0)  # The second does not count in max_tokens.
        self.charge(prompt, shown + thoughts)
        usage = {"prompt_tokens": prompt, "completion_tokens": shown, "total_tokens": prompt + shown + thoughts}
        return await self.respond(request, fault, usage)

    def charge(self, prompt, answer):
        money = PRICE.of(prompt, answer)
        self.tokens, self.money = self.tokens + prompt + answer, self.money + money
        self.dearest = (1, max(self.dearest[1], prompt + answer), max(self.dearest[2], money))

    async def respond(self, request, fault, usage):
        if fault in ("500", "502", "504", "524", "408"):
            return web.Response(status=int(fault), text="lost")
        if fault == "told":
            return web.Response(status=500, text=json.dumps({"error": "lost", "usage": usage}))
        if fault == "late":
            await asyncio.sleep(0.4)
        if fault == "closed":
            request.transport.close()
            return web.Response()
        text = "" if fault in ("empty", "silent") else "A wren."
        choice = {"message": {"content": text}, "finish_reason": "tool_calls" if fault == "tool" else "stop"}
        body = json.dumps({"choices": [choice], "usage": None if fault == "silent" else usage})
        return web.Response(text=body[: len(body) // 2] if fault == "cut" else body)


def request(number):
    content = QUESTION.format(number)
    return Request("expert", ({"role": "user", "content": content},), Sampling(max_tokens=MOST))


def ask(server, path, budget, concurrency, questions=150, **options):
    """Answers, failures or stops for so many questions, all asked at once."""
    how = {"backoff": 0.002, "timeout": 0.2, "max_wait": 5, **options}

    async def run():
        model = EndpointGenerator("stand-in", server.url, concurrency=concurrency, **how)
        with Ledger(path, prices={"stand-in": PRICE}, budget=budget) as ledger:
            recorded = ledger.record(model)
            results = await asyncio.gather(*(recorded(request(i)) for i in range(questions)), return_exceptions=True)
            await ledger.settle()
        await model.close()
        return results

    return asyncio.run(run())


CHARGED = ("500", None, "late", None, "closed", "cut", None, "thoughts", "408", "empty", None, "524", "told", "silent")
BUDGETS = {
    "calls": (Budget(calls=40), 0),
    "tokens": (Budget(tokens=9_000), 1),
    "cost": (Budget(cost=0.04), 2),
}


@pytest.mark.parametrize("concurrency", [1, 4, 16])
@pytest.mark.parametrize("name", BUDGETS)
def test_a_server_that_charges_for_failures_counts_no_more_than_the_budget(name, concurrency, tmp_path):
    budget, which = BUDGETS[name]
    till = Till(*CHARGED)
    with Server(always=till) as server:
        results = ask(server, tmp_path / "ledger.sqlite", budget, concurrency)
        counted = (till.calls, till.tokens, till.money)
        again = ask(server, tmp_path / "ledger.sqlite", budget, concurrency)
    limit = getattr(budget, name)
    assert any(isinstance(result, BudgetExhausted) for result in results)
    # Most of it was used: what is missing is what the next request might have taken, and what failures might have.
    assert limit / 4 <= counted[which] <= limit
    assert any(isinstance(result, BudgetExhausted) for result in again)
    assert (till.calls, till.tokens, till.money)[which] <= limit
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert counted[which] <= (ledger.attempts, ledger.tokens, ledger.cost)[which] <= limit * (1 + 1e-9)


@pytest.mark.parametrize("concurrency", [1, 4, 16])
@pytest.mark.parametrize("name", BUDGETS)
def test_thoughts_beyond_max_tokens_exceed_a_budget_by_no_more_than_what_is_in_flight(name, concurrency, tmp_path):
    budget, which = BUDGETS[name]
    till = Till("endless", None)
    with Server(always=till) as server:
        ask(server, tmp_path / "ledger.sqlite", budget, concurrency)
    counted = (till.calls, till.tokens, till.money)[which]
    assert counted <= getattr(budget, name) + concurrency * till.dearest[which]


def test_refusals_and_refused_parameters_count_as_requests_and_cost_nothing(tmp_path):
    till = Till("parameter", "refused", None)
    with Server(always=till) as server:
        ask(server, tmp_path / "ledger.sqlite", Budget(calls=30), concurrency=4)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.attempts == till.calls == 30
        assert (ledger.tokens, ledger.cost) == (till.tokens, pytest.approx(till.money))


def test_a_call_that_waits_for_the_budget_leaves_its_place_to_those_that_hold_it(tmp_path):
    # Two in flight may take 650 tokens; one that has failed waits until the other is answered.
    till = Till("500", None, None, None)
    with Server(always=till) as server:
        results = ask(server, tmp_path / "ledger.sqlite", Budget(tokens=1_300), concurrency=2, questions=3)
    assert [type(result) for result in results] == [Completion] * 3
    assert till.calls == 4


@pytest.mark.parametrize("status", ["500", "408"])
def test_where_all_fail_a_budget_and_the_guard_against_it_do_not_wait_for_each_other(status, tmp_path):
    till = Till(status)
    with Server(always=till) as server:
        results = ask(server, tmp_path / "ledger.sqlite", Budget(tokens=3_000), concurrency=8, max_retries=2)
    assert all(isinstance(result, BudgetExhausted) or result.error for result in results)
    assert till.tokens <= 3_000


def test_what_failed_attempts_took_is_recorded_though_the_process_is_killed_before_the_next(tmp_path):
    till = Till("told", None)
    script = f"""
import asyncio, sys
from test_budgets import request
from teamsrl_hf import EndpointGenerator, Ledger
async def run(url):
    model = EndpointGenerator("stand-in", url, backoff=60)
    await Ledger({str(tmp_path / "ledger.sqlite")!r}).record(model)(request(0))
asyncio.run(run(sys.argv[1]))
"""
    with Server(always=till) as server:
        process = subprocess.Popen([sys.executable, "-c", script, server.url], cwd="tests")
        while not _booked(tmp_path / "ledger.sqlite-wal"):
            assert process.poll() is None
            time.sleep(0.05)
        process.kill()
        process.wait()
        with Ledger(tmp_path / "ledger.sqlite") as ledger:
            assert (ledger.calls, ledger.attempts, ledger.tokens) == (1, 1, till.tokens)
        ask(server, tmp_path / "ledger.sqlite", Budget(), 1, questions=1)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert (ledger.calls, ledger.attempts, ledger.tokens) == (2, 2, till.tokens)
        assert ledger.failures() == []


def _booked(log):
    return log.is_file() and b"lost" in log.read_bytes()


def test_a_request_that_is_cut_off_when_the_run_is_stopped_is_booked_at_the_most_it_may_cost(tmp_path):
    async def run(server):
        model = EndpointGenerator("stand-in", server.url, timeout=20)
        with Ledger(tmp_path / "ledger.sqlite") as ledger:
            asked = asyncio.create_task(ledger.record(model)(request(0)))
            while not till.calls:
                await asyncio.sleep(0.01)
            asked.cancel()
            await ledger.settle(0.01)
            spent = ledger.calls, ledger.attempts, ledger.tokens
        await model.close()
        return spent

    till = Till("late")
    with Server(always=till) as server:
        assert asyncio.run(run(server)) == (1, 1, len(QUESTION.format(0)) + 8 + 32 + MOST)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.totals()["expert"].estimated == 1
