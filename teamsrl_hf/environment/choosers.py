"""Baselines that a learned policy must beat at equal calls: in go operations or a folder, out come choosers.

Two are fixed and stand here, two are `bandits`. Beyond `rollout.Chooser` each one has a `name`, its `operations` and,
for what it learned, `arrays`.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar

import numpy as np

from ..errors import UserError
from ..runs import staged
from ..text.operations import Operation
from ..types import State
from .bandits import Bandit, LinUCBChooser, ThompsonChooser, check_same, index_of


@dataclass(frozen=True)
class FixedChooser:
    """A chooser that learns nothing: one rule from a state and a number in [0, 1) to an operation's index."""

    name: str
    operations: Sequence[Operation]
    rule: Callable[[State, float], int]
    arrays: ClassVar[dict[str, np.ndarray]] = {}

    def __call__(self, states: Sequence[State], uniforms: Sequence[float]) -> list[int]:
        return [self.rule(state, u) for state, u in zip(states, uniforms)]


def uniform_chooser(operations: Sequence[Operation]) -> FixedChooser:
    """Every operation equally likely at every step."""
    count = len(operations)
    return FixedChooser("uniform", operations, lambda state, u: int(u * count))


# The official checkpoint's mix at steps that its schedule does not force, where it replaces breadth by
# add_constraints; measured by simulating it (mix over all steps: breadth .333, constraints .261, concretize .188,
# deepen .167, complicate .036, reasoning .015).
PAPER_DEPTH_MIX = {
    "add_constraints": 0.261,
    "concretize": 0.188,
    "deepen": 0.167,
    "complicate_input": 0.036,
    "increase_reasoning": 0.015,
}


def paper_chooser(operations: Sequence[Operation]) -> FixedChooser:
    """The official code's behaviour: breadth at steps 1 and 4 (from 0), else a fixed mix of the in-depth operations.

    Raises:
        UserError: `operations` lacks one of the paper's six.
    """
    index = index_of(operations)
    missing = {"breadth", *PAPER_DEPTH_MIX} - set(index)
    if missing:
        raise UserError(
            f"The paper's schedule needs the operation(s) {', '.join(sorted(missing))}, which are not in use."
        )
    return FixedChooser(
        "paper", operations, lambda state, u: index["breadth" if state.step % 6 in (1, 4) else _pick(u)]
    )


def _pick(u: float) -> str:
    left = u * sum(PAPER_DEPTH_MIX.values())
    for name, weight in PAPER_DEPTH_MIX.items():
        left -= weight
        if left < 0:
            return name
    return "add_constraints"


Baseline = FixedChooser | Bandit
CHOOSERS: dict[str, Callable[..., Baseline]] = {
    "uniform": uniform_chooser,
    "paper": paper_chooser,
    "thompson": ThompsonChooser,
    "linucb": LinUCBChooser,
}


def save_chooser(chooser: Baseline, folder: str | Path) -> None:
    """Write a chooser of this module into `folder`: chooser.json, and chooser.safetensors if it learned anything."""
    from safetensors.numpy import save_file

    settings = {field.name: getattr(chooser, field.name) for field in fields(chooser)[1:]} if chooser.arrays else {}
    described = {"chooser": chooser.name, "operations": list(index_of(chooser.operations)), "settings": settings}
    with staged(folder) as stage:
        if chooser.arrays:
            save_file(chooser.arrays, stage / "chooser.safetensors")
        (stage / "chooser.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def load_chooser(folder: str | Path, operations: Sequence[Operation]) -> Baseline:
    """The chooser that `save_chooser` wrote into `folder`.

    Raises:
        UserError: There is no readable chooser, or it was saved for other operations, or for another order of them.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        described = json.loads((Path(folder) / "chooser.json").read_text(encoding="utf-8"))
        check_same(described["operations"], operations)
        chooser = CHOOSERS[described["chooser"]](operations, **described["settings"])
        if not isinstance(chooser, FixedChooser):
            stored = load_file(Path(folder) / "chooser.safetensors")
            chooser.arrays = {name: stored[name].reshape(array.shape) for name, array in chooser.arrays.items()}
    except (OSError, KeyError, TypeError, SafetensorError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(
            f"{folder} holds no chooser that can be read ({type(error).__name__}: {error}); "
            "give a folder that save_chooser wrote."
        ) from error
    return chooser
