"""Seed instructions: in goes a file, a folder, a Hub dataset or nothing, out come checked `Seed`s with stable ids."""

import hashlib
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError, one_line
from ..types import Seed, SeedProblem
from .tables import BadRow, Table, holds_inputs, kind, read_table
from .tokens import control_token

if TYPE_CHECKING:
    from datasets import Dataset

BUILT_IN = Path(__file__).parent / "data" / "seeds.jsonl"
INSTRUCTION = "instruction"
# Where instructions are looked for if there is no column of that name, and inputs if none is named.
CONVERSATIONS = ("messages", "conversations", "conversation")
USERS = ("user", "human")  # As OpenAI's and ShareGPT's forms call who asks.
INPUTS = ("input", "inputs", "instances", "context")

logger = logging.getLogger(__name__)
_SURROGATE = re.compile("[\ud800-\udfff]")
_PICTURE = re.compile("<(?:image|video|audio)>")  # What LLaVA's conversations write for what they show.


def seed_id(instruction: str, input: str) -> str:
    """The id that content has in every run: "s" and 12 hexadecimal digits.

    >>> seed_id("Sort these numbers.", "3, 1, 2")
    's0dace05e9f3c'
    """
    return "s" + hashlib.blake2b(f"{instruction}\0{input}".encode(), digest_size=6).hexdigest()


def load_seeds(
    source: str | None = None,
    seed_column: str = INSTRUCTION,
    input_column: str | None = None,
    split: str = "train",
    drop_duplicates: bool = False,
    max_characters: int = 20_000,
    *,
    config: str | None = None,
    skip_bad: bool = False,
    left_out: Counter[str] | None = None,
) -> list[Seed]:
    """Seeds in the order of their source: instructions stripped, a null or blank input as "", line ends as \\n.

    A row with several inputs, such as the `instances` of Self-Instruct's seed tasks, gives a seed for each distinct
    one. A conversation gives its first user turn; system turns are left out, since rows have none.

    Args:
        source: None for the built-in set; else a file with one of `tables.ENDINGS` (.json holds a list of objects or
            of strings), a folder (written by `save_to_disk`, or one that `load_dataset` reads), or the id of a Hub
            dataset. What exists on disk goes before the Hub.
        seed_column: Column of instructions, or of conversations in the form of OpenAI (role, content) or ShareGPT
            (from, value). Without a column "instruction", "messages" and "conversations" are looked for.
        input_column: Column of inputs: text, a list of texts, or objects with the key "input". None takes the one
            that isn't empty of "input", "inputs", "instances", "context" and columns of such objects; "" takes none.
            A named column must exist. All other columns are ignored.
        split: Split of a folder or a Hub dataset. A file has "train" only.
        drop_duplicates: Keep the first of equal seeds instead of refusing the second.
        max_characters: Longest instruction, and longest input, that is taken for one.
        config: Configuration of a folder or a Hub dataset, if it has several.
        skip_bad: Leave out rows that can't be used and seeds that repeat an earlier one, with one warning.
        left_out: Counter to add to: how many were left out, by `SeedProblem`.

    Raises:
        UserError: It names the source, the line (JSONL) or row (from 1, without a header), and the way out.
    """
    name = str(BUILT_IN) if source is None else os.fspath(source)
    if input_column == seed_column:
        raise UserError(f"--seed_column and --input_column are both {seed_column!r}; leave --input_column out.")
    wanted = (seed_column, *(INPUTS if input_column is None else [input_column]))
    table = read_table(name, (*wanted, *CONVERSATIONS) if seed_column == INSTRUCTION else wanted, split, config)
    seed_column = _instructions_in(table, name, seed_column, input_column)
    if table.broken and not skip_bad:
        raise table.broken[0]
    seeds: dict[str, tuple[Seed, str]] = {}
    bad = list(table.broken)
    others = [column for column in table.columns if column not in (seed_column, input_column, *INPUTS)]
    for place, found in _found(table, name, seed_column, input_column, max_characters):
        if isinstance(found, Seed) and found.id in seeds:
            found = _repeated(f"{name}, {place}", seeds[found.id][1], others)
        if isinstance(found, Seed):
            seeds[found.id] = found, place
        elif skip_bad or (drop_duplicates and found.problem is SeedProblem.REPEATED):
            bad.append(found)
        else:
            raise found
    _report(name, len(seeds), seed_column, bad)
    if left_out is not None:
        left_out.update(error.problem for error in bad)
    return [seed for seed, _ in seeds.values()]


def _instructions_in(table: Table, name: str, seed_column: str, input_column: str | None) -> str:
    """The column of instructions: the one that was named, or that of conversations where none was."""
    if not table.columns:
        raise next(iter(table.broken), UserError(f"{name}: is empty; give a source with at least one seed."))
    if seed_column == INSTRUCTION and INSTRUCTION not in table.columns:
        seed_column = next((column for column in CONVERSATIONS if column in table.columns), seed_column)
    for column, flag in ((seed_column, "--seed_column"), (input_column, "--input_column")):
        if column and column not in table.columns:
            there = ", ".join(repr(other[:60]) for other in table.columns[:20])
            there += ", ..." if len(table.columns) > 20 else ""
            raise UserError(f"{name}: has no column {column!r}, only {there}; name the right one with {flag}.")
        if (count := table.columns.count(column)) > 1:
            raise UserError(f"{name}: has {count} columns called {column!r}; rename all but one.")
    return seed_column


def _repeated(where: str, earlier: str, others: Sequence[str]) -> BadRow:
    told_apart = f" If {_listed(others)} tells them apart, name it with --input_column." if others else ""
    return BadRow(
        f"{where}: is the same seed as {earlier}; remove one of them, or pass --drop_duplicate_seeds (drop_duplicates="
        f"True) to keep the first.{told_apart}",
        SeedProblem.REPEATED,
    )


def _listed(columns: Sequence[str]) -> str:
    shown = " or ".join(repr(column[:60]) for column in columns[:5])
    return f"the column {shown}" + (" or another" if len(columns) > 5 else "")


def _report(name: str, seeds: int, seed_column: str, bad: Sequence[BadRow]) -> None:
    """Log what is left out; UserError where nothing else is there."""
    if not seeds and not bad:
        raise UserError(f"{name}: has the column {seed_column!r} but no row; give a source with at least one seed.")
    counts = Counter(error.problem for error in bad).most_common()
    listed = ", ".join(f"{problem} {count:,}" for problem, count in counts)
    if bad and not seeds:
        raise UserError(f"{name}: no row gives a seed ({listed}). The first: {bad[0]}")
    if bad:
        logger.warning("%s", one_line(f"{name}: rows left out: {len(bad):,} ({listed}). The first: {bad[0]}"))


def split_seeds(seeds: Sequence[Seed], test_size: float = 0.1) -> tuple[list[Seed], list[Seed]]:
    """Seeds for training and held-out seeds, both in the given order.

    Which side a seed falls on depends on its id alone, so adding or removing others doesn't move it. The exception are
    sets so small that a side would be empty: the seed nearest to that side goes there. A single seed isn't held out.

    Args:
        seeds: Seeds with distinct ids.
        test_size: Share held out, on average; 0 <= test_size < 1.
    """
    if not 0 <= test_size < 1:
        raise UserError(
            f"test_size is {test_size!r}, wanted a share from 0 (hold nothing out) to below 1, such as 0.1."
        )
    if test_size == 0 or len(seeds) < 2:
        return list(seeds), []
    by_position = sorted({seed.id for seed in seeds}, key=_position)
    held_out = {id for id in by_position if _position(id) < test_size} or {by_position[0]}
    if len(held_out) == len(by_position):
        held_out.remove(by_position[-1])
    return [seed for seed in seeds if seed.id not in held_out], [seed for seed in seeds if seed.id in held_out]


def _position(id: str) -> float:
    """A number in [0, 1) that looks random and is the same for the same id."""
    return int.from_bytes(hashlib.blake2b(f"split {id}".encode(), digest_size=6).digest()) / 2**48


def seeds_to_dataset(seeds: Sequence[Seed]) -> "Dataset":
    """A dataset with the string columns id, instruction and input."""
    from datasets import Dataset, Features, Value

    columns = ("id", "instruction", "input")
    return Dataset.from_dict(
        {column: [getattr(seed, column) for seed in seeds] for column in columns},
        features=Features({column: Value("string") for column in columns}),
    )


def seed_from_row(row: Mapping[str, Any]) -> Seed:
    """The seed a row of `seeds_to_dataset` holds. Other rows may lack `input`, and an `id` that is a string."""
    instruction, given, id = row["instruction"], row.get("input") or "", row.get("id")
    return Seed(id if isinstance(id, str) else seed_id(instruction, given), instruction, given)


def _found(
    table: Table, name: str, seed_column: str, input_column: str | None, max_characters: int
) -> Iterator[tuple[str, Seed | BadRow]]:
    """For each row its place, and each of its seeds or why it has none."""
    for place, row in table.rows:
        where = f"{name}, {place}"
        try:
            column, cell = _material(row, where, seed_column, input_column)
            cell = _decoded(cell, column)
            instruction = _instruction(_decoded(row.get(seed_column), seed_column), where, seed_column, max_characters)
            inputs = [_checked(given, where, column, max_characters) for given in _inputs(cell, where, column)]
        except BadRow as error:
            yield place, error
            continue
        for given in dict.fromkeys(given if given.strip() else "" for given in inputs):
            yield place, Seed(seed_id(instruction, given), instruction, given)


def _decoded(cell: Any, column: str) -> Any:
    """A cell of conversations or instances, which tables of text alone spell as JSON."""
    nested = column.casefold() in (*CONVERSATIONS, "instances")
    if not nested or not isinstance(cell, str) or not cell.lstrip().startswith(("[", "{")):
        return cell
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        return cell


def _instruction(cell: Any, where: str, column: str, max_characters: int) -> str:
    turns = _turns(cell)
    said = cell if turns is None else _first_user_turn(turns, where, column)
    instruction = _checked(said, where, column, max_characters).strip()
    if not instruction:
        message = f"{where}: {column!r} is empty; write an instruction or remove the row."
        raise BadRow(message, SeedProblem.EMPTY)
    return instruction


def _turns(cell: Any) -> list[Mapping[str, Any]] | None:
    """The turns of a conversation, or None if it is something else."""
    if isinstance(cell, dict) and ({"role", "content"} <= cell.keys() or {"from", "value"} <= cell.keys()):
        # An object of lists stands for a list of objects.
        lists = all(isinstance(value, list) for value in cell.values())
        cell = [dict(zip(cell, turn)) for turn in zip(*cell.values())] if lists else [cell]
    if not isinstance(cell, list) or not cell:
        return None
    return cell if all(isinstance(turn, dict) and {"role", "from"} & turn.keys() for turn in cell) else None


def _first_user_turn(turns: Sequence[Mapping[str, Any]], where: str, column: str) -> Any:
    """What the user says first; text parts are joined by line ends."""
    first = next((turn for turn in turns if str(turn.get("role") or turn.get("from")).lower() in USERS), None)
    if first is None:
        message = f"{where}: {column!r} is a conversation without a turn of a user; remove the row."
        raise BadRow(message, SeedProblem.NO_USER_TURN)
    said = first.get("value") if first.get("content") is None else first["content"]
    texts = [_part(part, where, column) for part in said] if isinstance(said, list) else [said]
    shown = next((found[0] for text in texts if isinstance(text, str) and (found := _PICTURE.search(text))), None)
    if shown:
        raise _more_than_text(where, column, shown)
    parts = [text for text in texts if isinstance(text, str)]
    return "\n".join(parts) if len(parts) == len(texts) else None


def _part(part: Any, where: str, column: str) -> Any:
    """The text of one part of a turn; BadRow for a picture, a sound or whatever else."""
    if isinstance(part, dict) and part.get("type") in ("text", "input_text"):
        return part.get("text")
    if isinstance(part, dict):
        raise _more_than_text(where, column, f"a part of type {part.get('type')!r}")
    return part


def _more_than_text(where: str, column: str, held: str) -> BadRow:
    message = f"{where}: {column!r} holds {held}, and a seed is text alone; remove the row."
    return BadRow(message, SeedProblem.MORE_THAN_TEXT)


def _material(row: Mapping[str, Any], where: str, seed_column: str, input_column: str | None) -> tuple[str, Any]:
    """The column that holds what the instruction works on, and its cell; None where there is nothing."""
    if input_column is not None:
        return input_column, row.get(input_column)
    columns = [name for name, cell in row.items() if name.casefold() in INPUTS or holds_inputs(cell)]
    found = [name for name in columns if name != seed_column and not _is_blank(row[name])]
    if len(found) > 1:
        message = (
            f"{where}: has inputs in {' and in '.join(map(repr, found))}; name one with --input_column, or none "
            "with --input_column ''."
        )
        raise BadRow(message, SeedProblem.SEVERAL_INPUTS)
    return (found[0], row[found[0]]) if found else (INPUTS[0], None)


def _is_blank(cell: Any) -> bool:
    return all(not given.strip() if isinstance(given, str) else given in (None, [], {}) for given in _nested(cell))


def _nested(cell: Any) -> list[Any]:
    """What a cell holds as inputs: itself, its items, or what objects hold under "input"."""
    found: list[Any] = []
    for item in cell if isinstance(cell, list) else [cell]:
        given = item
        if holds_inputs(item) and isinstance(item, dict):
            given = next(value for key, value in item.items() if key.casefold() == "input")
        # An object of lists stands for a list of objects.
        found += given if isinstance(given, list) and given is not item else [given]
    return found


def _inputs(cell: Any, where: str, column: str) -> list[str]:
    """The inputs in a cell, one that is empty where there is none; BadRow for what is not understood."""
    found = _nested(cell)
    if not all(isinstance(given, str | None) for given in found):
        keys = f" with the keys {', '.join(map(repr, cell))[:60]}" if isinstance(cell, dict) else ""
        message = (
            f"{where}: {column!r} is {kind(cell)}{keys}, wanted a string, strings, or objects with the key 'input'; "
            "name such a column with --input_column, or none with --input_column ''."
        )
        raise BadRow(message, SeedProblem.NO_TEXT)
    return [given or "" for given in found] or [""]


def _checked(value: Any, where: str, column: str, max_characters: int) -> str:
    """The cell as it is, or BadRow when it is no text that can be sent to a model."""
    if not isinstance(value, str):
        message = f"{where}: {column!r} is {kind(value)}, wanted a string; quote it, or name a column of text."
        raise BadRow(message, SeedProblem.NO_TEXT)
    if len(value) > max_characters:
        raise BadRow(
            f"{where}: {column!r} has {len(value):,} characters, at most {max_characters:,} are wanted; shorten it, "
            "remove the row, or raise max_characters.",
            SeedProblem.TOO_LONG,
        )
    if "\0" in value:
        message = f"{where}: {column!r} holds a null byte; remove it (the file may be damaged or not be text)."
        raise BadRow(message, SeedProblem.NULL_BYTE)
    if not value.isascii() and (found := _SURROGATE.search(value)):
        message = f"{where}: {column!r} holds half a character (lone surrogate U+{ord(found[0]):04X}); remove it."
        raise BadRow(message, SeedProblem.HALF_CHARACTER)
    if token := control_token(value):
        # HTML has <s> for struck-through text, but most Llama tokenizers take it for the beginning of a text.
        deleted = "; for struck-through text write <del>" if token in ("<s>", "</s>") else ""
        raise BadRow(
            f"{where}: {column!r} holds {token!r}, which tokenizers read as a control token; remove it or spell it "
            f"differently{deleted}.",
            SeedProblem.CONTROL_TOKEN,
        )
    # Else an id would change when an editor or a version control system rewrites the line ends of a file.
    return value.replace("\r\n", "\n")
