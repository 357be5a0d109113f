"""Another machine: for each repository it runs what the card shows, and prints as JSON what came of it.

    HF_ENDPOINT=… HF_TOKEN=… python tests/another_machine.py dataset:ada/rows model:ada/policy

Start it with a home and a working directory that hold nothing of the run.
"""

import contextlib
import io
import json
import re
import sys


def used(repo_type: str, repo_id: str) -> dict:
    """What the card's snippet prints, and how many rows each split of each dataset that it loads holds."""
    from datasets import DatasetDict
    from huggingface_hub import hf_hub_download

    with open(hf_hub_download(repo_id, "README.md", repo_type=repo_type), encoding="utf-8") as card:
        snippet = re.search(r"^```python\n(.*?)^```", card.read(), re.DOTALL | re.MULTILINE)[1]
    names: dict = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(snippet, names)
    sets = {name: value for name, value in names.items() if isinstance(value, DatasetDict)}
    rows = {name: {split: len(part) for split, part in made.items()} for name, made in sets.items()}
    return {"snippet": snippet, "printed": printed.getvalue(), "rows": rows}


if __name__ == "__main__":
    print(json.dumps({argument: used(*argument.split(":")) for argument in sys.argv[1:]}))
