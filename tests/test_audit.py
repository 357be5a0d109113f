"""The audit as a user runs it: part a dataset, fine-tune on the members, audit, read the card."""

import json
import random
import shutil
from pathlib import Path

import pytest
from datasets import Dataset, load_dataset

from teamsrl_hf.cli import load_recipe, main
from teamsrl_hf.publish.cards import read_front_matter
from teamsrl_hf.publish.lineage import model_lineage

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


def unrecorded(folder) -> None:
    """The model as the Hub would hold it, as `unrecorded`: without what its run recorded."""
    left_out = shutil.ignore_patterns("run.json", "lineage.json")
    shutil.copytree(folder / "model", folder / "unrecorded", ignore=left_out, dirs_exist_ok=True)


def refusal(capsys, *command) -> str:
    """The one line in which an audit is refused."""
    assert main(["audit", *map(str, command)]) == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def audit(folder, split, *options) -> dict:
    given = {"--model": folder / "model", "--dataset_name": split, "--output_dir": folder / f"audit-{split.name}"}
    given |= dict(zip(options[::2], options[1::2]))
    assert main(["audit", *(str(word) for pair in given.items() for word in pair)]) == 0
    return json.loads((Path(given["--output_dir"]) / "audit.json").read_text())


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
    assert "The attacks separate members from non-members" in found["conclusion"]
    # The random base has seen nothing.
    assert found["control"]["interval"][0] <= 0.5 <= found["control"]["interval"][1]
    card = (trained / "model" / "README.md").read_text()
    assert card.count("## Privacy audit") == 1
    assert card.startswith("---\n")
    assert "TPR at 1 % FPR is not shown: it takes 2,000 non-members." in card


def test_a_split_is_checked_by_the_audit_as_by_the_command_that_made_it(trained, tmp_path):
    made = json.loads((trained / "split" / "run.json").read_text())["summary"]["blind"]
    found = audit(trained, trained / "split", "--seed", "1", "--output_dir", str(tmp_path / "out"))
    assert found["blind"] == made


def test_the_card_shows_the_roc_plot(trained):
    pytest.importorskip("matplotlib", reason="needs the extra `evaluation`")
    if not (trained / "audit-split").exists():
        audit(trained, trained / "split")
    assert "![ROC curves of the attacks](roc.png)" in (trained / "model" / "README.md").read_text()
    assert (trained / "model" / "roc.png").read_bytes()[:4] == b"\x89PNG"


def test_a_shifted_split_is_warned_of_and_no_attack_is_quoted(trained, capsys):
    write_rows(trained / "shifted", 50, shifted=True)
    unrecorded(trained)
    options = ("--model", str(trained / "unrecorded"), "--trust_split", "true", "--update_card", "false")
    found = audit(trained, trained / "shifted", *options)
    assert found["split_ok"] is False
    assert found["conclusion"].startswith("No conclusion")
    assert "warning: No conclusion" in capsys.readouterr().err
    told = (trained / "audit-shifted" / "README.md").read_text()
    assert "Min-K" not in told
    assert "Blind check" in told


def test_rows_that_were_trained_on_are_never_called_non_members(trained, tmp_path, capsys):
    """A second split of the same rows: half of its test rows are among those that the model was trained on."""
    command = ("--make_split", "true", "--dataset_name", trained / "data", "--seed", "2")
    assert main(["audit", *map(str, command), "--output_dir", str(tmp_path / "split")]) == 0
    ours, theirs = (load_dataset(str(folder)) for folder in (trained / "split", tmp_path / "split"))
    learned = {row["prompt"][0]["content"] for row in ours["train"]}
    wrong = sum(row["prompt"][0]["content"] in learned for row in theirs["test"])
    assert 0 < wrong < len(theirs["test"])
    options = ("--model", trained / "model", "--dataset_name", tmp_path / "split", "--output_dir", tmp_path / "out")
    told = refusal(capsys, *options, "--trust_split", "true")
    assert f"was trained on {wrong} of the {len(theirs['test'])} rows of split 'test'" in told
    assert "--make_split true" in told
    assert not (tmp_path / "out").exists()


def test_a_prompt_learned_with_another_answer_counts_as_trained_on(trained, tmp_path, capsys):
    rows = load_dataset(str(trained / "split"))
    known = rows["train"][0]
    prompt = {"role": "user", "content": f"  {known['prompt'][0]['content'].upper()}\n"}
    near = {**known, "prompt": [prompt], "completion": [{"role": "assistant", "content": "Something else."}]}
    (tmp_path / "data").mkdir()
    rows["train"].to_parquet(tmp_path / "data" / "train.parquet")
    Dataset.from_list([*rows["test"], near]).to_parquet(tmp_path / "data" / "test.parquet")
    told = refusal(
        *(capsys, "--model", trained / "model", "--dataset_name", tmp_path / "data", "--output_dir", tmp_path / "out")
    )
    assert "was trained on 1 of the 33 rows" in told


def test_members_that_were_not_trained_on_are_refused(trained, tmp_path, capsys):
    splits = ("--member_split", "test", "--non_member_split", "train")
    options = ("--model", trained / "model", "--dataset_name", trained / "split", "--output_dir", tmp_path / "out")
    assert "was trained on 32 of the 32 rows of split 'train'" in refusal(capsys, *options, *splits)
    rows = load_dataset(str(trained / "split"))
    (tmp_path / "data").mkdir()
    Dataset.from_list([*rows["train"], rows["test"][0]]).to_parquet(tmp_path / "data" / "train.parquet")
    rows["test"].select(range(1, 32)).to_parquet(tmp_path / "data" / "test.parquet")
    options = ("--model", trained / "model", "--dataset_name", tmp_path / "data", "--output_dir", tmp_path / "out")
    assert "was not trained on 1 of the 33 rows of split 'train'" in refusal(capsys, *options)


def test_without_a_record_the_audit_refuses_or_says_that_it_is_the_users_word(trained, tmp_path, capsys):
    unrecorded(trained)
    options = ("--model", trained / "unrecorded", "--dataset_name", trained / "split")
    told = refusal(capsys, *options, "--output_dir", tmp_path / "refused")
    assert "Nothing recorded says which rows" in told
    assert "--trust_split true" in told
    audit(
        trained, trained / "split", *map(str, options), "--output_dir", str(tmp_path / "out"), "--trust_split", "true"
    )
    card = (trained / "unrecorded" / "README.md").read_text()
    assert "Unknown: no record says which rows this model was trained on." in card
    assert "By its record" not in card


def test_of_a_model_that_saw_part_of_its_rows_nobody_knows_which(trained, tmp_path, capsys):
    tuning = ["--dataset_name", str(trained / "split"), "--output_dir", str(tmp_path / "model"), *TUNING]
    load_recipe("sft").main([*tuning, "--max_steps", "1"])
    options = ("--model", tmp_path / "model", "--dataset_name", trained / "split", "--output_dir", tmp_path / "out")
    assert "was trained for 0.50 of a pass over its rows" in refusal(capsys, *options)
    found = audit(trained, trained / "split", *map(str, options), "--trust_split", "true")
    assert found["membership"] == "unknown"
    other = ("--member_split", "test", "--non_member_split", "train", "--trust_split", "true")
    assert "was trained on 32 of the 32 rows" in refusal(capsys, *options, *other)


def test_every_card_names_a_licence(trained, tmp_path):
    if not (trained / "audit-split").exists():
        audit(trained, trained / "split")
    load_recipe("merge_adapter").main(["--adapter", str(trained / "model"), "--output_dir", str(tmp_path / "merged")])
    folders = (trained / "split", trained / "model", trained / "model" / "base", trained / "audit-split")
    for folder in (*folders, tmp_path / "merged"):
        meta, _ = read_front_matter((folder / "README.md").read_text())
        assert meta["license"] == "unknown", folder


def test_a_record_of_other_weights_or_of_another_base_is_refused(trained, tmp_path, capsys):
    from safetensors.torch import load_file, save_file

    split = ("--dataset_name", trained / "split", "--output_dir", tmp_path / "out")
    for part, told in (("adapter_model", "tells of other weights than those"), ("base/model", "is not the base that")):
        folder = shutil.copytree(trained / "model", tmp_path / part.replace("/", "-"))
        weights = load_file(folder / f"{part}.safetensors")
        save_file(
            {name: tensor + 1 for name, tensor in weights.items()}, folder / f"{part}.safetensors", {"format": "pt"}
        )
        assert told in refusal(capsys, "--model", folder, *split)
    other = ("--reference_model", tmp_path / "base-model" / "base")
    assert "is not the base that" in refusal(capsys, "--model", trained / "model", *split, *other)
    assert "the model was trained with 128" in refusal(
        capsys, "--model", trained / "model", *split, "--max_length", 64
    )


def test_a_finished_audit_is_not_taken_for_one_of_other_weights_or_rows(trained, tmp_path, capsys):
    folder = shutil.copytree(trained / "model", tmp_path / "model")
    options = ("--dataset_name", trained / "split", "--output_dir", tmp_path / "out", "--trust_split", "true")
    assert main(["audit", "--model", str(folder), *map(str, options)]) == 0
    assert main(["audit", "--model", str(folder), *map(str, options)]) == 0
    assert "already complete" in capsys.readouterr().out
    (folder / "lineage.json").unlink()
    shutil.copy(folder / "base" / "model.safetensors", folder / "adapter_model.safetensors")
    assert "holds a run with weights =" in refusal(capsys, "--model", folder, *options)


def test_a_merged_model_keeps_the_record_and_none_of_the_adapters_measurements(trained, tmp_path):
    if not (trained / "audit-split").exists():
        audit(trained, trained / "split")
    load_recipe("merge_adapter").main(["--adapter", str(trained / "model"), "--output_dir", str(tmp_path / "merged")])
    adapter, merged = (model_lineage(folder) for folder in (trained / "model", tmp_path / "merged"))
    assert merged["trained_on"] == adapter["trained_on"]
    assert merged["merged_from"] == adapter["weights"] != merged["weights"]
    assert "Privacy audit" in (trained / "model" / "README.md").read_text()
    assert "Privacy audit" not in (tmp_path / "merged" / "README.md").read_text()
    base = ("--model", str(tmp_path / "merged"), "--reference_model", str(trained / "model" / "base"))
    found = audit(trained, trained / "split", *base, "--output_dir", str(tmp_path / "out"))
    assert found["membership"] == "recorded"


def test_rows_of_one_prompt_stay_on_one_side(tmp_path):
    recipe = load_recipe("audit")
    prompts = ["a", "b", " A", "c", "b "]
    rows = Dataset.from_list(
        [{"prompt": [{"role": "user", "content": text}], "seed_id": str(i)} for i, text in enumerate(prompts)]
    )
    first, second, third, fourth, fifth = recipe.groups_of(rows, "seed_id")
    assert (first, second) == (third, fifth)
    assert len({first, second, fourth}) == 3
    # 0 and 1 share a topic, 2 has the prompt of 0, 3 the topic of 2, and 4 the prompt of 1.
    assert len(set(recipe.groups_of(rows.add_column("topic", [1, 1, 2, 2, 3]), "topic"))) == 1


def test_rows_may_be_grouped_by_a_column_of_lists_or_by_their_prompts():
    recipe = load_recipe("audit")
    rows = Dataset.from_list([{"prompt": [{"role": "user", "content": text}], "path": [text[0]]} for text in "aab"])
    first, second, third = recipe.groups_of(rows, "path")
    assert first == second != third
    assert len(set(recipe.groups_of(rows, "prompt"))) == 2


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
