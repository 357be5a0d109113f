"""Where the files beside the code lie: in goes a name such as `recipes/sft.py`, out comes its path, wheel or checkout."""

from pathlib import Path


def resource(name: str) -> Path:
    """Path of a file or folder below `recipes/`, `model_cards/` or `accelerate_configs/`.

    A wheel carries these folders inside the package; a checkout and an editable install keep them beside it.

    Args:
        name: Path from the root of the repository, with forward slashes.

    Raises:
        ValueError: Nothing of that name is installed.

    >>> resource("recipes/sft.py").name
    'sft.py'
    """
    package = Path(__file__).resolve().parent
    for root in (package, package.parent):
        if (root / name).exists():
            return root / name
    raise ValueError(f"No {name!r} in the installed package or beside it; check the name, or reinstall teamsrl-hf.")
