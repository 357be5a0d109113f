"""A policy made ready for PPO: in goes a policy or a name, out comes what is trained, with its adapter, no dropout.

A policy may also begin as the imitation of a bandit, `imitate`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from ..environment.bandits import LinUCBChooser
from ..environment.rewards import check_columns
from ..environment.rollout import Chooser, states_of
from ..errors import UserError
from ..loading import library
from ..text.operations import Operation
from ..text.seeds import seed_from_row
from ..types import Trajectory
from .config import InstructionGenPPOConfig
from .losses import discounted
from .policy import HEADS, OperationPolicy, check_whole, load_policy
from .rollout_buffer import RolloutSampler

IMITATION_PASSES, IMITATION_BATCH, IMITATION_RATE = 10, 64, 3e-3

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import LoraConfig


def prepare_policy(
    model: OperationPolicy | str,
    operations: Sequence[Operation] | None,
    args: InstructionGenPPOConfig,
    processing_class: Any,
    peft_config: "LoraConfig | None",
) -> nn.Module:
    """The policy to train: loaded if it is a name, inside a PEFT model if there is a `peft_config`."""
    if isinstance(model, str):
        entries = [{"name": one.name, "sentence": one.sentence} for one in operations] if operations else None
        steps, frozen = args.operations_per_episode, peft_config is None
        model = load_policy(model, operations=entries, operations_per_episode=steps, freeze_backbone=frozen)
    if processing_class is not None:
        model._tokenizer = processing_class
    if isinstance(model, OperationPolicy):
        check_whole(model)
    prepared: nn.Module = model if peft_config is None else _with_adapter(model, peft_config)
    if not isinstance(prepared, OperationPolicy):
        # PEFT's own push is public, and leaves out files without which the adapter can't be loaded.
        prepared.__dict__["push_to_hub"] = _refuse_push
    # With dropout, an adapter's too, the policy that acts is not the one whose ratio is taken.
    for module in prepared.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return prepared


def warm_start(trainer: Any) -> None:
    """Let LinUCB choose and learn in a trainer's first rollouts, as many as its arguments say; the policy imitates it.

    It knows nothing of the text: as a teacher it does better on few chains than one that reads.
    """
    args, dataset = trainer.args, trainer.train_dataset
    size, number = args.episodes_per_rollout, args.warm_rollouts(args.episodes_per_rollout)
    if not number:
        return
    bandit = LinUCBChooser(trainer.operations, operations_per_episode=args.operations_per_episode)
    order = list(RolloutSampler(len(dataset), size * number, 1, args.seed))
    chains: list[Trajectory] = []
    returns: list[list[float]] = []
    for turn in range(number):
        rows = [dataset[place] for place in order[turn * size : (turn + 1) * size]]
        made = trainer.collect([seed_from_row(row) for row in rows], bandit, ("warm", args.seed, turn))
        columns = {name: [row[name] for row in rows] for name in dataset.column_names}
        rewards = trainer.compute_rewards(made, **columns)
        bandit.update(made, rewards.tolist())
        chains += made
        returns += discounted(rewards, args.gamma).tolist()
    bandit.explore = False
    imitate(trainer.model, trainer.policy, bandit, chains, returns, args.seed)


def imitate(
    model: nn.Module,
    policy: OperationPolicy,
    chooser: Chooser,
    chains: Sequence[Trajectory],
    returns: Sequence[Sequence[float]],
    seed: int,
) -> None:
    """Train `model` to choose as `chooser` does in the states of B chains, and its value head on their returns.

    Args:
        model: The policy, or the PEFT model around it.
        returns: B rows, the return of each step.
        seed: Decides the order of the N states.
    """
    states = [state for chain in chains for state in states_of(chain)[:-1]]
    inputs = policy.featurize(states)
    choices = torch.tensor(chooser(states, [0.5] * len(states)))
    targets = torch.tensor([value for chain, row in zip(chains, returns) for value, _ in zip(row, chain.transitions)])
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], IMITATION_RATE, weight_decay=0.0)
    luck = torch.Generator().manual_seed(seed)
    for _ in range(IMITATION_PASSES):
        for part in torch.randperm(len(states), generator=luck).split(IMITATION_BATCH):
            output = model(**{name: tensor[part].to(policy.device) for name, tensor in inputs.items()})
            # Smoothed, since the policy is to go on exploring.
            loss = cross_entropy(output.logits.cpu(), choices[part], label_smoothing=0.1)
            loss = loss + 0.5 * mse_loss(output.value.cpu(), targets[part])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()


def check_datasets(train_dataset: "Dataset | None", eval_dataset: "Dataset | None") -> None:
    """UserError when there is no seed to train on, or a column can't be passed to reward functions."""
    if train_dataset is not None and len(train_dataset) == 0:
        raise UserError("train_dataset holds no seeds; give at least one.")
    for dataset in (train_dataset, eval_dataset):
        if dataset is not None:
            check_columns(dataset.column_names)


def unwrapped(model: nn.Module) -> OperationPolicy:
    """The policy itself, without the PEFT model around it."""
    policy = model if isinstance(model, OperationPolicy) else getattr(model, "get_base_model")()  # noqa: B009
    assert isinstance(policy, OperationPolicy)
    return policy


def _with_adapter(policy: OperationPolicy, peft_config: "LoraConfig") -> nn.Module:
    from peft import PeftModel, get_peft_model

    if isinstance(policy, PeftModel):
        raise UserError("The policy has an adapter already; pass it without peft_config, or merge the adapter first.")
    if policy.config.backbone is None:
        raise UserError("peft_config needs a policy with a backbone; make one with OperationPolicy.from_backbone.")
    policy.config.freeze_backbone = False  # Its output changes with the adapter, so no embedding may be cached.
    if peft_config.modules_to_save is None:
        peft_config.modules_to_save = list(HEADS)
    with library("The policy can't have this adapter"):
        return get_peft_model(policy, peft_config)


def _refuse_push(*_: Any, **__: Any) -> None:
    raise UserError("An adapter to a policy is pushed with its config and card; call push_to_hub() of the trainer.")
