"""Ledgers of the processes of one launch: each buys into a part of its own, LEDGER-RANK.sqlite beside the main ledger.

A part records which ledger it belongs to. A file of another run that has such a name is neither read, counted, written
nor deleted.
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
_BESIDE = ("-wal", "-shm", "-journal", "")  # What SQLite keeps in files of their own; the main file last.


def part_paths(ledger: Path, ranks: Iterable[int] | None = None) -> list[Path]:
    """Where the parts of these ranks lie; or the parts that there are, in the order of their ranks."""
    if ranks is not None:
        return [ledger.with_name(f"{ledger.stem}-{rank}{ledger.suffix}") for rank in ranks]
    identity = identity_of(ledger) if ledger.exists() else None
    return _parts(ledger, identity) if identity else []


def prepare_parts(ledger: Ledger, size: int) -> str:
    """Merge what earlier launches left, and see that `size` processes can write; returns what `open_part` asks for.

    Raises:
        UserError: Another run's file lies where a part would.
    """
    merge_parts(ledger)
    for path in part_paths(ledger.path, range(size)):
        _refuse_strangers(path)
    return ledger.identity


def open_part(ledger: Path, identity: str, rank: int, **options: Any) -> Ledger:
    """The part of the process of this rank, made if missing; for the arguments see `prepare_parts` and `Ledger`.

    Raises:
        UserError: Another run's file lies there.
    """
    (path,) = part_paths(ledger, [rank])
    if owner_of(path) != (identity, rank):
        _refuse_strangers(path)
        # Under another name first: a process that is killed meanwhile leaves nothing that looks like a stranger's.
        draft = path.with_name(f".{path.name}.part")
        _remove(draft)
        with Ledger(draft) as part:
            part.belong_to(identity, rank)
        draft.replace(path)
    return Ledger(path, **options)


def merge_parts(ledger: Ledger) -> None:
    """Take the records of all parts, also those an earlier run left, into `ledger` and delete them."""
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
