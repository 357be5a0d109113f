"""The operation complicate_input: the material of an instruction as JSON, a table, CSV or a log."""

import json
import re

from .reading import BLANK_LINE, CODE, VERBS, Instruction
from .sentences import TOKEN, join, sentences
from .signs import has_code, is_choice, lists_answers
from .wordings import INPUT_NOTES, SLOTS
from .words import Choose

_PAIR = re.compile(r"[-*•]?\s*([^\W\d_][^:\n]{0,40}?)\s?:(?!//)\s*(.*)")
BULLET = re.compile(r"^[-*•–]\s+")
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?")
_TABULAR = re.compile(r"^.*(?:\||\t).*\n.*(?:\||\t)|^\[\d+\]|<[a-zA-Z!/][^<>]*>|^\(?\d+\).*\(?\d+\)", re.M)


def complicate_input(instruction: Instruction, choose: Choose) -> str | None:
    gap = BLANK_LINE.match(instruction.rest)
    material = instruction.rest[gap.end() :].strip("\n") if gap else ""
    if not material.strip() or _is_structured(material) or not _is_data(instruction, material):
        return None
    form, unit, data = _structure(material, choose)
    if form is None:
        return None
    note = choose(INPUT_NOTES[form]).replace("{unit}", unit).replace("{input}", choose(SLOTS["input"]))
    return f"{join(instruction.head, note, True)}\n\n{data}"


_TALK = re.compile(
    r"\b(?:talks?|dialogues?|dialogs?|conversations?|chats?|interviews?|messages?|replies|reply|respond|response"
    r"|steps|instructions?|commands?|tasks?|riddles?|quiz|puzzles?|exercises?)\b"
)
_BLANKS = re.compile(r"_{2,}|\.\.\.|…|\w+ ?/ ?\w+ ?/ ?\w+|^\s*\d+[.)]\s", re.M)
_SPEECH = re.compile(r"[\"”],? (?:said|asked|replied|answered)\b|\b(?:said|asked|replied|answered)\b[^.]{0,40}[\"“]")
_MARK = re.compile(r"\s*([-+*•–—>])\s")


def _is_data(instruction: Instruction, material: str) -> bool:
    """Whether the material is data: no question, order, exercise or talk, and no list in more than one voice."""
    if (
        "?" in material
        or lists_answers(instruction.head + instruction.rest)
        or _BLANKS.search(material)
        or _SPEECH.search(material)
    ):
        return False
    if (
        instruction.kind in ("continue", "other")
        or _TALK.search(instruction.asked)
        or is_choice(instruction.asked)
        or has_code(instruction.head)
    ):
        return False
    openings = [
        TOKEN.match(sentence.lower()) for line in material.splitlines() for sentence in sentences(line.strip())
    ]
    if any(opening and (opening[0] in VERBS or opening[0] == "please") for opening in openings):
        return False
    marks = [found[1] if (found := _MARK.match(line)) else "" for line in material.splitlines() if line.strip()]
    return len(set(marks)) == 1 or bool(_fields([line.strip() for line in material.splitlines() if line.strip()]))


def _is_structured(material: str) -> bool:
    if CODE.search(material) or _TABULAR.search(material):
        return True
    inside = material.strip()
    if inside[0] in "[{" and inside[-1] in "]}" and ('"' in inside or ":" in inside):
        return True
    if re.search(r"^\s*[\[{]", inside, re.M):
        return True
    return not re.search(r"[.!?]$", inside, re.M) and any(_is_separated(inside.splitlines(), mark) for mark in ",;")


def _is_separated(lines: list[str], mark: str) -> bool:
    """Whether all lines, of which there are several, have as many fields."""
    counts = {line.count(mark) for line in lines}
    return len(lines) > 1 and len(counts) == 1 and counts != {0}


def _structure(material: str, choose: Choose) -> tuple[str | None, str, str]:
    """Form (key of `INPUT_NOTES`, or None when there is nothing to structure), what one record holds, and the data."""
    lines = [line.strip() for line in material.splitlines() if line.strip()]
    fields = _fields(lines)
    if fields is not None:
        keys = [key for key, _ in fields]
        talk = len(set(keys)) < len(keys) or all(value.endswith((".", "!", "?")) for _, value in fields)
        return (None, "", "") if talk else _render_fields(fields, choose)
    unit, items = _items(lines)
    if len(items) < 2:
        alone = json.dumps({"id": 1, "text": items[0]}, ensure_ascii=False) if len(lines[0].split()) >= 12 else ""
        return ("text" if alone else None), "text", alone
    forms: tuple[str, ...] = ("json", "table", "csv")
    if unit in ("sentence", "line"):
        forms = ("json", "json", "log", "table")
    if any("|" in item for item in items):
        forms = ("json",)
    form = choose(forms)
    return form, unit, _RENDER[form](unit, items)


def _fields(lines: list[str]) -> list[tuple[str, str]] | None:
    """Pairs of key and value, if the lines are such pairs; bullets under a key become its value, one per line."""
    pairs: list[tuple[str, str]] = []
    for line in lines:
        found = _PAIR.fullmatch(line)
        if found and len(found[1].split()) <= 6 and not (BULLET.match(line) and pairs and not pairs[0][1]):
            pairs.append((found[1], found[2]))
        elif pairs and BULLET.match(line):
            key, value = pairs[-1]
            pairs[-1] = key, f"{value}\n{BULLET.sub('', line)}".strip("\n")
        else:
            return None
    long_enough = len(pairs) > 1 or (pairs and len(_list_of(pairs[0][1])) > 1)
    return pairs if long_enough else None


def _render_fields(pairs: list[tuple[str, str]], choose: Choose) -> tuple[str, str, str]:
    plain = all(value and "\n" not in value and "|" not in value for _, value in pairs)
    if plain and choose((False, False, True)):
        return (
            "fields",
            "field",
            "\n".join(["| field | value |", "| --- | --- |", *(f"| {key} | {value} |" for key, value in pairs)]),
        )
    record = {key: _list_of(value) if len(_list_of(value)) > 1 else _value(value) for key, value in pairs}
    members = ",\n".join(
        f"  {json.dumps(key, ensure_ascii=False)}: {json.dumps(value, ensure_ascii=False)}"
        for key, value in record.items()
    )
    return "object", "field", "{\n" + members + "\n}"


def _list_of(value: str) -> list:
    """The entries of a value that is a list, else the value alone."""
    if "\n" in value:
        return [_value(part) for part in value.split("\n")]
    inside = value.strip()
    bare = inside[1:-1] if inside[:1] + inside[-1:] in ("[]", "{}", "()") else inside
    parts = [part.strip() for part in bare.split(",")]
    short = len(parts) > 2 and all(part and len(part.split()) <= 3 for part in parts)
    return [_value(part) for part in parts] if short else [value]


def _value(text: str):
    """A number if the text is one that prints the same again, else the text."""
    text = text.strip()
    if not _NUMBER.fullmatch(text):
        return text
    return float(text) if "." in text and str(float(text)) == text else int(text) if "." not in text else text


def _items(lines: list[str]) -> tuple[str, list[str]]:
    """What the material consists of ("item", "line", "sentence") and its parts."""
    if len(lines) > 1:
        items = [BULLET.sub("", line) for line in lines]
        return ("item" if all(len(item.split()) <= 6 for item in items) else "line"), items
    entries = _list_of(lines[0].rstrip("."))
    if len(entries) > 1:
        return "item", [str(entry) for entry in entries]
    return "sentence", sentences(lines[0])


def _json_array(records: list[dict]) -> str:
    return "[\n" + ",\n".join("  " + json.dumps(record, ensure_ascii=False) for record in records) + "\n]"


def _render_json(unit: str, items: list[str]) -> str:
    return _json_array(
        [{"id": number, unit: _value(item) if unit == "item" else item} for number, item in enumerate(items, 1)]
    )


def _render_table(unit: str, items: list[str]) -> str:
    rows = [f"| {number} | {item} |" for number, item in enumerate(items, 1)]
    return "\n".join([f"| id | {unit} |", "| --- | --- |", *rows])


def _render_csv(unit: str, items: list[str]) -> str:
    quoted = ['"' + item.replace('"', '""') + '"' if re.search('[,"]', item) else item for item in items]
    return "\n".join([f"id,{unit}", *(f"{number},{item}" for number, item in enumerate(quoted, 1))])


def _render_log(unit: str, items: list[str]) -> str:
    return "\n".join(f"[{number:03d}] {item}" for number, item in enumerate(items, 1))


_RENDER = {"json": _render_json, "table": _render_table, "csv": _render_csv, "log": _render_log}
