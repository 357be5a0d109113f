"""Batch APIs as recipes/README.md lists them: each specification is parsed, and the bytes it sends are compared."""

import json
import re
from pathlib import Path

import pytest
import yaml
from batch_server import BatchServer

from teamsrl_hf.calls import run_async
from teamsrl_hf.errors import UserError
from teamsrl_hf.models.base import Request, Sampling
from teamsrl_hf.models.batch.endpoint import BatchEndpoint
from teamsrl_hf.models.endpoint import EndpointGenerator
from teamsrl_hf.models.factory import make_generator
from teamsrl_hf.models.ledger import Ledger, request_key

README = (Path(__file__).parent.parent / "recipes" / "README.md").read_text()
ROWS = re.findall(r"^\| (.+?) \| `(\w+)` \| `(\{endpoint: .+batch: true.*\})` \|$", README, re.M)
SECRET = "PLANTED-5d1e7a90c2"
ASK = Request(
    "expert",
    ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Which?"}),
    Sampling(0.5, 0.9, 64, seed=7),
)
KEY = "0f" * 16
MESSAGES = '"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Which?"}]'
SAMPLED = f'{MESSAGES}, "temperature": 0.5, "top_p": 0.9, "max_tokens": 64, "seed": 7'
LINE = f'{{"custom_id": "{KEY}", "method": "POST", "url": "/v1/chat/completions", "body": {{"model": '
CREATION = {"input_file_id": "file-1", "endpoint": "/v1/chat/completions", "completion_window": "24h"}
SENT = {
    "OpenAI": f'{LINE}"gpt-5-mini", {MESSAGES}, "max_completion_tokens": 64, "seed": 7}}}}\n',
    "Azure OpenAI": f'{LINE}"DEPLOYMENT", {SAMPLED}}}}}\n',
    "Together": f'{LINE}"Qwen/Qwen3-32B", {SAMPLED}}}}}\n',
    "Anthropic": '{"model": "claude-sonnet-4-5", "messages": [{"role": "user", "content": "Which?"}], '
    '"temperature": 0.5, "max_tokens": 64, "system": "Be brief."}',
    "Any server with OpenAI's batches": f'{LINE}"MODEL", {SAMPLED}}}}}\n',
}
PATHS = {"Azure OpenAI": "/openai/v1"}
UPLOADS = {"Together": {"purpose": b"batch-api", "file_type": b"jsonl", "file_name": b"teamsrl-HASH.jsonl"}}


@pytest.mark.parametrize(("name", "variable", "spec"), ROWS, ids=[name for name, _, _ in ROWS])
def test_each_provider_gets_exactly_these_bytes(name, variable, spec, monkeypatch, tmp_path):
    monkeypatch.setenv(variable, SECRET)
    mapping = yaml.safe_load(spec)
    named = make_generator(mapping)
    assert isinstance(named, BatchEndpoint)
    with BatchServer() as server, Ledger(tmp_path / "l") as ledger:
        root = server.url.removesuffix("/v1")
        form = {"Together": "together", "Anthropic": "messages"}.get(name, "files")
        assert named.service.form is BatchEndpoint("m", root, batch_form=form).service.form
        place = re.sub(r"https?://[^/]+(/openai)?", root, mapping["endpoint"])
        more = {"api_key_env": named.api_key_env or "", "batch_form": form, "poll_interval": 0.02}
        generator = make_generator(mapping | {"endpoint": place} | more)
        assert run_async(ledger.record(generator)(ASK)).text == "An answer to: Which?"
        run_async(generator.close())
        key = request_key(ASK, generator.model, generator.answer_options(ASK)).hex()
    job = server.jobs["batch_1"]
    if name == "Anthropic":
        assert job["posted"] == {"requests": [{"custom_id": key, "params": json.loads(SENT[name])}]}
        assert json.dumps(job["posted"]["requests"][0]["params"]) == SENT[name]
        assert (server.headers["x-api-key"], server.headers["anthropic-version"]) == (SECRET, "2023-06-01")
        assert "Authorization" not in server.headers
        return
    assert server.files["file-1"].decode() == SENT[name].replace(KEY, key)
    shard = job["posted"].pop("metadata", {}).get("teamsrl_shard", "")
    assert (job["posted"], len(shard)) == (CREATION, 0 if name == "Together" else 32)
    uploads = {field: re.sub(rb"-[0-9a-f]{32}", b"-HASH", value) for field, value in server.uploads.items()}
    assert uploads == UPLOADS.get(name, {"purpose": b"batch"})
    assert job["who"] == (None if name == "Azure OpenAI" else f"Bearer {SECRET}")


def test_the_table_names_each_provider_once():
    assert [name for name, _, _ in ROWS] == list(SENT)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"poll_interval": 5.0}, "poll_interval is for models that answer in batches; give `batch: true` too"),
        ({"batch": True, "poll_interval": 0.0}, "poll_interval must be a number above 0, not 0.0."),
        (
            {"batch": True, "batch_form": "file"},
            "batch_form may be files, together, messages, not 'file'; did you mean",
        ),
        ({"batch": "yes"}, "batch of endpoint must be true or false, not 'yes'."),
        (
            {"batch": True, "batch_form": "messages", "reasoning_effort": "low"},
            "know no reasoning_effort; leave it out",
        ),
    ],
)
def test_an_option_that_can_not_be_used_is_named(options, message):
    with pytest.raises(UserError, match=re.escape(message)):
        make_generator({"endpoint": "m@http://127.0.0.1:1/v1", **options})


def test_options_of_single_calls_have_no_effect_and_do_no_harm():
    spec = {"endpoint": "m@http://127.0.0.1:1/v1", "concurrency": 4, "backoff": 1, "requests_per_minute": 9}
    assert isinstance(make_generator(spec), EndpointGenerator)
    assert make_generator({**spec, "batch": True}).concurrency == float("inf")


def test_no_secret_is_in_the_ledger_or_in_an_error(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("TEAMSRL_API_KEY", SECRET)
    from batch_server import refused

    with BatchServer(faults={"create": [refused(400, f"Not for {SECRET}.")]}) as server:
        generator = BatchEndpoint("m", server.url, poll_interval=0.02)
        with Ledger(tmp_path / "l") as ledger, pytest.raises(Exception, match="takes no batch") as caught:
            run_async(ledger.record(generator)(ASK))
        run_async(generator.close())
    assert SECRET not in str(caught.value) + caplog.text
    assert SECRET.encode() not in (tmp_path / "l").read_bytes()
