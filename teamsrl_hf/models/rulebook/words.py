"""The words of the rulebook, kept as JSON files in `data`, and choices among them."""

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any, Protocol, TypeVar

Option = TypeVar("Option")


class Choose(Protocol):
    """Picks one of several options."""

    def __call__(self, options: Sequence[Option], /) -> Option: ...


@lru_cache
def load(name: str) -> Any:
    """The content of `data/<name>.json`, read once."""
    return json.loads(files(__package__).joinpath("data", f"{name}.json").read_text(encoding="utf-8"))


def chooser(seed: int, name: str, text: str) -> Choose:
    """A function that picks from a sequence; its picks are decided by seed, operation and text alone."""
    digest = hashlib.blake2b(f"{seed}\0{name}\0{text}".encode("utf-8", "surrogatepass"), digest_size=64).digest()
    number = int.from_bytes(digest, "big")

    def choose(options: Sequence[Option], /) -> Option:
        nonlocal number
        number, index = divmod(number, len(options))
        return options[index]

    return choose
