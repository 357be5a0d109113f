"""Sections with measurements in a model's card: in go card, section and the hash of the weights, out comes the card.

Sections that were measured on other weights are removed.
"""

import re
from pathlib import Path

from .cards import front_matter, read_front_matter

# Who writes them. The marks of a section name it and the weights it is of.
SECTIONS = {
    "privacy audit": "teamsrl audit",
    "benchmarks": "teamsrl eval",
    "verifiable": "teamsrl eval --suite verifiable",
}


def write_section(card: str | Path, name: str, section: str, weights: str | None) -> None:
    """Put a section at the end of a card, or in the place of its earlier one; those of other weights are removed.

    Args:
        name: One of `SECTIONS`.
        weights: The model's `lineage.weights_digest`.
    """
    card = Path(card)
    text = drop_sections(card.read_text(encoding="utf-8") if card.exists() else "", keep=weights)
    marked = f"{_begin(name, weights)}\n{section.strip()}\n{_end(name)}"
    before, found, after = text.partition(_begin(name, weights))
    if found:
        after = after.partition(_end(name))[2]
    pieces = [piece.strip("\n") for piece in (before, marked, after) if piece.strip()]
    card.write_text("\n\n".join(pieces) + "\n", encoding="utf-8")


def drop_sections(text: str, keep: str | None = None) -> str:
    """A card's text without the sections of other weights than those with the hash `keep`."""
    for name in SECTIONS:
        marks = rf"<!-- {name}\b[^>\n]*-->"
        for mark in set(re.findall(marks, text)) - {_begin(name, keep) if keep else ""}:
            # Up to its end; where that is lost, up to the next section.
            rest = rf"\s*(## [^\n]*)?.*?({re.escape(_end(name))}\n*|(?=^## |<!-- )|\Z)"
            text = re.sub(re.escape(mark) + rest, "", text, flags=re.S | re.M)
            text = _without_results(text) if name == "benchmarks" else text
    return text


def _begin(name: str, weights: str | None) -> str:
    return f"<!-- {name} of weights {'unknown' if weights is None else weights}: written by {SECTIONS[name]} -->"


def _end(name: str) -> str:
    return f"<!-- end of {name} -->"


def _without_results(text: str) -> str:
    """A card without the `model-index` of its front matter."""
    meta, body = read_front_matter(text)
    if "model-index" not in meta:
        return text
    return f"{front_matter({name: value for name, value in meta.items() if name != 'model-index'})}\n{body}"
