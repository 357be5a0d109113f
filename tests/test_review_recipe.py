import json
import sys
from pathlib import Path

import pytest

from teamsrl_hf import Completion, ScriptedGenerator
from teamsrl_hf.cli import main
from teamsrl_hf.environment.verdicts import RawRewrite, judge_rows, read_rewrites

sys.path.insert(0, str(Path(__file__).parent.parent))  # Recipes are no installed package in a checkout.
from recipes import review
from recipes.gate import measure

ROWS = Path(__file__).parent / "data" / "rewrites.jsonl"
README = Path(measure.__file__).with_name("README.md")
GOOD = RawRewrite(
    "a", "deepen", "Why do cats purr?", "Sure!\n\nWhy do cats purr, and what does it tell a vet?", "stop"
)
BAD = RawRewrite("b", "deepen", "Why do cats purr?", "Cats purr with small muscles in their throat.", "stop")
CUT = RawRewrite("c", "deepen", "Why do cats purr?", "Why do cats purr, and which muscles", "length")


def _write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_each_rewrite_gets_a_verdict_a_reason_its_clean_text_and_a_reward():
    good, bad, cut = judge_rows([GOOD, BAD, CUT])
    assert {name: good[name] for name in ("id", "passed", "reason", "clean")} == {
        "id": "a",
        "passed": True,
        "reason": None,
        "clean": "Why do cats purr, and what does it tell a vet?",
    }
    assert 1 < good["reward"] <= 2
    assert (bad["passed"], bad["reason"], bad["reward"]) == (False, "not_a_request", 0)
    assert (cut["passed"], cut["reason"], cut["reward"]) == (False, "cut_off", 0)


def test_the_reviewer_is_asked_about_what_passes_alone_and_a_failed_call_gives_no_reward():
    equal = ScriptedGenerator(lambda request: "Equal")
    good, bad, _ = judge_rows([GOOD, BAD, CUT], equal)
    assert equal.calls == 1
    assert (good["reason"], good["reward"], bad["reason"]) == ("equal", 0, "not_a_request")
    failing = ScriptedGenerator(lambda request: Completion("", "m", error="HTTP 500"))
    (failed,) = judge_rows([GOOD], failing)
    assert (failed["passed"], failed["reason"], failed["reward"]) == (False, "call_failed", None)


def test_the_command_writes_a_line_for_each_row_in_order_and_prints_the_counts(tmp_path, capsys):
    path = _write(tmp_path / "in.jsonl", vars(GOOD), {**vars(BAD), "label": "answer"}, vars(CUT))
    out = tmp_path / "out.jsonl"
    assert main(["review", path, "--reviewer", "rulebook", "--output", str(out)]) == 0
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [list(row) for row in found] == [["id", "passed", "reason", "clean", "reward"]] * 3
    assert [row["id"] for row in found] == ["a", "b", "c"]
    assert "rejected  not_a_request 1, cut_off 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "Line 2 of .* is no JSON"),
        ("[1]", "Line 2 of .* is no object"),
        ('{"operation": "deepen", "instruction": "Name a bird.", "raw": null}', "Line 2 of .* has raw None"),
    ],
)
def test_a_broken_line_is_named(line, message, tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps(vars(GOOD)) + "\n" + line + "\n")
    with pytest.raises(ValueError, match=message):
        read_rewrites(path)


def test_a_missing_file_an_empty_one_and_the_input_as_output_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"Can't read .*none\.jsonl"):
        read_rewrites(tmp_path / "none.jsonl")
    with pytest.raises(ValueError, match="holds no line"):
        read_rewrites(_write(tmp_path / "empty.jsonl"))
    path = _write(tmp_path / "in.jsonl", vars(GOOD))
    with pytest.raises(ValueError, match="is the input itself"):
        review.main([path, "--output", path])
    assert len(read_rewrites(path)) == 1


def test_an_operation_of_which_nothing_is_known_meets_the_rules_that_suit_all():
    own = RawRewrite("a", "translate", "Nenne einen Vogel und drei Fische.", "Name a bird.")
    assert judge_rows([own])[0]["passed"]


def test_the_measure_of_our_own_rows_is_perfect_and_its_tables_are_those_of_the_counts(tmp_path):
    found = measure.measure(str(ROWS))
    everything = found["gate"]["all rows"]
    assert (everything["passed"], everything["passed_and_good"]) == (everything["good"],) * 2
    assert everything["auc"] == 1.0
    assert found["rules"]["talks_of_rewriting"]["bad"] >= 3
    assert all(not counts["good"] for counts in found["rules"].values())


def test_the_readme_of_the_gate_shows_the_committed_results_and_every_rule():
    results = json.loads(README.with_name("results.json").read_text())
    assert measure.with_tables(README.read_text(), results) == README.read_text()
    assert set(results["rules"]) == {"cut_off", *measure.REWRITE_RULES}
    gate = results["gate"]["all rows"]
    assert gate["passed_and_good"] / gate["passed"] >= 0.6
    assert gate["passed_and_good"] / gate["good"] >= 0.9
    assert gate["auc"] >= 0.85
