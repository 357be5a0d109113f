"""Put the results of a finished comparison into this folder, and its tables into the README.

python recipes/comparison/publish.py COMPARISON_FOLDER DOWNSTREAM_FOLDER
"""

import json
import shutil
import sys
from pathlib import Path

from teamsrl_hf.cli import load_recipe
from teamsrl_hf.commands.arguments import guarded
from teamsrl_hf.commands.signals import leave
from teamsrl_hf.errors import UserError
from teamsrl_hf.evaluation import comparison

HERE = Path(__file__).resolve().parent
RESULTS = ("results.json", "downstream.json", "downstream_equal_rows.json")
DOCUMENTS = (HERE / "README.md",)


def main(argv: list[str] | None = None) -> None:
    """Copy the results and the plot; write the tables and what they are of."""
    argv = sys.argv[1:] if argv is None else argv
    if len(argv) != 3:
        raise UserError(
            "Give three folders: the output of recipes/compare.py, of recipes/downstream.py, and of the same with "
            "--equal_rows true."
        )
    results, *later = (json.loads((Path(folder) / "results.json").read_text(encoding="utf-8")) for folder in argv)
    check_same(results, later)
    for folder, name in zip(argv, RESULTS):
        shutil.copy(Path(folder) / "results.json", HERE / name)
    downstream = load_recipe("downstream")
    comparison.plot(results, HERE / "comparison.png")
    tables = [(comparison.BEGIN, comparison.caption(results), comparison.table(results))]
    tables += [(downstream.mark_of(found), downstream.caption(found), downstream.table(found)) for found in later]
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for mark, told, table in tables:
            text = with_table(text, mark, comparison.END, table)
            text = with_table(text, *paragraph_marks(mark), told)
        document.write_text(text, encoding="utf-8")


def check_same(results: dict, later: list[dict]) -> None:
    """UserError unless all tables are of one comparison: the same seeds, methods, budget and repetitions."""
    for found in later:
        for name in ("seeds_digest", "methods", "budget", "repetitions"):
            ours, theirs = (facts["facts"].get(name) for facts in (results, found))
            if ours != theirs:
                raise UserError(f"{name} is {ours!r} in the comparison, {theirs!r} downstream; give folders of one.")


def paragraph_marks(begin: str) -> tuple[str, str]:
    """The marks between which the paragraph on a table stands, made from the table's own."""
    return begin.replace("table:", "what it is of:"), "<!-- end of paragraph -->"


def with_table(text: str, begin: str, end: str, new: str) -> str:
    """`text` with what stands between two marks made anew; a text without the first mark stays as it is."""
    before, found, rest = text.partition(begin)
    if not found:
        return text
    new = new.removeprefix(begin).removesuffix(end).strip("\n")
    return f"{before}{begin}\n{new}\n{end}{rest.partition(end)[2]}"


if __name__ == "__main__":
    sys.exit(leave(guarded(main)))
