"""The commands a user types, run with a real model: each in a process of its own, its counts and seconds printed.

`pytest -m real -rP` shows what is printed: rows, and rejections by reason.
"""

import json
import os
import resource
import subprocess
import sys
import time

from real_model import smollm2
from transformers.utils.logging import disable_progress_bar

from teamsrl_hf.paths import resource as file_of
from teamsrl_hf.runs import read_run
from teamsrl_hf.sft.unpack import unpack_gguf

# So small a model does the other operations badly, and drifts away from its instruction where it is too warm.
OPERATIONS = ("add_constraints", "deepen")
SAMPLING = ("--temperature", "0.3", "--sampling_seed", "42")
# With "In one short sentence:" before them, twelve were answered with 50 tokens at most; without, with 80 or more.
SEEDS = """
Why do cats purr?
Name three rivers in Africa.
What is the difference between a frog and a toad?
Give a title for a story about a lighthouse keeper.
How does a bicycle stay upright?
Suggest a name for a small bakery.
What causes the tides?
Translate "good morning" into Spanish.
List four tools that a carpenter needs.
Why is the sea salty?
Write one sentence about autumn leaves.
What does a barometer measure?
Name a fruit that keeps well in winter.
How long does it take to boil an egg?
Give one reason to learn a second language.
What is a haiku?
Which planet has the most moons?
Explain what a mortgage is.
Suggest a gift for a friend who likes to garden.
What is the opposite of generous?
Why do we have leap years?
Name two inventions from China.
How do bees make honey?
Write a slogan for a bus company.
What is the largest desert on Earth?
Give a synonym for the word brave.
Why do onions make people cry?
Name three instruments of an orchestra.
What should I check before buying a used car?
How does a thermos flask keep tea warm?
Describe a sunset in one sentence.
What is the job of a judge?
Name a sport that is played on ice.
How can a shy person make friends?
What are vaccines for?
Suggest a quick breakfast with oats.
Why do ships float?
Name three materials that conduct electricity.
What makes a joke funny?
How is paper made?
Give an example of a renewable source of energy.
What is inflation?
Suggest two exercises for a stiff back.
Why did people build castles?
Name an animal that sleeps through the winter.
What does a compass point to?
How do I remove a coffee stain from a shirt?
Write a polite reply to a wedding invitation.
""".strip().splitlines()


def prepare(folder):
    """The model as safetensors and the seeds; its path, its specification as JSON, and the options for the seeds."""
    disable_progress_bar()  # Captured, its thousand states would stand between the counts.
    given = smollm2()
    path = str(unpack_gguf(given["transformers"], given["gguf_file"], folder / "smollm2"))
    seeds = folder / "seeds.jsonl"
    texts = [f"In one short sentence: {text[0].lower()}{text[1:]}" for text in SEEDS]
    seeds.write_text("".join(json.dumps({"instruction": text}) + "\n" for text in texts))
    return path, json.dumps({"transformers": path, "batch_size": 16}), ("--seeds", str(seeds))


def config(name):
    """Path of a file of the quickstart."""
    return str(file_of(f"recipes/quickstart/{name}.yaml"))


def everyone(spec, *roles):
    """The options that name one model for several roles."""
    return [word for role in roles for word in (f"--{role}", spec)]


def run(what, *words, output_dir):
    """Run a command of `teamsrl`, print what it came to, and return its summary."""
    took = _timed(what, [sys.executable, "-m", "teamsrl_hf.cli", *words, "--output_dir", str(output_dir)])
    summary = read_run(output_dir)["summary"]
    print(f"{what}: {'; '.join([*counts(summary), took])}", flush=True)
    return summary


def run_recipe(name, *words, output_dir):
    """Run a recipe that is no command of `teamsrl`."""
    command = [sys.executable, str(file_of(f"recipes/{name}.py")), *words, "--output_dir", str(output_dir)]
    print(f"{name}: {_timed(name, command)}", flush=True)


def counts(summary):
    """What a summary counts, in words; rejections by reason."""
    if "environment_steps" in summary:
        yield f"{summary['environment_steps']} operations; {summary['accept_rate_after']:.0%} of held-out ones passed"
    if "rows" in summary:
        yield f"{summary['rows']} rows"
    for name in ("rejections", "rejections_after"):
        if name in summary:
            yield "rejected: " + (", ".join(f"{why} {count}" for why, count in summary[name].items()) or "none")
    if "expert_calls_per_row" in summary:
        yield "calls: " + ", ".join(f"{kind} {count}" for kind, count in summary["calls"].items())
    if "loss_before" in summary:
        yield f"loss {summary['loss_before']:.2f}, then {summary['loss_after']:.2f}"
    if "attacks" in summary:
        yield f"{summary['members']} members and {summary['non_members']} others"
        yield ", ".join(f"AUC of {name} {found['auc']:.2f}" for name, found in summary["attacks"].items())


def _timed(what, command):
    started, before = time.monotonic(), _processor_seconds()
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "TQDM_DISABLE": "1"})
    ended = f"{what} ended with status {done.returncode}:\n{done.stdout[-1000:]}\n{done.stderr[-4000:]}"
    assert done.returncode == 0, ended
    return f"{time.monotonic() - started:.0f} s, {_processor_seconds() - before:.0f} s of a processor"


def _processor_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
