"""What surrounds a rewrite: in goes what a model said, out comes the rewrite without what is surely not part of it."""

import re

from ..operations import fence

_NAMES = r"(?:instruction|prompt|version|task|question|request|rewrite|rewritten (?:text|one)|re-?written)"
_PREAMBLE = re.compile(
    r"\A(?:(?:sure|certainly|of course|okay|ok|absolutely|great|yes|got it)\b[^\n:]{0,40}?[!,.]+\s*)?"
    r"(?:(?:here(?:'s|’s| is| are| you go)|below is|the following is|this is|i(?:'ve| have) (?:rewritten|revised))\b"
    rf"[^\n:]{{0,100}}?\b{_NAMES}\b[^\n:]{{0,80}}"
    r"|here(?:'s|’s| is| it is| you go)"
    r"(?: (?:it|one|another|mine|my (?:version|attempt)|(?:the|a) (?:result|suggestion)))?):[*_\s]*(?=\S)",
    re.I,
)
_AGREES = re.compile(r"\A(?:sure|certainly|of course|okay|absolutely|great|got it)(?: thing)?[!.]+\s*\n+(?=\S)", re.I)
_HEADER = re.compile(
    rf"\A[*_#>\s]*(?:the )?(?:(?:re-?written|revised|new|finished|final|updated|modified|harder|edited|improved"
    rf"|evolved|resulting|complex|deepened|concrete)\s+)*{_NAMES}\s*(?:\(?\d\)?)?[*_]*\s*:[*_]*\s*(?=\S)",
    re.I,
)
_TITLE = re.compile(r"\A(?:#{1,6}\s+[^\n]{1,80}|\*\*[^\n*]{1,80}\*\*)\s*\n+(?=\S)")
_WHOLE_FENCE = re.compile(r"\A```(?:text|txt|markdown|md|plaintext|plain)?[ \t]*\n(.*?)\n?```\Z", re.S | re.I)
_QUOTES = {'"': '"', "“": "”", "'": "'", "‘": "’", "«": "»", "„": "“", "`": "`", "**": "**", "「": "」"}
_RULED = frozenset("-*_=")
_RULE = re.compile(r"\A(?:[-*_=]{3,}\s*\n)+|(?:\n\s*[-*_=]{3,})+\s*\Z")
# The last paragraph, where it speaks of the rewriting and of nothing that is asked.
_NOTE = re.compile(
    r"\n\s*\n?[(\[*_]*(?:(?:note|notes|explanation|changes?(?: made)?|rationale|reasoning|comment)s?[*_]*:[*_ ]*)?"
    r"(?:i(?:'ve| have)? (?:added|changed|rewrote|rewritten|made|kept|replaced|tried|included|modified|increased)\b"
    r"|(?:this|the) (?:rewritten |revised |new |modified |original |updated )?(?:version|rewrite|instruction|prompt)"
    r" (?:adds|now|is|was|has|asks|requires|includes|keeps|makes|introduces)\b"
    r"|(?:let me know|i hope|hope this|feel free|would you like me|is there anything)\b)[^\n]*\s*\Z",
    re.I,
)
_MARKER = r"\[?(?:(?:instruction|end|answer|item)(?: \d+)? )?{}\]?"


def strip_chatter(raw: str, instruction: str) -> str:
    """The rewrite within `raw`, without preamble, header, quotes, fence, note and markers where these are surely that.

    What the instruction itself begins or ends with is left alone.

    >>> strip_chatter('Sure! Here is a harder version:\\n\\n"Name a bird of prey."', "Name a bird.")
    'Name a bird of prey.'
    """
    text, before = raw.strip(), ""
    while text != before:
        before = text
        for strip in (_without_markers, _without_preamble, _without_note, _without_wrapping):
            text = strip(text, instruction).strip() or text
    return text


def _without_markers(text: str, instruction: str) -> str:
    key = fence(instruction)
    if key not in text:
        return text
    line = _MARKER.format(key)
    return re.sub(rf"\A(?:{line}\s*)+|(?:\s*{line})+\Z", "", text, flags=re.I)


def _without_preamble(text: str, instruction: str) -> str:
    for pattern in (_PREAMBLE, _AGREES, _HEADER):
        found = pattern.match(text)
        if found and not pattern.match(instruction):
            return text[found.end() :]
    found = _TITLE.match(text)
    if (
        found
        and not re.search(r"^#|\*\*", instruction + text[found.end() :], re.M)
        and found[0].rstrip(" \n*")[-1:] not in "?.!:"
    ):
        return text[found.end() :]
    return text


def _without_note(text: str, instruction: str) -> str:
    found = _NOTE.search(text)
    return text[: found.start()] if found and not _NOTE.search(instruction) else text


def _without_wrapping(text: str, instruction: str) -> str:
    text = _RULE.sub("", text).strip() if text[:1] in _RULED or text.rstrip()[-1:] in _RULED else text
    fenced = _WHOLE_FENCE.match(text)
    if fenced and "```" not in fenced[1] and not instruction.startswith("```"):
        return fenced[1]
    for opening, closing in _QUOTES.items():
        if not (len(text) > 4 and text.startswith(opening) and text.endswith(closing)):
            continue
        inner = text[len(opening) : -len(closing)]
        # An apostrophe within is no quotation mark, but '"A" or "B"' has two quotations.
        apart = re.sub(r"\w['’]\w", "", inner) if closing in "'’" else inner
        if closing not in apart:
            return text if instruction.startswith(opening) else inner
    return text
