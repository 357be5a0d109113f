"""The endpoint generator against a real server on 127.0.0.1 that misbehaves on command, and the scripted generator."""

import asyncio
import email.utils
import gc
import time

import pytest
from aiohttp import web
from scripted_server import Server, answer, reply, status

from teamsrl_hf.models.base import Completion, Request, Sampling, ScriptedGenerator
from teamsrl_hf.models.endpoint import EndpointGenerator
from teamsrl_hf.models.factory import make_generator

TOKEN = "tok-PLANTED9f8e7d6c5b4a"
ASK = Request("expert", ({"role": "user", "content": "Why?"},), Sampling(0.5, 0.9, 64))


def echo(code):
    async def respond(request):
        return web.Response(status=code, text=f'{{"error": "bad key {request.headers.get("Authorization")}"}}')

    return respond


async def reset(request):
    request.transport.abort()
    return web.Response()


async def truncated(request):
    response = web.StreamResponse(headers={"Content-Length": "5000"})
    await response.prepare(request)
    await response.write(b'{"choices": [{"message": {"content": "ye')
    request.transport.close()
    return response


def ask(server, *requests, **options):
    async def run():
        generator = EndpointGenerator("tiny", server.url, **{"backoff": 0.01, **options})
        try:
            return await asyncio.gather(*(generator(request) for request in requests or (ASK,)))
        finally:
            await generator.close()

    answers = asyncio.run(run())
    return answers if requests else answers[0]


@pytest.fixture(autouse=True)
def no_tokens(monkeypatch):
    for name in ("HF_TOKEN", "OPENAI_API_KEY", "TEAMSRL_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def test_an_answer_comes_back_with_its_token_counts_under_the_name_it_was_asked_by():
    with Server() as server:
        assert ask(server) == Completion("yes", "tiny", 11, 3)
    assert server.paths == ["/v1/chat/completions"]
    assert server.bodies == [
        {
            "model": "tiny",
            "messages": [{"role": "user", "content": "Why?"}],
            "temperature": 0.5,
            "top_p": 0.9,
            "max_tokens": 64,
        }
    ]


def test_each_sample_of_a_seeded_question_gets_a_seed_of_its_own():
    seeded = Sampling(seed=7)
    with Server() as server:
        ask(server, Request("judge", ASK.messages, seeded), Request("judge", ASK.messages, seeded, 1), concurrency=1)
    assert [body["seed"] for body in server.bodies] == [7, 1000010]


def test_an_answer_cut_by_max_tokens_says_so():
    with Server(answer("ye", "length")) as server:
        assert ask(server).finish_reason == "length"


@pytest.mark.parametrize(
    "fault",
    [
        status(408),
        status(409),
        status(429),
        status(500),
        status(503, "<html>busy</html>"),
        reset,
        truncated,
        status(200, "not json"),
        status(200, '{"choices": []}'),
        status(200, "[" * 100_000),
    ],
    ids=["408", "409", "429", "500", "503", "reset", "truncated", "text", "no-choices", "nested"],
)
def test_a_passing_fault_is_tried_again(fault):
    with Server(fault, fault) as server:
        assert ask(server).text == "yes"
    assert len(server.bodies) == 3


def test_a_slow_answer_is_given_up_and_asked_for_again():
    with Server(answer("late", delay=5)) as server:
        assert ask(server, timeout=0.2).text == "yes"
    assert len(server.bodies) == 2


@pytest.mark.parametrize("code", [400, 401, 403, 404, 422])
def test_a_refusal_is_final(code):
    with Server(status(code, "no such field")) as server:
        completion = ask(server)
    assert len(server.bodies) == 1
    assert completion.text == ""
    told = " (a token is wanted, but TEAMSRL_API_KEY is not set)" if code == 401 else ""
    assert completion.error == f"HTTP {code}: no such field{told}"
    assert completion.request_refused == (code in (400, 403, 422))


def test_want_of_credit_is_final_whatever_its_status():
    body = '{"error": {"message": "You exceeded your current quota.", "code": "insufficient_quota"}}'
    with Server(status(429, body, Retry_After="1")) as server:
        completion = ask(server)
    assert len(server.bodies) == 1
    assert completion.error.startswith('HTTP 429: {"error": {"message": "You exceeded your current quota."')
    assert not completion.request_refused


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (status(500, "over\nloaded\x1b[31m <b>now</b>"), "HTTP 500: over loaded [31m now after 3 attempts"),
        (status(502, ""), "HTTP 502 after 3 attempts"),
        (status(200, "{}"), "malformed answer: {} after 3 attempts"),
        (answer("late", delay=5), "no answer within 0.2 s after 3 attempts"),
    ],
    ids=["status", "no-body", "malformed", "slow"],
)
def test_a_lasting_fault_ends_as_one_line_after_the_last_retry(fault, error):
    with Server(*[fault] * 9) as server:
        assert ask(server, max_retries=2, timeout=0.2).error == error
    assert len(server.bodies) == 3


def test_nobody_listening_is_an_error_that_names_the_connection():
    with Server() as server:
        pass
    error = ask(server, max_retries=1).error
    assert error.startswith("connection failed: ClientConnectorError: Cannot connect to host 127.0.0.1:")
    assert error.endswith("after 2 attempts")


def test_a_failed_handshake_is_not_tried_again():
    with Server() as server:
        server.url = server.url.replace("http:", "https:")
        started = time.monotonic()
        error = ask(server, backoff=30).error
    assert error.startswith("connection failed: ClientConnectorSSLError")
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    "last", [answer("", "length"), answer("I will", "content_filter")], ids=["length", "content_filter"]
)
def test_an_answer_that_would_end_the_same_way_again_is_not_bought_twice(last):
    with Server(last) as server:
        assert ask(server).error in (
            "empty answer at max_tokens",
            "the endpoint's content filter stopped the answer",
        )
    assert len(server.bodies) == 1


def test_thinking_left_in_an_answer_is_taken_off():
    with Server(answer("<think>\nShort, or long?\n</think>\n\nShort.")) as server:
        assert ask(server).text == "Short."


@pytest.mark.parametrize(("finish", "at"), [("length", " at max_tokens"), ("stop", " after 2 attempts")])
def test_thoughts_without_an_answer_fail_by_that_name_and_give_no_text(finish, at):
    with Server(*[answer("<think>\nShort, or long", finish)] * 3) as server:
        completion = ask(server, max_retries=2)
    assert (completion.text, completion.error) == ("", f"no answer after thoughts{at}")


def test_a_redirect_is_not_followed():
    with Server(status(307, "elsewhere", Location="/v2/chat/completions")) as server:
        assert ask(server).error == "HTTP 307: elsewhere (redirects to /v2/chat/completions; correct base_url)"
    assert server.paths == ["/v1/chat/completions"]


def test_retry_after_is_waited_out():
    with Server(status(429, Retry_After="1")) as server:
        assert ask(server).text == "yes"
    assert 1.0 <= server.times[1] - server.times[0] < 3.0


def test_retry_after_as_a_date_beyond_the_longest_wait_ends_the_request():
    date = email.utils.formatdate(time.time() + 3600, usegmt=True)
    with Server(status(503, "maintenance", Retry_After=date)) as server:
        error = ask(server, max_wait=60).error
    assert error.startswith("HTTP 503: maintenance (to be tried again in 3")
    assert len(server.bodies) == 1


def test_waits_double_from_the_backoff():
    with Server(*[status(500)] * 3) as server:
        ask(server, backoff=0.1)
    waits = [after - before for before, after in zip(server.times, server.times[1:], strict=False)]
    # Jitter shortens a wait by up to half; above it stands what a busy machine adds.
    assert all(low <= wait < low + 1 for low, wait in zip([0.05, 0.1, 0.2], waits, strict=True)), waits


def test_no_more_requests_are_in_flight_than_concurrency_allows():
    with Server(*[answer("yes", delay=0.02)] * 40) as server:
        ask(server, *[ASK] * 40, concurrency=5)
    assert server.most_in_flight == 5
    assert len(server.bodies) == 40


def test_one_generator_serves_several_event_loops_in_turn_and_leaves_no_connection_open(caplog):
    gc.collect()  # What the servers of other tests left.
    caplog.clear()
    with Server() as server:
        generator = EndpointGenerator("tiny", server.url)
        assert [asyncio.run(generator(ASK)).text for _ in range(3)] == ["yes"] * 3
        del generator
        gc.collect()
    assert caplog.text == ""


def test_a_closed_generator_opens_again_when_asked():
    async def run():
        generator = EndpointGenerator("tiny", server.url)
        await generator.close()
        answers = [await generator(ASK)]
        await generator.close()
        return [*answers, await generator(ASK), await generator(ASK)]

    with Server() as server:
        assert [answer.text for answer in asyncio.run(run())] == ["yes"] * 3


def test_the_token_is_read_at_each_call(monkeypatch):
    with Server() as server:
        generator = EndpointGenerator("tiny", server.url)
        for token in ("first", "second\n", ""):
            monkeypatch.setenv("TEAMSRL_API_KEY", token)
            asyncio.run(generator(ASK))
        asyncio.run(generator.close())
    assert server.tokens == ["Bearer first", "Bearer second", None]


@pytest.mark.parametrize("code", [200, 400, 401, 403, 422, 500])
def test_the_token_is_in_no_error_no_attribute_and_no_log(code, monkeypatch, caplog, capfd):
    monkeypatch.setenv("MY_KEY", TOKEN)
    caplog.set_level("DEBUG")
    with Server(*[echo(code)] * 2) as server:
        generator = EndpointGenerator("tiny", server.url, api_key_env="MY_KEY", max_retries=1, backoff=0)

        async def run():
            completion = await generator(ASK)
            seen = repr(generator) + repr(vars(generator)) + repr(completion)
            await generator.close()
            return completion.error, seen

        error, seen = asyncio.run(run())
    assert server.tokens[0] == f"Bearer {TOKEN}"
    assert error
    assert "\n" not in error
    told = seen + caplog.text + "".join(capfd.readouterr())
    assert "PLANTED" not in told
    assert "9f8e7d" not in told


@pytest.mark.parametrize("shown", [TOKEN[:9] + "****", "x=" + TOKEN[-8:], "hf_abcdefgh", "sk-proj-12345", "BEARER q"])
def test_parts_of_tokens_in_a_body_are_starred_out(shown, monkeypatch):
    monkeypatch.setenv("TEAMSRL_API_KEY", TOKEN)
    with Server(status(403, f'{{"message": "key {shown} is not allowed"}}')) as server:
        assert ask(server).error == 'HTTP 403: {"message": "key *** is not allowed"}'


def test_a_token_no_header_can_carry_is_an_error_that_does_not_show_it(monkeypatch):
    monkeypatch.setenv("TEAMSRL_API_KEY", "one\ntwo")
    with Server() as server:
        assert ask(server).error == "the token in TEAMSRL_API_KEY holds characters that no header can carry"
    assert server.bodies == []


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://router.huggingface.co/v1", "HF_TOKEN"),
        ("https://huggingface.co.evil.example/v1", "TEAMSRL_API_KEY"),
        ("https://nothuggingface.co/v1", "TEAMSRL_API_KEY"),
        ("https://api.openai.com/v1", "OPENAI_API_KEY"),
        ("http://[::1]:8000/v1/", "TEAMSRL_API_KEY"),
        ("http://localhost:8000/v1", "TEAMSRL_API_KEY"),
        ("http://10.0.0.5:8000/v1", None),
    ],
)
def test_the_host_decides_which_variable_holds_the_token(url, name):
    assert EndpointGenerator("m", url).api_key_env == name


@pytest.mark.parametrize("host", ["10.0.0.5:8000", "example.org", "127.0.0.1.example.org", "router.huggingface.co"])
def test_no_token_goes_over_plain_http_to_another_machine(host, monkeypatch):
    monkeypatch.setenv("TEAMSRL_API_KEY", TOKEN)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(ValueError, match=r"would go over plain http to .*; use https") as refused:
        EndpointGenerator("m", f"http://{host}/v1")
    assert TOKEN not in str(refused.value)
    assert EndpointGenerator("m", f"http://{host}/v1", api_key_env="").api_key_env is None


@pytest.mark.parametrize(
    "url", ["localhost:8000", "", "ftp://host/v1", "http://", "http://host:99999/v1", "http://[::1"]
)
def test_a_url_that_is_none_is_refused_at_once(url):
    with pytest.raises(ValueError, match=r"base_url must be like 'https://host/v1', not '"):
        EndpointGenerator("m", url)


@pytest.mark.parametrize("url", ["https://me:PLANTED@host/v1", "https://host/v1?key=PLANTED", "https://host/#PLANTED"])
def test_a_url_that_may_hold_a_secret_is_refused_without_showing_it(url):
    with pytest.raises(ValueError, match="not one with '@', '\\?' or '#'") as refused:
        EndpointGenerator("m", url)
    assert "PLANTED" not in str(refused.value)


@pytest.mark.parametrize("options", [{"concurrency": 0}, {"timeout": 0}, {"max_retries": -1}, {"backoff": -0.1}])
def test_numbers_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="must be above 0"):
        EndpointGenerator("m", "http://127.0.0.1/v1", **options)


PARTS = [{"type": "text", "text": "A wren"}, {"type": "image", "url": "x"}, {"type": "text", "text": " sings."}]
WHOLE = b'{"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}]}'


@pytest.mark.parametrize(
    ("response", "text", "finish"),
    [
        (reply(message={"content": PARTS}), "A wren sings.", "stop"),
        (reply(message={"content": "A wren.", "tool_calls": []}), "A wren.", "stop"),
        (reply(message={"content": "A wren.", "refusal": None}), "A wren.", "stop"),
        *((reply(finish_reason=reason), "yes", "stop") for reason in ("STOP", "eos_token", "end_turn", "EOS")),
        *((reply(finish_reason=reason), "yes", "length") for reason in ("MAX_TOKENS", "max_output_tokens")),
        (reply(body=b"\xef\xbb\xbf" + WHOLE), "yes", "stop"),
        (reply(body=b": WORKING\n\n: STILL WORKING\n\n" + WHOLE), "yes", "stop"),
    ],
)
def test_an_answer_of_another_shape_is_read(response, text, finish):
    with Server(response) as server:
        completion = ask(server)
    assert (completion.text, completion.finish_reason, completion.error) == (text, finish, None)
    assert completion.attempts == 1


CALL = [{"function": {"name": "f", "arguments": "{}"}}]


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (reply(message={"content": None, "tool_calls": CALL}), "the model answered with a tool call"),
        (reply(finish_reason="tool_calls"), "the model answered with a tool call"),
        (reply(message={"content": None, "refusal": "I won't."}), "the model refused: I won't."),
        (reply(message={"content": [{"type": "refusal", "refusal": "No."}]}), "the model refused: No."),
        (reply(message={"content": None, "function_call": {"name": "f"}}), "the model answered with a tool call"),
        (reply(finish_reason="RECITATION"), 'the answer ended for an unknown reason: "RECITATION"'),
        (reply(finish_reason=None), "the answer ended for an unknown reason: null"),
        (reply(error={"code": 500}, finish_reason="error"), 'an error ended the answer: {"code": 500}'),
        (reply(body=b'data: {"choices": []}\n\n'), "the endpoint streams its answer, although it was not asked to"),
        (reply(body=b": ping\n\ndata: {}\n\n"), "the endpoint streams its answer, although it was not asked to"),
        (
            status(422, "`max_new_tokens` must be at most 512"),
            "HTTP 422: `max_new_tokens` must be at most 512 (lower max_tokens, or shorten the prompt)",
        ),
        (
            reply(body=b'{"error": {"message": "no money", "code": 402}}'),
            'an error with status 200: {"message": "no money", "code": 402}',
        ),
        (
            status(400, "The maximum context length is 512 tokens."),
            "HTTP 400: The maximum context length is 512 tokens. (lower max_tokens, or shorten the prompt)",
        ),
        (
            status(308, "", Location="https://other.example/v1/chat/completions"),
            "HTTP 308 (redirects to https://other.example/v1/chat/completions; correct base_url)",
        ),
    ],
)
def test_what_another_attempt_cannot_change_fails_once_and_by_name(response, error):
    with Server(response) as server:
        completion = ask(server)
        assert len(server.bodies) == 1
    assert (completion.text, completion.error) == ("", error)


NOTHING = reply(message={"content": None})


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (NOTHING, "empty answer"),
        (reply(message={"content": " \n"}), "empty answer"),
        (reply(message={}), "empty answer"),
        (reply(message={"content": "", "reasoning_content": "Hm."}), "no answer after thoughts"),
        (reply(message={"content": None, "reasoning": "Hm."}), "no answer after thoughts"),
        (reply(message={"content": "<think>Hm."}), "no answer after thoughts"),
        (reply(message={"content": [{"type": "thinking", "thinking": []}]}), "no answer after thoughts"),
        (
            reply(message={"content": ""}, usage={"completion_tokens_details": {"reasoning_tokens": 9}}),
            "no answer after thoughts",
        ),
    ],
)
def test_an_empty_answer_is_asked_for_once_more_and_at_temperature_0_not_at_all(response, error):
    certain = Request("expert", ASK.messages, Sampling(0.0, 1.0, 64))
    with Server(response, response, response, response) as server:
        assert ask(server).error == f"{error} after 2 attempts"
        assert len(server.bodies) == 2
        assert ask(server, certain)[0].error == error
        assert len(server.bodies) == 3
    with Server(response) as server:
        assert ask(server).text == "yes"


def encoded(encoding):
    async def respond(request):
        response = web.Response(body=WHOLE)
        response.headers["Content-Encoding"] = encoding
        return response

    return respond


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (reply(body=b"<html><body>Sign in first</body></html>"), "Sign in first"),
        (reply(body=b'{"id": "x", "choices": []}'), '{"id": "x", "choices": []}'),
        (reply(body=b'{"choices": [{"message": "yes"}]}'), '{"choices": [{"message": "yes"}]}'),
        (reply(body=b'["yes"]'), '["yes"]'),
        (reply(message={"content": "zero\0byte"}), "a zero byte in the text"),
        (encoded("gzip"), "Can not decode content-encoding: gzip"),
        (encoded("br"), "Can not decode content-encoding: br"),
    ],
    ids=["page", "no-choices", "text-as-message", "list", "zero-byte", "gzip", "br"],
)
def test_a_whole_body_that_is_no_answer_is_asked_for_at_most_twice_more(response, error):
    with Server(*[response] * 9) as server:
        failed = ask(server).error
        assert len(server.bodies) == 3
    assert failed.startswith("malformed answer: ")
    assert failed.endswith(" after 3 attempts")
    assert error in failed


def test_json_that_ends_in_the_middle_was_cut_on_its_way_and_is_asked_for_as_often_as_any_broken_connection():
    with Server(*[reply(body=WHOLE[:40])] * 5, *[reply(body=b"")] * 1) as server:
        assert ask(server).text == "yes"
    assert len(server.bodies) == 7


def test_a_zero_byte_in_an_answer_at_temperature_0_is_not_asked_for_again():
    with Server(reply(message={"content": "zero\0byte"})) as server:
        (failed,) = ask(server, Request("expert", ASK.messages, Sampling(0.0, 1.0, 64)))
    assert failed.error == "malformed answer: a zero byte in the text"
    assert len(server.bodies) == 1


def test_an_empty_list_of_choices_is_booked_with_the_tokens_that_the_server_counts():
    body = b'{"choices": [], "usage": {"prompt_tokens": 20, "completion_tokens": 5}}'
    with Server(reply(body=body)) as server:
        completion = ask(server)
    assert (completion.text, completion.prompt_tokens, completion.completion_tokens) == ("yes", 31, 8)


@pytest.mark.parametrize(
    "error", ['{"message": "the model is overloaded", "code": 502}', '{"message": "Too many requests"}']
)
def test_an_overload_reported_with_status_200_pauses_all_requests_and_uses_up_no_retry(error):
    overloaded = reply(body=b'{"error": %s}' % error.encode())
    with Server(*[overloaded] * 3) as server:
        completion = ask(server, max_retries=0)
    assert (completion.text, completion.attempts) == ("yes", 4)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (400, "Your credit balance is too low to access the API."),
        (429, "billing_hard_limit_reached"),
        (200, '{"error": {"message": "Insufficient balance"}}'),
    ],
)
def test_lack_of_credit_is_final_and_not_the_fault_of_the_request(code, message):
    with Server(*[status(code, message)] * 2) as server:
        completion = ask(server)
        assert len(server.bodies) == 1
    assert message.removeprefix('{"error": ').removesuffix("}") in completion.error
    assert not completion.request_refused


def test_an_error_inside_an_answer_with_status_200_is_tried_again_like_its_own_status():
    overloaded = reply(body=b'{"error": {"message": "overloaded", "code": 503}}')
    with Server(overloaded, overloaded, reply(body=b'{"error": "busy"}')) as server:
        completion = ask(server, max_retries=1)
    # The status 503 is a pause and uses up no retry; an error without a status does.
    assert (completion.text, completion.attempts) == ("yes", 4)


def test_an_error_without_a_status_is_asked_for_at_most_twice_more():
    with Server(*[reply(body=b'{"error": "something broke"}')] * 9) as server:
        assert ask(server).error == 'an error with status 200: "something broke" after 3 attempts'


def test_a_number_of_tokens_that_cannot_be_true_is_none():
    with Server(reply(usage={"prompt_tokens": 10**30, "completion_tokens": 4})) as server:
        completion = ask(server)
    assert (completion.prompt_tokens, completion.completion_tokens) == (0, 4)


def test_a_wait_in_milliseconds_is_waited_out():
    with Server(status(429, Retry_After_Ms="400")) as server:
        assert ask(server).text == "yes"
    assert 0.4 <= server.times[1] - server.times[0] < 2


def test_thoughts_that_only_the_total_counts_are_booked_as_tokens_of_the_answer():
    usage = {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 425}
    with Server(reply(usage=usage)) as server:
        completion = ask(server)
    assert (completion.prompt_tokens, completion.completion_tokens) == (20, 405)


def test_a_scripted_generator_gives_its_answers_in_turn_and_says_when_none_is_left():
    generator = ScriptedGenerator(["one", Completion("two", "other", error="no")])
    assert asyncio.run(generator(ASK)) == Completion("one", "scripted")
    assert asyncio.run(generator(ASK)) == Completion("two", "other", error="no")
    with pytest.raises(ValueError, match=r"No scripted answer for call 3 \(role 'expert'\)"):
        asyncio.run(generator(ASK))
    assert generator.calls == 3


def test_a_scripted_generator_may_be_a_function_of_the_request():
    generator = ScriptedGenerator(lambda request: request.messages[0]["content"] * 2, model="twice")
    assert asyncio.run(generator(ASK)) == Completion("Why?Why?", "twice")


def test_one_text_is_no_script():
    with pytest.raises(ValueError, match="put it in a list"):
        ScriptedGenerator("Equal")


def test_a_specification_names_an_endpoint():
    generator = make_generator("endpoint:org/tiny-1:fast@http://127.0.0.1:8000/v1/")
    assert (generator.model, generator.base_url) == ("org/tiny-1:fast", "http://127.0.0.1:8000/v1")


def test_a_specification_names_the_rulebook_and_its_seed():
    assert [make_generator(spec).seed for spec in ("rulebook", "rulebook:0", "rulebook:17")] == [0, 0, 17]


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "gpt-4",
        "rulebook:x",
        "rulebook:",
        "endpoint:m",
        "endpoint:m@host/v1",
        "endpoint:@http://h",
        "transformers:",
    ],
)
def test_a_specification_without_a_known_form_is_told_the_forms(spec):
    with pytest.raises(ValueError) as refused:
        make_generator(spec)
    assert str(refused.value) == (
        f"No model is named by a specification that starts with {spec.partition('@')[0]!r}; write 'rulebook', "
        "'rulebook:SEED', 'endpoint:MODEL@BASE_URL' or 'transformers:PATH_OR_ID[+ADAPTER]'."
    )


def test_a_password_in_a_specification_is_not_repeated():
    for spec in ("endpoint:m@https://me:PLANTED@host/v1", "endpoint:m@me:PLANTED@host"):
        with pytest.raises(ValueError) as refused:
            make_generator(spec)
        assert "PLANTED" not in str(refused.value)
