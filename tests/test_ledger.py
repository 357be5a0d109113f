import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from endpoint_server import EndpointServer

from teamsrl_hf import Completion, EndpointGenerator, Ledger, Request, Sampling, ScriptedGenerator, Task
from teamsrl_hf.calls import run_async
from teamsrl_hf.models import ledger_file
from teamsrl_hf.models.accounting import report
from teamsrl_hf.models.budget import Budget, BudgetExhausted, Price
from teamsrl_hf.models.ledger import Totals, request_key
from teamsrl_hf.text.operations import OPERATIONS, rewrite_messages


def _request(text="Name a bird.", **changes):
    return replace(Request("expert", ({"role": "user", "content": text},)), **changes)


def test_an_answered_request_is_replayed_and_not_asked_again(tmp_path):
    model = ScriptedGenerator(lambda request: "A wren.")
    for _ in range(2):
        with Ledger(tmp_path / "ledger.sqlite") as ledger:
            assert asyncio.run(ledger.record(model)(_request())).text == "A wren."
    assert model.calls == 1


def test_the_answer_is_on_disk_before_anyone_sees_it(tmp_path):
    script = f"""
import asyncio, os
from teamsrl_hf import Ledger, Request, ScriptedGenerator
async def main():
    model = Ledger({str(tmp_path / "ledger.sqlite")!r}).record(ScriptedGenerator(lambda request: "bought"))
    await model(Request("expert", ({{"role": "user", "content": "Name a bird."}},)))
    os.kill(os.getpid(), 9)
asyncio.run(main())
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == -9
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.find(request_key(_request(), "scripted")).text == "bought"


def test_two_equal_requests_in_flight_buy_one_answer(tmp_path):
    calls = []

    class Slow:
        model = "slow"

        async def __call__(self, request):
            calls.append(request)
            await asyncio.sleep(0.02)
            return Completion("A wren.", "slow")

    async def main():
        with Ledger(tmp_path / "ledger.sqlite") as ledger:
            model = ledger.record(Slow())
            return await asyncio.gather(model(_request()), model(_request()))

    first, second = asyncio.run(main())
    assert first == second
    assert len(calls) == 1


REFUSED = Completion("", "scripted", error="HTTP 400", request_refused=True)


def _runs(path, model, *runs):
    """What each run, a list of requests asked one after the other, is answered; one ledger for all."""
    answers = []
    for requests, options in runs:
        with Ledger(path, **options) as ledger:
            recorded = ledger.record(model)
            answers.append([asyncio.run(recorded(request)).text for request in requests])
    return answers


def test_a_request_refused_where_a_later_one_is_answered_is_replayed_unless_the_user_asks_to_retry(tmp_path):
    model = ScriptedGenerator([REFUSED, "A wren.", "A rook."])
    asked = [_request("a"), _request("b")]
    runs = [(asked, {}), (asked, {}), (asked, {"retry_errors": True}), (asked, {})]
    answers = _runs(tmp_path / "ledger.sqlite", model, *runs)
    assert answers == [["", "A wren."], ["", "A wren."], ["A rook.", "A wren."], ["A rook.", "A wren."]]


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ([REFUSED], [_request("a")]),  # Perhaps all would have been refused.
        (["A wren.", REFUSED], [_request("b"), _request("a")]),  # Credit may have run out in between.
        ([replace(REFUSED, request_refused=False), "A wren."], [_request("a"), _request("b")]),  # A wrong key, say.
        ([REFUSED, "A wren."], [_request("a"), _request("b", role="reviewer")]),
        ([REFUSED, "A wren."], [_request("a"), _request("b", task=Task("answer", ("b",)))]),
    ],
    ids=["alone", "last", "endpoint", "role", "kind"],
)
def test_a_failure_that_may_concern_all_calls_is_asked_again_by_the_next_run_and_not_by_this_one(
    first, then, tmp_path
):
    model = ScriptedGenerator([*first, "A rook."])
    once, again = _runs(tmp_path / "ledger.sqlite", model, (then + then, {}), (then, {}))
    assert once.count("") == 2
    assert sorted(again) == sorted({*once, "A rook."} - {""})
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert (ledger.calls, sum(totals.errors for totals in ledger.totals().values())) == (len(first) + 1, 1)


def test_a_call_that_was_sent_before_the_refusal_says_nothing_of_it(tmp_path):
    class Slow:
        model = "slow"

        async def __call__(self, request):
            if request == _request("refused"):
                await asyncio.sleep(0.02)
                return replace(REFUSED, model="slow")
            await asyncio.sleep(0.05)
            return Completion("A wren.", "slow")

    async def both(ledger):
        model = ledger.record(Slow())
        await asyncio.gather(model(_request("early")), model(_request("refused")))

    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        asyncio.run(both(ledger))
    assert _runs(tmp_path / "ledger.sqlite", ScriptedGenerator(["A rook."], "slow"), ([_request("refused")], {})) == [
        ["A rook."]
    ]


def test_what_failed_in_another_process_of_this_launch_is_not_asked_again(tmp_path):
    start = time.time()
    model = ScriptedGenerator([REFUSED])
    _runs(tmp_path / "ledger-1.sqlite", model, ([_request()], {}))
    with Ledger(tmp_path / "ledger.sqlite", since=start, retry_errors=True) as ledger:
        ledger.merge([tmp_path / "ledger-1.sqlite"])
        assert asyncio.run(ledger.record(model)(_request())).error == "HTTP 400"


def test_totals_add_up_by_role(tmp_path):
    model = ScriptedGenerator(lambda request: Completion("x", "m", prompt_tokens=10, completion_tokens=3))
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        recorded = ledger.record(model)
        for text, role in (("a", "expert"), ("b", "expert"), ("a", "reviewer")):
            asyncio.run(recorded(_request(text, role=role)))
        totals = ledger.totals()
    assert {role: (t.calls, t.prompt_tokens, t.completion_tokens) for role, t in totals.items()} == {
        "expert": (2, 20, 6),
        "reviewer": (1, 10, 3),
    }


def test_a_second_process_is_told_that_the_ledger_is_in_use(tmp_path):
    path = tmp_path / "ledger.sqlite"
    script = f"from teamsrl_hf import Ledger; Ledger({str(path)!r})"
    with Ledger(path):
        second = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "is in use by another process" in second.stderr


def test_a_file_that_is_no_ledger_is_refused_and_left_as_it_was(tmp_path):
    path = tmp_path / "ledger.sqlite"
    path.write_text("my diary " * 100)
    with pytest.raises(ValueError, match="is not a ledger"):
        Ledger(path)
    assert path.read_text() == "my diary " * 100


def test_a_full_disk_is_told_in_one_line_and_the_answer_is_not_handed_out(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger._connection.execute("PRAGMA max_page_count=8")
    model = ledger.record(ScriptedGenerator(lambda request: "x" * 100_000))
    with pytest.raises(OSError, match=r"can't be written \(database or disk is full\)"):
        asyncio.run(model(_request()))


class Slow:
    """Answers after so many seconds as its request's sample index says."""

    model = "slow"

    def __init__(self):
        self.answered = []

    async def __call__(self, request):
        await asyncio.sleep(request.sample_index)
        self.answered.append(request.sample_index)
        return Completion("Because.", "slow")


def test_a_call_outlives_the_chain_that_made_it_until_it_is_settled(tmp_path):
    model = Slow()

    async def main():
        with Ledger(tmp_path / "ledger.sqlite") as ledger:
            recorded = ledger.record(model)
            chains = [asyncio.create_task(recorded(_request(sample_index=seconds))) for seconds in (0.05, 30)]
            await asyncio.sleep(0.01)
            for chain in chains:
                chain.cancel()
            await asyncio.gather(*chains, return_exceptions=True)
            assert model.answered == []
            await ledger.settle(0.5)
            return len(asyncio.all_tasks()), ledger.calls

    assert asyncio.run(main()) == (1, 1)
    assert model.answered == [0.05]


@pytest.mark.parametrize("error", [KeyboardInterrupt, BudgetExhausted])
def test_closing_a_ledger_lets_what_was_sent_be_recorded_and_sends_nothing_that_waits(error, tmp_path):
    with EndpointServer(latency=0.3) as server:
        model = EndpointGenerator("m", server.url, concurrency=2)

        async def ask_and_leave(recorded):
            calls = [asyncio.create_task(recorded(_request(f"Name bird {i}."))) for i in range(6)]
            while server.counts().get("received", 0) < 2:
                await asyncio.sleep(0.01)
            for call in calls:
                call.cancel()

        def run():
            with ledger:
                run_async(ask_and_leave(ledger.record(model)))
                raise error

        ledger = Ledger(tmp_path / "ledger.sqlite")
        with pytest.raises(error):
            run()
        run_async(model.close())
        # A spent budget presses nobody: what was within it is bought.
        assert ledger.calls == server.counts()["received"] == (2 if error is KeyboardInterrupt else 6)


def test_whoever_waits_for_a_twin_gets_its_answer_when_the_first_to_ask_is_gone(tmp_path):
    model = Slow()

    async def main():
        with Ledger(tmp_path / "ledger.sqlite") as ledger:
            recorded = ledger.record(model)
            first, twin = (asyncio.create_task(recorded(_request(sample_index=0.05))) for _ in range(2))
            await asyncio.sleep(0.01)
            first.cancel()
            return (await twin).text

    assert asyncio.run(main()) == "Because."
    assert model.answered == [0.05]


def test_the_ledger_holds_no_prompt_text(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        asyncio.run(ledger.record(ScriptedGenerator(lambda request: "A wren."))(_request("a secret question")))
    columns = [row[1] for row in sqlite3.connect(path).execute("PRAGMA table_info(calls)")]
    assert "messages" not in columns
    assert b"a secret question" not in path.read_bytes()


# What could change the answer, each as a user would change it: (model's name, request).
CHANGES = {
    "prompt": ("m", _request("Name a bird!")),
    "system prompt": (
        "m",
        _request(messages=({"role": "system", "content": "Be brief."}, *_request().messages)),
    ),
    "role": ("m", _request(role="judge")),
    "temperature": ("m", _request(sampling=Sampling(temperature=0.1))),
    "top_p": ("m", _request(sampling=Sampling(top_p=0.5))),
    "max_tokens": ("m", _request(sampling=Sampling(max_tokens=1))),
    "seed": ("m", _request(sampling=Sampling(seed=1))),
    "sample": ("m", _request(sample_index=1)),
    "model": ("n", _request()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_could_change_the_answer_is_asked_anew(change, tmp_path):
    name, request = CHANGES[change]
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        asyncio.run(ledger.record(ScriptedGenerator(["old"], model="m"))(_request()))
        other = ScriptedGenerator(["new"], model=name)
        assert asyncio.run(ledger.record(other)(request)).text == "new"
        assert asyncio.run(ledger.record(ScriptedGenerator([], model="m"))(_request())).text == "old"
    assert other.calls == 1


def test_another_wording_of_an_operation_is_asked_anew(tmp_path):
    asked = [
        Request("expert", rewrite_messages(operation, "Name a bird."))
        for operation in (OPERATIONS[0], replace(OPERATIONS[0], sentence=OPERATIONS[0].sentence + " Politely."))
    ]
    model = ScriptedGenerator(lambda request: "x")
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        for request in (*asked, *asked):
            asyncio.run(ledger.record(model)(request))
    assert model.calls == 2


def test_keys_stay_what_they_were_so_that_ledgers_outlive_an_upgrade():
    assert request_key(_request(), "m").hex() == "fb778db375e97690037086bf9661c5a8"
    assert request_key(replace(_request(), scored=True), "m") != request_key(_request(), "m")


class Endpoint:
    """Answers after a turn of the loop, each answer of 10 + 5 tokens; counts what it was asked."""

    model = "paid"

    def __init__(self, **changes):
        self.asked, self.most, self.waiting, self.changes = [], 0, 0, changes

    async def __call__(self, request):
        self.asked.append(request.messages[0]["content"])
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        await asyncio.sleep(0.001)
        self.waiting -= 1
        return replace(Completion(f"Answer to {self.asked[-1]}", "paid-v1", 10, 5), **self.changes)


PRICES = {"paid": Price(prompt=2.0, completion=8.0)}
COST = 10 * 2e-6 + 5 * 8e-6
SHORT = Sampling(max_tokens=5)


async def _ask_all(model, count, sampling=SHORT):
    requests = [_request(f"Question {i}", sampling=sampling) for i in range(count)]
    return await asyncio.gather(*map(model, requests), return_exceptions=True)


def _bought(answers):
    return sum(isinstance(answer, Completion) for answer in answers)


def test_the_cost_is_stored_with_the_call_and_later_prices_do_not_rewrite_it(tmp_path):
    path = tmp_path / "ledger.sqlite"
    for prices, price in ((PRICES, COST), ({"paid": Price(1e6, 1e6)}, COST), ({}, COST)):
        with Ledger(path, prices=prices) as ledger:
            asyncio.run(_ask_all(ledger.record(Endpoint()), 3))
            assert ledger.totals()["expert"].cost == pytest.approx(3 * price)
            assert (ledger.calls, ledger.tokens) == (3, 45)
            assert ledger.cost == pytest.approx(3 * price)


# What each question may take at most: 1 call; 10 bytes + 40 + 5 tokens; that much money. What it takes: 15 tokens.
@pytest.mark.parametrize(
    ("low", "high", "bought"),
    [
        (Budget(calls=7), Budget(calls=30), 7),
        (Budget(tokens=160), Budget(tokens=10_000), 8),
        (Budget(cost=7 * COST + 50 * 2e-6 + 5 * 8e-6), Budget(cost=1.0), 8),
        (Budget(calls=0), Budget(), 0),
    ],
)
def test_a_budget_stops_before_the_purchase_that_might_exceed_it_and_a_higher_one_goes_on(low, high, bought, tmp_path):
    path, model = tmp_path / "ledger.sqlite", Endpoint()
    with Ledger(path, prices=PRICES, budget=low) as ledger:
        first = asyncio.run(_ask_all(ledger.record(model), 10))
        assert _bought(first) == len(model.asked) == ledger.calls == bought
        assert {type(answer) for answer in first} == {BudgetExhausted} | ({Completion} if bought else set())
        assert ledger.tokens <= (low.tokens or 10**9)
        assert ledger.cost <= (low.cost or 1)
    with Ledger(path, prices=PRICES, budget=low) as ledger:  # What is recorded is given out without a budget.
        again = asyncio.run(_ask_all(ledger.record(model), 10))
        assert _bought(again) == ledger.replayed == bought
        assert len(model.asked) == bought
    with Ledger(path, prices=PRICES, budget=high) as ledger:
        assert _bought(asyncio.run(_ask_all(ledger.record(model), 10))) == 10
    assert sorted(model.asked) == sorted(f"Question {i}" for i in range(10))


def test_the_message_of_a_spent_budget_is_one_line_that_says_how_to_go_on(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite", budget=Budget(tokens=100)) as ledger:
        answers = asyncio.run(_ask_all(ledger.record(Endpoint()), 9))
    assert str(answers[-1]) == (
        "The budget of 100 tokens is spent: 60 so far, and the next call may take 55; run again with a higher "
        "budget_tokens to go on where this stopped."
    )


def test_what_is_in_flight_is_held_against_the_budget(tmp_path):
    model = Endpoint()
    with Ledger(tmp_path / "ledger.sqlite", budget=Budget(tokens=2 * 55)) as ledger:
        asyncio.run(_ask_all(ledger.record(model), 10))
    assert model.most == 2  # Each may take 55.
    assert len(model.asked) == 4  # 15 + 15 + 15 + 15, and 55 more would be too much.


def test_twins_that_wait_for_the_budget_are_bought_once(tmp_path):
    model = Endpoint()

    async def main(recorded):
        first = _request("Question 0", sampling=SHORT)
        twin = _request("Question 1", sampling=SHORT)
        return await asyncio.gather(*map(recorded, (first, twin, twin, twin)))

    with Ledger(tmp_path / "ledger.sqlite", budget=Budget(tokens=80)) as ledger:
        assert [answer.text[-1] for answer in asyncio.run(main(ledger.record(model)))] == ["0", "1", "1", "1"]
    assert model.asked == ["Question 0", "Question 1"]


def test_a_model_that_never_waits_has_a_budget_without_an_event_loop(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite", budget=Budget(calls=1, cost=0.1)) as ledger:
        model = ledger.record(ScriptedGenerator(lambda request: "x"))
        assert run_async(model(_request())).text == "x"
        with pytest.raises(BudgetExhausted, match="budget of 1 calls is spent"):
            run_async(model(_request("Another.")))


def test_a_budget_in_money_wants_the_price_of_every_model_that_may_cost(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite", prices={"free": Price()}, budget=Budget(cost=1.0)) as ledger:
        with pytest.raises(ValueError, match="'paid' has no price; list the model in prices, with 0 if"):
            ledger.record(Endpoint())
        ledger.record(ScriptedGenerator(["x"]))


@pytest.mark.parametrize("bad", [-1, float("nan"), float("inf"), "3", True])
def test_a_price_or_a_budget_that_is_no_amount_is_refused(bad):
    with pytest.raises(ValueError, match=r"The price prompt is .*wanted a number from 0 up"):
        Price(prompt=bad)
    with pytest.raises(ValueError, match=r"The budget cost is .*wanted a number from 0 up"):
        Budget(cost=bad)


def test_failures_that_were_billed_count_also_when_they_are_asked_again(tmp_path):
    path = tmp_path / "ledger.sqlite"
    broken = Endpoint(text="", error="HTTP 500")
    with Ledger(path, prices=PRICES) as ledger:
        asyncio.run(_ask_all(ledger.record(broken), 2))
    with Ledger(path, prices=PRICES, retry_errors=True) as ledger:
        asyncio.run(_ask_all(ledger.record(Endpoint()), 2))
    with Ledger(path, prices=PRICES) as ledger:
        totals = ledger.totals()["expert"]
        assert _bought(asyncio.run(_ask_all(ledger.record(Endpoint()), 2))) == ledger.replayed == 2
    assert (totals.calls, totals.errors, totals.prompt_tokens, totals.completion_tokens) == (4, 2, 40, 20)
    assert totals.cost == pytest.approx(4 * COST)


def test_what_fails_again_is_asked_once_and_not_at_every_turn(tmp_path):
    path, model = tmp_path / "ledger.sqlite", Endpoint(text="", error="HTTP 400")
    for asked in (1, 2):
        with Ledger(path, retry_errors=True) as ledger:
            for _ in range(3):
                asyncio.run(_ask_all(ledger.record(model), 1))
        assert len(model.asked) == asked


def test_tokens_a_server_does_not_report_are_estimated_and_said_to_be(tmp_path):
    path = tmp_path / "ledger.sqlite"
    for _ in range(2):  # Bought and replayed alike: 10 bytes of question, 20 of answer, one token for four.
        with Ledger(path, prices=PRICES) as ledger:
            silent = ledger.record(Endpoint(prompt_tokens=0, completion_tokens=0))
            (answer,) = asyncio.run(_ask_all(silent, 1))
            assert (answer.prompt_tokens, answer.completion_tokens) == (3, 6)
            assert (ledger.totals()["expert"].estimated, ledger.tokens) == (1, 9)


def test_retries_are_kept_with_the_call_and_come_back_with_it(tmp_path):
    path = tmp_path / "ledger.sqlite"
    for _ in range(2):
        with Ledger(path) as ledger:
            (answer,) = asyncio.run(_ask_all(ledger.record(Endpoint(attempts=3)), 1))
            assert answer.attempts == ledger.totals()["expert"].attempts == 3
            assert ledger.calls == 1


def test_the_cancelled_half_of_two_twins_does_not_take_the_other_along(tmp_path):
    model = Endpoint()

    async def main(recorded):
        first, twin = (asyncio.create_task(recorded(_request())) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        return await asyncio.gather(first, twin, return_exceptions=True)

    with Ledger(tmp_path / "ledger.sqlite", budget=Budget(calls=1)) as ledger:
        first, twin = asyncio.run(main(ledger.record(model)))
    assert isinstance(first, asyncio.CancelledError)
    assert twin.text == "Answer to Name a bird."


def test_a_call_whose_tokens_are_partly_estimated_is_counted_as_estimated(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite", prices=PRICES) as ledger:
        asyncio.run(_ask_all(ledger.record(Endpoint(estimated_tokens=(4, 2))), 2))
        totals = ledger.totals()["expert"]
    assert (totals.estimated, totals.estimated_tokens, totals.prompt_tokens) == (2, 12, 20)
    assert (totals.cost, totals.estimated_cost) == pytest.approx((2 * COST, 2 * (4 * 2e-6 + 2 * 8e-6)))


def test_what_came_from_the_servers_cache_has_a_price_of_its_own(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite", prices={"paid": Price(2.0, 8.0, cached_prompt=0.5)}) as ledger:
        asyncio.run(_ask_all(ledger.record(Endpoint(cached_tokens=6)), 1))
        assert ledger.totals()["expert"].cached_tokens == 6
        assert ledger.cost == pytest.approx(4 * 2e-6 + 6 * 0.5e-6 + 5 * 8e-6)


def test_a_count_that_a_server_tells_by_half_is_estimated_by_half(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        (answer,) = asyncio.run(_ask_all(ledger.record(Endpoint(completion_tokens=0)), 1))
    assert (answer.prompt_tokens, answer.completion_tokens, answer.estimated_tokens) == (10, 6, (0, 6))


def test_what_was_chosen_by_likelihood_has_no_tokens_to_estimate(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        (answer,) = asyncio.run(_ask_all(ledger.record(Endpoint(completion_tokens=0, scores=(-0.1, -2.0))), 1))
    assert (answer.prompt_tokens, answer.completion_tokens, answer.estimated_tokens) == (10, 0, (0, 0))


def test_a_clock_that_jumps_back_harms_neither_durations_nor_replay(tmp_path, monkeypatch):
    moments = iter([2e9, 1e9, -5.0, 0.0])
    monkeypatch.setattr("teamsrl_hf.models.ledger.time.time", lambda: next(moments))
    path = tmp_path / "ledger.sqlite"
    for replayed in (0, 4):
        with Ledger(path) as ledger:
            assert _bought(asyncio.run(_ask_all(ledger.record(Endpoint()), 4))) == 4
            assert ledger.replayed == replayed
            assert 0.004 <= ledger.totals()["expert"].seconds < 5


OLD = """CREATE TABLE calls (
    key BLOB PRIMARY KEY, role TEXT NOT NULL, model TEXT NOT NULL, text TEXT NOT NULL, prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL, finish_reason TEXT NOT NULL, error TEXT, seconds REAL NOT NULL, created REAL
    NOT NULL
)"""


def _sqlite(path, *statements):
    with closing(sqlite3.connect(path)) as connection, connection:
        return [connection.execute(*statement).fetchall() for statement in statements][-1]


def test_a_ledger_without_costs_is_taken_over(tmp_path):
    path = tmp_path / "ledger.sqlite"
    row = (request_key(_request(), "paid"), "expert", "paid", "A wren.", 10, 5, "stop", None, 0.5, 1e9)
    _sqlite(path, (OLD,), ("INSERT INTO calls VALUES (?,?,?,?,?,?,?,?,?,?)", row))
    for _ in range(2):
        with Ledger(path, prices=PRICES) as ledger:
            assert asyncio.run(ledger.record(Endpoint())(_request())).text == "A wren."
            assert ledger.totals() == {"expert": Totals(1, 0, 10, 5, 0.5, cost=0.0, attempts=1, estimated=0)}


def test_a_ledger_without_costs_can_be_read_from(tmp_path):
    row = (request_key(_request(), "paid"), "expert", "paid", "A wren.", 10, 5, "stop", None, 0.5, 1e9)
    _sqlite(tmp_path / "old.sqlite", (OLD,), ("INSERT INTO calls VALUES (?,?,?,?,?,?,?,?,?,?)", row))
    with Ledger(tmp_path / "ledger.sqlite", read_from=[tmp_path / "old.sqlite"]) as ledger:
        assert asyncio.run(ledger.record(Endpoint())(_request())) == Completion("A wren.", "paid", 10, 5)


def test_an_sqlite_file_of_something_else_is_refused_and_left_as_it_was(tmp_path):
    path = tmp_path / "photos.sqlite"
    _sqlite(path, ("CREATE TABLE photos (name TEXT)",))
    before = path.read_bytes()
    with pytest.raises(ValueError, match="is not a ledger \\(an SQLite file of something else\\)"):
        Ledger(path)
    assert path.read_bytes() == before


def test_a_damaged_ledger_is_told_in_one_line(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        model = ledger.record(ScriptedGenerator(lambda request: "x" * 2_000))
        for i in range(50):
            asyncio.run(model(_request(f"Question {i}")))
    content = bytearray(path.read_bytes())
    content[8_192:] = b"\xff" * (len(content) - 8_192)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"The ledger .* is damaged \(database disk image is malformed\); put back"):
        Ledger(path)


def test_a_failure_in_a_ledger_of_version_2_is_asked_again_and_still_counts(tmp_path):
    path = tmp_path / "ledger.sqlite"
    _write(path, text="", error="HTTP 401")
    _sqlite(
        path,
        *((f"ALTER TABLE {table} DROP COLUMN final",) for table in ("calls", "superseded")),
        ("PRAGMA user_version=2",),
    )
    _write(path, text="A wren.")
    assert _answer(path) == ("A wren.", 2, 2)


def test_the_likelihood_of_each_choice_is_replayed_and_an_older_ledger_gets_room_for_it(tmp_path):
    path = tmp_path / "ledger.sqlite"
    _write(path, text="A wren.")
    _sqlite(
        path,
        *((f"ALTER TABLE {table} DROP COLUMN scores",) for table in ("calls", "superseded")),
        ("PRAGMA user_version=3",),
    )
    request = Request("reviewer", _request("Equal or Different?").messages, choices=("Different", "Equal"))
    chosen = Completion("Equal", "m", scores=(-1.75, -0.25))
    for _ in range(2):
        with Ledger(path) as ledger:
            model = ledger.record(ScriptedGenerator([chosen]))
            assert asyncio.run(model(request)).scores == (-1.75, -0.25)
    with Ledger(tmp_path / "other.sqlite", read_from=[path]) as ledger:
        assert asyncio.run(ledger.record(ScriptedGenerator([]))(request)).scores == (-1.75, -0.25)
    assert _answer(path)[0] == "A wren."


@pytest.mark.parametrize("change", ["text = 'A hen.'", "text = ''", "completion_tokens = 6", "model = 'other'"])
def test_a_damaged_answer_is_named_bought_again_and_still_counts(change, tmp_path, caplog):
    path = tmp_path / "ledger.sqlite"
    _write(path, text="A wren.")
    _sqlite(path, (f"UPDATE calls SET {change}",))
    caplog.clear()
    _write(path, text="A robin.")
    key = request_key(_request(), "paid").hex()
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        f"The ledger {path} holds a damaged answer, {key}; it is bought again."
    ]
    text, bought, _ = _answer(path)
    assert (text, bought) == ("A robin.", 2)


def test_a_damaged_answer_in_another_ledger_is_not_replayed(tmp_path):
    _write(tmp_path / "other.sqlite", text="A wren.")
    _sqlite(tmp_path / "other.sqlite", ("UPDATE calls SET text = 'A hen.'",))
    with Ledger(tmp_path / "ledger.sqlite", read_from=[tmp_path / "other.sqlite"]) as ledger:
        assert asyncio.run(ledger.record(Endpoint())(_request())).text == "Answer to Name a bird."


def test_answers_without_a_checksum_are_replayed(tmp_path):
    path = tmp_path / "ledger.sqlite"
    _write(path, text="A wren.")
    _sqlite(
        path,
        *((f"ALTER TABLE {table} DROP COLUMN checksum",) for table in ("calls", "superseded")),
        ("PRAGMA user_version=4",),
    )
    assert _answer(path)[0] == "A wren."


@contextmanager
def without_write_access(folder):
    """Inside, this process can write neither the folder nor its files, even where it runs as root."""
    for file in folder.iterdir():
        file.chmod(0o444)
    folder.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
        folder.chmod(0o755)


@pytest.mark.parametrize("killed", [False, True], ids=["closed", "killed"])
def test_another_ledger_is_read_without_write_access(killed, tmp_path):
    folder = Path(tempfile.mkdtemp())  # Unlike tmp_path, other users may enter it.
    try:
        if killed:
            assert subprocess.run([sys.executable, "-c", KILLED, str(folder / "known.sqlite")]).returncode == -9
            assert (folder / "known.sqlite-wal").stat().st_size > 0
        else:
            _write(folder / "known.sqlite", text="bought")
        before = {file.name: file.read_bytes() for file in folder.iterdir()}
        with without_write_access(folder):
            connection = ledger_file.open_to_read(folder / "known.sqlite")
            assert report(folder / "known.sqlite")["roles"]["expert"]["calls"] == 1
            with pytest.raises(PermissionError):
                (folder / "new").touch()
        with closing(connection):
            assert connection.execute("SELECT text FROM calls").fetchall() == [("bought",)]
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    finally:
        shutil.rmtree(folder)


def test_a_ledger_of_a_newer_version_is_refused(tmp_path):
    path = tmp_path / "ledger.sqlite"
    Ledger(path).close()
    _sqlite(path, ("PRAGMA user_version=99",))
    with pytest.raises(ValueError, match="is of version 99, this teamsrl-hf writes 7; install a newer"):
        Ledger(path)


def _write(path, text, **changes):
    with Ledger(path, prices=PRICES) as ledger:
        asyncio.run(ledger.record(Endpoint(text=text, **changes))(_request()))


def _answer(path):
    with Ledger(path, since=0) as ledger:
        found = ledger.find(request_key(_request(), "paid"))
        return found.text or found.error, ledger.calls, round(ledger.cost / COST)


@pytest.mark.parametrize(
    ("here", "there", "kept"),
    [
        ({"text": "here"}, {"text": "there"}, "here"),
        ({"text": "", "error": "failed"}, {"text": "there"}, "there"),
        ({"text": "here"}, {"text": "", "error": "failed"}, "here"),
        ({"text": "", "error": "older"}, {"text": "", "error": "newer"}, "newer"),
    ],
)
def test_merging_keeps_the_better_record_and_the_cost_of_both(here, there, kept, tmp_path):
    _write(tmp_path / "here.sqlite", **here)
    _write(tmp_path / "there.sqlite", **there)
    for _ in range(2):  # The second time changes nothing.
        with Ledger(tmp_path / "here.sqlite") as ledger:
            ledger.merge([tmp_path / "there.sqlite", tmp_path / "here.sqlite"])
            assert ledger.calls == 2
        assert _answer(tmp_path / "here.sqlite") == (kept, 2, 2)
    assert _answer(tmp_path / "there.sqlite") == (there["text"] or there["error"], 1, 1)
    with Ledger(tmp_path / "there.sqlite") as ledger:  # And back: still the same two purchases.
        ledger.merge([tmp_path / "here.sqlite"])
        assert ledger.calls == 2


def test_the_ledgers_of_many_processes_become_one(tmp_path):
    paths = [tmp_path / f"ledger-{rank}.sqlite" for rank in range(16)]
    for rank, path in enumerate(paths):
        with Ledger(path) as ledger:
            model = ledger.record(ScriptedGenerator(lambda request: "x"))
            for i in range(3):
                asyncio.run(model(_request(f"Question {rank} {i}")))
    _sqlite(paths[0], ("DROP TABLE calls",), ("DROP TABLE superseded",), ("PRAGMA user_version=0",), (OLD,))
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.merge(paths)
        assert ledger.totals()["expert"].calls == 45
        for path in paths:  # None of them is held.
            path.unlink()


def test_a_ledger_that_can_not_be_merged_is_named(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        with pytest.raises(ValueError, match=r"There is no ledger at .*missing\.sqlite"):
            ledger.merge([tmp_path / "missing.sqlite"])
        (tmp_path / "diary").write_text("my diary " * 100)
        with pytest.raises(ValueError, match="is not a ledger"):
            ledger.merge([tmp_path / "diary"])
        with pytest.raises(ValueError, match=r"There is no ledger at .*missing\.sqlite"):
            Ledger(tmp_path / "own.sqlite", read_from=[tmp_path / "missing.sqlite"])


KILLED = """
import asyncio, os, sys
from teamsrl_hf import Ledger, Request, ScriptedGenerator
async def main():
    model = Ledger(sys.argv[1]).record(ScriptedGenerator(lambda request: "bought", model="paid"))
    await model(Request("expert", ({"role": "user", "content": "Name a bird."},)))
    os.kill(os.getpid(), 9)
asyncio.run(main())
"""


def test_other_ledgers_are_read_by_two_at_once_even_what_a_killed_process_left(tmp_path):
    known = tmp_path / "known.sqlite"
    assert subprocess.run([sys.executable, "-c", KILLED, str(known)]).returncode == -9
    budget = Budget(calls=0)
    with (
        Ledger(tmp_path / "0.sqlite", budget=budget, read_from=[known]) as first,
        Ledger(tmp_path / "1.sqlite", budget=budget, read_from=[known]) as second,
    ):
        for ledger in (first, second):
            assert asyncio.run(ledger.record(Endpoint())(_request())).text == "bought"
            assert (ledger.calls, ledger.replayed) == (0, 1)
    with Ledger(tmp_path / "0.sqlite") as ledger:
        assert ledger.find(request_key(_request(), "paid")) is None


def test_a_final_failure_in_another_ledger_is_asked_again_when_the_user_says_so(tmp_path):
    _write(tmp_path / "known.sqlite", text="", error="HTTP 400")
    _sqlite(tmp_path / "known.sqlite", ("UPDATE calls SET final = 1",))
    for retry, text, calls in ((False, "", 0), (True, "A wren.", 1), (False, "A wren.", 1)):
        with Ledger(tmp_path / "own.sqlite", retry_errors=retry, read_from=[tmp_path / "known.sqlite"]) as ledger:
            assert asyncio.run(ledger.record(Endpoint(text="A wren."))(_request())).text == text
            assert ledger.calls == calls


def test_a_disk_that_fills_up_in_a_process_ends_in_one_line_and_keeps_what_was_handed_out(tmp_path):
    script = f"""
import asyncio, resource
from teamsrl_hf import Ledger, Request, ScriptedGenerator
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
model = Ledger({str(tmp_path / "ledger.sqlite")!r}).record(ScriptedGenerator(lambda request: "x" * 10_000))
try:
    for i in range(100):
        asyncio.run(model(Request("expert", ({{"role": "user", "content": str(i)}},))))
        print(i, flush=True)
except OSError as error:
    print(error)
"""
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    *handed_out, message = out.splitlines()
    assert "can't be written" in message
    assert "Make room or mend its folder, then run again." in message
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert 1 <= len(handed_out) <= ledger.calls < 100
        for i in handed_out:
            assert ledger.find(request_key(_request(i), "scripted")).text == "x" * 10_000
