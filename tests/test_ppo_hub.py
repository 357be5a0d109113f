"""A trained policy goes to the Hub in one commit and comes back: the real client against a server on 127.0.0.1.

`huggingface_hub` reads HF_ENDPOINT when it is imported, so this file runs itself as a process of its own.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOKEN = "hf_planted_policy_token"
PLAIN = {"use_cpu": True, "disable_tqdm": True, "max_steps": 4, "per_device_train_batch_size": 2, "logging_steps": 2}


def trained(folder: Path, repo_id: str):
    """A trainer told to push, as a launcher's arguments tell it, after its training."""
    from teamsrl_hf import (
        InstructionGenPPOConfig,
        InstructionGenPPOTrainer,
        OperationPolicy,
        OperationPolicyConfig,
        Rulebook,
        load_seeds,
        seeds_to_dataset,
    )

    seeds = load_seeds()
    args = InstructionGenPPOConfig(
        str(folder), num_mini_batches=2, num_ppo_epochs=2, report_to="none", save_steps=2, push_to_hub=True,
        hub_model_id=repo_id, hub_strategy="end", hub_private_repo=True, **PLAIN,
    )  # fmt: skip
    policy, train, test = OperationPolicy(OperationPolicyConfig()), seeds_to_dataset(seeds[:16]), seeds[16:20]
    trainer = InstructionGenPPOTrainer(
        policy, args, Rulebook(), train_dataset=train, eval_dataset=seeds_to_dataset(test)
    )
    trainer.train()
    trainer.evaluate()
    return trainer


def client() -> None:
    from hub_server import Hub

    with Hub() as hub, tempfile.TemporaryDirectory() as home:
        os.environ.update(HF_ENDPOINT=hub.url, HF_HOME=home, HF_TOKEN=TOKEN, HF_HUB_DISABLE_XET="1")
        import torch
        from huggingface_hub import ModelCard

        from teamsrl_hf import OperationPolicy

        trainer = trained(Path(home) / "policy", "ada/operations")
        urls = [trainer.push_to_hub(), trainer.push_to_hub(commit_message="Once more")]
        repo = hub.repos["model", "ada/operations"]
        loaded = OperationPolicy.from_pretrained("ada/operations")
        told = {
            "files": sorted(repo.commits[repo.branches["main"]]),
            "commits": len(repo.commits),
            "private": repo.private,
            "urls": [url.endswith(repo.branches["main"]) for url in urls],
            "equal": all(torch.equal(a, b) for a, b in zip(loaded.parameters(), trainer.policy.parameters())),
            "operations": list(loaded.operation_names) == list(trainer.policy.operation_names),
            "tags": ModelCard.load("ada/operations").data.tags,
            "leaks": [
                str(file) for file in Path(home).rglob("*") if file.is_file() and TOKEN.encode() in file.read_bytes()
            ],
        }
        print(json.dumps(told))


@pytest.fixture(scope="module")
def told():
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING", "TRANSFORMERS_"))}
    env = {**kept, "PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    done = subprocess.run([sys.executable, __file__], env=env, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    assert TOKEN not in done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_trainer_pushes_the_policy_in_one_commit_and_an_unchanged_one_in_none(told):
    assert told["commits"] == 2  # The empty repository, and ours.
    assert told["urls"] == [True, True]
    assert told["private"] is True
    assert {"README.md", "config.json", "model.safetensors"} <= {*told["files"]}
    assert not [file for file in told["files"] if file.startswith("checkpoint") or file.endswith((".bin", ".pt"))]


def test_what_was_pushed_loads_from_the_hub_with_its_operations_and_card(told):
    assert told["equal"] is True
    assert told["operations"] is True
    assert "arxiv:2403.08694" in told["tags"]


def test_no_file_of_the_run_holds_the_token(told):
    assert told["leaks"] == []


if __name__ == "__main__":
    client()
