"""Checks a published dataset again: in goes its folder, out comes how many rows still pass each of their verifiers.

    python recipes/verified/recheck.py outputs/verified_runs/stepwise

Of this project it imports nothing but `teamsrl_hf.verifiers`. It ends with status 1 if a row fails.
"""

import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet

from teamsrl_hf.verifiers import Verifier, verified


def recheck(folder: str | Path) -> dict[str, Any]:
    """Rows, those that carry verifiers, their verifiers, and the ids of rows of which one fails."""
    files = sorted(Path(folder, "data").glob("*.parquet"))
    columns = ["id", "completion", "verifiers"]
    rows = [row for file in files for row in pyarrow.parquet.read_table(file, columns=columns).to_pylist()]
    bound = [row for row in rows if row["verifiers"]]
    return {
        "rows": len(rows),
        "rows_with_verifiers": len(bound),
        "verifiers": sum(len(row["verifiers"]) for row in bound),
        "failed": [row["id"] for row in bound if not all(passed(row))],
    }


def passed(row: dict[str, Any]) -> tuple[bool, ...]:
    """For each verifier of a row, whether its answer passes."""
    return verified(row["completion"][-1]["content"], [Verifier(**one) for one in row["verifiers"]])


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(f"{__doc__}\nusage: python recipes/verified/recheck.py FOLDER")
    found = recheck(sys.argv[1])
    print(found)
    sys.exit(1 if found["failed"] or not found["rows"] else 0)
