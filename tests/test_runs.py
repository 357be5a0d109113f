import errno
import fcntl
import json
import os
import subprocess
import sys

import pytest
from asked import EVOLVE_RULES, TRAIN_RULES
from datasets import Dataset, load_dataset
from datasets.exceptions import DataFilesNotFoundError

from teamsrl_hf.cli import load_recipe, main
from teamsrl_hf.commands.arguments import guarded
from teamsrl_hf.errors import UserError
from teamsrl_hf.runs import finish_run, hold, open_run, read_run


def test_a_new_folder_is_made_and_claimed(tmp_path):
    assert open_run(tmp_path / "a" / "b", {"seed": 1}) is None
    assert json.loads((tmp_path / "a" / "b" / "run.json").read_text()) == {"arguments": {"seed": 1}, "summary": None}


def test_a_run_that_was_cut_off_goes_on_and_a_finished_one_tells_its_summary(tmp_path):
    open_run(tmp_path / "run", {"seed": 1})
    assert open_run(tmp_path / "run", {"seed": 1}) is None
    finish_run(tmp_path / "run", {"rows": 3})
    assert open_run(tmp_path / "run", {"seed": 1}) == {"rows": 3}


def test_other_arguments_are_refused_and_the_first_that_differs_is_named(tmp_path):
    open_run(tmp_path / "run", {"seed": 1})
    (tmp_path / "run" / "ledger.sqlite").touch()
    with pytest.raises(ValueError, match="holds a run with seed = 1, not 2"):
        open_run(tmp_path / "run", {"seed": 2})


def test_a_run_that_made_nothing_gives_way_to_one_with_other_arguments(tmp_path):
    open_run(tmp_path / "run", {"model": "typo"})
    assert open_run(tmp_path / "run", {"model": "right"}) is None
    assert json.loads((tmp_path / "run" / "run.json").read_text())["arguments"] == {"model": "right"}


def test_a_finished_run_never_gives_way(tmp_path):
    open_run(tmp_path / "run", {"seed": 1})
    finish_run(tmp_path / "run", {"rows": 0})
    with pytest.raises(ValueError, match="seed = 1, not 2"):
        open_run(tmp_path / "run", {"seed": 2})


def test_a_folder_with_something_else_in_it_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty and was not made by this command"):
        open_run(tmp_path, {})
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_in_the_folders_place_is_refused(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ValueError, match="is a file"):
        open_run(tmp_path / "out", {})


def test_a_foreign_run_json_is_not_taken_for_ours(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ValueError, match="was not made by this command"):
        open_run(tmp_path, {})


@pytest.mark.parametrize(
    "made",
    [
        [],
        ["ledger.sqlite", ".writing/data/train-0.part", "trajectories/train-0.parquet"],
        ["config.json", "model.safetensors", "README.md", "plots/reward.png", "checkpoint-4/trainer_state.json"],
        ["results.json", "runs/policy-0.json"],
        ["dataset/README.md", "dataset/data/train-0.parquet", "policy/config.json"],
    ],
    ids=["claimed", "dataset", "policy", "comparison", "quickstart"],
)
def test_nothing_in_a_runs_folder_is_taken_for_rows(made, tmp_path):
    folder = tmp_path / "run"
    open_run(folder, {"seed": 1})
    for name in made:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text('{"column": 1}')
    for _ in range(2):
        with pytest.raises(DataFilesNotFoundError):
            load_dataset(str(folder))
        finish_run(folder, {"rows": 0})


# One run at a time.


def test_a_folder_in_use_is_refused_in_one_line_and_free_again_when_the_run_ends(tmp_path):
    with hold(tmp_path / "out"):
        assert open_run(tmp_path / "out", {"seed": 1}) is None
        with pytest.raises(UserError, match=r"out is in use by another run; wait for it"), hold(tmp_path / "out"):
            raise AssertionError("two runs in one folder")
    with hold(tmp_path / "out"):
        assert open_run(tmp_path / "out", {"seed": 1}) is None
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"run.json", ".huggingface.yaml"}


def test_a_folder_held_by_a_process_that_was_killed_is_free(tmp_path):
    code = f"""
import os
from teamsrl_hf.runs import hold, open_run
with hold({str(tmp_path / "out")!r}):
    open_run({str(tmp_path / "out")!r}, {{"model": "typo"}})
    os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    with hold(tmp_path / "out"):
        # What the lock left does not count as a result of that run.
        assert open_run(tmp_path / "out", {"model": "right"}) is None


def test_a_run_killed_while_it_claimed_the_folder_does_not_make_it_a_strangers(tmp_path):
    (tmp_path / ".run.json.part").write_text('{"argum')
    (tmp_path / ".run.lock").touch()
    with hold(tmp_path):
        assert open_run(tmp_path, {"seed": 1}) is None
    assert {file.name for file in tmp_path.iterdir()} == {"run.json", ".huggingface.yaml"}


def test_all_processes_of_a_launch_share_the_hold_of_the_first(tmp_path):
    with hold(tmp_path), hold(tmp_path, first=False):
        pass


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EACCES])
def test_a_file_system_without_locks_is_told_of_and_the_run_goes_on(code, tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    if code == errno.EACCES:  # Another way to say that somebody has it.
        with pytest.raises(UserError, match="in use by another run"), hold(tmp_path):
            pass
        return
    with hold(tmp_path):
        assert open_run(tmp_path, {}) is None
    assert f"warning: {tmp_path} can't be locked" in capsys.readouterr().err


COMMANDS = {
    "quickstart": [],
    "evolve": [*EVOLVE_RULES, "--chooser", "uniform"],
    "train-policy": [*TRAIN_RULES, "--max_steps", "1", "--use_cpu", "true"],
    "compare": ["--expert", "rulebook", *TRAIN_RULES],
    "audit": ["--make_split", "true"],
    "eval": ["--model", "anywhere"],
    "downstream": [],
    "sft": ["--tiny_model", "true", "--use_cpu", "true"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_second_run_of_any_command_in_one_folder_is_refused_and_touches_nothing(command, tmp_path, capsys):
    out, options = tmp_path / "out", [*COMMANDS[command], "--output_dir", str(tmp_path / "out")]
    if command == "downstream":
        finished = {"arguments": {}, "summary": {"facts": {}}}
        (tmp_path / "comparison").mkdir()
        (tmp_path / "comparison" / "run.json").write_text(json.dumps(finished))
        options += ["--comparison", str(tmp_path / "comparison")]
    if command in ("sft", "audit"):
        told = {"prompt": [{"role": "user", "content": "Name a bird."}]}
        told |= {"completion": [{"role": "assistant", "content": "A wren."}]}
        Dataset.from_list([told] * 40).to_parquet(tmp_path / "data" / "train.parquet")
        options += ["--dataset_name", str(tmp_path / "data")]
    with hold(out):
        (out / "draft").write_text("of the run in hand")
        if command == "downstream":
            status = guarded(lambda: load_recipe("downstream").main(options))
        else:
            status = main([command, *options])
        assert {file.name for file in out.iterdir()} == {"draft", ".run.lock"}
    assert status == 2
    assert f"error: The folder {out} is in use by another run" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"null", bytes(range(256)), b'{"arguments": 5, "summary": 7}'])
def test_a_damaged_record_is_none(content, tmp_path):
    (tmp_path / "run.json").write_bytes(content)
    assert read_run(tmp_path) is None
    with pytest.raises(UserError, match="is not empty and was not made by this command"):
        open_run(tmp_path, {})
