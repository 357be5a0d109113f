"""Specifications with options, as YAML and command lines give them; those that are one text: test_generation.py."""

import asyncio
import gc
import inspect
import weakref
from dataclasses import fields

import pytest
import yaml
from serve import save_tiny_model

from teamsrl_hf.models import factory as models
from teamsrl_hf.models.base import Request, Sampling
from teamsrl_hf.models.batch.endpoint import BatchEndpoint
from teamsrl_hf.models.endpoint import EndpointGenerator
from teamsrl_hf.models.factory import make_generator
from teamsrl_hf.models.rulebook.rules import Rulebook
from teamsrl_hf.models.wire.request import Dialect

ENDPOINT = "org/tiny:fast@http://127.0.0.1:8000/v1"


def test_a_yaml_mapping_names_an_endpoint_and_its_options():
    generator = make_generator(
        yaml.safe_load(f"""
endpoint: {ENDPOINT}
concurrency: 64
timeout: 30
max_retries: 2
backoff: 0.5
max_wait: 600
requests_per_minute: 500
tokens_per_minute: 200_000
api_key_env: ""
""")
    )
    assert isinstance(generator, EndpointGenerator)
    assert (generator.model, generator.base_url) == ("org/tiny:fast", "http://127.0.0.1:8000/v1")
    assert (generator.concurrency, generator.timeout, generator.max_retries) == (64, 30, 2)
    assert (generator.backoff, generator.max_wait, generator.api_key_env) == (0.5, 600, None)


def test_json_on_a_command_line_means_the_same():
    generator = make_generator(f'{{"endpoint": "{ENDPOINT}", "concurrency": 5}}')
    assert (generator.model, generator.concurrency) == ("org/tiny:fast", 5)


def test_an_option_left_empty_keeps_its_default():
    generator = make_generator({"endpoint": ENDPOINT, "concurrency": None, "requests_per_minute": None})
    assert generator.concurrency == EndpointGenerator("m", "http://127.0.0.1/v1").concurrency


def test_the_rulebook_as_a_mapping():
    assert [make_generator({"rulebook": seed}).seed for seed in (None, 0, 17)] == [0, 0, 17]
    assert isinstance(make_generator({"rulebook": None}), Rulebook)


def test_every_option_of_the_generators_can_be_given():
    def options(function):
        return {name for name, p in inspect.signature(function).parameters.items() if p.kind is p.KEYWORD_ONLY}

    from teamsrl_hf.models.local import TransformersGenerator

    assert set(models.ENDPOINT_OPTIONS) - set(models.BATCH_OPTIONS) == options(EndpointGenerator)
    in_batches = options(BatchEndpoint) | {one.name for one in fields(Dialect)} | {"batch"}
    assert set(models.ENDPOINT_OPTIONS) - set(models.SINGLE_CALL_OPTIONS) == in_batches
    # A loaded model can't be written down, and "quantization: 4bit" is how quantize_4bit is spelled.
    left_out = {"model", "processing_class", "quantize_4bit"}
    assert set(models.LOCAL_OPTIONS) - {"quantization"} == options(TransformersGenerator) - left_out


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            {"endpoint": ENDPOINT, "concurency": 3},
            "Unknown option 'concurency' of endpoint; there are: api_key_env, concurrency, timeout, max_retries, "
            "backoff, max_wait, requests_per_minute, tokens_per_minute, headers, query, bill_to, plain_http, "
            "extra_body, max_tokens_field, drop, system, reasoning_effort, choices, batch, poll_interval, batch_form, "
            "temperature, top_p, max_tokens, seed; did you mean 'concurrency'?",
        ),
        ({"rulebook": 3, "seed": 4}, "Unknown option 'seed' of rulebook; there are: none."),
        ({"endpoint": ENDPOINT, "concurrency": "many"}, "concurrency of endpoint must be a whole number, not 'many'."),
        ({"endpoint": ENDPOINT, "concurrency": 2.5}, "concurrency of endpoint must be a whole number, not 2.5."),
        ({"endpoint": ENDPOINT, "timeout": True}, "timeout of endpoint must be a number, not True."),
        (
            {"endpoint": ENDPOINT, "requests_per_minute": 0},
            "A rate per minute must be above 0, not 0; leave it out for no limit.",
        ),
        (
            {"transformers": "m", "quantization": "3bit"},
            "quantization must be 4bit or left out, not '3bit'.",
        ),
        (
            {"model": "m", "url": "u"},
            "A model is one of endpoint, transformers, rulebook, each with its options, not a mapping of model, url.",
        ),
        ({}, "A model is one of endpoint, transformers, rulebook, each with its options, not a mapping of nothing."),
        (
            {"endpoint": ENDPOINT, "rulebook": 1},
            "A model is one of endpoint, transformers, rulebook, each with its options, not a mapping of endpoint, "
            "rulebook.",
        ),
        (
            {"endpoint": "m"},
            "No model is named by a specification that starts with 'endpoint:m'; write 'rulebook', 'rulebook:SEED', "
            "'endpoint:MODEL@BASE_URL' or 'transformers:PATH_OR_ID[+ADAPTER]'.",
        ),
        (
            '{"endpoint": }',
            "A specification that starts with '{' must be JSON, but: Expecting value: line 1 column 14 (char 13).",
        ),
    ],
)
def test_a_mapping_that_names_nothing_is_refused_on_one_line(spec, message):
    with pytest.raises(ValueError) as refused:
        make_generator(spec)
    assert str(refused.value) == message


@pytest.mark.parametrize("token", ["hf_PLANTEDabc", "sk-proj-PLANTED12"])
def test_a_token_in_place_of_its_variable_s_name_is_refused_without_showing_it(token):
    with pytest.raises(ValueError, match="must name an environment variable") as refused:
        make_generator({"endpoint": ENDPOINT, "api_key_env": token})
    assert "PLANTED" not in str(refused.value)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny_model(folder)
    return str(folder)


def ask(generator, *texts):
    requests = [Request("expert", ({"role": "user", "content": text},), Sampling(0.0, 1.0, 12)) for text in texts]

    async def run():
        return await asyncio.gather(*map(generator, requests))

    return asyncio.run(run())


def test_a_mapping_names_a_model_in_this_process_and_how_to_run_it(tiny):
    generator = make_generator({"transformers": tiny, "batch_size": 3, "dtype": "bfloat16", "device": "cpu"})
    assert (generator.model, generator.batch_size) == (tiny, 3)
    assert [answer.error for answer in ask(generator, "Why?", "Where?")] == [None, None]
    assert str(next(generator._model.parameters()).dtype) == "torch.bfloat16"


def test_four_bits_are_four_bits_on_a_cpu_as_well(tiny):
    """Rows of 32 and 48 weights, which bitsandbytes itself can't run on a CPU with AVX512-BF16."""
    pytest.importorskip("bitsandbytes", reason="needs the extra: pip install 'teamsrl-hf[quantization]'")
    from bitsandbytes.nn import Linear4bit

    generator = make_generator({"transformers": tiny, "quantization": "4bit", "device": "cpu"})
    packed = [module for module in generator._model.modules() if isinstance(module, Linear4bit)]
    assert len(packed) == 14
    assert {str(module.weight.dtype) for module in packed} == {"torch.uint8"}
    together = ask(generator, "Why?", "Where is the sea?")
    assert [answer.error for answer in together] == [None, None]
    assert ask(generator, "Why?")[0].text == together[0].text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "floaty"}, "dtype must be 'auto' or one of torch's, such as 'bfloat16', not 'floaty'."),
        ({"device": "warp"}, "device must be like 'cpu' or 'cuda:1', not 'warp'."),
        ({"device": "cuda:99"}, "There is no device 'cuda:99': torch sees"),
        ({"batch_size": 0}, "batch_size must be at least 1, not 0."),
    ],
)
def test_what_this_machine_does_not_have_is_refused_on_one_line(options, message):
    with pytest.raises(ValueError) as refused:
        make_generator({"transformers": "m", **options})
    assert str(refused.value).startswith(message)


def test_roles_that_sample_one_model_differently_share_its_weights(tiny):
    plain, seeded = (make_generator({"transformers": tiny, "device": "cpu", **own}) for own in ({}, {"seed": 4}))
    assert (seeded.generator is plain, seeded.model) == (True, tiny)
    warm = {"transformers": tiny, "device": "cpu", "temperature": 1.5}
    texts = [ask(make_generator({**warm, "seed": seed}), "Why?", "Why not?") for seed in (4, 4, 5)]
    said = [[answer.text for answer in answers] for answers in texts]
    assert said[0] == said[1] != said[2]


def test_roles_that_name_one_model_share_it_and_the_last_to_go_frees_it(tiny):
    first, second = (make_generator({"transformers": tiny, "device": "cpu"}) for _ in range(2))
    other = make_generator({"transformers": tiny, "device": "cpu", "dtype": "float32"})
    assert first is second
    assert other is not first
    model = weakref.ref(first._model)
    del first, second
    gc.collect()
    assert model() is None
