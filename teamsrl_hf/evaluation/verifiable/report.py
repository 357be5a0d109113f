"""The report of the suite: in go results, out come tables, a section of the model's card, and `.eval_results/`.

`results` holds `facts`, and by suite (`held_out`, `ifbench`) the summaries of `model` and `base` and their
`difference`, see `scores`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..study import as_table
from .ifbench import HUB_ID
from .scores import LEVELS, MODES

TITLES = {"held_out": "kinds held out of evolving", "ifbench": "IFBench"}
EVAL_RESULTS = ".eval_results"


def tables(results: Mapping[str, Any]) -> str:
    """Accuracies of each suite, then those by kind, as Markdown."""
    suites = [name for name in TITLES if name in results]
    rows = [_row(name, results[name], mode, level) for name in suites for mode in MODES for level in LEVELS]
    models = [name for name in ("model", "base") if name in results[suites[0]]]
    headings = ["suite", "prompts", "accuracy", *models, *(["model − base"] if "base" in models else [])]
    parts = [as_table(headings, rows)]
    for name in suites:
        parts += [f"By kind, {TITLES[name]}:\n", _by_kind(results[name], models)]
    return "\n".join(parts)


def _row(name: str, suite: Mapping[str, Any], mode: str, level: str) -> list[str]:
    title = f"{mode}, {level.replace('_', ' ')}"
    cells = [_told(suite[one][mode][level]) for one in ("model", "base") if one in suite]
    cells += [_told(suite["difference"][mode][level], "+")] if "difference" in suite else []
    return [TITLES[name], str(suite["model"]["prompts"]), title, *cells]


def _by_kind(suite: Mapping[str, Any], models: list[str]) -> str:
    rows = []
    for id, found in suite["model"]["kinds"].items():
        cells = [_told(suite[one]["kinds"][id][mode]) for one in models for mode in MODES]
        rows.append([f"`{id}`", str(found["n"]), *cells])
    return as_table(["kind", "n", *(f"{one}, {mode}" for one in models for mode in MODES)], rows)


def _told(found: Mapping[str, Any], sign: str = "") -> str:
    value = found["difference"] if "difference" in found else found["rate"]
    low, high = found["interval"]
    return f"{value:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def section(results: Mapping[str, Any]) -> str:
    """The card's section."""
    facts = results["facts"]
    base = f" {facts['base']}" if facts.get("base") else ""
    return (
        "## Constraints that code can check\n\n"
        f"One greedy answer of at most {facts['max_new_tokens']} tokens to each prompt, {facts['dtype']}. Strict "
        "takes the answer as it is; loose also without its first line, last line or asterisks. In brackets are 95 % "
        f"intervals.{base}{_limits(facts)}\n\n{tables(results)}"
    )


def _limits(facts: Mapping[str, Any]) -> str:
    """What the numbers do not cover."""
    said = ""
    if found := facts.get("ifbench"):
        said = f" IFBench's constraints are checked by {_by_whom(found['checked_by'])}."
    if found and found["left_out"]:
        total = found["left_out"] + found["prompts"]
        said += (
            f" {found['left_out']} of its {total} prompts can't be checked here: the figures are no IFBench scores."
        )
    if facts["limit"]:
        said += f" Only the first {facts['limit']} prompts of each suite were asked, for a trial."
    return said


def _by_whom(counts: Mapping[str, int]) -> str:
    names = {"ifbench": "its own checkers", "teamsrl_hf": "the verifiers of teamsrl-hf"}
    return " and ".join(f"{names[name]} ({count})" for name, count in counts.items())


def write_eval_results(folder: Path, results: Mapping[str, Any], held_out_id: str | None = None) -> list[Path]:
    """Write the model's strict accuracy by prompt as the Hub reads it, and remove earlier files of the suite.

    The Hub wants the id of a benchmark in each file. IFBench has one, and gets a file where all its prompts were
    asked and checked, since a part of it is no IFBench score. The prompts of held-out kinds depend on the seeds, and
    get a file where `held_out_id` names the dataset that holds them.

    Args:
        folder: The model's.
        results: See the module.
        held_out_id: A Hub dataset with the suite's prompts, as USER/NAME or USER/NAME:TASK.

    Returns:
        The files written.
    """
    whole = "ifbench" in results and not results["facts"]["ifbench"]["left_out"]
    ids = {"held_out": held_out_id, "ifbench": HUB_ID if whole else None}
    written = []
    for name, id in ids.items():
        file = folder / EVAL_RESULTS / f"verifiable_{name}.yaml"
        file.unlink(missing_ok=True)
        if id and name in results and not results["facts"]["limit"]:
            file.parent.mkdir(exist_ok=True)
            file.write_text(_entry(id, results[name]["model"], results["facts"]), encoding="utf-8")
            written.append(file)
    return written


def _entry(id: str, found: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    import yaml
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    dataset, _, task = id.partition(":")
    rate = found["strict"]["by_prompt"]
    low, high = rate["interval"]
    notes = (
        f"strict accuracy by prompt, n = {found['prompts']}, 95 % interval {low:.4f} to {high:.4f}, greedy, at most "
        f"{facts['max_new_tokens']} new tokens"
    )
    entry = EvalResultEntry(dataset, task or "default", round(rate["rate"], 4), notes=notes)
    return yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False, allow_unicode=True)
