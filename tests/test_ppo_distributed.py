"""Two processes train one policy: from other seeds each, cut off and resumed, by DDP and by ZeRO-2; on the CPU.

Launchers that are told wrongly start one process, or leave gradients apart, without a word: so every look at what came
of a launch asserts the number of processes and the wrapper.
"""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from teamsrl_hf import Ledger, State, load_policy
from teamsrl_hf.paths import resource

SCRIPT = Path(__file__).with_name("launch_ppo.py")
RECIPE = ["--config", str(resource("recipes/quickstart/train_policy.yaml")), "--max_steps", "16"]
STATES = [State("Why is the sky blue?"), State("Sort these.\n\n3, 1, 2", ("deepen",), (True,), 1)]
# Two processes sum in another order than one; Adam keeps what differs in the last bits small.
ROUNDING = {"atol": 1e-5, "rtol": 0}


def _launch(config, script, *arguments, options=()):
    command = [sys.executable, "-m", "accelerate.commands.launch", "--main_process_port", "0", "--config_file"]
    command += [str(resource(f"accelerate_configs/{config}.yaml")), *options, str(script), *map(str, arguments)]
    path = os.pathsep.join([str(resource("recipes").parent), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": path, "DS_ACCELERATOR": "cpu"}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=500)


def _scenarios(folder, causal_lm, config, *names, options=()):
    shutil.copytree(causal_lm, folder / "lm")
    done = _launch(config, SCRIPT, folder, *names, options=options)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def _facts(folder, name, wrapper="DistributedDataParallel"):
    """What each of both processes wrote down, and that there were two."""
    both = [json.loads((folder / f"{name}-{rank}.json").read_text()) for rank in (0, 1)]
    assert [facts["world_size"] for facts in both] == [2, 2]
    assert [facts["wrapper"] for facts in both] == [wrapper, wrapper]
    return both


def _weights(folder, name, rank=0):
    return load_file(folder / f"{name}-{rank}.safetensors")


def _equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _logits(policy):
    with torch.no_grad():
        return policy.float()(**policy.featurize(STATES)).logits


@pytest.fixture(scope="module")
def causal_lm(tmp_path_factory):
    from teamsrl_hf.sft.tiny import build_tiny_model

    return build_tiny_model(["Explain subject number 1 to a friend."] * 3, tmp_path_factory.mktemp("lm"))


@pytest.fixture(scope="module")
def ddp(tmp_path_factory, causal_lm):
    names = ("default", "default:18", "accumulated", "few_seeds", "stopping", "stopping:6", "adapter")
    return _scenarios(tmp_path_factory.mktemp("ddp"), causal_lm, "ddp", *names)


def test_the_processes_roll_out_different_seeds_with_different_random_numbers(ddp):
    first, second = (facts["rollouts"] for facts in _facts(ddp, "default"))
    assert len(first) == len(second) == 7
    for one, other in zip(first, second):
        assert len({*one["seeds"], *other["seeds"]}) == 8
        assert not {*chain(*one["luck"])} & {*chain(*other["luck"])}
    epoch = [seed for one in (*first[:3], *second[:3]) for seed in one["seeds"]]
    assert sorted(epoch) == sorted(f"s{i}" for i in range(24))


def test_no_two_chains_from_one_seed_share_their_random_numbers(ddp):
    both = [facts["rollouts"][0] for facts in _facts(ddp, "few_seeds")]
    assert {*both[0]["seeds"]} & {*both[1]["seeds"]}
    assert len({tuple(luck) for rollout in both for luck in rollout["luck"]}) == 8


def test_two_processes_that_accumulate_learn_what_one_learns_from_the_whole_batch(ddp, tmp_path):
    from launch_ppo import run

    alone = run(tmp_path, "accumulated")
    assert alone.args.world_size == 1
    torch.testing.assert_close(_weights(tmp_path, "accumulated"), _weights(ddp, "accumulated"), **ROUNDING)
    for rank, facts in enumerate(_facts(ddp, "accumulated")):
        assert len(facts["log"]) == len(alone.state.log_history) == 5
        for entry, expected in zip(facts["log"], alone.state.log_history):
            # Reward functions are asked, and so told of, on the main process alone.
            unknown = ("train_runtime", "train_s", "rewards/")[: 2 + rank]
            names = [name for name in expected if not name.startswith(unknown)]
            told, wanted = ({name: log[name] for name in names} for log in (entry, expected))
            assert told == pytest.approx(wanted, abs=1e-5)


def test_reward_functions_are_told_of_all_seeds_in_their_order_on_one_process(ddp):
    main, other = _facts(ddp, "default")
    assert main["evaluated"] == [f"t{i}" for i in range(9)]
    assert other["evaluated"] == []


@pytest.mark.parametrize("name", ["default", "accumulated", "few_seeds", "stopping", "adapter"])
def test_both_processes_end_with_the_same_policy(ddp, name):
    _facts(ddp, name)
    assert _equal(_weights(ddp, name, rank=0), _weights(ddp, name, rank=1))


@pytest.mark.parametrize("name", ["default", "stopping"])
def test_resuming_in_the_middle_of_a_rollout_equals_the_unbroken_run_bit_for_bit(ddp, name):
    whole, resumed = _facts(ddp, name), _facts(ddp, f"{name}-resumed")
    for rank in (0, 1):
        later = resumed[rank]["rollouts"]
        assert later == whole[rank]["rollouts"][-len(later) :]
        assert _equal(_weights(ddp, f"{name}-resumed", rank), _weights(ddp, name, rank))
    # A step that began a rollout anew would have made one more.
    assert len(later) == {"default": 2, "stopping": 1}[name]


def test_the_processes_leave_a_rollout_together(ddp):
    for facts in _facts(ddp, "stopping"):
        assert [entry["skipped"] for entry in facts["log"] if "skipped" in entry] == [0.5, 0.5, 0.5]


def test_an_adapter_trained_by_two_loads_in_one(ddp):
    for facts in _facts(ddp, "adapter"):
        divergence = [entry["approx_kl"] for entry in facts["log"] if "approx_kl" in entry]
        # As a rollout begins the policy is still the one that acted, though LoRA was told to drop half its inputs.
        assert [divergence[0], divergence[4]] == pytest.approx([0, 0], abs=1e-6)
        assert max(divergence) > 1e-4
    saved = _weights(ddp, "adapter")
    loaded = load_policy(ddp / "adapter")
    key = "operation_head.modules_to_save.default.weight"
    assert torch.equal(loaded.state_dict()[key], saved[key])
    assert loaded.choose(STATES[:1], [0.5])[0] in range(6)


@pytest.mark.slow
def test_the_recipe_runs_on_two_processes_with_a_ledger_each(tmp_path):
    out = tmp_path / "policy"
    done = _launch("ddp", resource("recipes/train_policy.py"), *RECIPE, "--output_dir", out)
    assert done.returncode == 0, done.stderr[-3000:]
    summary = json.loads((out / "run.json").read_text())["summary"]
    # One rollout of 64 chains with 6 operations, on each of two processes.
    assert summary["environment_steps"] == 2 * 64 * 6
    for rank in (0, 1):
        with Ledger(out / f"ledger-{rank}.sqlite") as ledger:
            assert ledger.totals()["instructor"].calls > 100
    assert load_policy(out).choose(STATES, [0.1, 0.9])[0] in range(6)


@pytest.mark.slow
def test_a_ledger_shared_by_two_processes_is_refused_in_one_line(tmp_path):
    shared, out = tmp_path / "shared.sqlite", tmp_path / "policy"
    done = _launch("ddp", resource("recipes/train_policy.py"), *RECIPE, "--output_dir", out, "--ledger", shared)
    assert done.returncode != 0
    lines = {line for line in done.stderr.splitlines() if line.startswith("error: ")}
    assert len(lines) == 1, done.stderr[-3000:]
    assert str(shared) in lines.pop()
    assert not (out / "model.safetensors").exists()


def _lacks_for_deepspeed():
    if find_spec("deepspeed") is None:
        return "needs teamsrl-hf[deepspeed]"
    missing = [tool for tool in (os.environ.get("CXX", "c++"), "ninja") if shutil.which(tool) is None]
    return f"DeepSpeed compiles its CPU parts, but there is no {missing[0]}" if missing else ""


needs_deepspeed = pytest.mark.skipif(bool(_lacks_for_deepspeed()), reason=_lacks_for_deepspeed())


@pytest.fixture(scope="module")
def zero2(tmp_path_factory, causal_lm):
    folder, names = tmp_path_factory.mktemp("zero2"), ("default", "default:18", "adapter", "adapter:3")
    # In float32, so that it can be held against DDP; as the file stands it goes with `bf16: true`.
    return _scenarios(folder, causal_lm, "zero2", *names, options=["--mixed_precision", "no"])


@needs_deepspeed
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["default", "adapter"])
def test_zero2_learns_what_ddp_learns_and_resumes_bit_for_bit(zero2, ddp, name):
    _facts(zero2, name, "DeepSpeedEngine")
    _facts(zero2, f"{name}-resumed", "DeepSpeedEngine")
    torch.testing.assert_close(_weights(zero2, name), _weights(ddp, name), **ROUNDING)
    assert _equal(_weights(zero2, f"{name}-resumed"), _weights(zero2, name))
    assert _logits(load_policy(zero2 / name)).shape == (2, 6)


@needs_deepspeed
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_recipe_runs_under_zero2_in_bfloat16(tmp_path):
    out = tmp_path / "policy"
    done = _launch("zero2", resource("recipes/train_policy.py"), *RECIPE, "--bf16", "true", "--output_dir", out)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((out / "run.json").read_text())["summary"]["environment_steps"] == 2 * 64 * 6
    policy = load_policy(out)
    assert policy.dtype == torch.bfloat16
    assert policy.choose(STATES, [0.1, 0.9])[0] in range(6)
