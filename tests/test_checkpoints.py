"""What a kill or a full disk leaves of a checkpoint is passed over, and the run ends as an unbroken one."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from asked import TRAIN_RULES
from safetensors.torch import save_file
from sft_data import run as fine_tune
from sft_data import write_folder
from torch.distributed import checkpoint as distributed

from teamsrl_hf.cli import load_recipe
from teamsrl_hf.cli import main as teamsrl
from teamsrl_hf.runs import STAGE, staged
from teamsrl_hf.training.checkpoints import checkpoints, damage, newest_whole, rotate

TRAIN = [
    *(
        "train-policy",
        *TRAIN_RULES,
        "--max_steps",
        "12",
        "--per_device_train_batch_size",
        "2",
        "--num_mini_batches",
        "2",
    ),
    *("--num_ppo_epochs", "2", "--save_strategy", "steps", "--save_steps", "3", "--use_cpu", "true"),
    *("--report_to", "none", "--disable_tqdm", "true", "--logging_steps", "4"),
]


def _cut(path):
    os.truncate(path, path.stat().st_size // 2)


def _keep(folder, *names):
    for path in folder.iterdir():
        if path.name not in names:
            path.unlink()


def _unfinish(folder, weights="model.safetensors"):
    """Make a finished run look as if it had been killed before the end."""
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, "summary": None}))
    (folder / weights).unlink()


def _history(checkpoint):
    """What a checkpoint's state has logged, without times."""
    history = json.loads((checkpoint / "trainer_state.json").read_text())["log_history"]
    return [
        {key: entry[key] for key in entry if "runtime" not in key and "per_second" not in key} for entry in history
    ]


def _train(folder, *options):
    return teamsrl([*TRAIN, "--output_dir", str(folder), *options])


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    """A finished training with checkpoints at steps 3, 6, 9 and 12; a rollout lasts four steps."""
    folder = tmp_path_factory.mktemp("policy") / "whole"
    assert _train(folder) == 0
    return folder


@pytest.fixture
def killed(policy, tmp_path):
    """The same, killed after step 9."""
    folder = shutil.copytree(policy, tmp_path / "killed")
    _unfinish(folder)
    shutil.rmtree(folder / "checkpoint-12")
    return folder


DAMAGES = {
    "an empty folder": _keep,
    "weights alone": lambda folder: _keep(folder, "model.safetensors", "config.json"),
    "no state": lambda folder: (folder / "trainer_state.json").unlink(),
    "state cut": lambda folder: _cut(folder / "trainer_state.json"),
    "state not JSON": lambda folder: (folder / "trainer_state.json").write_text("{'global_step': 9}"),
    "state of no step": lambda folder: (folder / "trainer_state.json").write_text("{}"),
    "state empty": lambda folder: (folder / "trainer_state.json").write_bytes(b""),
    "optimizer cut": lambda folder: _cut(folder / "optimizer.pt"),
    "no optimizer": lambda folder: (folder / "optimizer.pt").unlink(),
    "optimizer empty": lambda folder: (folder / "optimizer.pt").write_bytes(b""),
    "weights cut": lambda folder: _cut(folder / "model.safetensors"),
    "weights without their last byte": lambda folder: os.truncate(
        folder / "model.safetensors", (folder / "model.safetensors").stat().st_size - 1
    ),
    "weights empty": lambda folder: (folder / "model.safetensors").write_bytes(b""),
    "weights of zeros": lambda folder: (folder / "model.safetensors").write_bytes(bytes(10_000)),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "scheduler cut": lambda folder: _cut(folder / "scheduler.pt"),
    "no scheduler": lambda folder: (folder / "scheduler.pt").unlink(),
    "random numbers cut": lambda folder: _cut(folder / "rng_state.pth"),
    "no random numbers": lambda folder: (folder / "rng_state.pth").unlink(),
    "rollout cut": lambda folder: _cut(folder / "rollout-0.safetensors"),
    "no rollout": lambda folder: (folder / "rollout-0.safetensors").unlink(),
    "of two processes": lambda folder: (folder / "rng_state.pth").rename(folder / "rng_state_1.pth"),
    "config cut": lambda folder: _cut(folder / "config.json"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before_in_one_line(name, policy, tmp_path, caplog):
    for step in (6, 9):
        shutil.copytree(policy / f"checkpoint-{step}", tmp_path / f"checkpoint-{step}")
    DAMAGES[name](tmp_path / "checkpoint-9")
    found = newest_whole(tmp_path, required=["rollout-0.safetensors"])
    assert found == tmp_path / "checkpoint-6"
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("teamsrl_hf.training.checkpoints", "WARNING")
    assert record.message.startswith(f"Passed over in {tmp_path}: checkpoint-9 (")
    assert record.message.endswith("). Training resumes from checkpoint-6.")


def test_a_whole_checkpoint_is_taken_without_a_word(policy, caplog):
    assert newest_whole(policy, required=["rollout-0.safetensors"]) == policy / "checkpoint-12"
    assert caplog.records == []


def test_only_folders_named_by_a_step_are_checkpoints(policy, tmp_path):
    for name in ("checkpoint-9", "checkpoint-abc", "checkpoint-12.bak", f"{STAGE}/checkpoint-15"):
        shutil.copytree(policy / "checkpoint-9", tmp_path / name)
    (tmp_path / "checkpoint-99").write_text("no folder")
    (tmp_path / "checkpoint-10").symlink_to(policy / "checkpoint-12")
    assert newest_whole(tmp_path) == tmp_path / "checkpoint-10"
    (tmp_path / "checkpoint-10").unlink()
    assert newest_whole(tmp_path) == tmp_path / "checkpoint-9"
    assert newest_whole(tmp_path / "none") is None


def test_a_training_goes_on_from_the_checkpoint_before_and_ends_with_the_same_weights(policy, killed, caplog):
    _cut(killed / "checkpoint-9" / "optimizer.pt")
    caplog.set_level("INFO", "teamsrl_hf.training")
    assert _train(killed) == 0
    assert [message for message in caplog.messages if "checkpoint-" in message] == [
        f"Passed over in {killed}: checkpoint-9 (optimizer.pt is damaged or cut off). "
        "Training resumes from checkpoint-6.",
        f"Training resumes from {killed}/checkpoint-6.",
    ]
    assert (killed / "model.safetensors").read_bytes() == (policy / "model.safetensors").read_bytes()
    assert damage(killed / "checkpoint-9", required=["rollout-0.safetensors"]) is None
    assert _history(killed / "checkpoint-12") == _history(policy / "checkpoint-12")
    summaries = [json.loads((folder / "run.json").read_text())["summary"] for folder in (killed, policy)]
    assert summaries[0] | {"policy": ""} == summaries[1] | {"policy": ""}


def test_a_training_whose_checkpoints_are_all_damaged_starts_from_the_beginning_and_says_so(policy, killed, caplog):
    for step in (3, 6, 9):
        (killed / f"checkpoint-{step}" / "trainer_state.json").write_text("")
    assert _train(killed) == 0
    (line,) = [message for message in caplog.messages if message.startswith("Passed over")]
    assert "checkpoint-9 (" in line
    assert "checkpoint-6 (" in line
    assert line.endswith(
        "checkpoint-3 (trainer_state.json is damaged or cut off). Training starts from the beginning."
    )
    assert (killed / "model.safetensors").read_bytes() == (policy / "model.safetensors").read_bytes()


def test_a_training_killed_after_its_last_checkpoint_makes_no_further_step(policy, tmp_path):
    folder = shutil.copytree(policy, tmp_path / "killed")
    _unfinish(folder)
    assert _train(folder) == 0
    assert [path.name for path in checkpoints(folder)][-1] == "checkpoint-12"
    assert (folder / "model.safetensors").read_bytes() == (policy / "model.safetensors").read_bytes()
    assert json.loads((folder / "run.json").read_text())["summary"]["environment_steps"] == 72


@pytest.mark.parametrize(("steps", "logging"), [(11, 4), (16, 6)], ids=["in an epoch", "at the end of an epoch"])
def test_what_the_last_checkpoint_had_not_logged_is_in_the_log_of_a_training_killed_after_it(steps, logging, tmp_path):
    seeds = [{"instruction": f"Explain machine number {number}."} for number in range(9)]
    (tmp_path / "seeds.jsonl").write_text("".join(json.dumps(seed) + "\n" for seed in seeds))
    options = ["--seeds", str(tmp_path / "seeds.jsonl"), "--max_steps", str(steps), "--logging_steps", str(logging)]
    assert _train(tmp_path / "out", *options) == 0
    picture = (tmp_path / "out" / "plots" / "reward.png").read_bytes()
    _unfinish(tmp_path / "out")
    assert _train(tmp_path / "out", *options) == 0
    assert (tmp_path / "out" / "plots" / "reward.png").read_bytes() == picture


def test_a_damaged_checkpoint_that_was_asked_for_is_an_error_that_names_the_damage(killed, capsys):
    _cut(killed / "checkpoint-9" / "model.safetensors")
    assert _train(killed, "--resume_from_checkpoint", str(killed / "checkpoint-9")) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"error: Training can't go on from {killed}/checkpoint-9: model.safetensors is damaged or cut off. "
        "Give another checkpoint; without resume_from_checkpoint the newest whole one is taken."
    )
    assert _train(killed, "--resume_from_checkpoint", str(killed / "checkpoint-5")) == 2
    assert "which is no folder" in capsys.readouterr().err
    assert not (killed / "model.safetensors").exists()


def test_a_checkpoint_that_was_asked_for_is_the_one_gone_on_from(policy, killed):
    assert _train(killed, "--resume_from_checkpoint", str(killed / "checkpoint-3")) == 0
    assert (killed / "model.safetensors").read_bytes() == (policy / "model.safetensors").read_bytes()


def test_checkpoints_of_another_number_of_processes_are_not_thrown_away_in_silence(killed, capsys):
    for step in (3, 6, 9):
        folder = killed / f"checkpoint-{step}"
        for rank in (0, 1):
            shutil.copy(folder / "rng_state.pth", folder / f"rng_state_{rank}.pth")
        (folder / "rng_state.pth").unlink()
    assert _train(killed) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"error: {killed}/checkpoint-9 was saved by 2 processes, not by 1; launch 2, or give a new output folder."
    )


def _distributed(folder, values):
    folder.mkdir(parents=True)
    distributed.save({"weight": torch.arange(float(values))}, checkpoint_id=folder, no_dist=True)


def _as_fsdp(folder):
    (folder / "model.safetensors").unlink()
    (folder / "optimizer.pt").unlink()
    _distributed(folder / "pytorch_model_fsdp_0", 100)
    _distributed(folder / "optimizer_0", 200)


def _as_deepspeed(folder):
    for name in ("model.safetensors", "optimizer.pt", "scheduler.pt"):
        (folder / name).unlink()
    (folder / "latest").write_text("global_step9")
    (folder / "global_step9").mkdir()
    for name in ("mp_rank_00_model_states.pt", "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt"):
        torch.save({"step": torch.ones(50)}, folder / "global_step9" / name)


@pytest.fixture
def checkpoint(policy, tmp_path):
    return shutil.copytree(policy / "checkpoint-9", tmp_path / "checkpoint-9")


@pytest.mark.parametrize(
    ("layout", "cut", "reason"),
    [
        (_as_fsdp, "pytorch_model_fsdp_0/__0_0.distcp", "pytorch_model_fsdp_0 is damaged or cut off"),
        (_as_fsdp, "optimizer_0/.metadata", "optimizer_0 is damaged or cut off"),
        (_as_deepspeed, "latest", "its file latest names no folder with DeepSpeed's states"),
        (
            _as_deepspeed,
            "global_step9/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt",
            "global_step9/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt is damaged or cut off",
        ),
    ],
)
def test_what_fsdp_and_deepspeed_write_is_taken_when_whole_and_passed_over_when_not(layout, cut, reason, checkpoint):
    layout(checkpoint)
    assert damage(checkpoint) is None
    _cut(checkpoint / cut)
    assert damage(checkpoint) == reason


def test_an_index_without_one_of_its_shards_is_damaged(checkpoint):
    (checkpoint / "model.safetensors").rename(checkpoint / "model-00001-of-00002.safetensors")
    assert damage(checkpoint) == "it has no weights"
    index = {"metadata": {}, "weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    assert damage(checkpoint) is None
    index["weight_map"]["b"] = "model-00002-of-00002.safetensors"
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    assert damage(checkpoint) == "model.safetensors.index.json is damaged or cut off"


def test_a_checkpoint_whose_best_one_is_damaged_would_end_with_other_weights(policy, tmp_path):
    for step in (3, 6, 9):
        shutil.copytree(policy / f"checkpoint-{step}", tmp_path / f"checkpoint-{step}")
    for step in (6, 9):
        file = tmp_path / f"checkpoint-{step}" / "trainer_state.json"
        best = {"best_model_checkpoint": "elsewhere/checkpoint-6", "best_global_step": 6}
        file.write_text(json.dumps(json.loads(file.read_text()) | best))
    assert newest_whole(tmp_path, best=True) == tmp_path / "checkpoint-9"
    _cut(tmp_path / "checkpoint-6" / "model.safetensors")
    assert newest_whole(tmp_path, best=True) == tmp_path / "checkpoint-3"
    assert newest_whole(tmp_path, best=False) == tmp_path / "checkpoint-9"
    shutil.rmtree(tmp_path / "checkpoint-6")
    assert (
        damage(tmp_path / "checkpoint-9", best=True) == "its best checkpoint so far, checkpoint-6, is without weights"
    )


def test_the_last_whole_checkpoint_is_deleted_only_when_the_next_one_is_whole(policy, tmp_path, monkeypatch):
    load_recipe("train_policy")
    from teamsrl_hf.ppo.trainer import InstructionGenPPOTrainer

    save = InstructionGenPPOTrainer._save_rng_state

    def full_disk(self, output_dir):
        save(self, output_dir)
        if self.state.global_step == 9:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(InstructionGenPPOTrainer, "_save_rng_state", full_disk)
    assert _train(tmp_path / "run", "--save_total_limit", "1") == 2
    assert [path.name for path in sorted(tmp_path.glob("run/checkpoint-*"))] == ["checkpoint-6"]
    assert damage(tmp_path / "run" / "checkpoint-6") is None
    monkeypatch.undo()
    assert _train(tmp_path / "run", "--save_total_limit", "1") == 0
    assert [path.name for path in sorted(tmp_path.glob("run/checkpoint-*"))] == ["checkpoint-12"]
    assert not (tmp_path / "run" / STAGE).exists()
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (policy / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("steps", "newest", "limit", "best", "left"),
    [
        ([3, 6, 9], 9, None, None, [3, 6, 9]),
        ([3, 6, 9], 9, 2, None, [6, 9]),
        ([3, 6, 9], 9, 1, None, [9]),
        ([3, 6, 9], 9, 1, 3, [3, 9]),
        ([3, 6, 9, 12], 12, 3, 3, [3, 9, 12]),
        ([3, 6, 9, 32], 9, 3, None, [3, 6, 9]),
        ([3, 32], 3, 1, None, [3]),
    ],
)
def test_checkpoints_that_were_passed_over_are_deleted_before_older_ones(steps, newest, limit, best, left, tmp_path):
    for step in steps:
        (tmp_path / f"checkpoint-{step}").mkdir()
    (tmp_path / "checkpoint-abc").mkdir()
    named = str(tmp_path / f"checkpoint-{best}") if best else None
    rotate(tmp_path, tmp_path / f"checkpoint-{newest}", limit, named)
    kept = {path.name for path in tmp_path.glob("checkpoint-*")}
    assert kept == {"checkpoint-abc", *(f"checkpoint-{step}" for step in left)}


def test_a_model_moves_in_whole_and_an_old_one_goes_first(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "model-00001-of-00001.safetensors")
    (tmp_path / "README.md").write_text("A card.")
    (tmp_path / STAGE).mkdir()
    (tmp_path / STAGE / "tokenizer.json").write_text("{")  # What a kill left.
    with pytest.raises(ZeroDivisionError), staged(tmp_path) as stage:
        (stage / "config.json").write_text(str(1 / 0))
    assert {path.name for path in tmp_path.iterdir()} == {"README.md", "model-00001-of-00001.safetensors", STAGE}
    with staged(tmp_path) as stage:
        assert list(stage.iterdir()) == []
        (stage / "config.json").write_text("{}")
        save_file({"a": torch.ones(3)}, stage / "model.safetensors")
    assert {path.name for path in tmp_path.iterdir()} == {"README.md", "config.json", "model.safetensors"}


def test_a_half_written_final_model_is_written_again(policy, killed):
    (killed / STAGE).mkdir()
    (killed / STAGE / "model.safetensors").write_bytes(b"half of it")
    shutil.copy(policy / "model.safetensors", killed)
    _cut(killed / "model.safetensors")
    assert _train(killed) == 0
    assert not (killed / STAGE).exists()
    assert (killed / "model.safetensors").read_bytes() == (policy / "model.safetensors").read_bytes()


@pytest.mark.timeout(120)
def test_a_kill_at_any_moment_leaves_whole_checkpoints_and_the_rerun_ends_with_the_same_weights(tmp_path):
    command = [sys.executable, "-m", "teamsrl_hf.cli", *TRAIN, "--max_steps", "120", "--save_steps", "1"]
    process = subprocess.Popen([*command, "--output_dir", str(tmp_path / "killed")], stderr=subprocess.DEVNULL)
    while not (tmp_path / "killed" / "checkpoint-20").exists() and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    found = list((tmp_path / "killed").glob("checkpoint-*"))
    assert len(found) >= 20
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    assert [path.name for path in found if damage(path, required=["rollout-0.safetensors"])] == []
    for folder in ("killed", "whole"):
        assert _train(tmp_path / folder, "--max_steps", "120", "--save_steps", "1") == 0
    weights = [(tmp_path / folder / "model.safetensors").read_bytes() for folder in ("killed", "whole")]
    assert weights[0] == weights[1]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("rows"))


STEPS = ("--max_steps", "6", "--save_strategy", "steps", "--save_steps", "2", "--logging_steps", "5")


@pytest.mark.parametrize(
    ("kind", "weights", "victim"),
    [
        ((), "adapter_model.safetensors", "adapter_model.safetensors"),
        (("--use_peft", "false"), "model.safetensors", "scheduler.pt"),
    ],
)
def test_a_fine_tuning_goes_on_from_the_checkpoint_before_and_ends_with_the_same_weights(
    kind, weights, victim, rows, tmp_path, caplog
):
    out = tmp_path / "model"
    fine_tune(rows, out, *STEPS, *kind)
    whole, history = (out / weights).read_bytes(), _history(out / "checkpoint-6")
    assert [entry["step"] for entry in history] == [0, 5]
    _unfinish(out, weights)
    _cut(out / "checkpoint-6" / victim)
    (out / "checkpoint-4" / "tokenizer.json").unlink()  # Resuming takes its own.
    fine_tune(rows, out, *STEPS, *kind)
    assert f"checkpoint-6 ({victim} is damaged or cut off). Training resumes from checkpoint-4." in caplog.text
    assert (out / weights).read_bytes() == whole
    assert _history(out / "checkpoint-6") == history
    assert not (out / STAGE).exists()


def test_the_modules_of_an_adapter_stand_in_order_in_its_file(rows, tmp_path):
    fine_tune(rows, tmp_path / "model", "--max_steps", "1")
    modules = json.loads((tmp_path / "model" / "adapter_config.json").read_text())["target_modules"]
    assert len(modules) == 14
    assert modules == sorted(modules)


@pytest.mark.parametrize("stopped", [False, True])
def test_early_stopping_keeps_its_patience_and_its_best_checkpoint_through_a_kill(stopped, rows, tmp_path):
    """A learning rate of 0 never lowers the loss, so the first evaluation stays the best and the third ends it."""
    options = (*STEPS, "--eval_strategy", "steps", "--eval_steps", "2", "--early_stopping_patience", "2")
    options = (*options, "--learning_rate", "0", "--max_steps", "20", "--eval_on_start", "false")
    out = tmp_path / "old" / "model"
    summary = fine_tune(rows, out, *options)
    whole = (out / "adapter_model.safetensors").read_bytes()
    _unfinish(out, "adapter_model.safetensors")
    last = summary["steps"]
    if not stopped:
        shutil.rmtree(out / f"checkpoint-{last}")
    moved = (tmp_path / "old").rename(tmp_path / "new") / "model"
    again = fine_tune(rows, moved, *options)
    assert again["steps"] == last
    assert (moved / "adapter_model.safetensors").read_bytes() == whole
    state = json.loads((moved / f"checkpoint-{last}" / "trainer_state.json").read_text())
    where = out if stopped else moved
    assert state["best_model_checkpoint"] == str(where / "checkpoint-2")
