"""Reinforcement learning with verifiers: TRL's GRPO on the rows of `evolve_dataset.py --constraints rules`.

    python recipes/grpo.py --config recipes/grpo/smollm2_135m_cpu.yaml --dataset_name outputs/rows
    accelerate launch --config_file accelerate_configs/zero2.yaml recipes/grpo.py --config … --dataset_name …

The reward of an answer is the share of its row's constraints that code finds kept, so nothing has to be judged. It
comes after fine-tuning (merge the adapter first) or in its place. Before and after, the model answers held-out
prompts, greedily. Out comes a LoRA adapter; with `--use_peft false` a whole model. In Python it is TRL's own trainer:

    rows = load_dataset("outputs/rows")["train"].filter(lambda row: row["verifiers"])
    GRPOTrainer(model, reward_funcs=verifier_reward, train_dataset=rows, args=GRPOConfig(...)).train()
"""

import hashlib
import json
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from teamsrl_hf.commands.arguments import guarded, parse, run_arguments
from teamsrl_hf.commands.signals import leave
from teamsrl_hf.errors import UserError, check_number
from teamsrl_hf.publish.licenses import settle_license
from teamsrl_hf.runs import finish_run, hold, open_run

_ELSEWHERE = ("dataset_name", "output_dir", "resume_from_checkpoint")


@dataclass
class VerifiedArguments:
    """Which rows, and on how many of those held out the model is measured."""

    dataset_name: str | None = field(default=None, metadata={"help": "Required: folder or Hub id of the dataset."})
    dataset_config: str | None = field(default=None, metadata={"help": "Its configuration; left out: the default."})
    dataset_train_split: str = field(default="train", metadata={"help": "Split to train on."})
    dataset_test_split: str = field(
        default="test", metadata={"help": "Split to measure on; if it is missing, rows are held out."}
    )
    eval_rows: int = field(default=32, metadata={"help": "Held-out rows to measure on before and after; 0 for none."})
    license: str | None = field(
        default=None, metadata={"help": "Licence of the model, as the Hub names it, for its card; left out: unknown."}
    )

    def __post_init__(self):
        check_number("eval_rows", self.eval_rows, 0, whole=True)
        settle_license(self.license, ours=False)


# Those that import torch are named, so that --help does not wait for it.
TYPES = (VerifiedArguments, "trl.trainer.model_config:ModelConfig", "trl.trainer.grpo_config:GRPOConfig")


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Load, measure, train, measure, save. Returns the pass rates and where the adapter lies."""
    script_args, model_args, grpo_args = parse(
        TYPES, argv, "python recipes/grpo.py", __doc__, required=["output_dir", "dataset_name"]
    )
    from teamsrl_hf.sft.grpo import check_grpo

    check_grpo(model_args, grpo_args)
    train, test = load_rows(script_args, grpo_args.seed)
    arguments = run_arguments(script_args, model_args, grpo_args, without=_ELSEWHERE)
    with hold(grpo_args.output_dir, first=grpo_args.process_index == 0):
        with grpo_args.main_process_first():  # Else the others meet a folder that is half claimed.
            done = open_run(grpo_args.output_dir, {"rows": digest_of(train, test), **arguments})
        if done is not None:
            print(f"{grpo_args.output_dir} is already complete.")
            return done
        summary = learn(train, test, script_args, model_args, grpo_args)
        if grpo_args.process_index == 0:
            finish_run(grpo_args.output_dir, summary)
            print(json.dumps(summary, indent=1))
        return summary


def load_rows(script_args: VerifiedArguments, seed: int) -> tuple[Any, Any]:
    """Rows with verifiers to train and to measure on."""
    from teamsrl_hf.sft.data import hold_out, load_source

    name, splits = script_args.dataset_name, load_source(script_args.dataset_name, script_args.dataset_config)
    if script_args.dataset_train_split not in splits:
        raise UserError(
            f"Dataset {name!r} has no split {script_args.dataset_train_split!r}, only {', '.join(splits)}."
        )
    train = with_verifiers(splits[script_args.dataset_train_split], name)
    if script_args.dataset_test_split not in splits:
        return hold_out(train, seed, 0.1)
    return train, with_verifiers(splits[script_args.dataset_test_split], name)


def with_verifiers(rows: Any, name: str | None) -> Any:
    """The rows that carry verifiers. UserError if there are none."""
    missing = [column for column in ("prompt", "verifiers") if column not in rows.column_names]
    kept = rows if missing else rows.select([n for n, found in enumerate(rows["verifiers"]) if found])
    if missing or not len(kept):
        why = f"no column {missing[0]!r}" if missing else "no row with a verifier"
        raise UserError(f"Dataset {name!r} has {why}; evolve one with `teamsrl evolve --constraints rules …`.")
    return kept


def digest_of(*datasets: Any) -> str:
    """A hash of all prompts and verifiers, to check whether a folder's run used the same rows."""
    digest = hashlib.blake2b(digest_size=8)
    for rows in datasets:
        for row in rows.select_columns(["prompt", "verifiers"]):
            digest.update(json.dumps(row, sort_keys=True).encode())
    return digest.hexdigest()


def learn(train, test, script_args: VerifiedArguments, model_args, grpo_args) -> dict[str, Any]:
    """The stages: trainer, measure, train, measure, save."""
    from teamsrl_hf import verifier_reward
    from teamsrl_hf.sft.card import verified_card
    from teamsrl_hf.sft.grpo import grpo_trainer, rewards_of, save_trained

    test = test.select(range(min(len(test), script_args.eval_rows)))
    trainer = grpo_trainer(train, verifier_reward, model_args, grpo_args)
    before = pass_rates(trainer, test)
    trained = trainer.train(resume_from_checkpoint=grpo_args.resume_from_checkpoint)
    summary = {
        "model": str(grpo_args.output_dir),
        "rows": len(train),
        "test_rows": len(test),
        "steps": trainer.state.global_step,
        "passed_before": before,
        "passed_after": pass_rates(trainer, test),
        **rewards_of(trainer),
        "seconds": round(trained.metrics["train_runtime"], 1),
    }
    save_trained(trainer, verified_card(summary, script_args, model_args, grpo_args))
    return summary


def pass_rates(trainer, rows) -> dict[str, float]:
    """The share of greedy answers that pass, by kind of verifier, and of rows all of whose verifiers do ("all")."""
    from teamsrl_hf.environment.rollout import run_all
    from teamsrl_hf.models.base import Request
    from teamsrl_hf.sft.grpo import answering
    from teamsrl_hf.types import Role
    from teamsrl_hf.verifiers import Verifier, verified

    if not len(rows):
        return {}
    with answering(trainer) as (generator, greedy):
        answers = run_all([generator(Request(Role.EXPERT, tuple(row["prompt"]), greedy)) for row in rows])
    asked, passed = Counter(), Counter()
    for row, answer in zip(rows, answers):
        found = verified(answer.text, [Verifier(**one) for one in row["verifiers"]])
        for id, kept in (*zip([one["id"] for one in row["verifiers"]], found), ("all", all(found))):
            asked[id] += 1
            passed[id] += kept
    return {id: round(passed[id] / asked[id], 4) for id in sorted(asked)}


if __name__ == "__main__":
    sys.exit(leave(guarded(main)))
