"""Benchmarks: the harness runs without a network on a local task, and what it found stands in the card."""

import json
import random

import pytest
import torch
import yaml

from teamsrl_hf.cli import main
from teamsrl_hf.publish.lineage import weights_digest
from teamsrl_hf.sft.merge import merge_adapter
from teamsrl_hf.sft.tiny import build_tiny_model

pytestmark = pytest.mark.slow  # The harness alone takes longer to import than most test files to run.
WORDS = ["river", "mountain", "lake", "forest", "desert", "valley", "island", "harbour", "glacier", "meadow"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a local `task`, an `adapter` whose weights are not nought, and the `merged` model."""
    pytest.importorskip("lm_eval", reason="needs the extra `evaluation`")
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    root = tmp_path_factory.mktemp("eval")
    build_tiny_model([f"Where does the {word} end?" for word in WORDS] * 5, root / "adapter" / "base")
    model = AutoModelForCausalLM.from_pretrained(root / "adapter" / "base")
    torch.manual_seed(1)
    lora = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(model, lora).save_pretrained(root / "adapter")
    AutoTokenizer.from_pretrained(root / "adapter" / "base").save_pretrained(root / "adapter")
    (root / "adapter" / "README.md").write_text("---\nlibrary_name: peft\n---\n\n# A model\n")
    merge_adapter(root / "adapter", root / "merged")
    write_task(root)
    return root


def write_task(root) -> None:
    draw = random.Random(3)
    rows = [
        {"question": f"Where does the {draw.choice(WORDS)} end?", "choices": draw.sample(WORDS, 4), "answer": i % 4}
        for i in range(24)
    ]
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "task").mkdir()
    task = {
        "task": "places",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(root / "rows.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
        "metadata": {"version": 1.0},
    }
    (root / "task" / "places.yaml").write_text(yaml.safe_dump(task))


@pytest.fixture(scope="module")
def results(folder):
    """Results of the adapter and of the merged model."""
    found = {}
    for name in ("adapter", "merged"):
        command = ["eval", "--model", str(folder / name), "--output_dir", str(folder / f"eval-{name}")]
        assert main([*command, "--include_path", str(folder / "task"), "--tasks", "places"]) == 0
        found[name] = json.loads((folder / f"eval-{name}" / "results.json").read_text())
    return found


def test_adapter_and_merged_model_give_the_same_numbers(results):
    ours, merged = results["adapter"]["model"]["places"], results["merged"]["model"]["places"]
    assert set(ours) == {"acc", "acc_stderr", "acc_norm", "acc_norm_stderr"}
    assert ours == merged
    assert ours["acc"] * 24 == round(ours["acc"] * 24)


def test_the_base_is_the_adapter_switched_off(results):
    assert set(results["adapter"]) == {"model", "base"}
    assert "base" not in results["merged"]


def test_the_numbers_are_those_of_the_log_likelihoods(folder, results):
    """The harness' accuracy, worked out again: which choice the model finds likeliest."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder / "merged").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "merged")
    right = 0
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    for row in rows:
        scores = []
        for choice in row["choices"]:
            prompt, whole = (tokenizer(text)["input_ids"] for text in (row["question"], f"{row['question']} {choice}"))
            with torch.no_grad():
                logprobs = model(torch.tensor([whole])).logits[0, :-1].log_softmax(-1)
            scores.append(sum(logprobs[i - 1, whole[i]].item() for i in range(len(prompt), len(whole))))
        right += scores.index(max(scores)) == row["answer"]
    assert results["merged"]["model"]["places"]["acc"] == pytest.approx(right / len(rows))


def test_the_card_has_a_model_index_the_hub_reads_and_keeps_its_text(folder, results):
    from huggingface_hub import ModelCard

    card = ModelCard.load(folder / "adapter" / "README.md")
    found = {(r.dataset_type, r.metric_type): r.metric_value for r in card.data.eval_results}
    expected = results["adapter"]["model"]["places"]
    assert found == {
        ("places", "acc"): pytest.approx(expected["acc"], abs=1e-6),
        ("places", "acc_norm"): pytest.approx(expected["acc_norm"], abs=1e-6),
    }
    assert card.data.to_dict()["library_name"] == "peft"
    assert "# A model" in card.text
    assert "| places | acc |" in card.text
    assert str(folder) not in (folder / "adapter" / "README.md").read_text()


def test_another_task_adds_to_the_index_and_the_same_one_replaces(folder, results):
    from huggingface_hub import ModelCard

    from teamsrl_hf.cli import load_recipe

    recipe = load_recipe("eval_model")
    card = folder / "copy.md"
    card.write_text((folder / "adapter" / "README.md").read_text())
    args = recipe.EvalArguments(str(folder / "adapter"), "unused", limit=5)
    weights = weights_digest(folder / "adapter")
    recipe.write_card(card, {"model": {"places": {"acc": 0.75}, "seas": {"acc": 0.5}}}, args, weights, recorded=False)
    loaded = ModelCard.load(card)
    found = {(r.dataset_type, r.metric_type): (r.dataset_config, r.metric_value) for r in loaded.data.eval_results}
    assert found["places", "acc"] == ("first 5 examples", 0.75)
    assert found["seas", "acc"] == ("first 5 examples", 0.5)
    assert ("places", "acc_norm") in found
    assert loaded.text.count("## Benchmarks") == 1
    assert "no benchmark result" in loaded.text


def test_results_of_other_weights_leave_the_index(folder, results):
    from huggingface_hub import ModelCard

    from teamsrl_hf.cli import load_recipe

    recipe = load_recipe("eval_model")
    card = folder / "other.md"
    card.write_text((folder / "adapter" / "README.md").read_text())
    args = recipe.EvalArguments(str(folder / "adapter"), "unused")
    recipe.write_card(card, {"model": {"seas": {"acc": 0.5}}, "base": {"seas": {"acc": 0.25}}}, args, "ab" * 32, True)
    loaded = ModelCard.load(card)
    assert [(r.dataset_type, r.metric_value) for r in loaded.data.eval_results] == [("seas", 0.5)]
    assert "The base is the one that the training recorded." in loaded.text
    assert "No record says that this was the base." in (folder / "adapter" / "README.md").read_text()


def test_an_unknown_task_is_named_in_one_line(folder, tmp_path, capsys):
    command = ["eval", "--model", str(folder / "merged"), "--output_dir", str(tmp_path / "out"), "--tasks", "plases"]
    assert main(command) == 2
    assert "has no task 'plases'" in capsys.readouterr().err.strip().splitlines()[-1]
