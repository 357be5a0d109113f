"""Runs of `teamsrl evolve` against servers that answer oddly: rows, reasons of failures, calls and exit status."""

import asyncio
import gzip
import json
import sqlite3

import pytest
from aiohttp import web
from asked import EVOLVE_RULES, WHOLE
from datasets import load_dataset
from endpoint_server import rulebook_answer
from scripted_server import Server

from teamsrl_hf import Ledger
from teamsrl_hf.cli import main

BOMB = gzip.compress(bytes(40_000_000))
SEEDS = [f"Explain to a beginner how machine number {i} came about." for i in range(8)]


def served(change=None, usage=None, headers=None, encode=None, refuse=None, before=None, status=200):
    """A handler that answers by rules; `change` edits the choice, `encode` the body, `refuse` may answer instead."""

    async def respond(request):
        body = await request.json()
        if refuse is not None and (refusal := refuse(body)) is not None:
            return refusal
        choice = {"index": 0, "message": {"role": "assistant", "content": rulebook_answer(body)}}
        choice["finish_reason"] = "stop"
        if change is not None:
            change(choice)
        counted = {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30} if usage is None else usage
        text = json.dumps({"choices": [*(before or []), choice], "usage": counted}).encode()
        response = web.Response(body=encode(text) if encode else text, content_type="application/json", status=status)
        response.headers.update(headers or {})
        return response

    return respond


def content(edit):
    def change(choice):
        choice["message"]["content"] = edit(choice["message"]["content"])

    return change


def message(**fields):
    return lambda choice: choice["message"].update(fields)


def ended(reason):
    return lambda choice: choice.update(finish_reason=reason)


def refused(status, text, **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda body: web.Response(status=status, text=text, headers=named)


def said(error, status=200, **headers):
    """A handler that answers each request with this JSON."""
    return served(refuse=refused(status, json.dumps(error), **headers))


def written(text):
    """A handler that writes these bytes to the connection and closes it."""

    async def respond(request):
        await request.read()
        request.transport.write(text)
        await asyncio.sleep(0.01)
        request.transport.close()
        return web.Response()

    return respond


def no_limit(body):
    said = {"error": {"message": "Unsupported parameter: use max_completion_tokens.", "param": "max_tokens"}}
    return web.Response(status=400, text=json.dumps(said)) if "max_tokens" in body else None


def unknown_field(body):
    said = [
        {"error": {"code": 400, "message": 'Invalid JSON payload received. Unknown name "top_p": Cannot find field.'}}
    ]
    return web.Response(status=400, text=json.dumps(said)) if "top_p" in body else None


def only_one_of_two(body):
    said = {"message": "`temperature` and `top_p` cannot both be specified for this model. Please use only one."}
    return web.Response(status=400, text=json.dumps(said)) if {"temperature", "top_p"} <= set(body) else None


def extra_input(body):
    said = {"detail": [{"type": "extra_forbidden", "loc": ["body", "top_p"], "msg": "Extra inputs are not permitted"}]}
    return web.Response(status=422, text=json.dumps(said)) if "top_p" in body else None


def only_default_temperature(body):
    said = {"error": {"message": "Only the default (1) value is supported.", "param": "temperature"}}
    return web.Response(status=400, text=json.dumps(said)) if "temperature" in body else None


@pytest.fixture
def evolve(tmp_path, capsys):
    """A function that evolves a few seeds: the exit status, the error output and the rows."""
    seeds = tmp_path / "seeds.jsonl"
    seeds.write_text("".join(json.dumps({"instruction": text}) + "\n" for text in SEEDS))

    def run(*options, folder="out"):
        out = tmp_path / folder
        where = ["--seeds", str(seeds), "--output_dir", str(out), "--test_size", "0", "--operations_per_episode", "2"]
        where += ["--prompts", "large"]  # The server's rules write whole rewrites.
        status = main(["evolve", *where, *EVOLVE_RULES, *WHOLE, "--chooser", "uniform", *options])
        rows = load_dataset(str(out), split="train")["prompt"] if status == 0 else []
        return status, capsys.readouterr().err, list(rows)

    return run


def spec(server, **options):
    return json.dumps({"endpoint": f"stand-in@{server.url}", "backoff": 0.01, "max_wait": 1, **options})


def read_totals(folder):
    with Ledger(folder / "ledger.sqlite") as ledger:
        return ledger.totals()


def calls(folder):
    """Calls to the server by the ledger: how many, failed ones, tokens, those with estimates."""
    found = "SELECT COUNT(*), COUNT(error), SUM(prompt_tokens + completion_tokens), SUM(estimated) FROM calls"
    connection = sqlite3.connect(folder / "ledger.sqlite")
    counted = connection.execute(f"{found} WHERE model = 'stand-in'").fetchone()
    connection.close()
    return counted


ROWS = {
    "compressed": served(headers={"Content-Encoding": "gzip"}, encode=gzip.compress),
    "byte order mark": served(encode=lambda body: b"\xef\xbb\xbf" + body),
    "leading lines": served(encode=lambda body: b"\n\n  " + body),
    "comments": served(encode=lambda body: b": WORKING\n\n: WORKING\n\n" + body),
    "thoughts in a field": served(message(reasoning_content="Hm.")),
    "think": served(content("<think>I am sorry.</think>\n\n{}".format)),
    "think without its start": served(content("Hm, at length.\n</think>\n\n{}".format)),
    "channels": served(
        content("<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>{}".format)
    ),
    "parts": served(content(lambda text: [{"type": "text", "text": text}])),
    "other end": served(ended("end_turn")),
    "thoughts counted in the total": served(usage={"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 530}),
    "no usage": served(usage={}),
    "counted in texts": served(usage={"prompt_tokens": "20", "completion_tokens": "10"}),
    "counted by Anthropic's names": served(
        usage={"input_tokens": 5, "cache_read_input_tokens": 15, "output_tokens": 10}
    ),
    "counts that can't be": served(usage={"prompt_tokens": -5, "completion_tokens": 10**30, "total_tokens": [1]}),
    "several choices": served(before=[{"index": 1, "message": {"content": "Another."}, "finish_reason": "length"}]),
    "created": served(status=201),
    "another encoding of text": served(encode=lambda body: body.decode().encode("utf-16")),
    "zero bytes in names": served(encode=lambda body: b'{"a\\u0000b": {"\\u0000": 1}, ' + body[1:]),
    "a last word in capitals": served(ended("STOP")),
    "no error": served(encode=lambda body: b'{"error": null, ' + body[1:]),
    "top_p unknown": served(refuse=unknown_field),
    "top_p forbidden": served(refuse=extra_input),
    "top_p beside temperature": served(refuse=only_one_of_two),
    "max_tokens refused": served(refuse=no_limit),
    "temperature refused": served(refuse=only_default_temperature),
}


@pytest.mark.parametrize("role", ["expert", "reviewer"])
@pytest.mark.parametrize("name", ROWS)
def test_an_odd_but_whole_answer_gives_the_rows_that_a_plain_one_gives(name, role, evolve, tmp_path):
    with Server(always=served()) as plain, Server(always=ROWS[name]) as odd:
        status, _, rows = evolve(f"--{role}", spec(plain), folder="plain")
        assert (status, len(rows) >= 2) == (0, True)
        assert evolve(f"--{role}", spec(odd))[::2] == (0, rows)
    bought, failed, tokens, estimated = calls(tmp_path / "out")
    assert (bought, failed) == calls(tmp_path / "plain")[:2]
    assert estimated == (bought if name in ("no usage", "counts that can't be") else 0)
    if name == "thoughts counted in the total":
        assert tokens == 530 * bought


# Why a call fails, and the most requests for one call.
FAILURES = {
    "tool call": (served(message(content=None, tool_calls=[{"function": {"name": "f"}}])), "with a tool call", 1),
    "filter": (served(ended("content_filter")), "content filter stopped the answer", 1),
    "safety": (served(ended("SAFETY")), 'an unknown reason: "SAFETY"', 1),
    "no end": (served(ended(None)), "an unknown reason: null", 1),
    "half with an error": (served(lambda choice: choice.update(error={"code": 502})), "an error ended the answer", 1),
    "nothing": (served(message(content=None)), "empty answer", 2),
    "thoughts alone": (served(message(content="", reasoning_content="Hm.")), "no answer after thoughts", 2),
    "stream": (served(encode=lambda body: b"data: {}\n\ndata: [DONE]\n\n"), "streams its answer", 1),
    "page": (served(encode=lambda body: b"<html>Sign in</html>"), "malformed answer: Sign in", 3),
    "no choices": (served(encode=lambda body: b'{"choices": []}'), 'malformed answer: {"choices": []}', 3),
    "zero byte": (served(content("zero\0byte {}".format)), "a zero byte in the text", 3),
    "not compressed": (served(headers={"Content-Encoding": "gzip"}), "content-encoding: gzip", 3),
    "redirect": (served(refuse=refused(307, "", Location="/v9")), "redirects to /v9", 1),
    "too long": (
        served(refuse=refused(400, '{"message": "maximum context length is 512 tokens"}')),
        "lower max_tokens, or shorten the prompt",
        1,
    ),
    "no credit in a 200": (served(encode=lambda body: b'{"error": {"code": 402, "message": "pay"}}'), '"pay"', 1),
    "no credit": (served(refuse=refused(429, '{"error": {"code": "insufficient_quota"}}')), "insufficient_quota", 1),
    "two answers in one": (served(encode=lambda body: body + b"\n\ndata: [DONE]\n"), "malformed answer", 3),
    "no credit under 500": (said({"error": {"code": "insufficient_quota"}}, 500), "insufficient_quota", 1),
    "no credit under 403": (said({"error": "Your team has used all available credits."}, 403), "all available", 1),
    "account not active": (said({"error": {"code": "billing_not_active"}}, 429), "billing_not_active", 1),
    "no credit, packed twice": (said({"error": {"error": {"code": "insufficient_quota"}}}), "insufficient_quota", 1),
    "error of no model in a 200": (
        said({"object": "error", "message": "The model `m` does not exist", "code": 404}),
        'an error with status 200: "The model `m` does not exist"',
        1,
    ),
    "error as a text": (said({"error": "something broke"}), 'status 200: "something broke"', 3),
    "error as a list": (said({"success": False, "errors": [{"code": 9, "message": "bad"}]}), '"message": "bad"', 3),
    "error beside a whole answer": (
        served(encode=lambda body: b'{"error": {"code": 502}, ' + body[1:]),
        'an error ended the answer: {"code": 502}',
        1,
    ),
    "error in a stream": (
        served(encode=lambda body: b'id: 1\ndata: {"error": {"code": 402, "message": "pay"}}\n\n'),
        'an error with status 200: {"code": 402, "message": "pay"}',
        1,
    ),
    "stream that begins with a number": (served(encode=lambda body: b"id: 1\ndata: {}\n\n"), "streams its answer", 1),
    "filter in capitals": (served(ended("CONTENT_FILTER")), "content filter stopped the answer", 1),
    "tool by another name": (served(ended("tool_use")), "with a tool call", 1),
    "end that is no text": (served(ended({"type": "stop"})), 'an unknown reason: {"type": "stop"}', 1),
    "refusal with odd letters": (served(message(content=None, refusal="No \ud83d\0.")), "the model refused: No", 1),
    "choice of nothing": (said({"choices": [None]}), 'malformed answer: {"choices": [null]}', 3),
    "content that is a number": (served(message(content=5)), "empty answer", 2),
    "other letters than it says": (
        served(encode=lambda body: body.replace(b"stop", b"st\xe9p")),
        "malformed answer",
        3,
    ),
    "nothing but a bracket": (served(encode=lambda body: b"[" * 100_000), "malformed answer: [[[", 7),
    "deep refusal": (served(refuse=refused(400, "[" * 90_000 + '"unknown"' + "]" * 90_000)), "HTTP 400: [[[", 1),
    "more than fits": (served(headers={"Content-Encoding": "gzip"}, encode=lambda body: BOMB), "33,554,432 bytes", 3),
    "body twice as long as said": (
        written(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 4\r\n\r\n{}{}"),
        "malformed answer: Duplicate Content-Length",
        3,
    ),
    "no HTTP": (written(b"HELLO 200\r\n\r\n"), "malformed answer: Bad status line", 3),
    "chunks cut": (
        written(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"cho\r\n'),
        "not completed",
        7,
    ),
    "not made": (said({"error": "no"}, 501), 'HTTP 501: {"error": "no"}', 1),
    "too early": (said({"error": "early"}, 425), 'HTTP 425: {"error": "early"}', 7),
    "not here": (said({"error": {"code": "unsupported_country"}}, 451), "HTTP 451", 1),
    "another place, in a circle": (said({}, 308, Location="/v1/chat/completions"), "redirects to /v1/chat", 1),
    "another place, with a secret": (
        said({}, 301, Location="https://u:pw@host/v1?key=abcdef"),
        "redirects to https://***@host/v1?***",
        1,
    ),
    "pending": (said({"status": "pending"}, 202), 'HTTP 202: {"status": "pending"}', 1),
    "a wait in the error": (
        said([{"error": {"code": 429, "details": [{"retryDelay": "86400s"}]}}], 429),
        "to be tried again in 86400 s",
        1,
    ),
    "a wait in a sentence": (
        said({"error": {"message": "Rate limit reached. Please try again in 12h3m7.6s."}}, 429),
        "to be tried again in 43388 s",
        1,
    ),
    "a wait until a date": (
        said({}, 429, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT", Date="Wed, 21 Oct 2015 06:28:00 GMT"),
        "to be tried again in 3600 s",
        1,
    ),
    "a wait without end": (said({}, 429, Retry_After="9" * 400), "to be tried again in 1000000000 s", 1),
    "a day to wait": (
        served(refuse=refused(429, "daily limit", **{"Retry-After": "86400"})),
        "to be tried again in 86400 s",
        1,
    ),
}


@pytest.mark.parametrize("role", ["expert", "reviewer"])
@pytest.mark.parametrize("name", FAILURES)
def test_what_is_no_answer_gives_no_row_a_status_and_the_reason(name, role, evolve, tmp_path):
    handler, reason, most = FAILURES[name]
    with Server(always=handler) as server:
        status, said, _ = evolve(f"--{role}", spec(server))
        sent = len(server.bodies)
    assert status in (3, 4)
    assert reason in said
    assert "Traceback" not in said
    bought, failed, _, _ = calls(tmp_path / "out")
    assert 0 < bought == failed
    assert bought <= sent <= most * bought
    if name.startswith("no credit"):
        assert calls(tmp_path / "out")[2:] == (0, 0)


def test_a_run_without_credit_goes_on_once_there_is_credit(evolve):
    with Server(always=FAILURES["no credit"][0]) as server:
        assert evolve("--expert", spec(server))[0] in (3, 4)
        server.always = served()
        status, _, rows = evolve("--expert", spec(server))
    assert (status, len(rows) >= 2) == (0, True)


def test_an_answer_that_was_cut_gives_no_row_and_is_no_failure(evolve, tmp_path):
    with Server(always=served(ended("MAX_TOKENS"))) as server:
        status, _, _ = evolve("--expert", spec(server))
    assert status == 3
    assert calls(tmp_path / "out")[1] == 0


@pytest.mark.parametrize(
    "error",
    [
        {"error": {"code": 502, "message": "model overloaded"}},
        {"error": "model overloaded"},
        [{"error": {"status": "UNAVAILABLE", "message": "model overloaded"}}],
        {"type": "error", "error": {"type": "overloaded_error", "message": "model overloaded"}},
        {"success": False, "errors": [{"message": "model overloaded"}], "result": None},
        {"message": "model overloaded"},
    ],
)
def test_an_overload_inside_a_200_that_passes_costs_no_row(error, evolve, tmp_path, caplog):
    with Server(*[said(error)] * 5, always=served()) as server:
        status, _, rows = evolve("--expert", spec(server, max_wait=30))
    assert (status, len(rows) >= 2) == (0, True)
    assert calls(tmp_path / "out")[1] == 0
    assert "model overloaded" in caplog.text
    assert "; requests wait, and are tried again for up to 30 s" in caplog.text


@pytest.mark.parametrize("wait", ["-5", "nan", "2 fortnights", "Wed, 99 Oct 99999999 07:28:00 GMT"])
def test_a_wait_that_is_none_is_left_out_and_costs_no_row(wait, evolve):
    with Server(*[said({}, 429, Retry_After=wait)] * 5, always=served()) as server:
        status, _, rows = evolve("--expert", spec(server, max_wait=30))
    assert (status, len(rows) >= 2) == (0, True)


@pytest.mark.parametrize("limit", [6, 15])
def test_a_budget_in_calls_holds_for_a_server_that_counts_each_request(limit, evolve, tmp_path):
    broken = said({"error": "lost"}, 500)
    with Server(*[broken, served(), served()] * 20, always=served()) as server:
        status, told, _ = evolve("--expert", spec(server), "--budget_calls", str(limit), "--concurrency", "3")
        free = sum(totals.calls for role, totals in read_totals(tmp_path / "out").items() if role == "reviewer")
        assert (status, len(server.bodies) + free) == (4, limit)  # The rules that review are calls, too.
        assert f"The budget of {limit} calls is spent: {limit} so far" in told
        status, _, rows = evolve("--expert", spec(server), "--concurrency", "3")
    assert (status, len(rows) >= 2) == (0, True)
