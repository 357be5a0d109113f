"""Ledgers of the processes of one launch: each buys into a part of its own, LEDGER-RANK.sqlite beside the main ledger.

A part records which ledger it belongs to. A file of another run with such a name is never read, counted,
written or deleted.
"""

import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import UserError
from .ledger import Ledger
from .ledger_file import identity_of, owner_of

logger = logging.getLogger(__name__)
_BESIDE = ("-wal", "-shm", "-journal", "")  # Endings of the files that SQLite keeps; the main file comes last.


def part_paths(ledger: Path, ranks: Iterable[int] | None = None) -> list[Path]:
    """Paths of the parts of these ranks; without `ranks`, of all existing parts in the order of their ranks."""
    if ranks is not None:
        return [ledger.with_name(f"{ledger.stem}-{rank}{ledger.suffix}") for rank in ranks]
    identity = identity_of(ledger) if ledger.exists() else None
    return _parts(ledger, identity) if identity else []


def prepare_parts(ledger: Ledger, size: int) -> str:
    """Merge the parts of earlier launches and check the paths of `size` new ones; returns the ledger's identity.

    Raises:
        UserError: A file of another run has the path of a part.
    """
    merge_parts(ledger)
    for path in part_paths(ledger.path, range(size)):
        _refuse_strangers(path)
    return ledger.identity


def open_part(ledger: Path, identity: str, rank: int, **options: Any) -> Ledger:
    """Open the part of the process of this rank, created if missing. `options` are those of `Ledger`.

    Raises:
        UserError: A file of another run has this path.
    """
    (path,) = part_paths(ledger, [rank])
    if owner_of(path) != (identity, rank):
        _refuse_strangers(path)
        # Under another name first, so that a process killed meanwhile leaves no file that looks like another run's.
        draft = path.with_name(f".{path.name}.part")
        _remove(draft)
        with Ledger(draft) as part:
            part.belong_to(identity, rank)
        draft.replace(path)
    return Ledger(path, **options)


def merge_parts(ledger: Ledger) -> None:
    """Merge all parts into `ledger`, including those of earlier runs, and delete them."""
    parts = _parts(ledger.path, ledger.identity)
    ledger.merge(parts)
    for part in parts:
        _remove(part)
    if parts:
        logger.info("The ledger %s took in those of %d processes.", ledger.path, len(parts))


def _parts(ledger: Path, identity: str) -> list[Path]:
    pattern = re.compile(re.escape(ledger.stem) + r"-(0|[1-9]\d*)" + re.escape(ledger.suffix))
    found = ((path, pattern.fullmatch(path.name)) for path in ledger.parent.iterdir())
    ranks = sorted(int(match[1]) for path, match in found if match and owner_of(path) == (identity, int(match[1])))
    return part_paths(ledger, ranks)


def _refuse_strangers(path: Path) -> None:
    for ending in reversed(_BESIDE):
        if (file := path.with_name(path.name + ending)).exists():
            raise UserError(
                f"{file} is in use by another process, or another run left it; move it away, or name another ledger."
            )


def _remove(path: Path) -> None:
    for ending in _BESIDE:
        path.with_name(path.name + ending).unlink(missing_ok=True)
