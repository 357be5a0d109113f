"""State of an output folder (run.json): arguments, completion, resume. Also saves models atomically.

One run at a time works in a folder; `hold` locks it.
"""

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import UserError

RUN_FILE, LEDGER_FILE = "run.json", "ledger.sqlite"
# `load_dataset` would read run.json, files of a ledger or a picture as rows. It reads this file first.
NOT_ROWS = ".huggingface.yaml"
_NO_ROWS = "configs:\n- config_name: default\n  data_files: no rows here, or not yet/*.parquet\n"
# Temporary files; after a kill they remain until the next run.
LOCK_FILE, DRAFT_FILE, STAGE = ".run.lock", f".{RUN_FILE}.part", ".saving"
# Weights of an earlier model, and what was measured on them, deleted before the new ones arrive.
_OLD = (
    *("model.safetensors*", "model-*.safetensors", "adapter_model.safetensors", "chooser.safetensors"),
    ".eval_results/verifiable_*.yaml",
)


@contextmanager
def hold(folder: str | Path, first: bool = True) -> Iterator[None]:
    """Lock `folder`, created if missing, against other runs until the block ends or the process dies.

    On a file system without locks it prints a warning and continues.

    Args:
        first: Whether this is the first process of its launch, which alone locks the folder for all of them.

    Raises:
        UserError: Another run holds the folder, or it is a file.
    """
    if not first:
        yield
        return
    from filelock import FileLock, Timeout

    folder = _made(Path(folder))
    lock = FileLock(folder / LOCK_FILE, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(
            f"The folder {folder} is in use by another run; wait for it or stop it, then run again."
        ) from None
    except OSError as error:
        print(f"warning: {folder} can't be locked ({error}); let no other run use it meanwhile", file=sys.stderr)
    try:
        yield
    finally:
        if lock.is_locked:
            (folder / LOCK_FILE).unlink(missing_ok=True)  # Before the release: after it, the file is another's.
            lock.release()


def open_run(folder: str | Path, arguments: dict[str, Any]) -> dict[str, Any] | None:
    """Claim `folder` for the run that `arguments` describe.

    Returns:
        None when there is work to do (a new folder, or one whose run was cut off), else the summary of the finished
        run.

    Raises:
        UserError: The folder holds something else, or a run with other arguments.
    """
    folder = _made(Path(folder))
    summary = peek_run(folder, arguments)
    # A run that failed before it wrote anything, perhaps because of a mistyped name, gives way.
    if read_run(folder) is None or (summary is None and contents(folder) == {RUN_FILE}):
        _claim(folder, json.loads(json.dumps(arguments)))
    return summary


def peek_run(folder: str | Path, arguments: dict[str, Any]) -> dict[str, Any] | None:
    """As `open_run`, but changes nothing."""
    folder, arguments = Path(folder), json.loads(json.dumps(arguments))
    known, names = read_run(folder), contents(folder)
    if known is None:
        # What a dry run leaves suits every run.
        if not ((folder / NOT_ROWS).exists() and all(name.startswith(LEDGER_FILE) for name in names)) and names:
            raise UserError(
                f"The output folder {folder} is not empty and was not made by this command; give a new one."
            )
        return None
    if known["summary"] is None and names == {RUN_FILE}:
        return None
    differing = sorted(
        name
        for name in known["arguments"].keys() | arguments.keys()
        if known["arguments"].get(name) != arguments.get(name)
    )
    if differing:
        name = differing[0]
        raise UserError(
            f"The output folder {folder} holds a run with {name} = {known['arguments'].get(name)!r}, not "
            f"{arguments.get(name)!r}; give a new folder, or the same arguments to go on with that run."
        )
    return known["summary"]


def prepare_run(folder: str | Path) -> None:
    """Let a ledger stand in `folder` before any run has claimed it; a run with any arguments may claim it later."""
    if read_run(folder) is None:
        (Path(folder) / NOT_ROWS).write_text(_NO_ROWS, encoding="utf-8")


def _claim(folder: Path, arguments: dict[str, Any]) -> None:
    (folder / NOT_ROWS).write_text(_NO_ROWS, encoding="utf-8")
    write_json(folder / RUN_FILE, {"arguments": arguments, "summary": None})


def contents(folder: str | Path) -> set[str]:
    """Names in a folder, without the marker of a run and temporary files."""
    return {file.name for file in Path(folder).iterdir()} - {NOT_ROWS, LOCK_FILE, DRAFT_FILE, STAGE}


def reopen_run(folder: str | Path) -> None:
    """Mark the run in `folder` as incomplete again, before it is repeated."""
    finish_run(folder, None)


def finish_run(folder: str | Path, summary: dict[str, Any] | None) -> None:
    """Record that the run in `folder` is complete, with its summary."""
    known = read_run(folder)
    assert known is not None, "finish_run before open_run"
    write_json(Path(folder) / RUN_FILE, {**known, "summary": summary})


def read_run(folder: str | Path) -> dict[str, Any] | None:
    """`arguments` and `summary` of the run in a folder; None if there is none."""
    try:
        known = json.loads((Path(folder) / RUN_FILE).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    whole = isinstance(known, dict) and isinstance(known.get("arguments"), dict) and "summary" in known
    return known if whole else None


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a file atomically: a kill leaves the old file or the new one."""
    draft = path.with_name(f".{path.name}.part")
    draft.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    draft.replace(path)


def _made(folder: Path) -> Path:
    """The folder, created if missing."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"The output folder {folder} is a file; give a folder.")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def staged(folder: str | Path) -> Iterator[Path]:
    """A temporary folder to write a model into; at the end, its files move into `folder`.

    A kill leaves the old model, or one without weights that can't be loaded, but never a mixture.
    """
    stage = Path(folder) / STAGE
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(parents=True)
    yield stage
    move_into(Path(folder))


def move_into(folder: Path) -> None:
    """Move the staged files of `folder` to their place: delete the old weights first, move the new ones last."""
    stage = folder / STAGE
    for pattern in _OLD:
        for path in folder.glob(pattern):
            path.unlink()
    for path in sorted(stage.iterdir(), key=lambda path: any(map(path.match, _OLD))):
        if path.is_dir():
            shutil.rmtree(folder / path.name, ignore_errors=True)
        path.replace(folder / path.name)
    stage.rmdir()
