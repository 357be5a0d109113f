"""Prices and budgets: decide whether the next call may be bought."""

import asyncio
import json
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace

from ..errors import Stopped, UserError, did_you_mean
from ..types import Tier
from .base import Completion, Purchase, Request, prompt_bytes

# Requests, tokens, money: the order of `Budget`.
Amounts = tuple[int, int, float]


def _check_amounts(amounts: object, what: str) -> None:
    for name, value in vars(amounts).items():
        if value is None and (what == "budget" or name == "cached_prompt"):
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
        cached_prompt: Of the part of a prompt that the server read from its cache; None: as any other.
        flex, batch: Share of these prices that a call of this tier costs.

    Raises:
        UserError: A price is not a number of at least 0.
    """

    prompt: float = 0.0
    completion: float = 0.0
    cached_prompt: float | None = None
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
        cached = None if self.cached_prompt is None else self.cached_prompt * share
        return replace(self, prompt=self.prompt * share, completion=self.completion * share, cached_prompt=cached)

    def of(self, prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0) -> float:
        """The price of a call, of whose prompt `cached_tokens` came from the server's cache.

        >>> Price(prompt=2.0, completion=8.0).of(1_000_000, 500_000)
        6.0
        >>> Price(prompt=2.0, completion=8.0, cached_prompt=0.5).of(1_000_000, 500_000, cached_tokens=800_000)
        4.8
        """
        saved = 0.0 if self.cached_prompt is None else cached_tokens * (self.prompt - self.cached_prompt)
        return (prompt_tokens * self.prompt - saved + completion_tokens * self.completion) / 1_000_000


def read_prices(prices: dict | None) -> dict[str, Price]:
    """Prices by model, from YAML; UserError on anything else than numbers for each."""
    known = [one.name for one in fields(Price)]
    for model, price in (prices or {}).items():
        if not isinstance(price, dict):
            raise UserError(f"The price of {model!r} is {price!r}; write MODEL: {{prompt: 0.1, completion: 0.4}}.")
        for name in set(price) - set(known):
            raise UserError(f"Unknown key {name!r} in the price of {model!r}{did_you_mean(name, known)}")
    return {model: Price(**price) for model, price in (prices or {}).items()}


@dataclass(frozen=True)
class Budget:
    """Limits over a ledger's whole life; None means no limit. Replayed answers do not count.

    Attributes:
        calls: Requests sent: failed and repeated ones count each.
        tokens: Of prompts and answers.
        cost: Money.

    Raises:
        UserError: A limit is not a number of at least 0.
    """

    calls: int | None = None
    tokens: int | None = None
    cost: float | None = None

    def __post_init__(self):
        _check_amounts(self, "budget")


def most_tokens(request: Request, options: Mapping[str, object]) -> tuple[int, int]:
    """The most tokens that a request may take: of the prompt, and of the answer.

    Args:
        options: What its generator adds, see `base.answer_options_of`; among them may be a system message.

    >>> most_tokens(Request("expert", ({"role": "user", "content": "Name a bird."},)), {})
    (52, 2048)
    """
    # A token has at least one byte; a chat template adds a few tokens to each message.
    prompt = prompt_bytes(request) + 8 * len(request.messages) + 32
    return prompt + (len(json.dumps(options)) if options else 0), request.sampling.max_tokens


def with_estimates(answer: Completion, request: Request) -> Completion:
    """The answer with a token for every four bytes of what the server has not counted, prompt or text."""
    prompts, texts = answer.estimated_tokens
    chosen = bool(answer.scores)  # By likelihood: no token was written.
    if not answer.text or (answer.prompt_tokens > prompts and (chosen or answer.completion_tokens > texts)):
        return answer
    prompt = 0 if answer.prompt_tokens > prompts else prompt_bytes(request) // 4 + 1
    text = 0 if chosen or answer.completion_tokens > texts else len(answer.text.encode("utf-8", "replace")) // 4 + 1
    return replace(
        answer,
        prompt_tokens=answer.prompt_tokens + prompt,
        completion_tokens=answer.completion_tokens + text,
        estimated_tokens=(prompts + prompt, texts + text),
    )


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


class Paying(Purchase):
    """One call under way, as `base.Purchase`: what attempts have cost is booked, what the next may cost reserved.

    Args:
        most: The highest cost of one attempt; None without a budget.
        spent: What was spent by now.
        book: Records what the attempts so far have cost.
    """

    def __init__(
        self,
        reservations: Reservations,
        most: Amounts | None,
        spent: Callable[[], Amounts],
        book: Callable[[Completion], None],
    ):
        self._reservations, self._most, self._spent, self._book = reservations, most, spent, book
        self._reserved = False

    def may_begin(self) -> bool:
        """Reserve what an attempt may cost; False if it has to wait. See `Reservations.hold`."""
        if self._most is None or self._reserved:
            return True
        self._reserved = self._reservations.hold(self._spent(), self._most)
        return self._reserved

    async def reserve(self) -> None:
        """See `base.Purchase`."""
        while not self.may_begin():
            await self._reservations.room()

    def release(self) -> None:
        """See `base.Purchase`."""
        if self._most is not None and self._reserved:
            self._reserved = False
            self._reservations.release(self._most)

    def failed(self, so_far: Completion) -> None:
        """See `base.Purchase`."""
        self._book(so_far)
        self.release()
