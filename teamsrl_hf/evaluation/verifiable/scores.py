"""Strict and loose accuracy: in go prompts and answers, out come rates by prompt, by constraint and by kind.

Strict takes the answer as it is. Loose forgives what often stands around an answer, as IFEval does (arXiv 2311.07911):
a constraint is kept if it holds without the first line, without the last, without both, or without asterisks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ...environment.rollout import run_all
from ...models.base import Completion, Generator, Request, Sampling
from ...types import Role
from ...verifiers.reading import final_text
from ..intervals import bootstrap_interval, wilson_interval
from .prompts import Prompt

MODES = ("strict", "loose")
LEVELS = ("by_prompt", "by_constraint")


@dataclass(frozen=True)
class Outcome:
    """An answer, and for each of its prompt's constraints whether it keeps it."""

    answer: str
    strict: tuple[bool, ...]
    loose: tuple[bool, ...]


def ask(generator: Generator, prompts: Sequence[Prompt], max_tokens: int) -> list[str]:
    """One greedy answer to each prompt; an empty one where the model gave none."""
    greedy = Sampling(temperature=0.0, top_p=1.0, max_tokens=max_tokens)
    with tqdm(total=len(prompts), desc=f"Asking {generator.model}", disable=None) as bar:

        async def answer(prompt: Prompt) -> str:
            message = {"role": "user", "content": prompt.text}
            completion: Completion = await generator(Request(Role.EXPERT, (message,), greedy))
            bar.update()
            return completion.text

        return run_all([answer(prompt) for prompt in prompts])


def judged(prompts: Sequence[Prompt], answers: Sequence[str]) -> list[Outcome]:
    """Which constraints each answer keeps."""
    return [_outcome(prompt, final_text(answer)) for prompt, answer in zip(prompts, answers, strict=True)]


def _outcome(prompt: Prompt, answer: str) -> Outcome:
    strict = tuple(one.holds(answer) for one in prompt.constraints)
    others = loosened(answer)
    loose = tuple(kept or any(map(one.holds, others)) for kept, one in zip(strict, prompt.constraints))
    return Outcome(answer, strict, loose)


def loosened(answer: str) -> list[str]:
    """The answer without its first line, last line, both, and each of the four without asterisks; none are blank.

    >>> loosened("Sure:\\n**Yes.**")
    ['**Yes.**', 'Sure:', 'Sure:\\nYes.', 'Yes.']
    """
    lines = answer.split("\n")
    parts = [answer, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    found = dict.fromkeys([*parts, *(part.replace("*", "") for part in parts)])
    return [part for part in found if part.strip() and part != answer]


def summary(prompts: Sequence[Prompt], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Accuracies with 95 % intervals.

    Returns:
        Numbers of `prompts` and `constraints`; for "strict" and "loose" a `rate` and its `interval` "by_prompt" (all
        constraints of the prompt are kept; Wilson) and "by_constraint" (bootstrap over prompts, since constraints of
        one prompt share its answer); and `kinds`: for each the number `n`, and both rates with Wilson intervals.
    """
    kinds: dict[str, dict[str, list[bool]]] = {}
    for prompt, outcome in zip(prompts, outcomes, strict=True):
        for number, one in enumerate(prompt.constraints):
            for mode in MODES:
                kept = getattr(outcome, mode)[number]
                kinds.setdefault(one.id, {mode: [] for mode in MODES})[mode].append(kept)
    return {
        "prompts": len(prompts),
        "constraints": sum(len(prompt.constraints) for prompt in prompts),
        **{mode: {level: _rate(outcomes, mode, level) for level in LEVELS} for mode in MODES},
        "kinds": {
            id: {"n": len(found["strict"]), **{mode: _wilson(found[mode]) for mode in MODES}}
            for id, found in sorted(kinds.items())
        },
    }


def difference(outcomes: Sequence[Outcome], base: Sequence[Outcome]) -> dict[str, Any]:
    """The model's rates less its base's on the same prompts, with paired bootstrap intervals over prompts."""
    return {mode: {level: _gain(outcomes, base, mode, level) for level in LEVELS} for mode in MODES}


def _counts(outcomes: Sequence[Outcome], mode: str, level: str) -> tuple[np.ndarray, np.ndarray]:
    """For each prompt what is kept, and of how many: 1 for a prompt as a whole, else its constraints."""
    found = [getattr(outcome, mode) for outcome in outcomes]
    if level == "by_prompt":
        return np.array([float(all(kept)) for kept in found]), np.ones(len(found))
    return np.array([float(sum(kept)) for kept in found]), np.array([float(len(kept)) for kept in found])


def _ratio(kept: np.ndarray, number: np.ndarray, axis: int = -1) -> Any:
    return kept.sum(axis=axis) / number.sum(axis=axis)


def _rate(outcomes: Sequence[Outcome], mode: str, level: str) -> dict[str, Any]:
    kept, number = _counts(outcomes, mode, level)
    if level == "by_prompt":
        return _wilson([bool(one) for one in kept])
    interval = bootstrap_interval((kept, number), _ratio, paired=True)
    return {"rate": float(_ratio(kept, number)), "interval": interval}


def _gain(outcomes: Sequence[Outcome], base: Sequence[Outcome], mode: str, level: str) -> dict[str, Any]:
    (ours, number), (theirs, _) = _counts(outcomes, mode, level), _counts(base, mode, level)
    interval = bootstrap_interval((ours - theirs, number), _ratio, paired=True)
    return {"difference": float(_ratio(ours - theirs, number)), "interval": interval}


def _wilson(kept: Sequence[bool]) -> dict[str, Any]:
    return {"rate": sum(kept) / len(kept), "interval": wilson_interval(sum(kept), len(kept))}
