"""What a recorded call costs, and what near-duplicate removal costs and misses; out come a few lines of figures.

python tests/benchmarks/bench_ledger_dedup.py --calls 20000 --rows 100000
"""

import argparse
import asyncio
import random
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from teamsrl_hf import Budget, Completion, Ledger, Price, Request
from teamsrl_hf.evolve.dedup import NearDuplicates

VOCABULARY = [f"{a}{b}" for a in ("sun", "sea", "oak", "fox", "ink", "jam") for b in range(1000)]


class Instant:
    """A model that answers after one turn of the event loop, 560 characters each."""

    model = "instant"

    async def __call__(self, request: Request) -> Completion:
        await asyncio.sleep(0)
        return Completion("answer " * 80, "instant", 100, 80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--rows", type=int, default=100_000)
    args = parser.parse_args()
    bench_dedup(args.rows)
    bench_ledger(args.calls)


def bench_ledger(count: int) -> None:
    """CPU and wall time of a call, 64 in flight: bare, bought, bought under a budget, replayed."""
    text = "word " * 60
    requests = [Request("expert", ({"role": "user", "content": f"{i} {text}"},)) for i in range(count)]
    prices, budget = {"instant": Price(1.0, 2.0)}, Budget(calls=10**9, tokens=10**12, cost=1e9)
    with tempfile.TemporaryDirectory() as folder:
        plain = Ledger(Path(folder) / "plain.sqlite")
        tight = Ledger(Path(folder) / "tight.sqlite", prices=prices, budget=budget)
        with plain, tight:
            kinds = {"bare": Instant(), "bought": plain.record(Instant()), "bought, budget": tight.record(Instant())}
            for name, each in (*kinds.items(), ("replayed", kinds["bought"])):
                cpu, wall = time.process_time(), time.perf_counter()
                asyncio.run(_ask(each, requests))
                cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
                print(f"ledger, {name:<15}{cpu / count * 1e6:8.1f} us CPU {wall / count * 1e6:8.1f} us wall per call")


async def _ask(model, requests) -> None:
    queue = iter(requests)

    async def worker() -> None:
        for request in queue:
            await model(request)

    await asyncio.gather(*(worker() for _ in range(64)))


def bench_dedup(count: int) -> None:
    """Every tenth row is an earlier one with one to three words changed; recall is over those still .8 alike."""
    rng, rows = random.Random(0), NearDuplicates()
    known: list[list[str]] = []
    near = found = wrong = 0
    before, cpu = _memory("VmRSS"), time.process_time()
    for i in range(count):
        if i % 10 or not known:
            words = rng.choices(VOCABULARY, k=rng.randrange(20, 40))
            rows.add(" ".join(words), f"s{i}")
            known += [words] if len(known) < 2_000 else []
            continue
        base = rng.choice(known)
        words = list(base)
        for _ in range(rng.randint(1, 3)):
            words[rng.randrange(len(words))] = rng.choice(VOCABULARY)
        similarity = _jaccard(base, words)
        refused = not rows.add(" ".join(words), f"s{i}")
        near, found = near + (similarity >= 0.8), found + (refused and similarity >= 0.8)
        wrong += refused and similarity < 0.6
    cpu, held = time.process_time() - cpu, _memory("VmHWM") - before
    print(f"dedup, {count:,} rows   {cpu:.1f} s CPU, {held / len(rows):.0f} bytes a kept row, caches included")
    print(f"dedup, recall at Jaccard >= .8: {found} of {near}; refused below .6: {wrong}")


def _jaccard(first: list[str], second: list[str]) -> float:
    a, b = ({*words, *pairwise(words)} for words in (first, second))
    return len(a & b) / len(a | b)


def _memory(name: str) -> int:
    """Resident memory in bytes: now (VmRSS), or the most there was (VmHWM)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
