"""Prices and budgets: decide whether the next call may be bought."""

import asyncio
import math
import operator
from dataclasses import dataclass, replace

from ..errors import Stopped, UserError
from ..types import Tier

# Calls, tokens, money: the order of `Budget`.
Amounts = tuple[int, int, float]


def _check_amounts(amounts: object, what: str) -> None:
    for name, value in vars(amounts).items():
        if value is None and what == "budget":
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise UserError(f"The {what} {name} is {value!r}, wanted a number from 0 up; correct it or leave it out.")


class BudgetExhausted(Stopped):
    """The next call might exceed the budget. A run with a higher budget continues from here."""


@dataclass(frozen=True)
class Price:
    """Money per million tokens, in the currency of the budget.

    Attributes:
        prompt, completion: Of prompts and of answers, for calls that are answered at once.
        flex, batch: Share of these prices that a call of this tier costs.

    Raises:
        UserError: A price is not a number of at least 0.
    """

    prompt: float = 0.0
    completion: float = 0.0
    flex: float = 0.5
    batch: float = 0.5

    def __post_init__(self):
        _check_amounts(self, "price")

    def at(self, tier: Tier) -> "Price":
        """The price of calls of a tier.

        >>> Price(prompt=2.0, completion=8.0).at(Tier.BATCH).of(1_000_000, 500_000)
        3.0
        """
        if tier == Tier.STANDARD:
            return self
        share = getattr(self, tier)
        return replace(self, prompt=self.prompt * share, completion=self.completion * share)

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """The price of a call.

        >>> Price(prompt=2.0, completion=8.0).of(1_000_000, 500_000)
        6.0
        """
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1_000_000


@dataclass(frozen=True)
class Budget:
    """Limits over a ledger's whole life; None means no limit. Failed calls count, replayed answers do not.

    Raises:
        UserError: A limit is not a number of at least 0.
    """

    calls: int | None = None
    tokens: int | None = None
    cost: float | None = None

    def __post_init__(self):
        _check_amounts(self, "budget")


class Reservations:
    """The part of a budget that is reserved for calls in flight."""

    def __init__(self, budget: Budget):
        self.limits = vars(budget)
        self.limited = budget != Budget()
        self._in_flight, self._held = 0, (0, 0, 0.0)
        self._freed: asyncio.Future[None] | None = None

    def hold(self, spent: Amounts, most: Amounts) -> bool:
        """Reserve `most`, the highest cost of a call; False if it has to wait until a call in flight has ended.

        Raises:
            BudgetExhausted: The call might exceed the budget, and no call in flight can free a reservation.
        """
        held = tuple(map(operator.add, self._held, most))
        for (name, limit), so_far, reserved, more in zip(self.limits.items(), spent, held, most):
            if limit is not None and so_far + reserved > limit * (1 + 1e-9):  # Sums of money are rounded.
                if self._in_flight:
                    return False
                raise BudgetExhausted(
                    f"The budget of {limit:,} {name} is spent: {so_far:,.12g} so far, and the next call may take "
                    f"{more:,.6g}; run again with a higher budget_{name} to go on where this stopped."
                )
        self._in_flight, self._held = self._in_flight + 1, held
        return True

    def take(self, most: Amounts) -> None:
        """Reserve what is under way already, whatever the budget."""
        self._in_flight, self._held = self._in_flight + 1, tuple(map(operator.add, self._held, most))

    def release(self, most: Amounts) -> None:
        """Give back a reservation: the call has ended."""
        self._in_flight -= 1
        self._held = tuple(map(operator.sub, self._held, most)) if self._in_flight else (0, 0, 0.0)
        if self._freed is not None and not self._freed.done():
            self._freed.set_result(None)
        self._freed = None

    async def room(self) -> None:
        """Wait until a call in flight has ended."""
        if self._freed is None:
            self._freed = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._freed)
