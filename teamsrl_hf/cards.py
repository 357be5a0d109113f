"""Cards computed from a run: in go results and settings, out comes the text of a README.md with its YAML front matter.

Text from seeds and models is untrusted: it is shown in fences it can't close, and reaches YAML only through a dumper.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import yaml

from .operations import Operation
from .paths import resource
from .types import Example, Rejection

PAPER_TAGS = ("teamsrl", "arxiv:2403.08694")
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def dataset_statistics(results: Sequence[Example | Rejection]) -> dict[str, Any]:
    """Rows, rejections by reason, calls by kind, calls per row, operations of accepted rows."""
    rows = [result.candidate for result in results if isinstance(result, Example)]
    reasons = Counter(result.reason for result in results if isinstance(result, Rejection))
    calls: Counter[str] = Counter()
    for result in results:
        calls.update(dict(result.candidate.calls))
    paid = calls["rewrite"] + calls["answer"]
    return {
        "rows": len(rows),
        "rejections": dict(sorted(reasons.items())),
        "calls": {kind: calls[kind] for kind in ("rewrite", "review", "answer")},
        "expert_calls_per_row": round(paid / len(rows), 3) if rows else None,
        "operations": dict(sorted(Counter(row.transition.operation for row in rows).items())),
    }


def dataset_card(
    results: Sequence[Example | Rejection],
    statistics: Mapping[str, Any],
    configs: Sequence[Mapping[str, Any]],
    operations: Sequence[Operation],
    script_args: Any,
    evolver_args: Any,
    chains: int = 5,
) -> str:
    """The dataset's card.

    Args:
        configs: Which files make up which split, as `schema.write_folder` tells.
        script_args: Attributes `license`, `language`, `expert`, `reviewer`, `chooser`, `policy`.
        chains: How many chains to show.
    """
    meta = {
        "license": script_args.license,
        "language": [script_args.language],
        "task_categories": ["text-generation"],
        "size_categories": [size_category(statistics["rows"])],
        "tags": ["synthetic", "instruction-tuning", *PAPER_TAGS],
        "configs": list(configs),
    }
    return render(
        "dataset_card.md",
        meta=front_matter(meta),
        statistics=statistics,
        operations=operations,
        sampling={name: value for name, value in asdict(evolver_args).items() if name != "concurrency"},
        roles={"expert": script_args.expert, "reviewer": script_args.reviewer},
        chooser=script_args.chooser,
        rulebook=_uses_rulebook(results),
        chains=sample_chains(results, chains),
    )


def policy_card(summary: Mapping[str, Any], operations: Sequence[Operation], args: Mapping[str, Any]) -> str:
    """The policy's card, from the summary of its training and the arguments worth knowing."""
    meta = {
        "library_name": "transformers",
        "license": "apache-2.0",
        "pipeline_tag": "reinforcement-learning",
        "tags": ["ppo", "instruction-generation", *PAPER_TAGS],
    }
    return render("policy_card.md", meta=front_matter(meta), summary=summary, operations=operations, args=args)


def render(template: str, **values: Any) -> str:
    """A template of `model_cards/` filled in; a name it uses that is not given is an error."""
    return _environment().from_string(resource(f"model_cards/{template}").read_text(encoding="utf-8")).render(**values)


@lru_cache(maxsize=1)
def _environment():
    from jinja2 import StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment

    environment = SandboxedEnvironment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {"fenced": fenced, "code": inline_code}
    return environment


def front_matter(meta: Mapping[str, Any]) -> str:
    """YAML between its two lines of dashes."""
    return f"---\n{yaml.safe_dump(dict(meta), sort_keys=False, allow_unicode=True)}---"


def fenced(text: str) -> str:
    """Untrusted text as a block of code whose fence is longer than any run of backticks in it.

    >>> print(fenced("a ``` b"))
    ````text
    a ``` b
    ````
    """
    text = _visible(text)
    ticks = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{ticks}text\n{text}\n{ticks}"


def inline_code(text: Any) -> str:
    """Untrusted text as a span of code on one line, safe in a table."""
    return "`" + " ".join(_visible(str(text)).split()).replace("`", "'").replace("|", "/") + "`"


def _visible(text: str, limit: int = 2_000) -> str:
    """Text without control and direction characters, cut where it would drown the card."""
    text = re.sub(r"[\x00-\x08\x0b-\x1f\x7f\u200e\u200f\u202a-\u202e\u2066-\u2069]", "�", text)
    return text if len(text) <= limit else text[:limit] + " […]"


def size_category(rows: int) -> str:
    """The Hub's name for a dataset of this size.

    >>> size_category(999), size_category(1_000)
    ('n<1K', '1K<n<10K')
    """
    return next((name for limit, name in _SIZES if rows < limit), "n>1M")


def sample_chains(results: Sequence[Example | Rejection], count: int) -> list[dict[str, Any]]:
    """The `count` seeds whose chains led to a row and whose ids are lowest, a sample that content alone decides."""
    by_seed: dict[str, list[Example]] = {}
    for result in results:
        if isinstance(result, Example):
            by_seed.setdefault(result.candidate.seed.id, []).append(result)
    return [
        {
            "seed": rows[0].candidate.seed.text,
            "steps": [(row.candidate.transition.operation, row.candidate.transition.rewrite) for row in rows],
            "response": rows[-1].candidate.response,
        }
        for _, rows in sorted(by_seed.items())[:count]
    ]


def _uses_rulebook(results: Sequence[Example | Rejection]) -> bool:
    return any("rulebook" in (r.candidate.transition.rewriter, r.candidate.responder) for r in results)
