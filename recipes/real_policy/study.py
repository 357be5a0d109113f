"""What learning to choose operations brings with a real model: train choosers, evolve held-out seeds, read rewrites.

    python recipes/real_policy/study.py run --output_dir outputs/real_policy
    python recipes/real_policy/study.py sample outputs/real_policy --output to_read.jsonl
    python recipes/real_policy/study.py table outputs/real_policy --labels recipes/real_policy/labels.jsonl

The model answers greedily, so a text and an operation always give the same rewrite, and all arms share one ledger.
The second command draws rewrites of every arm before any rule has seen them, in an order that hides the arms; a reader
adds `label` to each. The third writes results.json beside the README, and the README's tables.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from teamsrl_hf.environment.bandits import LinUCBChooser, ThompsonChooser, train_chooser
from teamsrl_hf.environment.choosers import paper_chooser, uniform_chooser
from teamsrl_hf.environment.review import DEFAULT_REWARDS
from teamsrl_hf.environment.rollout import Chooser, rollout
from teamsrl_hf.errors import UserError
from teamsrl_hf.evaluation.embeddings import hashed_embeddings
from teamsrl_hf.evaluation.intervals import mean_interval, wilson_interval
from teamsrl_hf.evaluation.measures import vendi_score
from teamsrl_hf.evaluation.study import as_table, to_json, with_tables
from teamsrl_hf.models.base import Generator, Sampling
from teamsrl_hf.models.factory import make_generator
from teamsrl_hf.models.ledger import Ledger
from teamsrl_hf.models.rulebook.rules import Rulebook
from teamsrl_hf.public import public_name
from teamsrl_hf.text.operations import OPERATIONS
from teamsrl_hf.text.seeds import load_seeds, seeds_to_dataset, split_seeds
from teamsrl_hf.types import Seed, Trajectory

HERE = Path(__file__).resolve().parent
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
STEPS = 3  # Of a chain.
CHAINS = 16  # Of a rollout.
GREEDY = Sampling(temperature=0.0, top_p=1.0, max_tokens=128)
GOOD = "good"

FIXED = {"uniform": uniform_chooser, "paper": paper_chooser}
BANDITS = {"thompson": ThompsonChooser, "linucb": partial(LinUCBChooser, operations_per_episode=STEPS)}
POLICIES: dict[str, dict[str, Any]] = {"policy": {}, "no_text": {"see_text": False}}
ARMS = (*FIXED, "best_single", *BANDITS, *POLICIES)
LABELS = {
    "uniform": "uniform",
    "paper": "paper's schedule",
    "best_single": "always the best operation of the training seeds",
    "thompson": "Thompson sampling",
    "linucb": "LinUCB (history, step)",
    "policy": "**PPO policy**",
    "no_text": "PPO without text",
}


# -- run


def run(args: argparse.Namespace) -> None:
    """Train and evaluate every arm; each is one file in the output folder, so that a stopped study goes on."""
    folder = Path(args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    train, held_out = split_seeds(load_seeds(args.seeds), args.held_out_share)
    held_out = held_out[: args.held_out]
    with Ledger(folder / "ledger.sqlite") as ledger:
        model = ledger.record(
            make_generator(json.loads(args.model) if args.model else {"transformers": MODEL, "batch_size": CHAINS})
        )
        facts = {"model": public_name(model.model), "train": len(train), "held_out": len(held_out)}
        facts |= {"rollouts": args.rollouts, "date": date.today().isoformat()}
        (folder / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
        for arm in args.arms:
            for seed in range(1 if arm in FIXED or arm == "best_single" else args.training_seeds):
                file = folder / f"{arm}-{seed}.json"
                if not file.exists():
                    started = time.monotonic()
                    chooser = trained(arm, seed, train, model, args.rollouts)
                    outcome = {"arm": arm, "seed": seed, "chains": evaluated(chooser, held_out, model, seed)}
                    file.write_text(json.dumps(outcome, ensure_ascii=False), encoding="utf-8")
                    print(f"{arm} {seed}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


def trained(arm: str, seed: int, seeds: Sequence[Seed], model: Generator, rollouts: int) -> Chooser:
    """The chooser of an arm after `rollouts` rollouts of 16 chains."""
    if arm in FIXED:
        return FIXED[arm](OPERATIONS)
    if arm == "best_single":
        return always(best_operation(seeds, model, rollouts))
    if arm in BANDITS:
        bandit = BANDITS[arm](OPERATIONS)
        options = {"episodes": CHAINS, "steps": STEPS, "seed": seed, "sampling": GREEDY}
        train_chooser(bandit, seeds, OPERATIONS, model, Rulebook(), rollouts, **options)
        bandit.explore = False
        return bandit
    return train_policy(arm, seed, seeds, model, rollouts)


def best_operation(seeds: Sequence[Seed], model: Generator, rollouts: int) -> int:
    """The operation with the highest mean reward under the uniform chooser on as many training chains."""
    tried: list[list[float]] = [[] for _ in OPERATIONS]
    places = {operation.name: place for place, operation in enumerate(OPERATIONS)}
    order = random.Random(0)
    for number in range(rollouts):
        batch = order.sample(list(seeds), min(CHAINS, len(seeds)))
        chains = rollout(batch, uniform_chooser(OPERATIONS), OPERATIONS, model, Rulebook(), STEPS, (number,), GREEDY)
        for chain, row in zip(chains, rewards_of(chains)):
            for step, reward in zip(chain.transitions, row):
                tried[places[step.operation]].append(reward)
    means = [sum(one) / len(one) if one else 0.0 for one in tried]
    return means.index(max(means))


def always(operation: int) -> Chooser:
    """A chooser that knows one operation."""
    return lambda states, uniforms: [operation] * len(states)


def train_policy(arm: str, seed: int, seeds: Sequence[Seed], model: Generator, rollouts: int) -> Chooser:
    """A policy with the trainer's defaults."""
    from transformers import PrinterCallback, set_seed

    from teamsrl_hf.ppo.config import InstructionGenPPOConfig
    from teamsrl_hf.ppo.policy import OperationPolicy, OperationPolicyConfig
    from teamsrl_hf.ppo.trainer import InstructionGenPPOTrainer

    set_seed(seed)
    policy = OperationPolicy(OperationPolicyConfig(operations_per_episode=STEPS, **POLICIES[arm]))
    quiet = {"report_to": "none", "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True}
    sampling = {"temperature": GREEDY.temperature, "top_p": GREEDY.top_p, "max_tokens": GREEDY.max_tokens}
    with tempfile.TemporaryDirectory() as folder:
        config = InstructionGenPPOConfig(
            folder,
            seed=seed,
            use_cpu=True,
            operations_per_episode=STEPS,
            per_device_train_batch_size=4,
            **sampling,
            **quiet,
        )
        config.max_steps = rollouts * config.num_ppo_epochs * config.num_mini_batches
        trainer = InstructionGenPPOTrainer(
            policy, config, instructor=model, reviewer=Rulebook(), train_dataset=seeds_to_dataset(seeds)
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return policy.eval().choose


def evaluated(chooser: Chooser, seeds: Sequence[Seed], model: Generator, seed: int) -> list[list[dict[str, Any]]]:
    """The chains that `chooser` makes of held-out seeds: a mapping for each step."""
    chains = rollout(seeds, chooser, OPERATIONS, model, Rulebook(), STEPS, ("held out", seed), GREEDY)
    return [
        [
            {
                "operation": step.operation,
                "instruction": step.instruction,
                "rewrite": step.rewrite,
                "edit": step.edit,
                "passed": step.review.passed,
                "reason": step.review.reason,
                "reward": reward,
            }
            for step, reward in zip(chain.transitions, row)
        ]
        for chain, row in zip(chains, rewards_of(chains))
    ]


def rewards_of(chains: Sequence[Trajectory]) -> list[list[float]]:
    """The default reward of each step."""
    parts = [reward(chains) for reward in DEFAULT_REWARDS]
    return [[sum(one or 0.0 for one in step) for step in zip(*rows)] for rows in zip(*parts)]


# -- sample


def sample(args: argparse.Namespace) -> None:
    """Write the rewrites to read: of each arm `each` steps of its evaluation, those of several arms once."""
    drawn = {
        key: step for arm in read_arms(args.folder, args.arms) for key, step in drawn_steps(arm, args.each).items()
    }
    order = sorted(drawn)
    random.Random(7).shuffle(order)
    with open(args.output, "w", encoding="utf-8") as file:
        for number, key in enumerate(order):
            step = drawn[key]
            row = {"id": f"r{number:03d}", **{name: step[name] for name in ("operation", "instruction")}}
            row["raw"] = step["rewrite"] if step["rewrite"] != step["instruction"] else ""
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    print(f"{len(order)} rewrites to read in {args.output}", file=sys.stderr)


def drawn_steps(outcomes: Sequence[dict[str, Any]], each: int) -> dict[tuple[str, str], dict[str, Any]]:
    """`each` steps of an arm, drawn over its training seeds, by operation and instruction."""
    steps = [step for outcome in outcomes for chain in outcome["chains"] for step in chain]
    luck = random.Random(f"{outcomes[0]['arm']}")
    drawn: dict[tuple[str, str], dict[str, Any]] = {}
    for step in luck.sample(steps, len(steps)):
        drawn.setdefault((step["operation"], step["instruction"]), step)
        if len(drawn) == each:
            break
    return drawn


def read_arms(folder: str, arms: Sequence[str]) -> list[list[dict[str, Any]]]:
    """The outcomes of each arm, one for each training seed."""
    found = [sorted(Path(folder).glob(f"{arm}-*.json")) for arm in arms]
    if missing := [arm for arm, files in zip(arms, found) if not files]:
        raise UserError(f"{folder} holds no outcome of {missing[0]}; run the study first.")
    return [[json.loads(file.read_text(encoding="utf-8")) for file in files] for files in found]


# -- table


def table(args: argparse.Namespace) -> None:
    """Write results.json and the README's tables."""
    labels = {}
    for line in Path(args.labels).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        labels[row["operation"], row["instruction"]] = row["label"]
    facts = json.loads((Path(args.folder) / "facts.json").read_text(encoding="utf-8"))
    records = [record(outcomes, labels, args.each) for outcomes in read_arms(args.folder, args.arms)]
    results = {"facts": facts, "records": records}
    readme = Path(args.readme)
    (readme.parent / "results.json").write_text(to_json(results), encoding="utf-8")
    readme.write_text(with_tables(readme.read_text(encoding="utf-8"), render(results)), encoding="utf-8")


def record(outcomes: Sequence[dict[str, Any]], labels: dict[tuple[str, str], str], each: int) -> dict[str, Any]:
    """The measures of one arm; lists hold a number for each training seed."""
    steps = [[step for chain in outcome["chains"] for step in chain] for outcome in outcomes]
    rows = [[step["rewrite"] for step in one if step["passed"]] for one in steps]
    read = [labels[key] for key in drawn_steps(outcomes, each) if key in labels]
    return {
        "arm": outcomes[0]["arm"],
        "reward": [sum(s["reward"] for s in one) / len(o["chains"]) for one, o in zip(steps, outcomes)],
        "passed": [len(kept) / len(one) for kept, one in zip(rows, steps)],
        "vendi": [vendi_score(hashed_embeddings(kept)) for kept in rows],
        "good": sum(label == GOOD for label in read),
        "read": len(read),
        "shares": operation_shares([step["operation"] for one in steps for step in one]),
    }


def operation_shares(taken: Sequence[str]) -> dict[str, float]:
    """The share of each operation among those taken."""
    return {operation.name: round(taken.count(operation.name) / len(taken), 3) for operation in OPERATIONS}


def render(results: dict[str, Any]) -> str:
    """The tables as Markdown."""
    headings = ["chooser", "reward per chain", "share that passes the gate", "Vendi of rows", "good, read blind"]
    measured = [
        [
            LABELS[entry["arm"]],
            *(_told(entry[name], digits) for name, digits in (("reward", 2), ("passed", 3), ("vendi", 1))),
            _good(entry),
        ]
        for entry in results["records"]
    ]
    names = [operation.name for operation in OPERATIONS]
    shares = [
        [LABELS[entry["arm"]], *(f"{entry['shares'][name]:.2f}" for name in names)] for entry in results["records"]
    ]
    return f"{as_table(headings, measured)}\n{as_table(['share of steps', *names], shares)}"


def _told(values: Sequence[float], digits: int) -> str:
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    mean, half = mean_interval(values)
    return f"{mean:.{digits}f} ± {half:.{digits}f}"


def _good(entry: dict[str, Any]) -> str:
    if not entry["read"]:
        return "not read"
    low, high = wilson_interval(entry["good"], entry["read"])
    return f"{entry['good']}/{entry['read']} = {entry['good'] / entry['read']:.2f} ({low:.2f}–{high:.2f})"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="train and evaluate every arm")
    running.add_argument("--output_dir", required=True)
    running.add_argument("--model", help=f"JSON that make_generator takes; left out: {MODEL}")
    running.add_argument("--seeds", help="file of seeds; left out: the built-in ones")
    running.add_argument("--held_out_share", type=float, default=0.24)
    running.add_argument("--held_out", type=int, default=72, help="held-out seeds that are evolved")
    running.add_argument(
        "--rollouts", type=int, default=10, help="rollouts of 48 operations that each arm learns from"
    )
    running.add_argument("--training_seeds", type=int, default=3)
    reading = commands.add_parser("sample", help="write rewrites for a reader, blind to the arm")
    reading.add_argument("folder")
    reading.add_argument("--output", required=True)
    writing = commands.add_parser("table", help="write results.json and the README's tables")
    writing.add_argument("folder")
    writing.add_argument("--labels", default=str(HERE / "labels.jsonl"))
    writing.add_argument("--readme", default=str(HERE / "README.md"))
    for one in (running, reading, writing):
        one.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    for one in (reading, writing):
        one.add_argument("--each", type=int, default=60, help="rewrites of each arm that are read")
    args = parser.parse_args(argv)
    {"run": run, "sample": sample, "table": table}[args.command](args)


if __name__ == "__main__":
    main()
