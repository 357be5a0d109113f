"""A reward for reinforcement learning with verifiers: in go completions and the column `verifiers`, out come rewards.

`trl.GRPOTrainer(reward_funcs=verifier_reward, train_dataset=load_dataset(...)["train"], ...)` needs no mapping: TRL
hands every column of the dataset to a reward function.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ..types import Verifier
from .proofs import verified


def verifier_reward(
    completions: Sequence[str | Sequence[Mapping[str, str]]],
    verifiers: Sequence[Sequence[Mapping[str, str]] | None],
    **columns: Any,
) -> list[float | None]:
    """The share of a row's verifiers that its completion passes, in [0, 1].

    Args:
        completions: B texts, or B lists of messages, of which the last is the answer.
        verifiers: For each the row's verifiers, with `id` and `arguments`.
        columns: Other columns of the dataset, which are not looked at.

    Returns:
        B rewards; None, which TRL leaves out, where a row has no verifier.

    Raises:
        UserError: A verifier is unknown, or its arguments are wrong.

    >>> verifier_reward(["No mark.", "A, b"], [[{"id": "punctuation:no_comma", "arguments": "{}"}]] * 2)
    [1.0, 0.0]
    """
    return [_share(_text(one), wanted or ()) for one, wanted in zip(completions, verifiers, strict=True)]


def _text(completion: str | Sequence[Mapping[str, str]]) -> str:
    if isinstance(completion, str):
        return completion
    return (completion[-1].get("content") or "") if completion else ""


def _share(answer: str, verifiers: Sequence[Mapping[str, str]]) -> float | None:
    passed = verified(answer, [Verifier(one["id"], one["arguments"]) for one in verifiers])
    return sum(passed) / len(passed) if passed else None
