"""Pushing a folder to the Hub: in come a finished folder and a repository id, out comes the URL of its one commit.

A push makes the repository equal to the folder, so it is safe to repeat: after a lost answer, a kill or a race it
sends only the missing files, and makes no commit if there are none. `files` chooses the files and refuses to lose
others, `names` adapts the card, `target` reads the repository, `calls` retries.

`HfApi.upload_folder` with `delete_patterns` could not replace this: it hangs where a firewall blocks Xet's hosts, and
the record of files needs the repository's tree in any case.
"""

import logging
import threading
import time
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import OfflineModeIsEnabled

from ..errors import UserError
from ..redaction import shown
from .calls import Calls, judge, time_limit, tokens_in_use
from .files import KINDS, File, Folder, differing, open_folder, refuse_secret, require
from .names import base_card, base_to_publish, check_repo_id, check_whole, renamed
from .target import (
    Options,
    Repository,
    Target,
    account_of,
    inspect,
    open_branch,
    open_pull_request,
    read_tree,
    show_pull_request,
)

logger = logging.getLogger(__name__)

TIME_LIMIT = 120.0
# Seconds, and bytes per second: an upload by Xet that takes longer starts again without Xet.
UPLOAD_LIMIT, SLOWEST_UPLOAD = 120.0, 100_000


def push_folder(
    folder: str | Path,
    repo_id: str,
    *,
    commit_message: str,
    repo_type: str | None = None,
    private: bool = True,
    revision: str | None = None,
    create_pr: bool = False,
    tag: str | None = None,
    collection: str | None = None,
    overwrite: bool = False,
    base_model: str | None = None,
    patience: float = 600.0,
    api: HfApi | None = None,
) -> str:
    """Make a Hub repository equal to `folder` by at most one commit, and return the URL of the commit that holds it.

    The files decide the kind of the folder (dataset, policy, adapter or model). The push sends the files that
    `files.ALLOWED` lists for that kind, and logs the names of all others. The same commit deletes files that the
    folder lacks (except `.gitattributes`) and writes `.teamsrl.json`, a record of the sent files: the next push
    replaces only files that this one wrote.

    The repository's id replaces the placeholders in the card. If an adapter's folder holds its base model in `base`,
    that is pushed first, to `<repo_id>-base`, and the adapter names it.

    Args:
        folder: Holds at least README.md.
        repo_id: "user/name"; a name alone belongs to the account of the token.
        repo_type: "dataset" or "model", if the folder may be either.
        private: Visibility of a new repository. That of an existing one is never changed.
        revision: Branch to commit to, created if missing; the main branch by default.
        create_pr: Commit to a pull request of an existing repository, and return its URL. An open one from an earlier
            call with the same account and kind is reused.
        tag: Name for the commit, such as "v1.0". A tag is never moved.
        collection: Title or slug of a collection to add the repository to. A missing one is created for the
            repository's owner, with the visibility `private`.
        overwrite: Also replace files that this project did not write, or that were edited since.
        base_model: Hub id to name as the adapter's base model.
        patience: Seconds to retry while the Hub is unreachable or busy, or somebody else commits.
        api: Endpoint and token; by default those of the environment.

    Raises:
        UserError: The folder can't be pushed, the repository is not ours, was edited since or holds another kind, it
            is public although `private`, the base model is a folder of this machine, or the tag names another commit.
        RuntimeError: The Hub refused, or was unreachable for longer than `patience`. The folder is intact: call again.
    """
    options = Options(commit_message, private, revision, create_pr, tag, collection, overwrite, base_model)
    if create_pr and (revision or tag):
        raise UserError("create_pr goes with neither revision nor tag: a pull request is a branch, merged later.")
    check_repo_id(repo_id, "The repository")
    found, api = open_folder(folder, repo_type), HfApi(library_name="teamsrl-hf") if api is None else api
    with time_limit(TIME_LIMIT):
        return _push(found, repo_id, options, patience, api)


def check_push(
    kind: str,
    repo_id: str,
    *,
    private: bool = True,
    revision: str | None = None,
    patience: float = 10.0,
    api: HfApi | None = None,
) -> None:
    """Check, without writing to the Hub, whether it would accept a folder of this kind; call it before long work.

    Args:
        kind: As in `files.KINDS`.

    Raises:
        UserError: `repo_id` is no id, the token is missing, refused or read-only, the Hub can't be reached within
            `patience` seconds, or a push must not write to the repository.
    """
    check_repo_id(repo_id, "The repository")
    api = HfApi(library_name="teamsrl-hf") if api is None else api
    persist = Calls(api, repo_id, time.monotonic() + patience)
    try:
        with time_limit(patience):
            account = persist(account_of, api)
            if api.whoami(cache=True).get("auth", {}).get("accessToken", {}).get("role") == "read":
                raise UserError(f"The token in use may only read; a push to {repo_id} needs one that may write.")
            at: Repository = {"repo_id": _full_name(repo_id, account), "repo_type": KINDS[kind]}
            if persist(api.repo_exists, **at):
                begun = revision and persist(api.revision_exists, **at, revision=revision)
                target = Target(at, kind, account, Options("", private), revision if begun else None)
                persist(inspect, api, target, {})
    except RuntimeError as error:
        raise UserError(f"{error} Nothing was begun.") from None


def push_dataset(folder: str | Path, repo_id: str, *, commit_message: str = "Upload dataset", **options) -> str:
    """`push_folder` for a folder of Parquet files; takes the same options."""
    require(folder, "**/*.parquet")
    return push_folder(folder, repo_id, repo_type="dataset", commit_message=commit_message, **options)


def push_policy(folder: str | Path, repo_id: str, *, commit_message: str = "Upload policy", **options) -> str:
    """`push_folder` for a whole model saved by `save_pretrained`; takes the same options."""
    require(folder, "config.json", "*.safetensors")
    return push_folder(folder, repo_id, repo_type="model", commit_message=commit_message, **options)


def push_adapter(folder: str | Path, repo_id: str, *, commit_message: str = "Upload adapter", **options) -> str:
    """`push_folder` for a PEFT adapter saved by `save_pretrained`; takes the same options."""
    require(folder, "adapter_config.json", "adapter_model*.safetensors")
    return push_folder(folder, repo_id, repo_type="model", commit_message=commit_message, **options)


def _push(folder: Folder, repo_id: str, options: Options, patience: float, api: HfApi) -> str:
    base = _base_of(folder, options)
    # A base model with a push of its own is not left out.
    left_out = [name for name in folder.left_out if not (base and name.startswith("base/"))]
    if left_out:
        logger.warning("Left out of the push: %s", ", ".join(map(shown, left_out)))
    check_whole(folder)
    refuse_secret(folder.files, tokens_in_use(api))
    persist = Calls(api, repo_id, time.monotonic() + patience)
    account = persist(account_of, api)
    at: Repository = {"repo_id": _full_name(repo_id, account), "repo_type": folder.repo_type}
    companion = base and open_folder(base, "model", base_card(folder, at["repo_id"]))
    if not options.create_pr:
        at["repo_id"] = persist(api.create_repo, **at, private=options.private, exist_ok=True).repo_id
    target = Target(at, folder.kind, account, options, options.revision)
    files = _files(folder, renamed(folder, target.name, options.base_model))
    if options.create_pr:
        number = persist(open_pull_request, api, target, files)
        target = replace(target, revision=f"refs/pr/{number}")
    elif options.revision:
        persist(open_branch, api, target, files)
    if companion:
        persist(inspect, api, target, files)  # Before anything is sent.
        name = f"{target.name}-base"
        its_options = Options(f"Upload base model of {target.name}", options.private, overwrite=options.overwrite)
        commit = _push(companion, name, its_options, patience, api).rpartition("/")[2]
        files = _files(folder, renamed(folder, target.name, name, commit))
    sha = persist(_level, api, target, files, {"xet": True})
    return _finish(persist, api, target, sha)


def _full_name(repo_id: str, account: str) -> str:
    return repo_id if "/" in repo_id else f"{account}/{repo_id}"


def _base_of(folder: Folder, options: Options) -> Path | None:
    base = base_to_publish(folder, options.base_model)
    if base and options.create_pr:
        raise UserError(
            f"A pull request can't bring the base model in {str(base)!r} along; push that folder to a repository of "
            "its own, and name it with --base_model USER/NAME."
        )
    return base


def _files(folder: Folder, renamed: dict[str, bytes]) -> dict[str, File]:
    return {**folder.files, **{name: File.of(content) for name, content in renamed.items()}}


def _finish(persist: Calls, api: HfApi, target: Target, sha: str) -> str:
    """Set the tag, the collection and the pull request's status; returns the URL to print."""
    at, options = target.at, target.options
    url = f"{api.endpoint}/{'datasets/' if at['repo_type'] == 'dataset' else ''}{target.name}"
    if options.tag:
        persist(_name, api, at, options.tag, sha)
    if options.collection:
        persist(_gather, api, at, options.collection, options.private)
    if options.create_pr:
        number = (target.revision or "").rpartition("/")[2]
        persist(show_pull_request, api, at, int(number))
        return f"{url}/discussions/{number}"
    return f"{url}/commit/{sha}"


def _level(api: HfApi, target: Target, files: dict[str, File], way: dict[str, bool]) -> str:
    """Make the repository equal to `files`; returns that commit. `way` remembers whether Xet works."""
    at, (head, changed) = target.at, inspect(api, target, files)
    if target.options.tag:
        # Before anything is written: a release that exists must not cost a commit.
        _require_tag(api, at, target.options.tag, None if changed else head)
    if not changed:
        return head
    content = target.content(files)
    contents = {name: content[name].content if name in content else None for name in changed}
    options = {"commit_message": target.options.commit_message, "revision": target.revision, "parent_commit": head}
    made = _commit(api, contents, way, **at, **options)
    if wrong := differing(content, read_tree(api, at, made)):
        raise RuntimeError(
            f"Commit {made} in {target.name} lacks or alters {', '.join(wrong)}. Call again with overwrite=True "
            "(--overwrite)."
        )
    return made


def _commit(api: HfApi, contents: dict[str, Path | bytes | None], way: dict[str, bool], **options: Any) -> str:
    """Make one commit of files (None: to be deleted); returns its hash."""
    if way["xet"]:
        operations = _operations(contents)
        try:
            _upload(api, [one for one in operations if isinstance(one, CommitOperationAdd)], **options)
            return api.create_commit(operations=operations, **options).oid
        except (OSError, RuntimeError) as error:
            if judge(error)[0] is not None or isinstance(error, OfflineModeIsEnabled):
                raise
            # Xet uses other hosts, which a firewall may block, and raises errors of its own.
            logger.warning("The upload failed (%s); retrying without Xet.", type(error).__name__)
            way["xet"] = False
    with ExitStack() as opened:
        # The client does not send open files by Xet.
        files = {n: opened.enter_context(c.open("rb")) if isinstance(c, Path) else c for n, c in contents.items()}
        return api.create_commit(operations=_operations(files), **options).oid


def _upload(api: HfApi, additions: list[CommitOperationAdd], **options: Any) -> None:
    """Upload the contents without committing them; TimeoutError if that takes unreasonably long."""
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


def _require_tag(api: HfApi, at: Repository, tag: str, sha: str | None) -> bool:
    """Whether the tag exists; UserError when it names another commit than `sha`."""
    commits = [found.target_commit for found in api.list_repo_refs(**at).tags if found.name == tag]
    if commits and commits != [sha]:
        raise UserError(f"Tag {tag!r} of {at['repo_id']} names another content; take a new tag.")
    return bool(commits)


def _name(api: HfApi, at: Repository, tag: str, sha: str) -> None:
    if not _require_tag(api, at, tag, sha):
        api.create_tag(**at, tag=tag, revision=sha)


def _gather(api: HfApi, at: Repository, collection: str, private: bool) -> None:
    """Put the repository into a collection, given by its slug ("owner/title-id") or its title."""
    if "/" not in collection:
        owner = at["repo_id"].split("/")[0]
        collection = api.create_collection(collection, namespace=owner, private=private, exists_ok=True).slug
    api.add_collection_item(collection, at["repo_id"], at["repo_type"], exists_ok=True)
