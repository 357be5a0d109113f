"""The modules for the `evaluate` library: loaded by path, they give what the functions give."""

from pathlib import Path

import pytest
import yaml

import teamsrl_hf
from teamsrl_hf.evaluation.embeddings import hashed_embeddings
from teamsrl_hf.evaluation.measures import diversity_measures
from teamsrl_hf.models.base import Request, ScriptedGenerator
from teamsrl_hf.models.ledger import Ledger
from teamsrl_hf.text.seeds import load_seeds

METRICS = Path(teamsrl_hf.__file__).parent / "evaluation" / "metrics"
NAMES = sorted(folder.name for folder in METRICS.iterdir() if (folder / "README.md").is_file())
TEXTS = [seed.text for seed in load_seeds()[:40]]


@pytest.fixture
def load():
    evaluate = pytest.importorskip("evaluate", reason="needs the extra `evaluation`")
    return lambda name: evaluate.load(str(METRICS / name), module_type="measurement")


def test_there_are_the_five_that_were_promised():
    assert NAMES == [
        "instruction_complexity",
        "instruction_diversity",
        "instruction_novelty",
        "instruction_validity",
        "query_efficiency",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_is_a_space_that_the_hub_accepts(name):
    text = (METRICS / name / "README.md").read_text(encoding="utf-8")
    front = yaml.safe_load(text.split("---")[1])
    assert front["sdk"] == "gradio"
    assert (METRICS / name / front["app_file"]).is_file()
    assert {"evaluate", "measurement"} <= set(front["tags"])
    assert "teamsrl-hf" in (METRICS / name / "requirements.txt").read_text()
    assert f'"{name}.py"' in (METRICS / name / front["app_file"]).read_text()


def test_diversity_is_that_of_the_function(load):
    found = load("instruction_diversity").compute(data=TEXTS)
    assert found == diversity_measures(TEXTS, hashed_embeddings)


def test_novelty_takes_seeds_of_another_number(load):
    found = load("instruction_novelty").compute(data=TEXTS[:2], seeds=TEXTS[1:5])
    assert found["copies"] == 0.5


def test_complexity_needs_no_network(load):
    found = load("instruction_complexity").compute(data=["The cat sat on the mat."])
    assert found["flesch_kincaid_grade"] == pytest.approx(-1.45)


def test_validity_takes_answers_or_none(load):
    measurement = load("instruction_validity")
    found = measurement.compute(data=["b b", "c c"], instructions=["b b", "d d"])
    assert found["valid_instructions"] == 0.5
    assert "valid_responses" not in found
    found = measurement.compute(data=["b b", "c c"], instructions=["b b", "d d"], responses=["Sorry, no.", "c"])
    assert found["valid_responses"] == 0.5


def test_query_efficiency_reads_a_ledger(load, tmp_path):
    from teamsrl_hf.environment.rollout import run_async

    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        model = ledger.record(ScriptedGenerator(lambda request: "yes"))
        for content in "abcd":
            run_async(model(Request("expert", ({"role": "user", "content": content},))))
    measurement = load("query_efficiency")
    found = measurement.compute(data=[1, 0, 1], ledger=str(tmp_path))
    assert found["calls_per_row"] == 2
    with pytest.raises(ValueError, match="Give either ledger"):
        measurement.compute(data=[1])
    with pytest.raises(ValueError, match="There is no ledger"):
        measurement.compute(data=[1], ledger=str(tmp_path / "none"))
