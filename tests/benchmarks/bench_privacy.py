"""What training does to the audit's figures: one split, one tiny model, LoRA or all weights, more or fewer epochs.

    python tests/benchmarks/bench_privacy.py [--rows 200] [--max_length 96]

Members and non-members are rows that uniform operations make of the built-in seeds with the rulebook, parted by seed.
Prints a Markdown table of AUCs with 95 % intervals; nothing is written.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from teamsrl_hf import DatasetEvolver, Example, Rulebook, load_seeds, uniform_chooser
from teamsrl_hf.cli import load_recipe
from teamsrl_hf.evaluation.privacy.report import report
from teamsrl_hf.evaluation.privacy.scores import attack
from teamsrl_hf.evaluation.privacy.split import blind_check, split_members
from teamsrl_hf.sft.tiny import build_tiny_model
from teamsrl_hf.text.operations import OPERATIONS

TRAININGS = (("none", 0), ("LoRA", 3), ("LoRA", 10), ("all weights", 1), ("all weights", 3), ("all weights", 10))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200, help="members, and as many non-members")
    parser.add_argument("--max_length", type=int, default=96, help="tokens of a row")
    args = parser.parse_args()
    logging.disable_progress_bar()
    rows, groups = evolved_rows()
    sides = [side[: args.rows] for side in split_members(groups, seed=1)]
    texts = [[rows[i] for i in side] for side in sides]
    labels = tuple([groups[i] for i in side] for side in sides)
    blind = blind_check(*texts, labels)
    print(f"{len(texts[0])} members, {len(texts[1])} non-members; blind check {blind}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        base = build_tiny_model(rows, Path(folder))
        print("| training | loss | zlib | Min-K % | Min-K %++ | reference |\n|---|---|---|---|---|---|", flush=True)
        for kind, epochs in TRAININGS:
            model = trained(base, texts[0], kind, epochs, args.max_length)
            tokenizer = AutoTokenizer.from_pretrained(base)
            reference = None if kind == "LoRA" else AutoModelForCausalLM.from_pretrained(base)
            pairs = attack(model, tokenizer, *texts, reference=reference, max_length=args.max_length)
            found = report(pairs, blind, labels)["attacks"]
            cells = [f"{f['auc']:.2f} ({f['interval'][0]:.2f}–{f['interval'][1]:.2f})" for f in found.values()]
            print(f"| {kind}, {epochs} epochs | " + " | ".join(cells) + " |", flush=True)
    return 0


def evolved_rows() -> tuple[list[str], list[str]]:
    """Instructions of accepted rows, and the seed of each."""
    model = Rulebook()
    evolver = DatasetEvolver(model, model, uniform_chooser(OPERATIONS), OPERATIONS)
    made = [
        result.candidate for chain in evolver.evolve(load_seeds()) for result in chain if isinstance(result, Example)
    ]
    return [candidate.transition.rewrite for candidate in made], [candidate.seed.id for candidate in made]


def trained(base: Path, texts: list[str], kind: str, epochs: int, max_length: int):
    """The base model after so many epochs on `texts`, all of whose tokens are learned."""
    torch.manual_seed(0)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    if kind == "LoRA":
        modules = {"target_modules": "all-linear", "modules_to_save": ["embed_tokens", "lm_head"]}
        model = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, task_type="CAUSAL_LM", **modules))
    rows = [torch.tensor(tokenizer(text)["input_ids"][:max_length]) for text in texts]
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    batched = load_recipe("downstream").batched
    for _ in range(epochs):
        for picked in torch.randperm(len(rows)).split(8):
            model(**batched([(rows[i], rows[i]) for i in picked])).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    return model.eval()


if __name__ == "__main__":
    sys.exit(main())
