"""Evolving with constraints that code can check: who adds them, what rows carry, and what becomes of bad answers."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from asked import pack_of
from fulfil import BASE, fulfil

from teamsrl_hf import (
    OPERATIONS,
    Completion,
    DatasetEvolver,
    EvolverConfig,
    Example,
    Ledger,
    Operation,
    Rejection,
    Rulebook,
    ScriptedGenerator,
    Seed,
    UserError,
    Verifier,
    uniform_chooser,
)
from teamsrl_hf.cli import main
from teamsrl_hf.evolve.shards import read_candidates, write_candidates
from teamsrl_hf.publish.counts import DatasetStatistics
from teamsrl_hf.publish.dataset_writer import default_row, features, trajectory_row
from teamsrl_hf.text.operations import facts_of, prompts_digest, select_operations, with_proofs
from teamsrl_hf.text.plans import write_rows
from teamsrl_hf.verifiers import Constraint, Proof, sample

ADD = next(operation for operation in OPERATIONS if operation.name == "add_constraints")
BREADTH, DEEPEN = OPERATIONS[0], next(operation for operation in OPERATIONS if operation.name == "deepen")
SUBJECTS = ("bread", "glass", "honey", "steel", "paper", "silk", "cheese", "rope", "ink", "salt")
SEEDS = [Seed(f"s{i}", f"Explain how people make {one} in the old town.") for i, one in enumerate(SUBJECTS)]
NO_COMMA = Verifier("punctuation:no_comma")
SENTENCE = "Do not use any commas."


def _no_comma(text, carried, key):
    return None if carried else Constraint(SENTENCE, NO_COMMA)


COMMALESS = Operation("commaless", "Forbid commas.", proof=Proof(draw=_no_comma))
OWN = (COMMALESS,)
PAIR = (COMMALESS, DEEPEN)
ALL = {"dedup_threshold": 1.0}  # Texts that differ by a word are no near-duplicates.


def _in_turn(states, uniforms):
    return [state.step for state in states]


def _evolve(expert, operations=OWN, seeds=SEEDS[:1], steps=1, reviewer=None, instructor=None, **settings):
    args = EvolverConfig(operations_per_episode=steps, **settings)
    reviewer = reviewer or ScriptedGenerator(lambda request: "Different")
    chooser = _in_turn if steps == 2 else uniform_chooser(operations)
    evolver = DatasetEvolver(expert, reviewer, chooser, operations, args, instructor=instructor)
    return [result for chain in evolver.evolve(seeds) for result in chain]


def _keeps(request):
    """Answers that keep the constraint that each seed's text draws, as the evolver draws it."""
    known = {f"{seed.text} {found.sentence}": found for seed in SEEDS for found in [sample(seed.text)]}
    found = known[request.messages[0]["content"]]
    return fulfil(found.verifier.id, f"{BASE}.", json.loads(found.verifier.arguments))


def test_code_appends_a_constraint_without_a_call_and_the_row_carries_its_verifier():
    expert, reviewer = ScriptedGenerator(_keeps), ScriptedGenerator([])
    rows = _evolve(expert, (ADD,), SEEDS, reviewer=reviewer, constraints="rules")
    assert [type(row) for row in rows] == [Example] * 10
    assert (expert.calls, reviewer.calls) == (10, 0)
    for seed, row in zip(SEEDS, rows):
        candidate, found = row.candidate, sample(seed.text)
        assert candidate.transition.rewrite == f"{seed.text} {found.sentence}"
        assert (candidate.transition.edit, candidate.transition.rewriter) == (found.sentence, "rules")
        assert candidate.transition.verifiers == (found.verifier,)
        assert candidate.verified == (True,)
        assert dict(candidate.calls) == {"answer": 1}
    assert len({row.candidate.transition.verifiers[0].id for row in rows}) >= 6


def test_without_the_setting_a_model_adds_whatever_it_likes():
    rows = _evolve(Rulebook(), (ADD,), SEEDS, reviewer=Rulebook())
    assert {row.candidate.transition.rewriter for row in rows} == {"rulebook"}
    assert {row.candidate.transition.verifiers for row in rows} == {()}


def test_a_failing_answer_is_asked_for_once_more_with_what_failed():
    asked = []

    def answer(request):
        asked.append(request.messages)
        return "Flour, water." if len(asked) == 1 else "Flour and water."

    (row,) = _evolve(ScriptedGenerator(answer))
    assert row.candidate.response == "Flour and water."
    assert (row.candidate.verified, row.candidate.failed_first) == ((True,), ("punctuation:no_comma",))
    assert dict(row.candidate.calls) == {"answer": 2}
    assert [turn["role"] for turn in asked[1]] == ["user", "assistant", "user"]
    assert asked[1][0]["content"] == f"{SEEDS[0].text} {SENTENCE}"
    assert asked[1][1]["content"] == "Flour, water."
    assert f"- {SENTENCE}" in asked[1][2]["content"]


@pytest.mark.parametrize(("retries", "calls"), [(0, 1), (1, 2), (3, 4)])
def test_an_answer_that_still_fails_is_rejected_by_the_name_of_the_verifier(retries, calls):
    expert = ScriptedGenerator(lambda request: f"One, {expert.calls}.")
    (row,) = _evolve(expert, answer_retries=retries)
    assert isinstance(row, Rejection)
    assert row.reason == "punctuation:no_comma"
    assert row.candidate.verified == (False,)
    assert expert.calls == calls
    assert dict(row.candidate.calls) == {"answer": calls}


@pytest.mark.parametrize("second", ["", Completion("", "m", error="HTTP 500"), "I cannot help with that."])
def test_a_second_answer_that_cannot_be_used_leaves_the_first_and_its_verdict(second):
    (row,) = _evolve(ScriptedGenerator(["Flour, water.", second]))
    assert row.reason == "punctuation:no_comma"
    assert row.candidate.response == "Flour, water."
    assert row.candidate.transition.error is None
    assert dict(row.candidate.calls) == {"answer": 2}


def test_filters_see_the_second_answer():
    seen = []
    args = EvolverConfig(operations_per_episode=1)
    evolver = DatasetEvolver(
        ScriptedGenerator(["Flour, water.", "Flour and water."]),
        Rulebook(),
        uniform_chooser(OWN),
        OWN,
        args,
        filters=[lambda candidate: seen.append(candidate.response)],
    )
    list(evolver.evolve(SEEDS[:1]))
    assert seen == ["", "Flour and water."]


def test_a_constraint_that_a_later_rewrite_loses_or_changes_is_no_longer_carried():
    def expert(request):
        if request.task.kind == "answer":
            return "Flour, water and time."
        deeper = f"{request.task.texts[0]} Which tools do they need for it?"
        breadth = "Describe how weavers of silk and of linen worked by hand long ago."
        return deeper if "deepen" in request.task.plans[0] else breadth

    for operation, verifiers in ((DEEPEN, (NO_COMMA,)), (BREADTH, ())):
        operations = (COMMALESS, operation)
        args = EvolverConfig(operations_per_episode=2, answer_retries=0)
        models = ScriptedGenerator(expert), ScriptedGenerator(lambda request: "Different")
        evolver = DatasetEvolver(*models, _in_turn, operations, args)
        first, second = [result for chain in evolver.evolve(SEEDS[:1]) for result in chain]
        assert first.candidate.transition.verifiers == (NO_COMMA,)
        assert second.candidate.transition.verifiers == verifiers
        assert isinstance(second, Rejection if verifiers else Example)


def test_a_model_may_word_the_constraint_and_its_words_must_say_it():
    proof = Proof(draw=_no_comma, by_model=True)
    for said, reason in (("Leave out every comma.", None), ("Be brief.", "constraint_not_said")):
        operations = (Operation("commaless", "Forbid commas.", proof=proof),)

        def expert(request, said=said):
            content = request.messages[0]["content"]
            if request.task.kind == "answer":
                return "Flour and water."
            assert f'"{SENTENCE}"' in content
            return f"{SEEDS[0].text} {said}"

        (row,) = _evolve(ScriptedGenerator(expert), operations, constraints="model")
        assert getattr(row, "reason", None) == reason
        assert row.candidate.transition.rewrite == f"{SEEDS[0].text} {said}"
        assert row.candidate.transition.verifiers == (() if reason else (NO_COMMA,))


def test_a_model_that_writes_edits_is_asked_for_the_requirement_in_other_words():
    def expert(request):
        if request.task.kind == "answer":
            return "Flour and water."
        assert request.sampling.max_tokens == 64
        return "Leave out every comma."

    add = Operation("commaless", "Forbid commas.", ADD.edits, proof=Proof(draw=_no_comma))
    (row,) = _evolve(ScriptedGenerator(expert, whole=False), (add,), constraints="model")
    assert row.candidate.transition.rewrite == f"{SEEDS[0].text} Leave out every comma."
    assert row.candidate.transition.edit == "Leave out every comma."
    assert row.candidate.verified == (True,)


@pytest.mark.parametrize("method", ["plan", "plan_answer", "packed"])
@pytest.mark.parametrize("kept", [True, False])
def test_a_plan_gives_the_expert_its_constraints_and_code_appends_what_is_left_out(method, kept):
    prompts = []

    def expert(request):
        prompts.append(request.messages[-1]["content"])
        if request.task.kind == "answer":
            return "Flour and water."
        texts = [text if kept else text.replace(f" {SENTENCE}", "") for text in request.task.texts]
        finished = [f"{text} Which tools do they need?" for text in texts]
        if request.task.kind == "rewrite":
            return finished[0]
        return write_rows([(text, "Flour and water.") for text in finished], pack_of(request)[0])

    # The first step appends, the second is the expert's.
    rows = _evolve(ScriptedGenerator(expert), PAIR, SEEDS[:4], 2, instructor=_Walker(), method=method, **ALL)
    assert [type(row) for row in rows] == [Example] * 4
    assert f"{SEEDS[0].text} {SENTENCE}" in prompts[0]
    for seed, row in zip(SEEDS, rows):
        parts = (SENTENCE, "Which tools do they need?")
        assert row.candidate.transition.rewrite == " ".join((seed.text, *(parts if kept else parts[::-1])))
        assert row.candidate.transition.verifiers == (NO_COMMA,)
        assert row.candidate.verified == (True,)
        assert row.candidate.operations == ("commaless", "deepen")


class _Walker(ScriptedGenerator):
    """A free model that deepens by a further question each time."""

    def __init__(self):
        super().__init__(lambda request: f"{request.task.texts[0]} Why so, in case {self.calls}?")


def test_a_planned_answer_that_fails_is_asked_for_again_by_itself():
    def expert(request):
        if request.task.kind == "answer":
            return "Flour and water."
        return write_rows(
            [(f"{request.task.texts[0]} Which tools do they need?", "Flour, water.")], pack_of(request)[0]
        )

    (row,) = _evolve(ScriptedGenerator(expert), PAIR, steps=2, instructor=_Walker(), method="plan_answer")
    assert row.candidate.response == "Flour and water."
    assert row.candidate.failed_first == ("punctuation:no_comma",)
    calls = dict(row.candidate.calls)
    assert (calls["answer"], calls["rewrite"]) == (1, 1)


def test_a_model_that_writes_edits_sees_the_constraint_in_the_task_that_it_answers():
    def expert(request):
        assert f"Task: {SEEDS[0].text} {SENTENCE}" in request.messages[-1]["content"]
        return "1. What tools do bakers in that town need for it?\n[answer]\nFlour and water."

    edits = tuple(edit for edit in DEEPEN.edits if not edit.pattern)[:1] or DEEPEN.edits[:1]
    operations = (COMMALESS, Operation("deepen", DEEPEN.sentence, tuple(replace(edit, pattern="") for edit in edits)))
    expert = ScriptedGenerator(expert, whole=False)
    (row,) = _evolve(expert, operations, steps=2, instructor=_Walker(), method="plan_answer")
    assert isinstance(row, Example)
    assert row.candidate.transition.rewrite.startswith(f"{SEEDS[0].text} {SENTENCE} ")
    assert row.candidate.verified == (True,)


def test_a_plan_of_constraints_alone_costs_one_call_for_the_answer():
    expert = ScriptedGenerator(["Flour and water."])
    (row,) = _evolve(expert, instructor=_Walker(), method="plan_answer", constraints="model")
    assert row.candidate.transition.rewrite == f"{SEEDS[0].text} {SENTENCE}"  # In plans the wording is always ours.
    assert (expert.calls, dict(row.candidate.calls)) == (1, {"answer": 1})
    assert row.candidate.verified == (True,)


@pytest.mark.parametrize("method", ["stepwise", "plan", "plan_answer", "packed", "evol_instruct"])
def test_every_method_takes_constraints_by_rules(method):
    rows = _evolve(Rulebook(), OPERATIONS, SEEDS, 4, Rulebook(), Rulebook(), method=method, constraints="rules")
    carried = [row.candidate for row in rows if row.candidate.transition.verifiers]
    assert len(carried) >= 5
    for row in rows:
        candidate = row.candidate
        if candidate.verified:
            assert len(candidate.verified) == len(candidate.transition.verifiers)
        if isinstance(row, Example):
            assert all(candidate.verified)
            assert len(candidate.verified) == len(candidate.transition.verifiers)


def test_constraints_that_no_operation_adds_are_an_error():
    with pytest.raises(UserError, match="constraints is 'rules', but no operation adds any"):
        _evolve(Rulebook(), (DEEPEN,), constraints="rules")
    with pytest.raises(UserError, match="constraints is 'rule'; use unchecked, rules, model; did you mean 'rules'"):
        EvolverConfig(constraints="rule")
    with pytest.raises(UserError, match="answer_retries"):
        EvolverConfig(answer_retries=-1)
    with pytest.raises(UserError, match="'count:numbers' is held out"):
        Proof(kinds=("count:numbers",))


def test_users_own_operations_name_their_verifiers_in_yaml():
    entry = {"name": "shape", "sentence": "Ask for a form.", "verifiers": ["detectable_format:json_format"]}
    (operation,) = select_operations(["shape"], [entry])
    assert operation.proof == Proof(("detectable_format:json_format",))
    assert operation.proof.constraint(SEEDS[0].text).verifier.id == "detectable_format:json_format"
    with pytest.raises(UserError, match="No verifier 'detectable_format:jsonformat'"):
        select_operations(["shape"], [{**entry, "verifiers": ["detectable_format:jsonformat"]}])
    with pytest.raises(UserError, match="must be a list of ids, not 'json'"):
        select_operations(["shape"], [{**entry, "verifiers": "json"}])


def test_records_tell_operations_with_proofs_apart_and_stay_plain():
    plain, proved = OPERATIONS, with_proofs(OPERATIONS, "rules")
    assert with_proofs(OPERATIONS, "unchecked") == OPERATIONS
    digests = {prompts_digest(plain), prompts_digest(proved), prompts_digest(with_proofs(OPERATIONS, "model"))}
    assert len(digests) == 3
    told = json.loads(json.dumps(facts_of(COMMALESS)))
    assert told["proof"] == {"kinds": [], "by_model": False, "draw": "test_proofs._no_comma"}
    assert "proof" not in facts_of(DEEPEN)


def test_candidates_with_proofs_pass_between_processes():
    rows = _evolve(ScriptedGenerator(["Flour, water.", "Flour and water."]))
    chains = [[row.candidate for row in rows]]
    assert read_candidates(write_candidates(chains)) == chains


def test_the_columns_are_the_same_with_and_without_constraints():
    for rows in (_evolve(ScriptedGenerator(["Flour."])), _evolve(Rulebook(), (ADD,), SEEDS, reviewer=Rulebook())):
        for row in rows:
            assert list(trajectory_row(row)) == list(features()["trajectories"])
            if isinstance(row, Example):
                assert list(default_row(row)) == list(features()["default"])


def test_the_statistics_count_answers_by_kind_of_verifier():
    statistics = DatasetStatistics()
    texts = [["Flour."], ["Flour, water.", "Flour and water."], ["A, b.", "C, d."]]
    for seed, answers in zip(SEEDS, texts):
        statistics.add(_evolve(ScriptedGenerator(answers), seeds=[seed]))
    assert statistics.summary()["verifiers"] == {
        "punctuation:no_comma": {"answers": 3, "passed_at_first": 1, "passed": 2}
    }
    assert statistics.summary()["rejections"] == {"punctuation:no_comma": 1}


def _write(folder, ledger=None):
    def expert(request):
        text = request.messages[0]["content"]
        if "steel" in text or ("glass" in text and len(request.messages) == 1):
            return "No bread, never."
        return _keeps(request)

    args = EvolverConfig(operations_per_episode=1, constraints="rules")
    model = ScriptedGenerator(expert)
    evolver = DatasetEvolver(model, Rulebook(), uniform_chooser((ADD,)), (ADD,), args)
    evolver.write(SEEDS, folder, license="mit", show_progress=False, ledger=ledger)
    return model.calls


RECHECK = """
import sys, json, pyarrow.parquet as pq
from teamsrl_hf.verifiers import Verifier, verified
rows = [row for file in sys.argv[1:] for row in pq.read_table(file).to_pylist()]
again = [verified(row["completion"][-1]["content"], [Verifier(**one) for one in row["verifiers"]]) for row in rows]
assert [list(one) for one in again] == [row["verified"] for row in rows]
ours = [name for name in sys.modules if name.startswith("teamsrl_hf.") and not name.startswith("teamsrl_hf.verifiers")]
print(json.dumps([len(rows), all(map(all, again)), sorted(ours)]))
"""


def test_a_published_dataset_is_proved_again_by_a_script_that_knows_only_the_verifiers(tmp_path, capsys):
    calls = _write(tmp_path / "rows")
    files = [str(file) for file in (tmp_path / "rows" / "data").glob("*.parquet")]
    done = subprocess.run([sys.executable, "-c", RECHECK, *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows, passed, ours = json.loads(done.stdout)
    assert (rows >= 8, passed, ours) == (True, True, ["teamsrl_hf.errors", "teamsrl_hf.types"])
    card = (tmp_path / "rows" / "README.md").read_text()
    kinds = {sample(seed.text).verifier.id for seed in SEEDS}
    assert all(f"| `{id}` |" in card.partition("passed at first")[2] for id in kinds)
    assert main(["ledger", str(tmp_path / "rows")]) == 0
    printed = capsys.readouterr().out
    assert all(f"verified {id}" in printed for id in kinds)
    assert main(["ledger", "--json", str(tmp_path / "rows")]) == 0
    counted = json.loads(capsys.readouterr().out)["verifiers"]
    assert sum(one["answers"] for one in counted.values()) == 10
    again = _write(tmp_path / "again", tmp_path / "rows" / "ledger.sqlite")
    assert (calls > 10, again) == (True, 0)
    for file in files:
        copy = tmp_path / "again" / "data" / file.rpartition("/")[2]
        assert copy.read_bytes() == Path(file).read_bytes()


def test_a_killed_run_asks_only_for_what_is_missing(tmp_path):
    class Killed(BaseException):
        pass

    answers = []

    def expert(request):
        if len(answers) == 3:
            raise Killed
        answers.append(request)
        return "One, two." if len(request.messages) == 1 else "One and two."

    def run(model):
        with Ledger(tmp_path / "ledger.sqlite") as ledger:
            recorded = ledger.record(ScriptedGenerator(model))
            return [type(row).__name__ for row in _evolve(recorded, seeds=SEEDS[:3], concurrency=1, **ALL)]

    with pytest.raises(Killed):
        run(expert)
    more = []

    def rest(request):
        more.append(request)
        return "One, two." if len(request.messages) == 1 else "One and two."

    assert run(rest) == ["Example"] * 3
    assert len(answers) + len(more) == 6
