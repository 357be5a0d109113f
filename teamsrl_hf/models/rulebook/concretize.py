"""The operation concretize: a specific, named instance in place of a general noun."""

import re
from collections.abc import Iterator, Sequence

from .reading import CODE_WORDS, Instruction
from .sentences import WORD, capital
from .signs import has_code, has_one_answer, is_definition
from .wordings import own_spans
from .words import Choose, load

_NOUNS = load("nouns")
_SINGULARS: dict[str, list[str]] = _NOUNS["singulars"]
_PHRASES: dict[str, list[str]] = _NOUNS["phrases"]
_ASKED = frozenset(_NOUNS["asked"])
_AFTER = frozenset(_NOUNS["after"])
_BEFORE = frozenset(_NOUNS["before"])
_COMPOUNDS = frozenset(_NOUNS["compounds"])
_SPAN = re.compile(r"[A-Za-zÀ-ÿ][\w'’-]*|\d+|[^\w\s]")
_COUNTED = frozenset(_NOUNS["counted"])
_ADJECTIVES = frozenset(_NOUNS["adjectives"])
_NARROWING = frozenset(_NOUNS["narrowing"])
_HELPERS = frozenset(("do", "does", "did", "can", "could", "should", "would", "will", "may", "might"))
_CHOICE = re.compile(r" of your (?:own )?(?:choice|choosing)\b")
_ENDS = ("", ".", ",", ";", ":", "!", "?", ")")


def concretize(instruction: Instruction, choose: Choose) -> str | None:
    if instruction.rest and len(instruction.rest.split()) <= 3:
        return None
    if instruction.kind in _FIXED or not CODE_WORDS.isdisjoint(instruction.words):
        return None
    asked, head = instruction.asked, instruction.head
    if has_one_answer(asked) or is_definition(asked) or has_code(head) or re.search(r"[\"“]|: ", head):
        return None
    stems = [_stem(word) for word in WORD.findall(asked + instruction.rest.lower())]
    own = own_spans(head)
    for start, end, instances in _general_nouns(head):
        if any(first <= start < last for first, last in own):
            continue
        if stems.count(_stem(WORD.findall(head[start:end].lower())[-1])) > 1:
            continue  # What is said of it elsewhere was said of the general noun.
        instance = choose(instances)
        if head[start].isupper():
            instance = capital(instance)
        return f"{head[:start]}{instance}{head[end:]}{instruction.rest}"
    return None


# Kinds of tasks whose own words are the material, or whose nouns are part of a statement.
_FIXED = ("math", "code", "classify", "translate", "extract", "edit")
_PLURALS = {"people": "person", "children": "child", "men": "man", "women": "woman", "wives": "wife"}


def _stem(word: str) -> str:
    """A noun in the singular, or nearly: enough to find it again."""
    word = word.removesuffix("'s").removesuffix("’s")
    return _PLURALS.get(word) or re.sub(r"(?:ies|ys?|s|es)$", "", word)


def _general_nouns(head: str) -> Iterator[tuple[int, int, Sequence[str]]]:
    """Spans of general nouns that can be replaced, in order, each with the instances that fit there."""
    spans = [(found[0], found.start(), found.end()) for found in _SPAN.finditer(head)]
    tokens = [word for word, *_ in spans] + [""] * 8
    for place, (word, start, _) in enumerate(spans):
        article = word.lower() in ("a", "an")
        adjective = article and tokens[place + 1] in _ADJECTIVES
        for width in (3, 2, 1):
            last = place + width - (not article)
            if last >= len(spans):
                continue
            end = spans[last][2]
            phrase = head[spans[place + article][1] : end]
            instances = _SINGULARS.get(phrase) if article else _PHRASES.get(phrase.lower())
            if not instances and adjective and width > 1:
                phrase = head[spans[place + 2][1] : end]
                instances = _same_noun(_SINGULARS.get(phrase, ()), phrase, f"{word} {tokens[place + 1]}")
            if instances:
                chosen = _CHOICE.match(head, end)
                last, end = (last + 3, chosen.end()) if chosen else (last, end)
                fitting = _fitting(tokens, place, last, phrase, instances, article)
                if fitting:
                    yield start, end, fitting
                break


def _same_noun(instances: Sequence[str], noun: str, before: str = "") -> list[str]:
    """The instances that keep the noun itself ("a chemistry teacher"), with other words in front of them if given."""
    kept = [
        entry for entry in instances if entry.endswith(" " + noun) and _ADJECTIVES.isdisjoint(before and entry.split())
    ]
    return [f"{before} {instance.split(' ', 1)[1]}" for instance in kept] if before else kept


def _fitting(
    tokens: list[str], place: int, last: int, noun: str, instances: Sequence[str], article: bool
) -> Sequence[str]:
    """The instances that can stand at `place`: none when the noun is asked for, predicated, or starts a compound."""
    earlier = [word.lower() for word in tokens[:place]]
    before, further = ([*reversed(earlier), "", ""])[:2]
    after = tokens[last + 1].lower()
    sentence = _sentence_words(earlier)
    determined = article or noun.split()[0].lower() in ("my", "the", "our", "your")
    if "given" in earlier or before in _ASKED or sentence[:1] in (["is"], ["are"], ["was"], ["were"]):
        return ()
    if (before == "as" and len(sentence) > 1) or (sentence and noun[0].isupper()):
        return ()
    if before == "of" and (further in _COUNTED or " and " in instances[0]):
        return ()
    if not determined and before not in _BEFORE and not (not sentence and after in _AFTER):
        return ()
    if after in _ENDS or after in _AFTER:
        return instances
    if before in _HELPERS and after.isalpha() and after not in _NARROWING:
        return () if after in _COMPOUNDS else instances
    return _same_noun(instances, noun) if after in _NARROWING and noun[:4] != "the " else ()


def _sentence_words(earlier: list[str]) -> list[str]:
    """The words since the last sentence ended."""
    ends = [place for place, word in enumerate(earlier) if word in (".", "!", "?")]
    return earlier[ends[-1] + 1 :] if ends else earlier
