"""A repository as a push finds it on the Hub: in goes what is to be written there, out comes what differs, or why not.

Also its branches and pull requests, which begin as its main branch is.
"""

import logging
from dataclasses import dataclass, replace

from huggingface_hub import DiscussionComment, HfApi, hf_hub_url
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from ..errors import UserError
from .files import MARKER, THEIRS, File, Record, differing, objection, read_marker, write_marker

logger = logging.getLogger(__name__)

# Says in a pull request's description whose it is; its title is anybody's.
PULL_NOTE = "Opened by teamsrl-hf, which commits here whenever it is to propose this {kind} again."


@dataclass(frozen=True)
class Options:
    """What is asked for, beside folder and repository."""

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
    """Where a commit goes, of what, by whom, and under which conditions."""

    at: dict[str, str]
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
    told = api.whoami(cache=True)
    if not isinstance(told, dict) or not told.get("name"):
        raise RuntimeError(f"The Hub at {api.endpoint} does not tell whose the token in use is; is it a Hub?")
    return told["name"]


def inspect(api: HfApi, target: Target, files: dict[str, File]) -> tuple[str, list[str]]:
    """The head commit and the paths in which it differs; UserError when the repository must not be written to."""
    at, info = target.at, api.repo_info(**target.at, revision=target.revision)
    if target.options.private and not info.private:
        raise UserError(f"Repository {target.name} is public; make it private on the Hub, or pass private=False.")
    tree = read_tree(api, at, info.sha)
    if not tree and info.siblings:
        raise ConnectionError(f"{target.name} is listed as empty, and is not")  # To be tried again.
    changed = differing(target.content(files), tree)
    if not changed or not tree.keys() - {THEIRS}:
        return info.sha, changed
    record = _record(api, at, info.sha, tree)
    if changed == [MARKER] and record and record.tells(files):
        return info.sha, []  # The same, pushed by another account.
    why = objection(record, target.kind, target.account, tree, files)
    if why and not target.options.overwrite:
        raise UserError(
            f"Repository {target.name} {why}; take another name, or pass overwrite=True (--overwrite) to do so."
        )
    if why:
        logger.warning("Overwriting, as asked: repository %s %s.", target.name, why)
    return info.sha, changed


def open_branch(api: HfApi, target: Target, files: dict[str, File]) -> None:
    """Make the branch, unless it is there or its beginning, the main branch, must not be written to."""
    known = [branch.name for branch in api.list_repo_refs(**target.at).branches]
    if target.revision not in known and not target.revision.startswith("refs/"):
        inspect(api, replace(target, revision=None), files)
        api.create_branch(**target.at, branch=target.revision, exist_ok=True)


def open_pull_request(api: HfApi, target: Target, files: dict[str, File]) -> int:
    """The number of our open pull request, opened if there is none and the main branch may be written to."""
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
    # Its author may have rewritten the description since; then the record in its branch tells.
    heads = [api.repo_info(**target.at, revision=revision).sha for revision in (None, f"refs/pr/{number}")]
    main, proposed = (read_tree(api, target.at, head) for head in heads)
    if proposed.get(MARKER) == main.get(MARKER):
        return False
    record = _record(api, target.at, heads[1], proposed)
    return record is not None and (record.kind, record.account) == (target.kind, target.account)


def show_pull_request(api: HfApi, at: dict[str, str], number: int) -> None:
    """Make a draft an open pull request."""
    if api.get_discussion_details(**at, discussion_num=number).status == "draft":
        api.change_discussion_status(**at, discussion_num=number, new_status="open")


def read_tree(api: HfApi, at: dict[str, str], sha: str) -> dict[str, str]:
    """Path -> hash of every file of a commit."""
    entries = api.list_repo_tree(**at, revision=sha, recursive=True)
    return {e.path: e.lfs.sha256 if e.lfs else e.blob_id for e in entries if isinstance(e, RepoFile)}


def _record(api: HfApi, at: dict[str, str], sha: str, tree: dict[str, str]) -> Record | None:
    """What the marker of a commit tells."""
    if MARKER not in tree:
        return None
    # Not by `hf_hub_download`, which serves an old copy when the Hub is busy.
    url = hf_hub_url(at["repo_id"], MARKER, repo_type=at["repo_type"], revision=sha, endpoint=api.endpoint)
    answer = get_session().get(url, headers=build_hf_headers(token=api.token))
    hf_raise_for_status(answer)
    if tree[MARKER] not in File.of(answer.content).hashes:
        raise ConnectionError(f"{url} does not give the file that the tree lists")  # To be tried again.
    return read_marker(answer.content)
