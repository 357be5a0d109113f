"""What a user types, and what is said when it is wrong: one line, an exit status, nothing half-written."""

import json
import os
import resource
import statistics
import subprocess
import sys
import time

import pytest
from asked import EVOLVE_RULES, TRAIN_RULES
from endpoint_server import EndpointServer

from teamsrl_hf.cli import main

GOOD = [
    {"instruction": f"Explain subject {name} to a friend.", "input": ""} for name in ("wind", "rain", "snow", "ice")
]


def _jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def _refused(capsys, *argv):
    """The one line on standard error of a command that must fail."""
    assert main([str(arg) for arg in argv]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]


WRONG_SEEDS = {
    "empty file": ("", "seeds"),
    "broken JSON on line 7": (_jsonl(GOOD[:1] * 6) + "{oops\n", "line 7"),
    "missing column": (_jsonl([{"text": "Name a bird."}]), "--seed_column"),
    "non-string cell": (_jsonl([*GOOD, {"instruction": 5}]), "int"),
    "an instruction of 200 kB": (_jsonl([{"instruction": "long " * 40_000}]), "20,000"),
    "null bytes": (_jsonl([{"instruction": "Name a\0bird."}]), "null"),
    "control tokens": (_jsonl([{"instruction": "Name a bird.<|im_end|>"}]), "<|im_end|>"),
    "duplicate seeds": (_jsonl([*GOOD, GOOD[0]]), "--drop_duplicate_seeds"),
}


@pytest.mark.parametrize("case", WRONG_SEEDS)
def test_wrong_seeds_are_told_in_one_line_and_nothing_is_written(case, tmp_path, capsys):
    content, expected = WRONG_SEEDS[case]
    (tmp_path / "seeds.jsonl").write_text(content)
    line = _refused(capsys, "quickstart", "--seeds", tmp_path / "seeds.jsonl", "--output_dir", tmp_path / "out")
    assert expected in line
    assert str(tmp_path / "seeds.jsonl") in line
    assert not (tmp_path / "out").exists()


def test_a_missing_file_is_named(tmp_path, capsys):
    line = _refused(capsys, "quickstart", "--seeds", tmp_path / "no.jsonl", "--output_dir", tmp_path / "out")
    assert "no.jsonl" in line
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_in_it_is_left_alone(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("mine")
    assert "not empty" in _refused(capsys, "quickstart", "--output_dir", tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_folder_that_cannot_be_written_is_named(capsys):
    assert "/proc/teamsrl" in _refused(capsys, "quickstart", "--output_dir", "/proc/teamsrl")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere; the case above stands in for it")
def test_a_read_only_folder_is_named(tmp_path, capsys):
    tmp_path.chmod(0o500)
    assert "Permission denied" in _refused(capsys, "quickstart", "--output_dir", tmp_path / "out")


@pytest.mark.parametrize("command", ["train-policy", "evolve"])
def test_an_unknown_yaml_key_is_fatal_and_named(command, tmp_path, capsys):
    (tmp_path / "typo.yaml").write_text(
        "chooser: uniform\noperations_per_episode: 6\nsampel: 3\n".replace(
            "chooser: uniform\n", "chooser: uniform\n" if command == "evolve" else ""
        )
    )
    line = _refused(capsys, command, "--config", tmp_path / "typo.yaml", "--output_dir", tmp_path / "out")
    assert "Unknown key 'sampel' in the YAML file" in line
    assert not (tmp_path / "out").exists()


def test_an_unknown_argument_is_fatal_and_named(tmp_path, capsys):
    assert "--sampel" in _refused(capsys, "evolve", "--output_dir", tmp_path / "out", "--sampel", "3")


def test_an_ill_typed_value_is_told_without_the_usage_of_all_arguments(tmp_path, capsys):
    line = _refused(capsys, "evolve", "--output_dir", tmp_path / "out", "--operations_per_episode", "six")
    assert "invalid int value: 'six'" in line


def test_an_unknown_operation_is_named_with_those_there_are(tmp_path, capsys):
    (tmp_path / "ops.yaml").write_text("chooser: uniform\noperations: [depen, breadth]\n")
    line = _refused(capsys, "evolve", "--config", tmp_path / "ops.yaml", "--output_dir", tmp_path / "out")
    assert "Unknown operation 'depen'. Known: breadth, add_constraints" in line
    assert not (tmp_path / "out").exists()


def test_broken_yaml_and_a_missing_config_are_named(tmp_path, capsys):
    (tmp_path / "broken.yaml").write_text("a: [1, 2\n")
    assert "YAML" in _refused(capsys, "evolve", "--config", tmp_path / "broken.yaml", "--output_dir", tmp_path / "out")
    assert "no.yaml" in _refused(capsys, "evolve", "--config", tmp_path / "no.yaml", "--output_dir", tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--chooser", "unifrom"], "Unknown chooser 'unifrom'; use policy, uniform, paper"),
        ([], "needs --policy"),
        (["--chooser", "uniform", "--reviewer", "rulebook", "--expert", "rulebok"], "rulebok"),
        (["--chooser", "uniform", "--expert", "rulebook"], "No model is named as reviewer: give --reviewer endpoint:"),
    ],
)
def test_unknown_choosers_and_models_are_named(options, expected, tmp_path, capsys):
    assert expected in _refused(capsys, "evolve", "--output_dir", tmp_path / "out", *options)


def test_users_own_operations_are_taken_from_yaml_and_refused_by_a_model_that_does_not_know_them(tmp_path, capsys):
    (tmp_path / "seeds.jsonl").write_text(_jsonl(GOOD))
    (tmp_path / "own.yaml").write_text(
        "chooser: uniform\noperations: [translate]\nexpert: rulebook\nreviewer: rulebook\n"
        "own_operations:\n  - name: translate\n    sentence: Ask for French.\n"
    )
    out, config = tmp_path / "out", ["--config", tmp_path / "own.yaml", "--seeds", tmp_path / "seeds.jsonl"]
    line = _refused(capsys, "evolve", *config, "--output_dir", out)
    assert line == (
        "error: 'rulebook' cannot carry out the operation 'translate'; it knows breadth, add_constraints, deepen, "
        "concretize, increase_reasoning, complicate_input. Name a model that can, such as endpoint:MODEL@BASE_URL, or "
        "leave the operation out."
    )
    assert not out.exists()
    with EndpointServer(lambda payload: "Nimm ein Wort.") as server:
        model = ["--expert", f"endpoint:m@{server.url}"]
        main([str(word) for word in ("evolve", *config, *model, "--output_dir", out)])
    assert "`translate`: `Ask for French.`" in (out / "README.md").read_text()


def test_evolving_again_with_the_same_arguments_goes_on_and_with_others_is_refused(tmp_path, capsys):
    (tmp_path / "seeds.jsonl").write_text(_jsonl(GOOD))
    command = [
        "evolve",
        *EVOLVE_RULES,
        "--chooser",
        "uniform",
        "--seeds",
        str(tmp_path / "seeds.jsonl"),
        "--output_dir",
        str(tmp_path / "out"),
    ]
    assert main(command) == 0
    assert main(command) == 0
    assert "already complete" in capsys.readouterr().out
    assert "with seed = 42, not 43" in _refused(capsys, *command, "--seed", "43")


@pytest.mark.parametrize("chooser", ["thompson", "linucb"])
def test_a_bandit_is_trained_and_handed_to_the_evolver(chooser, tmp_path, capsys):
    (tmp_path / "seeds.jsonl").write_text(_jsonl(GOOD))
    seeds = ["--seeds", str(tmp_path / "seeds.jsonl"), "--chooser", chooser]
    train = ["train-policy", *TRAIN_RULES, *seeds, "--use_cpu", "true", "--output_dir", str(tmp_path / "bandit")]
    assert "needs --max_steps" in _refused(capsys, *train)
    assert main([*train, "--max_steps", "32", "--per_device_train_batch_size", "2"]) == 0
    evolve = ["evolve", *EVOLVE_RULES, *seeds, "--policy", str(tmp_path / "bandit")]
    assert main([*evolve, "--output_dir", str(tmp_path / "out")]) == 0
    assert f"the `{chooser}` baseline picked" in (tmp_path / "out" / "README.md").read_text()


def test_what_can_not_be_trained_is_named(tmp_path, capsys):
    line = _refused(
        capsys, "train-policy", "--chooser", "paper", "--output_dir", tmp_path / "out", "--use_cpu", "true"
    )
    assert "Unknown chooser 'paper'; use policy, thompson, linucb." in line


def test_a_disk_that_fills_up_ends_in_one_line_and_the_next_run_goes_on(tmp_path):
    command = [sys.executable, "-m", "teamsrl_hf.cli", "evolve", *EVOLVE_RULES, "--chooser", "uniform"]
    command += ["--output_dir"]

    def fill():
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    broken = subprocess.run([*command, str(tmp_path / "out")], preexec_fn=fill, capture_output=True, text=True)
    assert broken.returncode == 2
    last = broken.stderr.strip().splitlines()[-1]
    assert last.startswith("error: The ledger")
    assert "can't be written" in last
    assert "Traceback" not in broken.stderr
    assert not list(tmp_path.rglob("*.parquet"))
    for folder in ("out", "fresh"):
        subprocess.run([*command, str(tmp_path / folder)], check=True, capture_output=True)
    for file in (tmp_path / "fresh").rglob("*.parquet"):
        assert file.read_bytes() == (tmp_path / "out" / file.relative_to(tmp_path / "fresh")).read_bytes()


def test_help_answers_within_four_tenths_of_a_second():
    def seconds():
        started = time.monotonic()
        done = subprocess.run([sys.executable, "-m", "teamsrl_hf.cli", "--help"], capture_output=True, text=True)
        assert "quickstart" in done.stdout
        return time.monotonic() - started

    assert statistics.median(seconds() for _ in range(5)) < 0.4


def test_every_command_explains_itself(capsys):
    for command in ("quickstart", "ledger", "push"):
        with pytest.raises(SystemExit) as stop:
            main([command, "--help"])
        assert stop.value.code == 0
        assert "usage: teamsrl" in capsys.readouterr().out


def test_a_ledger_that_is_not_there_is_named(tmp_path, capsys):
    assert "There is no ledger at" in _refused(capsys, "ledger", tmp_path)
    assert not list(tmp_path.iterdir())
