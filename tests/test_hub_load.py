"""Dataset, policy, full model and adapter go to the Hub by Xet, as users have it, and come back from a clean cache.

Run as a script, this file is the client, in a process of its own: `huggingface_hub` reads its endpoint on import.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOKEN = "hf_planted3planted3planted3"


def dataset_there_and_back(home: Path) -> dict:
    import datasets
    from huggingface_hub import DatasetCard

    from teamsrl_hf import OPERATIONS, DatasetEvolver, EvolverConfig, Example, Rulebook, load_seeds, uniform_chooser
    from teamsrl_hf.publish.dataset_writer import DatasetWriter, default_row, trajectory_row

    model, operations, folder = Rulebook(), OPERATIONS, home / "dataset"
    evolver = DatasetEvolver(model, model, uniform_chooser(operations), operations, EvolverConfig())
    results = [result for chain in evolver.evolve(load_seeds()[:8]) for result in chain]
    with DatasetWriter(folder) as writer:
        writer.write(results)
        writer.finish(lambda configs: f"---\nlicense: mit\nconfigs: {json.dumps(configs)}\n---\n# Rows\n")
    urls = [evolver.push_to_hub(folder, "ada/rows", tag="v1.0") for _ in range(2)]
    back = {name: datasets.load_dataset("ada/rows", name)["train"].to_list() for name in ("default", "trajectories")}
    streamed = list(datasets.load_dataset("ada/rows", "trajectories", split="train", streaming=True))
    card = DatasetCard.load("ada/rows")
    card.validate()
    return {
        "urls": [url.rpartition("/")[0].partition("//")[2].partition("/")[2] for url in urls],
        "rows": back["default"] == [default_row(r) for r in results if isinstance(r, Example)] != [],
        "steps": back["trajectories"] == [trajectory_row(r) for r in results],
        "streamed": streamed == back["trajectories"],
        "tagged": datasets.load_dataset("ada/rows", revision="v1.0")["train"].to_list() == back["default"],
        "license": card.data.license,
    }


def models_there_and_back(home: Path) -> dict:
    import torch
    from huggingface_hub import ModelCard
    from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    from teamsrl_hf import OPERATIONS, OperationPolicy, OperationPolicyConfig
    from teamsrl_hf.hub.push import push_adapter, push_policy
    from teamsrl_hf.publish.cards import policy_card

    torch.manual_seed(0)
    numbers = {"train_seeds": 9, "test_seeds": 1, "environment_steps": 384, "reward_after": None}
    card = policy_card(numbers, OPERATIONS, {"seed": 42})
    sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2, num_key_value_heads=2)).eval()
    policy = OperationPolicy(OperationPolicyConfig()).eval()
    for name, made, push in (("policy", policy, push_policy), ("model", model, push_policy)):
        made.save_pretrained(home / name)
        (home / name / "README.md").write_text(card)
        push(home / name, f"ada/{name}")
    base = AutoModelForCausalLM.from_pretrained("ada/model").eval()
    same = [torch.equal(a, b) for a, b in zip(model.parameters(), base.parameters())]
    back = OperationPolicy.from_pretrained("ada/policy")

    adapted = get_peft_model(model, LoraConfig(init_lora_weights=False, task_type="CAUSAL_LM")).eval()
    adapted.peft_config["default"].base_model_name_or_path = "ada/model"
    adapted.save_pretrained(home / "adapter")
    (home / "adapter/README.md").write_text(card)
    push_adapter(home / "adapter", "ada/adapter")
    tokens = torch.arange(8)[None]
    wanted = adapted(tokens).logits
    loaded = [PeftModel.from_pretrained(base, "ada/adapter"), AutoPeftModelForCausalLM.from_pretrained("ada/adapter")]

    fresh = AutoModelForCausalLM.from_pretrained("ada/model")
    fresh.save_pretrained(home / "run/base")
    own = get_peft_model(fresh, LoraConfig(init_lora_weights=False, task_type="CAUSAL_LM")).eval()
    own.peft_config["default"].base_model_name_or_path = str(home / "run/base")
    own.save_pretrained(home / "run")
    (home / "run/README.md").write_text(card)
    push_adapter(home / "run", "ada/run")
    shutil.rmtree(home / "run")
    moved = AutoPeftModelForCausalLM.from_pretrained("ada/run").eval()
    return {
        "own base": torch.allclose(own(tokens).logits, moved(tokens).logits),
        "model": all(same) and len(same) > 5,
        "policy": all(torch.equal(a, b) for a, b in zip(policy.parameters(), back.parameters())),
        "operations": [operation["name"] for operation in back.config.operations],
        "adapter": [torch.allclose(wanted, one.eval()(tokens).logits) for one in loaded],
        "tags": [ModelCard.load(f"ada/{name}").data.tags for name in ("policy", "model", "adapter")],
    }


def dataset_to_a_hub_whose_xet_is_out_of_reach(hub, folder: Path) -> list:
    from teamsrl_hf.hub.push import push_dataset

    hub.faults += [("xet_token", "404")] * 20
    url = push_dataset(folder, "ada/walled")
    hub.faults.clear()
    repo = hub.repos["dataset", "ada/walled"]
    return [url.endswith(repo.branches["main"]), len(repo.commits) - 1, hub.count("lfs_batch") > 0]


def client() -> None:
    from hub_server import Hub

    with Hub() as hub, tempfile.TemporaryDirectory() as home:
        os.environ.update(HF_ENDPOINT=hub.url, HF_HOME=f"{home}/hf", HF_TOKEN=TOKEN)
        told = {"dataset": dataset_there_and_back(Path(home)), "models": models_there_and_back(Path(home))}
        told["by_xet"] = [hub.count(kind) > 0 for kind in ("xet_xorb", "xet_shard", "lfs_put")]
        told["private"] = [repo.private for repo in hub.repos.values()]
        told["commits"] = [len(repo.commits) - 1 for repo in hub.repos.values()]
        told["walled"] = dataset_to_a_hub_whose_xet_is_out_of_reach(hub, Path(home) / "dataset")
        files = [file for file in Path(home).rglob("*") if file.is_file()]
        told["leaks"] = [str(file) for file in files if TOKEN.encode() in file.read_bytes()]
        print(json.dumps(told))


@pytest.fixture(scope="module")
def told():
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING", "TRANSFORMERS_"))}
    quiet = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    xet = {"HF_XET_XORB_COMPRESSION_POLICY": "none", "PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, __file__]
    done = subprocess.run(command, env={**kept, **quiet, **xet}, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    assert TOKEN not in done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_rows_and_steps_of_a_dataset_come_back_equal_and_streamed_and_by_tag(told):
    urls = ["datasets/ada/rows/commit"] * 2
    assert told["dataset"] == {
        **{"urls": urls, "rows": True, "steps": True, "streamed": True, "tagged": True, "license": "mit"}
    }


def test_policy_model_and_adapter_come_back_equal(told):
    assert told["models"]["model"] is True
    assert told["models"]["policy"] is True
    assert told["models"]["operations"][0] == "breadth"
    assert told["models"]["adapter"] == [True, True]
    assert all("arxiv:2403.08694" in tags for tags in told["models"]["tags"])


def test_an_adapter_whose_base_lay_in_its_folder_loads_without_that_folder(told):
    assert told["models"]["own base"] is True


def test_each_went_by_xet_in_one_commit_and_is_private(told):
    assert told["by_xet"] == [True, True, False]
    assert told["commits"] == [1] * 6
    assert told["private"] == [True] * 6


def test_where_xet_is_out_of_reach_the_push_goes_on_without_it(told):
    assert told["walled"] == [True, 1, True]


def test_the_token_is_in_no_file(told):
    assert told["leaks"] == []


if __name__ == "__main__":
    client()
