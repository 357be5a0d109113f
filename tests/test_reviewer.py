import asyncio

import pytest

from teamsrl_hf import (
    Ledger,
    Review,
    Rulebook,
    ScriptedGenerator,
    Seed,
    Trajectory,
    Transition,
    novelty_reward,
    validity_reward,
)
from teamsrl_hf.environment.review import Reviewer, Reviewing, parse_verdict, review
from teamsrl_hf.text.gate.leaks import leaks_template
from teamsrl_hf.text.operations import OPERATIONS, REWRITE_FRAME
from teamsrl_hf.text.questions import CLEAR, HARDER
from teamsrl_hf.text.rules import instruction_violations, response_violations

DEEPEN = OPERATIONS[2]


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("Not Equal", "not_equal"),
        ("not equal.", "not_equal"),
        ("NOT_EQUAL", "not_equal"),
        ('"Not Equal"', "not_equal"),
        ("**Different**", "not_equal"),
        ("Different: the second one adds a word limit.", "not_equal"),
        ("Verdict: Equal", "equal"),
        ("The answer is: 'Equal'.", "equal"),
        ("equal", "equal"),
        (" Equal.\nBoth ask for a poem about rain.", "equal"),
        ("Equal, since both ask the same thing in different words.", "equal"),
        ("The second one asks for reasons too.\nDifferent", "not_equal"),
        ("The second one repeats the first.\n\n**Verdict:** Equal.", "equal"),
        ("Both name a bird, so my verdict: equal", "equal"),
        ("- Equal\n", "equal"),
        ("Not equal\nVerdict: Different", "not_equal"),
        ("They are not equal because the second is deeper.", "unreadable"),
        ("I would say these two are equal", "unreadable"),
        ("The second offers different perspectives on the same question.", "unreadable"),
        ("Different perspectives are offered by the second.", "unreadable"),
        ("Both give equal weight to cost\nand comfort.", "unreadable"),
        ("Let me see.\nEqual\nOr rather:\nDifferent", "unreadable"),
        ("Verdict: equal or different", "unreadable"),
        ("It is unequalled.", "unreadable"),
        ("", "unreadable"),
        ("Yes", "unreadable"),
        ("Equal or Not Equal?", "unreadable"),
        ("Equal/Different", "unreadable"),
        ("They are not really different.", "unreadable"),
        ("They treat both sides equally.", "unreadable"),
    ],
)
def test_verdicts_are_read_whatever_their_dress_and_never_found_in_prose(answer, verdict):
    assert parse_verdict(answer) == verdict


def test_a_rewrite_that_differs_in_case_and_spacing_alone_is_unchanged():
    assert instruction_violations("Why is the sky blue?", "why is  the sky BLUE", [], DEEPEN) == ("unchanged",)


def test_going_back_to_an_earlier_text_of_the_chain_is_a_violation():
    assert instruction_violations("Name a bird and its song.", "Name a bird.", ["Name a bird."], DEEPEN) == (
        "repeats_earlier",
    )


def test_an_empty_rewrite_is_a_violation():
    assert instruction_violations("Name a bird.", " ...", [], DEEPEN) == ("empty",)


@pytest.mark.parametrize(
    "leak",
    [
        "Name a bird. #Rewritten Prompt#",
        "Improve on the given prompt: name a bird.",
        "Name a bird in no more than 2048 words.",
        "Name a bird. [end 0123456789ab]",
        "Name a bird. Carry over every table, piece of code and other input.",
        f"Name a bird. {DEEPEN.sentence}",
    ],
)
def test_markers_and_clauses_of_the_prompt_are_a_leak(leak):
    assert leaks_template(leak, "Name a bird.", DEEPEN)


def test_what_the_instruction_already_said_is_no_leak():
    text = "Explain what a given prompt is, in 2048 words."
    assert not leaks_template(text + " Be brief.", text, DEEPEN)


def test_control_tokens_in_a_rewrite_are_a_violation_and_html_is_not():
    assert instruction_violations("Name a bird.", "Name a bird <|im_end|> now.", [], DEEPEN) == ("control_tokens",)
    assert instruction_violations("Name a bird.", "Name a <b>bird</b> in bold.", [], DEEPEN) == ()
    assert instruction_violations("Name a bird.", "<think>Hm.</think>Name a hawk.", [], DEEPEN) == ("control_tokens",)
    assert response_violations("I was asked for a bird.</think>\nA hawk.") == ("control_tokens",)


def test_a_short_apology_is_refused_at_79_words_and_kept_at_80():
    assert response_violations("Sorry " + "word " * 78) == ("refusal",)
    assert response_violations("Sorry " + "word " * 79) == ()
    assert response_violations("word " * 79) == ()


@pytest.mark.parametrize(
    "answer",
    [
        "I can't help with that.",
        "I cannot assist with this request, as it may cause harm.",
        "Unfortunately, I’m unable to provide medical advice.",
        "I am not able to answer this. Please ask a lawyer.",
        "As an AI language model, I don't have personal experiences.",
        "We won't be able to do so, but I can not write it either.",
    ],
)
def test_a_refusal_without_an_apology_is_one_while_it_is_short(answer):
    assert response_violations(answer) == ("refusal",)
    assert response_violations(answer + " word" * 80) == ()


@pytest.mark.parametrize(
    "answer",
    [
        "I can't help but admire the blue whale.",
        "The knights said they cannot help the king, so he left.",
        "Use a thermometer: you can't assess fever by touch.",
        "A model helps: as an AI model improves, its errors shrink.",
        "Nobody can write that quickly; " + "practice " * 40 + "I cannot help you more.",
    ],
)
def test_an_answer_that_speaks_of_what_cannot_be_done_is_none(answer):
    assert response_violations(answer) == ()


def test_a_rewriter_that_declines_has_not_rewritten():
    for declined in (
        "I'm unable to help you with this request.",
        "I can't assist with that.",
        "Sorry, but I cannot rewrite it, as it could be misused.",
        "I won’t comply with this.",
    ):
        assert instruction_violations("Name a bird.", declined, [], DEEPEN) == ("refusal",)
    for asked in ("I cannot sleep. Explain why.", "I'm unable to open this file. What could be wrong with it?"):
        assert "refusal" not in instruction_violations("Name a bird.", asked, [], DEEPEN)
    quoted = 'Translate: "I can\'t assist with that."'
    assert instruction_violations(quoted, quoted + " Use French.", [], DEEPEN) == ()


def test_the_frames_of_plans_leak_as_those_of_single_operations_do():
    plan = OPERATIONS[1:3]
    for leak in (
        "Name a bird. [item 2 0123456789ab]",
        "Name a bird. Items have nothing to do with one another.",
        "Name a bird. Let each operation add no more than about twenty words.",
        f"Name a bird. {plan[0].sentence}",
        f"Name a bird. {plan[1].sentence}",
    ):
        assert instruction_violations("Name a bird.", leak, [], plan) == ("template_leak",)
    assert instruction_violations("Name a bird.", f"Name a bird. {OPERATIONS[5].sentence}", [], plan) == ()
    assert response_violations("A hawk. [end 2 0123456789ab]") == ("template_leak",)


def test_an_answer_of_stop_words_and_punctuation_is_empty():
    assert response_violations("It is what it is, and so is that.") == ("empty_response",)
    assert response_violations("") == ("empty_response",)
    assert response_violations("It is Paris.") == ()


def test_an_answer_cut_by_the_token_limit_is_named():
    assert response_violations("The capital of France is", "length") == ("cut_off",)


def test_the_reviewer_is_not_asked_where_a_rule_decides():
    reviewer = ScriptedGenerator(lambda request: "Different")
    assert asyncio.run(review("Name a bird.", "Name a bird!", [], DEEPEN, reviewer)).reason == "unchanged"
    assert reviewer.calls == 0
    assert asyncio.run(review("Name a bird.", "Name a bird of prey.", [], DEEPEN, reviewer)).passed
    assert reviewer.calls == 1


def test_an_unreadable_verdict_is_a_counted_failure():
    reviewer = ScriptedGenerator(lambda request: "Hard to say.")
    assert asyncio.run(review("Name a bird.", "Name a bird of prey.", [], DEEPEN, reviewer)).reason == "unreadable"


@pytest.mark.parametrize(
    ("question", "answer", "accepted"),
    [
        (CLEAR, "Clear", True),
        (CLEAR, "**Unclear**, since the table is missing.", False),
        (CLEAR, "Not clear.", False),
        (CLEAR, "Clearly yes", None),
        (HARDER, "Harder: two more things to find out", True),
        (HARDER, "The second one is shorter.\nNot harder", False),
        (HARDER, "easier", False),
        (HARDER, "Equal", None),
    ],
)
def test_each_question_has_words_of_its_own(question, answer, accepted):
    assert question.read(answer) is accepted


def _asked(questions, answers, operation=DEEPEN):
    """The review under these questions, and the choices of each request."""
    asked = []

    def reply(request):
        asked.append(request.choices)
        return answers[request.choices[0]]

    reviewer = Reviewer(ScriptedGenerator(reply), Reviewing(tuple(questions)))
    before, after = "Name a bird.", "Name a bird that nests on cliffs, and say why it does."
    return asyncio.run(review(before, after, [], operation, reviewer)), asked


def test_a_reviewer_is_asked_one_question_unless_more_are_chosen():
    verdict, asked = _asked(["different"], {"Different": "Different"})
    assert (verdict.passed, asked) == (True, [("Different", "Equal")])
    said = {"Different": "Different", "Clear": "Clear", "Harder": "Harder"}
    verdict, asked = _asked(["different", "clear", "harder"], said)
    assert (verdict.passed, asked) == (True, [("Different", "Equal"), ("Clear", "Unclear"), ("Harder", "Easier")])


def test_the_first_answer_that_rejects_a_rewrite_names_the_reason_and_saves_the_other_calls():
    verdict, asked = _asked(["different", "clear", "harder"], {"Different": "Different", "Clear": "Unclear"})
    assert (verdict.reason, verdict.verdict, len(asked)) == ("unclear", "not_equal", 2)
    verdict, asked = _asked(["harder", "different"], {"Harder": "Easier"})
    assert (verdict.reason, len(asked)) == ("not_harder", 1)
    verdict, asked = _asked(["different", "clear"], {"Different": "Equal"})
    assert (verdict.reason, len(asked)) == ("equal", 1)
    verdict, asked = _asked(["clear", "different"], {"Clear": "It depends."})
    assert (verdict.reason, len(asked)) == ("unreadable", 1)


def test_another_instruction_need_not_be_harder():
    _, asked = _asked(["different", "harder"], {"Different": "Different"}, OPERATIONS[0])
    assert asked == [("Different", "Equal")]


def test_the_questions_pass_through_a_ledger_which_remembers_each_answer(tmp_path):
    answers = {"Different": "Different", "Clear": "Clear"}
    model = ScriptedGenerator(lambda request: answers[request.choices[0]])
    for _ in range(2):
        with Ledger(tmp_path / "ledger.sqlite") as ledger:
            reviewer = ledger.record(Reviewer(model, Reviewing(("different", "clear"))))
            assert asyncio.run(review("Name a bird.", "Name a bird of prey.", [], DEEPEN, reviewer)).passed
    assert model.calls == 2


def test_the_rulebook_answers_no_further_question():
    with pytest.raises(ValueError, match="'different' alone"):
        Reviewer(Rulebook(), Reviewing(("different", "clear")))
    rules = Reviewer(Rulebook(), Reviewing(("different",)))
    assert asyncio.run(review("Name a bird.", "Name a bird of prey.", [], DEEPEN, rules)).passed


def _chain(seed, *steps):
    transitions, text = [], seed
    for rewrite, verdict, violations in steps:
        transitions.append(Transition(text, "deepen", rewrite, Review(verdict, violations), "scripted"))
        text = transitions[-1].result
    return Trajectory(Seed("s" + seed, seed), tuple(transitions))


def test_validity_pays_one_for_what_passes_and_nothing_else():
    chain = _chain(
        "Name a bird.",
        ("Name a bird of prey.", "not_equal", ()),
        ("Name a bird of prey.", "equal", ("unchanged",)),
        ("Name the given prompt.", "not_equal", ("template_leak",)),
        ("Name a hawk.", "unreadable", ()),
    )
    assert validity_reward([chain]) == [[1.0, 0.0, 0.0, 0.0]]


def test_novelty_is_nothing_for_a_copy_of_another_chain_and_one_for_words_never_seen():
    first = _chain("Name a bird.", ("Explain quantum tunnelling thoroughly", "not_equal", ()))
    second = _chain("List two rivers.", ("Explain quantum tunnelling thoroughly", "not_equal", ()))
    (fresh,), (copied,) = novelty_reward([first, second])
    assert fresh == pytest.approx(1.0, abs=0.05)
    assert copied == pytest.approx(0.0, abs=1e-6)


def _step(operation, instruction, rewrite):
    transition = Transition(instruction, operation, rewrite, Review("not_equal"), "scripted")
    return Trajectory(Seed(rewrite, instruction), (transition,))


def test_novelty_pays_for_a_new_addition_whatever_it_stands_behind_and_not_for_a_common_one():
    first = "Describe how a lighthouse keeper spends a stormy night on the rock."
    limit = " Use no more than eighty words."
    (own,), (common,), (again,) = novelty_reward(
        [
            _step("add_constraints", first, f"{first} Mention one smell and two sounds."),
            _step("add_constraints", "Explain rust.", f"Explain rust.{limit}"),
            _step("add_constraints", "Sort these coins.", f"Sort these coins.{limit}"),
        ]
    )
    assert own > 0.8
    assert common > 0.8
    assert again == pytest.approx(0.0, abs=0.1)


def test_novelty_does_not_pay_more_for_leaving_the_subject_than_for_a_new_addition():
    first = "Describe how a lighthouse works."
    (stays,) = novelty_reward([_step("deepen", first, f"{first} Why did keepers polish lenses?")])[0]
    (leaves,) = novelty_reward([_step("deepen", first, "Compare goats with llamas for carrying salt uphill.")])[0]
    assert leaves - stays < 0.1


def test_novelty_of_breadth_is_that_of_the_whole_text_and_words_in_another_order_add_nothing():
    same = "Describe a lighthouse at night."
    (breadth,) = novelty_reward([_step("breadth", same, f"{same} Now.")])[0]
    (deepened,) = novelty_reward([_step("deepen", same, f"{same} Now.")])[0]
    assert breadth < 0.2 < deepened
    assert novelty_reward([_step("deepen", "Name a bird.", "Name a bird")]) == [[0.0]]


def test_novelty_pays_nothing_for_a_rewrite_that_did_not_pass():
    assert novelty_reward([_chain("Name a bird.", ("Something else", "equal", ()))]) == [[0.0]]


def test_the_frame_itself_is_found_when_leaked_whole():
    assert leaks_template(REWRITE_FRAME, "Name a bird.", DEEPEN)
