"""Files to push: in come a folder and a repository's tree, out come the files to send, or a refusal.

Each kind of folder has a fixed list of files that a push sends. The push records them in the repository, so that the
next push can detect edits from the repository alone.
"""

import hashlib
import json
import mmap
import os
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from fnmatch import fnmatchcase
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

from ..errors import UserError
from ..redaction import shown
from ..runs import read_run
from ..types import POLICY_TYPE

MARKER = ".teamsrl.json"
# The Hub writes this file itself, so it is neither ours to delete nor an edit.
THEIRS = ".gitattributes"
README = "README.md"
INDEX = "model.safetensors.index.json"

RepoType = Literal["dataset", "model"]
KINDS: dict[str, RepoType] = {"dataset": "dataset", "policy": "model", "adapter": "model", "model": "model"}

_SHARD = f"-{'[0-9]' * 5}-of-{'[0-9]' * 5}"
_TEXTS = (README, "LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE")
_WEIGHTS = ("model.safetensors", f"model{_SHARD}.safetensors", INDEX)
_ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
# As `save_pretrained` of tokenizers and processors names them.
_TOKENIZER = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt", "bpe.codes", "normalizer.json", "tekken.json"),
    *("tokenizer.model", "tiktoken.model", "spiece.model", "spm.model", "sentencepiece.model"),
    *("sentencepiece.bpe.model", "chat_template.jinja", "additional_chat_templates/*.jinja"),
    *("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json"),
)
# What `sft_card` and `audit` draw, and what `eval` writes for the Hub to show.
_MEASURED = ("loss.png", "roc.png", ".eval_results/*.yaml")

# Paths, part by part; `*` stands for a name without a slash.
ALLOWED = {
    "dataset": (
        *(*_TEXTS, "data/*.parquet", "trajectories/*.parquet", "report.html"),
        # The split that `audit` makes.
        *("train.parquet", "train-*.parquet", "test.parquet", "test-*.parquet"),
        *(f"plots/{name}.png" for name in ("operations", "lengths", "novelty")),
    ),
    "policy": (*_TEXTS, "config.json", *_WEIGHTS, *_ADAPTER, *_TOKENIZER, "plots/reward.png"),
    "adapter": (*_TEXTS, *_ADAPTER, *_TOKENIZER, *_MEASURED),
    "model": (*_TEXTS, "config.json", "generation_config.json", *_WEIGHTS, *_TOKENIZER, *_MEASURED),
}
# Files that must exist, so that no half-written folder is pushed.
_CONTENT = {"dataset": "*.parquet", "policy": "*.safetensors", "adapter": "*.safetensors", "model": "*.safetensors"}


@dataclass(frozen=True)
class File:
    """Content to send, and the two hashes under which a tree may list it."""

    content: Path | bytes
    sha256: str
    git: str

    @classmethod
    def of(cls, content: Path | bytes) -> "File":
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        git = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
        with BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256")
            file.seek(0)
            return cls(content, sha256.hexdigest(), hashlib.file_digest(file, lambda: git).hexdigest())

    @property
    def hashes(self) -> Set[str]:
        return {self.sha256, self.git}


@dataclass(frozen=True)
class Folder:
    """A folder, its kind, and the files that a push may send, by path in the repository."""

    path: Path
    kind: str
    files: Mapping[str, File]
    left_out: Sequence[str] = ()

    @property
    def repo_type(self) -> RepoType:
        return KINDS[self.kind]


def open_folder(path: str | Path, repo_type: str | None = None, card: bytes | None = None) -> Folder:
    """Determine the kind of a folder, the files to send and those to leave out.

    The folder itself may be a link; links in it are not followed.

    Args:
        repo_type: "dataset" or "model", if the folder may be either.
        card: README.md, if the folder has none.

    Raises:
        UserError: The folder can't be pushed, has no card, or its run is not finished.
    """
    path = Path(path)
    found = dict(_walk(path))
    plain = {name: file for name, file in found.items() if file is not None}
    kind = _kind(path, plain, repo_type)
    if (run := read_run(path)) is not None and run["summary"] is None:
        raise UserError(f"The run in {str(path)!r} is not finished; run its command again, then push.")
    sent = {name: file for name, file in plain.items() if _allowed(name, kind)}
    left_out = sorted(found.keys() - sent.keys() - {MARKER})
    if not any(fnmatchcase(name, _CONTENT[kind]) for name in sent):
        raise UserError(
            f"Folder {str(path)!r} holds no {_CONTENT[kind]} that could be sent; give the folder that the run wrote "
            "(links are not followed)."
        )
    contents: dict[str, Path | bytes] = {**({} if card is None else {README: card}), **sent}
    if README not in contents:
        raise UserError(f"Folder {str(path)!r} does not exist or holds no {README}; write the card first.")
    return Folder(path, kind, {name: File.of(content) for name, content in contents.items()}, left_out)


def require(folder: str | Path, *patterns: str) -> None:
    """UserError unless the folder holds a file of each pattern."""
    for pattern in patterns:
        if not any(Path(folder).glob(pattern)):
            raise UserError(f"Folder {str(folder)!r} holds no {pattern}; give the folder that the run wrote.")


def _walk(folder: Path) -> Iterator[tuple[str, Path | None]]:
    """Name of each entry below a folder, and its path; None instead of the path unless it is a regular file."""
    for place, folders, files in os.walk(folder):
        here = Path(place)
        for path in sorted(here / name for name in (*files, *folders)):
            mode = path.lstat().st_mode
            if not stat.S_ISDIR(mode):
                yield path.relative_to(folder).as_posix(), path if stat.S_ISREG(mode) else None


def _allowed(name: str, kind: str) -> bool:
    parts = name.split("/")
    patterns = (pattern.split("/") for pattern in ALLOWED[kind])
    return any(len(parts) == len(pattern) and all(map(fnmatchcase, parts, pattern)) for pattern in patterns)


def _kind(folder: Path, names: Collection[str], repo_type: str | None) -> str:
    if repo_type not in (None, *KINDS.values()):
        raise UserError(f"repo_type is {repo_type!r}; it must be 'dataset' or 'model'.")
    if not folder.is_dir():
        raise UserError(f"Folder {str(folder)!r} does not exist; give the folder that the run wrote.")
    kinds = ["dataset"] if any(name.endswith(".parquet") and _allowed(name, "dataset") for name in names) else []
    if "config.json" in names and read_json(folder / "config.json").get("model_type") == POLICY_TYPE:
        kinds.append("policy")
    elif "adapter_config.json" in names or "config.json" in names:
        kinds.append("adapter" if "adapter_config.json" in names else "model")
    fitting = [kind for kind in kinds if repo_type in (None, KINDS[kind])]
    if len(fitting) > 1:
        raise UserError(f"Folder {str(folder)!r} may hold a dataset or a model; say which with --repo_type.")
    if not fitting:
        raise UserError(
            f"Folder {str(folder)!r} holds no {repo_type or 'dataset and no model'}: of rows (data/*.parquet), "
            "config.json and adapter_config.json there is nothing; give the folder that the run wrote (links are not "
            "followed)."
        )
    return fitting[0]


def read_json(path: Path) -> dict[str, Any]:
    """A mapping from a JSON file; UserError when it holds none."""
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise UserError(f"File {str(path)!r} is damaged: it holds no JSON mapping; write the folder again.")
    return content


def refuse_secret(files: Mapping[str, File], secrets: Set[str]) -> None:
    """UserError when a file holds one of the tokens in use."""
    for name, file in files.items():
        if any(_holds(file.content, secret.encode()) for secret in secrets):
            raise UserError(f"{shown(name)} holds the Hub token in use, so nothing was sent; remove it from the file.")


def _holds(content: Path | bytes, secret: bytes) -> bool:
    if isinstance(content, bytes) or not content.stat().st_size:  # An empty file can't be mapped.
        return isinstance(content, bytes) and secret in content
    with content.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        return mapped.find(secret) >= 0


@dataclass(frozen=True)
class Record:
    """The last push by the marker of a repository: the kind of folder, the account, and the files."""

    kind: str
    account: str
    files: Mapping[str, Set[str]]

    def tells(self, files: Mapping[str, File]) -> bool:
        """Whether it lists exactly these files."""
        return self.files == {name: file.hashes for name, file in files.items()}


def write_marker(kind: str, account: str, files: Mapping[str, File]) -> bytes:
    """The marker's content, a record of the push that carries it."""
    hashes = {name: {"sha256": file.sha256, "git": file.git} for name, file in sorted(files.items())}
    content = {"project": "teamsrl-hf", "version": 2, "kind": kind, "account": account, "files": hashes}
    return json.dumps(content, indent=1).encode() + b"\n"


def read_marker(content: bytes | None) -> Record | None:
    """The record in a marker; None if this version can't read it."""
    try:
        found = json.loads(content or b"")
        if (found["project"], found["version"]) != ("teamsrl-hf", 2):
            return None
        files = {str(name): frozenset(map(str, hashes.values())) for name, hashes in found["files"].items()}
        return Record(str(found["kind"]), str(found["account"]), files)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def differing(files: Mapping[str, File], tree: Mapping[str, str]) -> list[str]:
    """Paths to add, to replace, and (those that `files` lacks) to delete."""
    changed = [name for name, file in files.items() if tree.get(name) not in file.hashes]
    return changed + sorted(tree.keys() - files.keys() - {THEIRS})


def objection(
    record: Record | None, kind: str, account: str, tree: Mapping[str, str], files: Mapping[str, File]
) -> str | None:
    """Why the push must not make `tree` equal to `files`, and which content it would lose; None if it may.

    A file is lost if the last push did not leave it like this and this push would not either.

    Args:
        record: The record in the tree's marker.
        tree: Path -> hash of every file of the repository.
    """
    edited = "was changed on the Hub since the last push (download what changed into the folder to keep it)"
    why = _disowned(record, kind, account, MARKER in tree)
    written = {} if why or record is None else record.files
    names = (tree.keys() | written.keys()) - {MARKER, THEIRS}
    lost = sorted(name for name in names if _lost(tree.get(name), written.get(name), files.get(name)))
    if not why and not lost:
        return None
    given = f"; the push would replace, delete or put back {_listed(lost)}" if lost else ""
    return (why or edited) + given


def _lost(there: str | None, written: Set[str] | None, file: File | None) -> bool:
    kept = there is None if written is None else there in written
    made = there is None if file is None else there in file.hashes
    return not kept and not made


def _disowned(record: Record | None, kind: str, account: str, marked: bool) -> str | None:
    if record is None:
        unread = f"carries a {MARKER} without a record of files (of an earlier version, or edited)"
        return unread if marked else "holds files that this project did not write"
    if record.kind != kind:
        return f"holds a push of kind {shown(record.kind)}, not {kind}"
    if record.account != account:
        return f"was last pushed by {shown(record.account)}, not by {account}"
    return None


def _listed(names: Sequence[str], most: int = 20) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(shown, names[:most])) + more
