"""Seed instructions: in goes a file, a folder, a Hub dataset or nothing, out come checked `Seed`s with stable ids."""

import csv
import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import UserError
from .paths import folder_cache
from .tokens import control_token
from .types import Seed

if TYPE_CHECKING:
    from datasets import Dataset

# The columns of the instruction and of the input, if any.
Wanted = tuple[str, str | None]
# Columns of a source, and its rows, each with the place an error message names.
Table = tuple[Sequence[str], Iterable[tuple[str, Mapping[str, Any]]]]

BUILT_IN = Path(__file__).parent / "data" / "seeds.jsonl"

_SURROGATE = re.compile("[\ud800-\udfff]")


def seed_id(instruction: str, input: str) -> str:
    """The id that content has in every run: "s" and 12 hexadecimal digits.

    >>> seed_id("Sort these numbers.", "3, 1, 2")
    's0dace05e9f3c'
    """
    return "s" + hashlib.blake2b(f"{instruction}\0{input}".encode(), digest_size=6).hexdigest()


def load_seeds(
    source: str | None = None,
    seed_column: str = "instruction",
    input_column: str | None = None,
    split: str = "train",
    drop_duplicates: bool = False,
    max_characters: int = 20_000,
) -> list[Seed]:
    """Seeds in the order of their source: instructions stripped, a null or blank input as "", line ends as \\n.

    Args:
        source: None for the built-in set; else a .jsonl, .json (a list of objects or of strings), .csv, .tsv or
            .parquet file, a folder (written by `save_to_disk`, or one that `load_dataset` reads), or the id of a Hub
            dataset. What exists on disk goes before the Hub.
        seed_column: Column that holds the instruction; columns not named here are ignored.
        input_column: Column that holds the input. None takes "input" if there is one; a named column must exist.
        split: Split of a folder or a Hub dataset. A file has "train" only.
        drop_duplicates: Keep the first of equal seeds instead of refusing the second.
        max_characters: Longest instruction, and longest input, that is taken for one.

    Raises:
        UserError: one line that names the source, the line (JSONL, as an editor counts) or row (counted from 1,
            without a header), what is wrong with it, and the way out.
    """
    name = str(BUILT_IN) if source is None else os.fspath(source)
    if input_column == seed_column:
        raise UserError(f"--seed_column and --input_column are both {seed_column!r}; leave --input_column out.")
    wanted = (seed_column, input_column or ("input" if seed_column != "input" else None))
    columns, rows = read_table(name, split, wanted)
    _check_columns(name, columns, seed_column, input_column)
    seeds: dict[str, Seed] = {}
    places: dict[str, str] = {}
    for place, row in rows:
        seed = _seed(row, f"{name}, {place}", wanted, max_characters)
        if seed.id not in seeds:
            seeds[seed.id], places[seed.id] = seed, place
        elif not drop_duplicates:
            raise _error(
                f"{name}, {place}: is the same seed as {places[seed.id]}; remove one of them, or pass "
                "--drop_duplicate_seeds (drop_duplicates=True) to keep the first."
            )
    if not seeds:
        raise _error(f"{name}: has the column {seed_column!r} but no row; give a source with at least one seed.")
    return list(seeds.values())


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


def read_table(name: str, split: str, wanted: Wanted) -> Table:
    """Columns of a file, a folder or a dataset on the Hub; what can't be read ends in a ValueError of one line."""
    path = os.path.expanduser(name)
    ending = os.path.splitext(name)[1].lower()
    if os.path.isdir(path):
        return _dataset_table(_open_folder(path, name, split), wanted)
    if not os.path.exists(path):
        return _dataset_table(_open_hub(name, ending, split), wanted)
    if ending not in _FILES:
        raise _error(f"{name}: files ending in {ending!r} can't be read; convert it to one of {', '.join(_FILES)}.")
    if split != "train":
        raise _error(f"{name}: is one file and has no split {split!r}; leave split out, or give that split's file.")
    return _FILES[ending](path, name, wanted)


def _jsonl_table(path: str, name: str, wanted: Wanted) -> Table:
    rows = []
    # Not splitlines(): characters such as U+2028 may stand in a JSON string and end no line.
    for number, line in enumerate(_utf8(path, name).split("\n"), 1):
        if line and not line.isspace():
            place = f"line {number}"
            rows.append((place, _record(_parse_json(line, name, number), name, place, wanted)))
    return _columns(rows), rows


def _json_table(path: str, name: str, wanted: Wanted) -> Table:
    text = _utf8(path, name)
    values = _parse_json(text, name) if text.strip() else []
    if not isinstance(values, list):
        raise _error(f"{name}: holds {_kind(values)}, wanted a list of objects or of strings; wrap it in [ ].")
    rows = [(f"row {n}", _record(value, name, f"row {n}", wanted)) for n, value in enumerate(values, 1)]
    return _columns(rows), rows


def _parse_json(text: str, name: str, line: int | None = None) -> Any:
    """The value of a JSON text, which is the whole file unless its `line` is given."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        several = line is None and error.msg == "Extra data"
        way_out = "a file with one value a line has to end in .jsonl" if several else "mend the line or remove it"
        where = f"{name}, line {line or error.lineno}"
        raise _error(f"{where}: broken JSON ({error.msg} at column {error.colno}); {way_out}.") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets thousands deep
        where = f"{name}, line {line}" if line else name
        raise _error(f"{where}: JSON that can't be read ({error}); mend it or remove it.") from error


def _record(value: Any, name: str, place: str, wanted: Wanted) -> dict[str, Any]:
    """A row as a dictionary; a bare string is the instruction."""
    if isinstance(value, dict):
        return value
    if isinstance(value, str):
        return {wanted[0]: value}
    raise _error(f"{name}, {place}: is {_kind(value)}, wanted an object with the key {wanted[0]!r} or a string.")


def _columns(rows: Iterable[tuple[str, Mapping[str, Any]]]) -> list[str]:
    return list(dict.fromkeys(column for _, row in rows for column in row))


def _csv_table(path: str, name: str, wanted: Wanted, delimiter: str = ",") -> Table:
    reader = csv.reader(io.StringIO(_utf8(path, name), newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    rows: list[tuple[str, dict[str, str]]] = []
    # Long fields are for our own check, which names the column. The limit is the whole process's, so it is put back.
    limit = csv.field_size_limit(2**31 - 1)
    try:
        end = 0
        for fields in reader:
            place, end = f"row {len(rows) + 1} (line {end + 1})", reader.line_num
            if not header:
                header = [field.strip() for field in fields] if any(map(str.strip, fields)) else []
            elif fields:
                if len(fields) != len(header):
                    raise _error(
                        f"{name}, {place}: has {len(fields)} fields where the header has {len(header)}; put "
                        "double quotes around fields that hold a delimiter or a line break."
                    )
                rows.append((place, dict(zip(header, fields))))
    except csv.Error as error:
        raise _error(
            f"{name}, row {len(rows) + 1}, near line {reader.line_num}: the quotes don't match ({error}); write a "
            "double quote inside a quoted field twice."
        ) from error
    finally:
        csv.field_size_limit(limit)
    return header, rows


def _tsv_table(path: str, name: str, wanted: Wanted) -> Table:
    return _csv_table(path, name, wanted, "\t")


def _parquet_table(path: str, name: str, wanted: Wanted) -> Table:
    import pyarrow
    from pyarrow import parquet

    try:
        columns = parquet.read_schema(path).names
        kept = [column for column in wanted if column in columns]
        table = parquet.read_table(path, columns=kept).to_pydict()
    except (pyarrow.ArrowException, ValueError, OSError) as error:
        raise _error(f"{name}: isn't a whole parquet file ({error}); write it or fetch it again.") from error
    return columns, _numbered(table)


def _dataset_table(dataset: "Dataset", wanted: Wanted) -> Table:
    kept = [column for column in wanted if column in dataset.column_names]
    # A saved dataset remembers its format; only plain Python values are wanted here.
    return dataset.column_names, _numbered(dataset.select_columns(kept).with_format(None)[:] if kept else {})


def _numbered(columns: Mapping[str, Sequence[Any]]) -> Iterable[tuple[str, dict[str, Any]]]:
    for number, values in enumerate(zip(*columns.values()), 1):
        yield f"row {number}", dict(zip(columns, values))


_FILES = {
    ".jsonl": _jsonl_table,
    ".json": _json_table,
    ".csv": _csv_table,
    ".tsv": _tsv_table,
    ".parquet": _parquet_table,
}


def _utf8(path: str, name: str) -> str:
    """The text of a file, without a byte order mark."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise _error(f"{name}: can't be read ({error.strerror}); check the file and its permissions.") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise _error(f"{name}, line {line}: isn't UTF-8 ({error.reason}); save the file as UTF-8.") from error


def _open_folder(path: str, name: str, split: str) -> "Dataset":
    from datasets import DatasetDict, load_dataset, load_from_disk

    way_out = f"check its files and the split, or give one file ({', '.join(_FILES)})"
    if not any(os.path.exists(os.path.join(path, file)) for file in ("state.json", "dataset_dict.json")):
        return opened(
            lambda: load_dataset(os.path.abspath(path), split=split, cache_dir=folder_cache(path)),
            f"{name}: this folder is no dataset",
            way_out,
        )
    dataset = opened(lambda: load_from_disk(path), f"{name}: this saved dataset is damaged", way_out)
    splits = dataset if isinstance(dataset, DatasetDict) else {"train": dataset}
    if split not in splits:
        raise _error(f"{name}: has no split {split!r}, only {', '.join(map(repr, splits))}; name one of them.")
    return splits[split]


def _open_hub(name: str, ending: str, split: str) -> "Dataset":
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
        could_be_hub = ending not in _FILES
    except HFValidationError:
        could_be_hub = False
    if not could_be_hub:
        shown = name if len(name) <= 200 else name[:200] + "..."
        raise _error(f"{shown!r}: no such file or folder, and no Hub dataset such as 'owner/name'; check the path.")
    from datasets import load_dataset

    what = f"{name}: there is no such file or folder here, and as a dataset of the Hub it can't be loaded"
    return opened(lambda: load_dataset(name, split=split), what, "check the path or name, the split, the connection")


def opened(load: Callable[[], Any], what: str, way_out: str) -> Any:
    """What `load` returns; what it raises becomes one line: `what`, the library's reason, `way_out`."""
    import pyarrow
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HTTPError

    try:
        return load()
    except (DatasetsError, HTTPError, pyarrow.ArrowException, OSError, ValueError, RuntimeError, KeyError) as error:
        # "An error occurred while generating the dataset" says nothing; its cause does.
        reason = error.__cause__ if isinstance(error, DatasetsError) and error.__cause__ else error
        raise _error(f"{what} ({reason}); {way_out}.") from error


def _check_columns(name: str, columns: Sequence[str], seed_column: str, input_column: str | None) -> None:
    if not columns:
        raise _error(f"{name}: is empty; give a source with at least one seed.")
    for column, flag in ((seed_column, "--seed_column"), (input_column, "--input_column")):
        if column is not None and column not in columns:
            there = ", ".join(repr(other[:60]) for other in columns[:20]) + (", ..." if len(columns) > 20 else "")
            raise _error(f"{name}: has no column {column!r}, only {there}; name the right one with {flag}.")
        if columns.count(column) > 1:
            raise _error(f"{name}: has {columns.count(column)} columns called {column!r}; rename all but one.")


def _seed(row: Mapping[str, Any], where: str, wanted: Wanted, max_characters: int) -> Seed:
    seed_column, input_column = wanted
    given = row.get(input_column)
    given = "" if given is None else _checked(given, where, input_column, max_characters)
    instruction = _checked(row.get(seed_column), where, seed_column, max_characters).strip()
    if not instruction:
        raise _error(f"{where}: {seed_column!r} is empty; write an instruction or remove the row.")
    given = given if given.strip() else ""
    return Seed(seed_id(instruction, given), instruction, given)


def _checked(value: Any, where: str, column: str, max_characters: int) -> str:
    """The cell as it is, or ValueError when it is no text that can be sent to a model."""
    if not isinstance(value, str):
        raise _error(f"{where}: {column!r} is {_kind(value)}, wanted a string; quote it, or name a column of text.")
    if len(value) > max_characters:
        raise _error(
            f"{where}: {column!r} has {len(value):,} characters, at most {max_characters:,} are wanted; shorten it, "
            "remove the row, or raise max_characters."
        )
    if "\0" in value:
        raise _error(f"{where}: {column!r} holds a null byte; remove it (the file may be damaged or not be text).")
    if not value.isascii() and (found := _SURROGATE.search(value)):
        raise _error(f"{where}: {column!r} holds half a character (lone surrogate U+{ord(found[0]):04X}); remove it.")
    if found := control_token(value):
        # HTML has <s> for struck-through text, but most Llama tokenizers take it for the beginning of a text.
        deleted = "; for struck-through text write <del>" if found in ("<s>", "</s>") else ""
        raise _error(
            f"{where}: {column!r} holds {found!r}, which tokenizers read as a control token; remove it or spell it "
            f"differently{deleted}."
        )
    # Else an id would change when an editor or a version control system rewrites the line ends of a file.
    return value.replace("\r\n", "\n")


def _kind(value: Any) -> str:
    """What a JSON author calls the value's type."""
    names = {type(None): "null", bool: "a boolean", dict: "an object", str: "a string"}
    return names.get(type(value), f"a value of type {type(value).__name__}")


def _error(message: str) -> UserError:
    """UserError on one printable line, whatever file names, columns or library messages stand in it."""
    return UserError(" ".join(message.split()).encode("utf-8", "backslashreplace").decode())
