"""GRPO with verifiers: TRL's trainer takes a published dataset as it is, and the recipe trains, measures and saves."""

import json
import sys
from pathlib import Path

import pytest
from test_proofs import SEEDS, _write

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from teamsrl_hf import UserError, verifier_reward  # noqa: E402
from teamsrl_hf.cli import load_recipe  # noqa: E402
from teamsrl_hf.runs import read_run  # noqa: E402

grpo = load_recipe("grpo")
CONFIG = ROOT / "recipes" / "grpo" / "smollm2_135m_cpu.yaml"
SMALL = {"max_steps": 2, "max_completion_length": 8, "num_generations": 2, "per_device_train_batch_size": 2}


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows") / "verified"
    _write(folder)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    from teamsrl_hf.sft.tiny import build_tiny_model

    return build_tiny_model([f"{seed.text} No commas." for seed in SEEDS], tmp_path_factory.mktemp("base"))


def _command(base, rows, out, **options):
    given = {"config": CONFIG, "model_name_or_path": base, "dataset_name": rows, "output_dir": out, **SMALL, **options}
    return [word for name, value in given.items() for word in (f"--{name}", str(value))]


def test_trl_takes_the_published_columns_without_mapping(rows, base, tmp_path):
    from datasets import load_dataset
    from transformers import AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    asked = []

    def watched(completions, verifiers, **columns):
        rewards = verifier_reward(completions, verifiers, **columns)
        asked.append((verifiers, rewards))
        return rewards

    data = load_dataset(str(rows), cache_dir=str(tmp_path / "cache"))["train"]
    args = GRPOConfig(str(tmp_path / "out"), use_cpu=True, bf16=False, report_to="none", save_strategy="no", **SMALL)
    tokenizer = AutoTokenizer.from_pretrained(base)
    GRPOTrainer(str(base), [watched, verifier_reward], args, data, processing_class=tokenizer).train()
    assert len(asked) == 2
    known = list(data["verifiers"])
    assert all(verifiers in known for batch, _ in asked for verifiers in batch)
    assert all(0 <= reward <= 1 for _, rewards in asked for reward in rewards)


def test_the_recipe_measures_trains_and_saves_an_adapter_with_a_card(rows, base, tmp_path, capsys):
    out = tmp_path / "out"
    command = _command(base, rows, out, eval_rows=2)
    summary = grpo.main(command)
    assert (summary["steps"], summary["test_rows"]) == (2, 1)
    assert summary["rows"] == json.loads(json.dumps(summary))["rows"] >= 6
    assert set(summary["passed_before"]) == set(summary["passed_after"]) >= {"all"}
    assert json.loads((out / "adapter_config.json").read_text())["r"] == 16
    assert not (out / "training_args.bin").exists()
    card = (out / "README.md").read_text()
    assert "| `all` | " in card
    assert str(tmp_path) not in card
    assert read_run(out)["summary"] == summary
    assert grpo.main(command) == summary
    assert "already complete" in capsys.readouterr().out


def test_rows_without_verifiers_are_told_with_the_way_out(base, tmp_path):
    import datasets

    message = [{"role": "user", "content": "Name a bird."}]
    plain = datasets.Dataset.from_list([{"prompt": message, "completion": message}] * 2)
    for rows, why in (
        (plain, "no column 'verifiers'"),
        (plain.add_column("verifiers", [[], []]), "no row with a ver"),
    ):
        folder = tmp_path / str(len(rows.column_names))
        rows.to_parquet(folder / "train.parquet")
        with pytest.raises(UserError, match=f"has {why}.*teamsrl evolve --constraints rules"):
            grpo.main(_command(base, folder, tmp_path / "out"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"push_to_hub": "true"}, "leave out push_to_hub"),
        ({"eval_rows": -1}, "eval_rows .* at least 0"),
        ({"dataset_train_split": "all"}, "has no split 'all', only train"),
    ],
)
def test_wrong_arguments_are_told_before_a_model_is_loaded(rows, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        grpo.main(_command("a/b", rows, tmp_path / "out", **options))


def test_every_config_parses(capsys):
    for config in sorted((ROOT / "recipes" / "grpo").glob("*.yaml")):
        with pytest.raises(SystemExit, match="0"):
            grpo.main(["--config", str(config), "--help"])
