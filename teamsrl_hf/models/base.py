"""Models as functions: one request in, one completion out, asynchronously."""

import asyncio
import hashlib
import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from ..errors import UserError, check_number
from ..text.operations import Messages, Operation
from ..types import Finish, Role, TaskKind, Tier

# Not json.dumps: given options, it builds an encoder at each call.
_encode = json.JSONEncoder(sort_keys=True).encode


@dataclass(frozen=True)
class Sampling:
    """Sampling parameters of a request. `seed` is sent only when given.

    Raises:
        UserError: A parameter is out of range; an endpoint would refuse every call.
    """

    temperature: float = 0.7
    top_p: float = 0.95
    max_tokens: int = 2048
    seed: int | None = None

    def __post_init__(self):
        check_number("temperature", self.temperature, 0)
        check_number("top_p", self.top_p, above=0, most=1)
        check_number("max_tokens", self.max_tokens, 1, whole=True)
        if self.seed is not None:
            check_number("seed", self.seed, whole=True)


@dataclass(frozen=True)
class Task:
    """What a request asks for, for a generator that answers from this instead of the messages, as the rulebook does.

    It stays in this process: no endpoint gets it, and it is no part of the ledger's key.

    Attributes:
        kind: "rewrite" (one text), "pack" (rewrite each of N texts, then answer it), "review" (a text and its
            rewrite), "answer" (one text) or "judge" (an instruction and two answers).
        texts: The texts, in the order in which the messages show them.
        plans: For each text of a rewrite or pack, the names of the operations to carry out in turn.
    """

    kind: TaskKind
    texts: tuple[str, ...]
    plans: tuple[tuple[str, ...], ...] = ()


class Purchase:
    """What pays for one call, of which a generator may send several attempts. This one has no budget and no record."""

    async def reserve(self) -> None:
        """Wait until the budget has room for one attempt.

        Raises:
            BudgetExhausted: It never will.
        """

    def release(self) -> None:
        """Give back what is reserved: no attempt is in flight."""

    def failed(self, so_far: "Completion") -> None:
        """Record what the attempts so far have cost, until the call ends, and give back what is reserved."""


@dataclass(frozen=True)
class Request:
    """One question to a model.

    Attributes:
        role: The role of the model that answers.
        messages: Chat messages, oldest first.
        sampling: How to sample.
        sample_index: Number of the sample, where one question is asked several times; part of the ledger's key.
        task: What the messages ask for, or None where nobody has said.
        choices: The only answers that are of use, if there are only so many. A model in this process answers with the
            likeliest, an endpoint is held to them where its specification says how; elsewhere it answers freely.
        scored: How likely the answer is to the model is wanted. A model in this process says it, an endpoint does not.
        settled: Its sampling is final: what the specification of a model says of sampling is in it, see `as_asked`.
        purchase: What pays for it and has to know of each attempt; no part of the ledger's key.
    """

    role: Role
    messages: Messages
    sampling: Sampling = field(default_factory=Sampling)
    sample_index: int = 0
    task: Task | None = None
    choices: tuple[str, ...] = ()
    scored: bool = False
    settled: bool = False
    purchase: Purchase = field(default=Purchase(), compare=False, repr=False)

    @property
    def kind(self) -> str:
        """The kind of task, or "". Failures of one kind say nothing about another."""
        return self.task.kind if self.task else ""


@dataclass(frozen=True)
class Completion:
    """One answer, or the `error` of a call that failed: a failure is a value, not an exception.

    `finish_reason` says how the answer ended, see `types.Finish`. `attempts` counts the requests sent for it, failed
    and refused ones included; the tokens are the sums over all of these. `cached_tokens` are those of the prompts that
    the server read from its cache, `estimated_tokens` those of the prompts and of the answers that it may charge for
    without having said so: both are among the others.
    `request_refused` is true if the failure may concern this request alone, so that the model still answers others. It
    is false for a wrong key, no credit or an outage. `scores` are the log-probabilities of the request's choices, in
    nats and in their order, where a model chose by them; of a `scored` request, the mean of those of the answer's
    tokens. `tier` says how the server served it.
    """

    text: str
    model: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish_reason: Finish = Finish.STOP
    error: str | None = None
    attempts: int = 1
    request_refused: bool = False
    scores: tuple[float, ...] = ()
    cached_tokens: int = 0
    estimated_tokens: tuple[int, int] = (0, 0)
    tier: Tier = Tier.STANDARD


class Generator(Protocol):
    """Anything that answers a request. `model` names it in ledgers, rows and cards.

    Ten attributes are optional. `immediate = True`: it never waits, and is called without an event loop.
    `deterministic = True`: it gives the same answer to the same request. `concurrency`: the most requests it sends at
    once; it makes others wait. `operations`: the names of the only operations it can carry out. `whole = True`: it
    writes whole rewrites and is asked for no edits, as rules that read the task. `answer_options`: see
    `answer_options_of`. `as_asked`: see `as_asked`. `rendered`: see `rendered_by`. `reviewing`: how it is asked as a
    reviewer, see `environment.review`. `batch`: the `batch.endpoint.BatchEndpoint` behind it. A `Wrapper` passes all
    ten on.
    """

    model: str

    async def __call__(self, request: Request) -> Completion: ...


def prompt_bytes(request: Request) -> int:
    """Size of a request's messages in UTF-8."""
    return sum(len(message["content"].encode("utf-8", "replace")) for message in request.messages)


def request_key(request: Request, model: str, options: Mapping[str, object] | None = None) -> bytes:
    """A hash of everything that could change the answer, 16 bytes. `options` are those of `base.answer_options_of`."""
    content = [request.role, model, request.messages, vars(request.sampling), request.sample_index]
    if request.choices:  # Else the keys of older ledgers would change.
        content.append(request.choices)
    if request.scored:
        content.append("scored")
    if options:
        content.append(options)
    return hashlib.blake2b(_encode(content).encode(), digest_size=16).digest()


def is_immediate(generator: Generator) -> bool:
    """Whether a generator never waits, as rules do not, so that its calls need no event loop."""
    return getattr(generator, "immediate", False)


def is_deterministic(generator: Generator) -> bool:
    """Whether a generator gives the same answer to the same request."""
    return getattr(generator, "deterministic", False)


def asked_in_batches(generator: Generator) -> bool:
    """Whether a generator is asked through a batch API, so that as many requests as possible should wait."""
    return getattr(generator, "batch", None) is not None


def writes_whole(generator: Generator) -> bool:
    """Whether a generator writes whole rewrites, so that it is not asked for edits."""
    return getattr(generator, "whole", False)


def concurrency_of(generator: Generator) -> float:
    """The most requests a generator sends at once; infinite where it does not limit itself."""
    return getattr(generator, "concurrency", math.inf)


def operations_of(generator: Generator) -> Sequence[str] | None:
    """Names of the only operations a generator can carry out; None where it takes any."""
    return getattr(generator, "operations", None)


def answer_options_of(generator: Generator, request: Request) -> Mapping[str, object]:
    """What a generator adds to a request or leaves out that changes the answer, as JSON; empty where nothing does."""
    return generator.answer_options(request) if hasattr(generator, "answer_options") else {}


def as_asked(generator: Generator, request: Request) -> Request:
    """The request as the generator asks it: with the sampling that its specification names, if it names one."""
    return generator.as_asked(request) if hasattr(generator, "as_asked") else request


def rendered_by(generator: Generator, request: Request) -> str | None:
    """What a generator would send or read for a request, as text without secrets; None where it reads the task."""
    return generator.rendered(as_asked(generator, request)) if hasattr(generator, "rendered") else None


def check_carries_out(operations: Sequence[Operation], *generators: Generator) -> None:
    """UserError where a generator cannot carry out one of `operations`."""
    for generator in generators:
        known = operations_of(generator)
        unknown = [] if known is None else [operation.name for operation in operations if operation.name not in known]
        if known is not None and unknown:
            raise UserError(
                f"{generator.model!r} cannot carry out the operation {unknown[0]!r}; it knows {', '.join(known)}. "
                "Name a model that can, such as endpoint:MODEL@BASE_URL, or leave the operation out."
            )


class Wrapper:
    """A generator around another, with the same name, `immediate`, `deterministic` and `concurrency`.

    A wrapper may count or record calls, so no cache stands in front of it (see `may_remember`).
    """

    def __init__(self, generator: Generator):
        self.generator, self.model = generator, generator.model
        self.immediate, self.deterministic = is_immediate(generator), is_deterministic(generator)
        self.concurrency, self.operations = concurrency_of(generator), operations_of(generator)
        self.whole = writes_whole(generator)
        self.reviewing, self.batch = getattr(generator, "reviewing", None), getattr(generator, "batch", None)

    async def __call__(self, request: Request) -> Completion:
        return await self.generator(request)

    def answer_options(self, request: Request) -> Mapping[str, object]:
        """See `answer_options_of`."""
        return answer_options_of(self.generator, request)

    def as_asked(self, request: Request) -> Request:
        """See `as_asked`."""
        return as_asked(self.generator, request)

    def rendered(self, request: Request) -> str | None:
        """See `rendered_by`."""
        return rendered_by(self.generator, request)

    @property
    def waiting(self) -> Collection[asyncio.Task]:
        """Tasks whose request has not been sent; an interrupted run cancels them."""
        return getattr(self.generator, "waiting", ())

    async def settle(self, seconds: float | None) -> None:
        """See `Ledger.settle`."""
        if hasattr(self.generator, "settle"):
            await self.generator.settle(seconds)

    async def close(self) -> None:
        """Close the model where it can be closed."""
        if hasattr(self.generator, "close"):
            await self.generator.close()


class Limited(Wrapper):
    """A generator that is sent at most `concurrency` requests at once."""

    def __init__(self, generator: Generator, concurrency: int):
        super().__init__(generator)
        self.concurrency, self._free = concurrency, asyncio.Semaphore(concurrency)

    async def __call__(self, request: Request) -> Completion:
        async with self._free:
            return await self.generator(request)


class Sampled(Wrapper):
    """A generator that samples every request as `own` says, in place of what the request says.

    Args:
        own: Some of the parameters of `Sampling`.

    Raises:
        UserError: A parameter is out of range.
    """

    def __init__(self, generator: Generator, own: Mapping[str, Any]):
        super().__init__(generator)
        Sampling(**own)  # Which checks them.
        self._own = dict(own)

    async def __call__(self, request: Request) -> Completion:
        return await self.generator(self.as_asked(request))

    def as_asked(self, request: Request) -> Request:
        """See `as_asked`."""
        if request.settled:
            return request
        return replace(request, sampling=replace(request.sampling, **self._own), settled=True)


def may_remember(generator: Generator) -> bool:
    """Whether a cached answer may replace a call: the generator is immediate, deterministic and no `Wrapper`."""
    return not isinstance(generator, Wrapper) and is_immediate(generator) and is_deterministic(generator)


def request_seed(request: Request) -> int | None:
    """The seed to sample with. Samples of one question get different seeds; otherwise they would all be the same.

    >>> request_seed(Request("judge", (), Sampling(seed=7)))
    7
    >>> request_seed(Request("judge", (), Sampling(seed=7), sample_index=2))
    2000013
    """
    seed = request.sampling.seed
    return None if seed is None else seed + 1_000_003 * request.sample_index


class ScriptedGenerator:
    """A generator with prepared answers, for tests; `calls` counts its requests.

    Args:
        answers: A function from request to answer, or answers to give in turn. An answer is a text or a `Completion`.
        model: Name under which it appears in ledgers, rows and cards.
        whole: Its answers to rewrite requests are whole rewrites; False: they are edits, as most models are asked for.

    Raises:
        UserError: `answers` is a single text, or (when called) no answer is left.
    """

    immediate = True

    def __init__(
        self,
        answers: Callable[[Request], str | Completion] | Iterable[str | Completion],
        model: str = "scripted",
        whole: bool = True,
    ):
        if isinstance(answers, str):
            raise UserError(f"The answers are one text, {answers[:40]!r}; put it in a list, or pass a function.")
        self.model, self.whole = model, whole
        self.calls = 0
        self._answers = answers if callable(answers) else iter(answers)

    async def __call__(self, request: Request) -> Completion:
        self.calls += 1
        answer = self._answers(request) if callable(self._answers) else next(self._answers, None)
        if answer is None:
            raise UserError(f"No scripted answer for call {self.calls} (role {request.role!r}); script more answers.")
        return answer if isinstance(answer, Completion) else Completion(answer, self.model)
