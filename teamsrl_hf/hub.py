"""A finished folder goes to the Hub: in come folder and repository id, out comes the URL of the one commit holding it.

The routine makes the repository equal to the folder, so any call may be repeated: after a lost answer, a kill or a
race it sends what is still missing, and makes no commit when nothing is.
"""

import hashlib
import json
import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, set_client_factory
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import _http, httpx, parse_ratelimit_headers

logger = logging.getLogger(__name__)

MARKER = ".teamsrl.json"
# `version` is the marker's own: its bytes never change, so the hash in the tree tells whether a repository is ours.
MARKER_CONTENT = json.dumps({"project": "teamsrl-hf", "version": 1}).encode() + b"\n"

TEXTS = ("README.md", "LICENSE*", "*.png", "*.json")
ALLOWED = {
    "dataset": (*TEXTS, "*.parquet"),
    "model": (*TEXTS, "*.safetensors", "*.jinja", "*.model", "merges.txt", "vocab.txt"),
}
# Names that match a pattern above and yet tell of the machine, the spending or the optimizer.
PRIVATE = (".*", "run.json", "trainer_state.json", "optimizer*", "checkpoint-*", "global_step*")

TIME_LIMIT = 120.0


def push_folder(
    folder: str | Path,
    repo_id: str,
    *,
    repo_type: str,
    commit_message: str,
    private: bool = True,
    revision: str | None = None,
    overwrite: bool = False,
    patience: float = 600.0,
    api: HfApi | None = None,
) -> str:
    """Make a Hub repository equal to `folder` by at most one commit, and return the URL of the commit that holds it.

    Sent is what matches `ALLOWED` and has no part of its path in `PRIVATE`: no pickles (`.bin`, `.pt`, `.pkl`), no
    ledger (`.sqlite`), no `.git`; what is left out is logged. The same commit deletes what the folder lacks (except
    `.gitattributes`) and carries `.teamsrl.json`, which marks the repository as this project's.

    Args:
        folder: Holds at least README.md.
        repo_type: "dataset" or "model".
        private: Visibility of a new repository. That of an existing one is never changed.
        revision: Branch to commit to, made when missing; the main branch by default.
        overwrite: Replace all content of a repository that carries no marker.
        patience: Seconds to go on trying while the Hub is away or busy, or somebody else commits.
        api: Where to push and as whom; by default as the environment says.

    Raises:
        ValueError: The folder is none to push, the repository is not ours, or it is public although `private`.
        RuntimeError: The Hub refused, or stayed away for longer than `patience`. The folder is intact: call again.
    """
    files = _collect(Path(folder), repo_type)
    api = api or HfApi(library_name="teamsrl-hf")
    at = {"repo_id": repo_id, "repo_type": repo_type}
    deadline = time.monotonic() + patience

    def level() -> str:
        head, tree = _open(api, at, revision, private, overwrite)
        differing = _differing(files, tree)
        if not differing:
            return head
        send = [CommitOperationAdd(f, files[f][0]) if f in files else CommitOperationDelete(f) for f in differing]
        options = {"commit_message": commit_message, "revision": revision, "parent_commit": head}
        made = api.create_commit(**at, operations=send, **options).oid
        if wrong := _differing(files, _tree(api, at, made)):
            raise RuntimeError(f"Commit {made} in {repo_id} lacks or alters {', '.join(wrong)}. Call again.")
        return made

    with _time_limit():
        url = _persist(lambda: api.create_repo(**at, private=private, exist_ok=True), deadline, repo_id)
        if revision and not revision.startswith("refs/"):
            _persist(lambda: api.create_branch(**at, branch=revision, exist_ok=True), deadline, repo_id)
        return f"{url}/commit/{_persist(level, deadline, repo_id)}"


def push_dataset(folder: str | Path, repo_id: str, *, commit_message: str = "Upload dataset", **options) -> str:
    """`push_folder` for a folder of Parquet files; takes the same options."""
    _require(folder, "**/*.parquet")
    return push_folder(folder, repo_id, repo_type="dataset", commit_message=commit_message, **options)


def push_policy(folder: str | Path, repo_id: str, *, commit_message: str = "Upload policy", **options) -> str:
    """`push_folder` for a model saved whole by `save_pretrained`; takes the same options."""
    _require(folder, "config.json", "*.safetensors")
    return push_folder(folder, repo_id, repo_type="model", commit_message=commit_message, **options)


def push_adapter(folder: str | Path, repo_id: str, *, commit_message: str = "Upload adapter", **options) -> str:
    """`push_folder` for a PEFT adapter saved by `save_pretrained`; takes the same options."""
    _require(folder, "adapter_config.json", "adapter_model*.safetensors")
    return push_folder(folder, repo_id, repo_type="model", commit_message=commit_message, **options)


def _require(folder: str | Path, *patterns: str) -> None:
    for pattern in patterns:
        if not any(Path(folder).glob(pattern)):
            raise ValueError(f"Folder {str(folder)!r} holds no {pattern}; give the folder that the run wrote.")


def _collect(folder: Path, repo_type: str) -> dict[str, tuple[Path | bytes, set[str]]]:
    """What the repository shall hold: path in it -> content and the two hashes under which a tree may list it."""
    if repo_type not in ALLOWED:
        raise ValueError(f"repo_type is {repo_type!r}; it must be one of {', '.join(map(repr, ALLOWED))}.")
    if not (folder / "README.md").is_file():
        raise ValueError(f"Folder {str(folder)!r} does not exist or holds no README.md; write the card first.")
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    sent = {name: path for name, path in paths.items() if _allowed(name, ALLOWED[repo_type])}
    if left_out := sorted(paths.keys() - sent.keys() - {MARKER}):
        logger.warning("Left out of the push: %s", ", ".join(left_out))
    return {name: (content, _hashes(content)) for name, content in {**sent, MARKER: MARKER_CONTENT}.items()}


def _allowed(name: str, patterns: tuple[str, ...]) -> bool:
    parts = name.split("/")
    secret = any(fnmatch(part, pattern) for part in parts for pattern in PRIVATE)
    return not secret and any(fnmatch(parts[-1], pattern) for pattern in patterns)


def _hashes(content: Path | bytes) -> set[str]:
    """SHA-256, which a tree gives for large files, and git's own hash, which it gives for the others."""
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    git = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    with BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256")
        file.seek(0)
        return {sha256.hexdigest(), hashlib.file_digest(file, lambda: git).hexdigest()}


def _open(
    api: HfApi, at: dict[str, str], revision: str | None, private: bool, overwrite: bool
) -> tuple[str, dict[str, str]]:
    """The head commit and its tree; ValueError when the repository must not be written to."""
    info = api.repo_info(**at, revision=revision)
    if private and not info.private:
        raise ValueError(f"Repository {at['repo_id']} is public; make it private on the Hub, or pass private=False.")
    tree = _tree(api, at, info.sha)
    ours = tree.get(MARKER) in _hashes(MARKER_CONTENT)
    if not ours and tree.keys() - {".gitattributes"} and not overwrite:
        raise ValueError(
            f"Repository {at['repo_id']} holds files that this project did not write; take another name, "
            "or pass overwrite=True to replace them."
        )
    return info.sha, tree


def _tree(api: HfApi, at: dict[str, str], sha: str) -> dict[str, str]:
    """Path -> hash of every file of a commit."""
    entries = api.list_repo_tree(**at, revision=sha, recursive=True)
    return {e.path: e.lfs.sha256 if e.lfs else e.blob_id for e in entries if isinstance(e, RepoFile)}


def _differing(files: dict[str, tuple[Path | bytes, set[str]]], tree: dict[str, str]) -> list[str]:
    """Paths to add, to replace, and (those that `files` lacks) to delete."""
    changed = [name for name, (_, hashes) in files.items() if tree.get(name) not in hashes]
    return changed + sorted(tree.keys() - files.keys() - {".gitattributes"})


def _persist(call: Callable[[], Any], deadline: float, repo_id: str) -> Any:
    """The result of `call`, tried again after faults that pass, until `deadline` (monotonic seconds)."""
    for attempt in count():
        try:
            return call()
        except (OSError, RuntimeError, httpx.HTTPError, json.JSONDecodeError) as error:
            answer, passing = _judge(error)
            if answer is None and not passing:
                raise
            what = f"{answer.status_code} {answer.reason_phrase}" if answer is not None else type(error).__name__
            wait = _wait(answer, attempt)
            # From None: a chain would print all that the server sent, and some servers echo the request's headers.
            if not passing:
                token = answer.request.headers.get("Authorization", "").removeprefix("Bearer ")
                said = " ".join(str(error).split()).replace(token or "\0", "***")
                raise RuntimeError(f"The Hub refused the push to {repo_id}: {what}. {said}") from None
            if time.monotonic() + wait > deadline:
                raise RuntimeError(f"The Hub did not take the push to {repo_id}: {what}. Call again later.") from None
        logger.warning("The Hub did not take the push to %s: %s. Next try in %.0f s.", repo_id, what, wait)
        time.sleep(wait)


def _judge(error: BaseException | None) -> tuple[httpx.Response | None, bool]:
    """The Hub's answer behind `error`, if there was one, and whether the fault may be gone at the next try."""
    # JSONDecodeError: a gateway's HTML page where JSON was due loses its status on the way.
    while error is not None:
        if isinstance(error, HfHubHTTPError):
            status = error.response.status_code
            return error.response, status >= 500 or status in (408, 409, 412, 429)
        if isinstance(error, (httpx.TransportError, ConnectionError, TimeoutError, json.JSONDecodeError)):
            return None, not isinstance(error, OfflineModeIsEnabled)
        error = error.__cause__
    return None, False


def _wait(answer: httpx.Response | None, attempt: int) -> float:
    """Seconds: what the Hub asks for if it does, else doubling up to a minute; with jitter, so that rivals part."""
    headers = answer.headers if answer is not None else {}
    limit = parse_ratelimit_headers(headers)
    if headers.get("Retry-After", "").isdigit():
        return int(headers["Retry-After"]) + random.random()
    if limit and limit.remaining == 0:
        return limit.reset_in_seconds + random.random()
    return min(60.0, 2.0**attempt) * random.uniform(0.5, 1.0)


@contextmanager
def _time_limit() -> Iterator[None]:
    """Within, no request waits longer than `TIME_LIMIT` seconds for the next byte; by default the wait is endless."""

    def limit(request: httpx.Request) -> None:
        # Here and not on the client, since some calls (the tree's) pass timeout=None, which overrules the client.
        asked = request.extensions.get("timeout", {})
        request.extensions["timeout"] = {k: asked.get(k) or TIME_LIMIT for k in ("connect", "read", "write", "pool")}

    def factory() -> httpx.Client:
        client = before()
        client.event_hooks = {**client.event_hooks, "request": [*client.event_hooks["request"], limit]}
        return client

    before = _http._GLOBAL_CLIENT_FACTORY  # there is a public way to set it, none to read it
    set_client_factory(factory)
    try:
        yield
    finally:
        set_client_factory(before)
