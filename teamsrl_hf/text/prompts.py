"""Prompts as data: in goes a set of prompts (a name, a YAML or JSON file, a mapping), out come operations' settings.

A set names what it changes of its base: `frame` (of whole rewrites), and for each operation a `sentence` and `edits`.
Three are built in. `large` asks for whole rewrites. `small` asks for edits, with worked examples as chat turns. `tiny`
asks three operations for no more than the subject or activity of a task, and drops what the model is unsure of.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import zip_longest
from pathlib import Path
from typing import Any

from ..errors import UserError, did_you_mean
from .edits import Edit, EditForm

PROMPT_SETS = ("tiny", "small", "large")
_BASES = {"tiny": "small", "small": "large", "large": None}
DEFAULT_SET = "small"

_FOLDER = Path(__file__).parent / "data" / "prompts"
_KEYS = ("base", "language", "frame", "examples", "responses", "operations")
_OPERATION_KEYS = ("sentence", "edits")
_EDIT_KEYS = (*(one.name for one in fields(Edit)), "answers")
_FRAME_FIELDS = ("{sentence}", "{text}")


def read_prompts(source: str | Mapping[str, Any] = DEFAULT_SET) -> dict[str, dict[str, Any]]:
    """The settings of each operation, by name: `sentence`, and where the set has them `frame`, `edits`, `english`.

    Args:
        source: Name of a built-in set, path of a .yaml or .json file, or a mapping with the keys of such a file:
            `base` ("small" where left out), `language`, `frame`, `examples` (instructions that edits share),
            `responses` (one to each of these) and `operations`.

    Raises:
        UserError: The file can't be read, or a key, frame or pattern is wrong.
    """
    given: Mapping[str, Any]
    if isinstance(source, str) and source in PROMPT_SETS:
        given = json.loads((_FOLDER / f"{source}.json").read_text(encoding="utf-8"))
        base = _BASES[source]
    else:
        given = source if isinstance(source, Mapping) else _read_file(Path(source))
        _check_keys(given, _KEYS, "A set of prompts")
        base = given.get("base", DEFAULT_SET)
        if base not in PROMPT_SETS:
            raise UserError(f"The base of a set of prompts is one of {', '.join(PROMPT_SETS)}, not {base!r}.")
    settings = read_prompts(base) if base else {}
    _update(settings, given)
    return settings


def read_edits(entries: Any, examples: Sequence[str] = (), responses: Sequence[str] = ()) -> tuple[Edit, ...]:
    """Edits as YAML gives them, see `Edit`; `answers` are the examples' edits, in the order of `examples`.

    `responses` are those to the examples; an edit's own `responses` are what these gain by it.
    """
    if not isinstance(entries, list):
        raise UserError(f"`edits` must be a list of mappings with the keys of an edit, not {entries!r}.")
    return tuple(_edit(entry, examples, responses) for entry in entries)


def _update(settings: dict[str, dict[str, Any]], given: Mapping[str, Any]) -> None:
    operations = given.get("operations", {})
    if not isinstance(operations, Mapping):
        raise UserError(f"`operations` of a set of prompts must map names to settings, not {operations!r}.")
    for name, entry in operations.items():
        _check_keys(entry, _OPERATION_KEYS, f"Operation {name!r} in a set of prompts")
        old = settings.setdefault(name, {})
        if "sentence" in entry:
            old["sentence"] = str(entry["sentence"])
        if "edits" in entry:
            old["edits"] = read_edits(entry["edits"], given.get("examples", ()), given.get("responses", ()))
            old["english"] = given.get("language") == "en"
        if "sentence" not in old:
            raise UserError(f"Operation {name!r} in a set of prompts is new and needs a sentence.")
    if "frame" in given:
        missing = [field for field in _FRAME_FIELDS if field not in str(given["frame"])]
        if missing:
            raise UserError(f"The frame of a set of prompts must hold {' and '.join(missing)}.")
        for old in settings.values():
            old["frame"] = str(given["frame"])


def _edit(entry: Any, examples: Sequence[str], responses: Sequence[str]) -> Edit:
    _check_keys(entry, _EDIT_KEYS, "An edit")
    missing = [key for key in ("name", "ask") if key not in entry]
    if missing:
        raise UserError(f"An edit needs {' and '.join(missing)}: {dict(entry)!r}")
    values = dict(entry)
    answers, gained = values.pop("answers", ()), values.pop("responses", ())
    for what, given in (("answers", answers), ("responses", gained)):
        if len(given) > len(examples):
            raise UserError(
                f"Edit {entry['name']!r} has {len(given)} {what}, but the set has {len(examples)} examples."
            )
    own = [tuple(example) for example in values.pop("examples", ())]
    if any(len(example) not in (2, 3) for example in own):
        raise UserError(
            f"Each example of edit {entry['name']!r} must be a pair of an instruction and an answer, with a response "
            "to both as a third if wanted."
        )
    pairs = [*zip(examples, answers), *((example[0], example[1]) for example in own)]
    values["examples"] = tuple((str(instruction), str(answer)) for instruction, answer in pairs)
    shared = zip_longest(responses[: len(answers)], gained[: len(answers)], fillvalue="")
    told = [(more, "") if values.get("whole") else (first, more) for first, more in shared]
    told += [("", "")] * (len(answers) - len(told)) + [(str(example[2]) if example[2:] else "", "") for example in own]
    values["responses"] = tuple(told) if any(map(any, told)) else ()
    if values.get("form", "text") not in list(EditForm):
        raise UserError(f"Form {values['form']!r} of edit {entry['name']!r} is unknown; use {', '.join(EditForm)}.")
    values["form"] = EditForm(values.get("form", "text"))
    _check_frame(str(values.get("frame", "{edit}")), values)
    least = values.get("min_logprob", -1)
    if not isinstance(least, float | int) or least > 0:
        raise UserError(f"The min_logprob of edit {entry['name']!r} must be a number of at most 0, not {least!r}.")
    try:
        re.compile(values.get("pattern", ""))
    except (re.error, TypeError) as error:
        raise UserError(f"The pattern of edit {entry['name']!r} is no regular expression: {error}") from error
    return Edit(**values)


def _check_frame(frame: str, values: Mapping[str, Any]) -> None:
    wanted = {EditForm.ITEMS: ("{edit}", "{table}"), EditForm.MATERIAL: ("{key}",)}.get(values["form"], ("{edit}",))
    if not any(place in frame for place in wanted):
        raise UserError(f"The frame of edit {values['name']!r} must hold {' or '.join(wanted)}, unlike {frame!r}.")


def _read_file(path: Path) -> dict[str, Any]:
    import yaml  # Only a user's file needs it.

    try:
        text = path.read_text(encoding="utf-8")
        given = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except FileNotFoundError:
        hint = did_you_mean(str(path), PROMPT_SETS)
        raise UserError(f"No set of prompts {str(path)!r}: name {', '.join(PROMPT_SETS)}, or a file{hint}") from None
    except (OSError, UnicodeDecodeError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"The set of prompts {str(path)!r} can't be read: {error}") from error
    if not isinstance(given, dict):
        raise UserError(f"The set of prompts {str(path)!r} must be a mapping with keys such as `operations`.")
    return given


def _check_keys(given: Any, known: Sequence[str], what: str) -> None:
    if not isinstance(given, Mapping):
        raise UserError(f"{what} must be a mapping with keys among {', '.join(known)}, not {given!r}.")
    unknown = [key for key in given if key not in known]
    if unknown:
        raise UserError(
            f"{what} has no key {unknown[0]!r}. Known: {', '.join(known)}{did_you_mean(str(unknown[0]), known)}"
        )
