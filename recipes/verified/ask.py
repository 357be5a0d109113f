"""Answers to read by hand: in go a model and seeds, out come answers to instructions with one constraint each.

    python recipes/verified/ask.py answers --model '{"transformers": "HuggingFaceTB/SmolLM2-135M-Instruct"}' \\
        --output answers.jsonl
    python recipes/verified/ask.py draw answers.jsonl more_answers.jsonl --output to_read.jsonl

The first command asks a model, for each kind of constraint, a few instructions that the kind fits. The second draws
answers that verifiers pass, of as many kinds as it can; a reader adds `label`: `keeps`, or `false accept`. Small
models keep few constraints: where answers to one run out, it draws answers to others that pass it by chance.
"""

import argparse
import json
import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from teamsrl_hf.environment.rollout import run_all
from teamsrl_hf.models.base import Generator, Request, Sampling
from teamsrl_hf.models.factory import make_generator
from teamsrl_hf.public import public_name
from teamsrl_hf.text.seeds import load_seeds
from teamsrl_hf.types import Role, Seed
from teamsrl_hf.verifiers import KINDS, Constraint, Verifier, passes
from teamsrl_hf.verifiers.kind import Kind, describe, packed
from teamsrl_hf.verifiers.proofs import settled_by
from teamsrl_hf.verifiers.samplers import is_english

TEMPERATURE, TOP_P = 0.7, 0.95


def answers(args: argparse.Namespace) -> None:
    """Write a model's answers to instructions with one constraint each, and whether the verifier passes them."""
    model = make_generator(json.loads(args.model))
    asked = [
        (seed.text, one)
        for kind in KINDS.values()
        for seed, one in constrained(kind, load_seeds(args.seeds), args.each)
    ]
    with open(args.output, "w", encoding="utf-8") as file:
        for start in range(0, len(asked), 64):
            for row in answered(model, asked[start : start + 64], args.max_tokens):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
    print(f"{len(asked)} answers in {args.output}", file=sys.stderr)


def constrained(kind: Kind, seeds: Sequence[Seed], each: int) -> list[tuple[Seed, Constraint]]:
    """Up to `each` seeds that a kind fits, drawn for this kind, with a constraint of it; held-out kinds too."""
    rng, found = random.Random(kind.id), []
    for seed in rng.sample(list(seeds), len(seeds)):
        fits = is_english(seed.text) and not kind.settles & settled_by(seed.text)
        arguments = kind.sampler(rng, seed.text) if fits else None
        if arguments is not None:
            sentence = describe(kind, arguments, rng.randrange(len(kind.sentences)))
            found.append((seed, Constraint(sentence, Verifier(kind.id, packed(arguments)))))
        if len(found) == each:
            break
    return found


def answered(model: Generator, asked: Sequence[tuple[str, Constraint]], max_tokens: int) -> list[dict[str, Any]]:
    """The rows of some instructions; an answer that is cut stays, as far as it goes."""
    sampling = Sampling(TEMPERATURE, TOP_P, max_tokens, seed=42)
    contents = [({"role": "user", "content": f"{text}\n\n{one.sentence}"},) for text, one in asked]
    completions = run_all([model(Request(Role.EXPERT, content, sampling)) for content in contents])
    return [
        {
            "kind": one.verifier.id,
            "arguments": one.verifier.arguments,
            "model": public_name(completion.model),
            "instruction": text,
            "constraint": one.sentence,
            "answer": completion.text.strip(),
            "passed": passes(completion.text, one.verifier),
        }
        for (text, one), completion in zip(asked, completions)
    ]


def draw(args: argparse.Namespace) -> None:
    """Write answers that pass: round after round one more of each kind, until there are enough."""
    known = {(row["kind"], row["answer"]) for file in args.without for row in read_rows(file)}
    rows = [row for file in args.files for row in read_rows(file) if row["answer"]]
    random.Random(7).shuffle(rows)
    by_kind = {}
    for kind in KINDS.values():
        own = ({**row, "asked": True} for row in rows if row["kind"] == kind.id and passes_now(row))
        found = (row for row in chain(own, others(kind, rows)) if (kind.id, row["answer"]) not in known)
        by_kind[kind.id] = list(islice(found, args.each))
    longest = max(map(len, by_kind.values()))
    rounds = [found[place] for place in range(longest) for found in by_kind.values() if place < len(found)]
    chosen = sorted(rounds[: args.number], key=lambda row: list(KINDS).index(row["kind"]))
    with open(args.output, "w", encoding="utf-8") as file:
        for number, row in enumerate(chosen):
            kept = {name: value for name, value in row.items() if name != "passed"}
            file.write(json.dumps({"id": f"a{number:03d}", **kept}, ensure_ascii=False) + "\n")
    print(f"{len(chosen)} answers that pass in {args.output}", file=sys.stderr)


def passes_now(row: dict[str, Any]) -> bool:
    """Whether the verifier of a row passes its answer."""
    return passes(row["answer"], Verifier(row["kind"], row["arguments"]))


def others(kind: Kind, rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Answers to other constraints that pass one of this kind, which fits their instruction."""
    for row in rows:
        rng = random.Random(f"{kind.id} {row['answer']}")
        arguments = kind.sampler(rng, row["instruction"]) if row["kind"] != kind.id else None
        if arguments is not None and passes(row["answer"], Verifier(kind.id, packed(arguments))):
            sentence = describe(kind, arguments, rng.randrange(len(kind.sentences)))
            new = {"kind": kind.id, "arguments": packed(arguments), "constraint": sentence, "asked": False}
            yield {**row, **new}


def read_rows(file: str | Path) -> list[dict[str, Any]]:
    """The rows of a JSON Lines file."""
    return [json.loads(line) for line in Path(file).read_text(encoding="utf-8").splitlines()]


def main(argv: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    asking = commands.add_parser("answers", help="ask a model instructions with a constraint")
    asking.add_argument("--model", required=True, help="JSON that make_generator takes")
    asking.add_argument("--seeds", help="file of seeds; left out: the built-in ones")
    asking.add_argument("--each", type=int, default=10, help="instructions for each kind")
    asking.add_argument("--max_tokens", type=int, default=96, help="longest answer")
    asking.add_argument("--output", required=True)
    drawing = commands.add_parser("draw", help="draw answers that pass, for a reader")
    drawing.add_argument("files", nargs="+")
    drawing.add_argument("--number", type=int, default=200)
    drawing.add_argument("--each", type=int, default=6, help="answers for each kind, at most")
    drawing.add_argument("--without", nargs="*", default=[], help="files of answers that were read already")
    drawing.add_argument("--output", required=True)
    args = parser.parse_args(argv)
    {"answers": answers, "draw": draw}[args.command](args)


if __name__ == "__main__":
    main()
