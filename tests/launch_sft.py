"""Runs `recipes/sft.py` with real FSDP2 on CPUs, in each process of a launch; accelerate would train as DDP there.

    accelerate launch --config_file accelerate_configs/fsdp2.yaml --mixed_precision no tests/launch_sft.py \\
        --config recipes/quickstart/sft.yaml --use_cpu false --dataset_name … --output_dir …

Four places are told that gloo on CPUs is what it takes for an accelerator: how accelerate picks a backend and a
device, whether transformers finds bfloat16, and how the recipe counts devices. All that shards, gathers, saves and
trains is what runs on GPUs.
"""

import os
import sys

import torch
from accelerate.state import DistributedType, PartialState
from transformers import training_args

from teamsrl_hf.cli import load_recipe


def gloo(self, cpu=False, sagemaker_dp=False, backend=None):
    return "gloo", DistributedType.MULTI_GPU


def cpu_device(self):
    self.device = torch.device("cpu")


def sharded(trainer):
    """What share of the first weight lies in this process, and the tensor's class."""
    weight = next(p for p in trainer.model_wrapped.parameters() if p.ndim == 2)
    local = weight.to_local() if hasattr(weight, "to_local") else weight
    return f"{type(weight).__name__} {local.numel() / weight.numel():.2f}"


def main():
    PartialState._prepare_backend, PartialState.set_device = gloo, cpu_device
    training_args.is_torch_bf16_gpu_available = lambda: True
    recipe = load_recipe("sft")
    recipe.count_devices = lambda: int(os.environ["LOCAL_WORLD_SIZE"])
    build = recipe.build_trainer

    def watched(*args):
        trainer = build(*args)
        save = trainer.save_model

        def saving(folder, **options):
            print(
                f"rank {trainer.args.process_index} of {trainer.args.world_size} holds {sharded(trainer)}", flush=True
            )
            save(folder, **options)

        trainer.save_model = saving
        return trainer

    recipe.build_trainer = watched
    recipe.main(sys.argv[1:])


if __name__ == "__main__":
    main()
