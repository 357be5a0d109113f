"""Rows, a dataset folder and a way to run `recipes/sft.py` in this process, for the tests of fine-tuning."""

import json

from datasets import Dataset

from teamsrl_hf.cli import load_recipe
from teamsrl_hf.paths import resource

CONFIG = str(resource("recipes/quickstart/sft.yaml"))
FACTS = {
    "Peru": ("Lima", "Spanish"),
    "Kenya": ("Nairobi", "Swahili"),
    "Japan": ("Tokyo", "Japanese"),
    "Norway": ("Oslo", "Norwegian"),
    "Egypt": ("Cairo", "Arabic"),
    "Cuba": ("Havana", "Spanish"),
}
README = """\
---
configs:
- config_name: default
  data_files:
  - {split: train, path: default/train.parquet}
  - {split: test, path: default/test.parquet}
- config_name: trajectories
  data_files:
  - {split: train, path: trajectories/train.parquet}
---
"""


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def row(prompt, completion):
    """A row with the provenance columns of an evolved dataset."""
    return {
        "prompt": [user(prompt)],
        "completion": [assistant(completion)],
        "id": "c1",
        "operations": ["deepen", "concretize"],
        "step": 1,
        "model": "rulebook",
        "calls": '{"rewrite": 1}',
    }


def geography():
    for country, (capital, language) in FACTS.items():
        yield row(f"Name the capital of {country}.", f"The capital of {country} is {capital}.")
        yield row(f"Which language is spoken in {country}?", f"People in {country} speak {language}.")
        yield row(f"Where is {capital}?", f"{capital} is the capital of {country}.")
        yield row(f"Greet somebody in {country}.", f"In {country} you would greet them in {language}.")


def write_folder(root):
    """A folder as the evolver leaves it: 18 rows to train on, 6 to test, another configuration beside them."""
    rows = Dataset.from_list(list(geography()))
    rows.select(range(18)).to_parquet(root / "default" / "train.parquet")
    rows.select(range(18, 24)).to_parquet(root / "default" / "test.parquet")
    Dataset.from_list([{"id": "t1"}]).to_parquet(root / "trajectories" / "train.parquet")
    (root / "README.md").write_text(README)
    return str(root)


def run(dataset, output_dir, *options, config=CONFIG):
    """Run the recipe; returns its summary."""
    source = ["--dataset_name", str(dataset)] if dataset else []
    argv = ["--config", str(config), *source, "--output_dir", str(output_dir), *options]
    return load_recipe("sft").main([*argv, "--disable_tqdm", "true"])


def losses(checkpoint):
    """The training loss of each logged step, as a checkpoint's state tells."""
    history = json.loads((checkpoint / "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in history if "loss" in entry]
