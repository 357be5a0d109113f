"""Cards computed from a run: in go results and settings, out comes the text of a README.md with its YAML front matter.

Text from seeds and models is untrusted: it is shown in fences it can't close, and reaches YAML only through a dumper.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, asdict, fields
from enum import Enum
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from ..errors import UserError
from ..paths import resource
from ..public import is_local, public_model, public_name
from ..redaction import visible
from ..text.operations import Operation, prompts_digest
from .counts import RULEBOOK, DatasetStatistics, span
from .dataset_writer import COLUMNS, schemas
from .licenses import LICENSES

PAPER_TAGS = ("teamsrl", "arxiv:2403.08694")
# Choosers that compete with the policy; "bandit" is how a command names either of the last two.
_BASELINES = ("uniform", "paper", "bandit", "thompson", "linucb")
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def dataset_card(
    statistics: DatasetStatistics,
    configs: Sequence[Mapping[str, Any]],
    operations: Sequence[Operation],
    script_args: Any,
    evolver_args: Any,
    checks: Sequence[str] = (),
    plots: Mapping[str, str] | None = MappingProxyType({}),
    origin: Mapping[str, Any] | None = None,
    template: str | Path | None = None,
    cost: str | None = None,
) -> str:
    """The dataset's card.

    Args:
        configs: Files of each split, as `DatasetWriter.finish` passes them.
        script_args: Attributes `license`, `language`, `expert`, `reviewer`, `chooser`, and `instructor` where there is
            one.
        checks: Sentences about further checks of the rows, and their results.
        plots: Title and path of each picture, as `plots.plot_dataset` gives them; None where it could draw none.
        origin: The content of the run's lineage.json: seeds, chooser, versions and recipe; None without a record.
        template: Path of a Jinja file that replaces `model_cards/dataset_card.md` and may use every name that this one
            does, such as `meta` (the YAML, with its lines of dashes), `statistics` and `chains`. Texts of models must
            pass through the filter `fenced` or `code`.
        cost: Money that the calls took, in words; None where nobody knows.

    Raises:
        UserError: The template can't be filled in.
    """
    meta = {
        "license": script_args.license,
        "language": [script_args.language],
        "task_categories": ["text-generation"],
        "size_categories": [size_category(statistics.rows)],
        "tags": ["synthetic", "instruction-tuning", *PAPER_TAGS],
        "configs": list(configs),
    }
    words = [counts.keys() for counts in statistics.words.values()]
    roles = {role: getattr(script_args, role, None) for role in ("expert", "reviewer", "instructor")}
    return render(
        "dataset_card.md",
        template,
        meta=front_matter(meta),
        statistics=statistics.summary(),
        operations=operations,
        prompts=prompts_digest(operations),
        sampling={name: value for name, value in asdict(evolver_args).items() if name != "concurrency"},
        roles={role: public_model(spec) for role, spec in roles.items() if spec},
        chooser=script_args.chooser,
        baselines=_BASELINES,
        spans=[span(bits) for bits in sorted({bits for counts in words for bits in counts})],
        rulebook=statistics.rulebook,
        checks=checks,
        chains=statistics.chains,
        plots=plots,
        columns=_columns(),
        origin=origin and _public_origin(origin),
        cost=cost,
    )


def _columns() -> list[tuple[str, str, str]]:
    """Name of each column, the configs that have it, and what it holds."""
    names = {config: schema.names for config, schema in schemas().items()}
    return [(name, ", ".join(c for c in names if name in names[c]), meaning) for name, meaning in COLUMNS.items()]


def _public_origin(origin: Mapping[str, Any]) -> dict[str, Any]:
    """A dataset's record without paths; its lists of seeds are counted, as every row names its seed anyway."""
    seeds, chooser = dict(origin["seeds"]), dict(origin["chooser"])
    seeds |= {side: len(seeds[side]) for side in ("train", "test")}
    for part in (seeds, chooser):
        part["source"] = part["source"] and public_name(part["source"])
    return {**origin, "seeds": seeds, "chooser": chooser}


def policy_card(
    summary: Mapping[str, Any] | None,
    operations: Sequence[Operation],
    args: Mapping[str, Any],
    plots: Mapping[str, str] | None = MappingProxyType({}),
    name: str = "operation policy",
    datasets: Sequence[str] = (),
    tags: Sequence[str] = (),
    models: Mapping[str, str] = MappingProxyType({}),
    license: str = "unknown",
    method: str = "PPO",
    paper: Mapping[str, str] | None = None,
    method_tags: Sequence[str] = ("ppo", "instruction-generation"),
) -> str:
    """The policy's card.

    Args:
        summary: `InstructionGenPPOTrainer.facts` of its training; None where nothing is known about it.
        args: Arguments of its training, for the card.
        plots: As in `dataset_card`.
        name: Its name in the list of results.
        datasets: Hub ids of its seeds' datasets; paths are left out.
        tags: Further tags.
        models: Name of each model that it was trained with, by role, such as "instructor".
        method, paper, method_tags: How it was trained: the name, the paper's `title` and its `id` on arXiv, and tags.
    """
    other = paper if paper and f"arxiv:{paper['id']}" not in PAPER_TAGS else None
    paper_tags = (*PAPER_TAGS, *([f"arxiv:{other['id']}"] if other else ()))
    meta: dict[str, Any] = {
        "library_name": "transformers",
        "license": license,
        "pipeline_tag": "reinforcement-learning",
        "tags": list(dict.fromkeys([*method_tags, *paper_tags, *tags])),
    }
    if online := [dataset for dataset in datasets if not is_local(dataset)]:
        meta["datasets"] = online
    if summary and summary["reward_after"] is not None:
        meta["model-index"] = [{"name": name, "results": [_held_out(summary)]}]
    return render(
        "policy_card.md",
        meta=front_matter(meta),
        summary=summary,
        operations=operations,
        args=args,
        plots=plots,
        models={role: public_model(name) for role, name in models.items()},
        rules=[role for role, name in models.items() if name == RULEBOOK],
        method=method,
        paper=other,
    )


def _held_out(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The measurements on held-out seeds, as an entry of the Hub's `model-index`."""
    metrics = (
        ("reward", "reward_after", "reward per chain"),
        ("accept_rate", "accept_rate_after", "accepted per call"),
    )
    return {
        "task": {"type": "reinforcement-learning", "name": "choice of operations"},
        "dataset": {"type": "seeds", "name": f"{summary['test_seeds']} held-out seeds"},
        "metrics": [
            {"type": type, "value": round(float(summary[key]), 4), "name": name} for type, key, name in metrics
        ],
    }


def render(template: str, own: str | Path | None = None, **values: Any) -> str:
    """A template of `model_cards/`, or a user's `own` file, filled in; a name it uses that is not given is an error.

    Raises:
        UserError: The user's file can't be filled in.
    """
    from jinja2 import TemplateError, TemplateSyntaxError

    path = resource(f"model_cards/{template}") if own is None else Path(own)
    try:
        return _environment().from_string(path.read_text(encoding="utf-8")).render(**values)
    except (TemplateError, TypeError, ValueError) as error:
        if own is None:
            raise
        line = f", line {error.lineno}" if isinstance(error, TemplateSyntaxError) else ""
        raise UserError(f"The card template {own}{line} can't be filled in: {error}") from error


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


def read_front_matter(card: str) -> tuple[dict[str, Any], str]:
    r"""A card's front matter and the text after it; front matter that is no mapping is empty.

    >>> read_front_matter("---\nlicense: mit\n---\n# A model")
    ({'license': 'mit'}, '# A model')
    """
    front, end, body = card.removeprefix("---\n").partition("\n---\n")
    if not (card.startswith("---\n") and end):
        return {}, card
    try:
        meta = yaml.safe_load(front)
    except yaml.YAMLError:
        meta = None
    return (meta, body) if isinstance(meta, dict) else ({}, body)


def card_of(name: str, repo_type: str) -> str:
    """The card of a folder or Hub id; empty where there is none at hand."""
    path = Path(name) / "README.md"
    if Path(name).exists():
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(name, "README.md", repo_type=repo_type)).read_text(encoding="utf-8")
    except (OSError, ValueError):  # Offline, or a repository without a card.
        return ""


def license_of(name: str, repo_type: str) -> str:
    """The licence that the card of a folder or Hub id names; "unknown" where it names none that the Hub knows."""
    license = read_front_matter(card_of(name, repo_type))[0].get("license")
    return license if license in LICENSES else "unknown"


def recipe_text(*dataclasses: Any, without: Collection[str] = ()) -> str:
    """The arguments that differ from their defaults, as YAML that `--config` takes; paths by their last part."""
    recipe: dict[str, Any] = {}
    for values in dataclasses:
        for entry in fields(values):
            default = entry.default_factory() if entry.default_factory is not MISSING else entry.default
            value = getattr(values, entry.name)
            if entry.init and value not in (default, None, []) and entry.name not in without:
                recipe[entry.name] = _public(value.value if isinstance(value, Enum) else value)
    return yaml.safe_dump({name: value for name, value in recipe.items() if _plain(value)}, sort_keys=False).strip()


def _public(value: Any) -> Any:
    if isinstance(value, list):
        return [_public(part) for part in value]
    if isinstance(value, dict):
        return {name: _public(part) for name, part in value.items()}
    return public_name(value) if isinstance(value, str) else value


def _plain(value: object) -> bool:
    if isinstance(value, list | dict):
        return all(_plain(part) for part in (value.values() if isinstance(value, dict) else value))
    return value is None or isinstance(value, str | int | float)


def tags_of(name: str, repo_type: str) -> list[str]:
    """The tags in the card of a folder or Hub id."""
    tags = read_front_matter(card_of(name, repo_type))[0].get("tags")
    return [str(tag) for tag in tags] if isinstance(tags, list) else []


def fenced(text: str) -> str:
    """Untrusted text as a block of code whose fence is longer than any run of backticks in it.

    >>> print(fenced("a ``` b"))
    ````text
    a ``` b
    ````
    """
    text = _cut(text)
    ticks = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{ticks}text\n{text}\n{ticks}"


def inline_code(text: Any) -> str:
    """Untrusted text as a span of code on one line, safe in a table."""
    return "`" + " ".join(_cut(str(text)).split()).replace("`", "'").replace("|", "/") + "`"


def _cut(text: str, limit: int = 2_000) -> str:
    """Text without control and direction characters, cut to `limit`."""
    text = visible(text)
    return text if len(text) <= limit else text[:limit] + " […]"


def size_category(rows: int) -> str:
    """The Hub's name for a dataset of this size.

    >>> size_category(999), size_category(1_000)
    ('n<1K', '1K<n<10K')
    """
    return next((name for limit, name in _SIZES if rows < limit), "n>1M")
