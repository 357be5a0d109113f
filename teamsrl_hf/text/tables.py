"""Tables: in goes the name of a file, a folder or a Hub dataset, out come its columns and its rows."""

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError, one_line
from ..paths import folder_cache
from ..types import SeedProblem

if TYPE_CHECKING:
    import pyarrow
    from datasets import Dataset


class BadRow(UserError):
    """A row that can't be used, although those beside it can; `problem` is what a count of such rows calls it."""

    def __init__(self, message: str, problem: SeedProblem):
        super().__init__(message)
        self.problem = problem


# What is wanted of a row, and the place that an error message names.
Row = tuple[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Table:
    """Names of all columns, the rows, and what is wrong with those that can't be read."""

    columns: Sequence[str]
    rows: Iterable[Row]
    broken: Sequence[BadRow] = ()


def read_table(name: str, wanted: Sequence[str], split: str = "train", config: str | None = None) -> Table:
    """A file, a folder or a dataset on the Hub. What exists on disk goes before the Hub.

    Args:
        name: A file with one of `ENDINGS`, a folder (written by `save_to_disk`, or one that `load_dataset` reads), or
            the id of a Hub dataset.
        wanted: Columns to read, in any case of letters; rows that are bare strings are the first of them. Columns of
            objects that hold an input (see `holds_inputs`) are read too.
        split: Split of a folder or a Hub dataset. A file has "train" only.
        config: Configuration of a folder or a Hub dataset, if it has several.

    Raises:
        UserError: One line: the source can't be read, or has no such split or configuration.
    """
    path = os.path.expanduser(name)
    ending = os.path.splitext(name)[1].lower()
    if os.path.isdir(path):
        return _dataset_table(_open_folder(path, name, split, config), wanted)
    if not os.path.exists(path):
        return _dataset_table(_open_hub(name, ending, split, config), wanted)
    if ending not in _FILES:
        raise UserError(
            f"{name}: files ending in {ending!r} can't be read; convert it to one of {', '.join(ENDINGS)}."
        )
    if split != "train":
        raise UserError(f"{name}: is one file and has no split {split!r}; leave split out, or give that split's file.")
    if config is not None:
        raise UserError(f"{name}: is one file and has no configuration {config!r}; leave it out.")
    return _FILES[ending](path, name, wanted)


def holds_inputs(value: Any) -> bool:
    """Whether a value is an object with the key "input", or a list of such objects, as in Self-Instruct's seeds."""
    first = value[0] if isinstance(value, list) and value else value
    return isinstance(first, dict) and any(key.casefold() == "input" for key in first)


def kind(value: Any) -> str:
    """What a JSON author calls the value's type."""
    names = {type(None): "null", bool: "a boolean", dict: "an object", str: "a string"}
    return names.get(type(value), f"a value of type {type(value).__name__}")


def _jsonl_table(path: str, name: str, wanted: Sequence[str]) -> Table:
    columns: dict[str, None] = {}
    rows: list[Row] = []
    broken: list[BadRow] = []
    with _opened_file(path, name) as file:
        # Not by characters such as U+2028, which may stand in a JSON string and end no line.
        for number, data in enumerate(file, 1):
            line, place = _utf8(data.removesuffix(b"\n"), name, number), f"line {number}"
            if line and not line.isspace():
                try:
                    value = _parse_json(line, name, number)
                    rows.append((place, _record(value, f"{name}, {place}", wanted, columns)))
                except BadRow as error:
                    broken.append(error)
    return Table(list(columns), rows, broken)


def _json_table(path: str, name: str, wanted: Sequence[str]) -> Table:
    with _opened_file(path, name) as file:
        text = _utf8(file.read(), name)
    values = _parse_json(text, name) if text.strip() else []
    if not isinstance(values, list):
        raise UserError(f"{name}: holds {kind(values)}, wanted a list of objects or of strings; wrap it in [ ].")
    columns: dict[str, None] = {}
    rows: list[Row] = []
    broken: list[BadRow] = []
    for number, value in enumerate(values, 1):
        try:
            rows.append((f"row {number}", _record(value, f"{name}, row {number}", wanted, columns)))
        except BadRow as error:
            broken.append(error)
    return Table(list(columns), rows, broken)


def _parse_json(text: str, name: str, line: int | None = None) -> Any:
    """The value of a JSON text, which is the whole file unless its `line` is given."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        several = line is None and error.msg == "Extra data"
        way_out = "a file with one value a line has to end in .jsonl" if several else "mend the line or remove it"
        where = f"{name}, line {line or error.lineno}"
        message = f"{where}: broken JSON ({error.msg} at column {error.colno}); {way_out}."
        raise BadRow(message, SeedProblem.BROKEN) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets thousands deep
        where = f"{name}, line {line}" if line else name
        message = f"{where}: JSON that can't be read ({error}); mend it or remove it."
        raise BadRow(message, SeedProblem.BROKEN) from error


def _record(value: Any, where: str, wanted: Sequence[str], columns: dict[str, None]) -> dict[str, Any]:
    """What is wanted of a row, whose columns are noted; a bare string is the first column."""
    row = {wanted[0]: value} if isinstance(value, str) else value
    if not isinstance(row, dict):
        message = f"{where}: is {kind(value)}, wanted an object with the key {wanted[0]!r} or a string."
        raise BadRow(message, SeedProblem.BROKEN)
    columns.update(dict.fromkeys(row))
    return {column: cell for column, cell in row.items() if _is_wanted(column, wanted) or holds_inputs(cell)}


def _is_wanted(column: str, wanted: Sequence[str]) -> bool:
    return column in wanted or column.casefold() in wanted


def _csv_table(path: str, name: str, wanted: Sequence[str], delimiter: str = ",") -> Table:
    with _opened_file(path, name) as file:
        text = _utf8(file.read(), name)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    rows: list[Row] = []
    broken: list[BadRow] = []
    # Long fields are for our own check, which names the column. The limit is the whole process's, so it is put back.
    limit = csv.field_size_limit(2**31 - 1)
    try:
        end = 0
        for fields in reader:
            place, end = f"row {len(rows) + len(broken) + 1} (line {end + 1})", reader.line_num
            if not header:
                header = [field.strip() for field in fields] if any(map(str.strip, fields)) else []
            elif fields and len(fields) != len(header):
                broken.append(_of_other_width(f"{name}, {place}", len(fields), len(header)))
            elif fields:
                rows.append((place, {c: field for c, field in zip(header, fields) if _is_wanted(c, wanted)}))
    except csv.Error as error:
        where = f"{name}, row {len(rows) + len(broken) + 1}, near line {reader.line_num}"
        raise UserError(
            f"{where}: the quotes don't match ({error}); write a double quote inside a quoted field twice."
        ) from error
    finally:
        csv.field_size_limit(limit)
    return Table(header, rows, broken)


def _of_other_width(where: str, fields: int, wanted: int) -> BadRow:
    return BadRow(
        f"{where}: has {fields} fields where the header has {wanted}; put double quotes around fields that hold a "
        "delimiter or a line break.",
        SeedProblem.BROKEN,
    )


def _tsv_table(path: str, name: str, wanted: Sequence[str]) -> Table:
    return _csv_table(path, name, wanted, "\t")


def _parquet_table(path: str, name: str, wanted: Sequence[str]) -> Table:
    import pyarrow
    from pyarrow import parquet

    def batches() -> Iterator["pyarrow.RecordBatch"]:
        try:
            with parquet.ParquetFile(path) as file:
                yield from file.iter_batches(columns=_kept(file.schema_arrow, wanted))
        except (pyarrow.ArrowException, ValueError, OSError) as error:
            raise UserError(f"{name}: isn't a whole parquet file ({error}); write it or fetch it again.") from error

    opened(lambda: parquet.read_schema(path), f"{name}: isn't a whole parquet file", "write it or fetch it again")
    return Table(parquet.read_schema(path).names, _numbered(batches()))


def _dataset_table(dataset: "Dataset", wanted: Sequence[str]) -> Table:
    kept = _kept(dataset.features.arrow_schema, wanted)
    # Arrow's own values, since a saved dataset remembers a format, and features such as images decode theirs.
    batches = dataset.select_columns(kept).with_format("arrow").iter(1_000) if kept else ()
    return Table(dataset.column_names, _numbered(batches))


def _kept(schema: "pyarrow.Schema", wanted: Sequence[str]) -> list[str]:
    import pyarrow

    def nested(type: "pyarrow.DataType") -> bool:
        if pyarrow.types.is_list(type) or pyarrow.types.is_large_list(type):
            return nested(type.value_type)
        return pyarrow.types.is_struct(type) and any(field.name.casefold() == "input" for field in type)

    return [field.name for field in schema if _is_wanted(field.name, wanted) or nested(field.type)]


def _numbered(batches: Iterable[Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    number = 0
    for batch in batches:
        for row in batch.to_pylist():
            number += 1
            yield f"row {number}", row


_FILES: dict[str, Callable[[str, str, Sequence[str]], Table]] = {
    ".jsonl": _jsonl_table,
    ".json": _json_table,
    ".csv": _csv_table,
    ".tsv": _tsv_table,
    ".parquet": _parquet_table,
}
ENDINGS = tuple(_FILES)


def _opened_file(path: str, name: str) -> io.BufferedReader:
    try:
        return Path(path).open("rb")
    except OSError as error:
        raise UserError(f"{name}: can't be read ({error.strerror}); check the file and its permissions.") from error


def _utf8(data: bytes, name: str, line: int = 1) -> str:
    """The text of a file, or of one of its lines, without a byte order mark."""
    try:
        return data.decode("utf-8-sig" if line == 1 else "utf-8")
    except UnicodeDecodeError as error:
        line += error.object.count(b"\n", 0, error.start)
        raise UserError(f"{name}, line {line}: isn't UTF-8 ({error.reason}); save the file as UTF-8.") from error


def _open_folder(path: str, name: str, split: str, config: str | None) -> "Dataset":
    from datasets import DatasetDict, load_dataset, load_from_disk

    way_out = f"check its files, the configuration and the split, or give one file ({', '.join(ENDINGS)})"
    if not any(os.path.exists(os.path.join(path, file)) for file in ("state.json", "dataset_dict.json")):
        return opened(
            lambda: load_dataset(os.path.abspath(path), config, split=split, cache_dir=folder_cache(path)),
            f"{name}: this folder is no dataset{_of(config)}",
            way_out,
        )
    if config is not None:
        raise UserError(f"{name}: is a saved dataset and has no configuration {config!r}; leave it out.")
    dataset = opened(lambda: load_from_disk(path), f"{name}: this saved dataset is damaged", way_out)
    splits = dataset if isinstance(dataset, DatasetDict) else {"train": dataset}
    if split not in splits:
        raise UserError(f"{name}: has no split {split!r}, only {', '.join(map(repr, splits))}; name one of them.")
    return splits[split]


def _open_hub(name: str, ending: str, split: str, config: str | None) -> "Dataset":
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
        could_be_hub = ending not in _FILES
    except HFValidationError:
        could_be_hub = False
    if not could_be_hub:
        shown = name if len(name) <= 200 else name[:200] + "..."
        raise UserError(f"{shown!r}: no such file or folder, and no Hub dataset such as 'owner/name'; check the path.")
    from datasets import load_dataset

    what = f"{name}: there is no such file or folder here, and as a dataset of the Hub it can't be loaded{_of(config)}"
    way_out = "check the path or name, the split, the connection"
    return opened(lambda: load_dataset(name, config, split=split), what, way_out)


def _of(config: str | None) -> str:
    return "" if config is None else f" with the configuration {config!r}"


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
        raise UserError(f"{what} ({one_line(str(reason))}); {way_out}.") from error
