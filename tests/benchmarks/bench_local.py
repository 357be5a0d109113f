"""Tokens a CPU-second of a model in this process over a whole evolution against plain `generate`, in the same run.

    python tests/benchmarks/bench_local.py MODEL [--seeds 24] [--operations 3] [--batch 16] [--repeats 2]

MODEL is an id or folder of a causal language model of transformers. "ours" is the whole path: one model as expert and
reviewer, stepwise, with gate, ledger, near-duplicates, Parquet, card and page. "plain" gets the requests of that run
in their order, those of a kind in full batches of the same size: `model.generate` with transformers' own sampling,
each prompt computed as a whole, each row as long as the answer was. A request with choices (a review) costs it one
prefill. Both run in a process of their own, in turns, on one thread.

Figures: `tokens` that answers had; `CPU s` without loading the model; `tokens/CPU s`; `rows/batch` asked for at once;
`loaded` and `peak`, memory over that of the process before it loaded a model, in units of the weights: once they are
read, and at most. The ratio of ours to plain is to be at least 0.95, and `loaded` about 1 however many roles name the
model; a peak holds the states of a batch besides.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

ROOT = Path(__file__).resolve().parent.parent.parent
FIGURES = ("tokens", "CPU s", "tokens/CPU s", "rows/batch", "loaded", "peak")
WANTED = 0.95


def memory(which: str) -> int:
    """Bytes of this process in memory: VmRSS now, VmHWM at most so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{which}:"))


def ours(args: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Evolve; leaves what was asked of the model in `requests.json`."""
    sys.path.insert(0, str(ROOT))
    from teamsrl_hf import DatasetEvolver, EvolverConfig, load_seeds, make_generator, uniform_chooser
    from teamsrl_hf.models import local
    from teamsrl_hf.text.operations import OPERATIONS

    asked = note_requests(local)
    import_all(args.model)
    before = memory("VmRSS")
    spec = {"transformers": args.model, "batch_size": args.batch}
    expert, reviewer = make_generator(spec), make_generator({**spec, "seed": 0})
    loaded = read_weights(expert._model, reviewer.generator._model) - before
    config = EvolverConfig(
        operations_per_episode=args.operations,
        concurrency=2 * args.batch,  # So that batches fill, as in recipes/quickstart/evolve_smollm2.yaml.
        temperature=0.3,
        max_tokens=args.max_tokens,
    )
    evolver = DatasetEvolver(expert, reviewer, uniform_chooser(OPERATIONS), OPERATIONS, config)
    began = time.process_time()
    written = evolver.write(load_seeds()[: args.seeds], folder / "dataset", show_progress=False)
    spent = time.process_time() - began
    (folder / "requests.json").write_text(json.dumps(asked))
    assert written.summary["rows"], "A run without a row is no measurement."
    return figures(asked, spent, loaded, memory("VmHWM") - before, size(expert._model))


def note_requests(local) -> list[dict]:
    """A list that gets each batch of the local generator: its prompts, sampling, and the length of each answer."""
    asked: list[dict] = []
    generate, choose = local.generate_batch, local.choice_logprobs

    def generate_batch(model, prompts, **options):
        answers = generate(model, prompts, **options)
        ends = set(options["end_tokens"])
        stops = [next((i + 1 for i, token in enumerate(row) if token in ends), len(row)) for row in answers]
        sampling = {name: options[name] for name in ("temperature", "top_p")}
        asked.append({"prompts": prompts, "lengths": stops, **sampling})
        return answers

    def choice_logprobs(model, prompts, choices, **options):
        asked.append({"prompts": prompts, "lengths": [0] * len(prompts), "temperature": 0.0, "top_p": 1.0})
        return choose(model, prompts, choices, **options)

    local.generate_batch, local.choice_logprobs = generate_batch, choice_logprobs
    return asked


def import_all(name: str) -> None:
    """Import what a model needs besides its weights, and read its tokenizer: neither is to be counted as weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    with torch.device("meta"):
        AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(name))
    small = torch.zeros(64, 64, dtype=torch.bfloat16)
    small @ small  # The first product loads kernels.
    AutoTokenizer.from_pretrained(name)


def read_weights(*models) -> int:
    """Bytes of this process after each weight was read once: until then, a mapped file is not in memory."""
    for model in models:
        for parameter in model.parameters():
            parameter.flatten()[::1024].sum()  # One number of each page: no copy.
    return memory("VmRSS")


def plain(args: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Generate what `requests.json` tells with transformers alone."""
    import torch
    from transformers import AutoModelForCausalLM

    batches = full_batches(json.loads((folder / "requests.json").read_text()), args.batch)
    import_all(args.model)
    before = memory("VmRSS")
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype="auto", use_safetensors=True).eval()
    loaded = read_weights(model) - before
    torch.manual_seed(0)
    began = time.process_time()
    for batch in batches:
        generate_plainly(model, batch)
    return figures(batches, time.process_time() - began, loaded, memory("VmHWM") - before, size(model))


def generate_plainly(model, batch: dict) -> None:
    """One call of `generate`; each row ends when it is as long as its answer was, the batch with its longest."""
    import torch
    from transformers import GenerationConfig, StoppingCriteriaList

    longest = max(map(len, batch["prompts"]))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in batch["prompts"]])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in batch["prompts"]])
    lengths = torch.tensor(batch["lengths"]).clamp(min=1)
    warm = {"do_sample": True, "temperature": batch["temperature"], "top_p": batch["top_p"], "top_k": 0}
    config = GenerationConfig(
        max_new_tokens=int(lengths.max()), pad_token_id=0, **(warm if batch["temperature"] else {"do_sample": False})
    )
    model.generation_config.eos_token_id = None  # The recorded lengths say where answers end.
    ends = StoppingCriteriaList([lambda done, scores, **_: done.shape[1] - longest >= lengths])
    out = model.generate(ids, attention_mask=mask, generation_config=config, stopping_criteria=ends)
    assert out.shape[1] == longest + int(lengths.max())


def full_batches(asked: list[dict], rows: int) -> list[dict]:
    """The requests again, in their order, those of one kind in batches of `rows`."""
    kinds: dict[tuple, list[tuple[list[int], int]]] = {}
    for batch in asked:
        kind = batch["temperature"], batch["top_p"], max(batch["lengths"]) > 0
        kinds.setdefault(kind, []).extend(zip(batch["prompts"], batch["lengths"], strict=True))
    return [
        {"prompts": [p for p, _ in part], "lengths": [n for _, n in part], "temperature": kind[0], "top_p": kind[1]}
        for kind, pairs in kinds.items()
        for part in (pairs[i : i + rows] for i in range(0, len(pairs), rows))
    ]


def figures(batches: list[dict], spent: float, loaded: int, peak: int, weights: int) -> dict[str, float]:
    tokens = sum(sum(batch["lengths"]) for batch in batches)
    rows = statistics.mean(len(batch["prompts"]) for batch in batches)
    return dict(zip(FIGURES, (tokens, spent, tokens / spent, rows, loaded / weights, peak / weights), strict=True))


def size(model) -> int:
    """Bytes of the weights; those that two layers share count once."""
    return sum({p.data_ptr(): p.numel() * p.element_size() for p in model.parameters()}.values())


def measure(client: str, args: argparse.Namespace, folder: Path) -> dict[str, float]:
    options = [
        word
        for name in ("seeds", "operations", "batch", "max_tokens")
        for word in (f"--{name}", str(getattr(args, name)))
    ]
    command = [sys.executable, __file__, args.model, *options, "--client", client, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{client} ended with status {done.returncode}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--seeds", type=int, default=24)
    parser.add_argument("--operations", type=int, default=3)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--max_tokens", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--client", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.client:
        client, folder = args.client
        return print(json.dumps({"ours": ours, "plain": plain}[client](args, Path(folder))))
    print(f"{'client':<8}" + "".join(f"{name:>14}" for name in FIGURES))
    ratios = []
    for _ in range(args.repeats):
        with tempfile.TemporaryDirectory() as folder:
            runs = {client: measure(client, args, Path(folder)) for client in ("ours", "plain")}
        for client, run in runs.items():
            print(f"{client:<8}" + "".join(f"{run[name]:>14.2f}" for name in FIGURES), flush=True)
        ratios.append(runs["ours"]["tokens/CPU s"] / runs["plain"]["tokens/CPU s"])
        copies = runs["ours"]["loaded"]
        print(f"ours/plain {ratios[-1]:.2f} (wanted: {WANTED}); weights in memory: {copies:.2f} copies", flush=True)
    return print(f"median of the ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
