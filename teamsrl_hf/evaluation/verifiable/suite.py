"""The suite itself: in go seeds and models, out come prompts, outcomes, and files of prompts and answers.

A model's answers are greedy, so the same model, dtype and batch size give the same numbers.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...models.local import TransformersGenerator
from ...types import Seed
from .ifbench import Benchmark, ifbench_prompts
from .prompts import Prompt, held_out_prompts
from .scores import Outcome, ask, difference, judged, summary

Asked = Mapping[str, Sequence[Prompt]]  # By suite.


def prompts_of(seeds: Sequence[Seed], per_kind: int, seed: int, limit: int | None) -> tuple[Asked, dict[str, Any]]:
    """The prompts of each suite, and facts about them for the report."""
    asked: dict[str, Sequence[Prompt]] = {"held_out": held_out_prompts(seeds, per_kind, seed)}
    facts: dict[str, Any] = {"seeds": len(seeds), "prompts_per_kind": per_kind, "seed": seed, "limit": limit}
    found = ifbench_prompts()
    if found is not None:
        asked["ifbench"] = found.prompts
        facts["ifbench"] = _facts(found)
    return {name: prompts[:limit] for name, prompts in asked.items() if prompts}, facts


def _facts(found: Benchmark) -> dict[str, Any]:
    checked_by = Counter(one.checked_by for prompt in found.prompts for one in prompt.constraints)
    known = {"prompts": len(found.prompts), "left_out": found.left_out, "not_checkable": list(found.unknown)}
    return {**known, "checked_by": dict(checked_by)}


def measure(
    model: Any, tokenizer: Any, asked: Asked, name: str, max_new_tokens: int, batch_size: int
) -> dict[str, list[Outcome]]:
    """The outcomes of one model on every suite.

    Args:
        model, tokenizer: A causal LM with its tokenizer.
        name: What the progress bar calls it.
    """
    options: dict[str, Any] = {"processing_class": tokenizer, "batch_size": batch_size}
    generator = TransformersGenerator(name, model=model, **options)
    return {suite: judged(prompts, ask(generator, prompts, max_new_tokens)) for suite, prompts in asked.items()}


def results_of(
    asked: Asked, outcomes: Mapping[str, Mapping[str, list[Outcome]]], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """What `report` tells, from the outcomes of "model" and, if there is one, "base"."""
    results: dict[str, Any] = {"facts": dict(facts)}
    for suite, prompts in asked.items():
        results[suite] = {name: summary(prompts, found[suite]) for name, found in outcomes.items()}
        if "base" in outcomes:
            results[suite]["difference"] = difference(outcomes["model"][suite], outcomes["base"][suite])
    return results


def write_answers(
    folder: Path, asked: Asked, outcomes: Mapping[str, Mapping[str, list[Outcome]]], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Write prompts.jsonl (the held-out suite in IFEval's form) and answers.jsonl. Returns `results_of` them."""
    rows = [prompt.to_json(f"held_out-{number}") for number, prompt in enumerate(asked["held_out"])]
    _write_lines(folder / "prompts.jsonl", rows)
    answers = [
        {
            "suite": suite,
            "model": name,
            "prompt": prompt.text,
            "kinds": [c.id for c in prompt.constraints],
            **vars(one),
        }
        for name, found in outcomes.items()
        for suite, prompts in asked.items()
        for prompt, one in zip(prompts, found[suite])
    ]
    _write_lines(folder / "answers.jsonl", answers)
    return results_of(asked, outcomes, facts)


def _write_lines(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    file.write_text("".join(lines), encoding="utf-8")
