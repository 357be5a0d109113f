"""Rewards from a student's losses: the numbers against the model's own, what is paid, and what the ledger keeps."""

import asyncio
import json
import math

import pytest
import torch
from real_model import smollm2
from test_student_rewards import Student, _train, chain, paid, step

from teamsrl_hf import AnswerLosses, Influence, Ledger, UserError, ifd_reward, influence_reward, make_generator
from teamsrl_hf.environment.student.arguments import read_anchors
from teamsrl_hf.environment.student.losses import loaded_in, mean_losses, read_rows
from teamsrl_hf.models.accounting import report
from teamsrl_hf.sft.tiny import build_tiny_model

ROWS = [
    ("Where does the river end?", "At the lake."),
    ("Where does the long river in the north end?", "At sea."),
    ("Name a lake.", "The lake is called the long lake of the river in the north."),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    texts = [f"Where does the river {n} end? At lake {n}." for n in range(30)]
    return build_tiny_model(texts, tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def tiny(folder):
    return loaded_in(make_generator({"transformers": str(folder), "dtype": "float32"}))


def read(reader, rows):
    return asyncio.run(read_rows(reader, rows))


def _loss(model, tokenizer, instruction, answer):
    """The mean loss of an answer's tokens, one row at a time and token by token."""
    message = [{"role": "user", "content": instruction}]
    prompt = tokenizer.apply_chat_template(message, add_generation_prompt=True, return_dict=False)
    said = tokenizer(answer, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logprobs = model(torch.tensor([prompt + said])).logits[0].log_softmax(-1)
    return -sum(logprobs[len(prompt) - 1 + n, token].item() for n, token in enumerate(said)) / len(said)


def test_losses_of_a_batch_are_those_of_its_rows_one_by_one(tiny):
    model, tokenizer = tiny
    found = read(AnswerLosses(model, tokenizer, "tiny", batch_size=3), ROWS)
    for (instruction, answer), (given, alone) in zip(ROWS, found, strict=True):
        assert given == pytest.approx(_loss(model, tokenizer, instruction, answer), abs=1e-4)
        assert alone == pytest.approx(_loss(model, tokenizer, "", answer), abs=1e-4)


def test_rows_that_wait_together_are_read_in_few_batches(tiny):
    sizes = []

    class Counting(AnswerLosses):
        def read(self, rows):
            sizes.append(len(rows))
            return super().read(rows)

    read(Counting(*tiny, "tiny", batch_size=4), ROWS * 3)
    assert sizes == [4, 4, 1]


def test_a_row_that_is_too_long_is_cut_at_its_end(tiny):
    reader = AnswerLosses(*tiny, "tiny", max_length=24)
    prompt, answer = reader.encoded(ROWS[2])
    assert len(prompt) + len(answer) == 24
    assert all(math.isfinite(loss) for scores in read(reader, ROWS) for loss in scores)


def test_an_empty_answer_has_no_loss(tiny):
    assert read(AnswerLosses(*tiny, "tiny"), [("Name a lake.", "")]) == [(0.0, 0.0)]


def test_difficulty_is_paid_where_the_rewrite_passed_and_an_answer_came(tiny):
    reader, answerer = AnswerLosses(*tiny, "tiny"), Student("At the lake.", broken=["Name fish."])
    steps = step("Where does the river end?"), step("Name birds.", verdict="equal"), step("Name fish.")
    more = [step(f"Where does river {n} end?") for n in range(2)]
    (rewards,) = paid(ifd_reward(reader, answerer), chain(*steps, *more))
    given, alone = read(reader, [("Where does the river end?", "At the lake.")])[0]
    assert rewards[0] == pytest.approx(given / alone if given < alone else 0.0)
    assert [math.isnan(reward) for reward in rewards] == [False, True, True, False, False]


def test_seconds_a_row_are_logged_where_a_trainer_listens(tiny):
    logged = {}
    function = ifd_reward(AnswerLosses(*tiny, "tiny"), Student("At the lake."))
    asyncio.run(function([chain(step("Name a lake."))], log_metric=logged.__setitem__))
    assert list(logged) == ["ifd_reward/seconds_per_row"]
    assert logged["ifd_reward/seconds_per_row"] > 0


def test_losses_are_read_once_and_kept_in_the_ledger(tiny, tmp_path):
    class Once(AnswerLosses):
        reads = 0

        def read(self, rows):
            Once.reads += len(rows)
            return super().read(rows)

    for _ in range(2):
        with Ledger(tmp_path / "ledger.sqlite") as ledger:
            found = read(ledger.record(Once(*tiny, "tiny")), ROWS)
    assert Once.reads == 3
    assert all(len(scores) == 2 for scores in found)
    assert report(tmp_path)["roles"]["student"]["calls"] == 3


def test_a_step_on_an_anchor_lowers_its_loss_more_than_one_on_another_row(tiny):
    influence = Influence(*tiny, "tiny", anchors=ROWS[:1], step_size=0.5)
    (before, after), (_, other) = read(influence, [ROWS[0], ROWS[2]])
    assert before == pytest.approx(_loss(*tiny, *ROWS[0]), abs=1e-4)
    assert after < before
    assert after < other


def test_a_step_is_forgotten_and_the_student_itself_is_not_touched(tiny):
    model, tokenizer = tiny
    before = [parameter.clone() for parameter in model.parameters()]
    influence = Influence(model, tokenizer, "tiny", anchors=ROWS[:1])
    assert read(influence, ROWS[1:]) == read(influence, ROWS[1:])
    assert all(torch.equal(one, other) for one, other in zip(before, model.parameters()))
    assert not hasattr(model, "peft_config")
    assert influence._anchor_loss() == influence.before


def test_the_step_is_a_gradient_step_of_the_length_asked_for(tiny):
    influence = Influence(*tiny, "tiny", anchors=ROWS[:1], step_size=0.25)
    mean_losses(influence._model, [influence.encoded(ROWS[1])], gradient=True)[0].backward()
    norm = math.sqrt(sum(float(p.grad.square().sum()) for p in influence._moved))
    with torch.no_grad():
        for p in influence._moved:
            p.copy_(-0.25 * p.grad / norm)
            p.grad = None
    by_hand = influence._anchor_loss()
    with torch.no_grad():
        for p in influence._moved:
            p.zero_()
    assert read(influence, ROWS[1:2])[0][1] == pytest.approx(by_hand, abs=1e-5)


def test_other_anchors_and_steps_are_other_calls_in_the_ledger(tiny, tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        for anchors, size in ((ROWS[:1], 0.1), (ROWS[1:2], 0.1), (ROWS[:1], 0.2), (ROWS[:1], 0.1)):
            read(ledger.record(Influence(*tiny, "tiny", anchors=anchors, step_size=size)), ROWS[2:])
    assert report(tmp_path)["roles"]["student"]["calls"] == 3


def test_influence_is_paid_as_the_fall_of_the_anchors_loss(tiny):
    influence = Influence(*tiny, "tiny", anchors=ROWS[:1])
    (rewards,) = paid(influence_reward(influence, Student("At the lake.")), chain(step(ROWS[0][0])))
    (before, after) = read(influence, [(ROWS[0][0], "At the lake.")])[0]
    assert rewards == [pytest.approx(before - after, abs=1e-6)]


def test_a_model_elsewhere_or_no_anchor_is_refused(tiny):
    with pytest.raises(UserError, match="name the student as transformers:PATH_OR_ID"):
        loaded_in(make_generator("endpoint:m@http://127.0.0.1:9/v1"))
    with pytest.raises(UserError, match="There are no anchor rows"):
        Influence(*tiny, "tiny", anchors=[])


def test_anchors_are_read_from_a_file_and_a_broken_one_is_named(tmp_path):
    file = tmp_path / "anchors.jsonl"
    file.write_text('{"instruction": "Name a lake.", "response": "Como."}\n\n')
    assert read_anchors(file) == [("Name a lake.", "Como.")]
    file.write_text('{"instruction": "Name a lake."}\n')
    with pytest.raises(UserError, match=r"anchors\.jsonl \(KeyError: 'response'\); give a JSONL file"):
        read_anchors(file)


def test_a_bandit_is_paid_by_losses_named_on_the_command_line(folder, tmp_path):
    anchors = tmp_path / "anchors.jsonl"
    anchors.write_text(json.dumps({"instruction": ROWS[0][0], "response": ROWS[0][1]}) + "\n")
    options = ["--reward_funcs", "validity_reward", "ifd_reward", "influence_reward", "--anchors", str(anchors)]
    assert _train(tmp_path / "out", *options, "--student", f"transformers:{folder}") == 0
    roles = report(tmp_path / "out")["roles"]
    assert roles["student"]["calls"] == 2 * roles["expert"]["calls"] > 0


def test_a_real_student_finds_an_answer_easier_where_the_instruction_asks_for_it():
    model, tokenizer = loaded_in(make_generator(smollm2()))
    answer = "The capital of France is Paris."
    rows = [("What is the capital of France?", answer), ("Name a bird.", answer)]
    (given, alone), (other, same) = read(AnswerLosses(model, tokenizer, "SmolLM2"), rows)
    assert given < 0.5 * alone
    assert other > 2 * given
    assert same == pytest.approx(alone, rel=0.02)  # The same row in another place of a bfloat16 batch.
