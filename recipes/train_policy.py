"""Train the operation policy with PPO.

    python recipes/train_policy.py --config recipes/quickstart/train_policy.yaml --output_dir outputs/policy
    accelerate launch --config_file accelerate_configs/ddp.yaml recipes/train_policy.py --config … --output_dir …

Instructor and reviewer are named by a spec: `rulebook`, `endpoint:MODEL@URL` or `transformers:MODEL`. The policy is
made from scratch, or, with `--model_name_or_path`, is a saved one, or a new one that reads text with an encoder or a
causal LM: frozen, with `--use_peft` trained by LoRA, with `--load_in_4bit` on four bits.

A failed call is no reward: its operation counts as not tried. If most calls to a model fail, training stops without
saving; the command ends with status 4 and resumes when it is run again.
"""

import gc
import sys
from dataclasses import dataclass, field
from pathlib import Path
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
from teamsrl_hf.environment.calibration import ReviewingArguments
from teamsrl_hf.environment.student.arguments import RewardArguments
from teamsrl_hf.errors import UserError
from teamsrl_hf.evolve.shards import Team
from teamsrl_hf.hub.arguments import HUB_ARGUMENTS, plan_push
from teamsrl_hf.models.base import check_carries_out
from teamsrl_hf.models.factory import check_named, make_generator
from teamsrl_hf.models.ledger import Ledger
from teamsrl_hf.models.parts import merge_parts, open_part, prepare_parts
from teamsrl_hf.public import public_model
from teamsrl_hf.publish.counts import RULEBOOK
from teamsrl_hf.publish.licenses import settle_license
from teamsrl_hf.publish.lineage import read_lineage, seeds_facts, versions, weights_digest, write_lineage
from teamsrl_hf.runs import finish_run, hold, open_run
from teamsrl_hf.training.checks import check_lora

# What may change between a run and the command that resumes it.
_ELSEWHERE = ("seeds", "ledger", "output_dir", "resume_from_checkpoint", *HUB_ARGUMENTS)


@dataclass
class TrainPolicyArguments:
    """What is trained, and which models act on its choices."""

    chooser: str = field(
        default="policy",
        metadata={"help": "What is trained: by PPO, or a bandit.", "choices": ["policy", "thompson", "linucb"]},
    )
    instructor: str | dict | None = field(
        default=None, metadata={"help": "Required: model that carries out operations."}
    )
    reviewer: str | dict | None = field(
        default=None, metadata={"help": "Required: model that says whether a rewrite gained anything."}
    )
    ledger: str | None = field(
        default=None, metadata={"help": "SQLite record of all calls; in the output folder if left out."}
    )


# Those that import torch are named, so that --help does not wait for it.
TYPES = (
    *(SeedArguments, OperationArguments, TrainPolicyArguments, ReviewingArguments, RewardArguments),
    *("trl.trainer.model_config:ModelConfig", "teamsrl_hf.ppo.config:InstructionGenPPOConfig"),
)


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Train, evaluate before and after, save. Returns the rewards and where the policy lies."""
    seed_args, operation_args, script_args, reviewing, rewards, model_args, ppo_args = parse(
        TYPES, argv, "teamsrl train-policy", __doc__, required=["output_dir"]
    )
    check_arguments(script_args, model_args, ppo_args)
    push = plan_push(ppo_args, "policy", model_args.model_name_or_path if model_args.use_peft else None)
    train, test = seed_args.load()
    facts = origin(seed_args, train, test, script_args, seen_before(model_args.model_name_or_path, test))
    facts |= {"reviewing": reviewing.facts, "rewards": rewards.facts}
    check_named(instructor=script_args.instructor, reviewer=script_args.reviewer)
    rewards.check()
    operations = rewards.operations(operation_args.select())
    models = make_generator(script_args.instructor), reviewing.apply(make_generator(script_args.reviewer))
    check_carries_out(operations, models[0])
    rules = script_args.instructor == script_args.reviewer == RULEBOOK and not model_args.model_name_or_path
    ppo_args.license = settle_license(ppo_args.license, ours=rules and seed_args.seeds is None)
    named = seed_args, operation_args, script_args, rewards, model_args, ppo_args
    arguments = run_arguments(*named, without=_ELSEWHERE)
    arguments |= reviewing.arguments
    with hold(ppo_args.output_dir, first=ppo_args.process_index == 0):
        with ppo_args.main_process_first():  # Else the others meet a folder that is half claimed.
            done = open_run(ppo_args.output_dir, {"seeds": seeds_digest([*train, *test]), **arguments})
        if done is not None:
            print(f"{ppo_args.output_dir} is already complete.")
        else:
            done = learn(train, test, operations, models, rewards, script_args, model_args, ppo_args)
            if ppo_args.process_index == 0:
                write_lineage(out := ppo_args.output_dir, "policy", {**facts, "weights": weights_digest(out)})
                finish_run(ppo_args.output_dir, done)
        if push and ppo_args.process_index == 0:
            print(push.carry_out(ppo_args.output_dir))
        return done


def learn(train, test, operations, models, rewards, script_args, model_args, ppo_args) -> dict[str, Any]:
    """Train what was asked for, with a ledger."""
    with open_ledger(Path(script_args.ledger or Path(ppo_args.output_dir) / "ledger.sqlite")) as ledger:
        models = [ledger.record(model) for model in models]
        carry_out = train_policy if script_args.chooser == "policy" else train_bandit
        paying = rewards.make(ledger.record, models[0], ppo_args.sampling_seed)
        summary = carry_out(train, test, operations, models, paying, script_args, model_args, ppo_args)
        ledger.conclude()
    return summary


def open_ledger(path: Path) -> Ledger:
    """The ledger, or of several processes each one's part of it."""
    team = Team.join()

    def prepare() -> str:
        with Ledger(path) as ledger:
            return prepare_parts(ledger, team.size)

    if team.size > 1:
        return open_part(path, team.first_does(prepare), team.rank, read_from=[path])
    ledger = Ledger(path)
    merge_parts(ledger)
    return ledger


def seen_before(name: str | None, test) -> list[str]:
    """Ids of the seeds that a policy was trained on before; UserError where held-out ones are among them."""
    known = read_lineage(name, "policy") if name else None
    seen = {*known["seeds"]["train"], *known.get("trained_before", ())} if known else set()
    if count := len(seen & {seed.id for seed in test}):
        raise UserError(
            f"{name!r} was trained on {count} of the {len(test)} held-out seeds, so they say nothing of new ones; "
            "give its --seeds and --test_size."
        )
    return sorted(seen)


def origin(seed_args: SeedArguments, train, test, script_args: TrainPolicyArguments, earlier: list[str]) -> dict:
    """What the policy or bandit is made from; `earlier` names the seeds that it was trained on before."""
    return {
        "trained_before": earlier,
        "chooser": script_args.chooser,
        "seeds": seeds_facts(seed_args.seeds, train, test, seed_args.test_size, seed_args.left_out),
        "models": {role: public_model(getattr(script_args, role)) for role in ("instructor", "reviewer")},
        "versions": versions(),
    }


def check_arguments(script_args: TrainPolicyArguments, model_args, ppo_args) -> None:
    """UserError for what can't be trained here."""
    check_lora(model_args)
    for name in ("use_peft", "load_in_4bit", "load_in_8bit"):
        if getattr(model_args, name) and not model_args.model_name_or_path:
            raise UserError(f"{name} is for a policy that reads with a model; name that with --model_name_or_path.")
    rollout = ppo_args.num_ppo_epochs * ppo_args.num_mini_batches
    if script_args.chooser != "policy" and ppo_args.max_steps < rollout:
        raise UserError(
            "A bandit needs --max_steps, in PPO's optimizer steps, to know how many rollouts to learn from; "
            f"one has {rollout}."
        )
    if script_args.ledger and ppo_args.world_size > 1:
        raise UserError(
            f"Several processes can't share the ledger {script_args.ledger}; leave --ledger out, each keeps its own."
        )
    if script_args.chooser != "policy" and ppo_args.world_size > 1:
        raise UserError("A bandit learns in one process; launch it without accelerate.")
    if script_args.chooser != "policy" and ppo_args.push_to_hub:
        raise UserError("A bandit is no model that the Hub could load; leave out push_to_hub.")


def train_policy(train, test, operations, models, reward_funcs, script_args, model_args, ppo_args) -> dict[str, Any]:
    """The stages: trainer, evaluate, train, evaluate, save."""
    from transformers import set_seed
    from trl import get_peft_config

    from teamsrl_hf.ppo.trainer import InstructionGenPPOTrainer
    from teamsrl_hf.text.seeds import seeds_to_dataset

    set_seed(ppo_args.seed)  # Before the policy is built, since its first weights are random.
    trainer = InstructionGenPPOTrainer(
        model=build_policy(model_args, operations, ppo_args),
        args=ppo_args,
        instructor=models[0],
        reviewer=models[1],
        reward_funcs=reward_funcs,
        train_dataset=seeds_to_dataset(train),
        eval_dataset=seeds_to_dataset(test) if test else None,
        operations=operations,
        peft_config=get_peft_config(model_args),
    )
    checkpoint = trainer.checkpoint_to_resume()
    if test:
        trainer.evaluate()  # Before a checkpoint is loaded; a resumed run finds its calls in the ledger.
    gc.freeze()  # What is there by now outlives the training, and need not be walked again and again.
    trainer.train(resume_from_checkpoint=checkpoint)
    gc.unfreeze()
    if test:
        trainer.evaluate()
    trainer.save_model()
    trainer.create_model_card()
    trainer.end()
    return {"policy": str(ppo_args.output_dir), **trainer.facts()}


def train_bandit(train, test, operations, models, reward_funcs, script_args, model_args, ppo_args) -> dict[str, Any]:
    """A bandit in the policy's place: as many rollouts of as many chains as PPO would make, each learned from once."""
    from teamsrl_hf.environment.bandits import train_chooser
    from teamsrl_hf.environment.choosers import CHOOSERS, save_chooser

    chooser = CHOOSERS[script_args.chooser](operations)
    rounds = ppo_args.max_steps // (ppo_args.num_ppo_epochs * ppo_args.num_mini_batches)
    episodes, steps = ppo_args.episodes_per_rollout, ppo_args.operations_per_episode
    options = {"episodes": episodes, "steps": steps, "seed": ppo_args.seed, "sampling": ppo_args.sampling}
    options |= {"reward_funcs": reward_funcs, "reward_weights": ppo_args.reward_weights}
    rewards = train_chooser(chooser, train, operations, *models, rounds, **options)
    save_chooser(chooser, ppo_args.output_dir)
    return {
        "policy": str(ppo_args.output_dir),
        "environment_steps": rounds * episodes * steps,
        "reward_first_round": rewards[0],
        "reward_last_round": rewards[-1],
    }


def build_policy(model_args, operations, ppo_args):
    """The policy named by the arguments, or a new one for these operations."""
    from trl import get_quantization_config

    from teamsrl_hf.ppo.policy import OperationPolicy, OperationPolicyConfig, load_policy

    fields = {
        "operations": [{"name": operation.name, "sentence": operation.sentence} for operation in operations],
        "operations_per_episode": ppo_args.operations_per_episode,
    }
    if not model_args.model_name_or_path:
        return OperationPolicy(OperationPolicyConfig(**fields))
    quantization = get_quantization_config(model_args)
    return load_policy(model_args.model_name_or_path, quantization_config=quantization, **fields)


if __name__ == "__main__":
    sys.exit(leave(guarded(main)))
