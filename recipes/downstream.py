"""Fine-tune the same tiny model on the dataset of each method of a comparison; measure the held-out loss.

    python recipes/compare.py --config recipes/quickstart/compare.yaml --output_dir outputs/comparison
    python recipes/downstream.py --comparison outputs/comparison --output_dir outputs/downstream

The held-out rows come from the seeds that trained the choosers, which no dataset was evolved from. `seeds` are these
seeds; `evolved` has each operation applied once to each of them. The comparison's expert responds to both. Each
training has the same number of steps, so that rows of smaller datasets repeat more often.
"""

import hashlib
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from teamsrl_hf.cli import load_recipe
from teamsrl_hf.commands.arguments import SeedArguments, guarded, parse, run_arguments, seeds_digest
from teamsrl_hf.commands.signals import leave
from teamsrl_hf.errors import UserError, check_number, most_failed
from teamsrl_hf.evaluation import comparison
from teamsrl_hf.evaluation.intervals import mean_interval
from teamsrl_hf.runs import finish_run, hold, open_run, read_run
from teamsrl_hf.types import Role, TaskKind

BEGIN, END = "<!-- table: written by recipes/downstream.py -->", "<!-- end of table -->"
BEGIN_EQUAL = "<!-- table: written by recipes/downstream.py --equal_rows true -->"
SETS = {"seeds": "held-out seeds", "evolved": "held-out seeds, evolved"}


@dataclass
class DownstreamArguments:
    """The datasets and length of the trainings."""

    comparison: str = field(metadata={"help": "Output folder of recipes/compare.py."})
    output_dir: str = field(metadata={"help": "Folder for results.json and README.md."})
    seeds: str | None = field(default=None, metadata={"help": "The comparison's --seeds, if it had any."})
    equal_rows: bool = field(
        default=False, metadata={"help": "Train on the first rows of each dataset, as many as the smallest has."}
    )
    steps: int = field(default=80, metadata={"help": "Steps of each training."})
    batch_size: int = field(default=8, metadata={"help": "Rows per step."})
    learning_rate: float = field(default=1e-2, metadata={"help": "Peak of a schedule that decays linearly to zero."})
    max_length: int = field(default=192, metadata={"help": "Longest row in tokens; the rest is cut."})
    test_rows: int = field(default=100, metadata={"help": "Most rows of each held-out set."})

    def __post_init__(self):
        for name in ("steps", "batch_size", "max_length", "test_rows"):
            check_number(name, getattr(self, name), 1)
        check_number("learning_rate", self.learning_rate, above=0)


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Train on every dataset, measure, write the table. Returns the content of results.json."""
    (args,) = parse((DownstreamArguments,), argv, "python recipes/downstream.py", __doc__)
    compared = read_run(args.comparison)
    if compared is None:
        raise UserError(f"{args.comparison} holds no comparison; give the output folder of recipes/compare.py.")
    if compared["summary"] is None:
        raise UserError(f"The comparison in {args.comparison} is not complete; run its command again first.")
    settings = run_arguments(args, without=("comparison", "output_dir", "seeds"))
    rows = sorted((Path(args.comparison) / "runs").glob("*.json"))
    digest = hashlib.blake2b(b"".join(file.read_bytes() for file in rows), digest_size=8).hexdigest()
    with hold(args.output_dir):
        done = open_run(args.output_dir, {"comparison": compared["arguments"], "rows": digest, **settings})
        if done is not None:
            print(f"{args.output_dir} is already complete.")
            return done
        results = experiment(compared, args)
        lists = ",\n".join(map(json.dumps, results["records"]))
        text = f'{{\n"facts": {json.dumps(results["facts"], indent=1)},\n"records": [\n{lists}\n]\n}}\n'
        (Path(args.output_dir) / "results.json").write_text(text, encoding="utf-8")
        report = f"# Downstream\n\n{caption(results)}\n\n{table(results)}\n"
        (Path(args.output_dir) / "README.md").write_text(report, encoding="utf-8")
        print(table(results))
        finish_run(args.output_dir, results)
        return results


def experiment(compared: Mapping[str, Any], args: DownstreamArguments) -> dict[str, Any]:
    """The stages: held-out rows, base model, a training for each method and repetition."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from teamsrl_hf.sft.tiny import build_tiny_model

    facts, settings = compared["summary"]["facts"], compared["arguments"]
    held_out = comparison_seeds(settings, args.seeds)
    rows = held_out_rows(held_out, settings, args)
    # Its tokenizer is trained on held-out rows, so that no method is favoured.
    base = build_tiny_model((text for row in rows["evolved"] for text in row), Path(args.output_dir) / "base")
    tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
    tests = {name: encode(some, tokenizer, args.max_length) for name, some in rows.items()}
    untrained = AutoModelForCausalLM.from_pretrained(base, trust_remote_code=False)
    before = {name: loss_of(untrained, test) for name, test in tests.items()}
    records = []
    most = facts["equal_rows"] if args.equal_rows else None
    for method in facts["methods"]:
        for number in range(facts["repetitions"]):
            run = load_recipe("compare").read_rows(Path(args.comparison) / "runs", method, number, settings["seeds"])
            made = [(row["instruction"], row["response"]) for row in run["rows"][:most]]
            if not made:
                raise UserError(f"{method} made no row in repetition {number + 1}, so nothing can be learned from it.")
            model = train(base, encode(made, tokenizer, args.max_length), args, number)
            losses = {name: round(loss_of(model, test), 4) for name, test in tests.items()}
            records.append({"method": method, "repetition": number, "rows": len(made), **losses})
            print(records[-1], flush=True)
    return {
        "facts": {
            **{name: facts[name] for name in ("methods", "repetitions", "budget")},
            "seeds_digest": settings["seeds"],
            "before": {name: round(value, 4) for name, value in before.items()},
            "test_rows": {name: len(test) for name, test in tests.items()},
            "parameters": untrained.num_parameters(),
            "equal_rows": most,
            "steps": args.steps,
            "batch_size": args.batch_size,
        },
        "records": records,
    }


def comparison_seeds(settings: Mapping[str, Any], path: str | None) -> list:
    """The seeds that the comparison trained its choosers on."""
    names = ("seed_column", "input_column", "drop_duplicate_seeds", "test_size")
    train, test = SeedArguments(
        path, **{name: settings[name] for name in names}, max_seeds=settings.get("max_seeds")
    ).load()
    if seeds_digest([*train, *test]) != settings["seeds"]:
        raise UserError("These are not the comparison's seeds; give the --seeds it was run with.")
    return train


def held_out_rows(seeds: Sequence, settings: Mapping[str, Any], args: DownstreamArguments) -> dict[str, list]:
    """Instructions with the expert's responses: the seeds, and each operation applied once to each seed."""
    from teamsrl_hf.calls import run_async
    from teamsrl_hf.environment.rollout import carry_out, uniform
    from teamsrl_hf.models.base import Request, Task
    from teamsrl_hf.models.factory import make_generator
    from teamsrl_hf.models.ledger import Ledger
    from teamsrl_hf.text.operations import OPERATIONS

    models = [make_generator(settings[role]) for role in ("expert", "reviewer")]

    async def rows(expert: Any, reviewer: Any) -> dict[str, list[tuple[str, str]]]:
        texts = {"seeds": [seed.text for seed in seeds], "evolved": []}
        pairs = [(seed, operation) for seed in seeds for operation in OPERATIONS]
        pairs.sort(key=lambda pair: uniform("held out", pair[0].id, pair[1].name))
        for seed, operation in pairs:
            if len(texts["evolved"]) < args.test_rows:
                made = await carry_out([seed.text], operation, expert, reviewer, role=Role.EXPERT)
                texts["evolved"] += [made.rewrite] if made.review.passed else []
        chosen = {name: some[: args.test_rows] for name, some in texts.items()}
        return {name: [(text, (await expert(question(text))).text) for text in some] for name, some in chosen.items()}

    def question(text: str) -> Request:
        return Request(Role.EXPERT, ({"role": "user", "content": text},), task=Task(TaskKind.ANSWER, (text,)))

    with Ledger(Path(args.output_dir) / "ledger.sqlite") as ledger:
        asked = run_async(rows(*map(ledger.record, models)))
        errors = [error for error, _ in ledger.failures()]
    # A failed call has no response.
    answered = {name: [row for row in made if row[1]] for name, made in asked.items()}
    if len(errors) > (count := sum(map(len, answered.values()))):
        raise most_failed("the expert and the reviewer", errors, count)
    return answered


def encode(rows: Sequence[tuple[str, str]], tokenizer: Any, max_length: int) -> list[tuple[Any, Any]]:
    """Token ids and labels of each row whose response starts within `max_length`; labels mask the prompt."""
    import torch

    from teamsrl_hf.sft.template import encode_chat

    encoded = []
    for instruction, response in rows:
        prompt = [{"role": "user", "content": instruction}]
        start = len(encode_chat(tokenizer, prompt, add_generation_prompt=True))
        ids = encode_chat(tokenizer, [*prompt, {"role": "assistant", "content": response}])[:max_length]
        if len(ids) > start:
            encoded.append((torch.tensor(ids), torch.tensor([-100] * start + ids[start:])))
    if not encoded:
        raise UserError(f"Not one of {len(rows)} answers starts within max_length = {max_length} tokens; raise it.")
    return encoded


def batched(rows: Sequence[tuple[Any, Any]]) -> dict[str, Any]:
    """Rows as the padded arguments of a model."""
    from torch.nn.utils.rnn import pad_sequence

    ids, labels = ([row[part] for row in rows] for part in (0, 1))
    mask = pad_sequence([row.new_ones(len(row)) for row in ids], batch_first=True)
    labels = pad_sequence(labels, batch_first=True, padding_value=-100)
    return {"input_ids": pad_sequence(ids, batch_first=True), "attention_mask": mask, "labels": labels}


def train(base: Path, rows: Sequence, args: DownstreamArguments, seed: int) -> Any:
    """The base model after a full fine-tuning of `steps` steps on `rows`."""
    import torch
    from transformers import AutoModelForCausalLM, get_linear_schedule_with_warmup

    model = AutoModelForCausalLM.from_pretrained(base, trust_remote_code=False).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate)
    schedule = get_linear_schedule_with_warmup(optimizer, args.steps // 10, args.steps)
    generator = torch.Generator().manual_seed(seed)
    waiting: list[int] = []
    for _ in range(args.steps):
        while len(waiting) < args.batch_size:
            waiting += torch.randperm(len(rows), generator=generator).tolist()
        picked, waiting = waiting[: args.batch_size], waiting[args.batch_size :]
        model(**batched([rows[row] for row in picked])).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return model.eval()


def loss_of(model: Any, rows: Sequence) -> float:
    """Mean loss per answer token (nats) over all rows."""
    import torch

    total = tokens = 0
    ordered = sorted(rows, key=lambda row: len(row[0]))
    with torch.no_grad():
        for start in range(0, len(ordered), 16):
            batch = batched(ordered[start : start + 16])
            count = int((batch["labels"][:, 1:] != -100).sum())
            total, tokens = total + model(**batch).loss.item() * count, tokens + count
    return total / tokens


def caption(results: Mapping[str, Any]) -> str:
    """What the table shows and how it was measured, in a paragraph."""
    facts = results["facts"]
    before = ", ".join(f"{facts['before'][name]:.2f} on {label}" for name, label in SETS.items())
    what = f"the rows that each method made with {facts['budget']} paid calls"
    if facts.get("equal_rows"):
        what = f"the first {facts['equal_rows']} rows of each method"
    return (
        f"A random Llama of {facts['parameters']:,} parameters, fine-tuned for {facts['steps']} steps of "
        f"{facts['batch_size']} rows on {what}; loss per answer "
        f"token in nats on {facts['test_rows']['seeds']} and {facts['test_rows']['evolved']} held-out rows "
        f"(before: {before}), all from the seeds with digest `{facts['seeds_digest']}`. "
        f"Mean ± half the 95 % interval (Student's t) over {facts['repetitions']} repetitions, "
        "each with its own datasets and order; differences are paired by repetition."
    )


def table(results: Mapping[str, Any]) -> str:
    """Losses of each method and their differences from uniform operations, as Markdown between two marks."""
    heads = ["method", "rows", *(f"loss, {label}" for label in SETS.values())]
    versus = "uniform" if "uniform" in results["facts"]["methods"] else results["facts"]["methods"][0]
    heads += [f"less {comparison.LABELS[versus]}: {label}" for label in SETS.values()]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for method in results["facts"]["methods"]:
        values = {name: comparison.values_of(results, method, name) for name in ("rows", *SETS)}
        cells = [f"{statistics.mean(values['rows']):.0f}", *(_cell(values[name]) for name in SETS)]
        for name in SETS:
            others = comparison.values_of(results, versus, name)
            gaps = [ours - theirs for ours, theirs in zip(values[name], others)]
            cells.append("–" if method == versus else _cell(gaps, "+"))
        lines.append(f"| {comparison.LABELS[method]} | " + " | ".join(cells) + " |")
    return "\n".join([mark_of(results), *lines, END])


def mark_of(results: Mapping[str, Any]) -> str:
    """The mark before the table of these results."""
    return BEGIN_EQUAL if results["facts"].get("equal_rows") else BEGIN


def _cell(values: Sequence[float], sign: str = "") -> str:
    mean, half = mean_interval(values)
    return f"{mean:{sign}.3f} ± {half:.3f}"


if __name__ == "__main__":
    sys.exit(leave(guarded(main)))
