"""Checkpoints: in goes a training's folder, out comes the newest whole checkpoint, or what is wrong with one.

`resumable` names a checkpoint only when it is completely written, so a kill leaves no partial one. A full disk, a
crash of the machine or another program can; such a checkpoint is passed over.
"""

import json
import logging
import pickle
import re
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError
from ..runs import STAGE

logger = logging.getLogger(__name__)

STATE_FILE = "trainer_state.json"
_NAME = re.compile(r"checkpoint-(\d+)")
_SHARDED = ("global_step*", "pytorch_model_fsdp*")  # What DeepSpeed and FSDP write.
_WEIGHTS = ("model.safetensors*", "adapter_model.safetensors", "pytorch_model.bin*", *_SHARDED)
# One file or folder of each kind must be there.
_PARTS = {
    "weights": _WEIGHTS,
    "optimizer state": ("optimizer.pt", "optimizer.bin", "optimizer_*", "global_step*"),
    "scheduler state": ("scheduler.pt", "global_step*"),
}


def newest_whole(
    folder: str | Path,
    processes: int = 1,
    required: Sequence[str] = (),
    best: bool = False,
    warn: bool = True,
) -> Path | None:
    """The newest checkpoint in `folder` that a training with this number of processes can resume from, or None.

    Args:
        required: Names of further files that a checkpoint needs.
        best: Whether the training keeps its best checkpoint, which must then be whole, too.
        warn: Log a warning that names the checkpoints passed over, if any, and why.

    Raises:
        UserError: All usable checkpoints were saved by another number of processes.
    """
    found, passed = None, []
    for checkpoint in reversed(checkpoints(folder)):
        reason = damage(checkpoint, processes, required, best)
        if reason is None:
            found = checkpoint
            break
        passed.append(f"{checkpoint.name} ({reason})")
    else:
        _refuse_other_processes(folder, processes)
    if passed and warn:
        then = f"resumes from {found.name}" if found else "starts from the beginning"
        logger.warning("Passed over in %s: %s. Training %s.", folder, ", ".join(passed), then)
    return found


def checkpoints(folder: str | Path) -> list[Path]:
    """The folders named `checkpoint-<step>` in `folder`, by step."""
    found = Path(folder).glob("checkpoint-*")
    return sorted((path for path in found if _NAME.fullmatch(path.name) and path.is_dir()), key=step_of)


def step_of(checkpoint: Path) -> int:
    """The step that a checkpoint's name gives."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


def check_checkpoint(
    checkpoint: str | Path, processes: int = 1, required: Sequence[str] = (), best: bool = False
) -> None:
    """UserError that names the damage if a training can't resume from this checkpoint."""
    reason = damage(Path(checkpoint), processes, required, best)
    if reason:
        raise UserError(
            f"Training can't go on from {checkpoint}: {reason}. Give another checkpoint; without "
            "resume_from_checkpoint the newest whole one is taken."
        )


def damage(checkpoint: Path, processes: int = 1, required: Sequence[str] = (), best: bool = False) -> str | None:
    """Why a training with this number of processes can't resume from `checkpoint`, in words; None if it can."""
    if not checkpoint.is_dir():
        return "there is no such folder"
    for file in sorted(checkpoint.rglob("*")):
        if file.is_file() and _is_cut(file):
            return f"{file.relative_to(checkpoint)} is damaged or cut off"
    if not (checkpoint / STATE_FILE).is_file():
        return f"it has no {STATE_FILE}"
    for part, patterns in _PARTS.items():
        if not _any(checkpoint, patterns):
            return f"it has no {part}"
    if (saved_by := saved_processes(checkpoint)) not in (0, processes):
        return f"saved by {saved_by} process{'es' if saved_by > 1 else ''}, not by {processes}"
    names = ["rng_state.pth"] if processes == 1 else [f"rng_state_{rank}.pth" for rank in range(processes)]
    missing = [name for name in (*names, *required) if not (checkpoint / name).is_file()]
    if missing:
        return f"it has no {missing[0]}"
    return _damaged_shards(checkpoint) or (_damaged_best(checkpoint) if best else None)


def saved_processes(checkpoint: Path) -> int:
    """How many processes wrote a checkpoint, by its files of random states; 0 if it has none."""
    ranks = [int(path.stem.removeprefix("rng_state_")) for path in checkpoint.glob("rng_state_*.pth")]
    return max(ranks) + 1 if ranks else int((checkpoint / "rng_state.pth").is_file())


def discard(checkpoint: Path) -> None:
    """Delete a checkpoint; a kill leaves no partly deleted one."""
    stage = checkpoint.parent / STAGE
    stage.mkdir(exist_ok=True)
    shutil.rmtree(checkpoint.replace(stage / f"old-{checkpoint.name}"))


def rotate(folder: Path, newest: Path, limit: int | None, best: str | None) -> None:
    """Delete checkpoints until `limit` are left, but never the newest or the best.

    Those of later steps than the newest are deleted first, since they were passed over, and then the oldest.
    """
    found = sorted(checkpoints(folder), key=lambda path: (step_of(path) <= step_of(newest), step_of(path)))
    kept = {newest, Path(best) if best else newest}
    excess = len(found) - max(limit, len(kept)) if limit and limit > 0 else 0
    for checkpoint in [path for path in found if path not in kept][: max(excess, 0)]:
        discard(checkpoint)


def _refuse_other_processes(folder: str | Path, processes: int) -> None:
    for checkpoint in reversed(checkpoints(folder)):
        saved_by = saved_processes(checkpoint)
        if saved_by not in (0, processes) and damage(checkpoint, saved_by) is None:
            raise UserError(
                f"{checkpoint} was saved by {saved_by} process{'es' if saved_by > 1 else ''}, not by {processes}; "
                f"launch {saved_by}, or give a new output folder."
            )


def _any(folder: Path, patterns: Sequence[str]) -> bool:
    return any(True for pattern in patterns for _ in folder.glob(pattern))


def _is_cut(file: Path) -> bool:
    """Whether a file of a known format is truncated or invalid; reads little of a large file."""
    from safetensors import SafetensorError, safe_open

    try:
        if file.suffix == ".safetensors":
            with safe_open(file, framework="numpy"):
                return False
        if file.suffix == ".json":
            return not _json_is_whole(file)
        if file.suffix in (".pt", ".pth", ".bin"):
            zipfile.ZipFile(file).close()  # Its table of contents stands at the end.
    except (SafetensorError, zipfile.BadZipFile):
        return True
    return file.suffix == ".distcp" and file.stat().st_size == 0


def _json_is_whole(file: Path) -> bool:
    try:
        content = json.loads(file.read_bytes())
    except ValueError:
        return False
    if file.name == STATE_FILE:
        return isinstance(content, dict) and isinstance(content.get("global_step"), int)
    if file.name.endswith(".index.json"):
        return all((file.parent / shard).is_file() for shard in content.get("weight_map", {}).values())
    return True


def _damaged_shards(checkpoint: Path) -> str | None:
    """What is wrong with the parts that DeepSpeed or FSDP wrote; None if nothing is, or there are none."""
    if _any(checkpoint, ("global_step*",)):
        latest = checkpoint / "latest"
        name = latest.read_text().strip() if latest.is_file() else ""
        if not name or not _any(checkpoint, (f"{name}/*model_states.pt",)):
            return "its file latest names no folder with DeepSpeed's states"
    for folder in {path.parent for path in checkpoint.glob("*/*.distcp")}:
        if not _distributed_is_whole(folder):
            return f"{folder.name} is damaged or cut off"
    return None


def _distributed_is_whole(folder: Path) -> bool:
    """Whether every file of a checkpoint in torch's distributed format holds all parts that the metadata lists."""
    from torch.distributed.checkpoint import FileSystemReader

    try:
        parts = FileSystemReader(folder).read_metadata().storage_data.values()
    except (OSError, EOFError, pickle.UnpicklingError):
        return False
    files = {file.name: file.stat().st_size for file in folder.iterdir()}
    return all(files.get(part.relative_path, 0) >= part.offset + part.length for part in parts)


def _damaged_best(checkpoint: Path) -> str | None:
    """What is wrong with the best checkpoint so far, which the end of the training would load."""
    best = json.loads((checkpoint / STATE_FILE).read_bytes()).get("best_model_checkpoint")
    if not best or Path(best).name == checkpoint.name:
        return None
    folder = checkpoint.parent / Path(best).name
    cut = [file.name for file in sorted(folder.rglob("*")) if file.is_file() and _is_cut(file)]
    if not cut and _any(folder, _WEIGHTS):
        return None
    return f"its best checkpoint so far, {folder.name}, is {f'damaged in {cut[0]}' if cut else 'without weights'}"
