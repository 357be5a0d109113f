"""Rows a second of an evolution against a bare loop over aiohttp and, where there is one, distilabel; in the same run.

    python tests/benchmarks/bench_evolver.py [--distilabel PYTHON] [--concurrency 64] [--repeats 1]

PYTHON is the interpreter of an environment that holds distilabel (`pip install "distilabel[openai]" requests`). Each
client runs in a process of its own and asks for every row once, of a stand-in endpoint in another process. "ours" is
the whole path: method plan_answer with scripted instructor and reviewer, ledger, near-duplicates, Parquet, card. The
bare loop sends the same requests with aiohttp and parses the JSON; it keeps nothing.

Figures: `rows/s` from the first request to the end of the process; `CPU ms/row` of the client, all in all; `fixed s`
from the start of the process to its first request; `peak MB` of its memory; `calls` that the endpoint got. At the end,
CPU and rows/s between 500 and 3,000 rows, in which the fixed parts cancel out. `x bound` compares with a client that
costs nothing: it sends requests in turn, each as soon as one of the places in flight is free.
"""

import argparse
import asyncio
import contextlib
import heapq
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
SETTINGS = {
    "0 ms": {},
    "50 ms": {"latency": 0.05},
    "50 ms, every 50th 3 s slower": {"latency": 0.05, "straggler_every": 50, "straggler_seconds": 3.0},
}
FIGURES = ("rows", "rows/s", "CPU ms/row", "fixed s", "peak MB", "calls", "x bound")

DISTILABEL = """
import json, os, sys
from distilabel.models import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration

rows = [{"instruction": text} for text in json.loads(open(sys.argv[2]).read())]
with Pipeline(name="bench", cache_dir=sys.argv[3]) as pipeline:
    load = LoadDataFromDicts(data=rows, batch_size=int(sys.argv[4]))
    llm = OpenAILLM(model="bench", base_url=sys.argv[1], api_key="none", generation_kwargs={"max_new_tokens": 2048})
    load >> TextGeneration(llm=llm, input_batch_size=int(sys.argv[4]))
if __name__ == "__main__":
    print(len(pipeline.run(use_cache=False)["default"]["train"]))
"""


def texts(rows: int) -> list[str]:
    """Instructions that have nothing in common."""
    luck = random.Random(0)
    words = ["".join(luck.choices("abcdefghiklmnoprstuvw", k=luck.randint(3, 9))) for _ in range(5_000)]
    return [f"Explain how {' '.join(luck.choices(words, k=24))} work." for _ in range(rows)]


def ours(url: str, rows: int, folder: Path, concurrency: int) -> int:
    """The rows an evolution wrote."""
    sys.path.insert(0, str(TESTS.parent))
    from teamsrl_hf import DatasetEvolver, EndpointGenerator, Ledger, Seed, uniform_chooser
    from teamsrl_hf.evolve.config import EvolverConfig
    from teamsrl_hf.evolve.shards import consume
    from teamsrl_hf.evolve.write import garbage_collected_seldom
    from teamsrl_hf.models.base import ScriptedGenerator
    from teamsrl_hf.publish.cards import front_matter
    from teamsrl_hf.publish.counts import DatasetStatistics
    from teamsrl_hf.publish.dataset_writer import DatasetWriter
    from teamsrl_hf.text.operations import with_prompts

    def instruct(request):
        return f"{request.task.texts[0]} Give one reason for each of them."

    operations = with_prompts("large")[1:3]  # Asked for whole rewrites, and content with the sentence above.
    seeds = [Seed(f"s{i}", text) for i, text in enumerate(texts(rows))]
    statistics = DatasetStatistics()
    config = EvolverConfig(method="plan_answer", operations_per_episode=1, concurrency=concurrency)
    with garbage_collected_seldom(), Ledger(folder / "ledger.sqlite") as ledger, DatasetWriter(folder) as writer:
        evolver = DatasetEvolver(
            ledger.record(EndpointGenerator("bench", url, concurrency=concurrency)),
            ScriptedGenerator(lambda request: "Not equal"),
            uniform_chooser(operations),
            operations,
            config,
            instructor=ScriptedGenerator(instruct),
        )

        def keep(results):
            statistics.add(results)
            writer.write(results)

        consume(evolver.stream(seeds), keep)
        writer.finish(lambda configs: front_matter({"configs": configs}))
    return statistics.rows


def bare(url: str, rows: int, folder: Path, concurrency: int) -> int:
    """The answers that a loop over aiohttp got to requests of the same size."""
    import aiohttp

    frame = (folder / "frame.txt").read_text()

    async def run() -> int:
        todo, answers = iter(texts(rows)), []

        async def work(session) -> None:
            for text in todo:
                messages = [{"role": "user", "content": frame.replace("TEXT", text)}]
                payload = {"model": "bench", "messages": messages, "temperature": 0.7, "top_p": 0.95}
                async with session.post(f"{url}/chat/completions", json=payload | {"max_tokens": 2048}) as response:
                    answers.append(json.loads(await response.read())["choices"][0]["message"]["content"])

        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            await asyncio.gather(*(work(session) for _ in range(concurrency)))
        return len(answers)

    return asyncio.run(run())


def answer(payload: dict) -> str:
    """What the endpoint says: to a plan the instruction with a few words more, and an answer; else a sentence."""
    content = payload["messages"][-1]["content"]
    found = re.search(r"\n\[item 1 ([0-9a-f]{12})\]\nPlan: [^\n]*\n(.*?)\n\[end 1", content, re.S)
    reply = "They work because each of them rests on the one before, and none of them could stand without the others."
    if not found:
        return reply
    key, text = found.groups()
    return f"[instruction 1 {key}]\n{text} Give one reason for each of them.\n[answer 1 {key}]\n{reply}\n[end 1 {key}]"


def serve(settings: dict) -> None:
    """The endpoint, as a process."""
    sys.path.insert(0, str(TESTS))
    from endpoint_server import Behaviour, Endpoint, listen

    async def run() -> None:
        _, port = await listen(Endpoint(Behaviour(**settings), answer))
        print(f"http://127.0.0.1:{port}/v1", flush=True)
        await asyncio.Event().wait()

    asyncio.run(run())


@contextlib.contextmanager
def endpoint(settings: dict):
    command = [sys.executable, __file__, "--serve", json.dumps(settings)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def measure(client: str, rows: int, settings: dict, args: argparse.Namespace) -> dict[str, float]:
    """Run one client to its end; see the module's docstring for the figures."""
    from endpoint_server import ask_process

    with endpoint(settings) as url, tempfile.TemporaryDirectory() as folder:
        command = _command(client, url, rows, Path(folder), args)
        started = time.monotonic()
        with open(Path(folder) / "errors.txt", "w") as errors:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=folder)
            printed = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
        ended = time.monotonic()
        if status or not printed.strip().endswith(str(rows)):
            raise SystemExit(f"{client}: {printed}\n{(Path(folder) / 'errors.txt').read_text()[-2000:]}")
        log = ask_process(url, "log")
    first = min(entry["at"] for entry in log)
    cpu = usage.ru_utime + usage.ru_stime
    return {
        "rows/s": rows / (ended - first),
        "CPU ms/row": 1000 * cpu / rows,
        "fixed s": first - started,
        "peak MB": usage.ru_maxrss / 1024,
        "calls": len(log),
        "seconds": ended - first,
        "cpu": cpu,
    }


def _command(client: str, url: str, rows: int, folder: Path, args: argparse.Namespace) -> list[str]:
    (folder / "frame.txt").write_text(_frame())
    if client != "distilabel":
        return [sys.executable, __file__, "--client", client, url, str(rows), str(folder), str(args.concurrency)]
    frame = _frame()
    (folder / "texts.json").write_text(json.dumps([frame.replace("TEXT", text) for text in texts(rows)]))
    (folder / "script.py").write_text(DISTILABEL)
    script = [str(folder / name) for name in ("script.py", "texts.json", "cache")]
    return [args.distilabel, script[0], url, *script[1:], str(args.concurrency)]


def _frame() -> str:
    from teamsrl_hf.text.operations import with_prompts
    from teamsrl_hf.text.plans import pack_messages

    return pack_messages([("TEXT", with_prompts("large")[1:2])])[0]["content"]


def bound(rows: int, settings: dict, concurrency: int) -> float:
    """Seconds of a client that costs nothing: requests go out in turn, each as soon as one of the places is free."""
    latency, slow = settings.get("latency", 0.0), settings.get("straggler_seconds", 0.0)
    every = settings.get("straggler_every", rows + 1)
    free = [0.0] * concurrency
    for number in range(1, rows + 1):
        heapq.heappush(free, heapq.heappop(free) + latency + (0 if number % every else slow))
    return max(free)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--distilabel", help="Python of a virtual environment that holds distilabel")
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--rows", type=int, nargs="+", default=[500, 3_000])
    parser.add_argument("--repeats", type=int, default=1, help="how often; the median by rows/s is shown")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--client", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        return serve(json.loads(args.serve))
    if args.client:
        client, url, rows, folder, concurrency = args.client
        print({"ours": ours, "bare": bare}[client](url, int(rows), Path(folder), int(concurrency)))
        return None
    sys.path[:0] = [str(TESTS), str(TESTS.parent)]
    clients = ["bare", "ours", *(["distilabel"] if args.distilabel else [])]
    for title, settings in SETTINGS.items():
        print(f"\n{title}, {args.concurrency} in flight", flush=True)
        heads = zip(FIGURES, (7, 9, 12, 9, 9, 7, 9))
        print(f"{'client':<12}" + "".join(f"{name:>{width}}" for name, width in heads))
        cpu: dict[str, list[float]] = {}
        wall: dict[str, list[float]] = {}
        for client in clients:
            for rows in args.rows:
                runs = [measure(client, rows, settings, args) for _ in range(args.repeats)]
                run = sorted(runs, key=lambda figures: figures["rows/s"])[len(runs) // 2]
                cpu.setdefault(client, []).append(min(figures["cpu"] for figures in runs))
                wall.setdefault(client, []).append(min(figures["seconds"] for figures in runs))
                least = bound(rows, settings, args.concurrency)
                print(
                    f"{client:<12}{rows:>7}{run['rows/s']:>9.0f}{run['CPU ms/row']:>12.2f}{run['fixed s']:>9.2f}"
                    f"{run['peak MB']:>9.0f}{run['calls']:>7}"
                    + (f"{run['seconds'] / least:>9.2f}" if least else f"{'-':>9}"),
                    flush=True,
                )
        if len(args.rows) > 1:
            more = args.rows[-1] - args.rows[0]
            slopes = {client: 1000 * (times[-1] - times[0]) / more for client, times in cpu.items()}
            print("CPU ms per further row: " + ", ".join(f"{name} {slope:.2f}" for name, slope in slopes.items()))
            rates = {client: more / (times[-1] - times[0]) for client, times in wall.items()}
            print("further rows/s: " + ", ".join(f"{name} {rate:.0f}" for name, rate in rates.items()))
    return None


if __name__ == "__main__":
    main()
