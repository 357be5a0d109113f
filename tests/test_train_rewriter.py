"""Teaching the rewriting model: prompts as an evolver sends them, rewards as a chooser gets them, GRPO end to end."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from real_model import smollm2  # noqa: E402

from recipes import train_rewriter  # noqa: E402
from teamsrl_hf.environment.review import novelty_reward, validity_reward  # noqa: E402
from teamsrl_hf.environment.rewriter import Answer, rewriter_reward, rewriting_rows, said, steps_of  # noqa: E402
from teamsrl_hf.environment.rollout import carry_out, run_all  # noqa: E402
from teamsrl_hf.errors import UserError  # noqa: E402
from teamsrl_hf.models.base import Completion  # noqa: E402
from teamsrl_hf.models.rulebook.rules import Rulebook  # noqa: E402
from teamsrl_hf.text.operations import OPERATIONS, with_prompts  # noqa: E402
from teamsrl_hf.types import Reason, Seed  # noqa: E402

SEEDS = [Seed("a", "Explain why leaves change colour in autumn."), Seed("b", "Give three uses of a paper clip.")]
CONFIG = ROOT / "recipes" / "quickstart" / "train_rewriter_smollm2.yaml"
ADD = next(operation for operation in OPERATIONS if operation.name == "add_constraints")


class Recorded:
    model = "recorded"

    def __init__(self):
        self.asked = []

    async def __call__(self, request):
        self.asked.append(request)
        return Completion("nothing", self.model)


def test_a_row_asks_what_an_evolver_asks_first():
    rows = rewriting_rows(SEEDS, OPERATIONS)
    assert [(row["seed_id"], row["operation"]) for row in rows] == [
        (seed.id, operation.name) for seed in SEEDS for operation in OPERATIONS
    ]
    by_name = {operation.name: operation for operation in OPERATIONS}
    for row in rows:
        model = Recorded()
        run_all([carry_out((row["instruction"],), by_name[row["operation"]], model, Rulebook())])
        assert list(model.asked[0].messages) == row["prompt"]


def test_operations_without_edits_ask_for_a_whole_rewrite():
    (row,) = rewriting_rows(SEEDS[:1], with_prompts("large")[:1])
    assert len(row["prompt"]) == 1
    assert SEEDS[0].instruction in row["prompt"][0]["content"]


def test_an_answer_makes_the_step_it_would_make_in_a_chain():
    whole = with_prompts("large")[2]
    better = "Explain why leaves change colour in autumn, and why some trees stay green all winter instead."
    answers = [
        Answer(whole, SEEDS[0].instruction, better),
        Answer(whole, SEEDS[0].instruction, SEEDS[0].instruction),
        Answer(whole, SEEDS[0].instruction, better, cut=True),
    ]
    steps = steps_of(answers, Rulebook())
    assert [(step.operation, step.review.passed, step.review.reason) for step in steps] == [
        ("deepen", True, None),
        ("deepen", False, Reason.UNCHANGED),
        ("deepen", False, Reason.CUT_OFF),
    ]


def test_the_reward_is_that_of_the_reward_functions_and_repeats_earn_less():
    whole = with_prompts("large")
    better = "Explain why leaves change colour in autumn, and why some trees stay green all winter instead."
    reward = rewriter_reward(whole, Rulebook(), max_completion_length=8)
    completions = [[{"role": "assistant", "content": text}] for text in (better, better, "No.", better)]
    columns = {"instruction": [SEEDS[0].instruction] * 4, "operation": ["deepen"] * 4, "prompts": None}
    first, again, useless, cut = reward(completions=completions, completion_ids=[[1] * 5] * 3 + [[1] * 8], **columns)
    assert 1 < first <= 2
    assert again == 1.0  # It passes, but says what the first one said.
    assert (useless, cut) == (0.0, 0.0)
    half = rewriter_reward(whole, Rulebook(), None, [validity_reward, novelty_reward], [0.5, 0.0])
    columns = {name: values and values[:1] for name, values in columns.items()}
    assert half(completions=[better], completion_ids=[[1] * 8], **columns) == [0.5]


def test_an_edit_that_cannot_be_used_is_not_asked_again_in_another_way():
    (step,) = steps_of([Answer(ADD, SEEDS[1].instruction, "")], Rulebook())
    assert (step.review.reason, step.review.passed) == (Reason.EMPTY_EDIT, False)


def test_a_completion_is_a_text_or_messages():
    assert (said("Hello"), said([{"role": "assistant", "content": "Hello"}])) == ("Hello", "Hello")


MODEL = ("--model_name_or_path", "a/b")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "No model is named; give --model_name_or_path FOLDER_OR_HUB_ID."),
        ([*MODEL, "--push_to_hub", "true"], "leave out push_to_hub"),
        ([*MODEL, "--eval_seeds", "-1"], "eval_seeds .* at least 0"),
        ([*MODEL, "--reviewer", "x"], "No model is named by"),
    ],
)
def test_wrong_arguments_are_told_before_a_model_is_loaded(tmp_path, given, message):
    places = ["--output_dir", str(tmp_path / "out"), "--use_cpu", "true", "--bf16", "false"]
    with pytest.raises(UserError, match=message):
        train_rewriter.main([*places, *given])


def test_a_real_model_is_taught_and_its_adapter_evolves_as_an_expert(tmp_path):
    from teamsrl_hf.models.local import TransformersGenerator, load_gguf

    spec = smollm2()
    base = tmp_path / "base"
    model = load_gguf(spec["transformers"], spec["gguf_file"], torch.float32, "cpu")
    named = TransformersGenerator(spec["transformers"], gguf_file=spec["gguf_file"], model=model)
    model.hf_quantizer = None
    del model.config.quantization_config
    model.save_pretrained(base)
    named._tokenizer.save_pretrained(base)
    out = tmp_path / "rewriter"
    sizes = {"max_seeds": 6, "eval_seeds": 1, "max_steps": 1, "max_completion_length": 16, "num_generations": 2}
    places = {"config": CONFIG, "model_name_or_path": base, "output_dir": out, "operations": "deepen"}
    options = {**places, **sizes, "per_device_train_batch_size": 2}
    command = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    summary = train_rewriter.main(command)
    assert (summary["test_seeds"], summary["steps"]) == (1, 1)
    assert set(summary["passed_before"]) == set(summary["passed_after"]) == {"deepen", "all"}
    assert str(tmp_path) not in (out / "README.md").read_text()
    assert json.loads((out / "adapter_config.json").read_text())["r"] == 16
    weights = load_file(out / "adapter_model.safetensors")  # One step may have taught nothing: two equal rewards.
    save_file({name: tensor + 0.1 for name, tensor in weights.items()}, out / "adapter_model.safetensors")
    plain, taught = TransformersGenerator(str(base)), TransformersGenerator(f"{base}+{out}")
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        assert not torch.equal(plain._model(ids).logits, taught._model(ids).logits)
    assert train_rewriter.main(command) == summary  # It is complete, and says so.
