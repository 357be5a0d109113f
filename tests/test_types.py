"""Names of roles, calls, verdicts and reasons: one table each, written out as the plain texts they always were."""

import ast
import json
from pathlib import Path

import pyarrow as pa
import pytest

from teamsrl_hf import types
from teamsrl_hf.types import CallKind, Finish, Name, Reason, Review, Role, SeedProblem, TaskKind, Tier, Verdict

ROOT = Path(__file__).parent.parent
TABLES = (Role, CallKind, TaskKind, Finish, Tier, Verdict, Reason, SeedProblem)


def _texts_in(file):
    return {node.value for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Constant)}


@pytest.mark.parametrize("file", sorted([*ROOT.glob("teamsrl_hf/**/*.py"), *ROOT.glob("recipes/**/*.py")]), ids=str)
def test_no_verdict_and_no_reason_is_spelled_outside_their_table(file):
    # "empty", "refusal" and "malformed" are words of other things, too.
    names = {*Verdict, *Reason, *SeedProblem} - {"equal", "empty", "refusal", "malformed"}
    if file.stem != "types":
        assert {str(text) for text in names & _texts_in(file)} == set()


def test_a_request_never_spells_its_role():
    for file in [*ROOT.glob("teamsrl_hf/**/*.py"), *ROOT.glob("recipes/**/*.py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Request":
                assert not isinstance(node.args[0], ast.Constant), file


def test_every_table_is_tested():
    tables = {kind for kind in vars(types).values() if isinstance(kind, type) and issubclass(kind, Name)}
    assert tables - {Name} == set(TABLES)


@pytest.mark.parametrize("name", [name for table in TABLES for name in table], ids=repr)
def test_a_name_is_written_printed_and_compared_as_the_text_it_is(name):
    text = name.value
    assert name == text
    assert hash(name) == hash(text)
    assert (str(name), repr(name), f"{name:>12}") == (text, repr(text), f"{text:>12}")
    assert json.dumps({name: [name]}) == json.dumps({text: [text]})
    assert pa.array([name]).to_pylist() == [text]
    assert {name: 1}[text] == sorted([name, text]).count(name) - 1


def test_the_names_are_those_of_published_rows():
    assert list(CallKind) == ["rewrite", "review", "answer", "walk"]
    assert list(Verdict) == ["not_equal", "equal", "unreadable"]
    assert repr(Review(Verdict.EQUAL, (Reason.UNCHANGED,))).startswith(
        "Review(verdict='equal', violations=('unchanged',)"
    )
