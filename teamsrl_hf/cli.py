"""The `teamsrl` command: runs the recipes, and imports only what a command needs, so that it starts fast."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from . import __version__
from .commands.arguments import SeedArguments
from .commands.options import Parser
from .commands.signals import leave
from .errors import NothingMade, UserError, did_you_mean
from .loading import module_of_file
from .paths import resource

RECIPES = {
    "train-policy": ("train_policy", "train the operation policy with PPO"),
    "evolve": ("evolve_dataset", "evolve seeds into a dataset"),
    "calibrate": ("calibrate", "measure how well a reviewer answers"),
    "sft": ("sft", "fine-tune a causal LM on a dataset; --accelerate_config NAME launches processes"),
    "compare": ("compare", "compare methods head to head at equal paid calls"),
    "eval": ("eval_model", "benchmark a fine-tuned model: lm-evaluation-harness, or constraints that code can check"),
    "review": ("review", "judge rewrites of any source: the rules, a reviewer if one is named, the default reward"),
    "audit": ("audit", "test whether a model reveals the rows it was trained on"),
}

# Options of `teamsrl sft` that go to `accelerate launch`; with one of them it starts the recipe's processes.
LAUNCH_OPTIONS = (
    *("--accelerate_config", "--num_processes", "--mixed_precision", "--gpu_ids", "--num_machines"),
    *("--machine_rank", "--main_process_ip", "--main_process_port"),
)

# What `teamsrl quickstart --model` uses unless the user says otherwise.
MODEL_SEEDS, MODEL_TEST_SIZE, MODEL_BATCH = 40, 0.2, 16


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    if argv is None:
        return leave(main(sys.argv[1:]))
    argv = list(argv)
    # Tokenizers warns if a process forks after using it; nothing here gains from its threads.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from .commands.arguments import guarded

    if argv and argv[0] in RECIPES:
        launch, options = split_launch_options(argv[1:]) if argv[0] == "sft" else ([], argv[1:])
        if launch:
            return launch_recipe(RECIPES[argv[0]][0], launch, options)
        return guarded(lambda: load_recipe(RECIPES[argv[0]][0]).main(options))

    def run() -> None:
        if not argv:
            commands = ", ".join(("quickstart", *RECIPES, "ledger", "push"))
            raise UserError(f"teamsrl needs a command: {commands}. `teamsrl --help` says what each is for.")
        args = _parser().parse_args(argv)
        args.run(args)

    return guarded(run)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="teamsrl", description="Teach a model to write better instruction datasets.")
    parser.add_argument("--version", action="version", version=f"teamsrl-hf {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    quickstart = commands.add_parser(
        "quickstart", help="the whole path at small scale: policy, dataset, fine-tuned model"
    )
    SeedArguments.add_options(quickstart)
    quickstart.add_argument(
        "--output_dir", default="teamsrl-quickstart", help="folder for all results (default: %(default)s)"
    )
    quickstart.add_argument(
        "--model",
        metavar="SPEC",
        help="language model for every role, fine-tuned at the end: transformers:PATH_OR_ID, or a mapping as JSON, "
        'such as \'{"transformers": "FOLDER", "gguf_file": "NAME.gguf"}\'; of the built-in seeds it uses 40, unless '
        "--max_seeds says otherwise; left out: rules, which need no model",
    )
    quickstart.set_defaults(run=_quickstart)
    ledger = commands.add_parser("ledger", help="model calls and cost of a run, in total and per accepted row")
    ledger.add_argument("folder", help="folder that holds ledger.sqlite, or the file itself")
    ledger.add_argument("--json", action="store_true", help="print JSON")
    ledger.set_defaults(run=_ledger)
    push = commands.add_parser("push", help="push a folder to the Hub in one commit")
    load_recipe("push_folder").add_arguments(push)
    push.set_defaults(run=_push)
    for name, (_, text) in RECIPES.items():
        commands.add_parser(name, help=f"{text} (all arguments: teamsrl {name} --help)", add_help=False)
    return parser


def load_recipe(name: str) -> ModuleType:
    """The recipe script `recipes/<name>.py` as a module, the very file that `accelerate launch` runs."""
    module_name = f"teamsrl_recipe_{name}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    return module_of_file(module_name, resource(f"recipes/{name}.py"))


def split_launch_options(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The options of a command line that are for `accelerate launch`, and the rest.

    >>> split_launch_options(["--config", "a.yaml", "--num_processes=2", "--accelerate_config", "zero3"])
    (['--num_processes', '2', '--accelerate_config', 'zero3'], ['--config', 'a.yaml'])
    """
    launch: list[str] = []
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        name, given, value = word.partition("=")
        if name in LAUNCH_OPTIONS:
            launch += [name, value if given else next(words, "")]
        else:
            rest.append(word)
    return launch, rest


def launch_recipe(name: str, launch: Sequence[str], options: Sequence[str]) -> int:
    """Run a recipe's processes with `accelerate launch`; returns the exit status. The processes report errors."""
    import signal

    from .commands.arguments import guarded
    from .commands.signals import STOPPING, Forwarding

    status = 0

    def run() -> None:
        nonlocal status
        words = _accelerate_words(launch)  # Before accelerate, which takes seconds to import.
        from subprocess import CalledProcessError

        from accelerate.commands.launch import launch_command, launch_command_parser
        from torch.distributed.elastic.multiprocessing.api import SignalException
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

        heard = [signum.name for signum in STOPPING if signal.getsignal(signum) != signal.SIG_IGN]
        os.environ.setdefault("TORCHELASTIC_SIGNALS_TO_HANDLE", ",".join(heard))
        for logger in ("torch.distributed.elastic", "torch.distributed.elastic.agent.server.api"):
            logging.getLogger(logger).setLevel(logging.CRITICAL)
        try:
            parser = launch_command_parser()
            parser.error = _refuse  # Its own prints 100 lines before the one that counts.
            launch_command(parser.parse_args([*words, str(resource(f"recipes/{name}.py")), *options]))
        except ChildFailedError as error:
            status = error.get_first_failure()[1].exitcode
        except CalledProcessError as error:
            status = error.returncode
        except SignalException as stopped:
            status = 128 + stopped.sigval

    refused = guarded(run, Forwarding())
    if status not in (0, 2, *(128 + signum for signum in STOPPING)):  # With these the process has said what is wrong.
        print(f"error: a process of the launch ended with status {status}", file=sys.stderr)
    return refused or (status if status > 0 else 1 if status else 0)


def _refuse(message: str) -> NoReturn:
    raise UserError(f"{message} (an option of `accelerate launch`)")


def _accelerate_words(launch: Sequence[str]) -> list[str]:
    """Options as accelerate has them: `--accelerate_config` takes the name of a file of ours, or a path."""
    words: list[str] = []
    for option, value in zip(launch[::2], launch[1::2]):
        if not value:
            raise UserError(f"{option} needs a value.")
        if option != "--accelerate_config":
            words += [option, value]
            continue
        known = sorted(file.stem for file in resource("accelerate_configs").glob("*.yaml"))
        if value not in known and not Path(value).is_file():
            raise UserError(
                f"No accelerate config {value!r}; give the path of a file, or one of "
                f"{', '.join(known)}{did_you_mean(value, known)}"
            )
        words += ["--config_file", str(resource(f"accelerate_configs/{value}.yaml")) if value in known else value]
    return words


def _quickstart(args: argparse.Namespace) -> None:
    """Train, evolve and fine-tune with the quickstart's files, then print a summary."""
    from .commands.arguments import seeds_digest
    from .runs import finish_run, hold, open_run

    # Each of the three stages has a progress bar; bars of every mapping and shard would hide them.
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    given, spec = SeedArguments.of_options(args), _local_spec(args.model) if args.model else None
    if spec is None:
        # Such small models gain nothing from a second thread, and lose much time if the processor is shared.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    else:
        given.test_size = MODEL_TEST_SIZE
        given.max_seeds = MODEL_SEEDS if given.seeds is None and given.max_seeds is None else given.max_seeds
    train, test = given.load()
    if spec is not None and not (train and test):
        raise UserError(
            f"Seeds to train on: {len(train)}, held out: {len(test)}; each needs at least one, so give more."
        )
    out = Path(args.output_dir)
    run = {"command": "quickstart", "seeds": seeds_digest([*train, *test])} | ({"model": spec} if spec else {})
    with hold(out):
        done = open_run(out, run)
        if done is None:
            done = _run_stages(out, given) if spec is None else _run_model_stages(out, given, spec)
            finish_run(out, done)
    _print_summary(out, done)


def _local_spec(text: str) -> dict[str, Any]:
    """The specification of a model that can be fine-tuned here, as a mapping."""
    from .models.factory import check_model

    check_model(text)
    if text.lstrip().startswith("{"):
        spec = json.loads(text)
    else:
        kind, _, name = text.partition(":")
        spec = {kind: name}
    if "transformers" not in spec:
        raise UserError(
            f"The quickstart fine-tunes its model on this machine; --model can't be of the kind {next(iter(spec))}: "
            "give transformers:PATH_OR_ID. For models behind an endpoint use train-policy, evolve and sft."
        )
    return {"batch_size": MODEL_BATCH, **spec}


def _stage(number: str, title: str, recipe: str, config: str, *options: str) -> dict[str, Any]:
    print(f"[{number}] {title}", file=sys.stderr)
    return load_recipe(recipe).main(["--config", str(resource(f"recipes/quickstart/{config}.yaml")), *options])


def _run_stages(out: Path, given: SeedArguments) -> dict[str, Any]:
    seeds = [*given.options(), "--ledger", str(out / "ledger.sqlite")]
    policy, dataset, model = str(out / "policy"), str(out / "dataset"), str(out / "model")
    trained = _stage("1/3", "Training the policy", "train_policy", "train_policy", *seeds, "--output_dir", policy)
    to = ["--policy", policy, "--output_dir", dataset]
    evolved = _stage("2/3", "Evolving the dataset", "evolve_dataset", "evolve_dataset", *seeds, *to)
    tuned = _stage("3/3", "Fine-tuning", "sft", "sft", "--dataset_name", dataset, "--output_dir", model)
    return {"policy": trained, "dataset": evolved, "model": tuned, "calls": ledger_totals(out / "ledger.sqlite")}


def _run_model_stages(out: Path, given: SeedArguments, spec: dict[str, Any]) -> dict[str, Any]:
    """The stages with one language model as instructor, reviewer, expert and student.

    Raises:
        NothingMade: A stage made nothing that the next one, or the user, could use.
    """
    import torch

    from .models.factory import make_generator

    if "gguf_file" in spec:
        spec = _unpacked(spec, out)
    everyone, name = make_generator(spec), json.dumps(spec)  # Held, so that the stages share one copy in memory.
    reviewer, paid = ["--reviewer", name], ["--ledger", str(out / "ledger.sqlite")]
    calibration = str(out / "calibration.json")
    print("[1/4] Measuring the reviewer", file=sys.stderr)
    measured = load_recipe("calibrate").main([*reviewer, *paid, "--output", calibration]).questions["different"]
    seeds = [*given.options(), "--test_size", str(MODEL_TEST_SIZE), *paid, *reviewer, "--calibration", calibration]
    policy, dataset, model = str(out / "policy"), str(out / "dataset"), str(out / "model")
    options = [*seeds, "--instructor", name, "--output_dir", policy]
    trained = _stage("2/4", "Training the policy", "train_policy", "train_policy_smollm2", *options)
    if not any(trained[f"accept_rate_{which}"] for which in ("after", "uniform")):
        raise NothingMade("No rewrite passed in the evaluation of the policy; give a larger model.", trained)
    options = [*seeds, "--expert", name, "--chooser", "policy", "--policy", policy, "--output_dir", dataset]
    evolved = _stage("3/4", "Evolving the dataset", "evolve_dataset", "evolve_smollm2", *options)
    del everyone
    options = ["--model_name_or_path", spec["transformers"], "--dataset_name", dataset, "--output_dir", model]
    options += ["--use_cpu", "false" if torch.accelerator.is_available() else "true"]
    tuned = _stage("4/4", "Fine-tuning", "sft", "sft_smollm2", *options)
    if not tuned["loss_after"] < tuned["loss_before"]:
        change = f"{tuned['loss_before']:.2f} to {tuned['loss_after']:.2f}"
        raise NothingMade(f"Fine-tuning did not lower the loss on held-out rows ({change}); give more seeds.", tuned)
    calls = ledger_totals(out / "ledger.sqlite")
    return {
        "policy": trained,
        "dataset": evolved,
        "model": tuned,
        "calls": calls,
        "spec": spec,
        "reviewer": measured.accuracy,
    }


def _unpacked(spec: dict[str, Any], out: Path) -> dict[str, Any]:
    """The specification of the same model in a folder of safetensors, which is written unless it is there."""
    from .sft.unpack import unpack_gguf

    spec = dict(spec)
    name, file = spec.pop("transformers"), spec.pop("gguf_file")
    folder = out / Path(file).stem
    if not (folder / "model.safetensors").exists():
        print(f"Unpacking {file}", file=sys.stderr)
        unpack_gguf(name, file, folder, spec.get("dtype", "auto"))
    return {"transformers": str(folder), **spec}


def ledger_totals(path: Path) -> dict[str, int]:
    """Calls by role."""
    from .models.ledger import Ledger

    with Ledger(path) as ledger:
        return {role: totals.calls for role, totals in ledger.totals().items()}


def _print_summary(out: Path, summary: dict[str, Any]) -> None:
    policy, dataset, model = summary["policy"], summary["dataset"], summary["model"]
    from .public import public_model

    who = public_model(summary["spec"]) if "spec" in summary else "rulebook: rules, no LLM"
    rejections = ", ".join(f"{name} {count}" for name, count in dataset["rejections"].items())
    right = f", right on {summary['reviewer']:.0%} of labelled rewrites" if "reviewer" in summary else ""
    print(
        f"""
rows               {dataset["rows"]}
rejected steps     {sum(dataset["rejections"].values())} ({rejections})
model calls        {", ".join(f"{role} {count}" for role, count in summary["calls"].items())} ({who}{right})
reward per chain   {policy["reward_before"]:.2f} before, {policy["reward_after"]:.2f} after training, \
{policy["reward_uniform"]:.2f} with random operations (held-out seeds)
loss of the model  {model["loss_before"]:.2f} before, {model["loss_after"]:.2f} after fine-tuning (held-out rows)
policy             {out / "policy"}
dataset            {out / "dataset"}
model              {out / "model"}"""
    )


def _ledger(args: argparse.Namespace) -> None:
    from .models.accounting import report, table

    found = report(args.folder)
    print(json.dumps(found, indent=2) if args.json else table(found))


def _push(args: argparse.Namespace) -> None:
    load_recipe("push_folder").push(args)


if __name__ == "__main__":
    sys.exit(main())
