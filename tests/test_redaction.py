"""What may be shown: no token, no login and no control character leaves by an error, a log or a file."""

import json
import sqlite3
from contextlib import closing

import pytest

from teamsrl_hf.cli import main
from teamsrl_hf.commands.arguments import guarded
from teamsrl_hf.errors import UserError
from teamsrl_hf.models.endpoint import EndpointGenerator
from teamsrl_hf.models.factory import check_model, make_generator
from teamsrl_hf.redaction import excerpt, redact, refuse_secrets, shown, token_variable

PLANTED = "PLANTED-pw-9f8e7d"
# No prefix that anybody lists, all of them identifiers or nearly: what tells them is that no variable has the name.
PASTED = [
    "gsk_PLANTEDabcDEF123456",
    "AIzaSyPLANTED12345678901234567890",
    "xai_PLANTED123",
    "PLANTED0123456789abcdef",
    "planted",
    "PLANTED-1234",
    "PLANTED KEY",
    "$PLANTED",
    "a" * 40 + "PLANTED",
    "Bearer PLANTED",
]
COMMON = [
    "--chooser",
    "uniform",
    "--instructor",
    "rulebook",
    "--reviewer",
    "rulebook",
    "--operations_per_episode",
    "1",
]


def seen(tmp_path, capfd):
    """All that a command left behind: what it said and every byte of its files."""
    files = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file() and file.suffix != ".yaml")
    return "".join(capfd.readouterr()).encode() + files


@pytest.mark.parametrize("pasted", PASTED)
def test_a_key_in_place_of_its_variables_name_is_refused_unshown(pasted, tmp_path, capfd):
    expert = json.dumps({"endpoint": "m@https://host.example/v1", "api_key_env": pasted})
    (tmp_path / "run.yaml").write_text(f"expert: {expert}\n")
    for command in (["evolve", *COMMON], ["compare"]):
        for given in (["--expert", expert], ["--config", str(tmp_path / "run.yaml")]):
            assert main([*command, *given, "--output_dir", str(tmp_path / "out")]) == 2
            told = seen(tmp_path, capfd)
            assert b"api_key_env must name an environment variable" in told
            assert b"planted" not in told.lower()
    assert not (tmp_path / "out").exists()


def test_a_variable_that_is_set_is_taken_and_a_misspelt_one_gets_a_suggestion(monkeypatch):
    monkeypatch.setenv("ACME_API_KEY", PLANTED)
    assert EndpointGenerator("m", "https://host.example/v1", api_key_env="ACME_API_KEY").api_key_env == "ACME_API_KEY"
    assert redact(f"the key {PLANTED} is wrong") == "the key *** is wrong"
    with pytest.raises(UserError, match="did you mean 'ACME_API_KEY'"):
        token_variable("ACME_API_KYE")
    with pytest.raises(UserError, match="api_key_env of endpoint must be a text, not something else"):
        check_model({"endpoint": "m@https://host.example/v1", "api_key_env": [PLANTED]})


WRONG_SPECS = [
    "https://user:PLANTED@host.example/v1",
    "user:PLANTED@host.example/v1",
    "endpont:m@https://user:PLANTED@host.example/v1",
    "endpoint:m@https://user:PLANTED@host.example/v1",
    "endpoint:m@https://PLANTED@host.example/v1",
    "endpoint:user:PLANTED@host.example/v1",
    "endpoint:m@https://host.example/v1?key=PLANTED",
    "endpoint:m@https://host.example/v1?api-key=PLANTED",
    "endpoint:m@https://host.example/v1?PLANTED",
    "endpoint:m@https://host.example/v1#PLANTED",
    "endpoint:m@HTTPS://USER:PLANTED@HOST.EXAMPLE/V1",
    "PLANTEDabcDEF1234567890",
    '{"endpoint": "m@https://user:PLANTED@host.example/v1"}',
    '{"endpoint": "m@https://host.example/v1", "api_key_env": "PLANTED',
    '{"endpoint": "m@https://host.example/v1", "api_key": "PLANTED"}',
    '{"endpoint": "https://user:PLANTED@host.example/v1"}',
]


@pytest.mark.parametrize("spec", WRONG_SPECS)
def test_no_wrong_specification_of_a_model_shows_a_password(spec, tmp_path, capfd):
    for option in ("--expert", "--expart"):
        assert main(["evolve", *COMMON, f"{option}={spec}", "--output_dir", str(tmp_path / "out")]) == 2
        assert b"planted" not in seen(tmp_path, capfd).lower()
    with pytest.raises(UserError) as refused:
        make_generator(spec)
    assert "planted" not in str(refused.value).lower()


@pytest.mark.parametrize("option", ["--policy", "--seeds", "--ledger", "--license", "--output_dir", "--no_such"])
def test_a_login_in_any_option_is_refused_unshown_and_nothing_is_made(option, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    argv = [
        "evolve",
        *COMMON,
        "--expert",
        "rulebook",
        "--output_dir",
        "out",
        option,
        "https://ada:PLANTED@host.example/x",
    ]
    assert main(argv) == 2
    assert b"PLANTED" not in seen(tmp_path, capfd)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "yaml",
    [
        "expert: [m, {api_key_env: PLANTED}]",
        "expert: {endpoint: m@https://host/v1, api_key_env: PLANTED",
        'expert: "endpoint:m@https://u:PLANTED@h',
        "expert: &PLANTED x\nreviewer: *PLANTED2",
        "temperature: {PLANTED: 1}",
        "PLANTED: @x",
    ],
)
def test_broken_yaml_is_told_without_its_lines(yaml, tmp_path, capfd):
    (tmp_path / "run.yaml").write_text(yaml + "\n")
    assert (
        main(["evolve", *COMMON, "--config", str(tmp_path / "run.yaml"), "--output_dir", str(tmp_path / "out")]) == 2
    )
    assert b"PLANTED" not in seen(tmp_path, capfd)


def test_neither_a_line_nor_a_traceback_shows_a_token(monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", f"{PLANTED}\n")
    monkeypatch.setenv("TEAMSRL_TRACEBACK", "1")
    for kind in (UserError, OSError, KeyError):

        def fail(kind=kind):
            try:
                raise ValueError(f"Authorization: {PLANTED}")
            except ValueError as error:
                raise kind(f"https://ada:pw-9f8e7d@host/v1?key={PLANTED}") from error

        assert guarded(fail) in (1, 2)
        told = capsys.readouterr().err
        assert "Traceback" in told
        assert "pw-9f8e7d" not in told


def test_common_endpoints_and_paths_are_taken_and_shown_as_they_are():
    for text in (
        *("endpoint:org/tiny:fast@http://127.0.0.1:8000/v1", "endpoint:m@api.openai.com/v1", "ada@example.org"),
        *("hf://datasets/ada/seeds@v1/a.parquet", "git@github.com:ada/x", "/data/a@b/c", "runs/sk-test", "hf_model"),
        *("No file 'a:b' at 12:30", "https://host.example:8000/v1", "https://host.example/a?page=2"),
    ):
        refuse_secrets("seeds", text)
        if "?" not in text:
            assert shown(text) == text


@pytest.mark.parametrize("token", ["short", "tok-PLANTED9f8e7d6c5b4a"])
def test_a_servers_answer_is_shown_without_the_token_that_was_sent(token):
    said = excerpt(f'<b>{{"error": "no {token}, not {token[:4]}{token[4:]}x \x1b[31m"}}</b>', token)
    assert token not in said
    assert "\x1b" not in said
    assert said.startswith('{"error": "no ***, not ***')


def test_names_from_data_move_no_cursor(tmp_path, capsys):
    name = "see\x1b[2Jds\u202e\x9b.jsonl"
    assert main(["quickstart", "--seeds", str(tmp_path / name), "--output_dir", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert "see" in told
    assert not {"\x1b", "\u202e", "\x9b"} & set(told)


def test_a_ledgers_roles_move_no_cursor(tmp_path, capsys):
    from teamsrl_hf.models.ledger import Ledger

    Ledger(tmp_path / "ledger.sqlite").close()
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as connection, connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(calls)")]
        values = ["role\x1b[2J" if name == "role" else b"k" if name == "key" else 0 for name in columns]
        connection.execute(
            f"INSERT INTO calls ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})", values
        )
    assert main(["ledger", str(tmp_path)]) == 0
    assert "\x1b" not in capsys.readouterr().out
