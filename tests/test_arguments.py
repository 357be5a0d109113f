"""What a command says when it fails, and with which status: the user's mistakes in one line, bugs with a traceback."""

import subprocess
import sys

import pytest

from teamsrl_hf import cli
from teamsrl_hf.commands.arguments import SeedArguments, guarded, parse
from teamsrl_hf.errors import UserError
from teamsrl_hf.text.seeds import load_seeds


def fails_with(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    "error",
    [UserError("Give a folder,\n not a file."), OSError(28, "No space left on device"), ConnectionError("gone")],
)
def test_what_the_user_or_the_machine_can_mend_is_one_line_with_status_2(error, capsys):
    assert guarded(fails_with(error)) == 2
    assert capsys.readouterr().err == f"error: {' '.join(str(error).split())}\n"


def test_a_transport_error_of_the_hubs_client_is_no_bug(capsys):
    from huggingface_hub.utils import httpx

    assert not issubclass(httpx.ConnectError, OSError)
    assert guarded(fails_with(httpx.ConnectError("Name or service not known"))) == 2
    assert capsys.readouterr().err == "error: Name or service not known\n"


@pytest.mark.parametrize("error", [ValueError("shapes differ"), KeyError("rows"), TypeError("none"), ImportError("x")])
def test_a_bug_is_shown_with_its_traceback_and_status_1(error, capsys):
    assert guarded(fails_with(error)) == 1
    first, *_, said, note = capsys.readouterr().err.splitlines()
    assert first == "Traceback (most recent call last):"
    assert said == f"{type(error).__name__}: {error}"
    assert note == "error: this is a bug of teamsrl-hf 0.1.0; report it with the lines above"


def test_a_bug_ends_with_its_traceback_the_note_and_status_1():
    code = "import sys; from teamsrl_hf.commands.arguments import guarded; sys.exit(guarded(lambda: [0] @ [1]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    first, *_, error, note = done.stderr.splitlines()
    assert first == "Traceback (most recent call last):"
    assert error.startswith("TypeError: unsupported operand")
    assert note == "error: this is a bug of teamsrl-hf 0.1.0; report it with the lines above"


def test_the_traceback_of_a_users_error_is_shown_on_demand(monkeypatch, capsys):
    monkeypatch.setenv("TEAMSRL_TRACEBACK", "1")
    assert guarded(fails_with(UserError("Give a folder."))) == 2
    first, *_, last = capsys.readouterr().err.splitlines()
    assert (first, last) == ("Traceback (most recent call last):", "error: Give a folder.")


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--seeds", "owner/set", "--seed_config", "hard", "--seed_split", "dev", "--skip_bad_seeds"],
        ["--seeds", "a.jsonl", "--seed_column", "prompt", "--input_column", "", "--drop_duplicate_seeds"],
        ["--max_seeds", "40"],
    ],
)
def test_the_quickstart_takes_the_options_of_seeds_that_recipes_take_and_hands_them_on(words):
    given = SeedArguments.of_options(cli._parser().parse_args(["quickstart", *words]))
    assert given == parse([SeedArguments], words)[0] == parse([SeedArguments], given.options())[0]


def test_max_seeds_takes_the_first_seeds_and_then_parts_them():
    train, test = SeedArguments(max_seeds=10, test_size=0.2).load()
    assert (len(train), len(test)) == (6, 4)
    assert {seed.id for seed in (*train, *test)} == {seed.id for seed in load_seeds()[:10]}
    with pytest.raises(UserError, match="max_seeds must be a whole number of at least 1, not 0"):
        SeedArguments(max_seeds=0)
