"""Requests per second and CPU per request of HTTP clients against one local stand-in endpoint, in the same run.

    python tests/benchmarks/bench_endpoint.py --requests 2000 --concurrency 64

Ours against a bare aiohttp loop (the bound), huggingface_hub's AsyncInferenceClient and, where installed, openai's
AsyncOpenAI with each of its transports. The server is a process of its own on the same machine and shares its cores:
the figures compare clients with each other and say little about any server. Each client runs once for warming up.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent.parent.parent)]
os.environ.pop("HF_HUB_OFFLINE", None)  # It would block AsyncInferenceClient even for 127.0.0.1.

from endpoint_server import endpoint_process  # noqa: E402

from teamsrl_hf.models.base import Request, Sampling  # noqa: E402
from teamsrl_hf.models.endpoint import EndpointGenerator  # noqa: E402
from teamsrl_hf.models.wire.request import payload  # noqa: E402

TEXT = "Write a short plan for a day in a city by the sea, with reasons for each of its parts. " * 6


def requests(count: int) -> list[Request]:
    return [Request("expert", ({"role": "user", "content": f"{i} {TEXT}"},), Sampling(seed=1)) for i in range(count)]


async def in_flight(work, items, concurrency: int) -> None:
    """`work` on every item, `concurrency` at once, by as many loops over one iterator: the least overhead there is."""
    left = iter(items)

    async def loop():
        for item in left:
            await work(item)

    await asyncio.gather(*(loop() for _ in range(concurrency)))


async def bare(url: str, asked: list[Request], concurrency: int) -> None:
    import aiohttp

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def work(request):
            async with session.post(f"{url}/chat/completions", json=payload(request, "tiny")) as response:
                answer = json.loads(await response.read())
                assert answer["choices"][0]["message"]["content"]

        await in_flight(work, asked, concurrency)


async def ours(url: str, asked: list[Request], concurrency: int) -> None:
    generator = EndpointGenerator("tiny", url, concurrency=concurrency)

    async def work(request):
        answer = await generator(request)
        assert answer.error is None, answer.error

    await in_flight(work, asked, concurrency)
    await generator.close()


async def hub(url: str, asked: list[Request], concurrency: int) -> None:
    from huggingface_hub import AsyncInferenceClient

    client = AsyncInferenceClient(base_url=url, api_key="none")

    async def work(request):
        sampling = request.sampling
        answer = await client.chat_completion(
            list(request.messages), model="tiny", temperature=sampling.temperature, max_tokens=sampling.max_tokens
        )
        assert answer.choices[0].message.content

    await in_flight(work, asked, concurrency)


async def _openai(url: str, asked: list[Request], concurrency: int, transport) -> None:
    import openai

    client = openai.AsyncOpenAI(base_url=url, api_key="none", http_client=transport and transport())

    async def work(request):
        sampling = request.sampling
        answer = await client.chat.completions.create(
            model="tiny",
            messages=list(request.messages),
            temperature=sampling.temperature,
            max_tokens=sampling.max_tokens,
        )
        assert answer.choices[0].message.content

    await in_flight(work, asked, concurrency)
    await client.close()


async def openai_default(url: str, asked: list[Request], concurrency: int) -> None:
    await _openai(url, asked, concurrency, None)


async def openai_aiohttp(url: str, asked: list[Request], concurrency: int) -> None:
    import openai

    await _openai(url, asked, concurrency, openai.DefaultAioHttpClient)


CLIENTS = {
    "bare": bare,
    "ours": ours,
    "AsyncInferenceClient": hub,
    "AsyncOpenAI": openai_default,
    "AsyncOpenAI+aiohttp": openai_aiohttp,
}
FAST = ("bare", "ours")


def measure(client, url: str, count: int, concurrency: int) -> tuple[float, float]:
    """Requests per second, and milliseconds of this process's CPU per request."""
    asked = requests(count)
    asyncio.run(client(url, asked[: 2 * concurrency], concurrency))
    started, cpu = time.perf_counter(), time.process_time()
    asyncio.run(client(url, asked, concurrency))
    wall, cpu = time.perf_counter() - started, time.process_time() - cpu
    return count / wall, 1000 * cpu / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000, help="For bare and ours; the others make a fifth of it.")
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--latency", type=float, nargs="+", default=[0.0, 0.05])
    parser.add_argument("--clients", nargs="+", choices=CLIENTS, default=list(CLIENTS))
    parser.add_argument("--rounds", type=int, default=3, help="Rounds; medians are printed.")
    arguments = parser.parse_args()
    print(f"{'latency':>8} {'client':<22} {'requests/s':>10} {'CPU ms/request':>15}")
    for latency in arguments.latency:
        with endpoint_process("--answer", "echo", "--no_log", "--latency", str(latency)) as url:
            for name, rate, cpu in rows(arguments, url):
                print(f"{latency * 1000:5.0f} ms {name:<22} {rate:10.0f} {cpu:15.2f}", flush=True)


def rows(arguments: argparse.Namespace, url: str):
    """Name, requests/s and CPU of each client: medians of rounds in which they take turns on the shared machine."""
    runs: dict[str, list] = {name: [] for name in arguments.clients}
    for _ in range(arguments.rounds):
        for name in list(runs):
            count = arguments.requests if name in FAST else max(1, arguments.requests // 5)
            try:
                runs[name].append(measure(CLIENTS[name], url, count, arguments.concurrency))
            except ImportError as error:
                del runs[name]
                print(f"{'':8} {name:<22} left out: {error}")
    for name, measured in runs.items():
        yield name, *(statistics.median(column) for column in zip(*measured, strict=True))


if __name__ == "__main__":
    main()
