"""Providers as recipes/README.md lists them: each specification is parsed, and the bytes it sends are compared."""

import asyncio
import json
import re
import shutil
import sqlite3
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from scripted_server import Server, answer, reply, status

from teamsrl_hf.calls import run_async
from teamsrl_hf.models.base import Request, Sampling, ScriptedGenerator, Wrapper, answer_options_of
from teamsrl_hf.models.budget import Budget, BudgetExhausted, Price
from teamsrl_hf.models.endpoint import EndpointGenerator
from teamsrl_hf.models.factory import make_generator
from teamsrl_hf.models.ledger import Ledger, request_key
from teamsrl_hf.models.wire.request import refused_parameter
from teamsrl_hf.models.wire.transport import address

README = (Path(__file__).parent.parent / "recipes" / "README.md").read_text()
ROWS = re.findall(r"^\| (.+?) \| `(\{endpoint: .+\})` \| `(\w+)` \|$", README, re.M)
SECRET = "PLANTED-5d1e7a90c2"
QUESTION = ({"role": "user", "content": "Which?"},)
ASK = Request("reviewer", QUESTION, Sampling(0.5, 0.9, 64, seed=7), choices=("Equal", "Different"))
VARIABLES = ("HF_TOKEN", "OPENAI_API_KEY", "TEAMSRL_API_KEY", "AZURE_OPENAI_API_KEY", "GEMINI_API_KEY")
VARIABLES = (*VARIABLES, "ANTHROPIC_API_KEY", "OPENROUTER_API_KEY")
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
BUNDLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in (*VARIABLES, *BUNDLES, *PROXIES, *map(str.upper, PROXIES)):
        monkeypatch.delenv(name, raising=False)


def ask(server, *requests, model="tiny", **options):
    async def run():
        generator = EndpointGenerator(model, server.url, **{"backoff": 0.01, **options})
        try:
            return await asyncio.gather(*(generator(request) for request in requests or (ASK,)))
        finally:
            await generator.close()

    answers = asyncio.run(run())
    return answers if len(requests) > 1 else answers[0]


MESSAGES = '"messages": [{"role": "user", "content": "Which?"}]'
SAMPLED = f'{MESSAGES}, "temperature": 0.5, "top_p": 0.9, "max_tokens": 64, "seed": 7'
LIMITED = f'{MESSAGES}, "max_completion_tokens": 64, "seed": 7'
SENT = {
    "OpenAI, reasoning models": (
        "/v1/chat/completions",
        f'{{"model": "gpt-5-mini", {LIMITED}, "reasoning_effort": "low"}}',
    ),
    "OpenAI, slow and cheaper": (
        "/v1/chat/completions",
        f'{{"model": "gpt-5-mini", {LIMITED}, "service_tier": "flex"}}',
    ),
    "Azure OpenAI": (
        "/openai/deployments/DEPLOYMENT/chat/completions?api-version=2024-10-21",
        f'{{"model": "gpt-4o", {SAMPLED}}}',
    ),
    "Gemini": (
        "/v1beta/openai/chat/completions",
        f'{{"model": "gemini-2.5-flash", {MESSAGES}, "temperature": 0.5, "top_p": 0.9, "max_tokens": 64, '
        '"reasoning_effort": "low"}',
    ),
    "Anthropic": (
        "/v1/chat/completions",
        f'{{"model": "claude-sonnet-4-5", {MESSAGES}, "temperature": 0.5, "max_tokens": 64, "seed": 7}}',
    ),
    "Anthropic, thinking": (
        "/v1/chat/completions",
        f'{{"model": "claude-sonnet-4-5", {MESSAGES}, "max_tokens": 64, "seed": 7, '
        '"thinking": {"type": "enabled", "budget_tokens": 1024}}',
    ),
    "Hugging Face, Inference Providers": (
        "/v1/chat/completions",
        f'{{"model": "openai/gpt-oss-120b:cheapest", {SAMPLED}}}',
    ),
    "Hugging Face, Inference Endpoints": ("/v1/chat/completions", f'{{"model": "MODEL", {SAMPLED}}}'),
    "Hugging Face, a server in a Job": ("/v1/chat/completions", f'{{"model": "Qwen/Qwen3-8B", {SAMPLED}}}'),
    "OpenRouter": (
        "/api/v1/chat/completions",
        f'{{"model": "qwen/qwen3-32b", {SAMPLED}, "reasoning": {{"enabled": false}}}}',
    ),
    "vLLM": (
        "/v1/chat/completions",
        f'{{"model": "Qwen/Qwen3-8B", {SAMPLED}, "structured_outputs": {{"choice": ["Equal", "Different"]}}, '
        '"chat_template_kwargs": {"enable_thinking": false}}',
    ),
    "vLLM before 0.12, in a private network": (
        "/v1/chat/completions",
        f'{{"model": "Qwen/Qwen3-8B", {SAMPLED}, "guided_choice": ["Equal", "Different"]}}',
    ),
}
HEADERS = {"Azure OpenAI": ("api-key", SECRET), "Hugging Face, Inference Providers": ("X-HF-Bill-To", "ORGANIZATION")}


@pytest.mark.parametrize(("name", "spec", "variable"), ROWS, ids=[name for name, _, _ in ROWS])
def test_each_provider_of_the_table_gets_exactly_these_bytes(name, spec, variable, monkeypatch):
    monkeypatch.setenv(variable, SECRET)
    mapping = yaml.safe_load(spec)
    named = make_generator(mapping).api_key_env
    assert named == (None if name == "Azure OpenAI" else variable)
    with Server() as server:
        root = server.url.removesuffix("/v1")
        here = mapping | {"endpoint": re.sub(r"https?://[^/]+", root, mapping["endpoint"]), "api_key_env": named or ""}
        generator = make_generator(here)
        assert asyncio.run(generator(ASK)).text == "yes"
        asyncio.run(generator.close())
    path, body = SENT[name]
    assert "?".join(filter(None, (server.paths[0], server.queries[0]))) == path
    assert server.raw[0].decode() == body
    assert server.tokens == [None if name == "Azure OpenAI" else f"Bearer {SECRET}"]
    header, value = HEADERS.get(name, ("Content-Type", "application/json"))
    assert server.headers[0][header] == value


def test_the_table_names_each_provider_once():
    assert [name for name, _, _ in ROWS] == list(SENT)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://abc--8000.hf.jobs/v1", "HF_TOKEN"),
        ("https://x.eu-west-1.aws.endpoints.huggingface.cloud/v1", "HF_TOKEN"),
        ("https://evilhf.jobs/v1", "TEAMSRL_API_KEY"),
        ("https://hf.jobs.example.org/v1", "TEAMSRL_API_KEY"),
        ("https://endpoints.huggingface.cloud.example.org/v1", "TEAMSRL_API_KEY"),
    ],
)
def test_hosts_of_hugging_face_get_its_token_and_hosts_that_resemble_them_do_not(url, name):
    assert EndpointGenerator("m", url).api_key_env == name


def test_a_system_message_comes_first_and_joins_one_that_is_there():
    own = Request("expert", ({"role": "system", "content": "Be brief."}, *QUESTION), Sampling())
    with Server() as server:
        ask(server, ASK, own, system="Answer in French.", concurrency=1)
    assert [body["messages"] for body in server.bodies] == [
        [{"role": "system", "content": "Answer in French."}, *QUESTION],
        [{"role": "system", "content": "Answer in French.\n\nBe brief."}, *QUESTION],
    ]


def test_extra_fields_win_over_sampling_parameters():
    with Server() as server:
        ask(server, extra_body={"temperature": 0.1, "top_k": 20})
    assert (server.bodies[0]["temperature"], server.bodies[0]["top_k"], server.bodies[0]["top_p"]) == (0.1, 20, 0.9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"extra_body": {"max_tokens": 9}}, "extra_body may not hold 'max_tokens': it is the sampling parameter"),
        ({"extra_body": {"stream": True}}, "extra_body may not hold 'stream'"),
        ({"extra_body": {"n": 4}}, "a request asks one model for one whole answer"),
        ({"extra_body": {"x": {1, 2}}}, "extra_body must be JSON"),
        ({"max_tokens_field": "max_token"}, "not 'max_token'; did you mean 'max_tokens'?"),
        ({"drop": ["temprature"]}, "drop may be temperature, top_p, seed, .* did you mean 'temperature'?"),
        ({"choices": "guided"}, "choices may be structured_outputs, guided_choice, not 'guided'"),
        ({"query": {"api-key": "x"}}, "query may hold no secrets"),
        ({"query": {"api-version": 2024}}, "api-version of query must be a text, not 2024; put it in quotes."),
        ({"bill_to": "my org"}, "bill_to must name an organization"),
        ({"headers": {"api-key": "sk-PLANTED"}}, "the header api-key must name an environment variable that is set"),
        ({"headers": {"api key": "HOME"}}, "headers must map names of headers to names of environment variables"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_before_anything_is_sent(options, message):
    with pytest.raises(ValueError, match=message) as refused:
        EndpointGenerator("m", "https://127.0.0.1/v1", **options)
    assert "PLANTED" not in str(refused.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"drop": "temperature"}, "drop of endpoint must be a list of texts, not 'temperature'."),
        ({"plain_http": 1}, "plain_http of endpoint must be true or false, not 1."),
        ({"extra_body": "x"}, "extra_body of endpoint must be a mapping, not 'x'."),
        ({"headers": "sk-PLANTED"}, "headers of endpoint must be a mapping, not something else."),
    ],
)
def test_an_option_of_another_type_is_refused_on_one_line(options, message):
    with pytest.raises(ValueError) as refused:
        make_generator({"endpoint": "m@http://127.0.0.1/v1", **options})
    assert str(refused.value) == message


@pytest.mark.parametrize("code", [401, 400, 200])
def test_the_value_of_a_header_is_in_no_error_no_attribute_and_no_log(code, monkeypatch, caplog):
    async def echo(request):
        from aiohttp import web

        return web.Response(status=code, text=f'{{"error": "bad key {request.headers["api-key"]}"}}')

    monkeypatch.setenv("MY_GATEWAY_KEY", SECRET)
    caplog.set_level("DEBUG")
    with Server(*[echo] * 9) as server:
        generator = EndpointGenerator(
            "m", server.url, headers={"api-key": "MY_GATEWAY_KEY"}, api_key_env="", max_retries=1, backoff=0
        )
        completion = asyncio.run(generator(ASK))
        asyncio.run(generator.close())
    shown = repr(vars(generator)) + repr(completion) + caplog.text
    assert "bad key ***" in completion.error
    assert "PLANTED" not in shown
    assert SECRET[-6:] not in shown
    assert ("(the token is the one in MY_GATEWAY_KEY)" in completion.error) == (code == 401)


def test_a_header_of_an_unset_variable_fails_by_its_name_and_sends_nothing(monkeypatch):
    monkeypatch.setenv("MY_GATEWAY_KEY", SECRET)
    with Server() as server:
        generator = EndpointGenerator("m", server.url, headers={"api-key": "MY_GATEWAY_KEY"})
        monkeypatch.delenv("MY_GATEWAY_KEY")
        completion = asyncio.run(generator(ASK))
    assert completion.error == "the environment variable MY_GATEWAY_KEY of a header is not set"
    assert server.bodies == []


def test_a_header_for_authorization_replaces_the_token(monkeypatch):
    monkeypatch.setenv("TEAMSRL_API_KEY", "other")
    monkeypatch.setenv("GATEWAY_LOGIN", "Basic PLANTED")
    with Server() as server:
        ask(server, headers={"authorization": "GATEWAY_LOGIN"})
    assert server.tokens == ["Basic PLANTED"]


@pytest.mark.parametrize("host", ["10.0.0.5:8000", "192.168.1.9", "vllm:8000", "gpu7.internal", "[fd00::5]:8000"])
def test_a_token_goes_over_plain_http_to_a_private_address_where_that_is_allowed(host, monkeypatch):
    monkeypatch.setenv("TEAMSRL_API_KEY", SECRET)
    with pytest.raises(ValueError, match="or plain_http: true"):
        EndpointGenerator("m", f"http://{host}/v1")
    assert EndpointGenerator("m", f"http://{host}/v1", plain_http=True).api_key_env == "TEAMSRL_API_KEY"


@pytest.mark.parametrize("host", ["example.org", "8.8.8.8", "huggingface.co"])
def test_no_option_sends_a_secret_over_plain_http_to_a_public_address(host, monkeypatch):
    for name in ("TEAMSRL_API_KEY", "HF_TOKEN", "GATEWAY_KEY"):
        monkeypatch.setenv(name, SECRET)
    for options in ({}, {"api_key_env": "", "headers": {"api-key": "GATEWAY_KEY"}}):
        with pytest.raises(ValueError, match=r"would go over plain http to .*send none\.$"):
            EndpointGenerator("m", f"http://{host}/v1", plain_http=True, **options)


def refusing(*names, style="openai", code=400):
    """A server's handler that refuses parameters by name, one at a time, in the style of some provider."""
    styles = {
        "openai": lambda name: {"error": {"message": f"Unsupported parameter: '{name}'.", "param": name}},
        "argument": lambda name: {"error": {"message": f"Unrecognized request argument supplied: {name}"}},
        "google": lambda name: [{"error": {"message": f'Unknown name "{name}": Cannot find field.'}}],
        "pydantic": lambda name: {
            "detail": [{"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs are not permitted"}]
        },
        "prefix": lambda name: {"error": {"message": f"{name}: Extra inputs are not permitted"}},
        "prose": lambda name: f"This model does not support the parameter {name}.",
    }

    async def respond(request):
        from aiohttp import web

        body = await request.json()
        if (found := next((name for name in names if name in body), None)) is None:
            return await answer("yes")(request)
        said = styles[style](found)
        return web.Response(status=code, text=said if isinstance(said, str) else json.dumps(said))

    return respond


@pytest.mark.parametrize(
    ("style", "code"),
    [("openai", 400), ("argument", 400), ("google", 400), ("pydantic", 422), ("prefix", 400), ("prose", 400)],
)
def test_parameters_that_a_server_refuses_by_name_are_left_out_for_the_run_and_named_once(style, code, caplog):
    refuse = refusing("temperature", "top_p", "seed", style=style, code=code)
    with Server(*[refuse] * 40) as server:
        asked = [Request("expert", ({"role": "user", "content": f"{i}?"},), ASK.sampling) for i in range(8)]
        answers = ask(server, *asked, max_retries=0, concurrency=4)
        refused = len(server.bodies) - 8
        assert {answer.text for answer in answers} == {"yes"}
        assert refused <= 3 * 4
        assert sum(answer.attempts for answer in answers) == len(server.bodies)
        assert server.bodies[-1].keys() == {"model", "messages", "max_tokens"}
    lines = [record.getMessage() for record in caplog.records]
    assert [line.partition("; ")[0] for line in lines] == [
        f"tiny refuses the parameter '{name}'" for name in ("temperature", "top_p", "seed")
    ]
    assert all(f"requests of this run leave it out (HTTP {code}: " in line for line in lines)


@pytest.mark.parametrize(
    ("given", "other"), [("max_tokens", "max_completion_tokens"), ("max_completion_tokens", "max_tokens")]
)
def test_a_refused_limit_on_tokens_is_sent_by_its_other_name(given, other, caplog):
    with Server(*[refusing(given)] * 9) as server:
        assert ask(server, max_tokens_field=given).text == "yes"
    assert [{given, other} & body.keys() for body in server.bodies] == [{given}, {other}]
    assert server.bodies[1][other] == 64
    assert f"'{other}' is sent in its place" in caplog.text


def test_a_server_that_takes_no_limit_on_tokens_at_all_is_an_error_and_not_asked_without_one():
    with Server(*[refusing("max_tokens", "max_completion_tokens")] * 9) as server:
        completion = ask(server)
    assert completion.error.startswith('HTTP 400: {"error": {"message": "Unsupported parameter: \'max_completion')
    assert len(server.bodies) == 2
    with Server(*[refusing("max_tokens", "max_completion_tokens")] * 9) as server:
        assert ask(server, drop=["max_tokens"]).text == "yes"


TEMPERATURE = {"temperature": 0.7, "top_p": 0.9, "reasoning_effort": "minimal", "messages": [], "seed": 3}


@pytest.mark.parametrize(
    ("code", "body", "name"),
    [
        (400, "`temperature` and `top_p` cannot both be specified for this model. Please use only one.", "top_p"),
        (400, "`temperature` is deprecated for this model.", "temperature"),
        (400, "Argument not supported on this model: seed", "seed"),
        (400, "invalid temperature: only 1 is allowed for this model", "temperature"),
        (400, '{"error": {"message": "Unsupported value: \'temperature\'.", "param": "temperature"}}', "temperature"),
        # Values out of range, other statuses, other fields, and words of a text that was sent.
        (400, '{"error": {"message": "temperature must be at most 1", "param": "temperature"}}', None),
        (500, "Unsupported parameter: 'temperature'", None),
        (400, '{"error": {"message": "Unsupported: \'temperature\'", "param": "messages[0].content"}}', None),
        (400, "This topic is not allowed: tell me about the temperature of a seed", None),
        (400, "Unsupported parameter: 'top_k'", None),
        (400, "'messages' with images are not supported", None),
        (400, '{"error": {"message": "Unsupported value: \'reasoning_effort\'.", "code": "unsupported_value"}}', None),
        (400, '{"error": {"message": "Unknown parameter: \'reasoning_effort\'."}}', "reasoning_effort"),
    ],
)
def test_only_a_parameter_that_was_sent_and_is_not_supported_counts_as_refused(code, body, name):
    assert refused_parameter(code, body, TEMPERATURE) == name


PLAIN = Request("expert", QUESTION, Sampling())


@pytest.mark.parametrize(
    ("options", "request_", "changes"),
    [
        ({}, ASK, {}),
        ({"max_tokens_field": "max_completion_tokens", "bill_to": "me", "query": {"v": "1"}}, ASK, {}),
        ({"drop": ["seed"]}, PLAIN, {}),
        ({"choices": "guided_choice"}, PLAIN, {}),
        ({"drop": ["top_p", "seed"]}, ASK, {"drop": ["seed", "top_p"]}),
        ({"choices": "guided_choice"}, ASK, {"choices": "guided_choice"}),
        ({"system": "Be brief."}, PLAIN, {"system": "Be brief."}),
        ({"reasoning_effort": "low"}, PLAIN, {"reasoning_effort": "low"}),
        ({"extra_body": {"top_k": 1}}, PLAIN, {"extra_body": {"top_k": 1}}),
    ],
)
def test_options_that_change_an_answer_are_part_of_its_key_and_others_are_not(options, request_, changes):
    generator = Wrapper(EndpointGenerator("m", "https://127.0.0.1/v1", **options))
    assert answer_options_of(generator, request_) == changes
    plain = request_key(request_, "m")
    assert (request_key(request_, "m", answer_options_of(generator, request_)) == plain) == (changes == {})


def test_a_model_without_such_options_changes_nothing():
    assert answer_options_of(ScriptedGenerator(["x"]), PLAIN) == {}


def test_answers_under_other_options_are_bought_anew_and_those_under_the_same_are_replayed(tmp_path):
    def bought(server, **options):
        async def run(ledger):
            generator = EndpointGenerator("tiny", server.url, **options)
            await ledger.record(generator)(PLAIN)
            await generator.close()

        with Ledger(tmp_path / "ledger.sqlite") as ledger:
            asyncio.run(run(ledger))
        return len(server.bodies)

    with Server() as server:
        assert bought(server) == 1
        assert bought(server) == 1
        assert bought(server, reasoning_effort="low") == 2
        assert bought(server, reasoning_effort="low", max_tokens_field="max_completion_tokens") == 2
        assert bought(server, reasoning_effort="high") == 3
    with Server(*[refusing("temperature")] * 9) as server:
        assert bought(server, system="Be brief.") == 2  # Refused, learned, answered.
        assert bought(server, system="Be brief.") == 2


def test_a_budget_in_tokens_reserves_room_for_a_system_message(tmp_path):
    async def run(ledger):
        generator = EndpointGenerator("tiny", "https://127.0.0.1/v1", system="Be brief. " * 40)
        await ledger.record(generator)(Request("expert", QUESTION, Sampling(max_tokens=64)))

    with Ledger(tmp_path / "ledger.sqlite", budget=Budget(tokens=400)) as ledger, pytest.raises(BudgetExhausted):
        asyncio.run(run(ledger))


@pytest.mark.parametrize("no_proxy", ["", "other.example,10.0.0.0/8"])
def test_requests_go_through_the_proxy_that_the_environment_names(no_proxy, monkeypatch):
    with Server() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.removesuffix("/v1"))
        monkeypatch.setenv("NO_PROXY", no_proxy)
        proxy.url = "http://models.example/v1"
        assert ask(proxy, api_key_env="").text == "yes"
    assert proxy.headers[0]["Host"] == "models.example"


@pytest.mark.parametrize(
    ("url", "no_proxy", "proxy"),
    [
        ("https://models.example/v1", "", "http://proxy.example:3128"),
        ("https://models.example/v1", "example", None),
        ("https://models.example/v1", "*", None),
        ("https://models.example:8443/v1", "models.example:8443", None),
        ("https://10.1.2.3/v1", "10.0.0.0/8", None),
        ("https://127.0.0.1:8000/v1", "", None),
        ("http://localhost:8000/v1", "", None),
    ],
)
def test_the_environment_says_which_hosts_are_behind_a_proxy_and_this_machine_never_is(
    url, no_proxy, proxy, monkeypatch
):
    monkeypatch.setenv("ALL_PROXY", "proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert address(url).proxy() == proxy


def test_a_proxy_of_another_kind_is_refused_without_its_password(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "socks5://ada:PLANTED@proxy.example:1080")
    with pytest.raises(ValueError, match="is no HTTP proxy") as refused:
        address("https://models.example/v1").proxy()
    assert "PLANTED" not in str(refused.value)


def test_plain_http_to_a_private_address_goes_to_that_address_alone(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:3128")
    assert address("http://10.0.0.5/v1", plain_http=True).proxy() is None


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1 that no system trusts, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    folder = tmp_path_factory.mktemp("certificate")
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=stand-in"]
    made += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"]
    subprocess.run(made, check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"


@pytest.mark.parametrize("variable", BUNDLES[:1] + BUNDLES[2:])
def test_a_bundle_of_certificates_that_the_environment_names_is_trusted(variable, certificate, monkeypatch):
    with Server(certificate=certificate) as server:
        assert "CERTIFICATE_VERIFY_FAILED" in ask(server, max_retries=0).error
        monkeypatch.setenv(variable, str(certificate[0]))
        assert ask(server).text == "yes"


def test_a_bundle_that_cannot_be_read_is_named(monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", "/no/such/bundle.pem")
    with Server() as server, pytest.raises(ValueError, match="SSL_CERT_FILE names no file of certificates"):
        ask(server)


# OpenAI's slow and cheaper tier.


def slow(tier):
    body = {"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}], "service_tier": tier}
    usage = {"prompt_tokens": 1_000_000, "completion_tokens": 1_000_000}
    return reply(body=json.dumps(body | {"usage": usage}).encode())


def test_the_slow_tier_waits_longer_and_its_refusals_cost_nothing(tmp_path):
    busy = status(429, '{"error": {"code": "resource_unavailable", "message": "Resource unavailable."}}')
    price = {"tiny": Price(prompt=2.0, completion=8.0)}
    with Server(busy, busy, slow("flex"), slow("default")) as server, Ledger(tmp_path / "l", prices=price) as ledger:
        generator = EndpointGenerator("tiny", server.url, backoff=0.01, extra_body={"service_tier": "flex"})
        assert (generator.timeout, EndpointGenerator("tiny", server.url).timeout) == (900.0, 120.0)
        assert EndpointGenerator("tiny", server.url, timeout=7, extra_body={"service_tier": "flex"}).timeout == 7

        async def run(recorded):
            for number in range(2):
                assert (await recorded(replace(ASK, sample_index=number))).error is None
            await generator.close()

        run_async(run(ledger.record(generator)))
        assert [body["service_tier"] for body in server.bodies] == ["flex"] * 4
        assert (ledger.tokens, ledger.cost) == (4_000_000, 5.0 + 10.0)
    connection = sqlite3.connect(tmp_path / "l")
    found = connection.execute("SELECT tier, attempts, cost FROM calls ORDER BY cost").fetchall()
    connection.close()
    assert found == [("flex", 3, 5.0), ("standard", 1, 10.0)]
