"""Batches against a local server of batch APIs: what is bought, what is written down, and what comes back."""

import asyncio
import sqlite3
from collections import Counter

import pytest
from batch_server import BatchServer, lost, refused, twice, twice_and_lost

from teamsrl_hf.calls import run_async
from teamsrl_hf.errors import CallsRefused, UserError
from teamsrl_hf.models.base import Request, Sampling, ScriptedGenerator
from teamsrl_hf.models.batch import waves
from teamsrl_hf.models.batch.endpoint import BatchEndpoint
from teamsrl_hf.models.budget import Budget, BudgetExhausted, Price
from teamsrl_hf.models.endpoint import EndpointGenerator
from teamsrl_hf.models.ledger import Ledger

TEXTS = [f"Question {number}?" for number in range(7)]
ANSWERS = [f"An answer to: {text}" for text in TEXTS]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.sqlite"


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("TEAMSRL_API_KEY", "PLANTED-71f0")


def requests(texts=TEXTS):
    return [Request("expert", ({"role": "user", "content": text},), Sampling(0.5, 0.9, 64)) for text in texts]


def ask(path, server, texts=TEXTS, generator=None, ledger=None, **options):
    """The answers of a model that is asked in batches, all at once."""
    generator = generator or BatchEndpoint("tiny", server.url, **{"poll_interval": 0.02, "max_wait": 2, **options})

    async def run(recorded):
        return await asyncio.gather(*map(recorded, requests(texts)))

    with Ledger(path, **(ledger or {})) as opened:
        try:
            return [answer.error or answer.text for answer in run_async(run(opened.record(generator)))]
        finally:
            run_async(generator.close())


def select(path, statement):
    connection = sqlite3.connect(path)
    try:
        return connection.execute(statement).fetchall()
    finally:
        connection.close()


def bought(server):
    """How many answers the server was paid for, and the most for one request."""
    return sum(server.bought.values()), max(server.bought.values(), default=0)


FORMS = {"files": "create", "messages": "create"}
both_forms = pytest.mark.parametrize("form", ["files", "messages"])


@both_forms
def test_what_waits_together_is_one_batch_and_each_answer_is_bought_once(form, path):
    with BatchServer() as server:
        assert ask(path, server, batch_form=form) == ANSWERS
        assert ask(path, server, batch_form=form) == ANSWERS
    assert [len(job["lines"]) for job in server.jobs.values()] == [7]
    assert bought(server) == (7, 1)
    steps = ["upload", "create", "list", "get", "get", "output"]
    assert [step for step, _ in server.calls] == (steps if form == "files" else ["create", "get", "get", "results"])
    assert select(path, "SELECT tier, COUNT(*), SUM(prompt_tokens), SUM(completion_tokens) FROM calls") == [
        ("batch", 7, 77, 21)
    ]
    assert select(path, "SELECT stage, batch_id, requests FROM batches") == [("closed", "batch_1", 7)]
    assert select(path, "SELECT COUNT(*) FROM batch_lines") == [(0,)]


def test_the_ids_of_the_lines_are_the_keys_of_the_ledger(path):
    with BatchServer() as server:
        ask(path, server)
    keys = {key.hex() for (key,) in select(path, "SELECT key FROM calls")}
    assert {line["custom_id"] for line in server.jobs["batch_1"]["lines"]} == keys


def test_calls_of_their_own_have_the_same_keys_so_their_answers_are_replayed(path):
    with BatchServer() as server:
        assert ask(path, server, TEXTS[:3], EndpointGenerator("tiny", server.url)) == ANSWERS[:3]
        assert ask(path, server) == ANSWERS
        assert ask(path, server, TEXTS, EndpointGenerator("tiny", server.url)) == ANSWERS
    assert (bought(server), server.count("chat")) == ((7, 1), 3)
    assert [len(job["lines"]) for job in server.jobs.values()] == [4]


def test_a_wave_is_cut_into_shards(path, monkeypatch):
    monkeypatch.setattr(waves, "MOST_REQUESTS", 3)
    with BatchServer() as server:
        assert ask(path, server) == ANSWERS
    assert sorted(len(job["lines"]) for job in server.jobs.values()) == [1, 3, 3]


def test_a_file_has_a_size_limit_too(path, monkeypatch):
    monkeypatch.setattr(waves, "MOST_BYTES", 600)
    with BatchServer() as server:
        assert ask(path, server) == ANSWERS
    assert sorted(len(job["lines"]) for job in server.jobs.values()) == [1, 2, 2, 2]


# The twelve faults: nothing is bought twice, nothing is lost.


@both_forms
@pytest.mark.parametrize("fault", [lost, refused(500), refused(429, Retry_After="0"), refused(503)])
def test_a_creation_without_an_answer_is_looked_for_before_it_is_repeated(fault, form, path):
    with BatchServer(faults={"create": [fault]}) as server:
        assert ask(path, server, batch_form=form) == ANSWERS
    assert (bought(server), len(server.jobs)) == ((7, 1), 1)
    after = [step for step, _ in server.calls][server.calls.index(("create", "")) + 1]
    assert after == "list"


@pytest.mark.parametrize("fault", [twice, twice_and_lost])
def test_a_batch_that_was_created_twice_is_cancelled_once(fault, path, caplog):
    with BatchServer(faults={"create": [fault]}, polls=3) as server:
        assert ask(path, server) == ANSWERS
    assert sorted(job["status"] for job in server.jobs.values()) == ["cancelled", "completed"]
    assert bought(server) == (7, 1)
    assert "was created by mistake, batch_" in caplog.text


def test_what_a_second_batch_has_answered_before_it_is_cancelled_counts_as_spent(path):
    def twice_and_fast(server, do):
        made = do()
        do()
        server.run(server.jobs["batch_2"] | {"polls": 0})
        server.jobs["batch_2"]["polls"] = 0
        server.run(server.jobs["batch_2"])
        return made

    with BatchServer(faults={"create": [twice_and_fast]}) as server:
        assert ask(path, server) == ANSWERS
    with Ledger(path) as ledger:
        assert (ledger.calls, ledger.tokens) == (14, 14 * 14)
    assert select(path, "SELECT COUNT(*) FROM calls") == [(7,)]


def test_a_batch_that_appears_after_it_was_given_up_is_cancelled(path):
    def late(server, do):
        """The list lags behind."""
        hidden, server.jobs = dict(server.jobs), {}
        made = do()
        server.jobs = hidden
        return made

    with BatchServer(polls=4, faults={"create": [lost], "list": [refused(403), *[late] * 3]}) as server:
        with pytest.raises(CallsRefused, match="refuses: HTTP 403"):
            ask(path, server)
        assert ask(path, server) == ANSWERS
    assert [job["status"] for job in server.jobs.values()] == ["cancelled", "completed"]
    assert bought(server) == (7, 1)


def test_results_without_the_ids_of_requests_are_not_asked_for_again_by_themselves(path):
    def nameless(results):
        return [(None, status, text) for _, status, text in results]

    with BatchServer(order=nameless) as server:
        for _ in range(2):
            with pytest.raises(CallsRefused, match="none of them has the id of a request"):
                ask(path, server)
    assert bought(server) == (7, 1)


def expired(job, ids):
    return "expired", ids[:3]


def cancelled(job, ids):
    return "cancelled", ids[:3]


@both_forms
def test_what_an_expired_batch_has_not_run_is_asked_again_in_the_same_run(form, path):
    with BatchServer(endings=[expired]) as server:
        assert ask(path, server, batch_form=form) == ANSWERS
    assert [len(job["lines"]) for job in server.jobs.values()] == [7, 4]
    assert bought(server) == (7, 1)


def test_a_request_that_no_batch_runs_fails_in_the_end(path):
    with BatchServer(endings=[expired] * 2 + [lambda job, ids: ("expired", [])] * 9) as server:
        answers = ask(path, server, max_retries=3)
    assert sorted(answers)[:7] == sorted({*answers, "not run in 4 batches"} & {*ANSWERS, "not run in 4 batches"})
    assert answers.count("not run in 4 batches") == 1
    assert len(server.jobs) == 4


@both_forms
def test_a_batch_that_somebody_cancels_stops_the_run_which_then_asks_for_the_rest(form, path):
    with BatchServer(endings=[cancelled]) as server:
        with pytest.raises(CallsRefused, match="batch_1 was cancelled; its 3 answers are recorded"):
            ask(path, server, batch_form=form)
        assert ask(path, server, batch_form=form) == ANSWERS
    assert [len(job["lines"]) for job in server.jobs.values()] == [7, 4]
    assert bought(server) == (7, 1)


@both_forms
def test_results_in_another_order_find_their_requests(form, path):
    with BatchServer(order=sorted) as server:
        assert ask(path, server, batch_form=form) == ANSWERS


def test_a_batch_with_nothing_but_an_error_file_tells_why(path):
    bad = (400, {"error": {"message": "No such voice.", "param": "voice"}})
    with BatchServer(refuse=lambda body: bad) as server:
        answers = ask(path, server)
        assert server.count("output") == 0
    assert answers == ['HTTP 400: {"error": {"message": "No such voice.", "param": "voice"}}'] * 7
    assert select(path, "SELECT COUNT(*), SUM(cost), SUM(final) FROM calls") == [(7, 0.0, 0)]


def test_a_refused_line_alone_fails_alone(path):
    bad = (400, {"error": {"message": "Flagged."}})
    with BatchServer(refuse=lambda body: bad if "3?" in body["messages"][0]["content"] else None) as server:
        answers = ask(path, server)
    assert answers == [*ANSWERS[:3], 'HTTP 400: {"error": {"message": "Flagged."}}', *ANSWERS[4:]]


def test_a_line_that_fails_for_the_moment_is_asked_again(path):
    failed = Counter()

    def refuse(body):
        failed[body["messages"][0]["content"]] += 1
        return (500, {"error": "broken"}) if failed[body["messages"][0]["content"]] < 2 else None

    with BatchServer(refuse=refuse) as server:
        assert ask(path, server) == ANSWERS
    assert select(path, "SELECT attempts, COUNT(*) FROM calls GROUP BY attempts") == [(2, 7)]


def test_a_parameter_that_lines_are_refused_for_is_left_out_from_then_on(path, caplog):
    def refuse(body):
        said = {"error": {"message": "Unsupported parameter: 'top_p'.", "param": "top_p"}}
        return (400, said) if "top_p" in body else None

    with BatchServer(refuse=refuse) as server:
        assert ask(path, server, max_retries=0) == ANSWERS
    assert len(server.jobs) == 2
    assert "refuses the parameter 'top_p'" in caplog.text


def test_ids_that_come_twice_or_were_never_sent_swap_no_answers(path, caplog):
    def doubled(results):
        strange, nameless = ("00" * 16, 200, "Strange."), (None, 200, "Nameless.")
        late = [(name, 200, "Late.") for name, _, _ in results[:2]]
        return [strange, nameless, *results, *late]

    with BatchServer(order=doubled) as server:
        assert ask(path, server) == ANSWERS
    assert "2 results of a batch have ids that were not sent" in caplog.text


def test_another_account_gets_no_batch_of_the_first(path, monkeypatch):
    with BatchServer(polls=10**6) as server:
        interrupt(path, server, lambda: server.count("get") >= 2)
        monkeypatch.setenv("TEAMSRL_API_KEY", "another")
        with pytest.raises(
            UserError, match=r"The batch batch_1 was made by the account [0-9a-f]{12}, and this run is"
        ):
            ask(path, server)
        monkeypatch.setenv("TEAMSRL_API_KEY", "PLANTED-71f0")
        server.jobs["batch_1"]["polls"] = 0
        assert ask(path, server) == ANSWERS
    assert (bought(server), len(server.jobs)) == ((7, 1), 1)


@both_forms
def test_a_quota_in_the_middle_stops_the_run_and_keeps_the_answers(form, path):
    with BatchServer() as server:
        server.credit = 3
        with pytest.raises(CallsRefused, match="3 answers, which are recorded; then there was no credit"):
            ask(path, server, batch_form=form)
        assert select(path, "SELECT COUNT(*), COUNT(error) FROM calls") == [(3, 0)]
        server.credit = 100
        assert ask(path, server, batch_form=form) == ANSWERS
    assert bought(server) == (7, 1)


def test_a_result_file_that_is_there_a_moment_later_is_waited_for(path):
    with BatchServer(faults={"output": [refused(404), refused(404)]}) as server:
        assert ask(path, server) == ANSWERS
    assert bought(server) == (7, 1)


def test_results_that_are_gone_are_asked_for_again_only_by_order_and_count_as_spent(path):
    with BatchServer() as server:
        server.faults["output"] = [refused(404, "No such file.")] * 99
        for _ in range(2):
            with pytest.raises(
                CallsRefused, match=r"batch_1 .* can't be read: HTTP 404: No such file.*--retry_errors"
            ):
                ask(path, server)
        assert len(server.jobs) == 1
        del server.faults["output"]
        server.faults["output"] = [refused(404)] * 3
        assert ask(path, server, ledger={"retry_errors": True}) == ANSWERS
    assert bought(server) == (14, 2)
    with Ledger(path) as ledger:
        assert ledger.calls == 14
        assert ledger.tokens > 7 * (64 + 14)
        assert ledger.totals()["expert"].estimated == 7


def test_429_on_the_creation_waits_and_asks_no_other_way(path):
    with BatchServer(faults={"create": [refused(429)] * 3}) as server:
        assert ask(path, server) == ANSWERS
    assert (bought(server), server.count("create")) == ((7, 1), 4)


def test_a_lack_of_credit_on_the_creation_stops_the_run_at_once(path):
    spent = refused(429, '{"error": {"code": "insufficient_quota"}}')
    with BatchServer(faults={"create": [spent]}) as server:
        with pytest.raises(CallsRefused, match="takes no batch: HTTP 429"):
            ask(path, server)
        assert ask(path, server) == ANSWERS
    assert (bought(server), server.count("create")) == ((7, 1), 2)


# Stopping and coming back.


def interrupt(path, server, when, **options):
    """A run that its user leaves once `when` is true."""
    generator = BatchEndpoint("tiny", server.url, **{"poll_interval": 0.02, "max_wait": 2, **options})

    async def run(recorded, ledger):
        task = asyncio.gather(*map(recorded, requests()))
        while not when():
            await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await ledger.settle(1)
        await generator.close()

    with Ledger(path) as ledger:
        run_async(run(ledger.record(generator), ledger))


def test_a_run_that_stops_leaves_its_batch_and_the_next_one_fetches_it(path, caplog):
    with BatchServer(polls=10**6) as server:
        interrupt(path, server, lambda: server.count("get") >= 2)
        assert f"{path} has 1 batches under way, of 7 requests: batch_1. The same command fetches" in caplog.text
        assert "--cancel" in caplog.text
        assert select(path, "SELECT stage, batch_id FROM batches") == [("created", "batch_1")]
        server.jobs["batch_1"]["polls"] = 0
        assert ask(path, server) == ANSWERS
    assert (bought(server), len(server.jobs)) == ((7, 1), 1)


def test_progress_tells_how_far_batches_are(path):
    told = []
    with BatchServer(polls=3) as server:
        generator = BatchEndpoint("tiny", server.url, poll_interval=0.02)

        async def run(recorded, ledger):
            task = asyncio.gather(*map(recorded, requests()))
            while not task.done():
                told.append(ledger.batches.progress())
                await asyncio.sleep(0.005)
            await generator.close()

        with Ledger(path) as ledger:
            run_async(run(ledger.record(generator), ledger))
            assert ledger.batches.progress() == {}
    assert {"batches": "1, 0/7"} in told


def test_without_batches_no_request_that_is_out_is_bought_again(path):
    with BatchServer(polls=10**6) as server:
        interrupt(path, server, lambda: server.count("get") >= 2)
        with pytest.raises(UserError, match=r"batches under way.*batch_1.*add `batch: true` to the model"):
            ask(path, server, TEXTS, EndpointGenerator("tiny", server.url))
        other = EndpointGenerator("tiny", server.url)
        assert ask(path, server, ["Something else?"], other) == ["An answer to: Something else?"]
    assert server.bought.total() == 1


def test_cancelling_keeps_what_was_answered(path):
    with BatchServer(polls=10**6) as server:
        interrupt(path, server, lambda: server.count("get") >= 2)
        generator = BatchEndpoint("tiny", server.url, poll_interval=0.02)
        with Ledger(path) as ledger:
            ledger.record(generator)
            assert run_async(ledger.batches.cancel()) == (1, 3)
            run_async(generator.close())
        assert select(path, "SELECT COUNT(*) FROM calls") == [(3,)]
        server.polls = 0
        assert ask(path, server) == ANSWERS
    assert bought(server) == (7, 1)


def test_a_price_has_a_share_for_each_tier_and_the_budget_reserves_at_that_of_batches(path):
    prices = {"tiny": Price(prompt=1e6, completion=1e6, batch=0.5)}
    most = 7 * 0.5 * (len("Question 0?") + 8 + 32 + 64)
    with BatchServer() as server:
        enough = {"prices": prices, "budget": Budget(cost=most)}
        assert ask(path, server, ledger=enough) == ANSWERS
        assert [len(job["lines"]) for job in server.jobs.values()] == [7]
        with Ledger(path) as ledger:
            assert ledger.cost == 7 * 0.5 * 14
        with pytest.raises(BudgetExhausted):
            ask(path.with_name("other"), server, ledger={"prices": prices, "budget": Budget(cost=most / 8)})
    assert bought(server) == (7, 1)


def test_a_batch_that_is_out_is_reserved_in_the_budget_of_the_next_run(path):
    with BatchServer(polls=10**6) as server:
        interrupt(path, server, lambda: server.count("get") >= 2)
        generator = BatchEndpoint("tiny", server.url, poll_interval=0.02)
        other = EndpointGenerator("tiny", server.url)

        async def run(ledger):
            both = ledger.record(generator), ledger.record(other)
            single = asyncio.ensure_future(both[1](requests(["Else?"])[0]))
            await asyncio.sleep(0.2)
            assert (server.count("chat"), single.done()) == (0, False)
            server.jobs["batch_1"]["polls"] = 0
            assert (await single).text == "An answer to: Else?"
            await asyncio.gather(generator.close(), other.close())

        with Ledger(path, budget=Budget(calls=8, tokens=900)) as ledger:
            run_async(run(ledger))


def test_a_model_in_batches_needs_a_ledger():
    with pytest.raises(UserError, match="'tiny' answers in batches, which need a ledger"):
        run_async(BatchEndpoint("tiny", "http://127.0.0.1:1/v1")(requests()[0]))


def test_a_wave_waits_for_calls_of_other_models(path):
    class Slow(ScriptedGenerator):
        immediate = False

        async def __call__(self, request):
            await asyncio.sleep(0.3)
            return await super().__call__(request)

    with BatchServer() as server, Ledger(path) as ledger:
        generator = BatchEndpoint("tiny", server.url, poll_interval=0.02)
        batched, slow = ledger.record(generator), ledger.record(Slow(["One more?"], "slow"))

        async def chain():
            first = await slow(requests(["Which?"])[0])
            return await batched(requests([first.text])[0])

        async def run():
            await asyncio.gather(chain(), *map(batched, requests()))
            await generator.close()

        run_async(run())
    assert [len(job["lines"]) for job in server.jobs.values()] == [8]
