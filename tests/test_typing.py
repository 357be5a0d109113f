"""Type checkers read the annotations of the package as users have it."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
from teamsrl_hf import Operation, Seed, load_seeds, split_seeds

seeds: list[Seed] = load_seeds()
train, held_out = split_seeds(seeds, 0.2)
count: str = len(train)
first: Operation = held_out[0]
seed = Seed("id", instruction=["Name a river."])
load_seeds(max_characters="many")
"""


@pytest.mark.slow  # mypy reads the package and its libraries, half a minute without a cache.
def test_a_type_checker_finds_the_wrong_types_of_a_users_script(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "mypy", "--config-file=", f"--cache-dir={tmp_path / 'cache'}", "script.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    found = [line.split(": error: ") for line in done.stdout.splitlines() if line.startswith("script.py")]
    assert [(place, message.rpartition("[")[2]) for place, message in found] == [
        ("script.py:6", "assignment]"),
        ("script.py:7", "assignment]"),
        ("script.py:8", "arg-type]"),
        ("script.py:9", "arg-type]"),
    ]


def test_the_marker_of_typed_packages_is_installed_with_the_package():
    import teamsrl_hf

    assert (Path(teamsrl_hf.__file__).parent / "py.typed").is_file()
    assert '"py.typed"' in (Path(__file__).parent.parent / "pyproject.toml").read_text()
