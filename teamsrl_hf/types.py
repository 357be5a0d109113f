"""The values that packages exchange, as frozen dataclasses: seeds, transitions, trajectories and rows."""

from dataclasses import dataclass
from enum import StrEnum


class Name(StrEnum):
    """A fixed name in tables and cards; it prints and compares as its text."""

    __repr__ = str.__repr__


class Role(Name):
    """The role of a model in a call."""

    INSTRUCTOR = "instructor"
    REVIEWER = "reviewer"
    EXPERT = "expert"
    JUDGE = "judge"
    STUDENT = "student"


class CallKind(Name):
    """The purpose of a call, in the order of the column `calls`."""

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
    """How a completion ended: by itself, or cut at `max_tokens`."""

    STOP = "stop"
    LENGTH = "length"


class Tier(Name):
    """How a call was served, on which its price depends: at once, when there is room (`flex`), or in a batch."""

    STANDARD = "standard"
    FLEX = "flex"
    BATCH = "batch"


class Verdict(Name):
    """A reviewer's verdict: the rewrite differs in substance, it does not, or the verdict is unreadable."""

    NOT_EQUAL = "not_equal"
    EQUAL = "equal"
    UNREADABLE = "unreadable"


class Reason(Name):
    """Why a candidate is rejected, apart from the verdicts. A user's filter may return any other text."""

    # Rules for rewrites, responses or both.
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
    # Why no rewrite could be composed of an edit.
    EMPTY_EDIT = "empty_edit"
    MALFORMED_EDIT = "malformed_edit"
    COPIED_EDIT = "copied_edit"
    REPETITIVE_EDIT = "repetitive_edit"
    VACUOUS_EDIT = "vacuous_edit"
    UNSURE_EDIT = "unsure_edit"
    COPIED_ANSWER = "copied_answer"
    # A reviewer's answers to further questions.
    UNCLEAR = "unclear"
    NOT_HARDER = "not_harder"
    # A rewrite that does not say the constraint it was to add. An answer that fails one has the verifier's id.
    CONSTRAINT_NOT_SAID = "constraint_not_said"
    # Faults of a call, or of a row in its completion.
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
    """Why a row of a source gives no seed, as the counts of skipped rows name it."""

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


# `model_type` in the config.json of a saved policy, which identifies its folder.
POLICY_TYPE = "teamsrl_operation_policy"


@dataclass(frozen=True)
class Seed:
    """One instruction to start from.

    Attributes:
        id: Stable identifier: the same content has the same id in every run and every file.
        instruction: The task in words.
        input: The material the instruction works on; empty if there is none.
    """

    id: str
    instruction: str
    input: str = ""

    @property
    def text(self) -> str:
        """Instruction and input, separated by a blank line, as the text that operations rewrite.

        >>> Seed("s1", "Sort these numbers.", "3, 1, 2").text
        'Sort these numbers.\\n\\n3, 1, 2'
        """
        return f"{self.instruction}\n\n{self.input}" if self.input else self.instruction


@dataclass(frozen=True)
class State:
    """The state of a chain, from which a chooser picks the next operation.

    Attributes:
        text: The current instruction.
        operations: Names of all operations tried in this chain, oldest first, including rejected ones.
        accepted: For each operation, whether its rewrite was accepted.
        step: Number of operations tried before.
        verifiers: Constraints of the current instruction that code can check.
    """

    text: str
    operations: tuple[str, ...] = ()
    accepted: tuple[bool, ...] = ()
    step: int = 0
    verifiers: tuple["Verifier", ...] = ()


BY_RULES = "rules"  # The reviewer's name if the rules decided without a model.


@dataclass(frozen=True)
class Review:
    """The review of one rewrite.

    Attributes:
        verdict: See `Verdict`.
        violations: Names of the rules the rewrite breaks, see `text.rules`.
        reviewer: Model that gave the verdict; "rules" if the rules decided without a model.
        error: Why the reviewer's call failed; the verdict is then unreadable, with the violation "call_failed".
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
        """Why the rewrite is rejected, or None if it passed. A broken rule takes precedence over the verdict."""
        if self.violations:
            return self.violations[0]
        return None if self.verdict == Verdict.NOT_EQUAL else self.verdict


@dataclass(frozen=True)
class Verifier:
    """A constraint that code can check, as rows carry it.

    Attributes:
        id: The kind, see `verifiers`; IFEval's name where it has the kind.
        arguments: What the check takes besides the answer, as a JSON object.
    """

    id: str
    arguments: str = "{}"


@dataclass(frozen=True)
class Transition:
    """One applied operation: the text before, the operation, the text after, and the review.

    `error` is the failure of the call for `rewrite` (then equal to `instruction`) or for its response, else None.
    `edit` is the part of the rewrite that the model wrote and code composed; empty if it wrote all of it.
    `verifiers` are the constraints in the rewrite that code can check, those of earlier operations included.
    """

    instruction: str
    operation: str
    rewrite: str
    review: Review
    rewriter: str
    error: str | None = None
    edit: str = ""
    verifiers: tuple[Verifier, ...] = ()

    @property
    def failure(self) -> str | None:
        """The failure of a call, including the reviewer's, that leaves the operation without a result."""
        return self.error or self.review.error

    @property
    def result(self) -> str:
        """The text the chain continues from: the rewrite if it passed, else the unchanged instruction."""
        return self.rewrite if self.review.passed else self.instruction


@dataclass(frozen=True)
class Trajectory:
    """One chain: a seed and its transitions, in order.

    `failed` holds transitions without a result since a call failed; the chain continues as if they had not been tried.
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
        response: The expert's response; empty before the call.
        responder: Model that wrote the response.
        calls: Calls spent on this candidate by `CallKind`, sorted by name. "walk" are calls of the free instructor; a
            call that several candidates share counts for the first of them.
        verified: For each of the rewrite's verifiers, whether the response passes it; empty before it is checked.
        failed_first: Ids of the verifiers that the first response failed, where another was asked for.
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
    verified: tuple[bool, ...] = ()
    failed_first: tuple[str, ...] = ()


@dataclass(frozen=True)
class Example:
    """A candidate that became a row of the published dataset."""

    candidate: Candidate


@dataclass(frozen=True)
class Rejection:
    """A candidate that was rejected, and why (one word, counted in the card)."""

    candidate: Candidate
    reason: str
