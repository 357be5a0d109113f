"""Where files lie: in goes a name such as `recipes/sft.py` or a dataset's folder, out comes its path or its cache."""

import hashlib
from pathlib import Path

from .errors import UserError


def resource(name: str) -> Path:
    """Path of a file or folder below `recipes/`, `model_cards/` or `accelerate_configs/`.

    A wheel carries these folders inside the package; a checkout and an editable install keep them beside it.

    Args:
        name: Path from the root of the repository, with forward slashes.

    Raises:
        UserError: Nothing of that name is installed.

    >>> resource("recipes/sft.py").name
    'sft.py'
    """
    package = Path(__file__).resolve().parent
    for root in (package, package.parent):
        if (root / name).exists():
            return root / name
    raise UserError(f"No {name!r} in the installed package or beside it; check the name, or reinstall teamsrl-hf.")


def folder_cache(folder: str | Path) -> str:
    """Where `load_dataset` shall cache a local folder, as its `cache_dir`.

    Its own choice tells folders apart by name and card alone, so that one whose rows have changed, or another of
    the same name, would yield the old rows.
    """
    from datasets import config

    folder = Path(folder).resolve()
    files = [(path, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file()]
    content = repr([(str(path), stat.st_size, stat.st_mtime_ns) for path, stat in files])
    digest = hashlib.blake2b(content.encode(), digest_size=8).hexdigest()
    return str(Path(config.HF_DATASETS_CACHE) / f"folder-{digest}")
