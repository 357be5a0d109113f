"""Teach a language model to carry out operations, with TRL's GRPO.

    python recipes/train_rewriter.py --config recipes/quickstart/train_rewriter_smollm2.yaml
    accelerate launch --config_file accelerate_configs/ddp.yaml recipes/train_rewriter.py --config … --output_dir …

The model is asked for edits, or whole rewrites, of seeds; the gate, the reviewer and the default rewards judge what it
says, as they judge an evolver's steps. Before and after, it carries out every operation on held-out seeds, greedily.
Out comes a LoRA adapter, which `transformers:MODEL+ADAPTER` names as instructor or expert; with `--use_peft false` a
whole model.
"""

import json
import sys
from dataclasses import dataclass, field
from typing import Any

from teamsrl_hf.commands.arguments import (
    OperationArguments,
    SeedArguments,
    guarded,
    parse,
    run_arguments,
    seeds_digest,
)
from teamsrl_hf.commands.signals import leave
from teamsrl_hf.errors import check_number
from teamsrl_hf.models.factory import check_model, make_generator
from teamsrl_hf.publish.licenses import settle_license
from teamsrl_hf.runs import finish_run, hold, open_run

_ELSEWHERE = ("seeds", "output_dir", "resume_from_checkpoint")


@dataclass
class RewriterArguments:
    """Who judges the rewrites, and how many held-out seeds they are measured on."""

    reviewer: str | dict = field(
        default="rulebook", metadata={"help": "Model that says whether a rewrite gained anything."}
    )
    eval_seeds: int = field(
        default=12, metadata={"help": "Held-out seeds to measure on before and after; 0 for none."}
    )
    license: str | None = field(
        default=None, metadata={"help": "Licence of the model, as the Hub names it, for its card; left out: unknown."}
    )

    def __post_init__(self):
        check_number("eval_seeds", self.eval_seeds, 0, whole=True)
        settle_license(self.license, ours=False)


# Those that import torch are named, so that --help does not wait for it.
TYPES = (
    *(SeedArguments, OperationArguments, RewriterArguments),
    *("trl.trainer.model_config:ModelConfig", "trl.trainer.grpo_config:GRPOConfig"),
)


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Load, measure, train, measure, save. Returns the pass rates and where the adapter lies."""
    seed_args, operation_args, script_args, model_args, grpo_args = parse(
        TYPES, argv, "python recipes/train_rewriter.py", __doc__, required=["output_dir"]
    )
    from teamsrl_hf.sft.grpo import check_grpo

    check_grpo(model_args, grpo_args)
    train, test = seed_args.load()
    operations = operation_args.select()
    check_model(script_args.reviewer)
    arguments = run_arguments(seed_args, operation_args, script_args, model_args, grpo_args, without=_ELSEWHERE)
    with hold(grpo_args.output_dir, first=grpo_args.process_index == 0):
        with grpo_args.main_process_first():  # Else the others meet a folder that is half claimed.
            done = open_run(grpo_args.output_dir, {"seeds": seeds_digest([*train, *test]), **arguments})
        if done is not None:
            print(f"{grpo_args.output_dir} is already complete.")
            return done
        summary = learn(train, test[: script_args.eval_seeds], operations, script_args, model_args, grpo_args)
        if grpo_args.process_index == 0:
            finish_run(grpo_args.output_dir, summary)
            print(json.dumps(summary, indent=1))
        return summary


def learn(train, test, operations, script_args, model_args, grpo_args) -> dict[str, Any]:
    """The stages: trainer, measure, train, measure, save."""
    from datasets import Dataset

    from teamsrl_hf.environment.rewriter import rewriter_reward, rewriting_rows
    from teamsrl_hf.sft.card import rewriter_card
    from teamsrl_hf.sft.grpo import grpo_trainer, rewards_of, save_trained

    reviewer = make_generator(script_args.reviewer)
    rows = Dataset.from_list(rewriting_rows(train, operations))
    reward = rewriter_reward(operations, reviewer, grpo_args.max_completion_length)
    trainer = grpo_trainer(rows, reward, model_args, grpo_args)
    before = pass_rates(trainer, test, operations, reviewer)
    trained = trainer.train(resume_from_checkpoint=grpo_args.resume_from_checkpoint)
    summary = {
        "model": str(grpo_args.output_dir),
        "rows": len(rows),
        "test_seeds": len(test),
        "steps": trainer.state.global_step,
        "passed_before": before,
        "passed_after": pass_rates(trainer, test, operations, reviewer),
        **rewards_of(trainer),
        "seconds": round(trained.metrics["train_runtime"], 1),
    }
    save_trained(trainer, rewriter_card(summary, script_args, model_args, grpo_args))
    return summary


def pass_rates(trainer, seeds, operations, reviewer) -> dict[str, float]:
    """The share of rewrites of `seeds` that pass, by operation and for all; greedy, with the model as it is now."""
    from teamsrl_hf.environment.rollout import carry_out, run_all
    from teamsrl_hf.sft.grpo import answering

    if not seeds:
        return {}
    steps = [(seed, operation) for operation in operations for seed in seeds]
    with answering(trainer) as (rewriter, greedy):
        made = run_all([carry_out((seed.text,), operation, rewriter, reviewer, greedy) for seed, operation in steps])
    passed = [float(transition.review.passed) for transition in made]
    shares = {
        operation.name: sum(passed[place * len(seeds) : (place + 1) * len(seeds)]) / len(seeds)
        for place, operation in enumerate(operations)
    }
    return {name: round(share, 4) for name, share in {**shares, "all": sum(passed) / len(passed)}.items()}


if __name__ == "__main__":
    sys.exit(leave(guarded(main)))
