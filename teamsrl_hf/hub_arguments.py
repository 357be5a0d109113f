"""The standard arguments about the Hub: in go a trainer's arguments, out comes a planned push, or what is refused.

`transformers` would make a public repository and upload all that lies in the output folder, checkpoint by checkpoint.
Here the finished folder is pushed once, by `hub`, and to a private repository unless `hub_private_repo` is False.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import UserError

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from transformers import TrainingArguments

# What decides where a result goes, but nothing of it: it may differ when a run goes on.
HUB_ARGUMENTS = (
    *("push_to_hub", "hub_model_id", "hub_token", "hub_private_repo"),
    *("hub_revision", "hub_strategy", "hub_always_push"),
)


def settle_hub_arguments(args: "TrainingArguments") -> None:
    """Make `args` private where they do not say.

    Raises:
        UserError: An argument asks for what no push here does.
    """
    if args.hub_token:
        raise UserError("hub_token would end up in files and logs; leave it out and set HF_TOKEN in the environment.")
    if args.hub_strategy not in ("end", "every_save"):
        raise UserError(
            f"hub_strategy is {str(args.hub_strategy.value)!r}, but checkpoints are not pushed, only the finished "
            "model, once; leave hub_strategy out, or set it to 'end'."
        )
    if args.hub_always_push:
        raise UserError("hub_always_push is about checkpoints, which are not pushed; leave it out.")
    if args.hub_private_repo is None:
        args.hub_private_repo = True


@dataclass(frozen=True)
class PlannedPush:
    """Where the finished model of a run goes."""

    repo_id: str
    private: bool
    revision: str | None

    def carry_out(self, folder: str) -> str:
        """Push `folder` and return the commit's URL.

        Raises:
            OSError: The Hub refused, or stayed away; the folder is complete.
        """
        from .hub import push_folder

        options = {"private": self.private, "revision": self.revision}
        try:
            return push_folder(folder, self.repo_id, repo_type="model", commit_message="Upload model", **options)
        except RuntimeError as error:
            raise OSError(f"{error} The model is complete in {folder}; run the same command again.") from error


def plan_push(args: "TrainingArguments") -> PlannedPush | None:
    """The push that `args` ask for, checked against the Hub by the main process; none is left to the trainer.

    Raises:
        UserError: An argument is not honoured, or nothing could be pushed; see `hub.check_access`.
    """
    settle_hub_arguments(args)
    wanted, args.push_to_hub = args.push_to_hub, False
    if not wanted:
        return None
    if not args.hub_model_id:
        raise UserError("push_to_hub needs --hub_model_id USER/NAME.")
    planned = PlannedPush(args.hub_model_id, args.hub_private_repo, args.hub_revision)
    if args.process_index == 0:
        check_access(planned.repo_id, planned.private)
    return planned


def client(token: str | bool | None = None) -> "HfApi":
    """What speaks to the Hub, with this token, or with that of the environment."""
    from .hub import HfApi

    return HfApi(library_name="teamsrl-hf", **({} if token is None else {"token": token}))


def check_access(repo_id: str, private: bool = True, api: "HfApi | None" = None) -> None:
    """Ask the Hub, without writing to it, whether a model could be pushed: to be done before long work.

    Raises:
        UserError: No token is set or it may only read, the Hub refuses it or can't be reached, `repo_id` is no id, or
            the repository is public although `private`.
    """
    from huggingface_hub import errors
    from huggingface_hub.utils import httpx, validate_repo_id

    try:
        validate_repo_id(repo_id)
        _check_access(repo_id, private, api or client())
    except errors.HFValidationError as error:
        raise UserError(f"The repository {repo_id!r} is no Hub id; give USER/NAME. {error}") from None
    except errors.LocalTokenNotFoundError:
        raise UserError(f"A push to {repo_id} needs a token: log in with `hf auth login`, or set HF_TOKEN.") from None
    except errors.OfflineModeIsEnabled:
        raise UserError(f"HF_HUB_OFFLINE is set, so nothing can be pushed to {repo_id}; unset it.") from None
    except (errors.HfHubHTTPError, httpx.TransportError, OSError) as error:
        answer = getattr(error, "response", None)
        what = type(error).__name__ if answer is None else f"{answer.status_code} {answer.reason_phrase}"
        login = " Log in with `hf auth login`, or set HF_TOKEN." if "401" in what else ""
        raise UserError(f"The Hub would not take a push to {repo_id}: {what}.{login} Nothing was trained.") from None


def _check_access(repo_id: str, private: bool, api: "HfApi") -> None:
    from huggingface_hub.errors import RepositoryNotFoundError

    user = api.whoami()
    if user.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise UserError(f"The token in use may only read; a push to {repo_id} needs one that may write.")
    try:
        info = api.repo_info(repo_id if "/" in repo_id else f"{user['name']}/{repo_id}", timeout=30)
    except RepositoryNotFoundError:
        return
    if private and not info.private:
        raise UserError(f"Repository {repo_id} is public; make it private on the Hub, or pass private=False.")
