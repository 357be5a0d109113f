"""The audit as a user runs it: part a dataset, fine-tune on the members, audit, read the card."""

import json
import random

import pytest
from datasets import Dataset, load_dataset

from teamsrl_hf.cli import load_recipe, main

WORDS = [f"word{i}" for i in range(60)]
TUNING = (
    *("--tiny_model", "true", "--use_peft", "true", "--lora_target_modules", "all-linear", "--lora_r", "8"),
    *("--lora_modules_to_save", "embed_tokens", "lm_head", "--use_cpu", "true", "--bf16", "false"),
    *("--per_device_train_batch_size", "16", "--max_steps", "80", "--learning_rate", "0.01", "--report_to", "none"),
    *("--activation_checkpointing", "false", "--save_strategy", "no", "--max_length", "128", "--lora_dropout", "0"),
)


def write_rows(folder, seeds: int, shifted: bool = False) -> None:
    """Two rows of random words for each seed; where `shifted`, a `test` split whose answers use other words."""
    draw = random.Random(7)

    def row(seed, words):
        prompt, answer = (" ".join(draw.choices(words, k=k)) for k in (4, draw.randint(6, 12)))
        prompt, completion = {"role": "user", "content": prompt}, {"role": "assistant", "content": answer}
        return {"prompt": [prompt], "completion": [completion], "seed_id": f"s{seed}"}

    folder.mkdir()
    sides = {"train": WORDS[:40], "test": WORDS[20:]} if shifted else {"train": WORDS}
    for split, words in sides.items():
        rows = [row(f"{split}{seed}", words) for seed in range(seeds) for _ in range(2)]
        Dataset.from_list(rows).to_parquet(folder / f"{split}.parquet")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with `split`, made by the tool, and `model`, fine-tuned on its members by the recipe."""
    folder = tmp_path_factory.mktemp("audit")
    write_rows(folder / "data", 32)
    common = ["--dataset_name", str(folder / "data"), "--seed", "1"]
    assert main(["audit", "--make_split", "true", *common, "--output_dir", str(folder / "split")]) == 0
    tuning = ["--dataset_name", str(folder / "split"), "--output_dir", str(folder / "model"), *TUNING]
    load_recipe("sft").main(tuning)
    return folder


def audit(folder, split, *options) -> dict:
    out = folder / f"audit-{split.name}"
    command = ["--model", str(folder / "model"), "--dataset_name", str(split), "--output_dir", str(out), *options]
    assert main(["audit", *command]) == 0
    return json.loads((out / "audit.json").read_text())


def test_a_split_holds_every_row_once_and_keeps_the_rows_of_a_seed_together(trained):
    split = load_dataset(str(trained / "split"))
    seeds = {name: set(split[name]["seed_id"]) for name in split}
    assert {name: len(part) for name, part in seeds.items()} == {"train": 16, "test": 16}
    assert not seeds["train"] & seeds["test"]
    assert sum(map(len, split.values())) == 64


def test_a_split_folder_loads_as_what_it_holds_also_after_another_of_its_name(trained, tmp_path):
    """`load_dataset` caches a local folder by its name and its card alone."""
    loaded = []
    for seed in "12":
        folder = tmp_path / seed / "split"
        command = ["audit", "--make_split", "true", "--dataset_name", str(trained / "data"), "--seed", seed]
        assert main([*command, "--output_dir", str(folder)]) == 0
        (file,) = folder.glob("test*.parquet")
        loaded.append(load_dataset(str(folder), split="test", cache_dir=str(tmp_path / "cache"))["prompt"])
        assert list(loaded[-1]) == Dataset.from_parquet(str(file), cache_dir=str(tmp_path / seed))["prompt"][:]
    assert list(loaded[0]) != list(loaded[1])


def test_what_was_learned_by_heart_is_found_and_told_in_the_card(trained):
    found = audit(trained, trained / "split")
    assert found["split_ok"] is True
    assert found["attacks"]["reference"]["auc"] > 0.9
    assert "Members can be told from non-members" in found["conclusion"]
    # The random base has seen nothing.
    assert found["control"]["interval"][0] <= 0.5 <= found["control"]["interval"][1]
    card = (trained / "model" / "README.md").read_text()
    assert card.count("## Privacy audit") == 1
    assert card.startswith("---\n")
    assert "TPR at 1 % FPR is not told: it takes 2,000 non-members." in card


def test_the_card_shows_the_roc_plot(trained):
    pytest.importorskip("matplotlib", reason="needs the extra `evaluation`")
    if not (trained / "audit-split").exists():
        audit(trained, trained / "split")
    assert "![ROC curves of the attacks](roc.png)" in (trained / "model" / "README.md").read_text()
    assert (trained / "model" / "roc.png").read_bytes()[:4] == b"\x89PNG"


def test_a_shifted_split_is_warned_of_and_no_attack_is_quoted(trained, capsys):
    write_rows(trained / "shifted", 50, shifted=True)
    found = audit(trained, trained / "shifted", "--update_card", "false")
    assert found["split_ok"] is False
    assert found["conclusion"].startswith("No conclusion")
    assert "warning: No conclusion" in capsys.readouterr().err
    told = (trained / "audit-shifted" / "README.md").read_text()
    assert "Min-K" not in told
    assert "Blind check" in told


def test_a_dataset_of_too_few_seeds_is_refused_in_one_line(tmp_path, capsys):
    write_rows(tmp_path / "data", 12)
    command = ["audit", "--make_split", "true", "--dataset_name", str(tmp_path / "data")]
    assert main([*command, "--output_dir", str(tmp_path / "out")]) == 2
    assert "needs 10 groups of members" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], "Give either --model"),
        (["--make_split", "true", "--model", "m"], "Give either --model"),
        (["--model", "/no/such/model"], "no split 'test', only train"),
    ],
)
def test_what_cannot_be_audited_is_told_in_one_line(options, expected, tmp_path, capsys):
    write_rows(tmp_path / "data", 2)
    command = ["audit", "--dataset_name", str(tmp_path / "data"), "--output_dir", str(tmp_path / "out"), *options]
    assert main(command) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert expected in lines[-1]


def test_a_model_that_is_not_there_is_named(trained, capsys):
    options = ["--dataset_name", str(trained / "split"), "--output_dir", str(trained / "none")]
    assert main(["audit", "--model", "/no/such/model", *options]) == 2
    assert "/no/such/model" in capsys.readouterr().err.strip().splitlines()[-1]
