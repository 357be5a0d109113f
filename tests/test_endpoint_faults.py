"""The endpoint generator against a stand-in endpoint that fails on command: nothing is lost, nothing bought twice."""

import asyncio
import random
import time
from collections import Counter

import pytest
from endpoint_server import FAULTS, EndpointServer, ask_process, echo_answer, endpoint_process

from teamsrl_hf.errors import CallsRefused
from teamsrl_hf.models import pacing
from teamsrl_hf.models.base import Request, Sampling
from teamsrl_hf.models.endpoint import EndpointGenerator

QUICK = {"backoff": 0.01, "timeout": 20, "concurrency": 32}


def question(text):
    return Request("expert", ({"role": "user", "content": text},), Sampling(max_tokens=100))


def ask(url, texts, **options):
    """Answers to the texts, in their order, all asked at once."""

    async def run():
        generator = EndpointGenerator("tiny", url, **{**QUICK, **options})
        try:
            return await asyncio.gather(*(generator(question(text)) for text in texts))
        finally:
            await generator.close()

    return asyncio.run(run())


def accounted(server, texts, answers, impatient=False):
    """The texts whose request failed, after each has been followed through the server's log.

    An impatient client on a busy machine may leave before an answer reaches it, which the server can't know.
    """
    sent = Counter(entry.content for entry in server.log)
    answered = Counter(entry.content for entry in server.log if entry.answered)
    for text, answer in zip(texts, answers, strict=True):
        assert answer.attempts == sent[text]
        assert (answer.error is None) == (answer.text != "")
        if answer.error is None:
            assert answer.text == (text if answer.finish_reason == "stop" else text[: len(text) // 2 + 1])
            assert answered[text] == 1 or (impatient and answered[text] > 1)
        else:
            assert "\n" not in answer.error
            assert answered[text] == 0 or impatient
    return [text for text, answer in zip(texts, answers, strict=True) if answer.error is not None]


@pytest.mark.parametrize("fault", FAULTS)
def test_one_fault_in_five_requests_costs_no_row(fault):
    texts = [f"Question {i} on {fault}?" for i in range(100)]
    # An empty answer is asked for only once more.
    faulty = 1 if fault == "empty" else None
    options = {"faulty_attempts": faulty, "retry_after": 0.02, "slow_seconds": 0.1}
    with EndpointServer(echo_answer, shares={fault: 0.2}, **options) as server:
        answers = ask(server.url, texts, timeout=0.5 if fault == "hang" else 20)
    assert accounted(server, texts, answers, impatient=fault == "hang") == []
    assert 8 <= sum(entry.fault == fault and entry.attempt == 0 for entry in server.log) <= 34
    assert [answer.finish_reason for answer in answers].count("length") == (
        server.counts()[fault] if fault == "length" else 0
    )


def test_all_faults_at_once_leave_each_row_with_its_answer_or_one_error():
    texts = [f"Question {i}?" for i in range(50)]
    shares = dict.fromkeys(FAULTS, 0.2)
    with EndpointServer(echo_answer, shares=shares, retry_after=0.01, slow_seconds=0.05) as server:
        answers = ask(server.url, texts, timeout=0.3, max_retries=3)
    lost = accounted(server, texts, answers, impatient=True)
    assert 0 < len(lost) < 46
    assert {entry.fault for entry in server.log} == {None, *FAULTS}
    errors = {answer.error.split(":")[0].split(" after")[0] for answer in answers if answer.error is not None}
    errors -= {"HTTP 500", "HTTP 503", "connection failed", "malformed answer", "no answer within 0.3 s"}
    assert errors <= {"empty answer"}


def test_what_a_failed_attempt_was_charged_is_counted():
    with EndpointServer(echo_answer, shares={"empty": 1.0}, faulty_attempts=1) as server:
        answer = ask(server.url, ["Are you there?"])[0]
        cut = ask(server.url, ["And you, my friend?"], max_retries=0)[0]
    assert (answer.text, answer.prompt_tokens, answer.completion_tokens, answer.attempts) == (
        "Are you there?",
        6,
        3,
        2,
    )
    assert (cut.error, cut.prompt_tokens, cut.attempts) == ("empty answer", 4, 1)


@pytest.mark.parametrize("fault", ["hang", "truncated", "malformed", "error", "reset"])
def test_an_attempt_whose_count_got_lost_is_booked_at_the_most_that_it_may_cost(fault):
    with EndpointServer(echo_answer, shares={fault: 1.0}, faulty_attempts=1) as server:
        answer = ask(server.url, ["Are you there, my friend?"], timeout=0.5)[0]
    # A token a byte, 8 a message, 32 a request; the answer may have had 100. The second attempt counts 5 words twice.
    assert (answer.prompt_tokens, answer.completion_tokens) == (25 + 8 + 32 + 5, 100 + 5)
    assert answer.estimated_tokens == (65, 100)


@pytest.mark.parametrize("fault", ["limit", "unavailable"])
def test_an_attempt_that_no_server_charges_for_is_booked_at_nothing(fault):
    with EndpointServer(echo_answer, shares={fault: 1.0}, faulty_attempts=1, retry_after=0.01) as server:
        answer = ask(server.url, ["Are you there, my friend?"])[0]
    assert (answer.prompt_tokens, answer.completion_tokens, answer.estimated_tokens, answer.attempts) == (
        5,
        5,
        (0, 0),
        2,
    )


def test_a_row_refused_with_400_costs_exactly_that_row():
    texts = [f"Question {i}?{' REFUSE-THIS' * (i == 7)}" for i in range(30)]
    with EndpointServer(echo_answer) as server:
        answers = ask(server.url, texts)
    assert accounted(server, texts, answers) == [texts[7]]
    assert answers[7].error == 'HTTP 400: {"error": "refused"}'
    assert len(server.log) == 30


def test_calls_held_back_by_refused_ones_leave_a_place_to_those_that_are_tried_again():
    texts = ["Question?", *(f"REFUSE-THIS {i}" for i in range(6))]
    with EndpointServer(echo_answer, shares={"error": 1.0}, faulty_attempts=1) as server:
        answers = ask(server.url, texts, concurrency=2, backoff=0.1)
    assert [answer.error for answer in answers] == [None, *['HTTP 400: {"error": "refused"}'] * 6]
    assert answers[0].attempts == 2


@pytest.mark.parametrize("concurrency", [1, 2, 4, 8])
@pytest.mark.parametrize("status", [401, 400])
def test_where_all_are_refused_at_most_twice_as_many_are_sent_as_may_be_in_flight(concurrency, status):
    async def run(url):
        generator = EndpointGenerator("tiny", url, concurrency=concurrency)
        asked = [generator(question(f"REFUSE-THIS {i}")) for i in range(30)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        with pytest.raises(CallsRefused, match="calls in a row to 'tiny' as expert failed"):
            await generator(question("Again?"))
        await generator.close()
        return answers

    with EndpointServer(echo_answer, refused_status=status) as server:
        answers = asyncio.run(run(server.url))
        sent = server.counts()["received"]
    # A single text that is turned down may be part of several requests.
    assert sent <= max(2 * concurrency, 8 if status == 400 else 2)
    assert [type(answer).__name__ for answer in answers] == ["Completion"] * sent + ["CallsRefused"] * (30 - sent)


def test_after_a_pause_an_endpoint_that_refused_all_is_asked_again(monkeypatch):
    async def run(url):
        generator = EndpointGenerator("tiny", url, concurrency=1)
        for i in range(8):
            assert (await generator(question(f"REFUSE-THIS {i}"))).error
        with pytest.raises(CallsRefused):
            await generator(question("Early?"))
        monkeypatch.setattr(pacing, "LONGEST_PAUSE", 0.0)
        await asyncio.sleep(0.01)
        answers = [await generator(question(f"{i}?")) for i in range(3)]
        await generator.close()
        return [answer.text for answer in answers]

    with EndpointServer(echo_answer) as server:
        assert asyncio.run(run(server.url)) == ["0?", "1?", "2?"]


def test_a_row_refused_with_503_is_given_up_once_others_were_answered_all_the_while():
    texts = [f"Question {i}?{' REFUSE-THIS' * (i == 7)}" for i in range(60)]
    with EndpointServer(echo_answer, refused_status=503, retry_after=0.02, latency=0.01) as server:
        answers = ask(server.url, texts, max_retries=2, concurrency=4)
    assert accounted(server, texts, answers) == [texts[7]]
    assert answers[7].error == f'HTTP 503: {{"error": "unavailable"}} after {answers[7].attempts} attempts'


def test_a_row_refused_with_429_for_ever_is_given_up_after_max_wait_and_holds_nobody_up():
    texts = [f"Question {i}?{' REFUSE-THIS' * (i == 0)}" for i in range(60)]
    with EndpointServer(echo_answer, refused_status=429, retry_after=0.02) as server:
        answers = ask(server.url, texts, max_wait=1, max_retries=0)
    assert accounted(server, texts, answers) == [texts[0]]
    assert answers[0].error == f'HTTP 429: {{"error": "limit"}} (for 1 s) after {answers[0].attempts} attempts'


def test_an_outage_by_429_costs_no_row_and_few_requests():
    texts = [f"Question {i}?" for i in range(500)]
    with EndpointServer(echo_answer, outage=1.0, retry_after=0.2) as server:
        # Without a single retry: being refused does not count.
        answers = ask(server.url, texts, concurrency=64, backoff=0.1, max_retries=0)
    assert accounted(server, texts, answers) == []
    assert server.counts()["limit"] < 150


def test_an_outage_and_a_retry_are_each_told_once_at_once_and_with_the_reason(caplog):
    with EndpointServer(echo_answer, outage=0.5, outage_status=503, retry_after=0) as server:
        ask(server.url, [f"Question {i}?" for i in range(20)], backoff=0.05)
        assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
            (
                "WARNING",
                'tiny: HTTP 503: {"error": "unavailable"}; requests wait, and are tried again for up to 300 s',
            )
        ]
    caplog.clear()
    with EndpointServer(echo_answer, shares={"error": 1.0}, faulty_attempts=1) as server:
        ask(server.url, [f"Question {i}?" for i in range(20)])
    assert [record.getMessage() for record in caplog.records] == [
        'tiny: HTTP 500: {"error": "error"}; it is tried again'
    ]


def test_an_endpoint_that_is_started_again_costs_no_row():
    texts = [f"Question {i}?" for i in range(50)]

    async def run():
        with EndpointServer(echo_answer) as server:
            generator = EndpointGenerator("tiny", server.url, concurrency=16, backoff=0.05, max_retries=1)
            first = await generator(question("Are you there?"))
        answers = asyncio.gather(*(generator(question(text)) for text in texts))
        await asyncio.sleep(0.5)
        with EndpointServer(echo_answer, port=server.port):
            answers = [first, *await answers]
            await generator.close()
        return answers

    answers = asyncio.run(run())
    assert [answer.text for answer in answers] == ["Are you there?", *texts]
    assert 1 < max(answer.attempts for answer in answers) < 20


@pytest.mark.slow
@pytest.mark.parametrize("retry_after", [1.0, 0.0])
def test_thirty_seconds_of_429_cost_no_row_and_fewer_than_150_requests(retry_after):
    texts = [f"Question {i}?" for i in range(500)]
    with EndpointServer(echo_answer, outage=30.0, retry_after=retry_after, latency=0.05) as server:
        answers = ask(server.url, texts, concurrency=64, backoff=1.0)
    assert accounted(server, texts, answers) == []
    assert server.counts()["limit"] < 150


def test_one_refusal_makes_everybody_wait_as_long_as_the_endpoint_asks():
    texts = [f"Question {i}?" for i in range(40)]
    with EndpointServer(echo_answer, outage=0.3, retry_after=1.0) as server:
        answers = ask(server.url, texts, concurrency=8)
    assert accounted(server, texts, answers) == []
    start = server.log[0].at
    times = [entry.at - start for entry in server.log]
    assert sum(entry.fault == "limit" for entry in server.log) == 8
    assert [offset for offset in times if 0.4 < offset < 1.0] == []


def test_an_endpoint_that_takes_few_at_once_is_asked_for_few():
    texts = [f"Question {i}?" for i in range(160)]
    with EndpointServer(echo_answer, max_in_flight=8, latency=0.03, retry_after=0.02) as server:
        answers = ask(server.url, texts, concurrency=64, backoff=0.02)
    assert accounted(server, texts, answers) == []
    # Sent again at once, 56 of the 64 would be refused for each round of 8: over 1000.
    assert server.counts()["limit"] < 160


def test_requests_per_minute_are_kept_to():
    texts = [f"Question {i}?" for i in range(20)]
    with EndpointServer(echo_answer) as server:
        answers = ask(server.url, texts, requests_per_minute=1200)
    assert accounted(server, texts, answers) == []
    # 20 a second, of which 0.1 s may go at once.
    assert server.log[-1].at - server.log[0].at > 0.6
    times = [entry.at for entry in server.log]
    assert all(times[i + 10] - times[i] > 0.2 for i in range(10))


@pytest.mark.parametrize("usage", [True, False], ids=["counted", "guessed"])
def test_tokens_per_minute_slow_requests_down(usage):
    texts = [f"Question {i}? " + "word " * 80 for i in range(12)]
    with EndpointServer(echo_answer, usage=usage) as server:
        started = time.monotonic()
        answers = ask(server.url, texts, tokens_per_minute=80_000)
        seconds = time.monotonic() - started
    assert [answer.error for answer in answers] == [None] * 12
    counted = sum(answer.prompt_tokens + answer.completion_tokens for answer in answers)
    assert counted == (12 * (82 + 40) if usage else 0)
    # 1464 tokens (by a guess 1836) at 1333 a second, without those of the last request and 0.1 s of slack.
    assert seconds > 0.8


def test_a_clock_that_jumps_changes_nothing(monkeypatch):
    jumps = random.Random(0)
    monkeypatch.setattr(time, "time", lambda: jumps.uniform(-1e9, 1e10))
    texts = [f"Question {i}?" for i in range(60)]
    shares = {"limit": 0.2, "error": 0.2}
    with EndpointServer(echo_answer, shares=shares, retry_after=0.02) as server:
        started = time.monotonic()
        answers = ask(server.url, texts, requests_per_minute=6000)
        assert time.monotonic() - started < 20
    assert accounted(server, texts, answers) == []


def test_a_cancelled_request_leaves_its_place_to_the_others():
    async def run(url):
        generator = EndpointGenerator("tiny", url, concurrency=2)
        tasks = [asyncio.ensure_future(generator(question(f"Question {i}?"))) for i in range(6)]
        await asyncio.sleep(0.1)
        for task in tasks[:4]:
            task.cancel()
        started = time.monotonic()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        await generator.close()
        return answers, time.monotonic() - started

    with EndpointServer(echo_answer, latency=0.5) as server:
        answers, seconds = asyncio.run(run(server.url))
    assert [type(answer).__name__ for answer in answers] == ["CancelledError"] * 4 + ["Completion"] * 2
    assert seconds < 5


def test_the_stand_in_draws_the_same_faults_in_every_run():
    texts = [f"Question {i}?" for i in range(40)]
    drawn = []
    for _ in range(2):
        with EndpointServer(echo_answer, shares={"error": 0.3, "empty": 0.3}) as server:
            ask(server.url, texts)
        drawn.append(sorted((entry.content, entry.attempt, entry.fault or "") for entry in server.log))
    assert drawn[0] == drawn[1]


def test_the_stand_in_runs_as_a_process_of_its_own():
    with endpoint_process("--answer", "echo", "--share", "error=0.5", "--faulty_attempts", "1") as url:
        answers = ask(url, ["One?", "Two?", "Three?"])
        counts, log = ask_process(url), ask_process(url, "log")
    assert [answer.text for answer in answers] == ["One?", "Two?", "Three?"]
    assert counts["answered"] == 3
    assert counts["received"] == len(log) == 3 + counts.get("error", 0)
