"""The record of what a model was trained on: exact, of these weights, and never published."""

import json
import shutil

import pytest
import torch
from asked import TRAIN_RULES
from datasets import Dataset, load_dataset
from safetensors.numpy import save_file
from safetensors.torch import load_file
from sft_data import assistant, geography, run, user, write_folder

from teamsrl_hf.errors import UserError
from teamsrl_hf.hub.files import ALLOWED, _allowed
from teamsrl_hf.publish.lineage import (
    LINEAGE_FILE,
    RowSet,
    model_lineage,
    prompt_key,
    read_lineage,
    row_key,
    weights_digest,
    write_lineage,
)
from teamsrl_hf.sft.data import chat_texts, check_sft_dataset
from teamsrl_hf.sft.load import load_finetuned, recorded_training
from teamsrl_hf.sft.tiny import build_tiny_model

STEPS = ("--train_sampling_strategy", "sequential", "--per_device_train_batch_size", "6")


def row(prompt, completion):
    return {"prompt": [user(prompt)], "completion": [assistant(completion)]}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    rows = check_sft_dataset(Dataset.from_list(list(geography())))
    return build_tiny_model(chat_texts(rows), tmp_path_factory.mktemp("tiny"), seed=1)


def test_a_row_is_its_text_and_a_prompt_is_its_words():
    assert row_key(row("a", "b")) != row_key(row("ab", "")) != row_key(row("a", "b "))
    assert row_key(row("a", "b")) == row_key({**row("a", "b"), "seed_id": "s1"})
    assert prompt_key(row("Name  a\nBIRD", "x")) == prompt_key(row("name a bird ", "y"))
    # What a sum does must not hang on its signs.
    assert prompt_key(row("1 + 2", "x")) != prompt_key(row("1 - 2", "x"))
    assert prompt_key(row("🦆", "x")) != prompt_key(row("🦅", "x"))
    assert len(row_key(row("half a pair: \ud800", "x"))) == 8


def test_a_set_of_rows_is_packed_without_their_order_and_read_back():
    rows = [row(f"Question {i}?", "Yes.") for i in range(5)]
    ours = RowSet.of(rows)
    assert RowSet.from_json(json.loads(json.dumps(ours.to_json()))) == ours
    assert ours.to_json() == RowSet.of(reversed(rows)).to_json()
    assert ours.fingerprint == RowSet.of(reversed(rows)).fingerprint != RowSet.of(rows[1:]).fingerprint
    assert len((ours | RowSet.of([row("Another?", "No.")])).rows) == 6
    assert RowSet.from_json(RowSet.of([]).to_json()) == RowSet.of([])


def test_the_record_of_a_run_holds_the_rows_that_were_learned_and_the_weights(data, tiny, tmp_path):
    run(data, tmp_path / "out", *STEPS, "--tiny_model", "false", "--model_name_or_path", str(tiny), "--max_steps", "2")
    known, rows = model_lineage(tmp_path / "out"), load_dataset(data, cache_dir=str(tmp_path / "cache"))
    assert known["trained_on"] == RowSet.of(rows["train"])
    assert known["passes"] == pytest.approx(12 / 18)
    assert known["base"] == {"name": str(tiny), "revision": "main", "weights": weights_digest(tiny)}
    assert known["max_length"] == 512
    assert known["versions"].keys() == {"torch", "transformers", "trl", "peft", "datasets", "teamsrl-hf"}


def test_rows_left_out_for_their_length_are_not_in_the_record(tmp_path):
    rows = [*geography(), row("Tell a story.", "word " * 600)]
    Dataset.from_list([{name: entry[name] for name in ("prompt", "completion")} for entry in rows]).to_parquet(
        tmp_path / "data" / "train.parquet"
    )
    summary = run(tmp_path / "data", tmp_path / "out", *STEPS, "--max_steps", "1", "--long_rows", "drop")
    known = model_lineage(tmp_path / "out")
    assert summary["dropped_rows"] + summary["rows"] == known["rows"] + 1 == 24
    assert prompt_key(rows[-1]) not in known["trained_on"].prompts
    assert len(known["trained_on"].rows) == known["rows"]


def test_what_the_base_was_trained_on_counts_too(data, tmp_path):
    run(data, tmp_path / "first", *STEPS, "--max_steps", "1", "--use_peft", "false")
    other = tmp_path / "data"
    Dataset.from_list([row(f"Question {i}?", "Yes.") for i in range(8)]).to_parquet(other / "train.parquet")
    base = ("--tiny_model", "false", "--model_name_or_path", str(tmp_path / "first"), "--use_peft", "false")
    run(other, tmp_path / "second", *STEPS, *base, "--max_steps", "1")
    first, second = (model_lineage(tmp_path / name) for name in ("first", "second"))
    assert first["trained_on"].rows < second["trained_on"].rows
    assert len(second["trained_on"].rows) == 18 + 7
    assert second["rows"] == 7


def test_a_record_is_of_its_weights_alone_and_damage_is_told(tmp_path):
    import numpy as np

    assert model_lineage(tmp_path) is None
    save_file({"w": np.ones(3)}, tmp_path / "model.safetensors")
    facts = {"weights": weights_digest(tmp_path), "trained_on": RowSet.of([]).to_json()}
    write_lineage(tmp_path, "model", facts)
    assert read_lineage(tmp_path, "dataset") is None
    assert model_lineage(tmp_path)["trained_on"] == RowSet.of([])
    save_file({"w": np.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="tells of other weights"):
        model_lineage(tmp_path)
    (tmp_path / LINEAGE_FILE).write_text('{"kind": "mod')
    with pytest.raises(UserError, match=r"lineage\.json is damaged"):
        model_lineage(tmp_path)


def test_the_weights_of_several_files_are_all_of_them(tmp_path):
    import numpy as np

    index = {"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    save_file({"a": np.ones(1)}, tmp_path / "model-1-of-2.safetensors")
    with pytest.raises(UserError, match="lacks model-2-of-2"):
        weights_digest(tmp_path)
    save_file({"b": np.ones(1)}, tmp_path / "model-2-of-2.safetensors")
    before = weights_digest(tmp_path)
    save_file({"b": np.zeros(1)}, tmp_path / "model-2-of-2.safetensors")
    assert len(before) == 64
    assert weights_digest(tmp_path) != before


def test_a_list_of_what_was_trained_on_is_never_pushed():
    assert [kind for kind in ALLOWED if _allowed(LINEAGE_FILE, kind)] == []


def test_held_out_rows_that_were_trained_on_are_told_and_where_all_were_there_is_no_measuring(data, tmp_path, capsys):
    common = {"dataset_train_split": "train", "max_steps": "1"}
    rows = Dataset.from_list([{"prompt": r["prompt"], "completion": r["completion"]} for r in geography()])
    rows.to_parquet(tmp_path / "data" / "train.parquet")
    rows.select([0, 1]).to_parquet(tmp_path / "data" / "test.parquet")
    options = [*STEPS, *(word for name, value in common.items() for word in (f"--{name}", value))]
    with pytest.raises(UserError, match="The prompts of all 2 rows that the loss is to be measured on are trained on"):
        run(tmp_path / "data", tmp_path / "none", *options)
    Dataset.from_list([rows[0], row("Something else?", "Yes.")]).to_parquet(tmp_path / "data" / "test.parquet")
    assert run(tmp_path / "data", tmp_path / "out", *options)["known_test_rows"] == 1
    assert (
        "Warning: the prompts of 1 of 2 rows that the loss is measured on are trained on." in capsys.readouterr().err
    )
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| held-out rows whose prompts are also in the training rows | 1 |" in card
    assert run(data, tmp_path / "sound", *options)["known_test_rows"] == 0
    assert "all the same" not in (tmp_path / "sound" / "README.md").read_text()


def test_a_card_speaks_of_an_evolved_dataset_only_where_the_datasets_card_does(data, tmp_path):
    options = (*STEPS, "--max_steps", "1")
    run(data, tmp_path / "plain", *options)
    assert "fine-tuned on instructions and answers\n" in (tmp_path / "plain" / "README.md").read_text()
    made = shutil.copytree(data, tmp_path / "made")
    card = made / "README.md"
    card.write_text(card.read_text().replace("---\n", "---\ntags: [teamsrl]\nlicense: cc-by-4.0\n", 1))
    run(made, tmp_path / "evolved", *options)
    told = (tmp_path / "evolved" / "README.md").read_text()
    assert "fine-tuned on an evolved instruction dataset (TeaMs-RL)\n" in told
    assert "license: cc-by-4.0\n" in told
    assert "license: cc-by-4.0\n" in (tmp_path / "evolved" / "base" / "README.md").read_text()


def test_seeds_that_a_policy_was_trained_on_are_no_held_out_seeds_of_its_further_training(tmp_path, capsys):
    from teamsrl_hf.cli import main

    seeds = tmp_path / "seeds.jsonl"
    seeds.write_text("".join(json.dumps({"instruction": f"Name {i} birds."}) + "\n" for i in range(12)))
    command = [
        "train-policy",
        *TRAIN_RULES,
        "--seeds",
        str(seeds),
        "--use_cpu",
        "true",
        "--max_steps",
        "1",
        "--num_ppo_epochs",
        "1",
    ]
    command += ["--num_mini_batches", "1", "--per_device_train_batch_size", "4", "--save_strategy", "no"]
    command += ["--report_to", "none", "--operations_per_episode", "2", "--test_size"]
    first = str(tmp_path / "first")
    assert main([*command, "0.2", "--output_dir", first]) == 0
    known = read_lineage(first, "policy")
    assert main([*command, "0.6", "--model_name_or_path", first, "--output_dir", str(tmp_path / "second")]) == 2
    assert (
        "held-out seeds, so they say nothing of new ones; give its --seeds and --test_size." in capsys.readouterr().err
    )
    assert not (tmp_path / "second").exists()
    assert main([*command, "0.2", "--model_name_or_path", first, "--output_dir", str(tmp_path / "second")]) == 0
    assert read_lineage(tmp_path / "second", "policy")["trained_before"] == sorted(known["seeds"]["train"])
    card = (tmp_path / "second" / "README.md").read_text()
    assert "- `continued from`: `first`\n" in card
    (tmp_path / "first" / LINEAGE_FILE).unlink()
    assert main([*command, "0.6", "--model_name_or_path", first, "--output_dir", str(tmp_path / "third")]) == 0
    assert "no record says whether it knew the held-out seeds" in (tmp_path / "third" / "README.md").read_text()


def test_a_base_at_another_revision_is_another_base(data, tiny, tmp_path, monkeypatch):
    """A Hub id stands for other weights at each revision; the adapter names the one that it was trained from."""
    home = tmp_path / "hub"
    for commit, seed in (("a" * 40, 1), ("b" * 40, 2)):
        rows = check_sft_dataset(Dataset.from_list(list(geography())))
        build_tiny_model(chat_texts(rows), home / "models--ada--tiny" / "snapshots" / commit, seed=seed)
    for name, commit in (("main", "a" * 40), ("step1", "b" * 40)):
        ref = home / "models--ada--tiny" / "refs" / name
        ref.parent.mkdir(exist_ok=True)
        ref.write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(home))
    first, second = weights_digest("ada/tiny"), weights_digest("ada/tiny", "step1")
    assert None not in (first, second)
    assert first != second
    base = ("--tiny_model", "false", "--model_name_or_path", "ada/tiny", "--model_revision", "step1")
    run(data, tmp_path / "out", *STEPS, *base, "--max_steps", "1")
    known = recorded_training(str(tmp_path / "out"))
    assert known["base"] == {"name": "ada/tiny", "revision": "step1", "weights": second}
    with pytest.raises(UserError, match="'ada/tiny' is not the base that"):
        recorded_training(str(tmp_path / "out"), "ada/tiny")
    model, _, _ = load_finetuned(str(tmp_path / "out"))
    weights = load_file(home / "models--ada--tiny" / "snapshots" / ("b" * 40) / "model.safetensors")
    name = "model.layers.0.self_attn.q_proj"
    ours = model.get_base_model().get_submodule(name).base_layer.weight
    assert torch.equal(ours, weights[f"{name}.weight"])
