"""Push a finished folder (dataset, policy, adapter or model) to the Hub in one commit; prints the commit's URL.

    python recipes/push_folder.py outputs/dataset USER/NAME --tag v1.0
    python recipes/push_folder.py outputs/model USER/NAME --base_model HuggingFaceTB/SmolLM2-135M

It is safe to re-run after a failure: it sends only missing files. `teamsrl push` is the same command.
"""

import argparse
import sys

from teamsrl_hf.commands.arguments import guarded
from teamsrl_hf.commands.options import Parser
from teamsrl_hf.commands.signals import leave

# Passed to `push_folder` unchanged.
OPTIONS = (*("repo_type", "overwrite", "revision", "create_pr", "tag", "base_model", "collection", "commit_message"),)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options, for this recipe and for `teamsrl push`."""
    parser.add_argument("folder", help="folder with a README.md")
    parser.add_argument("repo_id", help="user/name on the Hub")
    parser.add_argument("--repo_type", choices=("dataset", "model"), help="needed if a folder may be either")
    parser.add_argument("--public", action="store_true", help="make a new repository public (default: private)")
    parser.add_argument("--overwrite", action="store_true", help="also replace files that this tool did not write")
    parser.add_argument("--revision", help="branch to commit to, created if missing (default: main)")
    parser.add_argument("--create_pr", action="store_true", help="open a pull request instead of changing a branch")
    parser.add_argument("--tag", help="name for the commit, such as v1.0; a tag is never moved")
    parser.add_argument("--base_model", help="Hub id of an adapter's base, if the run had it in a folder")
    parser.add_argument("--collection", help="title or slug of a collection to add the repository to")
    parser.add_argument("--commit_message", default="Upload with teamsrl push", help="default: %(default)s")


def push(args: argparse.Namespace) -> str:
    """Push, print the URL and return it.

    Raises:
        OSError: The Hub refused, or was unreachable; the folder is intact.
        UserError: See `hub.push_folder`.
    """
    from teamsrl_hf.hub.push import push_folder

    options = {name: value for name, value in vars(args).items() if name in OPTIONS}
    try:
        url = push_folder(args.folder, args.repo_id, private=not args.public, **options)
    except RuntimeError as error:  # Not a bug, so no traceback.
        raise OSError(error) from error
    print(url)
    return url


def main(argv: list[str] | None = None) -> str:
    """Push a folder; returns the URL of the commit that holds it."""
    parser = Parser(prog="python recipes/push_folder.py", description=__doc__)
    add_arguments(parser)
    return push(parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(leave(guarded(main)))
