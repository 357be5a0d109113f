"""Every way to the Hub: each makes one private repository by one commit, of the files listed here and of no others.

Run as a script, this file is the client, in a process of its own: `huggingface_hub` reads its endpoint on import.
"""

import json
import os
import platform
import re
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from asked import EVOLVE_RULES, TRAIN_RULES

ROOT = Path(__file__).parent.parent
TOKEN, HOST = "hf_planted7planted7planted7", "planted-host"
OURS = [".gitattributes", ".teamsrl.json", "README.md"]
POLICY = [*OURS, "config.json", "model.safetensors"]
TRAINED = [*POLICY, "plots/reward.png"]
TOKENIZER = ["tokenizer.json", "tokenizer_config.json"]
ADAPTER = [*OURS, "adapter_config.json", "adapter_model.safetensors", "chat_template.jinja", "loss.png", *TOKENIZER]
BASE = [*OURS, "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors", *TOKENIZER]
MODEL = sorted([*BASE, "loss.png"])
SHARDS = ["test-00000-of-00001.parquet", "train-00000-of-00001.parquet"]
PLOTS = ["plots/lengths.png", "plots/novelty.png", "plots/operations.png", "report.html"]
DATASET = [*OURS, *(f"data/{shard}" for shard in SHARDS), *PLOTS, *(f"trajectories/{shard}" for shard in SHARDS)]
TREES = {
    "trainer.save_model": TRAINED,
    "trainer.push_to_hub": TRAINED,
    "train-policy": POLICY,
    "policy.push_to_hub": POLICY,
    "policy-frozen": sorted([*POLICY, "chat_template.jinja", *TOKENIZER]),
    "policy-adapter": [*OURS, "adapter_config.json", "adapter_model.safetensors", "config.json", "plots/reward.png"],
    "push_policy": TRAINED,
    "evolver.push_to_hub": DATASET,
    "push_dataset": DATASET,
    "push_folder": DATASET,
    "push-dataset": DATASET,
    "push-policy": POLICY,
    "sft": ADAPTER,
    "sft-base": BASE,
    "sft-whole": MODEL,
    "push_adapter": ADAPTER,
    "push_adapter-base": BASE,
    "push-merged": MODEL,
}
QUIET = {"use_cpu": True, "disable_tqdm": True, "report_to": "none", "logging_steps": 1}
SMALL = {"max_steps": 2, "save_steps": 1, "per_device_train_batch_size": 2, "num_mini_batches": 1, "num_ppo_epochs": 1}


def trainer(folder: str, model=None, peft_config=None, **options):
    from teamsrl_hf import (
        InstructionGenPPOConfig,
        InstructionGenPPOTrainer,
        OperationPolicy,
        OperationPolicyConfig,
        Rulebook,
        load_seeds,
        seeds_to_dataset,
    )

    args = InstructionGenPPOConfig(folder, **QUIET, **SMALL, **options)
    seeds = seeds_to_dataset(load_seeds()[:8])
    model = model or OperationPolicy(OperationPolicyConfig())
    made = InstructionGenPPOTrainer(model, args, Rulebook(), train_dataset=seeds, peft_config=peft_config)
    made.train()
    return made


def by_save_model(repo_id: str) -> None:
    made = trainer("saved", push_to_hub=True, hub_model_id=repo_id)
    made.save_model()
    made.push_to_hub()  # As scripts do after it; nothing is left to send.


def by_trainer(repo_id: str) -> None:
    trainer("pushed", hub_model_id=repo_id).push_to_hub(model_name="birds", dataset_name="ada/seeds", tags="birds")


def by_train_policy(repo_id: str) -> None:
    from teamsrl_hf.cli import main

    small = [word for name, value in SMALL.items() for word in (f"--{name}", str(value))]
    command = [
        "train-policy",
        *TRAIN_RULES,
        "--output_dir",
        "recipe",
        "--use_cpu",
        "true",
        "--report_to",
        "none",
        *small,
    ]
    for _ in range(2):  # The second finds the folder complete, and nothing is left to send.
        assert main([*command, "--push_to_hub", "true", "--hub_model_id", repo_id]) == 0


def by_policy(repo_id: str) -> None:
    from teamsrl_hf import OperationPolicy, OperationPolicyConfig

    OperationPolicy(OperationPolicyConfig()).push_to_hub(repo_id, tags=["birds"])


def by_frozen(repo_id: str) -> None:
    from teamsrl_hf import OperationPolicy

    OperationPolicy.from_backbone(os.path.abspath("tuned/base")).push_to_hub(repo_id)


def by_adapter(repo_id: str) -> None:
    from peft import LoraConfig

    made = trainer("adapted", "ada/sft-base", LoraConfig(target_modules="all-linear"), hub_model_id=repo_id)
    made.push_to_hub()


def by_evolver(repo_id: str) -> None:
    from teamsrl_hf import OPERATIONS, DatasetEvolver, Rulebook, load_seeds, uniform_chooser
    from teamsrl_hf.cli import main

    seeds = [{"instruction": seed.instruction, "input": seed.input} for seed in load_seeds()[:24]]
    Path("seeds.json").write_text(json.dumps(seeds))
    places = ["--seeds", os.path.abspath("seeds.json"), "--policy", os.path.abspath("pushed")]
    places += ["--decontaminate", os.path.abspath("seeds.json") + ":input", "--output_dir", "dataset"]
    assert main(["evolve", *EVOLVE_RULES, *places, "--license", "mit"]) == 0
    DatasetEvolver(Rulebook(), Rulebook(), uniform_chooser(OPERATIONS), OPERATIONS).push_to_hub("dataset", repo_id)


def by_sft(repo_id: str, *options: str, folder: str = "tuned") -> None:
    from teamsrl_hf.cli import main

    config = str(ROOT / "recipes" / "quickstart" / "sft.yaml")
    places = ["--dataset_name", os.path.abspath("dataset"), "--output_dir", os.path.abspath(folder)]
    command = ["sft", "--config", config, *places, "--max_steps", "2"]
    command += ["--save_strategy", "steps", "--save_steps", "1", *options]
    assert main([*command, "--push_to_hub", "true", "--hub_model_id", repo_id]) == 0


def by_sft_whole(repo_id: str) -> None:
    by_sft(repo_id, "--use_peft", "false", folder="whole")


def by_merge(repo_id: str) -> None:
    from teamsrl_hf.cli import load_recipe, main

    load_recipe("merge_adapter").main(["--adapter", os.path.abspath("tuned"), "--output_dir", "merged"])
    assert main(["push", "merged", repo_id]) == 0


def by_function(name: str, folder: str, **options):
    import teamsrl_hf

    return lambda repo_id: getattr(teamsrl_hf, name)(folder, repo_id, **options)


def by_command(folder: str):
    def push(repo_id: str) -> None:
        from teamsrl_hf.cli import main

        assert main(["push", folder, repo_id]) == 0

    return push


WAYS = {
    "trainer.save_model": by_save_model,
    "trainer.push_to_hub": by_trainer,
    "train-policy": by_train_policy,
    "policy.push_to_hub": by_policy,
    "push_policy": by_function("push_policy", "pushed"),
    "evolver.push_to_hub": by_evolver,
    "push_dataset": by_function("push_dataset", "dataset"),
    "push_folder": by_function("push_folder", "dataset", commit_message="Upload"),
    "push-dataset": by_command("dataset"),
    "push-policy": by_command("recipe"),
    "sft": by_sft,
    "sft-whole": by_sft_whole,
    "policy-frozen": by_frozen,
    "policy-adapter": by_adapter,
    "push_adapter": by_function("push_adapter", "tuned"),
    "push-merged": by_merge,
}


def found(repo) -> dict:
    """What a way left in a repository."""
    tree = repo.commits[repo.branches["main"]]
    return {
        "tree": sorted(tree),
        "commits": len(repo.commits) - 1,  # One is made with the repository.
        "private": repo.private,
        "card": tree["README.md"].decode(),
        "leaks": [name for name, content in tree.items() if any(word in content for word in hidden())],
    }


def elsewhere(home: Path, hub) -> dict[str, list[str]]:
    """What came of each card's snippet, where nothing of the run can be found."""
    from another_machine import used

    (home / "work").rename(home / "away")
    (home / "there").mkdir()
    os.chdir(home / "there")
    return {name.removeprefix("ada/"): used(type, name) for (type, name) in hub.repos if name != "ada/public"}


def hidden() -> list[bytes]:
    """What tells of this machine or opens a door."""
    return [word.encode() for word in (TOKEN, HOST, os.getcwd(), str(Path.home()))]


def branch(hub) -> dict:
    """A public repository's branches, since that was asked for."""
    where = {"hub_model_id": "ada/open", "hub_private_repo": False, "hub_revision": "v2"}
    trainer("open", push_to_hub=True, **where).save_model()
    repo = hub.repos.pop(("model", "ada/open"))
    trees = {name: sorted(repo.commits[sha]) for name, sha in repo.branches.items()}
    return {"private": repo.private, "commits": len(repo.commits) - 1, "trees": trees}


def refused(hub) -> dict[str, str]:
    """What is said of arguments that can't be honoured, with the Hub as it is."""
    from teamsrl_hf.cli import main

    said = {}
    calls = {
        "public": lambda: trainer("a", push_to_hub=True, hub_model_id="ada/public"),
        "no id": lambda: trainer("b", push_to_hub=True, hub_model_id="ada/b/c"),
        "in the background": lambda: trainer("c", hub_model_id="ada/c").push_to_hub(blocking=False),
        "offline": lambda: trainer("d", push_to_hub=True),
        "wrong token": lambda: trainer("f", push_to_hub=True),
    }
    import huggingface_hub.constants as constants

    for name, call in calls.items():
        constants.HF_HUB_OFFLINE = name == "offline"
        hub.faults += [("whoami", "401")] * (name == "wrong token")
        try:
            call()
        except ValueError as error:
            said[name] = str(error)
    constants.HF_HUB_OFFLINE = False
    small = [word for name, value in SMALL.items() for word in (f"--{name}", str(value))]
    command = ["train-policy", *TRAIN_RULES, "--output_dir", "e", "--use_cpu", "true", "--report_to", "none", *small]
    said["recipe"] = main([*command, "--push_to_hub", "true", "--hub_model_id", "ada/public"])
    return {**said, "trained": [name for name in "abdef" if Path(name).exists()]}


def client() -> None:
    from hub_server import Hub

    with Hub() as hub, tempfile.TemporaryDirectory() as home:
        os.environ.update(HF_ENDPOINT=hub.url, HF_HOME=f"{home}/hf", HF_TOKEN=TOKEN, HF_HUB_DISABLE_XET="1", HOME=home)
        socket.gethostname = platform.node = lambda: HOST
        (Path(home) / "work").mkdir()
        os.chdir(Path(home) / "work")
        for way, push in WAYS.items():
            push(f"ada/{way}")
        told = {"ways": {name.removeprefix("ada/"): found(repo) for (_, name), repo in hub.repos.items()}}
        told["branch"] = branch(hub)
        hub.add("model", "ada/public", {}, private=False)
        told["refused"] = refused(hub)
        told["public commits"] = len(hub.repos["model", "ada/public"].commits)
        files = [file for file in Path(home).rglob("*") if file.is_file()]
        told["leaks"] = [str(file) for file in files if TOKEN.encode() in file.read_bytes()]
        told["used"] = elsewhere(Path(home), hub)
        print(json.dumps(told))


@pytest.fixture(scope="module")
def output():
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING", "TRANSFORMERS_"))}
    env = {**kept, "PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    return subprocess.run([sys.executable, __file__], env=env, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def told(output):
    assert output.returncode == 0, output.stderr[-3000:]
    assert TOKEN not in output.stdout + output.stderr
    return json.loads(output.stdout.splitlines()[-1])


@pytest.mark.parametrize("way", TREES)
def test_each_way_makes_one_private_repository_by_one_commit_of_just_these_files(told, way):
    found = told["ways"][way]
    assert sorted(re.sub("-[0-9a-f]{16}[.]", ".", file) for file in found["tree"]) == TREES[way]
    assert (found["commits"], found["private"]) == (1, True)
    assert "HUB_ID" not in found["card"]


def test_no_way_makes_another_repository(told):
    assert told["ways"].keys() == TREES.keys()


@pytest.mark.parametrize("way", TREES)
def test_no_file_that_was_sent_tells_of_this_machine_or_holds_the_token(told, way):
    assert told["ways"][way]["leaks"] == []


@pytest.mark.parametrize("way", TREES)
def test_what_was_pushed_is_used_elsewhere_as_its_card_says(told, way):
    used = told["used"][way]
    assert f'"ada/{way}"' in used["snippet"]
    assert used["printed"] or used["rows"] or way in ("sft-base", "push_adapter-base", "push-merged")


def test_no_file_of_a_run_holds_the_token(told):
    assert told["leaks"] == []


def test_a_card_says_what_was_asked_of_it(told):
    from huggingface_hub import ModelCard

    card = ModelCard(told["ways"]["trainer.push_to_hub"]["card"])
    assert (card.data.tags[-1], card.data.datasets) == ("birds", ["ada/seeds"])
    card = ModelCard(told["ways"]["policy.push_to_hub"]["card"])
    assert card.data.tags[-1] == "birds"
    assert "No record says how this policy was trained or how well it works." in card.text
    assert "PPO" not in card.text


def test_a_branch_and_a_public_repository_are_made_where_they_are_asked_for(told):
    trees = {"main": [".gitattributes"], "v2": TRAINED}
    assert told["branch"] == {"private": False, "commits": 1, "trees": trees}


def test_of_several_processes_only_the_main_one_speaks_to_the_hub(tmp_path, monkeypatch):
    from types import SimpleNamespace

    from teamsrl_hf import InstructionGenPPOTrainer
    from teamsrl_hf.hub import push as hub
    from teamsrl_hf.hub.arguments import plan_push

    made = trainer(str(tmp_path), hub_model_id="ada/policy")
    monkeypatch.setattr(InstructionGenPPOTrainer, "is_world_process_zero", lambda self: False)
    for name in ("check_push", "push_policy", "push_adapter", "HfApi"):
        monkeypatch.setattr(hub, name, None)
    made.init_hf_repo()
    assert made.push_to_hub() is None
    rank = {"process_index": 1, "push_to_hub": True, "hub_model_id": "ada/policy", "hub_private_repo": None}
    args = SimpleNamespace(**rank, hub_token=None, hub_strategy="end", hub_always_push=False, hub_revision=None)
    assert plan_push(args, "policy").private is True
    assert args.push_to_hub is False  # Else the trainer would push by itself.


def test_what_cannot_be_pushed_is_refused_before_anything_is_trained(told, output):
    public = "Repository ada/public is public; make it private on the Hub, or pass private=False."
    assert told["refused"] == {
        "public": public,
        "no id": told["refused"]["no id"],
        "in the background": "A push can't run in the background; leave out blocking=False.",
        "offline": told["refused"]["offline"],
        "wrong token": told["refused"]["wrong token"],
        "recipe": 2,
        "trained": [],
    }
    assert "The repository 'ada/b/c' is no Hub id; give USER/NAME." in told["refused"]["no id"]
    assert "unset the `HF_HUB_OFFLINE` environment variable" in told["refused"]["offline"]
    assert told["refused"]["wrong token"].startswith("The Hub refused the push to f: 401 Unauthorized.")
    assert told["refused"]["wrong token"].endswith("or set HF_TOKEN. Nothing was begun.")
    assert f"error: {public}" in output.stderr
    assert told["public commits"] == 1


REFUSED = [
    ({"hub_token": "hf_secret"}, "hub_token would end up in files and logs; leave it out and set HF_TOKEN"),
    ({"hub_strategy": "checkpoint"}, "hub_strategy is 'checkpoint', but checkpoints are not pushed"),
    ({"hub_strategy": "all_checkpoints"}, "hub_strategy is 'all_checkpoints', but checkpoints are not pushed"),
    ({"hub_always_push": True}, "hub_always_push is about checkpoints, which are not pushed; leave it out."),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_an_argument_that_no_push_honours_is_refused(options, message, tmp_path):
    from teamsrl_hf import InstructionGenPPOConfig

    with pytest.raises(ValueError, match=message) as error:
        InstructionGenPPOConfig(str(tmp_path), use_cpu=True, **options)
    assert "hf_secret" not in str(error.value)


def test_a_token_set_after_the_arguments_were_made_is_refused_too(tmp_path):
    from teamsrl_hf import InstructionGenPPOConfig, InstructionGenPPOTrainer, OperationPolicy, OperationPolicyConfig

    args = InstructionGenPPOConfig(str(tmp_path), use_cpu=True)
    args.set_push_to_hub("ada/policy", token="hf_secret")
    with pytest.raises(ValueError, match="hub_token would end up in files and logs"):
        InstructionGenPPOTrainer(OperationPolicy(OperationPolicyConfig()), args, None)


def test_a_bandit_is_not_pushed(tmp_path, capsys):
    from teamsrl_hf.cli import main

    command = ["train-policy", "--chooser", "linucb", "--max_steps", "64", "--output_dir", str(tmp_path / "out")]
    assert main([*command, "--push_to_hub", "true", "--hub_model_id", "ada/bandit"]) == 2
    assert "A bandit is no model that the Hub could load; leave out push_to_hub." in capsys.readouterr().err


def test_a_config_alone_is_not_pushed_and_saving_a_policy_does_not_push(tmp_path):
    from teamsrl_hf import OperationPolicy, OperationPolicyConfig

    policy = OperationPolicy(OperationPolicyConfig())
    with pytest.raises(ValueError, match="push it with its weights"):
        policy.config.push_to_hub("ada/config")
    with pytest.raises(ValueError, match="push it with its weights"):
        policy.config.save_pretrained(tmp_path, push_to_hub=True)
    with pytest.raises(ValueError, match="call push_to_hub"):
        policy.save_pretrained(tmp_path, push_to_hub=True)
    assert list(tmp_path.iterdir()) == []


def test_an_argument_of_transformers_that_no_push_honours_is_refused_by_its_name(tmp_path):
    from teamsrl_hf import OperationPolicy, OperationPolicyConfig

    policy = OperationPolicy(OperationPolicyConfig())
    with pytest.raises(ValueError, match="A push takes no commit_description; leave it out, or give one of commit_me"):
        policy.push_to_hub("ada/policy", commit_description="What and why.")
    with pytest.raises(ValueError, match="A push takes no language; leave it out"):
        trainer(str(tmp_path)).push_to_hub(language="en")
    assert not (tmp_path / "README.md").exists()


if __name__ == "__main__":
    client()
