"""The README's first command, run once as a user runs it; and what it leaves, loaded as a user loads it."""

import contextlib
import functools
import io
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from datasets import load_dataset

from teamsrl_hf import OPERATIONS, OperationPolicy, State
from teamsrl_hf.cli import main


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    out = tmp_path_factory.mktemp("quickstart") / "out"
    command = [sys.executable, "-m", "teamsrl_hf.cli", "quickstart", "--output_dir", str(out)]
    started = time.monotonic()
    plain = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(command, capture_output=True, text=True, env=plain)
    assert done.returncode == 0, done.stderr[-2000:]
    return out, done.stdout, time.monotonic() - started


def test_it_ends_within_ninety_seconds(quickstart):
    assert quickstart[2] < 90


def test_it_prints_a_short_table(quickstart):
    out, printed, _ = quickstart
    table = printed[printed.index("\nrows") :].strip().splitlines()
    assert [line.split("  ")[0] for line in table] == [
        "rows",
        "rejected steps",
        "model calls",
        "reward per chain",
        "loss of the model",
        "policy",
        "dataset",
        "model",
    ]
    assert len(table) == 8
    assert str(out / "dataset") in table[6]


def test_training_raises_the_reward_and_fine_tuning_lowers_the_loss(quickstart):
    summary = json.loads((quickstart[0] / "run.json").read_text())["summary"]
    assert summary["policy"]["reward_after"] > 1.5 * summary["policy"]["reward_before"]
    assert summary["policy"]["reward_before"] == pytest.approx(summary["policy"]["reward_uniform"], abs=0.5)
    assert summary["model"]["loss_before"] > 6
    assert summary["model"]["loss_after"] < 4
    assert set(summary["calls"]) == {"expert", "instructor", "reviewer"}


def test_the_dataset_loads_in_both_configurations_and_splits_by_seed(quickstart):
    dataset = str(quickstart[0] / "dataset")
    rows, steps = load_dataset(dataset), load_dataset(dataset, "trajectories")
    assert 600 < len(rows["train"]) < 1902
    assert not set(rows["train"]["seed_id"]) & set(rows["test"]["seed_id"])
    assert len(steps["train"]) + len(steps["test"]) == 317 * 6
    assert sum(steps["train"]["accepted"]) == len(rows["train"])
    assert set(steps["train"]["reason"]) >= {None, "unchanged"}


def test_every_row_has_a_parent_that_exists(quickstart):
    steps = load_dataset(str(quickstart[0] / "dataset"), "trajectories")["train"]
    known = {*steps["id"], *steps["seed_id"]}
    assert set(steps["parent_id"]) <= known
    assert len(set(steps["id"])) == len(steps)


def test_rows_read_as_instructions_and_answers(quickstart):
    rows = load_dataset(str(quickstart[0] / "dataset"), split="train")
    for row in rows:
        (prompt,), (completion,) = row["prompt"], row["completion"]
        assert prompt["role"] == "user"
        assert completion["role"] == "assistant"
        assert "  " not in prompt["content"].split("\n\n")[0]
        assert "[end " not in prompt["content"]
        assert len(completion["content"].split()) > 20


def test_the_card_says_that_rules_wrote_it(quickstart):
    card = (quickstart[0] / "dataset" / "README.md").read_text()
    assert "license: apache-2.0" in card
    assert "Made by rules, not by a language model" in card


def test_the_policy_loads_and_chooses(quickstart):
    policy = OperationPolicy.from_pretrained(quickstart[0] / "policy")
    assert policy.choose([State("Why is the sky blue?")], [0.5])[0] in range(6)


def test_the_adapter_loads_on_its_base_and_generates(quickstart):
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoTokenizer

    folder = quickstart[0] / "model"
    model = AutoPeftModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Name a bird."}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    with torch.no_grad():
        assert model.generate(**ids, max_new_tokens=5, do_sample=False).shape[1] > ids["input_ids"].shape[1]


def test_no_pickle_and_no_token_lies_in_any_folder(quickstart):
    names = {file.suffix for file in quickstart[0].rglob("*") if file.is_file()}
    assert not names & {".bin", ".pt", ".pkl", ".pth"}


def test_running_it_again_tells_the_same_and_does_nothing(quickstart, capsys):
    out, printed, _ = quickstart
    assert main(["quickstart", "--output_dir", str(out)]) == 0
    assert capsys.readouterr().out.strip() == printed[printed.index("\nrows") :].strip()


def test_the_ledger_command_prints_totals_by_role(quickstart, capsys):
    assert main(["ledger", str(quickstart[0])]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["role", "expert", "instructor", "reviewer"]


REPOSITORIES = {"dataset:ada/rows": "dataset", "model:ada/policy": "policy", "model:ada/tuned": "model"}
SHARD, OURS = "-00000-of-00001.parquet", [".gitattributes", ".teamsrl.json", "README.md"]
TOKENIZER = ["tokenizer.json", "tokenizer_config.json"]
TREES = {
    "ada/rows": [
        *(*OURS, f"data/test{SHARD}", f"data/train{SHARD}"),
        *("plots/lengths.png", "plots/novelty.png", "plots/operations.png", "report.html"),
        *(f"trajectories/test{SHARD}", f"trajectories/train{SHARD}"),
    ],
    "ada/policy": [*OURS, "config.json", "model.safetensors"],
    "ada/tuned": [
        *(*OURS, "adapter_config.json", "adapter_model.safetensors", "chat_template.jinja", "loss.png", *TOKENIZER),
    ],
    "ada/tuned-base": [
        *(*OURS, "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors", *TOKENIZER),
    ],
}


@pytest.fixture(scope="module")
def pushed(quickstart, tmp_path_factory):
    """What another machine makes of the three folders by their cards alone, and the Hub that holds them."""
    from hub_server import Hub
    from huggingface_hub import HfApi, constants

    from teamsrl_hf.hub import push as module

    out, token, there = quickstart[0], "hf_planted8planted8", tmp_path_factory.mktemp("there")
    away = out.rename(out.with_name("away"))  # Nothing may be found by the path that it had in the run.
    with Hub() as hub, pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "HfApi", functools.partial(HfApi, endpoint=hub.url, token=token))
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        for repository, folder in REPOSITORIES.items():
            assert main(["push", str(away / folder), repository.partition(":")[2]]) == 0
        names = ("PATH", "LANG", "TMPDIR")
        plain = {name: os.environ[name] for name in names if name in os.environ}
        client = {"HOME": str(there), "HF_ENDPOINT": hub.url, "HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1"}
        client |= {"NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        script = str(Path(__file__).parent / "another_machine.py")
        command = [sys.executable, script, *REPOSITORIES]
        done = subprocess.run(command, capture_output=True, text=True, env={**plain, **client}, cwd=there)
        assert done.returncode == 0, done.stderr[-3000:]
        away.rename(out)
        yield hub, json.loads(done.stdout.splitlines()[-1])


def test_another_machine_uses_the_three_as_their_cards_say(pushed, quickstart):
    _, used = pushed
    summary = json.loads((quickstart[0] / "run.json").read_text())["summary"]
    rows, steps = used["dataset:ada/rows"]["rows"].values()
    assert sum(rows.values()) == summary["dataset"]["rows"]
    assert sum(steps.values()) == 317 * 6
    for repository, folder in REPOSITORIES.items():
        here = used[repository]["snippet"].replace(repository.partition(":")[2], str(quickstart[0] / folder))
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(here, {})
        assert used[repository]["printed"] == printed.getvalue()
    assert used["model:ada/policy"]["printed"].strip() in [operation.name for operation in OPERATIONS]
    assert len(used["model:ada/tuned"]["printed"]) > 60


def test_the_pushed_repositories_hold_these_files_and_nothing_of_this_machine(pushed, quickstart):
    hub, _ = pushed
    trees = {name: repo.commits[repo.branches["main"]] for (_, name), repo in hub.repos.items()}
    assert {
        name: [re.sub("-[0-9a-f]{16}", "", file) for file in sorted(tree)] for name, tree in trees.items()
    } == TREES
    words = [str(quickstart[0]), str(quickstart[0].parent), str(Path.home()), "PATH_OR_HUB_ID"]
    leaks = [(name, file) for name, tree in trees.items() for file, content in tree.items() if holds(content, words)]
    assert leaks == []


def holds(content: bytes, words: list[str]) -> bool:
    return any(word.encode() in content for word in words)


def test_anonymous_requests_are_refused_all_that_was_pushed(pushed):
    hub, _ = pushed
    for (type, name), repo in hub.repos.items():
        assert repo.private
        files = [f"{name}/resolve/main/{file}" for file in repo.commits[repo.branches["main"]]]
        paths = [f"/api/{type}s/{name}", *(f"/{'datasets/' * (type == 'dataset')}{file}" for file in files)]
        assert {anonymous(hub.url + path) for path in paths} <= {401, 404}


def anonymous(url: str) -> int:
    """The status of an answer to whoever has no token."""
    import urllib.error
    import urllib.request

    try:
        return urllib.request.urlopen(url).status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.parametrize("spec", ["endpoint:gpt-4o@https://api.example.com/v1", "rulebook"])
def test_a_model_that_cannot_be_fine_tuned_here_is_refused(spec, tmp_path, capsys):
    assert main(["quickstart", "--model", spec, "--output_dir", str(tmp_path / "out")]) == 2
    assert "give transformers:PATH_OR_ID" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def random_model(tmp_path_factory):
    from teamsrl_hf import load_seeds
    from teamsrl_hf.sft.tiny import build_tiny_model

    folder = tmp_path_factory.mktemp("random")
    return build_tiny_model([seed.text for seed in load_seeds()], folder)


def test_too_few_seeds_to_hold_any_out_are_refused(random_model, tmp_path, capsys):
    words = ["--model", f"transformers:{random_model}", "--max_seeds", "1", "--output_dir", str(tmp_path / "out")]
    assert main(["quickstart", *words]) == 2
    assert "Seeds to train on: 1, held out: 0; each needs at least one" in capsys.readouterr().err


def test_a_model_that_writes_nothing_usable_ends_the_quickstart_with_the_reason(random_model, tmp_path, capsys):
    """A random model: no rewrite passes, so the policy has learned nothing and no row could come."""
    words = ["--model", f"transformers:{random_model}", "--max_seeds", "10", "--output_dir", str(tmp_path / "out")]
    assert main(["quickstart", *words]) == 3
    assert "No rewrite passed in the evaluation of the policy; give a larger model." in capsys.readouterr().err
    assert not (tmp_path / "out" / "dataset").exists()


@pytest.mark.slow
@pytest.mark.parametrize("form", ["csv", "parquet", "json", "folder", "renamed"])
def test_seeds_of_every_form_make_the_same_dataset(form, tmp_path):
    """Two whole runs on the same seeds: identical parquet, whatever file they came in."""
    from datasets import Dataset

    from teamsrl_hf import load_seeds

    rows = [{"instruction": seed.instruction, "input": seed.input} for seed in load_seeds()[:40]]
    plain = tmp_path / "seeds.jsonl"
    plain.write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset, options, source = Dataset.from_list(rows), [], tmp_path / f"seeds.{form}"
    if form == "csv":
        dataset.to_csv(source)
    elif form == "parquet":
        dataset.to_parquet(source)
    elif form == "json":
        source.write_text(json.dumps(rows))
    elif form == "folder":
        dataset.save_to_disk(str(source))
    else:
        source = tmp_path / "renamed.jsonl"
        dataset.rename_column("instruction", "task").to_json(source)
        options = ["--seed_column", "task"]
    for out, seeds in (("a", [plain]), ("b", [source, *options])):
        assert main(["quickstart", "--output_dir", str(tmp_path / out), "--seeds", *map(str, seeds)]) == 0
    first, second = ({f.name: f.read_bytes() for f in Path(tmp_path / out).rglob("*.parquet")} for out in "ab")
    assert first == second
