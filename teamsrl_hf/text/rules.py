"""The gate: in goes what a model made of an instruction, or answered to it, out come the names of the rules it breaks.

One table each for rewrites and answers, `REWRITE_RULES` and `ANSWER_RULES`: a rule is one line there, and its name is
the reason that cards and counts show. The first four kinds are those of Evol-Instruct (arXiv 2304.12244): nothing
gained, a refusal, an answer of stop words, words of the prompt. `recipes/gate`
measures each rule on labelled rewrites.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import islice

from ..types import Finish, Reason
from .gate import additions, leaks, material, refusals, requests
from .gate.english import STOP_WORDS, is_english
from .operations import Operation
from .tokens import control_token
from .words import normalise, words

MAX_CHARACTERS = 20_000
# What the six default operations do to a text. Nothing is known of users' own, to which fewer rules apply.
INVENTS, REPLACES, STRUCTURES = frozenset({"breadth"}), frozenset({"concretize"}), frozenset({"complicate_input"})
LIMITS, ASKS = frozenset({"add_constraints"}), frozenset({"deepen"})
ADDS = LIMITS | ASKS | {"increase_reasoning"}
KEEPS = ADDS | REPLACES | STRUCTURES


@dataclass(frozen=True)
class Rewrite:
    """What the rules for rewrites look at.

    Attributes:
        instruction: The text before.
        text: The text after, without chatter.
        operations: What was carried out, one operation or a plan.
        edit: What was added behind the instruction, without joining words; None where the whole text is new.
        earlier: Texts of the chain before `instruction`.
        examples: Worked examples that the prompt showed.
    """

    instruction: str
    text: str
    operations: tuple[Operation, ...] = ()
    edit: str | None = None
    earlier: Sequence[str] = ()
    examples: Sequence[str] = ()

    def only(self, names: frozenset[str]) -> bool:
        """Whether all operations are among `names`."""
        return bool(self.operations) and all(operation.name in names for operation in self.operations)

    def appends(self, names: frozenset[str]) -> bool:
        """Whether an operation among `names` put known English words behind the instruction."""
        return self.edit is not None and self.only(names) and self.in_english

    @property
    def name(self) -> str:
        """The name of the first operation; empty where none is known."""
        return self.operations[0].name if self.operations else ""

    @property
    def new_text(self) -> str:
        """What was added where that is known, else the whole text."""
        return self.text if self.edit is None else self.edit

    @cached_property
    def in_english(self) -> bool:
        """Whether rules that know English words apply."""
        return is_english(self.text) or (self.text.isascii() and is_english(self.instruction))


@dataclass(frozen=True)
class Answer:
    """What the rules for answers look at; `instruction` is empty where it is not known."""

    text: str
    finish_reason: Finish = Finish.STOP
    instruction: str = ""


# Only the first that a rewrite breaks is looked for, so what is surer stands above what is less sure.
REWRITE_RULES: dict[str, Callable[[Rewrite], bool]] = {
    Reason.EMPTY: lambda r: not any(map(str.isalnum, r.text)),
    Reason.UNCHANGED: lambda r: normalise(r.text) == normalise(r.instruction),
    Reason.REPEATS_EARLIER: lambda r: any(normalise(r.text) == normalise(text) for text in r.earlier),
    Reason.REFUSAL: lambda r: refusals.declines_rewrite(r.text) and not refusals.declines_rewrite(r.instruction),
    Reason.TEMPLATE_LEAK: lambda r: leaks.leaks_template(r.text, r.instruction, r.operations),
    Reason.CONTROL_TOKENS: lambda r: control_token(r.text) is not None,
    Reason.TOO_LONG: lambda r: len(r.text) > MAX_CHARACTERS,
    "talks_of_rewriting": lambda r: leaks.talks_of_rewriting(r.text, r.instruction),
    # A requirement may be the same for many instructions.
    "copies_example": lambda r: not r.only(LIMITS) and leaks.copies_example(r.new_text, r.instruction, r.examples),
    "answers": lambda r: r.in_english and requests.answers(r.text, r.instruction),
    "not_a_request": lambda r: r.in_english and not requests.is_request(r.text, known_english=True),
    "repetitive": lambda r: additions.repeats_itself(r.text, r.instruction),
    "half_sentence": lambda r: requests.is_half(r.text) and not requests.is_half(r.instruction),
    "part_of_instruction": lambda r: additions.is_part(r.instruction, r.text),
    "off_subject": lambda r: r.only(KEEPS) and r.in_english and additions.leaves_subject(r.instruction, r.text),
    "lost_input": lambda r: r.only(KEEPS) and material.loses_input(r.instruction, r.text),
    "lost_numbers": lambda r: r.only(KEEPS) and material.loses_numbers(r.instruction, r.text),
    "missing_input": lambda r: r.in_english and material.points_at_nothing(r.text, r.instruction),
    "requirement_dropped": lambda r: (
        r.only(KEEPS) and r.in_english and additions.drops_requirement(r.instruction, r.text, r.name)
    ),
    "no_data": lambda r: r.only(STRUCTURES) and not material.holds_data(r.text),
    "addition_asks_nothing": lambda r: r.appends(ADDS) and additions.asks_nothing(r.new_text),
    "follow_up_off_subject": lambda r: r.appends(ASKS) and additions.is_about_else(r.instruction, r.new_text),
    "nothing_added": lambda r: r.only(ADDS | REPLACES) and additions.adds_nothing(r.instruction, r.new_text),
    "little_added": lambda r: r.appends(LIMITS) and additions.adds_little(r.instruction, r.new_text),
    "restated": lambda r: r.only(INVENTS) and r.in_english and additions.restates(r.instruction, r.text),
    "shorter": lambda r: r.only(KEEPS | INVENTS) and additions.is_much_shorter(r.instruction, r.text, r.name),
}

ANSWER_RULES: dict[str, Callable[[Answer], bool]] = {
    Reason.CUT_OFF: lambda a: a.finish_reason == Finish.LENGTH,
    Reason.REFUSAL: lambda a: refusals.declines_answer(a.text),
    Reason.EMPTY_RESPONSE: lambda a: all(word in STOP_WORDS for word in words(a.text)),
    "same_as_instruction": lambda a: bool(a.instruction) and normalise(a.text) == normalise(a.instruction),
    Reason.TEMPLATE_LEAK: lambda a: leaks.leaks_fence(a.text),
    Reason.CONTROL_TOKENS: lambda a: control_token(a.text) is not None,
}


def violations(
    instruction: str,
    rewrite: str,
    operation: Operation | Sequence[Operation] | None = None,
    edit: str | None = None,
    earlier: Sequence[str] = (),
    examples: Sequence[str] = (),
) -> tuple[str, ...]:
    """The name of the first rule of the table that `rewrite` breaks, if any. Arguments are those of `Rewrite`.

    >>> from teamsrl_hf.text.operations import OPERATIONS
    >>> violations("Why is the sky blue?", "The sky is blue because air scatters blue light.", OPERATIONS[2])
    ('not_a_request',)
    """
    plan = () if operation is None else (operation,) if isinstance(operation, Operation) else tuple(operation)
    edit = leaks.added_text(instruction, rewrite) if edit is None else edit
    return _first_broken(Rewrite(instruction, rewrite, plan, edit, tuple(earlier), tuple(examples)))


@lru_cache(maxsize=10_000)  # A plan's rewrite is looked at by the instructor's review, and again as the expert's.
def _first_broken(case: Rewrite) -> tuple[str, ...]:
    return tuple(islice((name for name, breaks in REWRITE_RULES.items() if breaks(case)), 1))


def instruction_violations(
    instruction: str, rewrite: str, earlier: Sequence[str], operations: Operation | Sequence[Operation]
) -> tuple[str, ...]:
    """`violations` of a whole rewrite; `earlier` are the chain's texts before `instruction`."""
    return violations(instruction, rewrite, operations, earlier=earlier)


def response_violations(response: str, finish_reason: Finish = Finish.STOP, instruction: str = "") -> tuple[str, ...]:
    """Names of the rules that an answer breaks.

    >>> response_violations("Sorry, I cannot help with that.")
    ('refusal',)
    >>> response_violations("It is what it is ...")
    ('empty_response',)
    """
    case = Answer(response, finish_reason, instruction)
    return tuple(name for name, breaks in ANSWER_RULES.items() if breaks(case))
