"""`DatasetEvolver.write`: from seeds to a finished folder in one call, from Python, on one process and on several."""

import json
import os
import re
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
from asked import EVOLVE_RULES
from datasets import load_dataset
from endpoint_server import EndpointServer, rulebook_answer
from huggingface_hub import DatasetCard

from teamsrl_hf import (
    OPERATIONS,
    Budget,
    BudgetExhausted,
    DatasetEvolver,
    Decontamination,
    EndpointGenerator,
    EvolverConfig,
    Ledger,
    Operation,
    Price,
    Rulebook,
    ScriptedGenerator,
    Seed,
    load_seeds,
    split_seeds,
    uniform_chooser,
    with_prompts,
)
from teamsrl_hf.cli import load_recipe
from teamsrl_hf.errors import NothingMade, UserError
from teamsrl_hf.paths import resource
from teamsrl_hf.publish.lineage import read_lineage
from teamsrl_hf.runs import read_run

ROOT = Path(__file__).parent.parent
SEEDS = [Seed(f"s{i}", f"Explain to a beginner how machine number {i} came about.") for i in range(12)]
TWO = EvolverConfig(operations_per_episode=2)
RULES = ["--chooser", "uniform", *EVOLVE_RULES]
FOLDER = {"README.md", "data", "trajectories", "ledger.sqlite", "run.json", "lineage.json", "report.html"}


def _evolver(kind=DatasetEvolver, model=None, args=TWO, operations=OPERATIONS, **options):
    model = model or Rulebook()
    return kind(model, model, uniform_chooser(operations), operations, args, **options)


def _parquet(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*.parquet"))}


def test_one_call_leaves_a_folder_that_loads_and_says_what_it_holds(tmp_path):
    written = _evolver().write(SEEDS[:9], tmp_path / "out", SEEDS[9:], license="mit", language="de")
    assert {path.name for path in (tmp_path / "out").iterdir()} - {"plots"} == FOLDER
    rows = load_dataset(str(written.folder))
    assert written.folder == tmp_path / "out"
    assert written.rows == len(rows["train"]) + len(rows["test"]) > 0
    assert set(rows["test"]["seed_id"]) <= {seed.id for seed in SEEDS[9:]}
    steps = load_dataset(str(written.folder), "trajectories")["train"]
    assert sum(written.rejections.values()) >= len(steps) - len(rows["train"]) - 3 * 2
    assert written.summary == read_run(written.folder)["summary"]
    card = DatasetCard.load(written.folder / "README.md")
    assert (card.data.license, card.data.language) == ("mit", ["de"])
    assert "the `uniform` baseline picked" in card.content
    assert "`DatasetEvolver.write` from Python." in card.content
    assert "9 seeds are in `train` and 3 in `test`\n" in card.content
    assert "built into" not in card.content.split("## How it was made")[1]
    assert read_lineage(written.folder, "dataset")["seeds"]["test"] == ["s9", "s10", "s11"]


def test_python_and_the_command_write_the_same_rows(tmp_path):
    (tmp_path / "seeds.jsonl").write_text("".join(json.dumps({"instruction": s.instruction}) + "\n" for s in SEEDS))
    options = [*RULES, "--operations_per_episode", "2", "--seeds", str(tmp_path / "seeds.jsonl")]
    load_recipe("evolve_dataset").main([*options, "--output_dir", str(tmp_path / "command")])
    train, test = split_seeds(load_seeds(str(tmp_path / "seeds.jsonl")))
    _evolver().write(train, tmp_path / "python", test)
    assert _parquet(tmp_path / "python") == _parquet(tmp_path / "command") != {}


def test_a_finished_folder_is_left_as_it_is_and_nothing_is_asked(tmp_path):
    first = _evolver().write(SEEDS, tmp_path)
    model = ScriptedGenerator(lambda request: pytest.fail("asked"), "rulebook")
    again = _evolver(model=model).write(SEEDS, tmp_path)
    assert (first.was_complete, again.was_complete) == (False, True)
    assert (again.rows, again.rejections, again.calls) == (first.rows, first.rejections, first.calls)


def test_a_folder_of_something_else_or_of_another_run_is_refused(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "diary.txt").write_text("Monday")
    with pytest.raises(UserError, match="is not empty"):
        _evolver().write(SEEDS, tmp_path / "notes")
    _evolver().write(SEEDS, tmp_path / "out")
    for changed, words in (
        ({"args": EvolverConfig(operations_per_episode=3)}, "operations_per_episode = 2, not 3"),
        ({"operations": OPERATIONS[:3]}, "a run with operations = "),
        ({"model": ScriptedGenerator(lambda request: "", "other")}, "expert = 'rulebook', not 'other'"),
    ):
        with pytest.raises(UserError, match=words):
            _evolver(**changed).write(SEEDS, tmp_path / "out")
    with pytest.raises(UserError, match="a run with seeds = "):
        _evolver().write(SEEDS[1:], tmp_path / "out")
    with pytest.raises(UserError, match="knows no licence 'Apache 2'"):
        _evolver().write(SEEDS, tmp_path / "new", license="Apache 2")
    assert not (tmp_path / "new").exists()


class _Once(DatasetEvolver):
    """Keeps one row of each operation."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.kept = set()

    def accept(self, candidate):
        if (name := candidate.transition.operation) in self.kept:
            return "had_it"
        reason = super().accept(candidate)
        if reason is None:
            self.kept.add(name)
        return reason


def test_the_evolver_stays_as_it_is_so_that_a_second_folder_gets_the_same(tmp_path):
    seeds = load_seeds()[:24]
    evolver = _evolver(_Once, filters=[Decontamination({"exam": [seed.text for seed in seeds[:3]]}, short=4)])
    first, second = (evolver.write(seeds, tmp_path / name) for name in ("first", "second"))
    assert evolver.kept == set()
    assert first.rejections["had_it"] > 0
    assert first.rows == second.rows <= len(OPERATIONS)
    assert _parquet(first.folder) == _parquet(second.folder)
    assert evolver.filters[0].matches == {"exam": 0}
    count = first.rejections["contaminated"]
    assert count > 0
    assert f"repeat a text of `exam`: {count}." in (second.folder / "README.md").read_text()
    assert "`_Once.accept` decided which rows are kept." in (first.folder / "README.md").read_text()


def test_a_copy_shares_what_can_be_called_or_not_be_copied_and_has_its_own_of_the_rest():
    evolver = _evolver(_Once)
    evolver.kept.add("breadth")
    evolver.lookup, evolver.lock = {"a": [1]}, threading.Lock()
    copy = evolver.fresh()
    copy.kept.add("deepen")
    copy.lookup["a"].append(2)
    assert (evolver.kept, evolver.lookup) == ({"breadth"}, {"a": [1]})
    assert (copy.expert, copy.chooser, copy.lock) == (evolver.expert, evolver.chooser, evolver.lock)


def test_a_stopped_run_notes_its_calls_and_continues_without_asking_twice(tmp_path):
    with EndpointServer() as server:
        model = EndpointGenerator("stand-in", server.url)
        evolver = _evolver(_Once, model, operations=with_prompts("large"))
        whole = evolver.write(SEEDS, tmp_path / "whole")
        needed = Counter(entry.key for entry in server.log)
        server.endpoint.reset()
        with pytest.raises(BudgetExhausted) as stopped:
            evolver.write(SEEDS, tmp_path / "out", budget=Budget(calls=10))
        assert "calls     expert" in stopped.value.__notes__[0]
        assert not (tmp_path / "out" / "README.md").exists()
        done = evolver.write(SEEDS, tmp_path / "out", budget=Budget(cost=1.0), prices={"stand-in": Price(1, 1)})
        assert Counter(entry.key for entry in server.log) == needed
    assert _parquet(done.folder) == _parquet(whole.folder)


def test_an_open_ledger_and_models_that_it_records_already_are_used_as_they_are(tmp_path):
    with Ledger(tmp_path / "mine.sqlite") as ledger:
        recorded = ledger.record(Rulebook())
        first = _evolver(model=recorded).write(SEEDS, tmp_path / "first")
        calls = ledger.calls
        second = _evolver(model=recorded).write(SEEDS, tmp_path / "second", ledger=ledger)
        assert calls == ledger.calls > 0
        with pytest.raises(UserError, match="to the Ledger"):
            _evolver(model=recorded).write(SEEDS, tmp_path / "third", budget=Budget(calls=1))
    assert _parquet(first.folder) == _parquet(second.folder)
    assert not (first.folder / "ledger.sqlite").exists()


def test_a_run_without_a_row_is_an_error_that_counts_its_rejections(tmp_path):
    model = ScriptedGenerator(lambda request: "Equal", "parrot")
    with pytest.raises(NothingMade, match="no row came of 12 seeds") as ended:
        _evolver(model=model).write(SEEDS, tmp_path)
    assert ended.value.__notes__[0].startswith("rows      0 from 12 seeds\nrejected  ")
    assert read_run(tmp_path)["summary"]["rows"] == 0


def test_it_works_where_an_event_loop_runs_and_loads_neither_torch_nor_datasets(tmp_path):
    script = f"""
import asyncio, sys
from teamsrl_hf import DatasetEvolver, OPERATIONS, Rulebook, load_seeds, uniform_chooser

async def cell():
    model = Rulebook()
    evolver = DatasetEvolver(model, model, uniform_chooser(OPERATIONS), OPERATIONS)
    return evolver.write(load_seeds()[:5], {str(tmp_path / "out")!r}, show_progress=False)

print(asyncio.run(cell()).rows > 0, [name for name in ("torch", "datasets", "pandas") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("True []\n", "")


OWN_CARD = """{{ meta }}
# Birds, {{ statistics.rows }} rows
{% for operation in operations %}{{ operation.name | code }} {% endfor %}
"""


def test_a_users_own_template_makes_the_card_from_python_and_from_the_command(tmp_path):
    (tmp_path / "card.md").write_text(OWN_CARD)
    written = _evolver().write(SEEDS, tmp_path / "python", card_template=tmp_path / "card.md")
    options = [*RULES, "--test_size", "0", "--card_template", str(tmp_path / "card.md")]
    summary = load_recipe("evolve_dataset").main([*options, "--output_dir", str(tmp_path / "command")])
    for folder, rows in ((written.folder, written.rows), (tmp_path / "command", summary["rows"])):
        card = (folder / "README.md").read_text()
        assert f"---\n# Birds, {rows} rows\n`breadth` `add_constraints` " in card
        assert len(load_dataset(str(folder), split="train")) == rows
    assert f"card_template: {tmp_path}" not in (tmp_path / "command" / "lineage.json").read_text()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{{ meta }}\n\n{% for %}", "card.md, line 3 can't be filled in: "),
        ("{{ meta }}\n{{ rows }}", "card.md can't be filled in: 'rows' is undefined"),
        ("{{ meta }}\n{{ statistics.rows / statistics.birds }}", "can't be filled in: "),
        ("# Birds\n{{ statistics.rows }} rows", "must begin with {{ meta }}"),
        (None, "Can't read the card template "),
    ],
)
def test_a_template_that_cannot_be_used_is_refused_before_anything_is_asked(text, complaint, tmp_path):
    if text is not None:
        (tmp_path / "card.md").write_text(text)
    model = ScriptedGenerator(lambda request: pytest.fail("asked"))
    with pytest.raises(UserError, match=re.escape(complaint)):
        _evolver(model=model).write(SEEDS, tmp_path / "out", card_template=tmp_path / "card.md")
    assert not (tmp_path / "out").exists()


def test_a_changed_template_is_another_run(tmp_path):
    (tmp_path / "card.md").write_text(OWN_CARD)
    _evolver().write(SEEDS, tmp_path / "out", card_template=tmp_path / "card.md")
    (tmp_path / "card.md").write_text(OWN_CARD + "More.")
    with pytest.raises(UserError, match="a run with card_template = "):
        _evolver().write(SEEDS, tmp_path / "out", card_template=tmp_path / "card.md")


def test_an_operation_of_ones_own_and_a_choice_of_ones_own_are_named_by_the_card(tmp_path):
    class Alternating(DatasetEvolver):
        def choose(self, state, seed):
            return self.operations[state.step % 2]

    operations = (OPERATIONS[2], Operation("politely", "Ask for a polite answer."))

    def answer(request):
        text = request.messages[-1]["content"]
        number = re.search(r"machine number (\d+)", text)[1]
        if "Equal" in text:
            return "Not equal"
        return f"Explain politely, with its causes, how machine number {number} came about, in {len(text)} words."

    written = _evolver(Alternating, ScriptedGenerator(answer, "scripted"), operations=operations).write(
        SEEDS, tmp_path
    )
    card = (tmp_path / "README.md").read_text()
    assert f"`{Alternating.__qualname__}.choose` picked" in card
    assert "- `politely`: `Ask for a polite answer.`" in card
    assert written.rows > 0


def _example():
    """The README's script with a subclass."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    (script,) = (block for block in blocks if "class LettersFirst" in block)
    return script


def test_the_example_is_short():
    lines = [line for line in _example().splitlines() if line.strip() and not line.startswith(("from", "import"))]
    assert len(lines) <= 20


def _letter(payload):
    """A letter where one is asked for, else what the rulebook says."""
    content = payload["messages"][-1]["content"]
    number = re.search(r"machine number (\d+)", content)
    if "Ask for the answer as a letter" in content:
        return f"Write to a mechanic, as a letter, how machine number {number[1]} came about and what can break."
    return rulebook_answer(payload)


def test_the_example_is_published_from_one_process_and_from_two_and_no_call_is_made_twice(tmp_path):
    from hub_server import Hub

    pushed, asked = {}, {}
    with Hub() as hub, EndpointServer(_letter) as server:
        for processes in (1, 2):
            folder = tmp_path / str(processes)
            folder.mkdir()
            lines = [json.dumps({"instruction": seed.instruction}) + "\n" for seed in SEEDS]
            (folder / "seeds.jsonl").write_text("".join(lines))
            script = (
                _example()
                .replace("MODEL@https://HOST/v1", f"m@{server.url}")
                .replace("USER/", f"ada/{processes}")
                .replace("*OPERATIONS)", "*with_prompts('large'))")
                .replace("import OPERATIONS,", "import with_prompts,")
            )
            (folder / "letters.py").write_text(script)
            launch = ["-m", "accelerate.commands.launch", "--num_processes", "2", "--main_process_port", "0"]
            launch += ["--config_file", str(resource("accelerate_configs/ddp.yaml"))]
            environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_planted8", "HF_HUB_OFFLINE": "0"}
            environment |= {"HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(ROOT)}
            command = [sys.executable, *(launch if processes > 1 else []), "letters.py"]
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200)
            assert done.returncode == 0, done.stderr[-3000:]
            assert ("Walking" in done.stderr) == (processes > 1)
            asked[processes] = Counter(entry.key for entry in server.log)
            server.endpoint.reset()
            repo = hub.repos["dataset", f"ada/{processes}letters"]
            pushed[processes] = repo.commits[repo.sha(None)]
            assert len(repo.commits) == 2  # As made, and one push.
    assert set(asked[1].values()) == set(asked[2].values()) == {1}
    assert asked[1] == asked[2]
    rows = {name: data for name, data in pushed[1].items() if name.endswith(".parquet")}
    assert rows == {name: data for name, data in pushed[2].items() if name.endswith(".parquet")} != {}
    table = load_dataset(str(tmp_path / "2" / "outputs" / "letters"))["train"]
    assert "as_a_letter" in table["operation"]
