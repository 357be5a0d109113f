"""Edits: what a model is asked for, what code makes of its answer, and which answers it refuses."""

import asyncio
import json
from dataclasses import replace

import pytest

from teamsrl_hf import OPERATIONS, Request, ScriptedGenerator
from teamsrl_hf.environment.rewriting import ask_rewrite
from teamsrl_hf.environment.rollout import carry_out
from teamsrl_hf.models.base import Completion, Sampling
from teamsrl_hf.models.ledger import Ledger
from teamsrl_hf.text.edits import Edit, EditForm, compose, edit_messages, edit_problem, in_turn, tidy
from teamsrl_hf.text.material import as_json
from teamsrl_hf.text.operations import (
    Operation,
    facts_of,
    prompted_as,
    prompts_digest,
    select_operations,
    with_prompts,
)
from teamsrl_hf.text.prompts import read_prompts

READER = Edit("reader", "Name a reader.", "Write it for {edit}.", (("Why is grass green?", "a curious postman"),))
QUESTION = Edit("why", "Ask for a cause.", "Then answer this as well: {edit}", pattern="Why ")
POINTS = Edit("points", "Name three things.", "Consider in turn {edit}.", form=EditForm.ITEMS)
PARTS = Edit("parts", "Name three things.", "Follow the table.\n\n{table}", form=EditForm.ITEMS)
RECORD = Edit(
    "person", "Make one up.", form=EditForm.RECORD, examples=(("Why?", '{"name": "Ada", "goal": "a tune"}'),)
)
MATERIAL = Edit(
    "json", "Name them.", "They are under {key}.", form=EditForm.MATERIAL, pattern="[A-Za-z ]+$", fresh=False
)
PRICES = [{"what": "pen", "euros": "2"}, {"what": "ink", "euros": "9"}]
OTHER = Edit("other", "Write another task.", whole=True)
HEAD = "Which of these animals sleep in winter?"
TEXT = f"{HEAD}\n\nmarmot, bear, swift, fox"
DIFFERENT = ScriptedGenerator(lambda request: "Different")


def test_worked_examples_are_earlier_turns_and_the_material_is_left_out():
    assert edit_messages(READER, TEXT) == (
        {"role": "user", "content": "Task: Why is grass green?\n\nName a reader."},
        {"role": "assistant", "content": "a curious postman"},
        {"role": "user", "content": "Task: Which of these animals sleep in winter?\n\nName a reader."},
    )
    assert edit_messages(MATERIAL, TEXT)[-1]["content"].endswith("marmot, bear, swift, fox\n\nName them.")


def test_braces_in_an_instruction_reach_the_model_as_they_are():
    assert "{text} {0}" in edit_messages(READER, "Explain {text} {0}.")[-1]["content"]


@pytest.mark.parametrize(
    ("edit", "answer", "expected"),
    [
        (READER, "a zoo keeper.", f"{HEAD} Write it for a zoo keeper.\n\nmarmot, bear, swift, fox"),
        (
            QUESTION,
            "Why do they not starve?",
            "Which of these animals sleep in winter? Then answer this as well: Why do they not starve?\n\n"
            "marmot, bear, swift, fox",
        ),
        (OTHER, "Explain how eels find the sea.", "Explain how eels find the sea."),
        (
            PARTS,
            "food, fur and nest",
            "Which of these animals sleep in winter? Follow the table.\n\n| Point | Share of the answer |\n|---|---|\n"
            "| Food | 50 % |\n| Fur | 30 % |\n| Nest | 20 % |\n\nmarmot, bear, swift, fox",
        ),
        (
            MATERIAL,
            "Wild animals",
            'Which of these animals sleep in winter? They are under "wild_animals".\n\n'
            '{"wild_animals": ["marmot", "bear", "swift", "fox"]}',
        ),
    ],
)  # fmt: skip
def test_what_is_added_stands_before_the_material(edit, answer, expected):
    assert edit_problem(edit, TEXT, answer) is None
    assert compose(edit, TEXT, answer) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Name three birds", "Name three birds. Write it for a pilot."),
        ('Who wrote "Emma"?', 'Who wrote "Emma"? Write it for a pilot.'),
        ('Explain the title "Why?"', 'Explain the title "Why?" Write it for a pilot.'),
        ("Sort these:\n\n- ant\n- bee", "Sort these. Write it for a pilot.\n\n- ant\n- bee"),
        ("Sort these\n\n- ant\n- bee", "Sort these. Write it for a pilot.\n\n- ant\n- bee"),
        ("Say what it prints:\nprint(1)", "Say what it prints:\nprint(1)\nWrite it for a pilot."),
        ("翻译下面的句子：\n\nHello", "翻译下面的句子。Write it for a pilot.\n\nHello"),
        ("说出三种鸟", "说出三种鸟。Write it for a pilot."),
        ("บอกชื่อนกสามชนิด", "บอกชื่อนกสามชนิด Write it for a pilot."),
    ],
)
def test_what_is_added_is_a_sentence_of_its_own_and_parts_nothing_from_its_material(text, expected):
    assert compose(READER, text, "a pilot") == expected


def test_an_edit_after_one_that_announces_a_table_does_not_come_between_the_two():
    outline = Edit("outline", "Name things.", "Divide the answer as this table says:\n\n{table}", form=EditForm.ITEMS)
    divided = compose(outline, HEAD, "food, fur and nest")
    assert divided.startswith(f"{HEAD} Divide the answer as this table says:\n\n| Point |")
    further = compose(READER, divided, "a pilot")
    assert further.startswith(f"{HEAD} Divide the answer as this table says. Write it for a pilot.\n\n| Point |")


@pytest.mark.parametrize(
    ("edit", "answer", "problem"),
    [
        (READER, "", "empty_edit"),
        (READER, '"..."', "empty_edit"),
        (READER, "a curious postman", "copied_edit"),
        (READER, "a postman", "copied_edit"),
        (READER, "winter animals", "vacuous_edit"),
        (READER, "a reader", "vacuous_edit"),
        (READER, "a hunter of the hunter of hunters", "repetitive_edit"),
        (READER, " ".join(f"word{number}x{chr(97 + number)}" for number in range(25)), "malformed_edit"),
        (QUESTION, "They eat a lot before.", "malformed_edit"),
        (POINTS, "food and fur", "malformed_edit"),
        (POINTS, "Food, fur and food", "malformed_edit"),
        (POINTS, "food, fur and nest", None),
        (RECORD, '{"name": "Ida", "goal": "a warm den"}', None),
        (RECORD, '{"name": "Ida"}', "malformed_edit"),
        (RECORD, '{"name": "Ida", "goal": 7}', "malformed_edit"),
        (RECORD, '{"name": "Ida", "goal": ', "malformed_edit"),
        (OTHER, "Which animals sleep in the winter months?", "vacuous_edit"),
    ],
)
def test_an_edit_that_cannot_be_used_is_refused_by_name(edit, answer, problem):
    assert edit_problem(edit, TEXT, answer) == problem


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("a zoo keeper", "a zoo keeper"),
        ('  "a zoo keeper"\n', "a zoo keeper"),
        ("- a zoo keeper\n- a hunter", "a zoo keeper"),
        ("Answer: “a zoo keeper”", "a zoo keeper"),
        ("Here is one:\n\n**a zoo keeper**", "a zoo keeper"),
        ('"fur" and "nest"', '"fur" and "nest"'),
        ('{"name": "Ida"}', '{"name": "Ida"}'),
        (" \n", ""),
    ],
)
def test_an_answer_is_read_without_what_models_put_around_it(said, line):
    assert tidy(said) == line


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("Who may vote?\n\n- Ana: 17\n- Ben: 34", ["Ana: 17", "Ben: 34"]),
        ("Which is dearest?\n\n| what | euros |\n|---|---|\n| pen | 2 |\n| ink | 9 |", PRICES),
        ("Which is dearest?\n\nwhat;euros\npen;2\nink;9", PRICES),
        ("Who is free?\n\nAna: 9-11, 13-16\nBen: 8-10, 14-15", ["Ana: 9-11, 13-16", "Ben: 8-10, 14-15"]),
        ("Why is the sky blue?", None),
        ("Turn this table into a list.\n\n| a | b |\n|---|---|\n| 1 | 2 |", None),
        ("What does it print?\n\nfor x in data:\n    y = x", None),
        ("Sum it up.\n\nThe mill burnt down on Sunday, nobody was hurt, and the cause is not yet known.", None),
    ],
)  # fmt: skip
def test_material_becomes_json_where_its_format_does_not_matter(text, values):
    assert as_json(text, "k") == (values and json.dumps({"k": values}))


def test_edits_in_english_are_asked_for_english_instructions_alone():
    deepen = next(one for one in OPERATIONS if one.name == "deepen")
    assert len(deepen.edits_for("Compare tea and coffee.")) == 2
    assert deepen.edits_for("Warum ist der Himmel blau?") == deepen.edits_for("空はなぜ青いのですか") == ()
    assert len(replace(deepen, english=False).edits_for("Warum ist der Himmel blau?")) == 2


def test_every_edit_has_its_turn_and_a_further_sample_starts_with_the_next():
    edits = tuple(Edit(name, "?") for name in "abc")
    firsts = {in_turn(edits, f"Explain machine {number}.")[0].name for number in range(30)}
    assert firsts == {"a", "b", "c"}
    orders = ["".join(edit.name for edit in in_turn(edits, "Explain rain.", number)) for number in range(3)]
    assert sorted(orders) == ["ab", "bc", "ca"]


def _ask(operation, answers, text="Explain rain.", **sampling):
    requests = []

    def answer(request: Request):
        requests.append(request)
        return answers[len(requests) - 1]

    model = ScriptedGenerator(answer, whole=False)
    return asyncio.run(ask_rewrite(operation, text, model, "instructor", Sampling(**sampling))), requests


def test_a_refused_edit_is_followed_by_another():
    operation = Operation("either", "Ask for more.", (READER, replace(READER, name="listener")))
    made, requests = _ask(operation, ["", "a weather man", "unused"])
    assert (made.text, made.edit) == ("Explain rain. Write it for a weather man.", "a weather man")
    assert len(requests) == 2


def test_the_last_refused_edit_says_why_there_is_no_rewrite():
    operation = Operation("either", "Ask for more.", (READER, replace(READER, name="listener")))
    made, _ = _ask(operation, ["", "a curious postman"])
    assert (made.review.violations, made.review.passed) == (("copied_edit",), False)
    assert (made.rewrite, made.edit) == ("Explain rain.", "a curious postman")


def test_an_edit_needs_few_tokens_and_one_that_is_cut_in_its_line_is_none():
    operation = Operation("reader", "Ask for more.", (READER,))
    cut = Completion("a weather man who", "m", finish_reason="length")
    made, requests = _ask(operation, [cut], max_tokens=2048)
    assert requests[0].sampling.max_tokens == 64
    assert (made.review.violations, made.edit) == (("cut_off",), "a weather man who")
    rambling = Completion("a weather man\nThis reader is somebody who", "m", finish_reason="length")
    made, _ = _ask(operation, [rambling])
    assert (made.text, made.edit) == ("Explain rain. Write it for a weather man.", "a weather man")


def test_a_failed_call_is_not_followed_by_another():
    made, requests = _ask(Operation("reader", "Ask.", (READER, QUESTION)), [Completion("", "m", error="gone")])
    assert (made.error, len(requests)) == ("gone", 1)


@pytest.mark.parametrize(
    ("scores", "reader"),
    [
        ((-1.01,), "a sea captain"),
        ((-1.0,), "a weather man"),
        ((), "a weather man"),  # An endpoint does not say how sure it is.
    ],
)
def test_an_edit_that_the_model_is_unsure_of_is_followed_by_another(scores, reader):
    sure = replace(READER, min_logprob=-1.0)
    operation = Operation("either", "Ask for more.", (sure, replace(sure, name="listener")))
    answers = [Completion("a weather man", "m", scores=scores), Completion("a sea captain", "m", scores=(-0.1,))]
    made, requests = _ask(operation, answers)
    assert made.text == f"Explain rain. Write it for {reader}."
    assert all(request.scored for request in requests)


def test_all_edits_that_a_model_may_be_unsure_of_are_asked_for_and_else_two():
    three = [replace(READER, name=name) for name in "abc"]
    asked = []
    for edits in (three, [replace(edit, min_logprob=-1.0) for edit in three]):
        operation = Operation("either", "Ask for more.", tuple(edits))
        unsure = [Completion(f"a weather man {n}", "m", scores=(-1.5,)) for n in range(3)]
        asked.append(len(_ask(operation, ["", "", ""] if edits == three else unsure)[1]))
    assert asked == [2, 3]


def test_an_unsure_edit_is_rejected_by_its_name_and_again_from_the_ledger(tmp_path):
    operation = Operation("reader", "Ask for more.", (replace(READER, min_logprob=-1.0),))
    calls = []

    def answer(request: Request):
        calls.append(request)
        return Completion("a weather man", "m", scores=(-1.5,))

    for _ in range(2):
        with Ledger(tmp_path / "ledger.sqlite") as ledger:
            model = ledger.record(ScriptedGenerator(answer, "m", whole=False))
            made = asyncio.run(ask_rewrite(operation, "Explain rain.", model, "expert", Sampling()))
        assert (made.review.violations, made.rewrite, made.edit) == (
            ("unsure_edit",),
            "Explain rain.",
            "a weather man",
        )
    assert len(calls) == 1


def test_a_step_keeps_the_edit_it_was_composed_of_and_a_whole_rewrite_has_none():
    operation = Operation("reader", "Ask for more.", (READER,))
    writer = ScriptedGenerator(lambda request: "a weather man", whole=False)
    step = asyncio.run(carry_out(("Explain rain.",), operation, writer, DIFFERENT))
    assert (step.rewrite, step.edit) == ("Explain rain. Write it for a weather man.", "a weather man")
    whole = ScriptedGenerator(lambda request: "Explain rain and hail.")
    step = asyncio.run(carry_out(("Explain rain.",), operation, whole, DIFFERENT))
    assert (step.rewrite, step.edit, step.review.passed) == ("Explain rain and hail.", "", True)


# Sets of prompts.


def test_no_built_in_example_is_refused_by_its_own_edit():
    for operation in (*OPERATIONS, *with_prompts("tiny")):
        for edit in operation.edits:
            for place, (instruction, answer) in enumerate(edit.examples):
                others = replace(edit, examples=edit.examples[:place] + edit.examples[place + 1 :])
                assert edit_problem(others, instruction, answer) is None, (operation.name, edit.name, answer)
                assert tidy(answer) == answer


def test_small_prompts_ask_for_edits_and_large_ones_for_whole_rewrites():
    small, large = with_prompts("small"), with_prompts("large")
    assert small == OPERATIONS
    assert [one.sentence for one in small] == [one.sentence for one in large]
    assert all(one.edits for one in small)
    assert not any(one.edits for one in large)


def test_tiny_prompts_ask_three_operations_for_what_a_model_must_be_sure_of_and_leave_the_others_as_they_are():
    tiny, small = with_prompts("tiny"), with_prompts("small")
    changed = [one.name for one, other in zip(tiny, small, strict=True) if one != other]
    assert changed == ["breadth", "add_constraints", "deepen"]
    edits = [edit for one in tiny if one.name in changed for edit in one.edits]
    assert all(edit.min_logprob is not None and -1.5 < edit.min_logprob < 0 for edit in edits)
    # Of two edits in turn, the second must not ask for the same thing again.
    for one in tiny:
        asks = [edit.ask for edit in one.edits if one.name in changed]
        assert all(first != second for first, second in zip(asks, [*asks[1:], *asks[:1]]))


def test_an_edit_that_asks_for_no_certainty_is_recorded_as_before_there_was_any():
    told = facts_of(Operation("reader", "Ask for more.", (READER, replace(READER, min_logprob=-1.0))))["edits"]
    assert ["min_logprob" in edit for edit in told] == [False, True]


def test_a_file_changes_what_it_names_and_keeps_the_rest(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "examples: [Is grass green]\n"
        "operations:\n"
        "  deepen:\n    sentence: Ask for a cause.\n"
        "    edits: [{name: why, ask: Ask why., pattern: Why, answers: [Why is moss so]}]\n"
    )
    mine = {one.name: one for one in with_prompts(str(file))}
    edit = Edit("why", "Ask why.", examples=(("Is grass green", "Why is moss so"),), pattern="Why")
    assert (mine["deepen"].sentence, mine["deepen"].edits) == ("Ask for a cause.", (edit,))
    assert mine["breadth"] == OPERATIONS[0]
    assert prompts_digest(tuple(mine.values())) != prompts_digest(OPERATIONS)


def test_a_frame_from_a_mapping_is_the_prompt_of_whole_rewrites():
    (deepen,) = select_operations(["deepen"], prompts={"base": "large", "frame": "{sentence} Text: {text}"})
    made, requests = _ask(replace(deepen, sentence="Ask more."), ["Explain rain and hail."], "Explain {rain}.")
    assert requests[0].messages == ({"role": "user", "content": "Ask more. Text: Explain {rain}."},)
    assert made.text == "Explain rain and hail."


def test_own_operations_may_bring_edits():
    own = {"name": "politely", "sentence": "Ask politely.", "edits": [{"name": "please", "ask": "Add a plea."}]}
    assert select_operations(["politely"], [own])[0].edits == (Edit("please", "Add a plea."),)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("smal", "No set of prompts 'smal': name tiny, small, large, or a file"),
        ({"frames": ""}, "A set of prompts has no key 'frames'.*did you mean 'frame'"),
        ({"base": "mine"}, "one of tiny, small, large, not 'mine'"),
        ({"frame": "Rewrite {text}."}, "must hold {sentence}"),
        ({"operations": {"translate": {"edits": []}}}, "'translate' in a set of prompts is new and needs a sentence"),
        ({"operations": {"deepen": {"edits": [{"name": "x"}]}}}, "An edit needs ask"),
        ({"operations": {"deepen": {"edits": [{"name": "x", "ask": "?", "answers": ["a"]}]}}}, "1 answers.*0 exam"),
        ({"operations": {"deepen": {"edits": [{"name": "x", "ask": "?", "frame": "More."}]}}}, "must hold {edit}"),
        ({"operations": {"deepen": {"edits": [{"name": "x", "ask": "?", "form": "poem"}]}}}, "use text, items"),
        ({"operations": {"deepen": {"edits": [{"name": "x", "ask": "?", "pattern": "("}]}}}, "pattern of edit 'x'"),
        ({"operations": {"deepen": {"edits": [{"name": "x", "ask": "?", "min_logprob": 2}]}}}, "at most 0, not 2"),
    ],
)  # fmt: skip
def test_a_wrong_set_of_prompts_says_what_is_wrong(given, message):
    with pytest.raises(ValueError, match=message):
        read_prompts(given)


def test_what_a_policy_saved_gets_its_prompts_back():
    saved = [Operation(one.name, one.sentence) for one in OPERATIONS[:2]]
    changed = Operation("deepen", "Ask for the weather.")
    assert prompted_as([*saved, changed]) == (*OPERATIONS[:2], changed)
