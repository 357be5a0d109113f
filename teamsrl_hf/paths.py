"""Paths: in goes a name such as `recipes/sft.py` or a dataset's folder, out comes its path or cache folder."""

import hashlib
from pathlib import Path

from .errors import UserError


def resource(name: str) -> Path:
    """Path of a file or folder below `recipes/`, `model_cards/` or `accelerate_configs/`.

    In a wheel these folders are in the package, in a checkout and an editable install next to it.

    Args:
        name: Path from the root of the repository, with forward slashes.

    Raises:
        UserError: No such file is installed.

    >>> resource("recipes/sft.py").name
    'sft.py'
    """
    package = Path(__file__).resolve().parent
    for root in (package, package.parent):
        if (root / name).exists():
            return root / name
    raise UserError(f"No {name!r} in the installed package or next to it; check the name, or reinstall teamsrl-hf.")


def folder_cache(folder: str | Path) -> str:
    """The `cache_dir` to give `load_dataset` for a local folder.

    The default cache identifies folders by name and card only, so a folder whose rows have changed, or another one of
    the same name, would return the old rows.
    """
    from datasets import config

    folder = Path(folder).resolve()
    files = [(path, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file()]
    content = repr([(str(path), stat.st_size, stat.st_mtime_ns) for path, stat in files])
    digest = hashlib.blake2b(content.encode(), digest_size=8).hexdigest()
    return str(Path(config.HF_DATASETS_CACHE) / f"folder-{digest}")
