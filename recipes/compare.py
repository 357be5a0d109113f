"""Compare methods head to head: same seeds, same expert, same number of paid calls, several repetitions.

    python recipes/compare.py --config recipes/quickstart/compare.yaml --output_dir outputs/comparison

The learned choosers train on other seeds than those that are evolved. Calls of the expert and of Evol-Instruct's judge
are paid; instructor and reviewer count as local and free, and have a count of their own. The output folder gets
README.md, comparison.png, report.html, results.json, and all rows for `recipes/downstream.py`.
"""

import json
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from teamsrl_hf.commands.arguments import SeedArguments, guarded, parse, run_arguments, seeds_digest
from teamsrl_hf.commands.signals import leave
from teamsrl_hf.errors import NothingMade, UserError, check_number
from teamsrl_hf.evaluation.comparison import COLUMNS, METHODS, parts_of, write_comparison
from teamsrl_hf.evaluation.embeddings import Embed, embedder
from teamsrl_hf.models.base import Generator, Sampling
from teamsrl_hf.models.factory import check_model, check_named, make_generator
from teamsrl_hf.public import public_model
from teamsrl_hf.runs import finish_run, hold, open_run, write_json
from teamsrl_hf.text.words import count_words
from teamsrl_hf.types import CallKind

SHOWN = ("policy", "linucb", "uniform", "paper", "evol_instruct", "policy_plan_answer", "uniform_plan_answer")
POINTS = 6  # Of a curve.
EPISODES = 64  # Of one round of training.
MOST_CALLS = 4  # Of a model for one operation: two tries of an edit, a verdict of Evol-Instruct's judge, an answer.
FEWEST_CHAINS = 4  # At the same time: with fewer the batches of a local model stay all but empty.


@dataclass
class CompareArguments:
    """Methods, models and budget of the comparison."""

    output_dir: str = field(metadata={"help": "Folder for the report."})
    methods: list[str] = field(
        default_factory=lambda: list(SHOWN),
        metadata={
            "help": "Methods to compare: a chooser, alone (stepwise) or with a planned method, or evol_instruct.",
            "choices": METHODS,
        },
    )
    expert: str | dict | None = field(
        default=None, metadata={"help": "Required: paid model; rewrites, responds, judges."}
    )
    instructor: str | dict | None = field(
        default=None, metadata={"help": "Required: free model that trains choosers."}
    )
    reviewer: str | dict | None = field(default=None, metadata={"help": "Required: free model that reviews rewrites."})
    prompts: str | dict = field(
        default="small", metadata={"help": "How models are asked: tiny, small, large, or a file; see teamsrl evolve."}
    )
    budget: int = field(default=400, metadata={"help": "Paid calls of each method that count, in each repetition."})
    repetitions: int = field(default=5, metadata={"help": "Repetitions with different random numbers, 2 to 10."})
    rollouts: int = field(default=10, metadata={"help": "Rounds of 64 chains to train a chooser on."})
    operations_per_episode: int = field(default=6, metadata={"help": "Operations, or rounds, for each seed."})
    temperature: float = field(default=0.7, metadata={"help": "Sampling temperature of expert and instructor."})
    top_p: float = field(default=0.95, metadata={"help": "Nucleus that expert and instructor sample from."})
    max_tokens: int = field(default=2048, metadata={"help": "Most tokens of an answer of expert or instructor."})
    sampling_seed: int | None = field(
        default=None, metadata={"help": "Seed that expert and instructor sample with; left out: another each time."}
    )
    embedding: str = field(
        default="hashed_words", metadata={"help": "hashed_words, or the name of a sentence-transformers model."}
    )

    def __post_init__(self):
        if unknown := sorted(set(self.methods) - set(METHODS)):
            raise UserError(f"Unknown method {unknown[0]!r} in methods; use {', '.join(METHODS)}.")
        if not 2 <= self.repetitions <= 10:
            raise UserError(f"repetitions is {self.repetitions}; intervals need at least 2, so give 2 to 10.")
        for spec in (self.expert, self.instructor, self.reviewer):
            if spec is not None:
                check_model(spec)
        self.sampling(0)  # Which checks its numbers.
        check_number("rollouts", self.rollouts, 1)
        check_number("operations_per_episode", self.operations_per_episode, 1)
        if self.budget < 10:
            raise UserError(f"budget is {self.budget}; with fewer than 10 calls there is nothing to compare.")

    def sampling(self, number: int) -> Sampling:
        """Sampling parameters of a repetition; each has a seed of its own, or they would repeat each other."""
        seed = None if self.sampling_seed is None else self.sampling_seed + number
        return Sampling(self.temperature, self.top_p, self.max_tokens, seed)

    def settings(self, number: int) -> dict[str, Any]:
        """The same, as evolver and trainer name them."""
        values = asdict(self.sampling(number))
        return {"sampling_seed": values.pop("seed"), **values}


@dataclass(frozen=True)
class Models:
    """Loaded once for all methods: one copy, and one batch, for all roles that name the same local model."""

    expert: Generator
    instructor: Generator
    reviewer: Generator


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Train, evolve, measure, report. Returns what results.json holds."""
    seed_args, args = parse((SeedArguments, CompareArguments), argv, "teamsrl compare", __doc__)
    train, test = seed_args.load()
    if len(train) < 20 or len(test) < 20:
        raise UserError(f"{len(train)} seeds to train on and {len(test)} to evolve; need 20 each, see --test_size.")
    check_named(expert=args.expert, instructor=args.instructor, reviewer=args.reviewer)
    embed = embedder(args.embedding)  # Loaded first, so that an unknown one fails before anything is paid.
    settings = run_arguments(seed_args, args, without=("seeds", "output_dir"))
    digest = seeds_digest([*train, *test])
    with hold(args.output_dir):
        done = open_run(args.output_dir, {"seeds": digest, **settings})
        if done is not None:
            print(f"{args.output_dir} is already complete.")
            return done
        folder = Path(args.output_dir) / "runs"
        folder.mkdir(exist_ok=True)
        models = Models(*map(make_generator, (args.expert, args.instructor, args.reviewer)))
        for number in range(args.repetitions):
            for method, choose in choosers(args, models, train, number):
                file = folder / f"{method}-{number}.json"
                if not file.exists():
                    run = evolve(method, choose(), models, test, args, number, file.with_suffix(".sqlite"))
                    write_json(file, {"seeds_digest": digest, **run})
                    print(f"{method}, repetition {number + 1}: {told(run)}", flush=True)
        results = measure(args, train, test, folder, embed)
        write_comparison(Path(args.output_dir), results)
        finish_run(args.output_dir, results)
        return results


def told(run: Mapping[str, Any]) -> str:
    """Rows of a run, and its rejections by reason."""
    reasons = ", ".join(f"{name} {count}" for name, count in run["rejections"].items())
    return f"{len(run['rows'])} rows; rejected: {reasons or 'none'}"


# -- training


def choosers(
    args: CompareArguments, models: Models, train: Sequence, number: int
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Each method with a function that makes its chooser; methods share what was trained."""
    from functools import cache

    from teamsrl_hf.environment.choosers import paper_chooser, uniform_chooser
    from teamsrl_hf.text.operations import with_prompts

    operations = with_prompts(args.prompts)
    makers = {
        "policy": cache(lambda: train_policy(args, models, train, number)),
        "linucb": cache(lambda: train_bandit(args, models, train, number)),
        "uniform": lambda: uniform_chooser(operations),
        "paper": lambda: paper_chooser(operations),
    }
    for method in args.methods:
        yield method, makers[parts_of(method)[0]]


def train_bandit(args: CompareArguments, models: Models, train: Sequence, number: int) -> Any:
    """LinUCB on history and step, after training, without exploration."""
    from teamsrl_hf.environment.bandits import LinUCBChooser, train_chooser
    from teamsrl_hf.text.operations import with_prompts

    operations = with_prompts(args.prompts)
    bandit = LinUCBChooser(operations, operations_per_episode=args.operations_per_episode)
    options = {"steps": args.operations_per_episode, "seed": number, "sampling": args.sampling(number)}
    train_chooser(bandit, train, operations, models.instructor, models.reviewer, args.rollouts, **options)
    bandit.explore = False
    return bandit


def train_policy(args: CompareArguments, models: Models, train: Sequence, number: int) -> Any:
    """The operation policy after PPO with the trainer's defaults."""
    import tempfile

    import torch
    from transformers import PrinterCallback

    from teamsrl_hf.ppo.config import InstructionGenPPOConfig
    from teamsrl_hf.ppo.policy import OperationPolicy, OperationPolicyConfig
    from teamsrl_hf.ppo.trainer import InstructionGenPPOTrainer
    from teamsrl_hf.text.operations import with_prompts
    from teamsrl_hf.text.seeds import seeds_to_dataset

    torch.manual_seed(number)
    policy = OperationPolicy(OperationPolicyConfig(operations_per_episode=args.operations_per_episode))
    quiet = {"report_to": "none", "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True}
    with tempfile.TemporaryDirectory() as folder:
        config = InstructionGenPPOConfig(
            folder,
            seed=number,
            use_cpu=not torch.cuda.is_available(),
            total_episodes=args.rollouts * EPISODES,
            operations_per_episode=args.operations_per_episode,
            **args.settings(number),
            **quiet,
        )
        trainer = InstructionGenPPOTrainer(
            policy,
            config,
            instructor=models.instructor,
            reviewer=models.reviewer,
            train_dataset=seeds_to_dataset(train),
            operations=with_prompts(args.prompts),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return policy.eval().choose


# -- evolving


def evolve(
    method: str, chooser: Any, models: Models, seeds: Sequence, args: CompareArguments, number: int, file: Path
) -> dict[str, Any]:
    """Rows within the budget, each with the calls paid so far; the budget cuts the chain that crosses it."""
    from teamsrl_hf.environment.rollout import uniform
    from teamsrl_hf.evolve.evolver import DatasetEvolver, EvolverConfig
    from teamsrl_hf.models.ledger import Ledger
    from teamsrl_hf.text.operations import with_prompts
    from teamsrl_hf.types import Example

    kind = parts_of(method)[1]
    # One plan per operation of the walk: as many rows per seed as stepwise evolution makes.
    options = {"seed": number, "method": kind, "plan_length": 1, **args.settings(number)}
    config = EvolverConfig(args.operations_per_episode, **options)
    order = sorted(seeds, key=lambda seed: uniform("order", number, seed.id))
    rows: list[dict[str, Any]] = []
    rejections: Counter[str] = Counter()
    spent = free = seen = 0
    with Ledger(file) as paid:
        roles = paid.record(models.expert), models.reviewer, chooser, with_prompts(args.prompts)
        evolver = DatasetEvolver(*roles, config, instructor=models.instructor)
        while spent < args.budget and seen < len(order):
            start = chains_together(config, args.budget - spent, spent, seen)
            with closing(evolver.evolve(order[seen : seen + start])) as chains:
                for results in chains:
                    for result in results:
                        more = paid_and_free(result.candidate, kind)
                        spent, free = spent + more[0], free + more[1]
                        if spent > args.budget:
                            continue
                        if isinstance(result, Example):
                            rows.append(row_of(result.candidate, spent))
                        else:
                            rejections[result.reason] += 1
                    seen += 1
                    if spent >= args.budget:
                        break
        recorded = sum(totals.calls for totals in paid.totals().values())
    counts = {"paid": min(spent, args.budget), "free": free, "seeds": seen, "recorded": recorded}
    return {"rows": rows, **counts, "rejections": dict(sorted(rejections.items()))}


def chains_together(config: Any, left: int, spent: int, seen: int) -> int:
    """How many chains to start with `left` calls to pay for: as many as will use them up, by the `seen` ones so far.

    A local model fills its batches with them. What chains cost beyond the budget is not counted, but has to be paid.
    """
    each = spent / seen if spent else MOST_CALLS * config.operations_per_episode
    return max(FEWEST_CHAINS, config.pack_size * config.packs_per_group, int(left / each))


def paid_and_free(candidate: Any, kind: str) -> tuple[int, int]:
    """Paid and free calls of a candidate. In Evol-Instruct the expert itself gives the verdicts."""
    calls = dict(candidate.calls)
    free = calls.pop(CallKind.WALK, 0) + (0 if kind == "evol_instruct" else calls.pop(CallKind.REVIEW, 0))
    return sum(calls.values()), free


def row_of(candidate: Any, spent: int) -> dict[str, Any]:
    return {
        "instruction": candidate.transition.rewrite,
        "response": candidate.response,
        "seed_id": candidate.seed.id,
        "paid": spent,
    }


# -- measuring


def read_rows(folder: Path, method: str, number: int, digest: str) -> dict[str, Any]:
    """The rows that `evolve` wrote; UserError unless they are of the seeds with this digest."""
    file = folder / f"{method}-{number}.json"
    try:
        run = json.loads(file.read_bytes())
        same = run["seeds_digest"] == digest
    except (ValueError, KeyError, TypeError):  # Truncated by a kill, or written by another program.
        same = False
    if not same:
        raise UserError(f"{file} holds rows of other seeds than this comparison's; remove it, and run compare again.")
    return run


def measure(args: CompareArguments, train: Sequence, test: Sequence, folder: Path, embed: Embed) -> dict[str, Any]:
    """The content of results.json: facts, one record for each method and repetition, points of the curves."""
    digest = seeds_digest([*train, *test])
    runs = {
        (method, number): read_rows(folder, method, number, digest)
        for method in args.methods
        for number in range(args.repetitions)
    }
    equal = min((len(run["rows"]) for run in runs.values() if run["rows"]), default=0)
    if not equal:
        raise NothingMade(
            f"No method made a row within {args.budget} calls; raise --budget, or give a larger model.", {}
        )
    seeds = [seed.text for seed in test]
    records = [
        {"method": method, "repetition": number, **measures(run, equal, seeds, embed, number)}
        for (method, number), run in runs.items()
    ]
    curves = [
        {"method": method, "repetition": number, **point}
        for (method, number), run in runs.items()
        for point in curve(run["rows"], args.budget, embed)
    ]
    facts = {
        "budget": args.budget,
        "repetitions": args.repetitions,
        "train_seeds": len(train),
        "seeds": len(test),
        "seeds_digest": digest,
        "equal_rows": equal,
        "training_operations": args.rollouts * EPISODES * args.operations_per_episode,
        "expert": public_model(args.expert),
        "embedding": args.embedding,
        "methods": list(args.methods),
    }
    return {"facts": facts, "records": records, "curves": curves}


def measures(run: Mapping[str, Any], equal: int, seeds: Sequence[str], embed: Callable, number: int) -> dict[str, Any]:
    """All columns of the table for one run; `vendi_equal` is the mean over five samples of `equal` rows.

    What is said of rows is None where there is none.
    """
    from teamsrl_hf.evaluation.measures import novelty, vendi_score
    from teamsrl_hf.evaluation.readability import flesch_kincaid_grade

    counts = {name: run[name] for name in ("paid", "seeds", "recorded", "rejections")}
    texts = [row["instruction"] for row in run["rows"]]
    if not texts:
        return dict.fromkeys(COLUMNS) | {"rows": 0, **counts}
    vectors, rng = embed(texts), np.random.default_rng(number)
    draws = [vendi_score(vectors[rng.permutation(len(texts))[:equal]]) for _ in range(5)]
    found = {
        "rows": len(texts),
        **counts,
        "expert_calls_per_row": run["paid"] / len(texts),
        "calls_per_row": (run["paid"] + run["free"]) / len(texts),
        "vendi_equal": statistics.mean(draws),
        "vendi": vendi_score(vectors),
        "novelty": float(novelty(texts, seeds, embed).mean()),
        "words": statistics.mean(map(count_words, texts)),
        "grade": statistics.mean(flesch_kincaid_grade(text) for text in texts),
    }
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in found.items()}


def curve(rows: Sequence[Mapping[str, Any]], budget: int, embed: Callable) -> list[dict[str, float]]:
    """Rows, their Vendi score and reading grade after equal shares of the budget."""
    from teamsrl_hf.evaluation.measures import vendi_score
    from teamsrl_hf.evaluation.readability import flesch_kincaid_grade

    vectors = embed([row["instruction"] for row in rows]) if rows else np.empty((0, 0))
    grades = [flesch_kincaid_grade(row["instruction"]) for row in rows]
    points = []
    for step in range(1, POINTS + 1):
        calls = budget * step // POINTS
        count = sum(row["paid"] <= calls for row in rows)
        if count:
            point = {"vendi": vendi_score(vectors[:count]), "grade": statistics.mean(grades[:count])}
            points.append({"calls": calls, "rows": count, **{name: round(value, 3) for name, value in point.items()}})
    return points


if __name__ == "__main__":
    sys.exit(leave(guarded(main)))
