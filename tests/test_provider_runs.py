"""Runs of `teamsrl evolve` against servers that answer oddly: rows, reasons of failures, calls and exit status."""

import gzip
import json
import sqlite3

import pytest
from aiohttp import web
from asked import EVOLVE_RULES, WHOLE
from datasets import load_dataset
from endpoint_server import rulebook_answer
from scripted_server import Server

from teamsrl_hf.cli import main

SEEDS = [f"Explain to a beginner how machine number {i} came about." for i in range(8)]


def served(change=None, usage=None, headers=None, encode=None, refuse=None):
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
        text = json.dumps({"choices": [choice], "usage": counted}).encode()
        response = web.Response(body=encode(text) if encode else text, content_type="application/json")
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
    return lambda body: web.Response(status=status, text=text, headers=headers)


def no_limit(body):
    said = {"error": {"message": "Unsupported parameter: use max_completion_tokens.", "param": "max_tokens"}}
    return web.Response(status=400, text=json.dumps(said)) if "max_tokens" in body else None


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
    assert estimated == (bought if name == "no usage" else 0)
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


def test_an_overload_inside_a_200_that_passes_costs_no_row(evolve, tmp_path, caplog):
    busy = served(encode=lambda body: b'{"error": {"code": 502, "message": "model overloaded"}}')
    with Server(*[busy] * 5, always=served()) as server:
        status, _, rows = evolve("--expert", spec(server, max_wait=30))
    assert (status, len(rows) >= 2) == (0, True)
    assert calls(tmp_path / "out")[1] == 0
    assert 'model overloaded"}; requests wait, and are tried again for up to 30 s' in caplog.text
