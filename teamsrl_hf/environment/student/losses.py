"""How well a student knows an answer: in go instructions and answers, out come losses, and `ifd_reward`.

A reader is a generator that reads an answer in place of writing one, so that a ledger records it as any other call.
"""

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...errors import UserError, check_number
from ...models.base import Completion, Generator, Request, Sampling, Task, Wrapper
from ...types import Role, TaskKind, Trajectory
from .answers import StepRewards, StudentReward, check_answers

ANSWER_SAMPLING = Sampling(temperature=0.0, top_p=1.0, max_tokens=512)
Row = tuple[str, str]  # An instruction and its answer.


class Reader:
    """A student that reads rows; requests that wait at the same time share a batch.

    A request holds an instruction of the user and an answer of the assistant; the completion has no text, and numbers
    as `scores`, see `read`. A subclass says in `read` what it measures.

    Args:
        model, processing_class: A causal LM of transformers, and its tokenizer with a chat template.
        name: Its name in ledgers.
        batch_size: Most rows in a batch.
        max_length: Tokens of instruction and answer together; what is longer is cut at its end.
    """

    deterministic = True
    measures = ""

    def __init__(self, model: Any, processing_class: Any, name: str, batch_size: int = 8, max_length: int = 1024):
        check_number("batch_size", batch_size, 1, whole=True)
        self.model, self.batch_size, self.max_length = f"{name} ({self.measures})", batch_size, max_length
        self._model, self._tokenizer = model.eval(), processing_class
        self._waiting: list[tuple[Row, asyncio.Future]] = []
        self._turns: dict[asyncio.AbstractEventLoop, asyncio.Lock] = {}

    def read(self, rows: Sequence[Row]) -> list[tuple[float, ...]]:
        """The numbers for each of B rows. It runs in a worker thread, one batch at a time."""
        raise NotImplementedError

    def answer_options(self, request: Request) -> Mapping[str, object]:
        """What besides the request decides the numbers, as part of the ledger's key."""
        return {"measures": self.measures, "max_length": self.max_length}

    async def __call__(self, request: Request) -> Completion:
        loop = asyncio.get_running_loop()
        row = request.messages[-2]["content"], request.messages[-1]["content"]
        job = row, loop.create_future()
        self._waiting.append(job)
        await asyncio.sleep(0)  # Requests made at the same moment join the batch.
        async with self._turns.setdefault(loop, asyncio.Lock()):
            if not job[1].done():
                await self._read_batch(job)
        return job[1].result()

    async def _read_batch(self, first: tuple[Row, asyncio.Future]) -> None:
        """Read a row with those that wait and are about as long, so that little is padded."""
        size = sum(map(len, first[0]))
        others = [job for job in self._waiting if job is not first]
        others.sort(key=lambda job: abs(sum(map(len, job[0])) - size))
        batch = [first, *others][: self.batch_size]
        self._waiting = [job for job in self._waiting if all(job is not one for one in batch)]
        found = await asyncio.to_thread(self.read, [row for row, _ in batch])
        for (_, future), scores in zip(batch, found, strict=True):
            if not future.done():
                future.set_result(Completion("", self.model, scores=scores))

    def encoded(self, row: Row) -> tuple[list[int], list[int]]:
        """Token ids of a row's chat up to its answer, and of the answer, cut to `max_length` together."""
        message = [{"role": "user", "content": row[0]}]
        options: dict[str, Any] = {
            "add_generation_prompt": True,
            "return_dict": False,
            "sanitize_control_tokens": True,
        }
        prompt = self._tokenizer.apply_chat_template(message, **options)[: self.max_length - 1]
        answer = self._tokenizer(row[1], add_special_tokens=False)["input_ids"]
        return prompt, answer[: self.max_length - len(prompt)]


class AnswerLosses(Reader):
    """Reads the loss of an answer, in nats a token: given its instruction, and given an empty one.

    The second is asked in the same chat format, so that the two differ in the instruction alone.
    """

    measures = "losses of answers"

    def read(self, rows: Sequence[Row]) -> list[tuple[float, ...]]:
        """(loss given the instruction, loss given none) of each row."""
        pairs = [self.encoded(row) for row in (*rows, *(("", answer) for _, answer in rows))]
        losses = [float(loss) for loss in mean_losses(self._model, pairs, gradient=False)]
        return list(zip(losses[: len(rows)], losses[len(rows) :]))


def mean_losses(model: Any, pairs: Sequence[tuple[list[int], list[int]]], gradient: bool) -> list[Any]:
    """The mean loss of each answer's tokens after its prompt's, in nats, as B tensors without dimensions.

    Args:
        pairs: B prompts and answers, as token ids; an answer without a token has loss 0.
        gradient: Whether the losses are to be differentiated.
    """
    import torch
    from torch.nn.functional import cross_entropy

    rows = [[*prompt, *answer] for prompt, answer in pairs]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=model.device)
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=model.device)
    with torch.set_grad_enabled(gradient):
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        losses = []
        for number, (prompt, answer) in enumerate(pairs):
            said = logits[number, len(prompt) - 1 : len(prompt) + len(answer) - 1].float()
            wanted = ids[number, len(prompt) : len(prompt) + len(answer)]
            losses.append(cross_entropy(said, wanted) if answer else logits.new_zeros(()))
    return losses


def loaded_in(generator: Generator) -> tuple[Any, Any]:
    """The model and tokenizer of a generator that runs in this process.

    Raises:
        UserError: It runs elsewhere, or is no language model.
    """
    while isinstance(generator, Wrapper):
        generator = generator.generator
    if not hasattr(generator, "loaded"):
        raise UserError(
            f"Losses are read from a model in this process, not from {generator.model!r}; name the student as "
            "transformers:PATH_OR_ID."
        )
    return generator.loaded


def ifd_reward(losses: Generator, answerer: Generator, sampling: Sampling = ANSWER_SAMPLING) -> StudentReward:
    """A reward function: the loss of a rewrite's answer given the rewrite, over its loss given nothing, in [0, 1).

    This is instruction-following difficulty (arXiv 2308.12032; small models rank as large ones do, arXiv 2402.00530):
    near 1 where the instruction tells a student little of the answer. From 1 on it makes the answer less likely, which
    the paper takes for a row that does not fit together, so that 0 is paid.

    Args:
        losses: `AnswerLosses` of the student.
        answerer: Model that answers each rewrite once.
        sampling: How it is sampled.
    """

    async def ifd_reward(trajectories: Sequence[Trajectory], log_metric: Any = None) -> StepRewards:
        return await by_answer(trajectories, losses, answerer, sampling, difficulty, log_metric, "ifd_reward")

    return ifd_reward


def difficulty(scores: tuple[float, ...]) -> float:
    """What `ifd_reward` pays for the scores of `AnswerLosses`.

    >>> difficulty((1.0, 2.0)), difficulty((2.0, 1.0)), difficulty((0.0, 0.0))
    (0.5, 0.0, 0.0)
    """
    given, alone = scores
    return given / alone if given < alone else 0.0


async def by_answer(
    trajectories: Sequence[Trajectory],
    reader: Generator,
    answerer: Generator,
    sampling: Sampling,
    value: Callable[[tuple[float, ...]], float],
    log_metric: Any,
    name: str,
) -> StepRewards:
    """The value of each rewrite that passed review, from what the reader says of its answer; logs seconds a row."""
    steps = (step for trajectory in trajectories for step in trajectory.transitions)
    texts = list(dict.fromkeys(step.rewrite for step in steps if step.review.passed and not step.failure))
    answers = await asyncio.gather(*(answerer(_question(text, sampling)) for text in texts))
    check_answers(answers, answerer)
    started = time.monotonic()
    rows = [(text, answer.text) for text, answer in zip(texts, answers) if not answer.error]
    scores = await read_rows(reader, rows)
    if log_metric and rows:
        log_metric(f"{name}/seconds_per_row", (time.monotonic() - started) / len(rows))
    values = {text: value(found) for (text, _), found in zip(rows, scores)}
    return [
        [values.get(step.rewrite) if step.review.passed else None for step in trajectory.transitions]
        for trajectory in trajectories
    ]


async def read_rows(reader: Generator, rows: Sequence[Row]) -> list[tuple[float, ...]]:
    """What a reader says of each row."""
    found = await asyncio.gather(*(reader(_reading(row)) for row in rows))
    return [completion.scores for completion in found]


def _question(text: str, sampling: Sampling) -> Request:
    message = {"role": "user", "content": text}
    return Request(Role.EXPERT, (message,), sampling, task=Task(TaskKind.ANSWER, (text,)))


def _reading(row: Row) -> Request:
    messages = {"role": "user", "content": row[0]}, {"role": "assistant", "content": row[1]}
    return Request(Role.STUDENT, messages, Sampling(temperature=0.0, top_p=1.0, max_tokens=1))


def digest_of(rows: Sequence[Row]) -> str:
    """A hash of rows, in their order."""
    return hashlib.blake2b(json.dumps(rows).encode(), digest_size=8).hexdigest()
