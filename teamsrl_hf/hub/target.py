"""The repository before a push: in go the files to write, out come the paths that differ, or a refusal.

Also opens branches and pull requests, which start from the main branch.
"""

import logging
from dataclasses import dataclass, replace
from typing import Any, TypedDict

from huggingface_hub import DiscussionComment, HfApi, hf_hub_url
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from ..errors import UserError
from .files import MARKER, THEIRS, File, Record, RepoType, differing, objection, read_marker, write_marker

logger = logging.getLogger(__name__)

# Identifies our pull requests by their description; anybody may use their title.
PULL_NOTE = "Opened by teamsrl-hf, which commits here whenever it proposes this {kind} again."


class Repository(TypedDict):
    """Arguments of `HfApi` that name a repository."""

    repo_id: str
    repo_type: RepoType


@dataclass(frozen=True)
class Options:
    """Options of `push_folder`."""

    commit_message: str
    private: bool = True
    revision: str | None = None
    create_pr: bool = False
    tag: str | None = None
    collection: str | None = None
    overwrite: bool = False
    base_model: str | None = None


@dataclass(frozen=True)
class Target:
    """The destination of a commit: repository, revision, kind of folder, account and options."""

    at: Repository
    kind: str
    account: str
    options: Options
    revision: str | None

    @property
    def name(self) -> str:
        return self.at["repo_id"]

    def content(self, files: dict[str, File]) -> dict[str, File]:
        """The files and the record of them."""
        return {**files, MARKER: File.of(write_marker(self.kind, self.account, files))}


def account_of(api: HfApi) -> str:
    """The name of the account whose token is in use."""
    known = api.whoami(cache=True)
    if not isinstance(known, dict) or not known.get("name"):
        raise RuntimeError(f"The server at {api.endpoint} does not name the account of the token in use; is it a Hub?")
    return known["name"]


def inspect(api: HfApi, target: Target, files: dict[str, File]) -> tuple[str, list[str]]:
    """The head commit and the paths that differ there; UserError if the push must not write to the repository."""
    at, (head, private, listed) = target.at, _state(api, target.at, target.revision)
    if target.options.private and not private:
        raise UserError(f"Repository {target.name} is public; make it private on the Hub, or pass private=False.")
    tree = read_tree(api, at, head)
    if not tree and listed:
        raise ConnectionError(f"{target.name} is listed as empty, and is not")  # To be tried again.
    changed = differing(target.content(files), tree)
    if not changed or not tree.keys() - {THEIRS}:
        return head, changed
    record = _record(api, at, head, tree)
    if changed == [MARKER] and record and record.tells(files):
        return head, []  # The same content, pushed by another account.
    why = objection(record, target.kind, target.account, tree, files)
    if why and not target.options.overwrite:
        raise UserError(
            f"Repository {target.name} {why}; take another name, or pass overwrite=True (--overwrite) to do so."
        )
    if why:
        logger.warning("Overwriting, as asked: repository %s %s.", target.name, why)
    return head, changed


def _state(api: HfApi, at: Repository, revision: str | None) -> tuple[str, bool, bool]:
    """The head commit, whether the repository is private, and whether it lists any file."""
    info: Any = api.repo_info(**at, revision=revision)
    return info.sha, bool(info.private), bool(info.siblings)


def open_branch(api: HfApi, target: Target, files: dict[str, File]) -> None:
    """Create the branch if it is missing; UserError if the push must not write to the main branch."""
    branch = target.revision
    known = [found.name for found in api.list_repo_refs(**target.at).branches]
    if branch is not None and branch not in known and not branch.startswith("refs/"):
        inspect(api, replace(target, revision=None), files)
        api.create_branch(**target.at, branch=branch, exist_ok=True)


def open_pull_request(api: HfApi, target: Target, files: dict[str, File]) -> int:
    """The number of our open pull request; a new one if there is none and the push may write to the main branch."""
    found = api.get_repo_discussions(**target.at, discussion_type="pull_request", discussion_status="all")
    own = [pull.num for pull in found if pull.author == target.account and pull.status in ("draft", "open")]
    for number in sorted(own):
        if _is_ours(api, target, number):
            return number
    inspect(api, target, files)
    title, note = target.options.commit_message, PULL_NOTE.format(kind=target.kind)
    return api.create_pull_request(**target.at, title=title, description=note).num


def _is_ours(api: HfApi, target: Target, number: int) -> bool:
    """Whether a pull request of this account was opened here, for a folder of this kind."""
    events = api.get_discussion_details(**target.at, discussion_num=number).events
    own = [event for event in events if isinstance(event, DiscussionComment) and event.author == target.account]
    if any(PULL_NOTE.format(kind=target.kind) in comment.content for comment in own):
        return True
    # If its author has rewritten the description, the record in its branch identifies it.
    heads = [_state(api, target.at, revision)[0] for revision in (None, f"refs/pr/{number}")]
    main, proposed = (read_tree(api, target.at, head) for head in heads)
    if proposed.get(MARKER) == main.get(MARKER):
        return False
    record = _record(api, target.at, heads[1], proposed)
    return record is not None and (record.kind, record.account) == (target.kind, target.account)


def show_pull_request(api: HfApi, at: Repository, number: int) -> None:
    """Make a draft an open pull request."""
    if api.get_discussion_details(**at, discussion_num=number).status == "draft":
        api.change_discussion_status(**at, discussion_num=number, new_status="open")


def read_tree(api: HfApi, at: Repository, sha: str) -> dict[str, str]:
    """Path -> hash of every file of a commit."""
    entries = api.list_repo_tree(**at, revision=sha, recursive=True)
    return {e.path: e.lfs.sha256 if e.lfs else e.blob_id for e in entries if isinstance(e, RepoFile)}


def _record(api: HfApi, at: Repository, sha: str, tree: dict[str, str]) -> Record | None:
    """The record in the marker of a commit."""
    if MARKER not in tree:
        return None
    # Not by `hf_hub_download`, which serves an old copy when the Hub is busy.
    url = hf_hub_url(at["repo_id"], MARKER, repo_type=at["repo_type"], revision=sha, endpoint=api.endpoint)
    answer = get_session().get(url, headers=build_hf_headers(token=api.token))
    hf_raise_for_status(answer)
    if tree[MARKER] not in File.of(answer.content).hashes:
        raise ConnectionError(f"{url} does not give the file that the tree lists")  # To be tried again.
    return read_marker(answer.content)
