"""The record of a run: in go rows, seeds and weights, out comes lineage.json, which shows if a row was trained on.

The file is never pushed: with its hashes, anyone who has a text can find out whether it was trained on.
"""

import hashlib
import json
import unicodedata
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .. import __version__
from ..commands.arguments import seeds_digest
from ..errors import UserError
from ..redaction import shown
from ..runs import write_json
from ..types import Seed

LINEAGE_FILE = "lineage.json"
KINDS = ("dataset", "split", "policy", "model")
LIBRARIES = ("torch", "transformers", "trl", "peft", "datasets")
_KEY = 8  # Bytes: between a million rows and a million others, a false match has a probability of 1 in 20 million.


@dataclass(frozen=True)
class RowSet:
    """Which rows: hashes of whole rows (`prompt` and `completion`), and of their prompts alone."""

    rows: frozenset[bytes]
    prompts: frozenset[bytes]

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> "RowSet":
        """The set of checked rows, each with the messages `prompt` and `completion`."""
        keys = [(row_key(row), prompt_key(row)) for row in rows]
        return cls(frozenset(row for row, _ in keys), frozenset(prompt for _, prompt in keys))

    def __or__(self, other: "RowSet") -> "RowSet":
        return RowSet(self.rows | other.rows, self.prompts | other.prompts)

    @property
    def fingerprint(self) -> str:
        """A hash of all rows that does not depend on their order."""
        return hashlib.blake2b(b"".join(sorted(self.rows)), digest_size=_KEY).hexdigest()

    def to_json(self) -> dict[str, str]:
        """Sorted hashes, which do not reveal the order of the rows."""
        return {name: b64encode(b"".join(sorted(keys))).decode() for name, keys in vars(self).items()}

    @classmethod
    def from_json(cls, packed: Mapping[str, str]) -> "RowSet":
        """The set that `to_json` wrote."""
        return cls(*(_unpacked(packed[name]) for name in ("rows", "prompts")))


def _unpacked(text: str) -> frozenset[bytes]:
    keys = b64decode(text)
    return frozenset(keys[at : at + _KEY] for at in range(0, len(keys), _KEY))


def row_key(row: Mapping[str, Any]) -> bytes:
    """The hash of a row's text: prompt and completion."""
    return _key([[message["role"], message["content"]] for message in [*row["prompt"], *row["completion"]]])


def prompt_key(row: Mapping[str, Any]) -> bytes:
    """The hash of a row's prompt, the same for prompts that differ in case, spacing or form of characters alone."""
    return _key([[message["role"], _plain(message["content"])] for message in row["prompt"]])


def _plain(text: str) -> str:
    """
    >>> _plain("  Name a\\nBIRD. ")
    'name a bird.'
    """
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _key(content: Sequence) -> bytes:
    # ASCII escapes: half a surrogate pair, which a model can write, has no UTF-8.
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=_KEY).digest()


# -- the record


def write_lineage(folder: str | Path, kind: str, facts: Mapping[str, Any]) -> None:
    """Write the record of a folder, in place of an earlier one."""
    assert kind in KINDS, kind
    write_json(Path(folder) / LINEAGE_FILE, {"version": 1, "kind": kind, **facts})


def read_lineage(folder: str | Path, kind: str) -> dict[str, Any] | None:
    """The record in `folder`; None where there is none of this kind (a Hub id, or a folder of another tool).

    Raises:
        UserError: The file is there and can't be read.
    """
    path = Path(folder) / LINEAGE_FILE
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        return known if known["kind"] == kind else None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}); run again what made the folder.") from error


def model_lineage(folder: str | Path) -> dict[str, Any] | None:
    """The record of a model's training, with `trained_on` as a `RowSet`; None where there is none.

    Raises:
        UserError: The record is damaged, or of other weights than those in the folder.
    """
    known = read_lineage(folder, "model")
    if known is None:
        return None
    if known["weights"] != weights_digest(folder):
        raise UserError(
            f"{Path(folder) / LINEAGE_FILE} tells of other weights than those in the folder; train the model again, "
            "or remove that file, and nothing is known of what these weights were trained on."
        )
    return {**known, "trained_on": RowSet.from_json(known["trained_on"])}


def seeds_facts(
    source: str | None,
    train: Sequence[Seed],
    test: Sequence[Seed],
    test_size: float | None,
    left_out: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """What a record says about seeds.

    Args:
        source: File, folder or Hub id; None for the built-in set, "" where it is unknown.
        test_size: Share of the seeds that `split_seeds` held out; None where something else split them.
        left_out: Rows of the source that are no seeds, by problem.
    """
    return {
        "source": source,
        "number": len(train) + len(test),
        "digest": seeds_digest([*train, *test]),
        "test_size": test_size,
        "train": [seed.id for seed in train],
        "test": [seed.id for seed in test],
        **({"left_out": dict(left_out)} if left_out else {}),
    }


def versions() -> dict[str, str]:
    """Versions of the libraries that a dataset, policy or model depends on."""
    return {name: version(name) for name in LIBRARIES} | {"teamsrl-hf": __version__}


# -- weights


def identity(name: str, revision: str | None = None) -> dict[str, str | None]:
    """A model's name with a hash of its weights, since the name may stand for others later."""
    return {"name": str(name), "revision": revision, "weights": weights_digest(name, revision)}


def weights_digest(name: str | Path, revision: str | None = None) -> str | None:
    """SHA-256 of the weights of a model, adapter or policy; None where there are none in safetensors format.

    Args:
        name: Folder or Hub id. Of one file it is the hash that the Hub shows; of several, a hash of their hashes.
    """
    for file in ("adapter_model.safetensors", "model.safetensors", "chooser.safetensors"):
        if path := _found(name, file, revision):
            return _sha256(path)
    index = _found(name, "model.safetensors.index.json", revision)
    if index is None:
        return None
    try:
        shards = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{index} is no index of weights; fetch or save the model again.") from error
    found = {shard: path for shard in shards if (path := _found(name, shard, revision)) is not None}
    missing = [shard for shard in shards if shard not in found]
    if missing:
        raise UserError(f"{str(name)!r} lacks {missing[0]}, which its index names; fetch or save the model again.")
    return hashlib.sha256("".join(f"{shard} {_sha256(path)}\n" for shard, path in found.items()).encode()).hexdigest()


def _found(name: str | Path, file: str, revision: str | None) -> Path | None:
    if Path(name).exists():
        path = Path(name) / file
        return path if path.is_file() else None
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(str(name), file, revision=revision))
    except LocalEntryNotFoundError as error:
        if constants.HF_HUB_OFFLINE:  # Then what is not in the cache is not there.
            return None
        raise UserError(f"Can't reach the Hub for {str(name)!r}, no folder here: {shown(error)[:400]}") from error
    except EntryNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"Can't read {str(name)!r} (a folder or a Hub id): {' '.join(str(error).split())}") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
