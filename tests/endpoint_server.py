"""A stand-in for an OpenAI-compatible chat endpoint: prompts come in, answers or faults on command go out, all logged.

In a test (the server runs in a thread of its own; options are the fields of `Behaviour`):

    with EndpointServer(shares={"error": 0.2}, latency=0.05) as server:
        generator = EndpointGenerator("any", server.url)
        ...
        server.log          # one `Received` per request, in order of arrival
        server.counts()     # {"received": 12, "answered": 10, "error": 2, "most_in_flight": 4}

As a process, which does not share the client's interpreter (for measurements, and for clients that get killed):

    with endpoint_process("--latency", "0.05", "--answer", "echo") as url: ...
    python tests/endpoint_server.py --port 0 --latency 0.05 --share error=0.2 --share limit=0.1

It prints its URL. `GET /log` gives the log as JSON, `GET /counts` the counts, `DELETE /log` empties both.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from aiohttp import web

# In the order in which they are drawn, each independently: the first that is drawn is what happens.
FAULTS = {
    "limit": "429 with Retry-After",
    "unavailable": "503 with Retry-After",
    "error": "500",
    "hang": "no answer as long as the client waits",
    "reset": "the connection is reset before a byte was answered",
    "truncated": "the body ends before its Content-Length",
    "empty": "200 with an empty text",
    "malformed": "200 with half of the JSON",
    "length": "half of the answer with finish_reason 'length'",
    "slow": "the right answer, sent in pieces over `slow_seconds`",
}


@dataclass(frozen=True)
class Behaviour:
    """How the server answers.

    Attributes:
        latency: Seconds before each answer.
        straggler_every: Each so-manieth request to arrive waits `straggler_seconds` more; 0: none.
        shares: Share of requests that meets a fault, by its name in `FAULTS`. Whether one does is decided by a hash of
            `fault_seed`, the request's body and how often that body has come before: the same in every run.
        faulty_attempts: From this attempt on at the same body no fault is drawn; None: always drawn.
        retry_after: Seconds that "limit", "unavailable", `outage`, `max_in_flight` and `per_second` ask to wait; 0
            leaves the header out.
        outage: For so many seconds from the first request on, every request gets `outage_status`.
        outage_status: 429 or 503.
        max_in_flight: A request beyond so many at once gets 429; 0: no limit.
        per_second: A request beyond so many in a second (a bucket that holds one second's worth) gets 429; 0: none.
        refused: A request whose last message holds this text gets `refused_status`.
        refuses: In a test: which requests get it, by a function of the last message.
        slow_seconds: How long a slow body takes.
        usage: Tell the numbers of tokens (here: of words).
        log_requests: Keep the log; the counts are always kept.
    """

    latency: float = 0.0
    straggler_every: int = 0
    straggler_seconds: float = 3.0
    shares: Mapping[str, float] = field(default_factory=dict)
    faulty_attempts: int | None = None
    fault_seed: int = 0
    retry_after: float = 1.0
    outage: float = 0.0
    outage_status: int = 429
    max_in_flight: int = 0
    per_second: float = 0.0
    refused: str = "REFUSE-THIS"
    refuses: Callable[[str], bool] | None = None
    refused_status: int = 400
    slow_seconds: float = 0.3
    usage: bool = True
    log_requests: bool = True

    def __post_init__(self):
        if unknown := set(self.shares) - set(FAULTS):
            raise ValueError(f"Unknown faults {sorted(unknown)}; there are {', '.join(FAULTS)}.")

    def fault(self, key: str, attempt: int) -> str | None:
        """The fault that the request `key` meets at its `attempt` (from 0), if any."""
        if self.faulty_attempts is not None and attempt >= self.faulty_attempts:
            return None
        for name in FAULTS:
            share = self.shares.get(name, 0)
            if share and _fraction(f"{self.fault_seed}/{name}/{key}/{attempt}") < share:
                return name
        return None


@dataclass
class Received:
    """One request: hash of its body, how often that had come before, what it met (None: the answer), when, and what.

    `answered` turns true once the whole answer was handed to the connection.
    """

    key: str
    attempt: int
    fault: str | None
    at: float
    content: str
    answered: bool = False


def rulebook_answer(payload: dict) -> str:
    """What the rulebook says to the request, whose task is read from the prompt."""
    from asked import read_task

    from teamsrl_hf.models.rulebook.rules import answer

    return answer(read_task(payload["messages"][-1]["content"]), payload.get("seed") or 0)


def echo_answer(payload: dict) -> str:
    """The last 200 characters of the request: costs next to nothing, differs by request."""
    return payload["messages"][-1]["content"][-200:]


ANSWERS = {"rulebook": rulebook_answer, "echo": echo_answer}


class Endpoint:
    """The requests' handler; `answer` turns the request's JSON into a text."""

    def __init__(self, behaviour: Behaviour, answer: Callable[[dict], str]):
        self.behaviour, self.answer = behaviour, answer
        self.reset()

    def reset(self) -> None:
        self.log: list[Received] = []
        self.tally: Counter = Counter()
        self.seen: Counter = Counter()
        self.in_flight = 0
        self.first: float | None = None
        self.bucket = (0.0, self.behaviour.per_second)

    def counts(self) -> dict[str, int]:
        return dict(self.tally)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method != "POST":
            return self.report(request)
        body = await request.read()
        payload = json.loads(body)
        entry = self.receive(body, payload)
        self.in_flight += 1
        self.tally["most_in_flight"] = max(self.tally["most_in_flight"], self.in_flight)
        try:
            return await self.respond(request, payload, entry)
        finally:
            self.in_flight -= 1

    def report(self, request: web.BaseRequest) -> web.Response:
        if request.method == "DELETE":
            self.reset()
        if request.path == "/log":
            return web.json_response([asdict(entry) for entry in self.log])
        return web.json_response(self.counts())

    def receive(self, body: bytes, payload: dict) -> Received:
        now = time.monotonic()
        self.first = now if self.first is None else self.first
        key, content = hashlib.blake2b(body, digest_size=8).hexdigest(), payload["messages"][-1]["content"]
        attempt = self.seen[key]
        self.seen[key] += 1
        fault = self.overload(now) or self.behaviour.fault(key, attempt)
        if (self.behaviour.refuses or (lambda text: self.behaviour.refused in text))(content):
            fault = _FAULT.get(self.behaviour.refused_status, str(self.behaviour.refused_status))
        entry = Received(key, attempt, fault, now, content)
        self.tally["received"] += 1
        self.tally[fault or "sound"] += 1
        if self.behaviour.log_requests:
            self.log.append(entry)
        return entry

    def overload(self, now: float) -> str | None:
        """The fault that all requests meet at this moment, whatever they ask."""
        how = self.behaviour
        if now - self.first < how.outage:
            return _FAULT[how.outage_status]
        if how.max_in_flight and self.in_flight >= how.max_in_flight:
            return "limit"
        if how.per_second:
            then, left = self.bucket
            left = min(how.per_second, left + (now - then) * how.per_second)
            self.bucket = (now, left - 1 if left >= 1 else left)
            return None if left >= 1 else "limit"
        return None

    async def respond(self, request, payload: dict, entry: Received) -> web.StreamResponse:
        how, fault = self.behaviour, entry.fault
        if fault in _STATUS or (fault or "").isdigit():
            return self.refuse(fault)
        if fault == "reset":
            request.transport.abort()
            return web.Response()
        if fault == "hang":
            await asyncio.sleep(3600)
        late = how.straggler_every and self.tally["received"] % how.straggler_every == 0
        if delay := how.latency + (how.straggler_seconds if late else 0):
            await asyncio.sleep(delay)
        body = self.body(payload, fault)
        if fault == "truncated":
            response = await self.trickle(request, body[: len(body) // 2], len(body), 0.0)
            request.transport.close()
            return response
        if fault in (None, "slow", "length"):
            entry.answered = True
            self.tally["answered"] += 1
        if fault == "slow":
            return await self.trickle(request, body, len(body), how.slow_seconds)
        return web.Response(body=body, content_type="application/json")

    def refuse(self, fault: str) -> web.Response:
        again = self.behaviour.retry_after if fault in ("limit", "unavailable") else 0
        headers = {"Retry-After": f"{again:g}"} if again else None
        status = _STATUS.get(fault) or int(fault)
        return web.Response(status=status, text=json.dumps({"error": fault}), headers=headers)

    def body(self, payload: dict, fault: str | None) -> bytes:
        text = "" if fault == "empty" else self.answer(payload)
        reason = "stop"
        if fault == "length":
            text, reason = text[: len(text) // 2 + 1], "length"
        usage = {
            "prompt_tokens": sum(len(message["content"].split()) for message in payload["messages"]),
            "completion_tokens": len(text.split()),
        }
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
        reply = {"id": "x", "object": "chat.completion", "created": 0, "model": payload.get("model", "")}
        if self.behaviour.usage:
            reply["usage"] = usage
        body = json.dumps(reply | {"choices": [choice]}).encode()
        return body[: len(body) // 2] if fault == "malformed" else body

    async def trickle(self, request, body: bytes, length: int, seconds: float) -> web.StreamResponse:
        """Send headers that promise `length` bytes, then `body` in ten pieces over `seconds`."""
        response = web.StreamResponse(headers={"Content-Length": str(length), "Content-Type": "application/json"})
        await response.prepare(request)
        size = len(body) // 10 + 1
        for start in range(0, len(body), size):
            await response.write(body[start : start + size])
            await asyncio.sleep(seconds / 10)
        return response


_STATUS = {"limit": 429, "unavailable": 503, "error": 500, "refused": 400}
_FAULT = {status: fault for fault, status in _STATUS.items()}


def _fraction(text: str) -> float:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") / 2**64


async def listen(endpoint: Endpoint, port: int = 0) -> tuple[web.ServerRunner, int]:
    """Start to serve on 127.0.0.1; the runner to `cleanup()` later, and the port."""
    # handler_cancellation: a client that has gone away no longer counts as in flight.
    server = web.Server(endpoint.handle, access_log=None, handler_cancellation=True)
    runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
    return runner, runner.addresses[0][1]


class EndpointServer:
    """The server in a thread of this process, as a context manager; `url` is its base URL, `port` may be given."""

    def __init__(self, answer: Callable[[dict], str] = rulebook_answer, *, port: int = 0, **behaviour):
        self.endpoint, self.port = Endpoint(Behaviour(**behaviour), answer), port

    @property
    def log(self) -> list[Received]:
        return self.endpoint.log

    def counts(self) -> dict[str, int]:
        return self.endpoint.counts()

    def __enter__(self) -> "EndpointServer":
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.runner, self.port = self._run(listen(self.endpoint, self.port))
        self.url = f"http://127.0.0.1:{self.port}/v1"
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self.runner.cleanup())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()

    def _run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(10)


@contextlib.contextmanager
def endpoint_process(*arguments: str) -> Iterator[str]:
    """The server as a process of its own, started with command-line arguments; gives its base URL."""
    command = [sys.executable, __file__, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def ask_process(url: str, what: str = "counts", method: str = "GET"):
    """`counts` or `log` of a server that runs as a process, as read from its JSON."""
    import urllib.request

    with urllib.request.urlopen(urllib.request.Request(f"{url.removesuffix('/v1')}/{what}", method=method)) as reply:
        return json.load(reply)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--answer", choices=ANSWERS, default="rulebook")
    parser.add_argument(
        "--share", action="append", default=[], metavar="FAULT=SHARE", help=f"FAULT: {', '.join(FAULTS)}"
    )
    for name, value in asdict(Behaviour()).items():
        kind = int if name == "faulty_attempts" else type(value)
        if kind in (int, float, str):
            parser.add_argument(f"--{name}", type=kind, default=value)
    parser.add_argument("--no_log", action="store_true")
    return parser.parse_args()


async def _serve(arguments: argparse.Namespace) -> None:
    names = set(asdict(Behaviour())) - {"shares", "usage", "log_requests", "refuses"}
    shares = {name: float(share) for name, _, share in (given.partition("=") for given in arguments.share)}
    options = {name: getattr(arguments, name) for name in names}
    behaviour = Behaviour(**options, shares=shares, log_requests=not arguments.no_log)
    _, port = await listen(Endpoint(behaviour, ANSWERS[arguments.answer]), arguments.port)
    print(f"http://127.0.0.1:{port}/v1", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(_arguments()))
