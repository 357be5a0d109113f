import json

import pytest
from datasets import load_dataset
from datasets.exceptions import DataFilesNotFoundError

from teamsrl_hf.runs import finish_run, open_run


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
