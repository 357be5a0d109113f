"""Prompts that code can check: in go seeds and kinds held out of evolving, out come prompts, each with its checks."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from random import Random
from typing import Any

from ...environment.rewriting import appended
from ...errors import UserError
from ...types import Seed, Verifier
from ...verifiers import HELD_OUT, as_ifeval, passes, sample

# A seed is asked about again, with other arguments or in other words, where too few seeds fit a kind.
MOST_ROUNDS = 4


@dataclass(frozen=True)
class Constraint:
    """One constraint of a prompt.

    Attributes:
        id, arguments: As in a `Verifier`.
        holds: Whether an answer keeps it.
        checked_by: Whose code `holds` is: "teamsrl_hf", or "ifbench".
    """

    id: str
    arguments: str
    holds: Callable[[str], bool]
    checked_by: str = "teamsrl_hf"


@dataclass(frozen=True)
class Prompt:
    """A prompt and the constraints that its answer must keep."""

    text: str
    constraints: tuple[Constraint, ...]

    def to_json(self, key: str) -> dict[str, Any]:
        """The prompt as a row of IFEval's form: key, prompt, instruction_id_list, kwargs."""
        verifiers = [{"id": one.id, "arguments": one.arguments} for one in self.constraints]
        return {"key": key, "prompt": self.text, **as_ifeval(verifiers)}


def ours(verifier: Verifier) -> Constraint:
    """A constraint that our verifier checks."""
    return Constraint(verifier.id, verifier.arguments, lambda answer: passes(answer, verifier))


def held_out_prompts(seeds: Sequence[Seed], per_kind: int, seed: int = 42) -> list[Prompt]:
    """Prompts of seeds with constraints of the held-out kinds appended, the same for the same arguments.

    Every second prompt carries two constraints, where two fit, so that a kind stands in `per_kind` prompts or more. It
    stands in fewer where it fits few of the seeds.

    Args:
        seeds: Instructions that the model was not trained on.
        per_kind: Prompts for each kind.
        seed: What order and arguments depend on.

    Raises:
        UserError: No kind fits any seed.
    """
    by_kind = [_prompts_of_kind(seeds, kind, per_kind, seed) for kind in HELD_OUT]
    # Kinds in turn, so that the first prompts are of all kinds.
    in_turn = [prompt for turn in zip_longest(*by_kind) for prompt in turn if prompt is not None]
    made = {prompt.text: prompt for prompt in in_turn}
    if not made:
        raise UserError(
            f"No held-out constraint fits any of {len(seeds)} seeds; give instructions in English that leave the form "
            "of the answer open, with --seeds."
        )
    return list(made.values())


def _prompts_of_kind(seeds: Sequence[Seed], kind: str, number: int, seed: int) -> list[Prompt]:
    made: dict[str, Prompt] = {}
    for text, key in _tries(seeds, kind, seed):
        if len(made) == number:
            break
        prompt = _prompt(text, kind, key, two=len(made) % 2 == 1)
        if prompt is not None:
            made.setdefault(prompt.text, prompt)
    return list(made.values())


def _tries(seeds: Sequence[Seed], kind: str, seed: int) -> Iterator[tuple[str, str]]:
    """The seeds' texts in an order that differs from kind to kind, each with a key for the choice of arguments."""
    order = Random(f"{seed} {kind}").sample(list(seeds), len(seeds))
    for turn in range(MOST_ROUNDS):
        yield from ((one.text, f"{seed} {turn}") for one in order)


def _prompt(text: str, kind: str, key: str, two: bool) -> Prompt | None:
    first = sample(text, (), key, [kind])
    if first is None:
        return None
    text, found = appended(text, first.sentence), [first.verifier]
    if two and (second := sample(text, found, key, HELD_OUT)) is not None:
        text, found = appended(text, second.sentence), [*found, second.verifier]
    return Prompt(text, tuple(map(ours, found)))


def arguments_of(values: dict[str, Any]) -> str:
    """Arguments as a verifier holds them: without those that are null, and 3 in place of 3.0.

    >>> arguments_of({"N": 3.0, "word": "sea", "m": None})
    '{"N": 3, "word": "sea"}'
    """
    given = {name: value for name, value in values.items() if value is not None}
    whole = {name: int(value) for name, value in given.items() if isinstance(value, float) and value.is_integer()}
    return json.dumps(given | whole, sort_keys=True)
