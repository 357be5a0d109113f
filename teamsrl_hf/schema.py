"""The published dataset: in go examples and rejections, out comes a folder that `load_dataset` takes and the Hub
shows.

Config `default` holds the accepted rows, ready for `trl.SFTTrainer`; config `trajectories` every step of every
chain, also the rejected ones, with its reason. Columns never depend on settings.
"""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .types import Candidate, Example, Rejection

if TYPE_CHECKING:
    from datasets import Features

CALL_KINDS = ("rewrite", "review", "answer")
CONFIGS = {"default": "data", "trajectories": "trajectories"}
SPLITS = ("train", "test")


def features() -> dict[str, "Features"]:
    """Column types of both configs."""
    from datasets import Features, List, Value

    text, number = Value("string"), Value("int32")
    shared = {
        "id": text,
        "seed_id": text,
        "parent_id": text,
        "step": number,
        "operation": text,
        "operations": List(text),
        "verdict": text,
        "violations": List(text),
        "reviewer": text,
        "rewriter": text,
        "responder": text,
        "calls": dict.fromkeys(CALL_KINDS, number),
    }
    turns = List({"role": text, "content": text})
    chain = dict.fromkeys(("seed_instruction", "seed_input", "instruction", "rewrite", "response"), text)
    outcome = {"accepted": Value("bool"), "reason": text, "error": text}
    return {
        "default": Features({"prompt": turns, "completion": turns, **shared}),
        "trajectories": Features({**shared, **chain, **outcome}),
    }


def default_row(example: Example) -> dict[str, Any]:
    """One row of config `default`."""
    candidate = example.candidate
    return {
        "prompt": [{"role": "user", "content": candidate.transition.rewrite}],
        "completion": [{"role": "assistant", "content": candidate.response}],
        **_provenance(candidate),
    }


def trajectory_row(result: Example | Rejection) -> dict[str, Any]:
    """One row of config `trajectories`."""
    candidate = result.candidate
    return {
        **_provenance(candidate),
        "seed_instruction": candidate.seed.instruction,
        "seed_input": candidate.seed.input,
        "instruction": candidate.transition.instruction,
        "rewrite": candidate.transition.rewrite,
        "response": candidate.response,
        "accepted": isinstance(result, Example),
        "reason": result.reason if isinstance(result, Rejection) else None,
        "error": candidate.transition.error,
    }


def _provenance(candidate: Candidate) -> dict[str, Any]:
    transition = candidate.transition
    calls = dict(candidate.calls)
    return {
        "id": candidate.id,
        "seed_id": candidate.seed.id,
        "parent_id": candidate.parent_id,
        "step": candidate.step,
        "operation": transition.operation,
        "operations": list(candidate.operations),
        "verdict": transition.review.verdict,
        "violations": list(transition.review.violations),
        "reviewer": transition.review.reviewer,
        "rewriter": transition.rewriter,
        "responder": candidate.responder,
        "calls": {kind: calls.get(kind, 0) for kind in CALL_KINDS},
    }


def write_folder(
    folder: str | Path,
    results: Sequence[Example | Rejection],
    test_seeds: frozenset[str],
    card: Callable[[list[dict[str, Any]]], str],
) -> None:
    """Write parquet files and README.md into `folder`, replacing what an earlier, cut-off try left of them.

    Rows of the seeds in `test_seeds` make up split `test`. A split without rows has no file, since `load_dataset`
    can't read one.

    Args:
        card: Makes the text of README.md from the `configs` entry its YAML must hold: which files make up which split.
    """
    folder = Path(folder)
    draft = folder / ".writing"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    files = {place: _write_table(draft, place, rows) for place, rows in _tables(results, test_seeds).items()}
    (draft / "README.md").write_text(card(_configs(files)), encoding="utf-8")
    for part in (*CONFIGS.values(), "README.md"):
        if (draft / part).exists():
            _replace(draft / part, folder / part)
    draft.rmdir()


def _write_table(folder: Path, place: tuple[str, str], rows: list[dict[str, Any]]) -> str:
    """Write one split; returns its path within the folder.

    The name holds a hash of the content: `load_dataset` caches a local folder by its name and its card's YAML alone,
    and would hand out the rows of an older folder of the same name.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    config, split = place
    draft = folder / "table.parquet"
    # The features' own schema carries their types in its metadata, where `load_dataset` looks for them.
    pq.write_table(pa.Table.from_pylist(rows, schema=features()[config].arrow_schema), draft)
    digest = hashlib.blake2b(draft.read_bytes(), digest_size=8).hexdigest()
    path = f"{CONFIGS[config]}/{split}-00000-of-00001-{digest}.parquet"
    (folder / path).parent.mkdir(exist_ok=True)
    draft.rename(folder / path)
    return path


def _configs(files: dict[tuple[str, str], str]) -> list[dict[str, Any]]:
    """The `configs` entry of the card's YAML."""
    entries = []
    for config in CONFIGS:
        listed = [{"split": split, "path": files[config, split]} for split in SPLITS if (config, split) in files]
        if listed:
            entries.append({"config_name": config, "data_files": listed, "default": config == "default"})
    return entries


def _tables(results: Sequence[Example | Rejection], test_seeds: frozenset[str]) -> dict[tuple[str, str], list[dict]]:
    tables: dict[tuple[str, str], list[dict]] = {}
    for result in results:
        split = "test" if result.candidate.seed.id in test_seeds else "train"
        tables.setdefault(("trajectories", split), []).append(trajectory_row(result))
        if isinstance(result, Example):
            tables.setdefault(("default", split), []).append(default_row(result))
    return tables


def _replace(source: Path, target: Path) -> None:
    if target.is_dir():
        shutil.rmtree(target)
    source.replace(target)
