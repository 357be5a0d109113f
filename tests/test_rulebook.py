"""The rulebook rewrites plain English, compares requests and drafts answers, always in the same way."""

import asyncio
import csv
import io
import json
import random
import re
from itertools import pairwise

import pytest

from teamsrl_hf import DatasetEvolver, EvolverConfig, Ledger, ScriptedGenerator, Seed, rollout, uniform_chooser
from teamsrl_hf.errors import UserError
from teamsrl_hf.models.base import Request, Sampling, Task
from teamsrl_hf.models.rulebook.rules import Rulebook, draft, rewrite, same_request
from teamsrl_hf.models.rulebook.words import load
from teamsrl_hf.text.operations import OPERATIONS, Operation, rewrite_messages
from teamsrl_hf.text.rules import response_violations

NAMES = [operation.name for operation in OPERATIONS]
SEEDS = range(12)
TEXTS = (
    "What causes inflation?",
    "Explain how photosynthesis works.",
    "Write a short story about a dog that gets lost in a city.",
    "Give me five tips for a job interview.",
    "How do vaccines work?",
    "Describe a country you would like to visit.",
    "Write a Python function that checks whether a number is prime.",
    "Compare electric cars and petrol cars.",
    "What is the difference between weather and climate?",
    "Summarize the causes of the First World War.",
    "Write a poem about autumn.",
    "Explain the theory of relativity to a child.",
    "Write an email to your manager asking for a day off.",
    "List the planets of the solar system.",
    "Plan a weekend trip to Rome for a family with two children.",
    "What are the advantages of learning a foreign language?",
    "How can I save money on groceries?",
    "Translate the following sentence into French: The weather is lovely today.",
    "Rewrite the following paragraph in a friendlier tone:\n\nYour application was rejected. Please do not write.",
    "Sort these numbers in ascending order.\n\n12, 7, 3, 25, 18",
    "Summarize the following text.\n\nBees live in colonies. Each colony has one queen. The workers collect nectar.",
    "Classify the following reviews as positive or negative.\n\n- The food was great.\n- The service was slow.",
    "Why do people dream?",
    "Should schools ban mobile phones?",
    "Name a fruit that is rich in vitamin C.",
    "Is a tomato a fruit or a vegetable?",
    "Write a SQL query that returns the ten customers with the highest revenue.",
    "Debug this code and explain the error.\n\ndef add(a, b)\n    return a + b",
    "Solve for x: 3x + 7 = 22.",
    "A farmer has 17 sheep and all but 9 die. How many are left?",
    "Create a workout plan for a beginner.",
    "How does a machine learn?",
    "Tell me a joke about cats.",
    "Write a haiku about the sea",
    "Explain why the sky is blue.",
    "Write a cover letter based on the given facts.\n\nName: Ebony Moore\nRole: Product Manager\nCity: Leeds",
    "Question: in which year did Yao Ming retire?\nAnswer:",
    "Extract the names from the following text.\n\nAnna met Paul in Berlin. They visited Dr. Weber on Friday.",
    "Rank the following cities by population.\n\nTokyo, Delhi, Cairo, Paris",
    "Generate a title for the following article:\n\nWhales are a diverse group of fully aquatic mammals. Some sing.",
)
STRUCTURED = (
    '[{"id": 1, "item": "rice"}]',
    "| name | age |\n| --- | --- |\n| Ann | 31 |",
    "name,age\nAnn,31\nBob,27",
    "<note><to>Ann</to></note>",
    "def add(a, b):\n    return a + b",
    "[001] Bees live in colonies.\n[002] Each colony has one queen.",
)


def outcomes(name, text):
    """What `name` makes of `text` under several seeds, where it changes it."""
    return [result for seed in SEEDS if (result := rewrite(name, text, seed)) != text]


def head(text):
    return text.split("\n\n")[0]


# Breadth.


@pytest.mark.parametrize(
    ("text", "opening"),
    [
        ("Write a short poem about autumn.", "Write a short poem about "),
        ("Compose a limerick about the moon.", "Compose a limerick about "),
        ("Write a Python function that checks whether a number is prime.", "Write a Python function that "),
        ("List the planets of the solar system.", ("List ", "Name ", "Give ")),
        ("Explain how photosynthesis works.", ("Explain ", "Describe ", "Give an overview", "Discuss ")),
    ],
)
def test_breadth_keeps_the_shape_of_the_instruction(text, opening):
    results = outcomes("breadth", text)
    assert len(set(results)) > 3
    assert all(result.startswith(opening) for result in results)


@pytest.mark.parametrize("text", [text for text in TEXTS if head(text).endswith("?") and "sheep" not in text])
def test_breadth_turns_a_question_into_a_question(text):
    assert all("?" in result for result in outcomes("breadth", text))


def test_breadth_never_returns_to_the_topic_it_came_from():
    text = "How is kimchi traditionally made?"
    assert all("kimchi" not in rewrite("breadth", text, seed) for seed in range(200))


def test_breadth_drops_the_material_of_the_old_instruction():
    text = "Explain the rules of chess to the reader of this note.\n\nDear Ann, my parents never played."
    assert outcomes("breadth", text)
    assert all("Dear Ann" not in result and "\n\n" not in result for result in outcomes("breadth", text))


@pytest.mark.parametrize(
    "text",
    [
        "Is there anything behind it?",
        "Translate the sentence into French.\n\nIt rains.",
        "Use these words well, please.",
    ],
)
def test_breadth_does_nothing_when_it_knows_no_field_or_cannot_keep_the_shape(text):
    assert outcomes("breadth", text) == []


@pytest.mark.parametrize(
    "text",
    [
        "Which bone protects the brain? A) Skull B) Rib C) Femur",
        "Which planet has the brightest rings?\n(a) Mars\n(b) Saturn",
        "Which metal is liquid in a warm room?\n- Iron\n- Mercury\n- Gold",
        "Which organ pumps blood: the heart, the liver or the lung?",
        "Pick the odd one out: apple, carrot, pear.",
        "How does light travel through glass?",
        "How do I get a coffee stain out of a book?",
        "Write a SQL query that counts users.",
        "Fix the bug in this Python function.\n\ndef f(x)\n    return x",
        "Calculate the molar mass of glucose, C6H12O6.",
        "What is a derivative in finance worth?",
    ],
)
def test_breadth_does_nothing_where_it_would_leave_the_field_or_the_form(text):
    assert outcomes("breadth", text) == []


def test_breadth_makes_up_for_the_length_of_a_long_instruction():
    text = "I have been baking for about a year, mostly plain white bread, and it never rises. What am I doing wrong?"
    assert all(len(result.split()) >= 0.6 * len(text.split()) for result in outcomes("breadth", text))


def test_every_field_has_many_topics_and_no_topic_stands_twice():
    topics = [topic for field in load("fields") for topic in field["topics"]]
    assert len(load("fields")) >= 16
    assert all(len(field["topics"]) >= 20 for field in load("fields"))
    assert len(topics) == len(set(topics))


def test_what_breadth_writes_is_understood_by_breadth_again():
    for text in TEXTS:
        for result in outcomes("breadth", text):
            assert rewrite("breadth", result, 99) != result


# Constraints.


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            "Write a poem about autumn.",
            r"words|tone|mood|twist|reads?|hear|enjoy|suitable|laugh|[Aa]void|use|without|[Ii]nclude",
        ),
        (
            "Write a Python function that reverses a list.",
            r"test|type|error|input|library|package|import|recursion|loop|docstring",
        ),
        (
            "Translate the sentence into French.\n\nIt rains.",
            r"names|words|original|tone|passage|version|variant|carried|figures",
        ),
    ],
)
def test_constraints_fit_the_kind_of_task(text, wanted):
    results = outcomes("add_constraints", text)
    assert len(results) > 6
    assert len([result for result in results if re.search(wanted, head(result)[len(head(text)) - 1 :])]) > 3


def test_no_code_constraint_is_put_on_a_poem_and_no_tone_on_code():
    poems = [head(rewrite("add_constraints", "Write a poem about autumn.", seed)) for seed in range(100)]
    functions = [
        rewrite("add_constraints", "Write a Python function that reverses a list.", seed) for seed in range(100)
    ]
    assert not any(re.search(r"type hint|unit test|standard library|complexity", poem) for poem in poems)
    assert not any(re.search(r"\btone\b|\bmood\b", function) for function in functions)


@pytest.mark.parametrize(
    ("text", "kept_out"),
    [
        ("Write a 200-word essay about the moon.", r"\d+ words"),
        ("Write a Python function that adds two numbers, with unit tests.", r"\btests?\b.*\btests?\b"),
        ("Keep the answer under 90 words. Why do people dream?", r"words.*words"),
    ],
)
def test_a_constraint_the_text_carries_already_is_not_added(text, kept_out):
    assert not any(
        re.search(kept_out, result[len("Write a 200-word") :]) for result in outcomes("add_constraints", text)
    )


def test_an_instruction_with_two_constraints_takes_no_third():
    text = "Why do people dream? Keep the answer under 90 words. Name one point on which experts disagree."
    assert outcomes("add_constraints", text) == []


@pytest.mark.parametrize(
    "text",
    [
        "Translate into French: The train is late.",
        "Put this into Dutch: I am hungry.",
        'Translate "Where is the station?" into German.',
        "Translate the sentence into Italian.\n\nThe sun is shining.",
        "How do you say good night in Polish?",
    ],
)
def test_a_translation_gets_only_what_makes_sense_for_one_line(text):
    results = outcomes("add_constraints", text)
    assert len(results) > 4
    added = [result.replace(text.split("\n\n")[0].rstrip("."), "") for result in results]
    assert not any(re.search(r"\d|\bplot\b|\bstory\b|\baudience\b|paragraph|heading|dialogue", text) for text in added)
    fit = r"tone|version|variant|translat|original|word|pronounced|another choice|most natural"
    assert all(re.search(fit, text) for text in added)


@pytest.mark.parametrize(
    "text",
    [
        'What does "while (true) {}" do?',
        'What does "lambda x: x" mean',
        "What is printed by `print(1 + 1)`",
        "Why does x = [] * 3; not fail?",
        "What will `ls -l` show?",
        "Describe the function f(x) = x + 1",
        "Say what this command does: rm -rf build/",
        "What is wrong with <b>bold<b>?",
        "What does this print? 'console.log(1)'",
        'Is this valid Java? "int x = 1;"',
        "Explain the following: int main() { return 1; }",
        "Which gas makes up most of the air? A) Oxygen B) Nitrogen",
    ],
)
@pytest.mark.parametrize("name", ["add_constraints", "deepen", "increase_reasoning", "concretize"])
def test_nothing_is_put_into_or_after_quoted_code_or_options_in_a_line(name, text):
    assert outcomes(name, text) == []


def test_options_on_lines_of_their_own_stay_at_the_end():
    text = "What is the capital of Chile?\nA. Lima\nB. Santiago"
    results = outcomes("add_constraints", text)
    assert results
    assert all(result.endswith("\nA. Lima\nB. Santiago") for result in results)


def test_constraints_do_not_contradict_a_demand_for_nothing_but_the_result():
    assert outcomes("add_constraints", "Find the largest number. Output the number directly.\n\n3, 9, 4") == []


def test_constraints_do_not_repeat_themselves():
    results = {rewrite("add_constraints", f"Write an essay about topic number {i} of the moon.") for i in range(200)}
    endings = {re.sub(r"\d+", "", result.split("moon.")[1]) for result in results}
    assert len(endings) > 60


# Deepening.


@pytest.mark.parametrize(
    "text", ["What causes inflation?", "Explain how photosynthesis works.", "Should schools ban mobile phones?"]
)
def test_deepening_asks_further(text):
    results = outcomes("deepen", text)
    assert len(results) == len(SEEDS)
    assert all(result.startswith(text.rstrip("?.")) for result in results)
    assert all(4 <= len(result.split()) - len(text.split()) <= 25 for result in results)


def test_a_follow_up_is_woven_into_a_plain_question():
    woven = [result for result in outcomes("deepen", "What causes inflation?") if result.endswith("?")]
    assert woven
    assert all(result.startswith("What causes inflation, and ") for result in woven)


@pytest.mark.parametrize(
    "text",
    [
        "Write a poem about autumn.",
        "Write a Python function that reverses a list.",
        "Translate the sentence into French.\n\nIt rains.",
        "List the planets of the solar system.",
        "Sort these numbers.\n\n3, 1, 2",
    ],
)
def test_deepening_does_nothing_where_nothing_is_asked_about(text):
    assert outcomes("deepen", text) == []


CLOSED = (
    "What is 17 times 24?",
    "Evaluate the limit of the sum as n grows: 1/2 + 1/4 + 1/8.",
    "Evaluate the double integral over the unit square.",
    "What is the derivative of x^3?",
    "What is the square root of 144?",
    "What is x if 3x = 12?",
    "What does 25% of 80 equal?",
    "What is five plus six?",
    "Is 51 a prime number?",
    "How many legs does a spider have?",
    "If a car covers 60 km in 2 hours, what is its speed?",
    "Which of the following is a mammal? A) Shark B) Dolphin",
    "What is the largest lake?\nA) Baikal\nB) Superior",
    "Which category does a whale belong to: fish, mammal or bird?",
    "Is a bat a bird or a mammal?",
    "What is the Spanish word for bread?",
    "What's the German for house?",
    "How would you translate cheers into Polish?",
    "What does 'gato' mean?",
    "What is the plural of mouse?",
    "Assess whether the review is positive.\n\nThe soup was cold.",
    "Is the following statement true?\n\nIron is a metal.",
    "Does the tweet express anger?\n\nI hate Mondays.",
    "What will this print?\n\nprint(len('abc'))",
)


@pytest.mark.parametrize("text", CLOSED)
def test_a_task_with_one_right_answer_is_not_deepened(text):
    assert outcomes("deepen", text) == []


@pytest.mark.parametrize("seed", SEEDS)
def test_an_instruction_is_deepened_twice_at_most_and_never_the_same_way(seed):
    steps = ["What causes inflation?"]
    while (further := rewrite("deepen", steps[-1], seed)) != steps[-1]:
        steps.append(further)
    assert len(steps) in (2, 3)
    added = [new.replace(old.rstrip("?"), "") for old, new in pairwise(steps)]
    assert len(set(added)) == len(added)


# Concretizing.


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("Describe an animal.", r"Describe (?!an animal)(?:an?) [a-z ]+\."),
        ("Write a story about a city.", r"Write a story about [A-Z]\w+\."),
        ("What are the advantages of learning a foreign language?", r"What are the advantages of learning [A-Z]\w+\?"),
        ("Why do people dream?", r"Why do (?!people)[a-z -]+ dream\?"),
        ("A country wants to join. What now?", r"[A-Z][A-Za-z ]+ wants to join\. What now\?"),
        ("How can I train my dog?", r"How can I train my [a-z -]+\?"),
        ("Plan a visit to a city of your choice.", r"Plan a visit to [A-Z]\w+\."),
    ],
)
def test_a_general_noun_becomes_a_specific_one(text, pattern):
    results = outcomes("concretize", text)
    assert len(set(results)) > 1
    assert all(re.fullmatch(pattern, result) for result in results)


@pytest.mark.parametrize(
    "text",
    [
        "Discuss animal rights.",
        "Write about country music.",
        "Explain a company policy.",
        "Describe a country's economy.",
        "Name a fruit.",
        "Suggest a good book for the summer.",
        "Is a tomato a fruit?",
        "What is a machine?",
        "Describe a city in Africa.",
        "Explain how an animal that can fly sleeps.",
        "Explain the rules of the game Animal Crossing.",
        "Given a country, say when it was founded.\n\nKenya, Chile, Norway and Japan",
        "Explain why the sky is blue.",
    ],
)
def test_a_noun_that_is_asked_for_or_narrowed_down_or_part_of_a_name_stays(text):
    assert outcomes("concretize", text) == []


@pytest.mark.parametrize(
    "text",
    [
        "What's a robot?",
        "Define a hobby in two lines.",
        "What is the definition of a country?",
        "What is meant by a mammal?",
        "Explain what a language is in formal grammar.",
        "Tell me what a vitamin is.",
        "How would you define a company?",
        "Explain the difference between a lake and a sea.",
        "Sketch a star with a ruler.",
        "Cut out a shape with a knife.",
        "How does a tree in computer science differ from a graph?",
        "Describe a chess game between a king and a knight.",
        "Prepare a project for a course on Python.",
        "Write about a country, then say why the country is poor.",
        "Tell a tale of a dog: the dog gets lost.",
        "A farmer has 12 cows and sells 5. How many cows does he have left?",
        'Rewrite this sentence: "A teacher entered the room."',
        "Paraphrase: A dog chased a cat through the garden.",
    ],
)
def test_a_noun_stays_where_it_is_defined_repeated_quoted_or_has_another_sense(text):
    assert outcomes("concretize", text) == []


def test_the_material_is_never_made_specific():
    text = "Correct the grammar.\n\nA animal live in a city with people."
    assert outcomes("concretize", text) == []


def test_the_bank_of_general_nouns_is_wide_and_every_instance_begins_as_it_must():
    assert len(load("nouns")["singulars"]) >= 80
    for noun, names in load("nouns")["singulars"].items():
        assert len(set(names)) >= 3, noun
        assert not any(re.match(r"(?:a [aeio]|an [^aeiouh])", name) for name in names), names


# Reasoning.


@pytest.mark.parametrize(
    "text",
    [
        "Solve the equation 3x + 7 = 22.",
        "Should schools ban mobile phones?",
        "Decide whether the argument is sound.\n\nAll men die.",
    ],
)
def test_reasoning_is_asked_for_openly(text):
    results = outcomes("increase_reasoning", text)
    assert len(results) == len(SEEDS)
    assert len(set(results)) > 2
    steps = ("step", "first", "one by one", "one after another", "in order", "in turn", "only then", "reason from")
    pattern = rf"\b(?:{'|'.join(steps)})"
    assert all(re.search(pattern, head(result), re.I) for result in results)


@pytest.mark.parametrize(
    "text",
    [
        "Write a poem about autumn.",
        "Write an email to your manager.",
        "Translate the sentence into French.\n\nIt rains.",
        "Solve the equation 3x + 7 = 22 step by step.",
        "Solve the equation 3x + 7 = 22. Show your working.",
        "Why is the sky blue? First name the causes, then weigh them.",
        "Which number is the largest? Answer with one word.",
    ],
)
def test_reasoning_is_not_asked_for_where_it_does_not_fit_or_is_there(text):
    assert outcomes("increase_reasoning", text) == []


def test_reasoning_is_asked_for_once():
    for text in TEXTS:
        for result in outcomes("increase_reasoning", text):
            assert rewrite("increase_reasoning", result, 5) == result


def test_reasoning_about_code_is_asked_for_only_where_something_is_wrong_with_it():
    assert outcomes("increase_reasoning", "Write a Python function that reverses a list.") == []
    assert outcomes("increase_reasoning", "Debug this Python function.\n\ndef f(x)\n    return x")


# Material.


def test_numbers_become_records_a_table_or_csv():
    results = outcomes("complicate_input", "Sort these numbers in ascending order.\n\n12, 7, 3")
    data = {result.split("\n\n", 1)[1] for result in results}
    assert data == {
        '[\n  {"id": 1, "item": 12},\n  {"id": 2, "item": 7},\n  {"id": 3, "item": 3}\n]',
        "| id | item |\n| --- | --- |\n| 1 | 12 |\n| 2 | 7 |\n| 3 | 3 |",
        "id,item\n1,12\n2,7\n3,3",
    }


def test_sentences_become_records_with_one_sentence_each():
    text = "Summarize the text.\n\nDr. Weber keeps bees. He sells honey at 3.50 a jar!"
    for result in outcomes("complicate_input", text):
        assert "Dr. Weber keeps bees." in result
        assert "He sells honey at 3.50 a jar!" in result
        assert not re.search(r"Dr\.\W*\n", result)


def test_keys_and_values_become_an_object_or_a_table_of_fields():
    text = "Write a letter.\n\nName: Ann Lee\nAge: 31\nSkills:\n- rowing\n- chess"
    for result in outcomes("complicate_input", text):
        assert json.loads(result.split("\n\n", 1)[1]) == {"Name": "Ann Lee", "Age": 31, "Skills": ["rowing", "chess"]}


@pytest.mark.parametrize(
    "text",
    [
        "Pick the right option.\n\nWhat is the largest planet? A) Mars B) Jupiter C) Venus",
        "Choose the correct answer.\n\n* red\n* green\n* blue",
        "Which one is right?\n\nA. The moon is a planet.\nB. The moon is a satellite.",
        "Answer the question.\n\nWho wrote Hamlet?",
        "Read the passage and answer.\n\nTom has a dog. It is brown. What colour is it?",
        "Do the following.\n\nTranslate this sentence. Then shorten it.",
        "Respond to the guest.\n\nPlease send me the report by Friday.",
        "Follow these steps.\n\nMix the flour and eggs. Bake for an hour.",
        "Complete the sentences.\n\nShe ___ to school.\nWe ___ at home.",
        "Choose the best word.\n\nShe will (go / goes / went) home.",
        "Continue the dialogue.\n\nAnn: Hello!\nBob: Hi.\nAnn: Tea?",
        "Finish the chat.\n\n- Where to!\n+ The market.",
        "Write the next line.\n\n- I lost my keys.\n- Again!",
        "Sort these.\n\n- One\n+ Two\n* Three",
        "Sum this up.\n\nAnn: I lost my keys.\nBob: Not again.\nAnn: They were in my bag.",
        'Retell the scene.\n\n"It is late," said Ann. She left.',
        'Add up the times.\n\nAll in UTC.\n{"legs": [3, 4]}',
        "Rank the regions.\n\nname;people\nNorth;812\nSouth;90",
    ],
)
def test_a_question_an_order_a_dialogue_or_a_mixed_list_is_no_data(text):
    assert outcomes("complicate_input", text) == []


def test_commas_and_quotation_marks_survive_csv():
    text = 'Group these titles.\n\n"Emma", by Austen\nDracula\nUlysses, by Joyce'
    for result in outcomes("complicate_input", text):
        if "\nid,item\n" in result:
            rows = list(csv.reader(io.StringIO(result.split("\n\n", 1)[1])))
            assert rows[1:] == [["1", '"Emma", by Austen'], ["2", "Dracula"], ["3", "Ulysses, by Joyce"]]
            break
    else:
        pytest.fail("no seed chose CSV")


@pytest.mark.parametrize("material", STRUCTURED)
def test_structured_material_and_code_stay(material):
    assert outcomes("complicate_input", f"Describe this.\n\n{material}") == []


@pytest.mark.parametrize(
    "text", ["Sort these numbers.", "Explain the idiom.\n\nblack sheep", "Sort these numbers.\n\n   \n"]
)
def test_without_material_worth_structuring_nothing_happens(text):
    assert outcomes("complicate_input", text) == []


@pytest.mark.parametrize("text", [text for text in TEXTS if "\n\n" in text])
def test_every_word_of_the_material_survives_and_the_instruction_refers_to_it(text):
    for result in outcomes("complicate_input", text):
        kept = re.findall(r"\w+", result.split("\n\n", 1)[1])
        assert set(re.findall(r"\w+", text.split("\n\n", 1)[1])) <= set(kept)
        assert re.search(r"JSON|table|CSV|log", head(result))


# Joins.


def test_a_colon_before_the_material_becomes_a_full_stop():
    for result in outcomes("add_constraints", "Translate this sentence into Spanish:\n\nIt rains."):
        assert result.startswith("Translate this sentence into Spanish. ")
        assert result.endswith(".\n\nIt rains.")


def test_a_colon_that_cannot_be_a_full_stop_stays_before_what_it_introduces():
    results = outcomes("add_constraints", "Write a story with the following:\n- a dragon\n- a castle")
    assert results
    for result in results:
        assert result.endswith(" Write a story with the following:\n- a dragon\n- a castle")


def test_a_sentence_comes_before_material_that_stands_on_the_same_line():
    results = outcomes("add_constraints", "Translate the following sentence into French: It rains.")
    assert results
    assert all(result.endswith(" Translate the following sentence into French: It rains.") for result in results)


def test_a_slot_for_the_answer_stays_last():
    results = outcomes("deepen", "Question: in which year did Yao Ming retire?\nAnswer:")
    assert results
    assert all(result.endswith("\nAnswer:") for result in results)


def test_an_instruction_without_a_mark_at_its_end_gets_one():
    assert all(result.startswith("Write a haiku about the sea. ") for result in outcomes("add_constraints", TEXTS[33]))
    assert all(
        result.startswith("what is inflation? ") for result in outcomes("increase_reasoning", "what is inflation")
    )


# Any operation on any text.

VOWEL_SOUND = re.compile(
    r"\b[Aa] (?!uni|one|use|eu|ukul)[aeiou]|\b[Aa]n (?!hour|honest|heir|[A-Z]+\b|x\b)[^aeiouAEIOU\W]"
)


def chains(count):
    """Texts that random operations make of `TEXTS`, each with the text before and the operation."""
    for number in range(count):
        choice = random.Random(number)
        for text in TEXTS:
            for _ in range(6):
                name = choice.choice(NAMES)
                result = rewrite(name, text, number)
                yield name, text, result
                text = result


def test_results_are_clean_english():
    for name, before, after in chains(8):
        if after == before:
            continue
        text = head(after)
        for fault in (r"\S  \S", r"\.\.", r"[?!.:,][.?,]", r"\s[.,?]", r"[{}]", r"\bundefined\b|\bNone\b"):
            assert not re.search(fault, text) or re.search(fault, head(before)), (name, after)
        assert re.search(r"[.?!:…][\"”')]*\Z", text), (name, after)
        assert not VOWEL_SOUND.search(text), (name, after)
        assert text[0] == before[0] or text[0].isupper() or text[0].isdigit(), (name, after)
        assert after.count("```") % 2 == 0, (name, after)


def test_sentences_added_begin_with_a_capital():
    for name, before, after in chains(4):
        if after != before and head(after).startswith(head(before)):
            assert re.match(r"[.?]?\s[A-Z]", head(after)[len(head(before)) :]), (name, after)


def test_the_material_is_kept_character_by_character():
    for name, before, after in chains(4):
        if name not in ("breadth", "complicate_input") and "\n\n" in before:
            assert after.split("\n\n", 1)[1] == before.split("\n\n", 1)[1]


def test_a_step_lengthens_an_instruction_by_no_more_than_a_sentence_or_two():
    for name, before, after in chains(4):
        if name != "breadth":
            assert len(head(after).split()) - len(head(before).split()) <= 25, (name, after)


def test_every_operation_fits_some_texts_and_not_others():
    for name in NAMES:
        fitting = [text for text in TEXTS if outcomes(name, text)]
        assert 4 < len(fitting) <= len(TEXTS) - (name != "add_constraints"), name


def test_what_an_operation_left_alone_it_leaves_alone_again():
    for name, before, after in chains(2):
        if after == before:
            assert rewrite(name, after, 0) == rewrite(name, before, 0)
            assert after is before


def test_no_result_holds_a_phrase_of_the_prompt():
    prompt = rewrite_messages(OPERATIONS[0], "X")[0]["content"].lower().split()
    phrases = {" ".join(prompt[i : i + 6]) for i in range(len(prompt) - 5)}
    for _, _, after in chains(2):
        found = after.lower().split()
        assert not any(" ".join(found[i : i + 6]) in phrases for i in range(len(found) - 5))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "Hello",
        "\n\n",
        "Erkläre mir bitte, warum der Himmel blau ist und das Meer auch.",
        "¿Por qué el cielo es azul y el mar también?",
        "解释一下光合作用是如何进行的。",
        "12 + 7 = ?",
        "\ud800",
    ],
)
def test_tiny_and_foreign_texts_stay(name, text):
    assert rewrite(name, text) == text


HUMOUR = Operation("add_humour", "Ask for a funny answer.")


def test_an_operation_it_does_not_know_is_refused_and_not_passed_off_as_one_that_gained_nothing():
    answer = ask(Task("rewrite", ("Why do people dream?",), (("deepen", "add_humour"),)))
    assert answer.text == ""
    assert answer.error == "The rulebook knows no operation 'add_humour': name a model that can carry it out."


def test_evolving_and_training_stop_before_the_first_call_where_a_model_does_not_know_an_operation(tmp_path):
    said = "'rulebook' cannot carry out the operation 'add_humour'; it knows breadth, add_constraints, deepen, "
    models = Rulebook(), uniform_chooser((HUMOUR,)), (HUMOUR,)
    with pytest.raises(UserError, match=said):
        DatasetEvolver(models[0], *models)
    expert = ScriptedGenerator(lambda request: "A joke.")
    with pytest.raises(UserError, match=said):
        DatasetEvolver(expert, *models, EvolverConfig(method="plan"), instructor=Rulebook())
    DatasetEvolver(expert, *models)
    with Ledger(tmp_path / "ledger.sqlite") as ledger, pytest.raises(UserError, match=said):
        DatasetEvolver(ledger.record(Rulebook()), *models)
    with pytest.raises(UserError, match=said):
        rollout([Seed("s", "Why do people dream?")], lambda s, u: [0], (HUMOUR,), Rulebook(), expert, steps=1)
    assert expert.calls == 0


def test_the_same_arguments_give_the_same_rewrite_in_every_process():
    assert rewrite("add_constraints", "Why do people dream?", 0) == rewrite(
        "add_constraints", "Why do people dream?", 0
    )
    assert len({rewrite("breadth", "Why do cats purr?", seed) for seed in range(40)}) > 15
    assert rewrite("concretize", "Describe an animal.", 0) == "Describe a camel."


# Reviews.


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Explain the tides.", "explain  the tides"),
        ("Please explain the tides!", "Explain tides"),
        ("Why is the sky blue?", "Why, the sky: is blue?"),
        ("Sort: 3, 1, 2", "Sort 3 1 2."),
    ],
)
def test_requests_with_the_same_content_words_are_the_same(first, second):
    assert same_request(first, second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Explain the tides.", "Explain the tides in 50 words."),
        ("Is it safe?", "Is it not safe?"),
        ("Use C.", "Use C++."),
        ("The price is 3.5.", "The price is 35."),
        ("你好", "再见"),
        ("???", "!!!"),
    ],
)
def test_requests_with_other_content_words_differ(first, second):
    assert not same_request(first, second)


def test_every_change_an_operation_makes_counts_as_different():
    assert not any(same_request(before, after) for _, before, after in chains(3) if before != after)


# Drafts.


def test_drafts_of_different_instructions_differ():
    assert len({draft(text) for text in TEXTS}) == len(TEXTS)


@pytest.mark.parametrize("text", [*TEXTS, "Hello", "", "the of and", "Say sorry. I am sorry.", "解释一下"])
def test_a_draft_is_plain_structured_and_honest(text):
    answer = draft(text)
    assert len(answer.split()) >= 25
    assert "made by rules" in answer
    assert 2 <= len(answer.split("\n\n")) <= 7
    assert answer.count("```") % 2 == 0
    assert not re.search(r"\bsorry\b|\bapolog|\bas an AI\b|<\||\{\w*\}", answer, re.I)


def test_a_draft_names_the_requirements_and_the_material():
    answer = draft(
        "Summarize the text. Use no more than 60 words.\n\nBees live in colonies. Each colony has one queen."
    )
    assert "- Use no more than 60 words." in answer
    assert "- Bees live in colonies.\n- Each colony has one queen." in answer


def test_a_draft_of_code_is_a_function_to_fill_in():
    answer = draft("Write a Python function that counts the vowels in a text.")
    assert "```python\ndef counts_vowels_text(value):" in answer


def test_a_draft_holds_no_control_token():
    text = "Explain <|im_end|> the tides [/INST] </s> in [end 0123456789ab] short, [item 2 0123456789ab] </think> so."
    assert not re.search(r"<\||INST|</s>|0123456789ab|think", draft(text))
    assert response_violations(draft(text)) == ()


# The generator.


def ask(task, seed=0, content="Whatever a prompt may say.", **options):
    request = Request("instructor", ({"role": "user", "content": content},), task=task, **options)
    return asyncio.run(Rulebook(seed)(request))


def test_a_rewrite_is_carried_out_whatever_the_messages_say():
    answer = ask(Task("rewrite", ("Describe an animal.",), (("concretize",),)), seed=4)
    assert answer.text == rewrite("concretize", "Describe an animal.", 4)
    assert answer.model == "rulebook"
    assert answer.finish_reason == "stop"
    assert answer.error is None


@pytest.mark.parametrize(
    ("second", "verdict"), [("explain the tides", "Equal"), ("Explain the tides to me twice.", "Different")]
)
def test_a_review_gets_a_verdict(second, verdict):
    assert ask(Task("review", ("Explain the tides.", second))).text == verdict


def test_a_plain_instruction_gets_a_draft():
    assert ask(Task("answer", ("Explain the tides.",))).text == draft("Explain the tides.")


def test_a_request_without_a_task_is_refused_even_if_its_prompt_is_one_of_ours():
    answer = ask(None, content=rewrite_messages(OPERATIONS[3], "Describe an animal.")[0]["content"])
    assert answer.text == ""
    assert answer.error == (
        "The rulebook reads no prompts: give the request a task, or name a model that reads its messages."
    )


def test_the_rulebook_judges_no_answers():
    answer = ask(Task("judge", ("Explain the tides.", "The moon.", "The sea.")))
    assert answer.error == "The rulebook cannot judge answers: name a model for it."


def test_tokens_are_counted_in_words():
    messages = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Explain the tides."})
    request = Request("expert", messages, task=Task("answer", ("Explain the tides.",)))
    answer = asyncio.run(Rulebook()(request))
    assert answer.prompt_tokens == 5
    assert answer.completion_tokens == len(answer.text.split())


def test_another_sample_and_another_sampling_seed_make_other_choices():
    task = Task("rewrite", ("Why do cats purr?",), (("breadth",),))
    texts = {ask(task, sample_index=index).text for index in range(6)}
    assert len(texts) > 3
    assert ask(task, sampling=Sampling(seed=3)).text == ask(task, seed=3).text
