"""What the other modules of this package ask of an evolver, whatever its class."""

from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

from ..environment.rollout import Chooser
from ..models.base import Generator
from ..models.ledger import Ledger
from ..text.operations import Operation
from ..types import Candidate, Example, Rejection, Seed, State
from .config import EvolverConfig
from .filters import Filter

# The models of an evolver, by the name of its attribute.
ROLES = ("expert", "reviewer", "instructor")


class Evolution(Protocol):
    """An evolver; see `DatasetEvolver`."""

    expert: Generator
    reviewer: Generator
    instructor: Generator | None
    chooser: Chooser
    operations: tuple[Operation, ...]
    args: EvolverConfig
    filters: tuple[Filter, ...]

    @property
    def walkers(self) -> int: ...

    def recorded(self, ledger: Ledger) -> "Evolution": ...

    def with_settings(self, **changes: Any) -> "Evolution": ...

    def choose(self, state: State, seed: Seed) -> Operation: ...

    def groups(self, seeds: Iterable[Seed]) -> Iterator[tuple[Seed, ...]]: ...

    async def walk(self, group: Sequence[Seed]) -> list[list[Candidate]]: ...

    def accept(self, candidate: Candidate) -> str | None: ...

    async def answer(self, candidate: Candidate, reason: str | None) -> Example | Rejection: ...

    def stream(self, seeds: Iterable[Seed]) -> AsyncGenerator[list[Example | Rejection]]: ...

    async def settle(self, seconds: float | None = ...) -> None: ...


def value_function(chooser: Chooser) -> Callable[[Sequence[State]], Sequence[float]] | None:
    """The chooser's function from states to expected rewards, None without one; a policy's `choose` is its method."""
    for owner in (chooser, getattr(chooser, "__self__", None)):
        if callable(value := getattr(owner, "value", None)):
            return value
    return None
