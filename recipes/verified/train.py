"""What verified rows are good for in training: in goes a model, out come accuracies after SFT, and GRPO's rewards.

    python recipes/verified/train.py all --output_dir outputs/verified_runs

The parts, which may also be run one by one:

- `answers`: the run `stepwise` of `study.py` again, but with first answers only; all of them are in its ledger.
- `sft`: the model learns from the answers that pass, and from as many of the same run as they came. Each is then asked
  seeds that the run did not have, with constraints of held-out kinds.
- `grpo`: `recipes/grpo.py` runs for some steps on the run's seeds with constraints that short answers can keep.

Each outcome is one file in the output folder, so that a stopped study goes on. `study.py table` tells them.
"""

import argparse
import json
import random
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from recipes.verified.study import MODEL, evolve, evolving  # noqa: E402
from teamsrl_hf.cli import load_recipe  # noqa: E402
from teamsrl_hf.environment.rewriting import appended  # noqa: E402
from teamsrl_hf.errors import UserError  # noqa: E402
from teamsrl_hf.text.seeds import load_seeds  # noqa: E402
from teamsrl_hf.verifiers import KINDS, Verifier, sample, verified  # noqa: E402

RECIPES = HERE.parent
# Kinds that an answer of a few dozen tokens can keep.
SHORT_KINDS = (
    *("startend:first_word", "startend:quotation", "punctuation:no_comma", "punctuation:forbidden_mark"),
    *("detectable_format:one_line", "detectable_content:no_digits", "keywords:existence", "keywords:forbidden_words"),
)
MOST_CHARACTERS = 200  # Of an instruction for GRPO, where time is short.


def answers(args: argparse.Namespace) -> None:
    """The stepwise run without retries: its ledger holds all answers already, so it makes no call."""
    folder = Path(args.output_dir)
    ledger = folder / "stepwise" / "ledger.sqlite"
    if not ledger.exists():
        raise UserError(f"{folder / 'stepwise'} holds no run; run `study.py run` first.")
    command = evolving(args.model, args.max_seeds, answer_retries=0, ledger=ledger, method="stepwise")
    evolve([*command, "--output_dir", str(folder / "answers")])


def read_answers(folder: Path) -> list[dict[str, Any]]:
    """The candidates of that run whose answers only a verifier could reject, with what today's verifiers say."""
    import pyarrow.parquet

    files = sorted((folder / "answers" / "trajectories").glob("*.parquet"))
    if not files:
        raise UserError(f"{folder / 'answers'} holds no finished run; run the part `answers` first.")
    rows = [row for file in files for row in pyarrow.parquet.read_table(file).to_pylist()]
    kept = [row for row in rows if row["verifiers"] and (row["accepted"] or row["reason"] in KINDS)]
    for row in kept:
        row["passed"] = all(verified(row["response"], [Verifier(**one) for one in row["verifiers"]]))
    return kept


# -- sft


def sft(args: argparse.Namespace) -> None:
    """Fine-tune on each arm's rows for each seed, and ask each model and the base what is held out."""
    from teamsrl_hf.evaluation.verifiable.prompts import held_out_prompts

    folder, rows = Path(args.output_dir), read_answers(Path(args.output_dir))
    passing = [row for row in rows if row["passed"]]
    asked = held_out_prompts(load_seeds()[args.max_seeds :], args.prompts_per_kind)
    outcome(folder, "sft-base-0", lambda: {"arm": "base", "rows": 0, **measured(args, args.model, asked)})
    for seed in range(args.seeds):
        drawn = {"verified": passing, "unverified": random.Random(seed).sample(rows, len(passing))}
        for arm, chosen in drawn.items():
            name = f"sft-{arm}-{seed}"

            def made(chosen: Sequence[dict[str, Any]] = chosen, name: str = name, arm: str = arm) -> dict[str, Any]:
                model = trained(args, folder / name, chosen, int(name[-1]))
                shares = {"passed_in_training": sum(row["passed"] for row in chosen) / len(chosen)}
                return {"arm": arm, "rows": len(chosen), **shares, **measured(args, model, asked)}

            outcome(folder, name, made)


def trained(args: argparse.Namespace, folder: Path, rows: Sequence[dict[str, Any]], seed: int) -> str:
    """The model with an adapter that has learned the rows, as a generator's specification names it."""
    from datasets import Dataset

    pairs = [
        {"prompt": said("user", row["rewrite"]), "completion": said("assistant", row["response"])} for row in rows
    ]
    Dataset.from_list(pairs).to_parquet(folder / "rows" / "train.parquet")
    options = {"config": RECIPES / "quickstart" / "sft_smollm2.yaml", "model_name_or_path": args.model, "seed": seed}
    options |= {"dataset_name": folder / "rows", "output_dir": folder / "model", "num_train_epochs": args.epochs}
    options |= {"disable_tqdm": "true"}
    load_recipe("sft").main([word for name, value in options.items() for word in (f"--{name}", str(value))])
    return f"{args.model}+{folder / 'model'}"


def said(role: str, content: str) -> list[dict[str, str]]:
    """A turn as a column holds it."""
    return [{"role": role, "content": content}]


def measured(args: argparse.Namespace, model: str, asked: Sequence[Any]) -> dict[str, Any]:
    """Strict and loose accuracy of a model's greedy answers to held-out prompts."""
    from teamsrl_hf.evaluation.verifiable.scores import ask, judged, summary
    from teamsrl_hf.models.factory import make_generator

    generator = make_generator({"transformers": model, "batch_size": 32})
    found = judged(asked, ask(generator, asked, args.max_tokens))
    told = summary(asked, found)
    rates = {f"{mode}_{level}": told[mode][level]["rate"] for mode in ("strict", "loose") for level in told[mode]}
    lengths = [len(one.answer.split()) for one in found]
    by_kind = {id: round(kind["strict"]["rate"] * kind["n"]) for id, kind in told["kinds"].items()}
    counts = {"prompts": told["prompts"], "constraints": told["constraints"], "words": sum(lengths) / len(lengths)}
    return {**counts, **rates, "kept": by_kind}


# -- grpo


def grpo(args: argparse.Namespace) -> None:
    """Run the recipe for each seed on instructions whose constraints short answers can keep."""
    folder = Path(args.output_dir)
    if not (folder / "grpo_rows").exists():
        write_rows(folder / "grpo_rows", args.max_seeds)
    for seed in range(args.seeds):
        outcome(folder, f"grpo-{seed}", lambda seed=seed: reinforced(args, folder, seed))


def write_rows(folder: Path, max_seeds: int) -> None:
    """Seeds with a constraint each, appended by rules, as a dataset that the recipe takes."""
    from datasets import Dataset

    known = load_seeds()
    for split, seeds in {"train": known[:max_seeds], "test": known[max_seeds:]}.items():
        drawn = [
            (seed.text, sample(seed.text, kinds=SHORT_KINDS)) for seed in seeds if len(seed.text) < MOST_CHARACTERS
        ]
        rows = [
            {
                "prompt": said("user", appended(text, one.sentence)),
                "verifiers": [{"id": one.verifier.id, "arguments": one.verifier.arguments}],
            }
            for text, one in drawn
            if one is not None
        ]
        Dataset.from_list(rows).to_parquet(folder / f"{split}.parquet")


def reinforced(args: argparse.Namespace, folder: Path, seed: int) -> dict[str, Any]:
    """The outcome of one run of the recipe: reward of the first and last quarter, pass rate before and after."""
    options = {"config": RECIPES / "grpo" / "smollm2_135m_cpu.yaml", "model_name_or_path": args.model, "seed": seed}
    options |= {"dataset_name": folder / "grpo_rows", "output_dir": folder / f"grpo-{seed}", "max_steps": args.steps}
    options |= {"max_completion_length": 48, "learning_rate": 3e-4}
    found = load_recipe("grpo").main([word for name, value in options.items() for word in (f"--{name}", str(value))])
    names = ("rows", "test_rows", "steps", "reward_first", "reward_last", "seconds")
    passed = {"before": found["passed_before"]["all"], "after": found["passed_after"]["all"]}
    return {"seed": seed, **{name: found[name] for name in names}, **passed}


def outcome(folder: Path, name: str, make: Any) -> None:
    """Write what `make` returns, unless a run before has."""
    file = folder / f"{name}.json"
    if not file.exists():
        found = {"seed": int(name.rpartition("-")[2]), **make()}
        file.write_text(json.dumps(found), encoding="utf-8")
        print(f"{name}: {json.dumps(found)}", file=sys.stderr, flush=True)


PARTS = {"answers": answers, "sft": sft, "grpo": grpo}


def main(argv: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("all", *PARTS))
    parser.add_argument("--output_dir", required=True)
    parser.add_argument("--model", default=MODEL, help="folder or Hub id")
    parser.add_argument("--max_seeds", type=int, default=120, help="as in study.py; later seeds are held out")
    parser.add_argument("--seeds", type=int, default=3, help="training seeds of each arm, and of GRPO")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--steps", type=int, default=60, help="steps of GRPO")
    parser.add_argument("--prompts_per_kind", type=int, default=8)
    parser.add_argument("--max_tokens", type=int, default=160, help="longest answer")
    args = parser.parse_args(argv)
    for name, part in PARTS.items():
        if args.part in ("all", name):
            part(args)


if __name__ == "__main__":
    main()
