"""Verifiers: each kind by answers written by hand, and by answers that are made to fulfil what its sampler drew."""

import subprocess
import sys
import time
from random import Random

import pytest
from fulfil import BASE, fulfil
from hypothesis import given, settings
from hypothesis import strategies as st
from verifier_cases import CASES

from teamsrl_hf.errors import UserError
from teamsrl_hf.verifiers import (
    HELD_OUT,
    KINDS,
    Verifier,
    as_ifeval,
    go_together,
    named_in,
    passes,
    said,
    sample,
    verified,
    verifier,
    verifier_reward,
)

_HAND = [
    (id, arguments, answer, wanted)
    for id, (arguments, good, bad) in CASES.items()
    for wanted, answers in ((True, good), (False, bad))
    for answer in answers
]


def test_every_kind_has_answers_written_by_hand():
    assert list(CASES) == list(KINDS)
    assert [id for id, (_, good, bad) in CASES.items() if len(good) < 3 or len(bad) < 4 or "" not in bad] == []


@pytest.mark.parametrize(("id", "arguments", "answer", "wanted"), _HAND)
def test_an_answer_passes_or_fails_as_a_reader_would_say(id, arguments, answer, wanted):
    assert passes(answer, verifier(id, **arguments)) is wanted


# What a user may ask; the samplers find something that fits for each kind among them.
INSTRUCTIONS = (
    "Explain how bread rises in a warm kitchen.",
    "Why does bread go stale faster in the fridge than on the counter?",
    "Describe what a lighthouse keeper does during a storm.",
    "Write a Python function that removes duplicates, and explain how it works.",
    "Is a tomato a fruit?",
    "Suggest a vegetarian main course for a festive dinner.",
)
SAMPLED = [id for id in KINDS if not id.startswith("answer:")]
_seeds = st.integers(0, 10**6)


def _drawn(id, seed, texts=INSTRUCTIONS):
    """The arguments that a kind's sampler draws for the first instruction that it fits."""
    found = (KINDS[id].sampler(Random(seed), text) for text in texts)
    return next(arguments for arguments in found if arguments is not None)


@pytest.mark.parametrize("id", SAMPLED)
@given(seed=_seeds)
@settings(max_examples=20, deadline=None, derandomize=True)
def test_an_answer_made_to_keep_a_drawn_constraint_passes(id, seed):
    arguments = _drawn(id, seed)
    assert passes(fulfil(id, BASE, arguments), verifier(id, **arguments))


@pytest.mark.parametrize("id", KINDS)
@given(seed=_seeds, wording=st.integers(0, 5))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_every_wording_says_the_constraint_and_is_a_sentence(id, seed, wording):
    arguments = CASES[id][0] if id.startswith("answer:") else _drawn(id, seed)
    one = verifier(id, **arguments)
    sentence = said(one, wording)
    if id != "answer:agreement":  # Nobody is told what others answered.
        assert named_in(sentence, one)
        assert named_in(f"Explain bread. {sentence}", one)
    assert "{" not in sentence
    assert len(set(KINDS[id].sentences)) >= 3


@pytest.mark.parametrize("id", [id for id in SAMPLED if KINDS[id].arguments])
@given(seed=_seeds)
@settings(max_examples=10, deadline=None, derandomize=True)
def test_a_wording_with_another_number_or_word_does_not_say_the_constraint(id, seed):
    arguments = _drawn(id, seed)
    for name, value in arguments.items():
        changed = value + 31 if isinstance(value, int) else ["zebra"] if isinstance(value, list) else "zebra"
        if name.endswith("relation"):
            changed = "less than" if value == "at least" else "at least"
        assert not named_in(said(verifier(id, **arguments)), verifier(id, **{**arguments, name: changed}))


@pytest.mark.parametrize("first", SAMPLED)
def test_two_constraints_that_go_together_can_be_kept_together(first):
    for second in SAMPLED:
        if not go_together(first, second):
            continue
        for seed in range(4):
            text = INSTRUCTIONS[seed]
            drawn = {id: _drawn(id, seed, (text, *INSTRUCTIONS)) for id in (first, second)}
            one, other = (verifier(id, **arguments) for id, arguments in drawn.items())
            made = [fulfil(b, fulfil(a, BASE, drawn[a]), drawn[b]) for a, b in ((first, second), (second, first))]
            assert any(all(verified(answer, (one, other))) for answer in made), (drawn, made)


def test_a_sampled_chain_carries_constraints_that_can_be_kept_together():
    for place, text in enumerate(INSTRUCTIONS):
        carried = []
        for step in range(6):
            found = sample(text, carried, key=(place, step))
            if found is None:
                break
            assert not KINDS[found.verifier.id].held_out
            assert named_in(found.sentence, found.verifier)
            assert all(go_together(one.id, found.verifier.id) for one in carried)
            carried.append(found.verifier)
            text = f"{text} {found.sentence}"
        assert len(carried) >= (2 if "Python" in text else 3)


@pytest.mark.parametrize(
    ("text", "never"),
    [
        ("Summarise the talk in three sentences.", "length_constraints:number_words"),
        ("Write a haiku about the sea.", "detectable_format:markdown_table"),
        ("Translate this letter into French.", "language:response_language"),
        ("Write a SQL query that counts users.", "change_case:english_capital"),
        ("How many legs do two spiders have?", "detectable_content:no_digits"),
        ("Answer in capital letters: why is the sky blue?", "change_case:english_lowercase"),
    ],
)
def test_no_constraint_contradicts_what_the_instruction_says_itself(text, never):
    drawn = {found.verifier.id for key in range(200) if (found := sample(text, key=key))}
    assert drawn
    assert never not in drawn


def test_the_same_key_draws_the_same_constraint_and_other_languages_draw_none():
    text = INSTRUCTIONS[0]
    assert sample(text, key=3) == sample(text, key=3)
    assert len({sample(text, key=key) for key in range(30)}) > 15
    assert sample("Erkläre, warum das Brot im Ofen aufgeht und nicht in der Küche.") is None


def test_no_keyword_comes_from_the_wording_of_another_constraint():
    text = "Explain bread. Finish your answer with this exact phrase, and nothing after it: More on this another time."
    carried = [verifier("startend:end_checker", end_phrase="More on this another time.")]
    kinds = ["keywords:existence", "keywords:order", "keywords:frequency"]
    drawn = [sample(text, carried, key, kinds).verifier.arguments for key in range(40)]
    assert all('"bread"' in arguments for arguments in drawn)
    assert not any('"phrase"' in arguments or '"exact"' in arguments for arguments in drawn)


def test_every_kind_that_is_not_held_out_is_drawn_for_some_instruction():
    drawn = {found.verifier.id for text in INSTRUCTIONS for key in range(400) if (found := sample(text, key=key))}
    never = {id for id in SAMPLED if not KINDS[id].held_out} - drawn
    assert never == set()
    assert len(HELD_OUT) == 14


@pytest.mark.parametrize(
    ("id", "arguments", "message"),
    [
        ("length_constraints:numberwords", "{}", "No verifier 'length_constraints:numberwords'.*number_words"),
        ("startend:first_word", "{}", "can't use the arguments '{}', wanted a JSON object with first_word"),
        ("startend:first_word", "first", "can't use the arguments 'first'"),
        ("punctuation:no_comma", '{"mark": 1}', "wanted a JSON object with none"),
    ],
)
def test_a_verifier_that_cannot_be_used_is_an_error_and_not_a_failure(id, arguments, message):
    with pytest.raises(UserError, match=message):
        passes("Some answer.", Verifier(id, arguments))


def test_a_verifier_is_made_of_the_arguments_that_its_kind_takes():
    with pytest.raises(UserError, match="takes the arguments num_words, relation, not words"):
        verifier("length_constraints:number_words", words=3)
    with pytest.raises(UserError, match="'at least' or 'less than', not 'at most'"):
        verifier("length_constraints:number_words", num_words=3, relation="at most")


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        ("<think>A, or b?</think>Yes.", True),
        ("A, or b?</think>\nYes.", True),
        ("<think>A or b", False),
        ("Write <think> and </think> here, so.", False),
        ("Yes.", True),
    ],
)
def test_thoughts_before_an_answer_are_no_part_of_it(answer, wanted):
    assert passes(answer, verifier("punctuation:no_comma")) is wanted


def test_verifiers_become_the_columns_that_ifeval_reads():
    rows = [
        {"id": "startend:first_word", "arguments": '{"first_word": "So"}'},
        {"id": "punctuation:no_comma", "arguments": "{}"},
    ]
    assert as_ifeval(rows) == {
        "instruction_id_list": ["startend:first_word", "punctuation:no_comma"],
        "kwargs": [{"first_word": "So"}, {}],
    }


@pytest.mark.parametrize("id", KINDS)
def test_no_answer_takes_a_check_longer_than_a_moment(id):
    one = verifier(id, **CASES[id][0])
    hostile = (
        "." * 30_000 + "x",
        "`" * 30_000 + "a",
        "*a" * 15_000,
        "[" * 30_000,
        "| a " * 8_000,
        "1" * 30_000 + "x",
        "a." * 15_000,
        '"' * 30_001 + "a",
        "-\n" * 15_000 + "a",
        "<<" * 15_000 + "a",
        " \n" * 15_000 + "a",
        "\\boxed{" * 5_000,
        "1/" * 15_000,
        "!" * 20_000 + "a" + "!" * 20_000 + "b",
        "answer is " * 4_000,
    )
    for answer in hostile:
        start = time.perf_counter()
        passes(answer, one)
        assert time.perf_counter() - start < 2, answer[:20]


@given(st.text(max_size=400), st.sampled_from(list(KINDS)))
@settings(max_examples=400, deadline=None, derandomize=True)
def test_any_text_at_all_passes_or_fails_without_an_error(answer, id):
    assert passes(answer, verifier(id, **CASES[id][0])) in (True, False)


def test_a_script_that_imports_only_the_verifiers_loads_no_heavy_library():
    code = """
import sys
from teamsrl_hf.verifiers import Verifier, verified
rows = [Verifier("punctuation:no_comma"), Verifier("startend:first_word", '{"first_word": "So"}')]
print(verified("No such mark.", rows))
print([name for name in ("numpy", "torch", "datasets", "transformers", "sympy") if name in sys.modules])
print([name for name in sys.modules if name.startswith("teamsrl_hf.") and "verifiers" not in name])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["(True, False)", "[]", "['teamsrl_hf.types', 'teamsrl_hf.errors']"], (
        done.stderr
    )


NO_COMMA = {"id": "punctuation:no_comma", "arguments": "{}"}
SO_FIRST = {"id": "startend:first_word", "arguments": '{"first_word": "So"}'}


def test_the_reward_is_the_share_of_verifiers_that_a_completion_passes(tmp_path):
    answers = ["So it is.", "So, it is.", "Well, no.", "Anything"]
    rows = [[NO_COMMA, SO_FIRST]] * 3 + [[]]
    assert verifier_reward(answers, rows, prompts=answers, trainer_state=None) == [1.0, 0.5, 0.0, None]
    messages = [[{"role": "assistant", "content": answer}] for answer in answers]
    assert verifier_reward(completions=messages, verifiers=rows) == [1.0, 0.5, 0.0, None]
    assert verifier_reward([[], [{"role": "assistant", "content": None}]], [[NO_COMMA], None]) == [0.0, None]


def test_the_reward_takes_the_column_as_datasets_reads_it_from_parquet(tmp_path):
    import datasets

    struct = {"id": datasets.Value("string"), "arguments": datasets.Value("string")}
    features = datasets.Features({"verifiers": datasets.List(struct)})
    rows = {"verifiers": [[NO_COMMA, SO_FIRST], [NO_COMMA], []]}
    datasets.Dataset.from_dict(rows, features).to_parquet(tmp_path / "rows.parquet")
    read = datasets.load_dataset("parquet", data_files=str(tmp_path / "rows.parquet"), cache_dir=str(tmp_path))
    assert verifier_reward(["So a, b", "a b", "a"], read["train"]["verifiers"]) == [0.5, 1.0, None]


def test_the_reward_stops_at_a_verifier_that_it_does_not_know():
    with pytest.raises(UserError, match="No verifier 'punctuation:no_commas'"):
        verifier_reward(["a"], [[{"id": "punctuation:no_commas", "arguments": "{}"}]])
