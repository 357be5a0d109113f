"""Do rewards about a student predict what a row is worth to it? Rank correlations with the gain of training on it.

    python recipes/rewards/study.py --student transformers:STUDENT --expert transformers:EXPERT --output_dir outputs/a

A row is a built-in seed with a constraint that code can check, and the expert's answer. Its true gain is the fall of
the student's loss on held-out rows after a few steps on that row alone. Every call is in the ledger: a run that stops
resumes, and one that has ended writes its table again. `--readme FILE` writes the table into a document.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from teamsrl_hf.commands.arguments import guarded, parse, run_arguments
from teamsrl_hf.commands.signals import leave
from teamsrl_hf.errors import check_number
from teamsrl_hf.runs import hold, open_run

BEGIN, END = "<!-- table: written by recipes/rewards/study.py -->", "<!-- end of table -->"
TRUE_GAIN = "true gain"
# Rows are measured in chunks of this size, so that a run that is stopped has every measure of as many rows.
CHUNK = 20
# The names of the measures, and which of them grows with worth by its own account.
MEASURES = {
    "influence": "`influence_reward`",
    "ifd": "`ifd_reward`",
    "learnability": "`learnability_reward`",
    "verified": "`verified_reward`",
    "loss": "loss of the answer (control)",
    "length": "words of the answer (control)",
}


@dataclass
class StudyArguments:
    """The models, and how much is measured."""

    output_dir: str = field(metadata={"help": "Folder for the ledger and results.json."})
    student: str = field(metadata={"help": "Model in this process whose gain is measured."})
    expert: str = field(metadata={"help": "Model that answers the rows."})
    rows: int = field(default=200, metadata={"help": "Rows to measure."})
    held_out: int = field(default=12, metadata={"help": "Held-out rows that the true gain is measured on."})
    anchors: int = field(default=6, metadata={"help": "Anchor rows of influence_reward; none is held out."})
    samples: int = field(default=4, metadata={"help": "Answers of the student to each row."})
    max_tokens: int = field(default=64, metadata={"help": "Longest answer."})
    steps: int = field(default=4, metadata={"help": "Steps of the true gain on each row."})
    learning_rate: float = field(default=1e-3, metadata={"help": "Learning rate of these steps (AdamW, LoRA)."})
    seed: int = field(default=42, metadata={"help": "Seed of the rows and of sampling."})
    readme: str | None = field(default=None, metadata={"help": "Document to write the table into."})

    def __post_init__(self):
        for name in ("rows", "held_out", "anchors", "steps", "max_tokens"):
            check_number(name, getattr(self, name), 1, whole=True)
        check_number("samples", self.samples, 2, whole=True)


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure the rows, chunk by chunk, and write results.json. Returns its content."""
    (args,) = parse((StudyArguments,), argv, "python recipes/rewards/study.py", __doc__)
    with hold(args.output_dir):
        # A run may be continued with more rows.
        open_run(args.output_dir, run_arguments(args, without=("output_dir", "readme", "rows")))
        folder = Path(args.output_dir)
        costs = json.loads(file.read_text()) if (file := folder / "costs.json").exists() else {}
        records = measure(args, costs, lambda: file.write_text(json.dumps(costs)))
        results = {"facts": facts(args, records), "measures": correlations(records, costs), "rows": records}
        (folder / "results.json").write_text(to_json(results), encoding="utf-8")
        if args.readme:
            write_table(Path(args.readme), results)
        print(table(results))
        return results


def measure(args: StudyArguments, costs: dict[str, Any], keep: Callable[[], Any]) -> list[dict[str, float]]:
    """Every measure of every row; `costs` gets CPU-seconds by measure and chunk, where they were not there."""
    from teamsrl_hf.models.ledger import Ledger

    train, test = questions(args)
    records: list[dict[str, float]] = []
    with Ledger(Path(args.output_dir) / "ledger.sqlite") as ledger:
        functions = measuring(args, ledger, test)
        for at in range(0, len(train), CHUNK):
            chunk = train[at : at + CHUNK]
            rows = [{} for _ in chunk]
            for name, function in functions.items():
                started = time.process_time()
                for row, found in zip(rows, function(chunk), strict=True):
                    row.update(found)
                costs.setdefault(f"{name} {at}", [time.process_time() - started, len(chunk)])
                keep()
            records += rows
            print(f"{len(records)} of {len(train)} rows", file=sys.stderr, flush=True)
    return records


def questions(args: StudyArguments) -> tuple[list[Any], list[Any]]:
    """Rows to measure, and those held out together with anchors: instructions with their verifiers."""
    from teamsrl_hf.environment.rewriting import appended
    from teamsrl_hf.environment.rollout import uniform
    from teamsrl_hf.text.seeds import load_seeds
    from teamsrl_hf.verifiers import sample

    found = []
    for seed in sorted(load_seeds(), key=lambda seed: uniform("study", args.seed, seed.id)):
        constraint = sample(seed.text, (), args.seed)
        if constraint is not None:
            found.append((appended(seed.text, constraint.sentence), (constraint.verifier,)))
    apart = args.held_out + args.anchors
    return found[apart:][: args.rows], found[:apart]


def measuring(args: StudyArguments, ledger: Any, test: Sequence[Any]) -> dict[str, Callable]:
    """Functions of a chunk of rows by the name of what they cost; each gives the measures of each row by name."""
    from teamsrl_hf.environment.student.influence import Influence, gain
    from teamsrl_hf.environment.student.losses import AnswerLosses, difficulty, loaded_in
    from teamsrl_hf.models.factory import make_generator

    student, expert = make_generator(args.student), make_generator(args.expert)
    model, tokenizer = loaded_in(student)
    answered = answering(ledger.record(expert), args)
    rows = answered(test)
    held_out, anchors = rows[: args.held_out], rows[args.held_out :]
    options = {"processing_class": tokenizer, "batch_size": 8, "name": args.student}
    influence = ledger.record(Influence(model, anchors=anchors, **options))
    losses = ledger.record(AnswerLosses(model, **options))
    leave_in = ledger.record(make_leave_in(model, held_out, args, options))
    return {
        "answer": lambda chunk: [{"length": len(answer.split())} for _, answer in answered(chunk)],
        "ifd": lambda chunk: [{"ifd": difficulty(s), "loss": s[0]} for s in read(losses, answered(chunk))],
        "influence": lambda chunk: [{"influence": gain(s)} for s in read(influence, answered(chunk))],
        "verified": passing(ledger.record(student), args),
        TRUE_GAIN: lambda chunk: [{TRUE_GAIN: gain(s)} for s in read(leave_in, answered(chunk))],
    }


def answering(expert: Any, args: StudyArguments) -> Callable[[Sequence[Any]], list[tuple[str, str]]]:
    """A function of questions: them with the expert's greedy answers; an answer that failed is empty."""
    from teamsrl_hf.environment.rollout import run_all
    from teamsrl_hf.models.base import Request, Sampling, Task
    from teamsrl_hf.types import Role, TaskKind

    greedy = Sampling(temperature=0.0, top_p=1.0, max_tokens=args.max_tokens)

    def answered(chunk: Sequence[Any]) -> list[tuple[str, str]]:
        tasks = [Task(TaskKind.ANSWER, (text,)) for text, _ in chunk]
        asked = [({"role": "user", "content": text},) for text, _ in chunk]
        requests = [Request(Role.EXPERT, one, greedy, task=task) for one, task in zip(asked, tasks)]
        return [(text, found.text) for (text, _), found in zip(chunk, run_all(list(map(expert, requests))))]

    return answered


def read(reader: Any, rows: Sequence[tuple[str, str]]) -> list[tuple[float, ...]]:
    """What a reader says of rows."""
    from teamsrl_hf.calls import run_async
    from teamsrl_hf.environment.student.losses import read_rows

    return run_async(read_rows(reader, rows))


def passing(student: Any, args: StudyArguments) -> Callable[[Sequence[Any]], list[dict[str, float]]]:
    """A function of questions: how often the student passes, and how learnable that is."""
    from teamsrl_hf.environment.rewards import call_rewards
    from teamsrl_hf.environment.student.answers import verified_reward
    from teamsrl_hf.models.base import Sampling
    from teamsrl_hf.types import Review, Seed, Trajectory, Transition, Verdict

    sampling = Sampling(0.7, max_tokens=args.max_tokens, seed=args.seed)
    function = verified_reward(student, args.samples, sampling)

    def passed(chunk: Sequence[Any]) -> list[dict[str, float]]:
        review = Review(Verdict.NOT_EQUAL)
        steps = [Transition("", "", text, review, "", verifiers=verifiers) for text, verifiers in chunk]
        chains = [Trajectory(Seed("", ""), (step,)) for step in steps]
        rates = call_rewards([function], chains)["verified_reward"][:, 0].tolist()
        return [{"verified": rate, "learnability": rate * (1 - rate)} for rate in rates]

    return passed


def make_leave_in(model: Any, held_out: Sequence[tuple[str, str]], args: StudyArguments, options: Any) -> Any:
    """A reader of the true gain: the held-out loss before and after a few AdamW steps of a LoRA adapter on a row."""
    import torch

    from teamsrl_hf.environment.student.influence import Influence
    from teamsrl_hf.environment.student.losses import mean_losses

    class LeaveIn(Influence):
        measures = f"leave-in gain, {args.steps} steps of {args.learning_rate}"

        def _after(self, row):
            if not self.encoded(row)[1]:
                return self.before
            moved = [p for name, p in self._model.named_parameters() if "lora_" in name]
            start = [p.detach().clone() for p in moved]
            for p in moved:
                p.requires_grad_(True)
            optimizer = torch.optim.AdamW(moved, lr=args.learning_rate, weight_decay=0.0)
            for _ in range(args.steps):
                mean_losses(self._model, [self.encoded(row)], gradient=True)[0].backward()
                optimizer.step()
                optimizer.zero_grad()
            after = self._anchor_loss()
            with torch.no_grad():
                for p, value in zip(moved, start):
                    p.copy_(value)
            return after

    return LeaveIn(model, anchors=held_out, **options)


def correlations(records: Sequence[dict[str, float]], costs: dict[str, Any]) -> dict[str, Any]:
    """Spearman's rank correlation of each measure with the true gain, with a bootstrap interval over rows."""
    import numpy as np
    from scipy.stats import spearmanr

    from teamsrl_hf.evaluation.intervals import bootstrap_interval

    def rank_correlation(ours, theirs):
        return float(np.nan_to_num(spearmanr(ours, theirs).statistic))  # A resample may hold one value only.

    found = {}
    for name in MEASURES:
        pairs = np.array([(row[name], row[TRUE_GAIN]) for row in records if np.isfinite(row[name])])
        samples = pairs[:, 0], pairs[:, 1]
        interval = bootstrap_interval(samples, rank_correlation, paired=True)
        found[name] = {"n": len(pairs), "rank_correlation": rank_correlation(*samples), "interval": interval}
    for name in ("ifd", "influence", "verified", "learnability"):
        stage = "verified" if name == "learnability" else name  # The same answers.
        spent = [cost for key, cost in costs.items() if key.rpartition(" ")[0] == stage]
        found[name]["cpu_seconds_per_row"] = sum(cost[0] for cost in spent) / sum(cost[1] for cost in spent)
    return found


def facts(args: StudyArguments, records: Sequence[dict[str, float]]) -> dict[str, Any]:
    """What the table's caption says."""
    import numpy as np

    from teamsrl_hf.public import public_model

    gains = [row[TRUE_GAIN] for row in records]
    models = {name: public_model(getattr(args, name)) for name in ("student", "expert")}
    settings = ("held_out", "anchors", "samples", "max_tokens", "steps", "learning_rate", "seed")
    told = {"mean_gain": float(np.mean(gains)), "gain_deviation": float(np.std(gains, ddof=1))}
    return {**models, "rows": len(records), **{name: getattr(args, name) for name in settings}, **told}


def table(results: dict[str, Any]) -> str:
    """The caption and the table, as Markdown."""
    from teamsrl_hf.evaluation.study import as_table

    known = results["facts"]
    caption = (
        f"{known['rows']} rows; student {known['student']}, answers by {known['expert']}, at most "
        f"{known['max_tokens']} tokens. The true gain is the fall of the loss on {known['held_out']} held-out rows "
        f"after {known['steps']} steps on the row: {known['mean_gain']:+.4f} nats a token on average, "
        f"with a deviation of {known['gain_deviation']:.4f} between rows. In brackets are 95 % bootstrap intervals."
    )
    rows = []
    for name, title in MEASURES.items():
        found = results["measures"][name]
        low, high = found["interval"]
        cost = found.get("cpu_seconds_per_row")
        told = f"{found['rank_correlation']:+.2f} [{low:+.2f}, {high:+.2f}]"
        rows.append([title, str(found["n"]), told, "–" if cost is None else f"{cost:.2f}"])
    headings = ["measure", "rows", "rank correlation with the true gain", "CPU-seconds a row"]
    return f"{caption}\n\n{as_table(headings, rows)}"


def write_table(readme: Path, results: dict[str, Any]) -> None:
    """Put the table between the document's marks."""
    before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    readme.write_text(f"{before}{BEGIN}\n{table(results)}{END}{after}", encoding="utf-8")


def to_json(results: dict[str, Any]) -> str:
    """JSON with one row a line, rounded to six digits."""
    rows = ",\n".join(json.dumps({name: round(value, 6) for name, value in row.items()}) for row in results["rows"])
    head = json.dumps({name: results[name] for name in ("facts", "measures")}, indent=1)
    return f'{head[:-2]},\n "rows": [\n{rows}\n]\n}}\n'


if __name__ == "__main__":
    sys.exit(leave(guarded(main)))
