"""The published dataset: in go examples and rejections by seed, out comes a folder for `load_dataset` and the Hub.

Config `default` holds the accepted rows, ready for `trl.SFTTrainer`; config `trajectories` every step of every
chain, also the rejected ones, with its reason. Columns never depend on settings.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Container, Iterable, Sequence
from contextlib import suppress
from itertools import accumulate, chain
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..public import public_model, public_text
from ..runs import NOT_ROWS
from ..types import CallKind, Candidate, Example, Rejection

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Features

CONFIGS = {"default": "data", "trajectories": "trajectories"}
SPLITS = ("train", "test")


# The content of each column, for the card; `schemas` says which config has it.
COLUMNS = {
    "prompt": "the instruction, as a message of the user",
    "completion": "the answer, as a message of the assistant",
    "id": "the step's identifier",
    "seed_id": "the seed from which the chain started",
    "parent_id": "the step, or seed, whose text was rewritten",
    "step": "number of the step in its chain, from 0",
    "operation": "the operation that the step carried out",
    "operations": "the operations up to this step that led to the text",
    "verdict": "what the reviewer said of the rewrite",
    "violations": "rules that the rewrite or the answer breaks",
    "reviewer": "model that gave the verdict",
    "rewriter": "model that rewrote",
    "responder": "model that answered",
    "calls": "model calls that the step took, by kind",
    "verifiers": "the text's constraints that code can check, see `teamsrl_hf.verifiers`: ids and arguments as JSON",
    "verified": "for each of them, whether the answer keeps it",
    "seed_instruction": "the seed's instruction",
    "seed_input": "the seed's input, empty where it has none",
    "instruction": "the text before the step",
    "rewrite": "the text after the step",
    "edit": "the part of the rewrite that the model wrote and code composed, empty where it wrote all of it",
    "response": "the answer, empty where none was asked for",
    "accepted": "whether the step became a row of `default`",
    "reason": "why it did not",
    "error": "why a model's call failed",
}


def schemas() -> dict[str, "pa.Schema"]:
    """Column types of both configs, with the metadata in which `load_dataset` looks for them.

    Written as Arrow types, since importing `datasets` takes a second, while answers wait.
    """
    import pyarrow as pa

    text, number = pa.string(), pa.int32()
    shared = {
        "id": text,
        "seed_id": text,
        "parent_id": text,
        "step": number,
        "operation": text,
        "operations": pa.list_(text),
        "verdict": text,
        "violations": pa.list_(text),
        "reviewer": text,
        "rewriter": text,
        "responder": text,
        "calls": pa.struct(dict.fromkeys(CallKind, number)),
        "verifiers": pa.list_(pa.struct({"id": text, "arguments": text})),
        "verified": pa.list_(pa.bool_()),
    }
    turns = pa.list_(pa.struct({"role": text, "content": text}))
    chain = dict.fromkeys(("seed_instruction", "seed_input", "instruction", "rewrite", "edit", "response"), text)
    outcome = {"accepted": pa.bool_(), "reason": text, "error": text}
    columns = {
        "default": {"prompt": turns, "completion": turns, **shared},
        "trajectories": {**shared, **chain, **outcome},
    }
    return {config: _with_metadata(pa.schema(types)) for config, types in columns.items()}


def features() -> dict[str, "Features"]:
    """Column types of both configs, as `load_dataset` returns them."""
    from datasets import Features

    return {config: Features.from_arrow_schema(schema) for config, schema in schemas().items()}


def _with_metadata(schema: "pa.Schema") -> "pa.Schema":
    info = {"info": {"features": {field.name: _feature(field.type) for field in schema}}}
    return schema.with_metadata({"huggingface": json.dumps(info)})


def _feature(type: "pa.DataType") -> dict[str, Any]:
    """An Arrow type the way `datasets` writes it down."""
    import pyarrow as pa

    if pa.types.is_list(type):
        return {"feature": _feature(type.value_type), "_type": "List"}
    if pa.types.is_struct(type):
        return {field.name: _feature(field.type) for field in type}
    return {"dtype": str(type), "_type": "Value"}


def default_row(example: Example) -> dict[str, Any]:
    """One row of config `default`."""
    candidate = example.candidate
    return {
        "prompt": [{"role": "user", "content": candidate.transition.rewrite}],
        "completion": [{"role": "assistant", "content": candidate.response}],
        **_provenance(candidate),
    }


def trajectory_row(result: Example | Rejection) -> dict[str, Any]:
    """One row of config `trajectories`."""
    candidate = result.candidate
    return {
        **_provenance(candidate),
        "seed_instruction": candidate.seed.instruction,
        "seed_input": candidate.seed.input,
        "instruction": candidate.transition.instruction,
        "rewrite": candidate.transition.rewrite,
        "edit": candidate.transition.edit,
        "response": candidate.response,
        "accepted": isinstance(result, Example),
        "reason": result.reason if isinstance(result, Rejection) else None,
        "error": candidate.transition.failure and public_text(candidate.transition.failure),
    }


def _provenance(candidate: Candidate) -> dict[str, Any]:
    transition = candidate.transition
    calls = dict(candidate.calls)
    return {
        "id": candidate.id,
        "seed_id": candidate.seed.id,
        "parent_id": candidate.parent_id,
        "step": candidate.step,
        "operation": transition.operation,
        "operations": list(candidate.operations),
        "verdict": transition.review.verdict,
        "violations": list(transition.review.violations),
        "reviewer": public_model(transition.review.reviewer),
        "rewriter": public_model(transition.rewriter),
        "responder": public_model(candidate.responder),
        "calls": {kind: calls.get(kind, 0) for kind in CallKind},
        "verifiers": [{"id": one.id, "arguments": one.arguments} for one in transition.verifiers],
        "verified": list(candidate.verified),
    }


class DatasetWriter:
    """Writes results to parquet shards as they come, and makes them a dataset's folder once they are all there.

        with DatasetWriter(folder) as writer:
            for results in evolver.evolve(seeds):
                writer.write(results)
            writer.finish(card)

    Until `finish` all files are in `folder/.writing`, so that a folder whose run was killed never looks whole; the
    next writer starts over. Where row groups and shards end depends on the rows alone. Memory holds one row group for
    each split of each config.

    Args:
        test_seeds: Ids of the seeds whose rows make up split `test`.
        group_rows, group_size: Rows, or characters of text, that end a row group.
        shard_size: Characters of text that end a file.

    Raises:
        OSError: The folder can't be written (disk full, read-only).
    """

    def __init__(
        self,
        folder: str | Path,
        test_seeds: Container[str] = frozenset(),
        group_rows: int = 1_000,
        group_size: int = 2**23,
        shard_size: int = 2**28,
    ):
        import pyarrow.parquet  # noqa: F401 (now, and not while answers wait)

        self.folder, self.test_seeds = Path(folder), test_seeds
        self._limits = group_rows, group_size, shard_size
        self._draft = self.folder / ".writing"
        self._tables: dict[tuple[str, str], _Table] = {}
        shutil.rmtree(self._draft, ignore_errors=True)
        self._draft.mkdir(parents=True)

    def write(self, results: Iterable[Example | Rejection]) -> None:
        """Add the results of one seed, or of several."""
        for result in results:
            split = "test" if result.candidate.seed.id in self.test_seeds else "train"
            size = _text_size(result.candidate)
            self._table("trajectories", split).add(trajectory_row(result), size)
            if isinstance(result, Example):
                self._table("default", split).add(default_row(result), size)

    def finish(self, card: Callable[[list[dict[str, Any]]], str]) -> None:
        """Close the shards, write README.md, and replace the files of an earlier run.

        A split without rows has no file, since `load_dataset` can't read one. A dataset without any row gets an empty
        file, so that `load_dataset` reports that, and loads nothing else as rows.

        Args:
            card: Function from the `configs` entry of the card's YAML (the files of each split) to the text of
                README.md.
        """
        if not any(config == "default" for config, _ in self._tables):
            self._table("default", "train")
        files = {place: table.finish() for place, table in self._tables.items()}
        (self._draft / "README.md").write_text(card(_configs(files)), encoding="utf-8")
        for part in (*CONFIGS.values(), "README.md"):
            if (self._draft / part).exists():
                _replace(self._draft / part, self.folder / part)
        self._draft.rmdir()
        (self.folder / NOT_ROWS).unlink(missing_ok=True)

    def __enter__(self) -> "DatasetWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        """Without `finish`, delete what was written so far: a full disk needs room."""
        for table in self._tables.values():
            table.abandon()
        shutil.rmtree(self._draft, ignore_errors=True)

    def _table(self, config: str, split: str) -> "_Table":
        if (config, split) not in self._tables:
            folder = self._draft / CONFIGS[config]
            self._tables[config, split] = _Table(folder, split, schemas()[config], *self._limits)
        return self._tables[config, split]


class _Table:
    """One split of one config on its way to disk."""

    def __init__(
        self, folder: Path, split: str, schema: "pa.Schema", group_rows: int, group_size: int, shard_size: int
    ):
        self.folder, self.split, self.schema = folder, split, schema
        self.group_rows, self.group_size, self.shard_size = group_rows, group_size, shard_size
        self._rows: list[dict[str, Any]] = []
        self._in_group = self._in_shard = 0
        self._shards: list[Path] = []
        self._writer: pq.ParquetWriter | None = None

    def add(self, row: dict[str, Any], size: int) -> None:
        """Take a row whose texts hold `size` characters."""
        self._rows.append(row)
        self._in_group += size
        if len(self._rows) >= self.group_rows or self._in_group >= self.group_size:
            self._end_group()
        if self._in_shard >= self.shard_size:
            self._end_shard()

    def finish(self) -> list[str]:
        """Write what is left; returns the shards' paths within the dataset's folder."""
        if self._rows:
            self._end_group()
        elif not self._shards:
            self._open()
        self._end_shard()
        count = len(self._shards)
        named = [name_by_content(shard, self.split, number, count) for number, shard in enumerate(self._shards)]
        return [f"{self.folder.name}/{shard.name}" for shard in named]

    def abandon(self) -> None:
        """Let go of the file that is open, if any."""
        writer, self._writer = self._writer, None
        if writer is not None:
            # A full disk has no room for the footer either.
            with suppress(OSError):
                writer.close()

    def _open(self) -> "pq.ParquetWriter":
        """The writer of the shard that is open, or of the next one."""
        import pyarrow.parquet as pq

        if self._writer is None:
            self.folder.mkdir(exist_ok=True)
            self._shards.append(self.folder / f"{self.split}-{len(self._shards)}.part")
            self._writer = pq.ParquetWriter(self._shards[-1], self.schema)
        return self._writer

    def _end_group(self) -> None:
        import pyarrow as pa

        columns = [_array([row[field.name] for row in self._rows], field.type) for field in self.schema]
        self._open().write_table(pa.Table.from_arrays(columns, schema=self.schema))
        self._in_shard += self._in_group
        self._rows, self._in_group = [], 0

    def _end_shard(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer, self._in_shard = None, 0


def name_by_content(file: Path, split: str, number: int = 0, count: int = 1) -> Path:
    """Rename a finished Parquet file as one of a split's `count` files; every folder we write has such names.

    The names hold a hash of the content: `load_dataset` caches a local folder by its name and its card's YAML alone,
    and would return the rows of another folder with that name.
    """
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, lambda: hashlib.blake2b(digest_size=8)).hexdigest()
    return file.rename(file.with_name(f"{split}-{number:05}-of-{count:05}-{digest}.parquet"))


def _array(values: Sequence[Any], type: "pa.DataType") -> "pa.Array":
    """Python values as an Arrow array.

    Not by `pa.array`, whose first call imports pandas: up to a second while answers wait, and 40 MB.

    Args:
        values: None is a null, except in a list or a struct.

    Raises:
        TypeError: A column of this type can't be written, or a value is of another type.
    """
    import pyarrow as pa

    if pa.types.is_string(type):
        builder = pa.lib.StringBuilder()
        builder.append_values(values)
        return builder.finish()
    if pa.types.is_list(type):
        ends = _array(list(accumulate(map(len, values), initial=0)), pa.int32())
        return pa.ListArray.from_arrays(ends, _array(list(chain(*values)), type.value_type), type=type)
    if pa.types.is_struct(type):
        parts = [_array([value[field.name] for value in values], field.type) for field in type]
        return pa.StructArray.from_arrays(parts, fields=list(type))
    present = [value is not None for value in values]
    nulls = None if all(present) else pa.py_buffer(_bits(present))
    return pa.Array.from_buffers(type, len(values), [nulls, pa.py_buffer(_numbers(values, type))])


def _numbers(values: Sequence[Any], type: "pa.DataType") -> "np.ndarray":
    """The data buffer of a column of truth values or numbers; a null has 0 there."""
    import numpy as np
    import pyarrow as pa

    if pa.types.is_boolean(type):
        return _bits(values)
    filled = [0 if value is None else value for value in values]
    if pa.types.is_integer(type):
        # Without `index`, numpy would cut 1.5 to 1.
        return np.array([index(value) for value in filled], type.to_pandas_dtype())
    if pa.types.is_floating(type):
        return np.array(filled, type.to_pandas_dtype())
    raise TypeError(f"A column of type {type} can't be written; use strings, truth values, numbers, lists or structs.")


def _bits(values: Sequence[Any]) -> "np.ndarray":
    import numpy as np

    return np.packbits(np.array(values, bool), bitorder="little")


def _text_size(candidate: Candidate) -> int:
    transition = candidate.transition
    texts = candidate.seed.text, transition.instruction, transition.rewrite, candidate.response
    return sum(map(len, texts))


def _configs(files: dict[tuple[str, str], list[str]]) -> list[dict[str, Any]]:
    """The `configs` entry of the card's YAML."""
    entries = []
    for config in CONFIGS:
        splits = [(split, files[config, split]) for split in SPLITS if (config, split) in files]
        listed = [{"split": split, "path": names[0] if len(names) == 1 else names} for split, names in splits]
        if listed:
            entries.append({"config_name": config, "data_files": listed, "default": config == "default"})
    return entries


def _replace(source: Path, target: Path) -> None:
    if target.is_dir():
        shutil.rmtree(target)
    source.replace(target)
