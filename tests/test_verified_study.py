"""The study of verified rows: a file checked again by verifiers alone, answers for a reader, tables of results."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet
import pytest
from test_proofs import _write

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from recipes.verified import ask, recheck, study, train  # noqa: E402
from teamsrl_hf.evaluation.study import BEGIN, END, with_tables  # noqa: E402
from teamsrl_hf.runs import read_run  # noqa: E402
from teamsrl_hf.text.seeds import load_seeds  # noqa: E402
from teamsrl_hf.verifiers import KINDS, Verifier, named_in, passes  # noqa: E402

FOLDER = ROOT / "recipes" / "verified"


@pytest.fixture
def rows(tmp_path):
    _write(tmp_path / "rows")
    return tmp_path / "rows"


def _recheck(folder):
    return subprocess.run([sys.executable, FOLDER / "recheck.py", folder], capture_output=True, text=True)


def test_a_published_file_passes_again_by_verifiers_alone(rows):
    done = _recheck(rows)
    assert (done.returncode, done.stderr) == (0, "")
    found = ast.literal_eval(done.stdout)
    assert found["failed"] == []
    assert found["rows"] == found["rows_with_verifiers"] == found["verifiers"] >= 6


def test_the_second_check_imports_nothing_of_ours_but_verifiers():
    tree = ast.parse((FOLDER / "recheck.py").read_text())
    imported = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    imported += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    assert [name for name in imported if "teamsrl" in name or name.startswith("recipes")] == ["teamsrl_hf.verifiers"]


def test_a_row_whose_answer_was_changed_is_named(rows):
    (file,) = sorted((rows / "data").glob("train-*.parquet"))
    table = pyarrow.parquet.read_table(file)
    changed = table.to_pylist()
    changed[0]["completion"][-1]["content"] = ""
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(changed, table.schema), file)
    assert recheck.recheck(rows)["failed"] == [changed[0]["id"]]
    assert _recheck(rows).returncode == 1


def test_the_study_runs_both_methods_and_tells_them(tmp_path):
    study.main(["run", "--output_dir", str(tmp_path), "--model", "rulebook", "--max_seeds", "12"])
    readme = tmp_path / "README.md"
    readme.write_text(f"Before.\n{BEGIN}\n{END}\nAfter.\n")
    study.main(["table", str(tmp_path), "--labels", str(tmp_path / "none.jsonl"), "--readme", str(readme)])
    results = json.loads((tmp_path / "results.json").read_text())
    assert [record["method"] for record in results["runs"]] == ["stepwise", "plan_answer"]
    for record in results["runs"]:
        assert record["failed_again"] == 0
        assert record["rechecked"] >= record["rows_with_verifiers"]
        assert sum(kind["answers"] for kind in record["kinds"].values()) > 0
    assert study.render(results) in readme.read_text()


def test_each_kind_is_asked_of_seeds_that_it_fits_and_every_request_says_it():
    seeds = load_seeds()
    for id in ("punctuation:no_comma", "words:no_consecutive", "detectable_format:json_keys"):
        found = ask.constrained(KINDS[id], seeds, 3)
        assert len(found) == 3
        assert all(named_in(constraint.sentence, constraint.verifier) for _, constraint in found)


def test_a_reader_gets_answers_to_the_constraint_first_and_none_twice(tmp_path):
    shared = {"model": "m", "instruction": "Name a bird.", "constraint": "…", "arguments": "{}"}
    kinds = ["punctuation:no_comma"] * 5 + ["detectable_content:no_digits"] * 2
    rows = [{**shared, "kind": kind, "answer": f"A bird{',' * (n == 4)} {'x' * n}"} for n, kind in enumerate(kinds)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["draw", str(tmp_path / "a.jsonl"), "--output", str(tmp_path / "read.jsonl"), "--each", "4"]
    ask.main(command)
    drawn = ask.read_rows(tmp_path / "read.jsonl")
    counted = [(row["kind"], row["asked"]) for row in drawn]
    assert counted.count(("punctuation:no_comma", True)) == 4
    assert counted.count(("detectable_content:no_digits", True)) == counted.count((kinds[-1], False)) == 2
    assert all(passes(row["answer"], Verifier(row["kind"], row["arguments"])) for row in drawn)
    ask.main([*command, "--without", str(tmp_path / "read.jsonl")])
    again = ask.read_rows(tmp_path / "read.jsonl")
    assert not {(row["kind"], row["answer"]) for row in drawn} & {(row["kind"], row["answer"]) for row in again}


def test_kinds_for_short_answers_exist_and_are_not_held_out():
    assert [id for id in train.SHORT_KINDS if id not in KINDS or KINDS[id].held_out] == []


def test_the_training_study_runs_from_the_answers_to_the_tables(tmp_path):
    from teamsrl_hf.sft.tiny import build_tiny_model

    shared = ["--output_dir", str(tmp_path), "--max_seeds", "24"]
    study.main(["run", *shared, "--model", "rulebook", "--methods", "stepwise"])
    calls = read_run(tmp_path / "stepwise")["summary"]["calls"]
    train.main(["answers", *shared, "--model", "rulebook"])
    assert read_run(tmp_path / "answers")["summary"]["rows"] > 0 < calls["answer"]
    rows = train.read_answers(tmp_path)
    passing = sum(row["passed"] for row in rows)
    assert 2 <= passing < len(rows)
    base = str(build_tiny_model([row["rewrite"] for row in rows], tmp_path / "base"))
    small = ["--model", base, "--seeds", "1", "--epochs", "1", "--steps", "1"]
    small += ["--prompts_per_kind", "1", "--max_tokens", "4"]
    train.main(["sft", *shared, *small])
    found = [json.loads(file.read_text()) for file in sorted(tmp_path.glob("sft-*.json"))]
    assert [(one["arm"], one["rows"]) for one in found] == [
        ("base", 0),
        ("unverified", passing),
        ("verified", passing),
    ]
    assert found[2]["passed_in_training"] == 1 > found[1]["passed_in_training"]
    told = study.render({"facts": {}, "runs": [], "reading": [], "training": found, "grpo": []})
    assert f"| verified rows | {passing} | 1.00 | 1 |" in told


def test_what_a_reader_called_a_false_accept_cannot_occur_today():
    rows = ask.read_rows(FOLDER / "labels.jsonl")
    assert sum(row["round"] == 1 for row in rows) == 200
    assert [row["id"] for row in rows if row["label"] == study.FALSE and study.passes_today(row)] == []


def test_the_committed_readme_tells_the_committed_results():
    results, readme = json.loads((FOLDER / "results.json").read_text()), (FOLDER / "README.md").read_text()
    assert with_tables(readme, study.render(results)) == readme
    assert results["reading"] == study.reading(FOLDER / "labels.jsonl")
