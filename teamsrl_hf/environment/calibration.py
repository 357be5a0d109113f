"""How well a reviewer answers: in go a model and labelled rewrites, out come accuracies, intervals and offsets.

A small model prefers one word whatever it is asked. Where a model answers by the likelihood of two words, a
calibration therefore holds an offset for each question: how much likelier the accepting word must be.
"""

import hashlib
import json
import logging
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..models.base import Completion, Generator, is_immediate
from ..public import public_model
from ..text.questions import CLEAR, DIFFERENT, HARDER, Question, select_questions
from ..types import Reason
from .review import REVIEW_SAMPLING, Reviewer, Reviewing, accepts, question_request
from .rollout import run_all

logger = logging.getLogger(__name__)
# For each question: the label that its answer should accept, and the one that it should reject.
LABELS: dict[str, tuple[str, str]] = {
    DIFFERENT.name: ("good", Reason.UNCHANGED),
    CLEAR.name: ("good", Reason.UNCLEAR),
    HARDER.name: ("good", "easier"),
}
KNOWN_LABELS = tuple(dict.fromkeys(label for pair in LABELS.values() for label in pair))
COLUMNS = ("operation", "instruction", "rewrite", "label")


@dataclass(frozen=True)
class Labelled:
    """A rewrite whose quality is known.

    Attributes:
        label: "good"; "unchanged" if it asks for the same as before; "unclear" if it cannot be answered as it stands;
            "easier" if it asks for less.
    """

    operation: str
    instruction: str
    rewrite: str
    label: str


@dataclass(frozen=True)
class Measured:
    """A reviewer's answers to one question on labelled rewrites.

    Attributes:
        rows: Rewrites that it was asked about.
        right: How many it answered as their label says, with the offset. Each row is judged with an offset found on
            the other rows, so that the number holds for new rows.
        unreadable: Answers without a verdict, which count as wrong.
        failed: Calls without an answer, which count as wrong.
        chance: Share of the more frequent label: what a reviewer gets right that always says the same.
        offset: How much likelier, in nats, the accepting word must be; 0 where no likelihoods are known.
    """

    rows: int
    right: int
    unreadable: int
    failed: int
    chance: float
    offset: float = 0.0

    @property
    def accuracy(self) -> float:
        return self.right / self.rows

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Wilson interval of the accuracy."""
        from scipy.stats import binomtest

        found = binomtest(self.right, self.rows).proportion_ci(0.95, method="wilson")
        return float(found.low), float(found.high)

    @property
    def better_than_chance(self) -> bool:
        return self.interval[0] > self.chance

    def warning(self, question: str, reviewer: str) -> str:
        """What to tell the user of a reviewer that is no better than chance."""
        low, high = self.interval
        return (
            f"The reviewer {reviewer} answers {question!r} no better than chance: accuracy {self.accuracy:.2f} on "
            f"{self.rows} rows, 95 % interval {low:.2f} to {high:.2f}, chance {self.chance:.2f}. Use a larger model "
            "as reviewer, or leave the question out."
        )


@dataclass(frozen=True)
class Calibration:
    """What is known of one reviewer.

    Attributes:
        reviewer: Public name of the model, as cards show it.
        identity: Hash of what identifies the model, so that a file is not used for another one.
        questions: What was measured, by the question's name.
        prompts: Hash of each question's prompt; other prompts need another calibration.
    """

    reviewer: str
    identity: str
    questions: Mapping[str, Measured]
    prompts: Mapping[str, str]

    def weak(self, questions: Sequence[str]) -> list[str]:
        """Those of `questions` that the reviewer answers no better than chance."""
        return [name for name in questions if not self.questions[name].better_than_chance]

    def facts(self, questions: Sequence[str]) -> list[dict[str, Any]]:
        """Name, rows, accuracy and interval of each of `questions`, for cards."""
        found = [(name, self.questions[name]) for name in questions]
        return [
            {"question": name, "rows": one.rows, "accuracy": one.accuracy, "interval": one.interval}
            | {"chance": one.chance}
            for name, one in found
        ]

    def save(self, path: str | Path) -> None:
        """Write the calibration as JSON, with accuracy and interval for readers."""
        shown = {
            name: asdict(one)
            | {"accuracy": round(one.accuracy, 4), "interval": [round(end, 4) for end in one.interval]}
            for name, one in self.questions.items()
        }
        content = {"reviewer": self.reviewer, "identity": self.identity, "prompts": dict(self.prompts)}
        Path(path).write_text(json.dumps(content | {"questions": shown}, indent=2) + "\n", encoding="utf-8")


def load_calibration(path: str | Path) -> Calibration:
    """The calibration in a file. UserError where the file cannot be read or holds something else."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        names = Measured.__dataclass_fields__
        questions = {
            name: Measured(**{key: value for key, value in one.items() if key in names})
            for name, one in content["questions"].items()
        }
        return Calibration(content["reviewer"], content["identity"], questions, content["prompts"])
    except OSError as error:
        raise UserError(f"Can't read the calibration {path} ({error.strerror}); check its path.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no calibration; make one with: teamsrl calibrate --output FILE.") from error


def read_labelled(path: str | Path | None = None) -> list[Labelled]:
    """Labelled rewrites of a JSON-lines file, or the built-in ones.

    Raises:
        UserError: The file cannot be read, a line lacks a column, or a label is unknown.
    """
    source = files("teamsrl_hf.environment.data").joinpath("verdicts.jsonl") if path is None else Path(path)
    try:
        lines = source.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Can't read the labelled rewrites {path}: {error}; check the path.") from error
    rows = [_labelled(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1) if line.strip()]
    if not rows:
        raise UserError(f"{path} holds no labelled rewrite; a line has {', '.join(COLUMNS)}.")
    return rows


def _labelled(line: str, where: str) -> Labelled:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where} is no JSON object; write one a line, with {', '.join(COLUMNS)}.") from error
    if not isinstance(row, dict) or not all(isinstance(row.get(name), str) for name in COLUMNS):
        raise UserError(f"{where} lacks a text for one of {', '.join(COLUMNS)}.")
    if row["label"] not in KNOWN_LABELS:
        raise UserError(f"{where} has the label {row['label']!r}; use {', '.join(KNOWN_LABELS)}.")
    return Labelled(**{name: row[name] for name in COLUMNS})


def calibrate(
    reviewer: Generator, rows: Sequence[Labelled], questions: Sequence[str] = (DIFFERENT.name,)
) -> Calibration:
    """Ask a reviewer about labelled rewrites and measure its answers.

    Args:
        reviewer: The model, through a ledger where no question is to be asked twice.
        rows: Each question is asked about the rows whose label decides it, see `LABELS`.

    Raises:
        UserError: No row has a label that a question needs.
    """
    chosen = select_questions(questions)
    for question in chosen:
        for label in LABELS[question.name]:
            if not any(row.label == label for row in rows):
                raise UserError(f"No row has the label {label!r}, which the question {question.name!r} needs.")
    measured = {question.name: _measure(question, rows, reviewer) for question in chosen}
    prompts = {question.name: _prompt_digest(question) for question in chosen}
    return Calibration(public_model(reviewer.model), _digest(reviewer.model), measured, prompts)


def _measure(question: Question, rows: Sequence[Labelled], reviewer: Generator) -> Measured:
    accepted, rejected = LABELS[question.name]
    used = [row for row in rows if row.label in (accepted, rejected)]
    wanted = [row.label == accepted for row in used]
    requests = [question_request(question, row.instruction, row.rewrite) for row in used]
    answers = run_all([reviewer(request) for request in requests], is_immediate(reviewer))
    margins = [answer.scores[0] - answer.scores[1] for answer in answers if answer.scores]
    scored = len(margins) == len(answers)
    said = _left_out(margins, wanted) if scored else [_said(question, answer) for answer in answers]
    return Measured(
        rows=len(used),
        right=sum(one is want for one, want in zip(said, wanted, strict=True)),
        unreadable=sum(one is None and not answer.error for one, answer in zip(said, answers, strict=True)),
        failed=sum(answer.error is not None for answer in answers),
        chance=max(sum(wanted), len(used) - sum(wanted)) / len(used),
        offset=_midway(margins, wanted) if scored else 0.0,
    )


def _said(question: Question, answer: Completion) -> bool | None:
    return None if answer.error else accepts(question, answer)


def _left_out(margins: Sequence[float], wanted: Sequence[bool]) -> list[bool]:
    """What each row is judged to be, with the offset that the other rows give."""
    judged = []
    for place, margin in enumerate(margins):
        others = [*margins[:place], *margins[place + 1 :]], [*wanted[:place], *wanted[place + 1 :]]
        judged.append(margin >= _midway(*others))
    return judged


def _midway(margins: Sequence[float], wanted: Sequence[bool]) -> float:
    """The number half-way between the mean margins of the two labels; of one label alone, 0."""
    sides = [[m for m, want in zip(margins, wanted, strict=True) if want is side] for side in (True, False)]
    return sum(map(statistics.mean, sides)) / 2 if all(sides) else 0.0


def _prompt_digest(question: Question) -> str:
    content = [question.messages("first", "second"), question.choices, vars(REVIEW_SAMPLING)]
    return _digest(json.dumps(content, sort_keys=True))


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


@dataclass
class ReviewingArguments:
    """What the reviewer is asked, and how well it is known to answer."""

    review_questions: list[str] = field(
        default_factory=lambda: [DIFFERENT.name],
        metadata={"help": "What the reviewer is asked of a rewrite, a call each: different, clear, harder."},
    )
    calibration: str | None = field(
        default=None, metadata={"help": "File of `teamsrl calibrate` for this reviewer: its offsets and accuracy."}
    )

    def __post_init__(self) -> None:
        select_questions(self.review_questions)

    @cached_property
    def known(self) -> Calibration | None:
        """The calibration, read once."""
        return None if self.calibration is None else load_calibration(self.calibration)

    def apply(self, reviewer: Generator) -> Generator:
        """The reviewer, asked as the arguments say; the model itself where they say nothing.

        Raises:
            UserError: The calibration is of another model or other prompts, or lacks a question.
        """
        questions = tuple(self.review_questions)
        if self.known is None:
            return reviewer if questions == (DIFFERENT.name,) else Reviewer(reviewer, Reviewing(questions))
        self._check(self.known, reviewer)
        for name in self.known.weak(questions):
            logger.warning("%s", self.known.questions[name].warning(name, self.known.reviewer))
        offsets = tuple(self.known.questions[name].offset for name in questions)
        return Reviewer(reviewer, Reviewing(questions, offsets))

    def _check(self, known: Calibration, reviewer: Generator) -> None:
        again = f"make one for this run with: teamsrl calibrate --reviewer SPEC --output {self.calibration}"
        if known.identity != _digest(reviewer.model):
            model = public_model(reviewer.model)
            raise UserError(f"{self.calibration} calibrates {known.reviewer}, but the reviewer is {model}; {again}")
        for question in select_questions(self.review_questions):
            if question.name not in known.questions:
                raise UserError(
                    f"{self.calibration} says nothing of the question {question.name!r}; "
                    f"{again} --review_questions {' '.join(self.review_questions)}"
                )
            if known.prompts.get(question.name) != _prompt_digest(question):
                raise UserError(f"{self.calibration} was made with another prompt for {question.name!r}; {again}")

    @property
    def arguments(self) -> dict[str, Any]:
        """What a run that continues another must share with it; of the calibration, its content."""
        content = self.known and {name: asdict(one) for name, one in self.known.questions.items()}
        return {"review_questions": list(self.review_questions), "calibration": content}

    @property
    def facts(self) -> dict[str, Any]:
        """Questions, and accuracies where a calibration gives them, for lineage.json and cards."""
        return {
            "questions": list(self.review_questions),
            "calibration": self.known and self.known.facts(self.review_questions),
        }
