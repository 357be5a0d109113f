"""The `teamsrl` command: a thin front for the recipes that starts in a blink and imports only what a command needs."""

import argparse
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from . import __version__
from .paths import resource

RECIPES = {
    "train-policy": ("train_policy", "train the operation policy with PPO"),
    "evolve": ("evolve_dataset", "evolve seeds into a dataset"),
    "sft": ("sft", "fine-tune a causal LM on a dataset"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    # Tokenizers warns when a process forks after use; nothing here gains from its threads.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if argv and argv[0] in RECIPES:
        from .arguments import guarded

        return guarded(lambda: load_recipe(RECIPES[argv[0]][0]).main(argv[1:]))
    args = _parser().parse_args(argv)
    from .arguments import guarded

    return guarded(lambda: args.run(args))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="teamsrl", description="Teach a model to write better instruction datasets.")
    parser.add_argument("--version", action="version", version=f"teamsrl-hf {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    quickstart = commands.add_parser(
        "quickstart", help="the whole path at small scale: policy, dataset, fine-tuned model"
    )
    quickstart.add_argument("--seeds", help="file, folder or Hub dataset of seeds (default: the built-in set)")
    quickstart.add_argument("--seed_column", default="instruction", help="column that holds the instruction")
    quickstart.add_argument("--input_column", help="column that holds the input (default: 'input' where there is one)")
    quickstart.add_argument("--drop_duplicate_seeds", action="store_true", help="keep the first of equal seeds")
    quickstart.add_argument("--output_dir", default="teamsrl-quickstart", help="where all goes (default: %(default)s)")
    quickstart.set_defaults(run=_quickstart)
    ledger = commands.add_parser("ledger", help="totals of a ledger of model calls")
    ledger.add_argument("folder", help="folder that holds ledger.sqlite, or the file itself")
    ledger.set_defaults(run=_ledger)
    push = commands.add_parser("push", help="push a folder to the Hub in one commit")
    push.add_argument("folder", help="folder with a README.md")
    push.add_argument("repo_id", help="user/name on the Hub")
    push.add_argument("--repo_type", default="dataset", choices=("dataset", "model"))
    push.add_argument("--public", action="store_true", help="make a new repository public (default: private)")
    push.add_argument("--overwrite", action="store_true", help="also over a repository this tool did not write")
    push.set_defaults(run=_push)
    for name, (_, text) in RECIPES.items():
        commands.add_parser(name, help=f"{text} (all arguments: teamsrl {name} --help)", add_help=False)
    return parser


def load_recipe(name: str) -> ModuleType:
    """The recipe script `recipes/<name>.py` as a module, the very file that `accelerate launch` runs."""
    module_name = f"teamsrl_recipe_{name}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, resource(f"recipes/{name}.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # Dataclasses look their module up by name.
    spec.loader.exec_module(module)
    return module


def _quickstart(args: argparse.Namespace) -> None:
    """Train, evolve, fine-tune with the recipes' own files, then print what came of it."""
    from .arguments import SeedArguments, seeds_digest
    from .runs import finish_run, open_run

    # Three stages have a bar each; those of every mapping and every shard would drown them.
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    # Models this small gain nothing from a second thread, and lose much by it where the processor is shared.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    given = SeedArguments(args.seeds, args.seed_column, args.input_column, args.drop_duplicate_seeds)
    train, test = given.load()
    out = Path(args.output_dir)
    done = open_run(out, {"command": "quickstart", "seeds": seeds_digest([*train, *test])})
    if done is None:
        done = _run_stages(out, _seed_options(args))
        finish_run(out, done)
    _print_summary(out, done)


def _run_stages(out: Path, seeds: list[str]) -> dict[str, Any]:
    ledger = ["--ledger", str(out / "ledger.sqlite")]

    def stage(number: int, title: str, recipe: str, *options: str) -> dict[str, Any]:
        print(f"[{number}/3] {title}", file=sys.stderr)
        config = str(resource(f"recipes/quickstart/{recipe}.yaml"))
        return load_recipe(recipe).main(["--config", config, *options])

    policy, dataset, model = str(out / "policy"), str(out / "dataset"), str(out / "model")
    trained = stage(1, "Training the policy", "train_policy", *seeds, *ledger, "--output_dir", policy)
    license = ["--license", "apache-2.0"] if not seeds else []
    evolved = stage(
        2,
        "Evolving the dataset",
        "evolve_dataset",
        *seeds,
        *ledger,
        *license,
        "--policy",
        policy,
        "--output_dir",
        dataset,
    )
    tuned = stage(3, "Fine-tuning", "sft", "--dataset_name", dataset, "--output_dir", model)
    return {"policy": trained, "dataset": evolved, "model": tuned, "calls": ledger_totals(out / "ledger.sqlite")}


def _seed_options(args: argparse.Namespace) -> list[str]:
    options = ["--seeds", args.seeds] if args.seeds else []
    options += ["--seed_column", args.seed_column] if args.seed_column != "instruction" else []
    options += ["--input_column", args.input_column] if args.input_column else []
    return options + (["--drop_duplicate_seeds", "true"] if args.drop_duplicate_seeds else [])


def ledger_totals(path: Path) -> dict[str, int]:
    """Calls by role."""
    from .ledger import Ledger

    with Ledger(path) as ledger:
        return {role: totals.calls for role, totals in ledger.totals().items()}


def _print_summary(out: Path, summary: dict[str, Any]) -> None:
    policy, dataset, model = summary["policy"], summary["dataset"], summary["model"]
    rejections = ", ".join(f"{name} {count}" for name, count in dataset["rejections"].items())
    print(
        f"""
rows               {dataset["rows"]}
rejected steps     {sum(dataset["rejections"].values())} ({rejections})
model calls        {", ".join(f"{role} {count}" for role, count in summary["calls"].items())} (rulebook: rules, no LLM)
reward per chain   {policy["reward_before"]:.2f} before, {policy["reward_after"]:.2f} after training, \
{policy["reward_uniform"]:.2f} with random operations (held-out seeds)
loss of the model  {model["loss_before"]:.2f} before, {model["loss_after"]:.2f} after fine-tuning (held-out rows)
policy             {out / "policy"}
dataset            {out / "dataset"}
model              {out / "model"}"""
    )


def _ledger(args: argparse.Namespace) -> None:
    from .ledger import Ledger

    path = Path(args.folder)
    path = path / "ledger.sqlite" if path.is_dir() else path
    if not path.is_file():
        raise ValueError(f"There is no ledger at {path}; give the output folder of a run, or the ledger itself.")
    with Ledger(path) as ledger:
        print(f"{'role':<12}{'calls':>9}{'errors':>9}{'prompt tokens':>15}{'answer tokens':>15}{'seconds':>10}")
        for role, t in ledger.totals().items():
            print(
                f"{role:<12}{t.calls:>9}{t.errors:>9}{t.prompt_tokens:>15}{t.completion_tokens:>15}{t.seconds:>10.1f}"
            )


def _push(args: argparse.Namespace) -> None:
    from .hub import push_folder

    options = {"repo_type": args.repo_type, "private": not args.public, "overwrite": args.overwrite}
    try:
        print(push_folder(args.folder, args.repo_id, commit_message="Upload with teamsrl push", **options))
    except RuntimeError as error:  # The Hub refused or stayed away; nothing of ours is broken.
        raise OSError(error) from error


if __name__ == "__main__":
    sys.exit(main())
