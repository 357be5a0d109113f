"""A policy made ready for PPO: in goes a policy or a name, out comes what is trained, with its adapter, no dropout."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from ..environment.rewards import check_columns
from ..errors import UserError
from ..loading import library
from ..text.operations import Operation
from .config import InstructionGenPPOConfig
from .policy import HEADS, OperationPolicy, check_whole, load_policy

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
