"""The values that cross from room to room, all frozen dataclasses: what a seed, a step, a chain and a row are."""

from dataclasses import dataclass
from enum import StrEnum


class Name(StrEnum):
    """A fixed name of a table or a card; it is written, printed and compared as the text it is."""

    __repr__ = str.__repr__


class Role(Name):
    """Who is asked."""

    INSTRUCTOR = "instructor"
    REVIEWER = "reviewer"
    EXPERT = "expert"
    JUDGE = "judge"


class CallKind(Name):
    """What a call was spent on, in the order of the column `calls`."""

    REWRITE = "rewrite"
    REVIEW = "review"
    ANSWER = "answer"
    WALK = "walk"


class TaskKind(Name):
    """What a request asks for."""

    REWRITE = "rewrite"
    PACK = "pack"
    REVIEW = "review"
    ANSWER = "answer"
    JUDGE = "judge"


class Finish(Name):
    """How an answer ended: by itself, or cut by `max_tokens`."""

    STOP = "stop"
    LENGTH = "length"


class Verdict(Name):
    """What a reviewer says: something was gained, nothing was, or no verdict could be read."""

    NOT_EQUAL = "not_equal"
    EQUAL = "equal"
    UNREADABLE = "unreadable"


class Reason(Name):
    """Why a candidate is no row, beside a verdict other than `not_equal`. A user's filter may give any other text."""

    # Rules that a rewrite, an answer or both can break.
    EMPTY = "empty"
    UNCHANGED = "unchanged"
    REPEATS_EARLIER = "repeats_earlier"
    REFUSAL = "refusal"
    TEMPLATE_LEAK = "template_leak"
    CONTROL_TOKENS = "control_tokens"
    TOO_LONG = "too_long"
    CUT_OFF = "cut_off"
    ANSWER_CUT_OFF = "answer_cut_off"
    EMPTY_RESPONSE = "empty_response"
    # What befell a call, or a row of its answer.
    CALL_FAILED = "call_failed"
    MALFORMED = "malformed"
    NOTHING_PLANNED = "nothing_planned"
    # Filters.
    NEAR_DUPLICATE = "near_duplicate"
    TOO_SHORT = "too_short"
    TOO_MANY_WORDS = "too_many_words"
    ANSWER_TOO_LONG = "answer_too_long"
    OTHER_LANGUAGE = "other_language"
    CONTAMINATED = "contaminated"


class SeedProblem(Name):
    """Why a row of a source gives no seed; counts of rows that were left out call it so."""

    BROKEN = "broken row"
    NO_TEXT = "no text"
    EMPTY = "empty instruction"
    TOO_LONG = "too long"
    NULL_BYTE = "null byte"
    HALF_CHARACTER = "half a character"
    CONTROL_TOKEN = "control token"
    NO_USER_TURN = "no user turn"
    MORE_THAN_TEXT = "more than text"
    SEVERAL_INPUTS = "several input columns"
    REPEATED = "same as an earlier one"


# `model_type` in a saved policy's config.json, by which a folder is known to hold one.
POLICY_TYPE = "teamsrl_operation_policy"


@dataclass(frozen=True)
class Seed:
    """One instruction to start from.

    Attributes:
        id: Stable identifier: the same content has the same id in every run and every file.
        instruction: What is asked.
        input: The material the instruction works on; empty when there is none.
    """

    id: str
    instruction: str
    input: str = ""

    @property
    def text(self) -> str:
        """Instruction and input as the one text that operations rewrite, parted by a blank line.

        >>> Seed("s1", "Sort these numbers.", "3, 1, 2").text
        'Sort these numbers.\\n\\n3, 1, 2'
        """
        return f"{self.instruction}\n\n{self.input}" if self.input else self.instruction


@dataclass(frozen=True)
class State:
    """What a chooser sees before it picks the next operation.

    Attributes:
        text: The instruction as it stands.
        operations: Names of all operations tried so far in this chain, oldest first, also those that came to nothing.
        accepted: For each of them, whether its rewrite was accepted.
        step: How many operations were tried, counted from 0.
    """

    text: str
    operations: tuple[str, ...] = ()
    accepted: tuple[bool, ...] = ()
    step: int = 0


BY_RULES = "rules"  # In the place of a reviewer's name, where no model had to be asked.


@dataclass(frozen=True)
class Review:
    """What the reviewer said of one rewrite.

    Attributes:
        verdict: See `Verdict`.
        violations: Names of the rules the rewrite breaks, see `reviewer.instruction_violations`.
        reviewer: Model that gave the verdict; "rules" when no model had to be asked.
        error: Why the reviewer's call failed; it is then unreadable, with the one violation "call_failed".
    """

    verdict: Verdict
    violations: tuple[str, ...] = ()
    reviewer: str = BY_RULES
    error: str | None = None

    @property
    def passed(self) -> bool:
        return self.verdict == Verdict.NOT_EQUAL and not self.violations

    @property
    def reason(self) -> str | None:
        """Why the rewrite is rejected, or None when it passed. A broken rule is named before the verdict."""
        if self.violations:
            return self.violations[0]
        return None if self.verdict == Verdict.NOT_EQUAL else self.verdict


@dataclass(frozen=True)
class Transition:
    """One operation carried out: the text before, the operation, the text after, what the reviewer said.

    `error` is the failure of the call that should have produced `rewrite` (then equal to `instruction`) or its answer,
    else None.
    """

    instruction: str
    operation: str
    rewrite: str
    review: Review
    rewriter: str
    error: str | None = None

    @property
    def failure(self) -> str | None:
        """The failure of a call, also of the reviewer's, that keeps from knowing what the operation is worth."""
        return self.error or self.review.error

    @property
    def result(self) -> str:
        """The text the chain goes on from: the rewrite if it passed, else the unchanged instruction."""
        return self.rewrite if self.review.passed else self.instruction


@dataclass(frozen=True)
class Trajectory:
    """One chain: a seed and its transitions, in order.

    `failed` holds those of which nothing is known since a call failed; the chain goes on as if they were not tried.
    """

    seed: Seed
    transitions: tuple[Transition, ...]
    failed: tuple[Transition, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """The seed's text and every accepted rewrite, in order."""
        return (self.seed.text, *(t.rewrite for t in self.transitions if t.review.passed))


@dataclass(frozen=True)
class Candidate:
    """One transition on its way to becoming a row.

    Attributes:
        id: Hash of seed, step, operation and text.
        parent_id: Id of the row it was rewritten from; the seed's id at the start of a chain.
        step: Position in the chain, from 0.
        operations: Operations whose accepted rewrites led from the seed to this text, this one included.
        response: The expert's answer; empty until asked.
        responder: Model that answered.
        calls: Calls spent on this candidate by `CallKind`, sorted by name. "walk" is what the free instructor tried; a
            call that several candidates share is booked on the first of them.
    """

    id: str
    seed: Seed
    parent_id: str
    step: int
    operations: tuple[str, ...]
    transition: Transition
    response: str = ""
    responder: str = ""
    calls: tuple[tuple[CallKind, int], ...] = ()


@dataclass(frozen=True)
class Example:
    """A candidate that became a row of the published dataset."""

    candidate: Candidate


@dataclass(frozen=True)
class Rejection:
    """A candidate that did not, and why (one word, counted in the card)."""

    candidate: Candidate
    reason: str
