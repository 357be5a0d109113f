"""Sentences: words and sentences found in a text, and a sentence joined to an instruction."""

import re

from .words import load

WORD = re.compile(r"[^\W_]+(?:['’.,+#-](?=[^\W_])[^\W_]+)*(?:\+\+|#)?")
TOKEN = re.compile(r"[a-z][\w'’-]*|\d+|[.,:;!?\n]|[-–—](?=\s)")
QUESTION_WORDS = frozenset(load("reading")["question_words"])

SENTENCE_END = re.compile(r"(?<=[.!?])[\"”’)]*\s+(?=[\"“‘(\w])")
_ABBREVIATION = re.compile(
    r"(?:\b(?:Dr|Mr|Mrs|Ms|Prof|St|vs|etc|e\.g|i\.e|U\.S|No|Inc|Jr|Sr|Gov|Gen|Sen|hr|min|approx)|\b[A-Z]|\.)\.$"
)


def sentences(text: str) -> list[str]:
    """The sentences of a text; an abbreviation does not end one."""
    parts: list[str] = []
    start = 0
    for found in SENTENCE_END.finditer(text):
        if not _ABBREVIATION.search(text[start : found.start()]):
            parts.append(text[start : found.end()].rstrip())
            start = found.end()
    return [*parts, text[start:]]


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


_INLINE = re.compile(
    r"(?P<lead>[^:\n]*\b(?:translate|paraphrase|rephrase|rewrite|summarize|classify|correct|complete|following|this|these|sentences?|text|paragraph|passage|phrase|questions?|words?"
    r"|numbers?|list|problem|"
    r"equation|statement|claim|code|into \w+|to \w+|is|are)[^:\n.?!]*)(?P<material>:\s+\S.*)",
    re.S,
)
_OPEN_END = re.compile(
    r"(?:^|\s)(?:with|by|of|for|from|to|in|on|at|as|are|is|be|and|or|includes?|including|contains?"
    r"|containing|using|between|"
    r"following|below|these|this|that|about|into)$",
    re.I,
)
_LIST_LINE = re.compile(r"\s*(?:[-*•]|\(?(?:\d+|[A-Fa-f])[.)]|[A-Za-z ]{1,20}:\s*$)")


def join(head: str, sentence: str, has_material: bool) -> str:
    """The instruction `head` with one more sentence; what the instruction introduces stays next to it."""
    head = head.rstrip()
    inline = None if has_material else _INLINE.fullmatch(head)
    if inline:
        return _weave(inline["lead"], sentence) + inline["material"]
    first, newline, others = head.partition("\n")
    if newline and (first.rstrip().endswith(":") or any(_LIST_LINE.match(line) for line in others.split("\n"))):
        return _join_line(first.rstrip(), sentence, keep_colon=True) + newline + others
    return _join_line(head, sentence, keep_colon=False)


def _join_line(line: str, sentence: str, keep_colon: bool) -> str:
    if line.endswith(":"):
        lead = line[:-1].rstrip()
        if keep_colon or _OPEN_END.search(lead):
            return _weave(lead, sentence) + ":"
        return f"{lead}. {sentence}"
    return f"{closed(line)} {sentence}"


def _weave(lead: str, sentence: str) -> str:
    """The sentence put before the clause that leads over to the material."""
    starts = [found.end() for found in SENTENCE_END.finditer(lead)]
    start = starts[-1] if starts else 0
    return f"{lead[:start]}{sentence} {capital(lead[start:])}"


def closed(line: str) -> str:
    """The line with a mark at its end."""
    line = line.rstrip(" ,;-–—")
    if line.rstrip("\"”’')*_").endswith((".", "!", "?", "…")):
        return line
    first = TOKEN.match(line.lower())
    return line + ("?" if first and first[0] in QUESTION_WORDS else ".")
