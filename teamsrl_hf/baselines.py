"""Choosers that learn nothing: what a learned policy has to beat on the same seeds, calls and random numbers."""

from collections.abc import Callable, Sequence

from .environment import Chooser
from .operations import Operation
from .types import State


def uniform_chooser(operations: Sequence[Operation]) -> Chooser:
    """Every operation equally likely at every step."""
    count = len(operations)
    return lambda states, uniforms: [int(u * count) for u in uniforms]


# What the official checkpoint does at unforced steps once its breadth has been turned into add_constraints; measured
# by simulating it (mix over all steps: breadth .333, constraints .261, concretize .188, deepen .167, complicate .036,
# reasoning .015).
PAPER_DEPTH_MIX = {
    "add_constraints": 0.261,
    "concretize": 0.188,
    "deepen": 0.167,
    "complicate_input": 0.036,
    "increase_reasoning": 0.015,
}


def paper_chooser(operations: Sequence[Operation]) -> Chooser:
    """The official code's behaviour: breadth at steps 1 and 4 (from 0), else a fixed mix of the in-depth operations.

    Raises:
        ValueError: `operations` lacks one of the paper's six.
    """
    index = {operation.name: i for i, operation in enumerate(operations)}
    missing = {"breadth", *PAPER_DEPTH_MIX} - set(index)
    if missing:
        raise ValueError(
            f"The paper's schedule needs the operation(s) {', '.join(sorted(missing))}, which are not in use."
        )

    def choose(states: Sequence[State], uniforms: Sequence[float]) -> list[int]:
        return [index["breadth" if state.step % 6 in (1, 4) else _pick(u)] for state, u in zip(states, uniforms)]

    return choose


def _pick(u: float) -> str:
    left = u * sum(PAPER_DEPTH_MIX.values())
    for name, weight in PAPER_DEPTH_MIX.items():
        left -= weight
        if left < 0:
            return name
    return "add_constraints"


CHOOSERS: dict[str, Callable[[Sequence[Operation]], Chooser]] = {"uniform": uniform_chooser, "paper": paper_chooser}
