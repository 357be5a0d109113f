"""Plans of edits: what is asked for in one call, which lines are read of the answer, and what becomes of the rows."""

from dataclasses import replace
from itertools import product

import pytest

from teamsrl_hf import (
    OPERATIONS,
    Completion,
    DatasetEvolver,
    EvolverConfig,
    Example,
    ScriptedGenerator,
    Seed,
)
from teamsrl_hf.environment.edit_plans import (
    EditedRow,
    Lost,
    Step,
    edit_plan_messages,
    edit_plan_request,
    read_edited,
    steps_for,
)
from teamsrl_hf.models.base import Sampling
from teamsrl_hf.text.edits import Edit
from teamsrl_hf.text.operations import Operation, select_operations, with_prompts
from teamsrl_hf.text.rules import response_violations

BREAD, MOSS = "Why does bread rise?", "Is moss a plant?"
READER = Operation(
    "reader",
    "Name a reader.",
    (
        Edit(
            "reader",
            "Name a reader.",
            "Write it for {edit}.",
            ((BREAD, "a baker"), (MOSS, "a florist")),
            responses=(("Yeast lifts it.", "As you know, baker."), ("It is.", "Florists sell it.")),
        ),
    ),
)
CAUSE = Operation(
    "cause",
    "Ask for a cause.",
    (
        Edit(
            "cause",
            "Ask for a cause.",
            "Also: {edit}",
            ((BREAD, "Why is salt added?"),),
            responses=(("Yeast lifts it.", "Salt gives taste."),),
        ),
    ),
)
OTHER = Operation("other", "Another task.", (Edit("other", "Another task.", pattern="Explain ", whole=True),))
PLAIN = Operation("plain", "Make it longer.")
TIDE = "Explain the tide."
BOTH = steps_for(TIDE, (READER, CAUSE))
ITEMS = [(TIDE, BOTH), ("Name a fish.", steps_for("Name a fish.", (READER,)))]


def test_the_worked_examples_of_a_plan_are_those_of_its_edits():
    head = "Write one numbered line for each:"
    assert [message["content"] for message in edit_plan_messages([(TIDE, BOTH)], answers=False)] == [
        f"Task: Why does bread rise?\n\n{head}\n1. Name a reader.\n2. Ask for a cause.",
        "1. a baker\n2. Why is salt added?",
        f"Task: Is moss a plant?\n\n{head}\n1. Name a reader.",
        "1. a florist",
        f"Task: Explain the tide.\n\n{head}\n1. Name a reader.\n2. Ask for a cause.",
    ]


def test_a_worked_answer_says_something_on_each_line_and_an_example_without_one_is_not_shown():
    silent = replace(READER.edits[0], responses=(*READER.edits[0].responses[:1], ("", "")))
    steps = (Step(READER, silent), *BOTH[1:])
    _, written, last = (message["content"] for message in edit_plan_messages([(TIDE, steps)], answers=True))
    assert written == (
        "1. a baker\n2. Why is salt added?\n[answer]\nYeast lifts it.\nAs you know, baker.\nSalt gives taste."
    )
    assert "Then, below [answer], do the task with all that the lines add:\n1. Name a reader.\n2." in last


def test_the_example_of_a_pack_is_filled_as_the_pack_is():
    written = edit_plan_messages(ITEMS, answers=True)[1]["content"]
    assert written == (
        "[task 1]\n1. a baker\n2. Why is salt added?\n"
        "[answer]\nYeast lifts it.\nAs you know, baker.\nSalt gives taste."
        "\n\n[task 2]\n1. a florist\n[answer]\nIt is.\nFlorists sell it."
    )
    asked = edit_plan_messages(ITEMS, answers=True)[-1]["content"]
    assert asked.endswith(
        "[task 1]\nExplain the tide.\n\n1. Name a reader.\n2. Ask for a cause."
        "\n\n[task 2]\nName a fish.\n\n1. Name a reader."
    )


def test_lines_need_few_tokens_and_material_is_shown_where_an_answer_needs_it():
    text = "Find the highest tide.\n\n3 m, 5 m"
    steps = steps_for(text, (READER, CAUSE))
    for answers, tokens, shown in ((False, 128, False), (True, 2048, True)):
        request = edit_plan_request([(text, steps)], Sampling(max_tokens=2048), 0, answers)
        assert request.sampling.max_tokens == tokens
        assert ("3 m, 5 m" in request.messages[-1]["content"]) is shown
        assert (request.task.texts, request.task.plans) == ((text,), (("reader", "cause"),))


def test_an_operation_that_stands_twice_gets_two_edits_and_another_task_takes_the_place_of_what_was_before():
    deepen = next(one for one in OPERATIONS if one.name == "deepen")
    assert len({step.edit.name for step in steps_for(TIDE, (deepen, deepen))}) == 2
    assert [step.operation.name for step in steps_for(TIDE, (READER, OTHER, CAUSE))] == ["other", "cause"]
    assert steps_for(TIDE, (READER, PLAIN)) == ()


SAID = "1. a sailor\n2. Why does it come twice?"
TIDE_FOR_SAILORS = "Explain the tide. Write it for a sailor. Also: Why does it come twice?"


@pytest.mark.parametrize(
    "said",
    [
        SAID,
        f"Sure, here are the lines:\n\n{SAID}\n\nI hope this helps.",
        '**1.** "a sailor"\n**2.** Why does it come twice?',
        "2) Why does it come twice?\n1) a sailor",
        SAID.replace("\n", "\r\n"),
        f"<think>1. a draft\n2. Why a draft?</think>{SAID}",
        "a sailor\nWhy does it come twice?",
        f"{SAID}\n3. a line that nobody asked for",
    ],
    ids=["as asked", "words around", "bold", "other order", "crlf", "thought before", "no numbers", "one too many"],
)
def test_habits_of_models_lose_no_line(said):
    (row,) = read_edited(said, [(TIDE, BOTH)], answers=False)
    assert (row.text, row.problem, row.lost) == (TIDE_FOR_SAILORS, None, ())
    assert (row.carried_out, row.edits) == ((READER, CAUSE), ("a sailor", "Why does it come twice?"))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("2. a sailor", "repetitive_edit"),
        ("2. Why is salt added?", "copied_edit"),
        ("2. ...", "empty_edit"),
        ("", "empty_edit"),
        ("2. Why twice?\n2. Why thrice?", "empty_edit"),
    ],
)
def test_a_line_that_cannot_be_used_costs_its_operation_alone(line, problem):
    (row,) = read_edited(f"1. a sailor\n{line}", [(TIDE, BOTH)], answers=False)
    assert (row.text, row.carried_out, row.problem) == ("Explain the tide. Write it for a sailor.", (READER,), None)
    assert [(lost.operation, lost.problem) for lost in row.lost] == [(CAUSE, problem)]


def test_a_line_that_was_to_replace_the_task_costs_the_row():
    steps = steps_for(TIDE, (OTHER, CAUSE))
    (row,) = read_edited("1. Tide?\n2. Why is the moon to blame?", [(TIDE, steps)], answers=False)
    assert (row.text, row.problem, row.edits, row.carried_out) == (TIDE, "malformed_edit", ("Tide?",), ())


def test_a_row_without_a_line_that_can_be_used_says_why():
    (row,) = read_edited("1. a baker\n2. ?", [(TIDE, BOTH)], answers=False)
    assert row == EditedRow(TIDE, edits=("a baker",), lost=(Lost(CAUSE, "?", "empty_edit"),), problem="copied_edit")


def test_a_line_that_was_cut_is_none():
    (row,) = read_edited("1. a sailor\n2. Why does the", [(TIDE, BOTH)], answers=False, cut=True)
    assert (row.edits, [lost.problem for lost in row.lost]) == (("a sailor",), ["cut_off"])
    (row,) = read_edited("1. a sail", [(TIDE, BOTH)], answers=False, cut=True)
    assert row.problem == "cut_off"


ANSWERED = f"{SAID}\n[answer]\n1. The moon pulls.\n2. The earth turns."
PACK = f"[task 1]\n{ANSWERED}\n\n[task 2]\n1. a diver\n[answer]\nA cod."


def test_an_answer_stands_below_its_marker():
    for said in (ANSWERED, ANSWERED.replace("[answer]\n", "**[Answer]**: "), f"{ANSWERED}\n"):
        (row,) = read_edited(said, [(TIDE, BOTH)], answers=True)
        assert (row.text, row.problem, row.answer) == (
            TIDE_FOR_SAILORS,
            None,
            "1. The moon pulls.\n2. The earth turns.",
        )


@pytest.mark.parametrize(
    ("said", "cut", "problem"),
    [
        (SAID, False, "malformed"),
        (f"{SAID}\n[answer]\n ", False, "malformed"),
        (f"{ANSWERED}\n[answer]\nOnce more.", False, "malformed"),
        (ANSWERED, True, "answer_cut_off"),
        (f"{SAID}\n", True, "cut_off"),
        (f"{SAID}\n[answer]\nYeast lifts it. As you know, baker.", False, None),
    ],
)
def test_without_a_whole_answer_there_is_no_row(said, cut, problem):
    (row,) = read_edited(said, [(TIDE, BOTH)], answers=True, cut=cut)
    assert row.problem == problem


def test_an_answer_that_copies_a_worked_one_is_refused():
    edit = replace(CAUSE.edits[0], responses=(("The yeast eats sugar and lifts the dough with its gas.", ""),))
    said = "1. Why does it come twice?\n[answer]\nThe yeast eats sugar and lifts the dough with its gas."
    (row,) = read_edited(said, [(TIDE, (Step(CAUSE, edit),))], answers=True)
    assert row.problem == "copied_answer"


def test_the_rows_of_a_pack_are_read_apart():
    first, second = read_edited(PACK, ITEMS, answers=True)
    assert (first.text, first.answer) == (TIDE_FOR_SAILORS, "1. The moon pulls.\n2. The earth turns.")
    assert (second.text, second.answer) == ("Name a fish. Write it for a diver.", "A cod.")
    first, second = read_edited(PACK[:-2], ITEMS, answers=True, cut=True)
    assert (first.problem, second.problem) == (None, "answer_cut_off")


@pytest.mark.parametrize(
    ("said", "problems"),
    [
        (PACK.replace("The moon pulls.", "The moon pulls.\n[task 2]\n"), ["malformed", "malformed"]),
        (PACK.replace("[task 2]", "[task 3]"), [None, "malformed"]),
        (PACK.replace("[task 1]", ""), ["malformed", None]),
        ("[task 9] " * 20_000, ["malformed", "malformed"]),
        ("", ["malformed", "malformed"]),
    ],
)
def test_an_item_that_is_missing_or_stands_twice_is_malformed(said, problems):
    assert [row.problem for row in read_edited(said, ITEMS, answers=True)] == problems


def test_what_the_built_in_examples_show_is_read_back_as_it_is_shown():
    bare = [
        replace(one, edits=tuple(replace(edit, examples=(), responses=()) for edit in one.edits)) for one in OPERATIONS
    ]
    for one, other in product(range(len(OPERATIONS)), repeat=2):
        for first, second in product(range(len(OPERATIONS[one].edits)), range(len(OPERATIONS[other].edits))):
            places = ((one, first), (other, second))
            if one == other or any(OPERATIONS[op].edits[edit].form == "material" for op, edit in places):
                continue
            if OPERATIONS[other].edits[second].whole:
                continue
            asked = tuple(Step(OPERATIONS[op], OPERATIONS[op].edits[edit]) for op, edit in places)
            read = tuple(Step(bare[op], bare[op].edits[edit]) for op, edit in places)
            turns = edit_plan_messages([(TIDE, asked)], answers=True)
            for question, written in zip(turns[:-1:2], turns[1::2]):
                text = question["content"].split("\n\n")[0].removeprefix("Task: ")
                (row,) = read_edited(written["content"], [(text, read)], answers=True)
                same = asked[0].edit.ask == asked[1].edit.ask  # Then both examples are the same line.
                assert (row.problem, len(row.lost)) == (None, int(same)), written["content"]
                assert response_violations(row.answer, instruction=row.text) == ()


# In the evolver.


def _evolve(method, answer, plan, seeds, **settings):
    requests = []

    def expert(request):
        requests.append(request)
        return answer(request)

    steps = iter(plan * len(seeds))
    args = EvolverConfig(len(plan), method=method, concurrency=1, **settings)
    operations = (READER, CAUSE, OTHER, PLAIN)
    walker = ScriptedGenerator(
        lambda r: {"reader": "a fisherman", "cause": "Why does it ebb?"}.get(r.task.plans[0][0], "x"), whole=False
    )
    evolver = DatasetEvolver(
        ScriptedGenerator(expert, whole=False),
        ScriptedGenerator(lambda request: "Different"),
        lambda states, u: [next(steps)],
        operations,
        args,
        instructor=walker,
    )
    return [result for chain in evolver.evolve(seeds) for result in chain], requests


SEED = Seed("s", TIDE)


def test_a_plan_takes_one_call_for_all_of_its_edits_and_one_for_the_answer():
    answer = lambda request: SAID if request.task.kind == "rewrite" else "The moon pulls."  # noqa: E731
    (row,), requests = _evolve("plan", answer, [0, 1], [SEED])
    assert isinstance(row, Example)
    assert row.candidate.transition.rewrite == TIDE_FOR_SAILORS
    assert row.candidate.transition.edit == "a sailor\nWhy does it come twice?"
    assert row.candidate.operations == ("reader", "cause")
    assert [request.task.kind for request in requests] == ["rewrite", "answer"]
    assert requests[1].messages == ({"role": "user", "content": TIDE_FOR_SAILORS},)


def test_a_lost_operation_is_rejected_by_name_and_the_row_names_the_others():
    answer = lambda request: "1. a sailor\n2. ?" if request.task.kind == "rewrite" else "The moon."  # noqa: E731
    (row, lost), _ = _evolve("plan", answer, [0, 1], [SEED])
    assert (row.candidate.operations, row.candidate.transition.operation) == (("reader",), "reader")
    assert (lost.reason, lost.candidate.operations, lost.candidate.transition.edit) == ("empty_edit", ("cause",), "?")
    assert (lost.candidate.transition.rewrite, lost.candidate.calls) == (TIDE, ())
    assert lost.candidate.id != row.candidate.id


def test_a_plan_and_its_answer_take_one_call():
    (row,), requests = _evolve("plan_answer", lambda request: ANSWERED, [0, 1], [SEED])
    assert isinstance(row, Example)
    assert row.candidate.response == "1. The moon pulls.\n2. The earth turns."
    assert (len(requests), dict(row.candidate.calls)["rewrite"]) == (1, 1)


def test_a_row_that_cannot_be_read_is_asked_for_again_and_only_that():
    seeds = [SEED, Seed("f", "Explain the ebb."), Seed("g", "Explain the foam.")]

    def answer(request):
        rows = [
            f"[task {number}]\n1. a sailor\n2. Why on {text[12:-1]} days?\n[answer]\nOf {text}"
            for number, text in enumerate(request.task.texts, start=1)
        ]
        if len(rows) == 1:
            return rows[0]
        return "\n\n".join([rows[0], rows[1].replace("[answer]", "[reply]"), rows[2]])

    results, requests = _evolve("packed", answer, [0, 1], seeds, rows_per_call=3)
    assert [result.candidate.response for result in results] == [f"Of {seed.text}" for seed in seeds]
    assert [request.task.texts for request in requests] == [tuple(seed.text for seed in seeds), (seeds[1].text,)]
    assert [request.sample_index for request in requests] == [0, 1]
    assert [dict(result.candidate.calls).get("rewrite", 0) for result in results] == [1, 1, 0]


def test_a_model_that_can_write_no_line_gives_a_rejection_for_each_operation():
    results, requests = _evolve("plan_answer", lambda request: "1. ?\n2. ?\n[answer]\nIt ebbs.", [0, 1], [SEED])
    assert [(result.reason, result.candidate.operations) for result in results] == [
        ("empty_edit", ("reader", "cause")),
        ("empty_edit", ("cause",)),
    ]
    assert len(requests) == 2


def test_a_call_that_failed_leaves_the_text_and_no_row():
    failed = Completion("", "m", error="HTTP 500")
    (result,), _ = _evolve("plan_answer", lambda request: failed, [0, 1], [SEED], row_retries=0)
    assert (result.reason, result.candidate.transition.rewrite) == ("call_failed", TIDE)


def test_operations_without_edits_are_asked_for_as_whole_rewrites_apart_from_the_others():
    german = Seed("d", "Warum ist der Himmel am Abend manchmal rot?")
    english = Seed("e", "Why is the sky red in the evening?")
    operations = select_operations(["add_constraints"])
    asked = []

    def expert(request):
        asked.append((request.task.texts, request.messages[0]["content"].partition(" ")[0]))
        return "1. a pilot who flies at dusk\n[answer]\nDust."

    evolver = DatasetEvolver(
        ScriptedGenerator(expert, whole=False),
        ScriptedGenerator(lambda request: "Different"),
        lambda states, u: [0],
        operations,
        EvolverConfig(1, method="packed", row_retries=0),
        instructor=ScriptedGenerator(
            lambda r: "a pilot on leave" if len(r.messages) > 1 else f"{german.text} Nenne drei Gründe.", whole=False
        ),
    )
    results = [result for chain in evolver.evolve([german, english]) for result in chain]
    assert asked == [((english.text,), "Task:"), ((german.text,), "You")]
    assert [result.candidate.seed.id for result in results] == ["d", "e"]
    assert [getattr(result, "reason", None) for result in results] == ["malformed", None]


def test_the_set_large_asks_no_model_for_edits():
    for one in with_prompts("large"):
        assert steps_for(TIDE, (one,)) == ()
