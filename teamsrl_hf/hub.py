"""A finished folder goes to the Hub: in come folder and repository id, out comes the URL of the one commit holding it.

The routine makes the repository equal to the folder, so any call may be repeated: after a lost answer, a kill or a
race it sends what is still missing, and makes no commit when nothing is.
"""

import hashlib
import json
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, set_client_factory
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import _http, httpx, parse_ratelimit_headers

from .errors import UserError

logger = logging.getLogger(__name__)

MARKER = ".teamsrl.json"
# `version` is the marker's own: its bytes never change, so the hash in the tree tells whether a repository is ours.
MARKER_CONTENT = json.dumps({"project": "teamsrl-hf", "version": 1}).encode() + b"\n"

TEXTS = ("README.md", "LICENSE*", "*.png", "*.json")
ALLOWED = {
    "dataset": (*TEXTS, "*.parquet", "*.html"),
    "model": (*TEXTS, "*.safetensors", "*.jinja", "*.model", "merges.txt", "vocab.txt"),
}
# Names that match a pattern above and yet tell of the machine, the rows trained on, the spending or the optimizer.
PRIVATE = (".*", "run.json", "lineage.json", "trainer_state.json", "optimizer*", "checkpoint-*", "global_step*")

TIME_LIMIT = 120.0
# Seconds, and bytes a second: an upload by Xet that takes longer is given up and begun again without it.
UPLOAD_LIMIT, SLOWEST_UPLOAD = 120.0, 100_000


def push_folder(
    folder: str | Path,
    repo_id: str,
    *,
    repo_type: str,
    commit_message: str,
    private: bool = True,
    revision: str | None = None,
    create_pr: bool = False,
    tag: str | None = None,
    collection: str | None = None,
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
        repo_id: "user/name"; a name alone is one of the user whose token is in use.
        repo_type: "dataset" or "model".
        private: Visibility of a new repository. That of an existing one is never changed.
        revision: Branch to commit to, made when missing; the main branch by default.
        create_pr: Commit to a pull request of an existing repository, and return its URL. An open one whose title is
            `commit_message` is used again.
        tag: Name for the commit, such as "v1.0". A tag is never moved.
        collection: Title of a collection of the repository's owner, made when missing and then as private as asked,
            or the slug of one. The repository becomes one of its items.
        overwrite: Replace all content of a repository that carries no marker.
        patience: Seconds to go on trying while the Hub is away or busy, or somebody else commits.
        api: Where to push and as whom; by default as the environment says.

    Raises:
        UserError: The folder is none to push, the repository is not ours, it is public although `private`, or the tag
            names another commit.
        RuntimeError: The Hub refused, or stayed away for longer than `patience`. The folder is intact: call again.
    """
    if create_pr and (revision or tag):
        raise UserError("create_pr goes with neither revision nor tag: a pull request is a branch, merged later.")
    files = _collect(Path(folder), repo_type)
    api = api or HfApi(library_name="teamsrl-hf")
    deadline = time.monotonic() + patience

    def persist(step: Callable[..., Any], *args: Any) -> Any:
        return _persist(lambda: step(api, *args), deadline, repo_id)

    with _time_limit():
        at, url = {"repo_id": repo_id, "repo_type": repo_type}, _url(api, repo_id, repo_type)
        if create_pr:
            number = persist(_pull_request, at, commit_message)
            revision = f"refs/pr/{number}"
        else:
            made = _persist(lambda: api.create_repo(**at, private=private, exist_ok=True), deadline, repo_id)
            at, url = {**at, "repo_id": made.repo_id}, str(made)
        if revision and not revision.startswith("refs/"):
            _persist(lambda: api.create_branch(**at, branch=revision, exist_ok=True), deadline, repo_id)
        target = _Target(at, revision, private, overwrite, tag, commit_message)
        sha = persist(_level, target, files, {"xet": True})
        if tag:
            persist(_name, at, tag, sha)
        if collection:
            persist(_gather, at, collection, private)
        if create_pr:
            persist(_show, at, number)
            return f"{url}/discussions/{number}"
        return f"{url}/commit/{sha}"


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


def guess_repo_type(folder: str | Path) -> str:
    """ "dataset" for a folder with Parquet files and no weights, "model" for one with weights and no Parquet files.

    Raises:
        UserError: It is neither, or both.
    """
    if not Path(folder).is_dir():
        raise UserError(f"Folder {str(folder)!r} does not exist; give the folder that the run wrote.")
    found = [any(Path(folder).rglob(pattern)) for pattern in ("*.parquet", "*.safetensors")]
    if found[0] == found[1]:
        raise UserError(f"Folder {str(folder)!r} may hold a dataset or a model; say which with --repo_type.")
    return "dataset" if found[0] else "model"


def _require(folder: str | Path, *patterns: str) -> None:
    for pattern in patterns:
        if not any(Path(folder).glob(pattern)):
            raise UserError(f"Folder {str(folder)!r} holds no {pattern}; give the folder that the run wrote.")


def _collect(folder: Path, repo_type: str) -> dict[str, tuple[Path | bytes, set[str]]]:
    """What the repository shall hold: path in it -> content and the two hashes under which a tree may list it."""
    if repo_type not in ALLOWED:
        raise UserError(f"repo_type is {repo_type!r}; it must be one of {', '.join(map(repr, ALLOWED))}.")
    if not (folder / "README.md").is_file():
        raise UserError(f"Folder {str(folder)!r} does not exist or holds no README.md; write the card first.")
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


@dataclass(frozen=True)
class _Target:
    """Where a commit goes, and under which conditions."""

    at: dict[str, str]
    revision: str | None
    private: bool
    overwrite: bool
    tag: str | None
    commit_message: str


def _level(api: HfApi, target: _Target, files: dict[str, tuple[Path | bytes, set[str]]], way: dict[str, bool]) -> str:
    """Make the repository equal to `files`; returns the commit that is. `way` remembers that Xet did not work."""
    at, (head, tree) = target.at, _open(api, target)
    differing = _differing(files, tree)
    if target.tag:
        # Before anything is written: a release that exists must not cost a commit.
        _require_tag(api, at, target.tag, None if differing else head)
    if not differing:
        return head
    contents = {name: files[name][0] if name in files else None for name in differing}
    options = {"commit_message": target.commit_message, "revision": target.revision, "parent_commit": head}
    made = _commit(api, contents, way, **at, **options)
    if wrong := _differing(files, _tree(api, at, made)):
        raise RuntimeError(f"Commit {made} in {at['repo_id']} lacks or alters {', '.join(wrong)}. Call again.")
    return made


def _commit(api: HfApi, contents: dict[str, Path | bytes | None], way: dict[str, bool], **options: Any) -> str:
    """Make one commit of files (None: to be deleted); returns its hash."""
    if way["xet"]:
        operations = _operations(contents)
        try:
            _upload(api, [one for one in operations if isinstance(one, CommitOperationAdd)], **options)
            return api.create_commit(operations=operations, **options).oid
        except (OSError, RuntimeError) as error:
            if _judge(error)[0] is not None or isinstance(error, OfflineModeIsEnabled):
                raise
            # Xet speaks to hosts of its own, which a firewall may hide, and raises errors of its own.
            logger.warning("The upload failed (%s); it goes on without Xet.", type(error).__name__)
            way["xet"] = False
    with ExitStack() as opened:
        # The client sends open files the way it did before there was Xet.
        files = {n: opened.enter_context(c.open("rb")) if isinstance(c, Path) else c for n, c in contents.items()}
        return api.create_commit(operations=_operations(files), **options).oid


def _upload(api: HfApi, additions: list[CommitOperationAdd], **options: Any) -> None:
    """Send the contents, to be committed later; TimeoutError when that takes unreasonably long."""
    size = sum(addition.upload_info.size for addition in additions)
    at = {name: options[name] for name in ("repo_id", "repo_type", "revision")}
    done: Future[None] = Future()

    def work() -> None:
        try:
            done.set_result(api.preupload_lfs_files(additions=additions, free_memory=False, **at))
        except BaseException as error:  # noqa: BLE001 (raised below, in the thread that waits)
            done.set_exception(error)

    # A thread, since hf_xet waits for ever when its server accepts a shard and never answers.
    threading.Thread(target=work, daemon=True).start()
    done.result(UPLOAD_LIMIT + size / SLOWEST_UPLOAD)


def _operations(contents: dict[str, Any]) -> list[CommitOperationAdd | CommitOperationDelete]:
    return [CommitOperationDelete(n) if c is None else CommitOperationAdd(n, c) for n, c in contents.items()]


def _pull_request(api: HfApi, at: dict[str, str], title: str) -> int:
    """The number of an open pull request of this title, opened if there is none."""
    found = api.get_repo_discussions(**at, discussion_type="pull_request", discussion_status="all")
    open_ones = [pull.num for pull in found if pull.title == title.strip() and pull.status in ("draft", "open")]
    return min(open_ones) if open_ones else api.create_pull_request(**at, title=title).num


def _show(api: HfApi, at: dict[str, str], number: int) -> None:
    """Make a draft an open pull request."""
    if api.get_discussion_details(**at, discussion_num=number).status == "draft":
        api.change_discussion_status(**at, discussion_num=number, new_status="open")


def _require_tag(api: HfApi, at: dict[str, str], tag: str, sha: str | None) -> bool:
    """Whether the tag exists; UserError when it names another commit than `sha`."""
    commits = [found.target_commit for found in api.list_repo_refs(**at).tags if found.name == tag]
    if commits and commits != [sha]:
        raise UserError(f"Tag {tag!r} of {at['repo_id']} names another content; take a new tag.")
    return bool(commits)


def _name(api: HfApi, at: dict[str, str], tag: str, sha: str) -> None:
    if not _require_tag(api, at, tag, sha):
        api.create_tag(**at, tag=tag, revision=sha)


def _gather(api: HfApi, at: dict[str, str], collection: str, private: bool) -> None:
    """Put the repository into a collection, given by its slug ("owner/title-id") or its title."""
    if "/" not in collection:
        owner = at["repo_id"].split("/")[0]
        collection = api.create_collection(collection, namespace=owner, private=private, exists_ok=True).slug
    api.add_collection_item(collection, at["repo_id"], at["repo_type"], exists_ok=True)


def _url(api: HfApi, repo_id: str, repo_type: str) -> str:
    return f"{api.endpoint}/{'datasets/' if repo_type == 'dataset' else ''}{repo_id}"


def _open(api: HfApi, target: _Target) -> tuple[str, dict[str, str]]:
    """The head commit and its tree; UserError when the repository must not be written to."""
    at, info = target.at, api.repo_info(**target.at, revision=target.revision)
    if target.private and not info.private:
        raise UserError(f"Repository {at['repo_id']} is public; make it private on the Hub, or pass private=False.")
    tree = _tree(api, at, info.sha)
    ours = tree.get(MARKER) in _hashes(MARKER_CONTENT)
    if not ours and tree.keys() - {".gitattributes"} and not target.overwrite:
        raise UserError(
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
                said = " ".join(str(error).split()).replace(token or "\0", "***")[:500]
                login = " Log in with `hf auth login`, or set HF_TOKEN." if answer.status_code == 401 else ""
                raise RuntimeError(f"The Hub refused the push to {repo_id}: {what}. {said}{login}") from None
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
