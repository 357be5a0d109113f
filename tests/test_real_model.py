import asyncio

import pytest
import torch
from real_model import smollm2

from teamsrl_hf import (
    OPERATIONS,
    DatasetEvolver,
    EvolverConfig,
    Request,
    Rulebook,
    Sampling,
    Seed,
    make_generator,
    uniform_chooser,
)
from teamsrl_hf.environment.calibration import calibrate, read_labelled
from teamsrl_hf.environment.review import accepts, question_request
from teamsrl_hf.environment.rewriting import Rewrite, ask_rewrite
from teamsrl_hf.text.operations import rewrite_messages
from teamsrl_hf.text.questions import QUESTIONS

GREEDY = Sampling(temperature=0.0, top_p=1.0, max_tokens=24)


@pytest.fixture(scope="module")
def model():
    return make_generator(smollm2() | {"batch_size": 4})


def ask(model, *questions):
    async def all_of_them():
        requests = [Request("expert", ({"role": "user", "content": question},), GREEDY) for question in questions]
        return await asyncio.gather(*map(model, requests))

    return asyncio.run(all_of_them())


def test_a_real_model_in_a_gguf_file_answers_sensibly(model):
    (answer,) = ask(model, "What is the capital of France? Answer with its name alone.")
    assert "Paris" in answer.text
    assert (answer.error, answer.prompt_tokens > 20) == (None, True)


def test_a_real_model_stops_by_itself_and_says_when_it_was_cut(model):
    short, long = ask(model, "Say hello in one word.", "Tell a long story about a lighthouse.")
    assert (short.finish_reason, long.finish_reason) == ("stop", "length")
    assert long.completion_tokens == 24


def test_a_real_model_answers_a_rewrite_request_and_nothing_of_the_chat_template_shows(model):
    messages = rewrite_messages(OPERATIONS[1], "Name three birds that live in Peru.")
    answer = asyncio.run(model(Request("instructor", messages, GREEDY)))
    assert answer.text.strip()
    assert "<|im" not in answer.text


def test_a_real_model_writes_edits_that_make_whole_requests(model):
    things = "a lighthouse", "a harbour crane", "a barometer", "a sundial"
    texts = [f"Explain how {thing} works." for thing in things]

    async def all_of_them():
        jobs = [(one, text) for one in OPERATIONS for text in texts]
        return await asyncio.gather(*(ask_rewrite(one, text, model, "instructor", GREEDY) for one, text in jobs))

    made = asyncio.run(all_of_them())
    rewrites = [one for one in made if isinstance(one, Rewrite)]
    assert len(rewrites) >= 12
    assert all(one.edit and not one.edit.count("\n") for one in rewrites)
    kept = [one for one in made[4:] if isinstance(one, Rewrite)]  # Breadth asks for something else.
    assert all(one.text.startswith("Explain how a ") and " works. " in one.text for one in kept)
    refused = {one.review.violations[0] for one in made if not isinstance(one, Rewrite)}
    assert refused <= {"empty_edit", "malformed_edit", "copied_edit", "repetitive_edit", "vacuous_edit", "cut_off"}


def test_two_fresh_runs_with_one_sampling_seed_write_the_same_bytes_and_another_seed_others(model, tmp_path):
    texts = "Name three birds that live in Peru.", "Give a title for a story about a lighthouse."
    seeds = [Seed(f"s{number}", text) for number, text in enumerate(texts)]
    operations = [one for one in OPERATIONS if one.name in ("add_constraints", "deepen")]

    def run(name, seed):
        sampling = {"temperature": 0.9, "max_tokens": 64, "sampling_seed": seed}
        args = EvolverConfig(operations_per_episode=1, concurrency=4, **sampling)
        evolver = DatasetEvolver(model, Rulebook(), uniform_chooser(operations), operations, args)
        written = evolver.write(seeds, tmp_path / name, show_progress=False)
        return written.summary["rows"], {file.name: file.read_bytes() for file in written.folder.rglob("*.parquet")}

    first, again, other = run("first", 7), run("again", 7), run("other", 8)
    assert first[0] >= 1
    assert first == again
    assert first[1] != other[1]


def test_the_weights_of_a_gguf_file_are_unpacked_in_the_dtype_asked_for():
    model = make_generator(smollm2() | {"dtype": "float32"})._model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert sum(parameter.numel() for parameter in model.parameters()) == 134_515_008


def test_a_gguf_file_is_not_quantized_once_more():
    with pytest.raises(ValueError, match="goes without quantize_4bit"):
        make_generator(smollm2() | {"quantization": "4bit"})


def test_no_verdict_of_a_real_model_is_unreadable_and_each_is_that_of_the_likelier_word(model):
    rows = read_labelled()[:12]

    async def ask_all(question):
        return await asyncio.gather(*(model(question_request(question, r.instruction, r.rewrite)) for r in rows))

    for question in QUESTIONS.values():
        answers = asyncio.run(ask_all(question))
        assert {answer.text for answer in answers} <= set(question.choices)
        assert [accepts(question, answer) for answer in answers] == [question.read(answer.text) for answer in answers]
        assert all(max(answer.scores) < 0 for answer in answers)
        assert {answer.completion_tokens for answer in answers} == {0}


def test_a_real_reviewer_that_prefers_one_word_is_calibrated_by_an_offset(model):
    rows = [row for row in read_labelled() if row.label in ("good", "unchanged")][:16]
    found = calibrate(model, rows).questions["different"]
    assert (found.rows, found.unreadable, found.failed) == (16, 0, 0)
    assert found.offset != 0.0
