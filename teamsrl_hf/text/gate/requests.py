"""Is a text a request: in goes a text, out comes whether it asks for something, answers something, or stops early."""

import re
from functools import lru_cache

from .english import FINITE, QUESTION_START, STOP_WORDS, VERBS, is_english

# It opens with one set of characters, which is what makes it fast to look for.
_SENTENCE_ENDS = re.compile(r"[.!?:;\n](?:(?<=\n)\n*|(?<!\n)[\"'”’)*_]*\s+)")
_LIST_MARK = re.compile(r"\A(?:[-*•#>]+|\(?\d{1,2}[.)]|\(?[a-z]\))\s+")
# What may stand before the verb of a request.
_LEADS = re.compile(
    r"\A(?:[\"'“‘*_`(\[]+|(?:please|now|then|next|first|firstly|second|finally|lastly|also|instead|briefly|in detail"
    r"|and|or|but|so|otherwise|if so|if not|else|just|kindly|always|never|do not|don't|only|carefully|step by step"
    r"|in your own words|using your own words)\b,?\s*)+",
    re.I,
)
_WISHES = re.compile(
    r"\b(?:i|we)(?:'d| would| am|'m)? (?:need|want|like|love|wish|hope|looking for|have to|must|should|wonder"
    r"|wondering|struggle|don't know|do not know|can't decide)\b"
    r"|\b(?:can|could|would|will) you\b|\bhelp me\b|\btell me\b|\bgive me\b|\blet's\b|\byour (?:task|job|goal|role)\b"
    r"|\byou (?:are|will|must|should|need|have) (?:to|be|an?)\b"
    r"|\b(?:is|are) (?:required|needed|requested|wanted) to\b",
    re.I,
)
# Requests that lean on something asked before: alone behind a statement they ask for nothing.
_LEANING = re.compile(
    r"(?:explain|justify|show|describe|give) (?:each|every|all|your|the|any) (?:single )?"
    r"(?:step|choice|move|answer|reason|reasoning|decision|working|work|thinking|stage)s?\b.{0,30}\Z",
    re.I,
)
# Behind one of these a request follows after a comma: "Given a list, sort it."
_SUBORDINATE = re.compile(
    r"\W*(?:given|for|in|using|with|without|based|if|when|while|as|assuming|assume|after|before|to|at|from|on|by|under"
    r"|considering|imagine|because|since|instead|rather|suppose|like|per|within|during|about|not|unlike|once)\b",
    re.I,
)
_POLITE = re.compile(r"\bplease\b(?!d)", re.I)
_NOUN = re.compile(r"(?:tion|sion|ness|ment|ity|ism|ing|ed|ly|ance|ence|ous|ful|ology|ship|hood|ies)\Z")
_OBJECT = re.compile(
    r"(?:the|a|an|my|your|this|these|those|each|every|all|any|how|why|what|which|whether|if|to|for|it|me|us|him|them"
    r"|both|two|three|four|five|\d+)\Z"
)
_ANSWERS = re.compile(
    r"\A\W*(?:yes|no|sure|certainly|of course|absolutely)[,.!:]+ (?!please)"
    r"|\A\W*(?:the (?:correct |final |short )?answer (?:is|to|would)|answer:|solution:|output:|response:|result:)"
    r"|\A\W*to (?!be\b)\w+ [^.?!]{3,160}[,:]? (?:you (?:can|could|should|need|will|may|must|have)|we|i|one|it's"
    r"|it is|the first|first|follow|here|there)\b"
    r"|\A\W*(?:here(?:'s| is| are)|below (?:is|are)|there are|in (?:this|the) (?:case|context|code|example)) "
    r"(?!an? task)",
    re.I,
)
_DEFINES = re.compile(r"\W*(?:an?|the)\b[^.,:;]{2,80}?\b(?:is|are) (?:an?|the|when|that)\b", re.I)
_HALF = re.compile(
    r"(?:[,;(\[{–—-]|\b(?:and|or|but|the|a|an|of|to|in|for|with|such as|that|which|because|from|by|e\.g\.|is|are"
    r"|including|your|their|its|as|than|whether|between))\Z",
    re.I,
)
_PAIRS = ("()", "[]", "{}", "“”")


def is_request(text: str, known_english: bool = False) -> bool:
    """Whether a text asks for something. A text in another language than English passes: nothing is known of it.

    >>> is_request("Given a list of words, sort them."), is_request("A bridge carries a road over an obstacle.")
    (True, False)
    """
    if (not text.isascii() and not is_english(text)) or (not known_english and not is_english(text)):
        return True
    first = next(iter(sentences(text)), "")
    return any(
        asks(found) and (found == first or not _LEANING.match(_LEADS.sub("", found))) for found in sentences(text)
    )


@lru_cache(maxsize=10_000)
def asks(sentence: str) -> bool:
    """Whether one sentence is a question, an imperative or a wish."""
    if sentence.rstrip("\"'”’)*_ ").endswith("?") or _opens_request(sentence, first=True):
        return True
    if _WISHES.search(sentence) or _POLITE.search(sentence):
        return True
    parts = re.split(r", |: " if _SUBORDINATE.match(sentence) else ": ", sentence)
    return any(_opens_request(part, first=False) for part in parts[1:])


def answers(text: str, instruction: str = "") -> bool:
    """Whether a text begins as an answer does, or by saying what something is where its instruction did not."""
    if _ANSWERS.match(text) and not any(map(asks, sentences(text))):
        return True
    return _defines(text) and not _defines(instruction)


def _defines(text: str) -> bool:
    first = next(iter(sentences(text)), "")
    return bool(_DEFINES.match(first)) and not asks(first)


def is_half(text: str) -> bool:
    """Whether a text stops in the middle: on a word or mark that needs another after it, or with a bracket open.

    >>> is_half("Compare the two, and"), is_half("Name a bird (of prey"), is_half("Compare the two")
    (True, True, False)
    """
    end = text.rstrip()
    if end.endswith("```") or "\n" in end[-200:]:
        return end.count("```") % 2 == 1
    return bool(_HALF.search(end[-20:])) or any(text.count(pair[0]) > text.count(pair[1]) for pair in _PAIRS)


@lru_cache(maxsize=10_000)  # A text is judged by many rules, and its rewrite is the next text.
def sentences(text: str) -> tuple[str, ...]:
    """Sentences and lines of a text, without marks of lists and headings."""
    cuts = [(end.start() + (end[0][0] != "\n"), end.end()) for end in _SENTENCE_ENDS.finditer(text)]
    starts, ends = (0, *(after for _, after in cuts)), (*(before for before, _ in cuts), len(text))
    found = (_LIST_MARK.sub("", text[start:end].strip()).strip() for start, end in zip(starts, ends))
    return tuple(filter(None, found))


def _opens_request(clause: str, first: bool) -> bool:
    clause = _LEADS.sub("", clause.strip())
    found = re.match(r"([A-Za-z]+(?:['-][A-Za-z]+)*)(?=[\s.!,:;\"'”*]|\Z)\s*([A-Za-z0-9']*)", clause)
    if not found:
        return False
    word, after = found[1].lower(), found[2].lower()
    if word in VERBS:
        return after not in FINITE
    if first and QUESTION_START.match(clause):
        return word not in ("what", "how") or after not in ("a", "an")  # "What a topic!"
    if not first or word in STOP_WORDS or after in FINITE or _NOUN.search(word):
        return False
    return bool(_OBJECT.match(after))
