"""Rows of fine-tuning: in go datasets, out come checked prompt/completion rows, mixed and split."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Value, concatenate_datasets, load_dataset

from ..errors import UserError, did_you_mean
from ..loading import loading
from ..paths import folder_cache

ROLES = ("system", "user", "assistant")
_MESSAGES = [{"role": Value("string"), "content": Value("string")}]
_FEATURES = Features({"prompt": _MESSAGES, "completion": _MESSAGES})


def check_sft_dataset(dataset: Dataset) -> Dataset:
    """The `prompt` and `completion` columns of `dataset`; the others are dropped, so that no provenance is trained on.

    In a dataset with `messages` and without `completion`, the last message becomes the completion.

    Raises:
        UserError: A column is missing, there are no rows, a cell is no list of messages with a known role and a text,
            or a completion does not end with the assistant.
    """
    if "messages" in dataset.column_names and "completion" not in dataset.column_names:
        dataset = _split_conversations(dataset)
    for column in ("prompt", "completion"):
        if column not in dataset.column_names:
            raise UserError(
                f"The dataset has no column {column!r}, only {', '.join(dataset.column_names)}; "
                "rename the columns, or pick another one with dataset_config."
            )
    dataset = dataset.select_columns(["prompt", "completion"])
    if not len(dataset):
        raise UserError("The dataset has no rows; training needs at least two.")
    for number, row in enumerate(dataset):
        for column, messages in row.items():
            _check_messages(messages, f"Row {number}, column {column!r}")
        if row["completion"][-1]["role"] != "assistant":
            raise UserError(f"Row {number}, column 'completion', must end with a message of role 'assistant'.")
    return dataset if dataset.features == _FEATURES else dataset.map(_only_text, features=_FEATURES)


def _split_conversations(dataset: Dataset) -> Dataset:
    for number, row in enumerate(dataset.select_columns(["messages"])):
        _check_messages(row["messages"], f"Row {number}, column 'messages'")
        if len(row["messages"]) < 2:
            raise UserError(f"Row {number}, column 'messages', holds one message; wanted a question and its answer.")
    return dataset.map(
        lambda row: {"prompt": row["messages"][:-1], "completion": row["messages"][-1:]},
        remove_columns=dataset.column_names,
    )


def _only_text(row: dict) -> dict:
    """Messages without further keys, so that datasets of several makers fit together."""
    return {column: [{"role": m["role"], "content": m["content"]} for m in row[column]] for column in row}


def mix_datasets(datasets: Sequence[Dataset], fractions: Sequence[float | None] = ()) -> Dataset:
    """Checked datasets joined in order; with `fractions`, the first rows of each, in these shares of the whole.

    The mixture is as large as the shares allow without repeating a row, as in TRL's `get_dataset`.

    Raises:
        UserError: Some fractions are given and some are not, or they are not positive.
    """
    given = [fraction for fraction in fractions if fraction is not None]
    if not given:
        return concatenate_datasets(list(datasets))
    if len(given) < len(datasets) or min(given) <= 0:
        raise UserError(
            f"The fractions of the mixture are {list(fractions)}; give each dataset a positive one, or none."
        )
    shares = [fraction / sum(given) for fraction in given]
    total = min(len(dataset) / share for dataset, share in zip(datasets, shares))
    return concatenate_datasets(
        [dataset.select(range(round(share * total))) for dataset, share in zip(datasets, shares)]
    )


def _check_messages(messages: object, where: str) -> None:
    wanted = "wanted a list of {'role': ..., 'content': ...} messages with text in both"
    if not isinstance(messages, list) or not messages:
        raise UserError(f"{where}, holds {_kind(messages)}; {wanted}.")
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise UserError(f"{where}, holds a message without text content; {wanted}.")
        if message.get("role") not in ROLES:
            raise UserError(f"{where}, has role {message.get('role')!r}; known roles are {', '.join(ROLES)}.")


def _kind(value: object) -> str:
    return "an empty list" if isinstance(value, list) else type(value).__name__


def hold_out(dataset: Dataset, seed: int, share: float = 0.05) -> tuple[Dataset, Dataset]:
    """Train and test rows: a `share` of the rows (at least one), picked by a hash of `seed` and row number.

    Raises:
        UserError: There are fewer than two rows.
    """
    if len(dataset) < 2:
        raise UserError(f"The dataset has {len(dataset)} row and no test split; holding rows out needs at least two.")
    ranked = sorted(range(len(dataset)), key=lambda row: hashlib.blake2b(f"{seed}:{row}".encode()).digest())
    count = max(1, round(share * len(dataset)))
    return dataset.select(sorted(ranked[count:])), dataset.select(sorted(ranked[:count]))


def chat_texts(dataset: Dataset) -> Iterator[str]:
    """The text of every message of a checked dataset, in order."""
    for row in dataset:
        for message in row["prompt"] + row["completion"]:
            yield message["content"]


def load_source(name: str, config: str | None = None, **options: Any) -> Any:
    """`load_dataset` for a folder or Hub id, with errors of one line."""
    with loading("dataset", name):
        cache_dir = folder_cache(name) if Path(name).is_dir() else None
        return load_dataset(name, config, cache_dir=cache_dir, **options)


def load_mixture(parts: Sequence[dict[str, Any]]) -> Dataset:
    """The rows of several datasets, listed as in TRL's `DatasetMixtureConfig`."""
    from trl.scripts.utils import DatasetConfig

    loaded, fractions = [], []
    for part in parts:
        known = [one.name for one in fields(DatasetConfig)]
        if "path" not in part or set(part) - set(known):
            hint = did_you_mean(" ".join(set(part) - set(known)), known)
            raise UserError(
                f"Can't read {part} of the mixture; it needs path and may have {', '.join(known[1:])}{hint}"
            )
        source = DatasetConfig(**part)
        files = {"data_dir": source.data_dir, "data_files": source.data_files}
        rows = load_source(source.path, source.name, split=source.split, **files)
        try:
            loaded.append(check_sft_dataset(rows.select_columns(source.columns) if source.columns else rows))
        except ValueError as error:
            raise UserError(f"Dataset {source.path!r} of the mixture: {error}") from error
        fractions.append(source.fraction)
    return mix_datasets(loaded, fractions)


def rows_digest(*datasets: Dataset) -> str:
    """A hash of all texts, to check whether a folder's run used the same rows."""
    digest = hashlib.blake2b(digest_size=8)
    for dataset in datasets:
        for text in chat_texts(dataset):
            digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()
