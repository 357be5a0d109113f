import json
from pathlib import Path

import pytest

from teamsrl_hf.text.gate.chatter import strip_chatter
from teamsrl_hf.text.gate.leaks import added_text, shared_phrases
from teamsrl_hf.text.gate.requests import is_request
from teamsrl_hf.text.operations import OPERATIONS, Operation, fence
from teamsrl_hf.text.rules import REWRITE_RULES, response_violations, violations
from teamsrl_hf.text.seeds import load_seeds

BY_NAME = {operation.name: operation for operation in OPERATIONS}
ROWS = [json.loads(line) for line in (Path(__file__).parent / "data" / "rewrites.jsonl").read_text().splitlines()]
WHOLE = [row for row in ROWS if row["finish_reason"] == "stop"]


@pytest.mark.parametrize("row", WHOLE, ids=lambda row: row["raw"][:50])
def test_each_labelled_rewrite_breaks_the_rule_that_its_label_names_or_none(row):
    found = violations(row["instruction"], row["raw"], BY_NAME[row["operation"]])
    assert found == ((row["rule"],) if row["rule"] else ())


def test_every_rule_for_rewrites_stands_in_the_labelled_rows_or_in_a_test_of_its_own():
    shown = {row["rule"] for row in ROWS} - {"", "cut_off"}
    assert set(REWRITE_RULES) - shown == {"repeats_earlier", "control_tokens", "too_long", "copies_example"}


def test_a_rule_is_one_line_of_the_table(monkeypatch):
    monkeypatch.setitem(REWRITE_RULES, "shouts", lambda rewrite: rewrite.text.isupper())
    assert violations("Name a bird.", "NAME A BIRD OF PREY.", BY_NAME["deepen"]) == ("shouts",)


def test_all_built_in_seeds_but_one_are_requests():
    """A noun phrase is a request to a person; a small model that answers or trails off writes them too."""
    assert [seed.text for seed in load_seeds() if not is_request(seed.text)] == [
        "Ten first lines for a mystery novel. No rain, no detectives."
    ]


@pytest.mark.parametrize(
    "text",
    [
        "Given two dates, work out the days between them.",
        "I need a birthday rhyme for my uncle.",
        "Our cat hides under the sofa. What can we do?",
        "For each of the three rivers, name its source.",
        "You are to act as a museum guide. Welcome a school class.",
        "Kindly proofread the letter.",
        "In one sentence, what is a fjord?",
        "A limerick about rust, please.",
        "Defrost the argument: what is really at stake?",
        "说出一种会游泳的鸟。",
        "Vogel: Nenne drei.",
        "उल्लू के बारे में बताओ।",
    ],
)
def test_requests_are_known_by_imperative_question_or_wish_and_other_languages_pass(text):
    assert is_request(text)


@pytest.mark.parametrize(
    "text",
    [
        "A fjord is a narrow inlet of the sea between high cliffs.",
        "The three rivers all rise in the same hills, and the longest of them is the Ilm.",
        "Fjords are formed by glaciers. They can be very deep.",
        "What a lovely day it is for a walk!",
        "A quick way to clean a pan with salt. Explain each step.",
    ],
)
def test_statements_exclamations_and_titles_with_a_leaning_request_ask_for_nothing(text):
    assert not is_request(text)


def test_the_gate_takes_a_known_addition_for_what_is_new():
    first = "Which muscles does rowing use?"
    for edit, found in (
        ("How is rowing different for the muscles of swimmers?", ()),
        ("What muscles are used in rowing?", ("nothing_added",)),
        ("Rowing is healthy.", ("addition_asks_nothing",)),
        ("How deep is the lake at Norby in metres?", ("follow_up_off_subject",)),
    ):
        assert violations(first, f"{first} Then answer this too: {edit}", BY_NAME["deepen"], edit) == found
        assert violations(first, f"{first} Then answer this too: {edit}", BY_NAME["deepen"]) == found
    assert added_text(first, "Which muscles does cycling use?") is None


def test_a_clause_of_a_worked_example_is_found_but_not_its_form_nor_a_shared_limit():
    examples = ["Why do ships float, and how do the dockers of Norby get paid for it?"]
    copied = "Why do owls hoot, and how do the dockers of Norby get paid for it?"
    assert violations("Why do owls hoot?", copied, BY_NAME["deepen"], examples=examples) == ("copies_example",)
    assert violations("Why do owls hoot?", copied, BY_NAME["add_constraints"], examples=examples) == ()
    form = ["Plan a walk in three steps and explain each choice of the plan."]
    owls = "Describe the hoot of owls in three steps and explain each choice of the plan."
    assert violations("Describe the hoot of owls.", owls, BY_NAME["increase_reasoning"], examples=form) == ()


def test_phrases_that_unlike_instructions_share_stand_in_for_unknown_examples():
    clause = "and how do the dockers of Norby get paid"
    pairs = [(f"Why do {thing} float?", f"Why do {thing} float, {clause}?") for thing in ("ships", "corks", "swans")]
    assert "the dockers of norby get paid" in shared_phrases(pairs)
    assert shared_phrases(pairs[:2]) == ()
    same = [
        (f"Why do {thing} float?", f"Why do {thing} float? Explain each of your three steps in turn.")
        for thing in "abc"
    ]
    assert shared_phrases(same) == ()


def test_the_own_marker_of_a_request_is_found_wherever_it_stands():
    first = "Name a bird."
    for leak in (f"Name a bird of prey. {fence(first)}", "[0123456789ab] Name a bird of prey."):
        assert violations(first, leak, BY_NAME["deepen"]) == ("template_leak",)


def test_only_rules_that_suit_every_operation_apply_to_users_own_and_to_mixed_plans():
    own = Operation("translate", "Translate the instruction into English.")
    text = "Sort these words.\n\nPferd, Kuh, Schaf, Ziege"
    assert violations(text, "Sort: horse, cow, sheep, goat", own) == ()
    assert violations(text, "Sort: horse, cow, sheep, goat", BY_NAME["deepen"]) == ("lost_input",)
    mixed = (BY_NAME["breadth"], BY_NAME["deepen"])
    assert violations(text, "Explain how a barn is aired, and why.", mixed) == ()
    assert violations(text, "A barn is aired.", own) == ("not_a_request",)


def test_an_answer_that_repeats_its_instruction_is_none():
    assert response_violations("Name a bird of prey!", instruction="Name a bird of prey.") == ("same_as_instruction",)
    assert response_violations("The kestrel.", instruction="Name a bird of prey.") == ()


@pytest.mark.parametrize(
    ("instruction", "rewrite"),
    [
        ("Share 1,000 euros among 3 friends.", "Share 1000 euros among three friends, and say why that is fair."),
        ("Add up these.\n\n3, 5, 8, 13", "Add up these in CSV.\n\nn,value\n1,3\n2,5\n3,8\n4,13"),
        ("Is 0.5 more than 2/5?", "Is 0.5 more than 2/5? Explain it with a drawing of a cake."),
    ],
)
def test_numbers_are_kept_in_other_spellings(instruction, rewrite):
    assert violations(instruction, rewrite, BY_NAME["increase_reasoning"]) == ()


def test_rows_of_data_may_be_alike_and_words_may_come_back():
    rows = "Count the fruit in this list.\n\n" + "\n".join(["- a red apple", "- a pear", "- a red apple"])
    assert violations("Count the fruit.", rows, BY_NAME["complicate_input"]) == ()
    twice = "Say what a mayor may and what a mayor may not do, and who decides it."
    assert violations("Say what a mayor may do.", twice, BY_NAME["deepen"]) == ()


FIRST = "Describe a mill."
CLEAN = "Describe a mill that grinds mustard, in three sentences."


@pytest.mark.parametrize(
    "raw",
    [
        f"Here is the harder instruction:\n\n{CLEAN}",
        f"Certainly! Here's a rewritten version of the instruction:\n{CLEAN}",
        f"Sure!\n\n{CLEAN}",
        f"**New instruction:** {CLEAN}",
        f"### Rewritten Prompt:\n\n{CLEAN}",
        f"Instruction: {CLEAN}",
        f"# A mill for mustard\n\n{CLEAN}",
        f"**A mill for mustard**\n\n{CLEAN}",
        f'"{CLEAN}"',
        f"“{CLEAN}”",
        f"**{CLEAN}**",
        f"```text\n{CLEAN}\n```",
        f"---\n{CLEAN}\n---",
        f"{CLEAN}\n\nNote: I added a limit and a subject.",
        f"{CLEAN}\n\nThis version asks for a specific mill.",
        f"{CLEAN}\n\nLet me know if you would like another one!",
        f"[instruction {fence(FIRST)}]\n{CLEAN}\n[end {fence(FIRST)}]",
        f'Sure! Here is the new prompt:\n\n```\n"{CLEAN}"\n```\n\n(I have kept it short.)',
        f"  {CLEAN}\n\n",
    ],
)
def test_what_surrounds_a_rewrite_is_cut(raw):
    assert strip_chatter(raw, FIRST) == CLEAN


@pytest.mark.parametrize(
    ("instruction", "text"),
    [
        (FIRST, 'Translate "mill" and "flour"'),
        (FIRST, "Describe a mill.\n\nNote: use no metaphors."),
        (FIRST, "Here is a list of mills. Sort it:\n\nwind, water"),
        (FIRST, "Fix this code:\n\n```python\nx = 1\n```"),
        (FIRST, "**Task**\nSort the mills.\n\n**Data**\nwind, water"),
        ("Question: what is a mill?", "Question: what is a wind mill?"),
        ('"Describe a mill."', '"Describe a wind mill."'),
        ("```\nx = 1\n```", "```\nx = 2\n```"),
    ],
)
def test_what_may_be_part_of_a_rewrite_stays(instruction, text):
    assert strip_chatter(text, instruction) == text
