"""recipes/README.md followed row by row in a fresh folder, as a reader does who has two CPU cores and no network."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from datasets import load_dataset

from teamsrl_hf.publish.lineage import RowSet, model_lineage

ROOT = Path(__file__).parent.parent
# What a reader without a GPU, an account or a dataset of his own can run.
HERE = "2 CPU cores"


def rows() -> list[tuple[list[str], str, str]]:
    """Command, hardware and expectation of each row, in the table's order."""
    lines = (ROOT / "recipes" / "README.md").read_text().partition("\n## ")[0].splitlines()
    cells = [line.strip("| ").split(" | ") for line in lines if line.startswith("| `")]
    return [(shlex.split(command.strip("`")), hardware, expect) for _, _, command, hardware, _, _, expect in cells]


def made(command: list[str]) -> str | None:
    return command[command.index("--output_dir") + 1] if "--output_dir" in command else None


def taken(command: list[str]) -> set[str]:
    """Output folders that a command reads."""
    named = {word for word in command if re.fullmatch(r"outputs/\w+", word)}
    return named - {made(command)}


def test_every_row_takes_what_earlier_rows_made_and_none_writes_over_another():
    folders: list[str] = []
    for command, _, _ in rows():
        assert taken(command) <= set(folders), " ".join(command)
        folders += [made(command)] if made(command) else []
    assert len(set(folders)) == len(folders) > 8


def test_a_model_is_audited_on_the_split_that_it_was_trained_on():
    source = {made(command): taken(command) for command, _, _ in rows()}
    (audit,) = (command for command, _, _ in rows() if "recipes/audit.py" in command and "--model" in command)
    model = audit[audit.index("--model") + 1]
    assert taken(audit) - {model} == source[model]


def run(command: list[str], folder: Path) -> None:
    launchers = {
        "python": [sys.executable],
        "accelerate": [sys.executable, "-m", "accelerate.commands.accelerate_cli"],
        "teamsrl": [sys.executable, "-m", "teamsrl_hf.cli"],
    }
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    words, started = [*launchers[command[0]], *command[1:]], time.monotonic()
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True)
    print(f"{time.monotonic() - started:.0f} s: {shlex.join(command)}", flush=True)
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_rows_of_the_readme_can_be_followed_in_order_and_give_what_they_promise(tmp_path):
    """Some ten minutes on two idle cores. Left out are rows that name other hardware: GPUs, the Hub, USER/DATASET."""
    for name in ("recipes", "accelerate_configs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    here = [(command, expect) for command, hardware, expect in rows() if hardware == HERE]
    assert len(here) == 12
    for command, _ in here:
        run(command, tmp_path)
    out = tmp_path / "outputs"
    summaries = {path.parent.name: json.loads(path.read_text())["summary"] for path in out.glob("*/run.json")}
    assert summaries["policy"]["reward_after"] > 1.7 * summaries["policy"]["reward_uniform"]
    (about,) = (
        re.search(r"about ([\d,]+) rows", expect) for _, expect in here if "about" in expect and "rows" in expect
    )
    assert summaries["dataset"]["rows"] == pytest.approx(int(about[1].replace(",", "")), rel=0.1)
    for model in ("model", "model_2"):
        assert summaries[model]["loss_before"] > 6.5
        assert summaries[model]["loss_after"] < 4
    assert (out / "merged" / "model.safetensors").exists()
    _is_audited_as_trained(out)


def _is_audited_as_trained(out: Path) -> None:
    split = load_dataset(str(out / "split"), cache_dir=str(out / "cache"))
    inside, outside = RowSet.of(split["train"]), RowSet.of(split["test"])
    for model in ("model", "model_2", "merged"):
        trained = model_lineage(out / model)["trained_on"]
        assert trained == inside
        assert not trained.prompts & outside.prompts
    found = json.loads((out / "audit" / "audit.json").read_text())
    assert found["membership"] == "recorded"
    assert found["split_ok"] is True
    assert (found["members"], found["non_members"]) == (len(split["train"]), len(split["test"]))
    told = f"By its record, the model was trained on the {found['members']} members and not on the"
    assert told in (out / "model" / "README.md").read_text()
    assert "Privacy audit" not in (out / "merged" / "README.md").read_text()
