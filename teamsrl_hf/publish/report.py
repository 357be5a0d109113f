"""The lineage page: in goes a dataset's folder, out comes report.html in it, one file that shows every chain and needs
no network.

Texts are untrusted. They travel as compressed JSON in base64, which can't end the element that holds it; the page puts
them only into text nodes, and its policy lets no script run but its own.
"""

import base64
import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..paths import resource
from .dataset_writer import CONFIGS

COLUMNS = (
    *("id", "seed_id", "parent_id", "step", "operation", "verdict", "accepted", "reason"),
    *("seed_instruction", "seed_input", "instruction", "rewrite", "edit", "response"),
)
LONGEST = 20_000


def write_report(folder: str | Path, limit: int = 100_000) -> Path:
    """Write `report.html` into the folder of a dataset, from its config `trajectories`; returns its path.

    Args:
        limit: After this many steps no further chain is shown; the page says how many steps it leaves out. Texts over
            20,000 characters are cut.

    Raises:
        UserError: The folder holds no trajectories.
    """
    folder = Path(folder)
    files = sorted((folder / CONFIGS["trajectories"]).glob("*.parquet"))
    if not files:
        raise UserError(f"Folder {str(folder)!r} holds no trajectories/*.parquet; give the folder of a dataset.")
    page = folder / "report.html"
    page.write_text(report(_rows(files), _count(files), limit), encoding="utf-8")
    return page


def report(rows: Iterable[dict[str, Any]], total: int, limit: int = 100_000) -> str:
    """The page's text, from rows of config `trajectories`, of which there are `total`, seed by seed."""
    script = resource("model_cards/report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # mtime=0: the same rows make the same page.
    packed = gzip.compress(json.dumps(pack(rows, total, limit), separators=(",", ":")).encode(), 6, mtime=0)
    page = resource("model_cards/report.html").read_text(encoding="utf-8")
    parts = {"__HASH__": f"sha256-{digest}", "__SCRIPT__": script, "__DATA__": base64.b64encode(packed).decode()}
    for mark, text in parts.items():
        page = page.replace(mark, text, 1)
    return page


def pack(rows: Iterable[dict[str, Any]], total: int, limit: int) -> dict[str, Any]:
    """Columns of numbers, and each text once.

    Returns:
        `texts`, `names`, `outcomes`: the values behind the numbers; `left_out`: steps not shown; columns with one
        number for each step. `parent` is the row a step was rewritten from, -1 for the seed; outcome 0 is "accepted".
    """
    texts, names, outcomes = _Index(), _Index(), _Index()
    outcomes.number("accepted")
    columns: dict[str, list[int]] = {name: [] for name in _PACKED}
    places: dict[tuple[str, str], int] = {}
    for row in rows:
        seed = row["seed_id"]
        # A chain that has begun is shown whole.
        if len(columns["seed"]) >= limit and seed not in names:
            break
        packed = {
            "seed": names.number(seed),
            "start": texts.number(_cut("\n\n".join(filter(None, (row["seed_instruction"], row["seed_input"]))))),
            "parent": places.get((seed, row["parent_id"]), -1),
            "step": row["step"],
            "operation": names.number(row["operation"] or "none"),
            "verdict": names.number(row["verdict"] or "none"),
            "outcome": outcomes.number("accepted" if row["accepted"] else row["reason"] or "rejected"),
            # Older datasets have no edits.
            **{name: texts.number(_cut(row.get(name) or "")) for name in _TEXTS},
        }
        places[seed, row["id"]] = len(columns["seed"])
        for name, column in columns.items():
            column.append(packed[name])
    shared = {"texts": [*texts], "names": [*names], "outcomes": [*outcomes]}
    return {**shared, "left_out": total - len(columns["seed"]), **columns}


_TEXTS = ("instruction", "rewrite", "edit", "response")
_PACKED = ("seed", "start", "parent", "step", "operation", "verdict", "outcome", *_TEXTS)


class _Index(dict):
    """Texts in the order of their numbers."""

    def number(self, text: str) -> int:
        return self.setdefault(text, len(self))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} […{len(text) - LONGEST:,} characters more]"


def _count(files: list[Path]) -> int:
    import pyarrow.parquet as pq

    return sum(pq.read_metadata(file).num_rows for file in files)


def _rows(files: list[Path]) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    for file in files:
        with pq.ParquetFile(file) as table:
            for batch in table.iter_batches(batch_size=1_000, columns=list(COLUMNS)):
                yield from batch.to_pylist()
