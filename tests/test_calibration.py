import asyncio
import json
import logging
from dataclasses import replace

import pytest
from asked import EVOLVE_RULES, TRAIN_RULES

from teamsrl_hf import OPERATIONS, Completion, Rulebook, ScriptedGenerator
from teamsrl_hf.cli import main
from teamsrl_hf.environment.calibration import (
    LABELS,
    Labelled,
    ReviewingArguments,
    calibrate,
    load_calibration,
    read_labelled,
)
from teamsrl_hf.environment.review import Reviewer, Reviewing, review, reviewing_of
from teamsrl_hf.models.ledger import Ledger
from teamsrl_hf.text.gate.leaks import copies_example
from teamsrl_hf.text.questions import QUESTIONS

ROWS = [
    Labelled("deepen", f"Why do ships float on lake {n}?", f"What keeps ship {n} afloat?", "unchanged") for n in "ab"
]
ROWS += [Labelled("deepen", "Why?", f"Why do ships of {n} float, and what would sink them?", "good") for n in "cdef"]


def leaning(to_different, margins):
    """A model that answers by likelihood and prefers "Different" by some nats, whatever it is asked."""
    left = iter(margins)

    def answer(request):
        score = next(left) + to_different
        return Completion(request.choices[score < 0], "leaning", scores=(score, 0.0))

    return ScriptedGenerator(answer, "leaning")


def test_the_built_in_rewrites_are_forty_for_each_question_half_of_either_label_and_of_all_operations():
    rows = read_labelled()
    counts = {label: sum(row.label == label for row in rows) for label in ("good", "unchanged", "unclear", "easier")}
    assert counts == {"good": 20, "unchanged": 20, "unclear": 20, "easier": 20}
    assert LABELS.keys() == QUESTIONS.keys()
    assert len({row.operation for row in rows}) == 6
    assert len({row.rewrite for row in rows}) == 80


def test_no_worked_example_of_a_question_is_among_the_rewrites_that_measure_it():
    shown = {text for question in QUESTIONS.values() for *texts, _ in question.examples for text in texts if text}
    for row in read_labelled():
        assert not shown & {row.instruction, row.rewrite}
        assert not copies_example(row.rewrite, row.instruction, tuple(shown))


def test_the_rules_of_the_rulebook_take_every_paraphrase_for_a_change():
    found = calibrate(Rulebook(), read_labelled()).questions["different"]
    assert (found.rows, found.chance, found.unreadable, found.failed, found.offset) == (40, 0.5, 0, 0, 0.0)
    assert found.right == 20
    assert not found.better_than_chance


def test_a_model_that_always_says_the_same_is_right_as_often_as_chance():
    found = calibrate(ScriptedGenerator(lambda request: "Different"), ROWS).questions["different"]
    assert (found.right, found.rows, found.chance) == (4, 6, 4 / 6)
    assert not found.better_than_chance
    assert "accuracy 0.67 on 6 rows, 95 % interval 0.30 to 0.90, chance 0.67" in found.warning("different", "m")


def test_an_unreadable_answer_and_a_failed_call_are_counted_and_are_wrong():
    answers = [
        "Equal",
        "They offer different perspectives.",
        Completion("", "m", error="HTTP 500"),
        *["Different"] * 3,
    ]
    found = calibrate(ScriptedGenerator(answers), ROWS).questions["different"]
    assert (found.right, found.unreadable, found.failed) == (4, 1, 1)


def test_the_offset_takes_away_what_a_model_prefers_whatever_it_is_asked():
    found = calibrate(leaning(5.0, [-1.0, -2.0, 2.0, 1.0, 1.5, 1.5]), ROWS).questions["different"]
    assert found.offset == 5.0
    assert found.right == 6
    without = calibrate(leaning(0.0, [-1.0, -2.0, 2.0, 1.0, 1.5, 1.5]), ROWS).questions["different"]
    assert (without.offset, without.right) == (0.0, 6)


def test_the_accuracy_is_not_that_of_an_offset_that_has_seen_the_row():
    # With all rows the offset is -0.125, and 5 of 6 would be right.
    found = calibrate(leaning(0.0, [0.0, -1.0, -0.1, 0.2, 0.5, 0.4]), ROWS).questions["different"]
    assert found.offset == pytest.approx(-0.125)
    assert found.right == 4


def test_a_question_without_a_row_of_each_label_is_refused():
    with pytest.raises(ValueError, match="No row has the label 'unclear', which the question 'clear' needs"):
        calibrate(Rulebook(), ROWS, ["clear"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("no JSON", "line 2 is no JSON object"),
        (
            '{"operation": "deepen", "instruction": "Why?", "label": "good"}',
            "line 2 lacks a text for one of operation",
        ),
        (json.dumps(vars(ROWS[0]) | {"label": "bad"}), "line 2 has the label 'bad'; use good, unchanged"),
    ],
)
def test_a_line_that_can_not_be_used_is_named(tmp_path, line, message):
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(vars(ROWS[0])) + "\n" + line)
    with pytest.raises(ValueError, match=message):
        read_labelled(file)


def test_an_empty_or_missing_file_of_rewrites_is_named(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="holds no labelled rewrite"):
        read_labelled(tmp_path / "empty.jsonl")
    with pytest.raises(ValueError, match="Can't read the labelled rewrites"):
        read_labelled(tmp_path / "missing.jsonl")


def _saved(tmp_path, questions=("different",)):
    rows = [*ROWS, Labelled("deepen", "Why?", "Why the of?", "unclear")]
    margins = [-1.0, -2.0, 2.0, 1.0, 1.5, 1.5, *[1.0] * 4, -1.0]
    found = calibrate(leaning(5.0, margins), rows, questions)
    found.save(tmp_path / "calibration.json")
    return found


def test_a_saved_calibration_is_read_back_and_gives_the_reviewer_its_offsets(tmp_path):
    found = _saved(tmp_path, questions=("different", "clear"))
    path = str(tmp_path / "calibration.json")
    assert load_calibration(path) == found
    reviewer = ReviewingArguments(["clear", "different"], path).apply(ScriptedGenerator([], "leaning"))
    assert reviewing_of(reviewer) == Reviewing(("clear", "different"), (5.0, 5.0))


def test_an_offset_decides_where_the_likelihoods_are_known(tmp_path):
    texts = "Name a bird.", "Name a bird that nests on cliffs, and say why it does."
    for offset, passed in ((0.0, True), (5.0, False)):
        reviewer = Reviewer(leaning(5.0, [-1.0]), Reviewing(("different",), (offset,)))
        assert asyncio.run(review(*texts, [], OPERATIONS[2], reviewer)).passed is passed


def test_a_calibration_of_another_model_question_or_prompt_is_refused(tmp_path, monkeypatch):
    _saved(tmp_path)
    path = str(tmp_path / "calibration.json")
    with pytest.raises(ValueError, match="calibrates leaning, but the reviewer is other"):
        ReviewingArguments(calibration=path).apply(ScriptedGenerator([], "other"))
    with pytest.raises(ValueError, match="says nothing of the question 'clear'"):
        ReviewingArguments(["different", "clear"], path).apply(ScriptedGenerator([], "leaning"))
    asked_otherwise = replace(QUESTIONS["different"], frame="Compare.\n")
    monkeypatch.setitem(QUESTIONS, "different", asked_otherwise)
    with pytest.raises(ValueError, match="was made with another prompt for 'different'"):
        ReviewingArguments(calibration=path).apply(ScriptedGenerator([], "leaning"))
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(ValueError, match="is no calibration"):
        load_calibration(tmp_path / "other.json")
    with pytest.raises(ValueError, match="Can't read the calibration"):
        load_calibration(tmp_path / "missing.json")


def test_as_many_offsets_as_questions_are_needed():
    with pytest.raises(ValueError, match="2 offsets for 1 questions"):
        Reviewing(("different",), (0.5, 1.0))


def test_without_settings_the_model_itself_is_the_reviewer():
    model = Rulebook()
    assert ReviewingArguments().apply(model) is model


def _calibrated(tmp_path, *more):
    path = tmp_path / "calibration.json"
    assert main(["calibrate", "--reviewer", "rulebook", "--output", str(path), *more]) == 0
    return path


def test_the_command_measures_warns_and_asks_nothing_twice(tmp_path, capsys, caplog):
    with caplog.at_level(logging.WARNING):
        path = _calibrated(tmp_path)
    assert "different  accuracy 0.500 on 40 rows (95 % interval 0.352 to 0.648" in capsys.readouterr().out
    assert "no better than chance" in caplog.text
    saved = json.loads(path.read_text())
    assert saved["reviewer"] == "rulebook"
    assert saved["questions"]["different"]["interval"] == [0.352, 0.648]
    _calibrated(tmp_path)
    with Ledger(tmp_path / "calibration.sqlite") as ledger:
        assert ledger.totals()["reviewer"].calls == 40


def test_evolve_states_the_accuracy_in_the_card_warns_and_refuses_another_reviewer(tmp_path, capsys, caplog):
    path = _calibrated(tmp_path)
    seeds = tmp_path / "seeds.jsonl"
    seeds.write_text(
        "".join(json.dumps({"instruction": f"Describe how a {n} works."}) + "\n" for n in ("kite", "loom"))
    )
    words = ["evolve", *EVOLVE_RULES, "--seeds", str(seeds), "--chooser", "uniform", "--calibration", str(path)]
    words += ["--output_dir", str(tmp_path / "rows"), "--test_size", "0"]
    with caplog.at_level(logging.WARNING):
        assert main(words) == 0
    assert "no better than chance" in caplog.text
    card = (tmp_path / "rows" / "README.md").read_text()
    assert "`different` with an accuracy of 0.50 (95 % interval 0.35 to 0.65; chance is 0.50), which is no" in card
    content = json.loads(path.read_text()) | {"identity": "0" * 16, "reviewer": "another"}
    path.write_text(json.dumps(content))
    assert main([*words[:-4], "--output_dir", str(tmp_path / "other"), "--test_size", "0"]) == 2
    assert "calibrates another, but the reviewer is rulebook" in capsys.readouterr().err


def test_train_policy_refuses_a_question_that_the_rulebook_can_not_answer(tmp_path, capsys):
    words = ["train-policy", *TRAIN_RULES, "--output_dir", str(tmp_path / "policy"), "--review_questions", "clear"]
    assert main(words) == 2
    assert "The rulebook answers the review question 'different' alone" in capsys.readouterr().err
