"""A chat endpoint on 127.0.0.1 that answers as its script says: responses go in, what was asked is kept as lists.

with Server(status(500), answer("no")) as server:
    ...                 # a client that asks server.url: 500, then "no", then always "yes"
    server.bodies       # the JSON of each request; likewise tokens, headers, paths, queries, times
"""

import asyncio
import json
import ssl
import threading
import time

from aiohttp import web


class Server:
    """A chat endpoint: it answers with the next of `script`, and once that is used up, with `always` or "yes"."""

    def __init__(self, *script, always=None, certificate=None):
        self.always = always or answer("yes")
        self.ssl = None
        if certificate:
            self.ssl = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.ssl.load_cert_chain(*certificate)
        self.script = list(script)
        self.bodies, self.tokens, self.times, self.paths, self.headers, self.queries = [], [], [], [], [], []
        self.raw = []
        self.in_flight = self.most_in_flight = 0

    async def handle(self, request):
        self.times.append(time.monotonic())
        self.paths.append(request.path)
        self.headers.append(request.headers.copy())
        self.queries.append(request.query_string)
        self.tokens.append(request.headers.get("Authorization"))
        self.raw.append(await request.read())
        self.bodies.append(json.loads(self.raw[-1]))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return await (self.script.pop(0) if self.script else self.always)(request)
        finally:
            self.in_flight -= 1

    def __enter__(self):
        self.loop, ready = asyncio.new_event_loop(), threading.Event()

        async def start():
            app = web.Application()
            app.router.add_post("/{path:.*}", self.handle)
            self.runner = web.AppRunner(app, shutdown_timeout=0.1)
            await self.runner.setup()
            site = web.TCPSite(self.runner, "127.0.0.1", 0, ssl_context=self.ssl)
            await site.start()
            self.port = site._server.sockets[0].getsockname()[1]
            self.url = f"http{'s' if self.ssl else ''}://127.0.0.1:{self.port}/v1"
            ready.set()

        self.loop.create_task(start())
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        assert ready.wait(10)
        return self

    def __exit__(self, *_):
        asyncio.run_coroutine_threadsafe(self.runner.cleanup(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()


def answer(text, finish_reason="stop", delay=0.0):
    async def respond(request):
        await asyncio.sleep(delay)
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
        return web.json_response(
            {"model": "other", "choices": [choice], "usage": {"prompt_tokens": 11, "completion_tokens": 3}}
        )

    return respond


def reply(*, body=None, usage=None, **choice):
    """An answer with status 200 and this choice, or with this body."""

    async def respond(request):
        whole = {"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"} | choice], "usage": usage}
        return web.Response(body=json.dumps(whole).encode() if body is None else body)

    return respond


def status(code, body="broken", **headers):
    async def respond(request):
        return web.Response(status=code, text=body, headers={name.replace("_", "-"): v for name, v in headers.items()})

    return respond
