"""The endpoint generator against a server this project did not write: `transformers serve` with a tiny model."""

import asyncio

import pytest
from serve import served_model

from teamsrl_hf.models.base import Request, Sampling
from teamsrl_hf.models.endpoint import EndpointGenerator
from teamsrl_hf.models.factory import make_generator

pytestmark = pytest.mark.slow  # The server takes half a minute to start.


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    for needed in ("fastapi", "uvicorn"):
        pytest.importorskip(needed, reason="needs the extra: pip install 'teamsrl-hf[serving]'")
    with served_model(tmp_path_factory.mktemp("serve")) as server:
        yield server


def ask(generator, *requests):
    async def run():
        try:
            return await asyncio.gather(*map(generator, requests))
        finally:
            await generator.close()

    return asyncio.run(run())


def request(text, **sampling):
    return Request("expert", ({"role": "user", "content": text},), Sampling(**{"max_tokens": 24, **sampling}))


def test_each_of_many_requests_at_once_gets_an_answer_with_its_tokens_counted(served):
    name, url = served
    texts = [f"Why {i}?" for i in range(12)]
    answers = ask(EndpointGenerator(name, url, concurrency=8), *map(request, texts))
    for answer in answers:
        assert (answer.error, answer.model, answer.attempts) == (None, name, 1)
        assert answer.text
        assert answer.prompt_tokens > 5
        assert 1 <= answer.completion_tokens <= 24
        assert answer.finish_reason == ("length" if answer.completion_tokens == 24 else "stop")
    assert {answer.finish_reason for answer in answers} >= {"length"}
    assert len({answer.text for answer in answers}) > 6


def test_an_answer_is_as_long_as_max_tokens_allows_and_says_that_it_was_cut(served):
    name, url = served
    answers = ask(EndpointGenerator(name, url), *(request("Why?", max_tokens=count) for count in (1, 5)))
    assert [(answer.completion_tokens, answer.finish_reason) for answer in answers] == [(1, "length"), (5, "length")]


def test_seeds_repeat_an_answer_when_asked_one_after_the_other(served):
    name, url = served
    asked = [request("Why?", temperature=1.0, top_p=1.0, seed=seed) for seed in (1, 2, 1)]
    first, other, again = ask(make_generator({"endpoint": f"{name}@{url}", "concurrency": 1}), *asked)
    assert first.text == again.text != other.text


def test_a_name_the_server_does_not_know_is_refused_once(served):
    answer = ask(EndpointGenerator("nobody", served[1]), request("Why?"))[0]
    assert answer.error.startswith("HTTP 400: ")
    assert "Server is pinned to" in answer.error
    assert answer.attempts == 1


def test_a_wrong_path_is_refused_once(served):
    name, url = served
    answer = ask(EndpointGenerator(name, url + "/v2"), request("Why?"))[0]
    assert (answer.error, answer.attempts) == ('HTTP 404: {"detail":"Not Found"}', 1)
