"""Verifiers of rows: in go an answer and the verifiers of its row, out comes which of them it passes.

Also, for evolving: a constraint that fits an instruction, and that contradicts none that the chain carries already.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from ..errors import UserError, did_you_mean
from ..types import Verifier
from .kind import EVERYTHING, RELATION, Aspect, Kind, describe, names, packed
from .layout_kinds import LAYOUT_KINDS
from .reading import RELATIONS, final_text
from .samplers import CODE, is_english
from .text_kinds import TEXT_KINDS

KINDS: dict[str, Kind] = {kind.id: kind for kind in (*TEXT_KINDS, *LAYOUT_KINDS)}
HELD_OUT = tuple(kind.id for kind in KINDS.values() if kind.held_out)

# What an instruction says already of its answer. A constraint that settles one of these might contradict it.
_AMOUNT = r"\b(?:\d+|an?|one|two|three|four|five|six|seven|eight|nine|ten|twelve|single|few|several)\b[\w -]{0,15}?\b"
_SAID_ALREADY = {
    Aspect.LENGTH: rf"{_AMOUNT}(?:words?|sentences?|characters?|paragraphs?|pages?|lines?)\b"
    r"|\b(?:brief|briefly|short|shorter|concise|long|longer|length|haiku|limerick|sonnet|tweet|headline|slogan)\b",
    Aspect.LAYOUT: rf"{_AMOUNT}(?:paragraphs?|sections?|lines?|columns?|items?|points?|steps?|examples?|ways)\b"
    r"|\b(?:list|table|bullets?|json|csv|yaml|xml|html|markdown|format|headings?|haiku|poem|limerick|sonnet|lyrics|song"
    r"|email|letter|outline|recipe|dialogue|script|schedule|itinerary|lines?|paragraphs?)\b",
    Aspect.CASE: r"\b(?:capital|capitals|capitalize|uppercase|lowercase|lower case|upper case|title case)\b",
    Aspect.MARKS: r"\b(?:punctuation|comma|commas|question marks?|quotation|quotes?|dialogue)\b",
    Aspect.DIGITS: r"\b(?:digits?|numbers?|numerals?)\b|\d",
    Aspect.START: r"\b(?:begins?|beginning|starts?|starting) with\b|\bfirst (?:word|sentence|line)\b",
    Aspect.END: r"\b(?:ends?|ending|finish|close|conclude) with\b|\blast (?:word|sentence|line)\b|\bpostscript\b",
    Aspect.WORDS: r"\b(?:the|these|following|any) words?\b|\b(?:avoid|include|contain|mention)\b|\brhym",
    Aspect.LETTERS: r"\bletters?\b|\brhym|\balliterat",
    Aspect.TITLE: r"\btitles?\b|\bheadline\b",
    Aspect.LANGUAGE: r"\btranslat|\b(?:english|german|french|spanish|italian|portuguese|dutch|russian|chinese|japanese"
    r"|korean|arabic|hindi|greek|latin|language)\b",
}  # fmt: skip
_OF_CODE = EVERYTHING - {Aspect.CODE, Aspect.EMPHASIS, Aspect.WORDS}


@dataclass(frozen=True)
class Constraint:
    """A constraint as an instruction may hold it: the sentence, and the verifier that proves it."""

    sentence: str
    verifier: Verifier


@dataclass(frozen=True)
class Proof:
    """How an operation adds constraints that code can check.

    Attributes:
        kinds: Ids of the kinds to draw from; all that are not held out where empty.
        by_model: A model words the constraint, and its words are checked to say it; else code appends one of ours.
        draw: A function in place of `sample`, of a text, the verifiers it carries and a number that differs from try
            to try: a constraint, or None where none fits. It must depend on these alone.

    Raises:
        UserError: A kind is unknown or held out.
    """

    kinds: tuple[str, ...] = ()
    by_model: bool = False
    draw: Callable[[str, Sequence[Verifier], int], Constraint | None] | None = None

    def __post_init__(self) -> None:
        held = [kind.id for kind in map(kind_of, self.kinds) if kind.held_out]
        if held:
            raise UserError(f"The kind {held[0]!r} is held out, to test models on; evolve with others.")

    def constraint(self, text: str, carried: Sequence[Verifier] = (), key: int = 0) -> Constraint | None:
        """The constraint to add to a text that carries some already."""
        if self.draw is not None:
            return self.draw(text, carried, key)
        return sample(text, carried, key, self.kinds or None)


def kind_of(id: str) -> Kind:
    """The kind with an id. UserError where there is none."""
    if id not in KINDS:
        raise UserError(
            f"No verifier {id!r}; known are {len(KINDS)} kinds such as 'length_constraints:number_words'"
            f"{did_you_mean(id, KINDS)}. A newer teamsrl-hf may know it."
        )
    return KINDS[id]


def verifier(id: str, **arguments: Any) -> Verifier:
    """A verifier of a kind, its arguments checked.

    >>> verifier("length_constraints:number_words", num_words=50, relation="at least").arguments
    '{"num_words": 50, "relation": "at least"}'

    Raises:
        UserError: There is no such kind, or it takes other arguments.
    """
    kind = kind_of(id)
    if set(arguments) != set(kind.arguments):
        raise UserError(
            f"The verifier {id!r} takes the arguments {', '.join(kind.arguments) or 'none'}, not "
            f"{', '.join(arguments) or 'none'}."
        )
    relations = [value for name, value in arguments.items() if name.endswith(RELATION)]
    if not set(relations) <= set(RELATIONS):
        raise UserError(f"The relation of {id!r} is {' or '.join(map(repr, RELATIONS))}, not {relations[0]!r}.")
    return Verifier(id, packed(arguments))


def passes(answer: str, verifier: Verifier) -> bool:
    """Whether an answer, without the thoughts before it, keeps what the verifier checks.

    An answer without a letter or digit keeps nothing, not even what it could not break.

    Raises:
        UserError: There is no such kind, or its arguments are wrong.
    """
    kind, text = kind_of(verifier.id), final_text(answer)
    try:
        return bool(kind.check(text, **json.loads(verifier.arguments))) and any(map(str.isalnum, text))
    except (TypeError, KeyError, json.JSONDecodeError) as error:
        wanted = ", ".join(kind.arguments) or "none"
        raise UserError(
            f"The verifier {verifier.id!r} can't use the arguments {verifier.arguments!r}, wanted a JSON object with "
            f"{wanted}: {error}"
        ) from error


def verified(answer: str, verifiers: Iterable[Verifier]) -> tuple[bool, ...]:
    """Whether an answer passes each verifier, in their order."""
    return tuple(passes(answer, one) for one in verifiers)


def said(verifier: Verifier, wording: int = 0) -> str:
    """The verifier's constraint as a sentence."""
    return describe(kind_of(verifier.id), json.loads(verifier.arguments), wording)


def named_in(text: str, verifier: Verifier) -> bool:
    """Whether a text says the verifier's constraint, see `kind.names`."""
    return names(kind_of(verifier.id), json.loads(verifier.arguments), text)


def still_said(verifiers: Iterable[Verifier], text: str) -> tuple[Verifier, ...]:
    """The verifiers whose constraints a text says: those that a rewrite lost, or changed, it no longer carries."""
    return tuple(one for one in verifiers if named_in(text, one))


def go_together(first: str, second: str) -> bool:
    """Whether constraints of two kinds can stand in one instruction.

    >>> go_together("punctuation:no_comma", "startend:first_word")
    True
    >>> go_together("detectable_format:json_format", "startend:first_word")
    False
    """
    return first != second and not kind_of(first).settles & kind_of(second).settles


def settled_by(text: str) -> frozenset[Aspect]:
    """What an instruction says of its answer already, as far as its words show; of code, all but few things."""
    found = {aspect for aspect, pattern in _SAID_ALREADY.items() if re.search(pattern, text, re.I)}
    return frozenset(found | _OF_CODE if CODE.search(text) else found)


def sample(
    text: str, carried: Sequence[Verifier] = (), key: object = 0, kinds: Iterable[str] | None = None
) -> Constraint | None:
    """A constraint that fits an instruction and contradicts neither it nor a carried one; None where there is none.

    Args:
        text: The instruction in English; one in another language gets none, since the wordings are English.
        carried: The verifiers of the chain so far.
        key: What the choice depends on besides the text.
        kinds: Ids to choose from; all that are not held out where left out.
    """
    if not is_english(text):
        return None
    rng = Random(f"{key}\0{text}")
    known = [kind for kind in KINDS.values() if not kind.held_out] if kinds is None else list(map(kind_of, kinds))
    taken = settled_by(text).union(*(kind_of(one.id).settles for one in carried))
    free = [kind for kind in known if not kind.settles & taken and all(one.id != kind.id for one in carried)]
    told = without_constraints(text, carried)
    for kind in rng.sample(free, len(free)):
        arguments = kind.sampler(rng, told)
        if arguments is not None:
            sentence = describe(kind, arguments, rng.randrange(len(kind.sentences)))
            return Constraint(sentence, verifier(kind.id, **arguments))
    return None


def without_constraints(text: str, carried: Sequence[Verifier]) -> str:
    """A text without the sentences that say a carried constraint, whose words are not what the instruction is about.

    >>> without_constraints("Explain bread. Use no commas.", [Verifier("punctuation:no_comma")])
    'Explain bread.'
    """
    parts = re.split(r"(?<=[.!?\n])(?=\s)", text)
    return "".join(part for part in parts if not any(named_in(part, one) for one in carried))


def as_ifeval(verifiers: Iterable[Mapping[str, str]]) -> dict[str, list[Any]]:
    """Verifiers of a row as IFEval's columns `instruction_id_list` and `kwargs`.

    >>> as_ifeval([{"id": "punctuation:no_comma", "arguments": "{}"}])
    {'instruction_id_list': ['punctuation:no_comma'], 'kwargs': [{}]}
    """
    rows = list(verifiers)
    kwargs = [json.loads(one["arguments"]) for one in rows]
    return {"instruction_id_list": [one["id"] for one in rows], "kwargs": kwargs}
