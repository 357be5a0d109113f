"""The standard Hub arguments: in go a trainer's arguments, out comes a planned push, or a refusal.

`transformers` would create a public repository and upload everything in the output folder, checkpoint by checkpoint.
`hub` pushes the finished folder once, to a private repository unless `hub_private_repo` is False.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from inspect import signature
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..public import is_local

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from transformers import TrainingArguments

# They decide where a result goes, not what it is, so they may change when a run resumes.
HUB_ARGUMENTS = (
    *("push_to_hub", "hub_model_id", "hub_token", "hub_private_repo"),
    *("hub_revision", "hub_strategy", "hub_always_push"),
)


def settle_hub_arguments(args: "TrainingArguments") -> None:
    """Make the repository of `args` private by default.

    Raises:
        UserError: An argument is not supported.
    """
    if args.hub_token:
        raise UserError("hub_token would end up in files and logs; leave it out and set HF_TOKEN in the environment.")
    if args.hub_strategy not in ("end", "every_save"):
        raise UserError(
            f"hub_strategy is {getattr(args.hub_strategy, 'value', args.hub_strategy)!r}, but checkpoints are not "
            "pushed, only the finished model, once; leave hub_strategy out, or set it to 'end'."
        )
    if args.hub_always_push:
        raise UserError("hub_always_push is about checkpoints, which are not pushed; leave it out.")
    if args.hub_private_repo is None:
        args.hub_private_repo = True


@dataclass(frozen=True)
class PlannedPush:
    """The destination of a run's finished model."""

    repo_id: str
    private: bool
    revision: str | None

    def carry_out(self, folder: str) -> str:
        """Push `folder` and return the commit's URL.

        Raises:
            OSError: The Hub refused, or was unreachable; the folder is complete.
        """
        from .push import push_folder

        options: dict[str, Any] = {"private": self.private, "revision": self.revision}
        try:
            return push_folder(folder, self.repo_id, repo_type="model", commit_message="Upload model", **options)
        except RuntimeError as error:
            raise OSError(f"{error} The model is complete in {folder}; run the same command again.") from error


def plan_push(args: "TrainingArguments", kind: str, base: str | None = None) -> PlannedPush | None:
    """The push of a folder of this kind that `args` ask for, which is then switched off in `args`.

    Args:
        base: Folder or Hub id of the base model of an adapter.

    Raises:
        UserError: An argument is not supported, or the push would fail; see `push.check_push`.
    """
    settle_hub_arguments(args)
    wanted, args.push_to_hub = args.push_to_hub, False
    if not wanted:
        return None
    if not args.hub_model_id:
        raise UserError("push_to_hub needs --hub_model_id USER/NAME.")
    check_base(base)
    planned = PlannedPush(args.hub_model_id, args.hub_private_repo is not False, args.hub_revision)
    if args.process_index == 0:
        from .push import check_push

        check_push(kind, planned.repo_id, private=planned.private, revision=planned.revision)
    return planned


def check_base(base: str | None) -> None:
    """UserError if an adapter's base model is a folder of this machine."""
    if base and is_local(base):
        raise UserError(
            f"The base model is a folder of this machine, {base!r}, which nobody else can load; name it by a Hub id, "
            "or leave out push_to_hub and use `teamsrl push --base_model USER/NAME` when the adapter is done."
        )


def check_options(options: Mapping[str, Any]) -> None:
    """UserError for an argument of `transformers` that `push_folder` does not have."""
    from .push import push_folder

    known = [name for name in signature(push_folder).parameters if name not in ("folder", "repo_id", "repo_type")]
    if unknown := [name for name in options if name not in known]:
        raise UserError(f"A push takes no {unknown[0]}; leave it out, or give one of {', '.join(known)}.")


def client(token: str | bool | None = None) -> "HfApi":
    """A Hub client with this token, or that of the environment."""
    from .push import HfApi

    return HfApi(library_name="teamsrl-hf") if token is None else HfApi(library_name="teamsrl-hf", token=token)
