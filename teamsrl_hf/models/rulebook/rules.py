"""The rulebook: in go the tasks of requests, out come rewrites, verdicts and drafts, by rules alone.

It needs no model and no network. An operation that does not fit a text leaves it unchanged, so what an operation gains
depends on the instruction and on the operations before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from ...text.plans import pack_key, write_rows
from ...types import TaskKind
from ..base import Completion, Request, Task
from .additions import add_constraints, deepen, increase_reasoning
from .breadth import breadth
from .concretize import concretize
from .drafts import draft
from .material import complicate_input
from .reading import is_english, read
from .sentences import WORD
from .words import chooser

OPERATIONS = {
    "breadth": breadth,
    "add_constraints": add_constraints,
    "deepen": deepen,
    "concretize": concretize,
    "increase_reasoning": increase_reasoning,
    "complicate_input": complicate_input,
}
_FILLERS = frozenset(("a", "an", "the", "please", "kindly", "of", "is", "are"))


@dataclass(frozen=True)
class Rulebook:
    """A `Generator` that answers by rules.

    It answers the task of a request and reads no prompt. A rewrite gets the rewritten instruction, a pack marked rows,
    each with its draft, a review "Equal" or "Different", an answer a draft. It cannot judge answers. The same request
    always gets the same answer; a further sample (`sample_index`) or another sampling seed gets other choices. Token
    counts are word counts; `max_tokens` never cuts an answer. It knows the six default operations alone.
    """

    seed: int = 0

    model = "rulebook"
    immediate = True
    deterministic = True
    operations = tuple(OPERATIONS)
    whole = True

    async def __call__(self, request: Request) -> Completion:
        if request.task is None:
            return self._refused("reads no prompts: give the request a task, or name a model that reads its messages.")
        if request.task.kind == TaskKind.JUDGE:
            return self._refused("cannot judge answers: name a model for it.")
        if unknown := [name for plan in request.task.plans for name in plan if name not in OPERATIONS]:
            return self._refused(f"knows no operation {unknown[0]!r}: name a model that can carry it out.")
        text = answer(request.task, self.seed + request.sample_index + (request.sampling.seed or 0))
        prompt_tokens = sum(len(message["content"].split()) for message in request.messages)
        return Completion(text, self.model, prompt_tokens=prompt_tokens, completion_tokens=len(text.split()))

    def _refused(self, why: str) -> Completion:
        return Completion("", self.model, error=f"The rulebook {why}", request_refused=True)


def answer(task: Task, seed: int = 0) -> str:
    """The answer to a rewrite, pack, review or answer; see `Rulebook`."""
    if task.kind == TaskKind.REVIEW:
        return "Equal" if same_request(*task.texts) else "Different"
    if task.kind == TaskKind.ANSWER:
        return draft(task.texts[0])
    texts = [_carry_out(plan, text, seed) for plan, text in zip(task.plans, task.texts, strict=True)]
    if task.kind == TaskKind.REWRITE:
        return texts[0]
    return write_rows([(text, draft(text)) for text in texts], pack_key(list(zip(task.texts, task.plans))))


def _carry_out(plan: Sequence[str], text: str, seed: int) -> str:
    """Carry out the operations named in `plan`, each on the result of the one before."""
    for name in plan:
        text = rewrite(name, text, seed)
    return text


@lru_cache(maxsize=10_000)
def rewrite(name: str, text: str, seed: int = 0) -> str:
    """Carry out the operation `name` on `text`; `text` itself when the operation does not fit it.

    Args:
        name: One of the six default operations.
        text: An instruction, optionally followed by a blank line and the material it works on.
        seed: Other seeds make other choices; whether the operation fits hardly depends on it.

    >>> rewrite("complicate_input", "Why is the sky blue?")
    'Why is the sky blue?'
    """
    instruction = read(text)
    if not is_english(instruction):
        return text
    return OPERATIONS[name](instruction, chooser(seed, name, text)) or text


def same_request(first: str, second: str) -> bool:
    """Whether two texts have the same content words, in whatever order, case, spacing and punctuation.

    >>> same_request("Please explain the tides.", "Explain tides")
    True
    """
    return _content(first) == _content(second)


@lru_cache(maxsize=10_000)
def _content(text: str) -> list[str]:
    found = WORD.findall(text.lower())
    return sorted(word for word in found if word not in _FILLERS) or sorted(found) or [text.strip()]
