"""What each process of a distributed test does: train policies in several ways, and write down what happened.

    accelerate launch --config_file accelerate_configs/ddp.yaml tests/launch_ppo.py FOLDER default default:18 …

`default:18` goes on from step 18 of `default`. Each process leaves weights, and facts as JSON, in FOLDER.
"""

import json
import os
import sys
from pathlib import Path

import torch
from asked import changed, rewrite_of
from peft import LoraConfig
from safetensors.torch import save_file

from teamsrl_hf import (
    InstructionGenPPOConfig,
    InstructionGenPPOTrainer,
    OperationPolicy,
    OperationPolicyConfig,
    ScriptedGenerator,
    Seed,
    seeds_to_dataset,
)

WORLD = int(os.environ.get("WORLD_SIZE", 1))


def instructor(request):
    """One operation always works, another on texts of odd length."""
    found = rewrite_of(request)
    if found is None:
        return "Different"
    name, text = found
    works = name == "deepen" or (name == "breadth" and len(text) % 2)
    return changed(name, text) if works else text


class WatchedTrainer(InstructionGenPPOTrainer):
    """Remembers which seeds this process rolled out, and the random numbers of each chain."""

    def __init__(self, *args, **options):
        self.rollouts: list[dict[str, list]] = []
        super().__init__(*args, **options)

    def collect(self, seeds, choose, key):
        luck = []

        def overheard(states, uniforms):
            luck.append(uniforms)
            return choose(states, uniforms)

        chains = super().collect(seeds, overheard, key)
        if key[0] == "train":
            self.rollouts.append({"seeds": [seed.id for seed in seeds], "luck": list(zip(*luck))})
        return chains


def build(folder: Path, seeds: int = 24, model=None, peft_config=None, **changes) -> WatchedTrainer:
    """A trainer, of the default policy unless told; a rollout is 4 chains on each process and makes 4 steps."""
    options = {
        "per_device_train_batch_size": 2,
        "num_mini_batches": 2,
        "num_ppo_epochs": 2,
        "learning_rate": 1e-2,
        "logging_steps": 4,
        "save_strategy": "steps",
        "save_steps": 100,
        "use_cpu": True,
        **changes,
    }
    args = InstructionGenPPOConfig(output_dir=str(folder), disable_tqdm=True, report_to="none", **options)
    torch.manual_seed(args.process_index)  # Policies that start apart must be made one.
    model = model or OperationPolicy(OperationPolicyConfig())
    train = [Seed(f"s{i}", f"Explain subject number {i} to a friend.") for i in range(seeds)]
    test = [Seed(f"t{i}", f"Describe topic {i} briefly.") for i in range(9)]
    datasets = {"train_dataset": seeds_to_dataset(train), "eval_dataset": seeds_to_dataset(test)}
    return WatchedTrainer(model, args, ScriptedGenerator(instructor), peft_config=peft_config, **datasets)


def default(folder):
    # 24 seeds make 3 rollouts of 8, each used for 4 steps: step 18 lies in the middle of a rollout and of the second
    # epoch. What is rolled out at step 20 depends on the order of that epoch, at step 24 on that of the next.
    return build(folder, max_steps=28, save_steps=18)


def accumulated(folder):
    # Two processes take 2 chains at once and accumulate 2 such batches; one takes all 8. No minibatches, which differ.
    batch, accumulate = (8, 1) if WORLD == 1 else (2, 2)
    sizes = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulate, "num_mini_batches": 1}
    return build(folder, max_steps=12, **sizes)


def few_seeds(folder):
    return build(folder, seeds=3, max_steps=4)


def stopping(folder):
    return build(folder, max_steps=12, save_steps=6, learning_rate=0.1, target_kl=0.01)


def adapter(folder):
    """LoRA on the causal LM that lies beside the folder, held near the model without it."""
    torch.manual_seed(0)  # The heads it starts from are part of the reference, and of no checkpoint.
    model = OperationPolicy.from_backbone(str(folder.parent / "lm"), max_length=32)
    lora = LoraConfig(r=4, lora_dropout=0.5, target_modules=["q_proj", "v_proj"])
    options = {"max_steps": 6, "save_steps": 3, "logging_steps": 1, "operations_per_episode": 2, "kl_coef": 0.1}
    return build(folder, model=model, peft_config=lora, **options)


BUILDERS = {function.__name__: function for function in (default, accumulated, few_seeds, stopping, adapter)}


def run(folder: Path, scenario: str) -> WatchedTrainer:
    """Train, evaluate, save, and write down what became of it."""
    name, _, step = scenario.partition(":")
    result = f"{name}-resumed" if step else name
    trainer = BUILDERS[name](folder / result)
    trainer.train(resume_from_checkpoint=str(folder / name / f"checkpoint-{step}") if step else None)
    trainer.evaluate()
    trainer.save_model()
    facts = {
        "world_size": trainer.args.world_size,
        "wrapper": type(trainer.model_wrapped).__name__,
        "rollouts": trainer.rollouts,
        "evaluated": [trajectory.seed.id for trajectory in trainer.last_rollout],
        "log": trainer.state.log_history,
    }
    rank = trainer.args.process_index
    (folder / f"{result}-{rank}.json").write_text(json.dumps(facts))
    save_file(trainer.policy.state_dict(), folder / f"{result}-{rank}.safetensors")
    return trainer


if __name__ == "__main__":
    for scenario in sys.argv[2:]:
        trainer = run(Path(sys.argv[1]), scenario)
    trainer.end()
