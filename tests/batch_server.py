"""A stand-in for the batch APIs on 127.0.0.1, in OpenAI's form and in Anthropic's, with faults and its own accounts.

with BatchServer(faults={"create": [lost]}) as server:
    ...                 # a client that asks server.url (OpenAI's form, chat completions too)
    server.bought       # how often each request's body was answered, whoever asked: a Counter
    server.calls        # (step, batch or file) of each call, in order

A step is upload, create, list, get, cancel, output, errors, results or chat. A fault is a function that takes the
server and what the step would do, a function without arguments, and returns the answer; `faults` maps steps to faults
for the next calls, one each, and `kill` is called before and after each step. Jobs run when they are asked about.
"""

import asyncio
import json
import re
import threading
import time
from collections import Counter

from aiohttp import web
from asked import read_task

from teamsrl_hf.models.rulebook.rules import answer


def rulebook_text(body):
    """What the rulebook says to a request, whose task is read from the prompt."""
    return answer(read_task(body["messages"][-1]["content"]), body.get("seed") or 0)


def echo_text(body):
    return f"An answer to: {body['messages'][-1]['content'][-80:]}"


class BatchServer:
    """See above.

    Args:
        text: From the body of a request to the text of its answer.
        faults: Faults by step, for its next calls.
        polls: How often a job is asked about before it has ended.
        ending: What becomes of a job: a function from the job and the ids of its lines to a status and the ids that
            are run; by default all are run, and it is "completed". `endings` are for the next jobs, one each.
        order: From the results of a job to those that are told.
        refuse: From a body to the status and error of a line that is refused, or None.
        kill: Called with "before STEP" and "after STEP".
    """

    def __init__(self, text=echo_text, faults=None, polls=1, endings=(), refuse=None, kill=None, order=None):
        self.text, self.polls, self.refuse, self.kill = text, polls, refuse, kill
        self.faults = {step: list(faults) for step, faults in (faults or {}).items()}
        self.endings, self.order = list(endings), order or (lambda results: results)
        self.files, self.jobs, self.calls = {}, {}, []
        self.bought, self.credit = Counter(), float("inf")
        self.lock = threading.RLock()

    # What both forms share.

    def handler(self, step, act):
        async def handle(request):
            content = await request.read()
            posted = await self.form(request, content)
            who = request.headers.get("Authorization") or request.headers.get("x-api-key")
            self.calls.append((step, request.match_info.get("id", "")))
            if self.kill:
                self.kill(f"before {step}")

            def do():
                with self.lock:
                    return act(who, posted, request)

            fault = self.faults.get(step) and self.faults[step].pop(0)
            made = fault(self, do) if fault else do()
            if self.kill:
                self.kill(f"after {step}")
            if made is None:  # The answer is lost.
                request.transport.abort()
                return web.Response()
            return made

        return handle

    async def form(self, request, content):
        if "multipart" in request.headers.get("Content-Type", ""):
            boundary = request.content_type and re.search(r'boundary="?([^";]+)', request.headers["Content-Type"])[1]
            parts = content.split(b"--" + boundary.encode())[1:-1]
            named = {}
            for part in parts:
                head, _, value = part.partition(b"\r\n\r\n")
                named[re.search(rb'name="([^"]+)"', head)[1].decode()] = value[:-2]
            return named
        return json.loads(content) if content else {}

    def run(self, job):
        """Answer the lines of a job as far as its ending says, if it is time."""
        if job["status"] != "in_progress":
            return
        if job["polls"] > 0:
            job["polls"] -= 1
            return
        ids = [line["custom_id"] for line in job["lines"]]
        status, chosen = self.endings.pop(0)(job, ids) if self.endings else ("completed", ids)
        self.end(job, status, set(chosen))

    def end(self, job, status, chosen):
        job["status"], job["results"] = status, []
        for line in job["lines"]:
            job["results"].append((line["custom_id"], *self.line(line["custom_id"] in chosen, line["body"], status)))
        job["results"] = self.order(job["results"])

    def line(self, chosen, body, status):
        if not chosen:
            return 0, {"code": "batch_expired" if status == "expired" else "batch_cancelled", "message": "not run"}
        if self.credit <= 0:
            return 429, {"error": {"code": "insufficient_quota", "message": "You exceeded your current quota."}}
        if self.refuse and (refused := self.refuse(body)):
            return refused
        self.credit -= 1
        self.bought[json.dumps(body, sort_keys=True)] += 1
        return 200, self.text(body)

    def mine(self, who, job):
        return job["who"] == who

    # OpenAI's form.

    def upload(self, who, posted, request):
        name = f"file-{len(self.files) + 1}"
        self.files[name] = posted["file"]
        self.uploads = {key: value for key, value in posted.items() if key != "file"}
        return web.json_response({"id": name, "object": "file"})

    def create(self, who, posted, request):
        lines = [json.loads(line) for line in self.files[posted["input_file_id"]].splitlines()]
        return web.json_response(self.shown(self.add(who, lines, posted)))

    def add(self, who, lines, posted):
        assert len({line["custom_id"] for line in lines}) == len(lines)
        name = f"batch_{len(self.jobs) + 1}"
        job = {"id": name, "who": who, "lines": lines, "status": "in_progress", "polls": self.polls}
        self.jobs[name] = job | {"posted": posted, "at": time.time(), "results": []}
        return self.jobs[name]

    def shown(self, job):
        good = [one for one in job["results"] if one[1] == 200]
        bad = [one for one in job["results"] if one[1] != 200]
        counts = {"total": len(job["lines"]), "completed": len(good), "failed": len(bad)}
        return {
            "id": job["id"],
            "status": job["status"],
            "input_file_id": job["posted"]["input_file_id"],
            "metadata": job["posted"].get("metadata"),
            "request_counts": counts,
            "created_at": int(job["at"]),
            "output_file_id": f"out-{job['id']}" if good else None,
            "error_file_id": f"err-{job['id']}" if bad else None,
            "errors": job.get("errors"),
        }

    def known(self, who, request):
        job = self.jobs.get(request.match_info["id"].removeprefix("out-").removeprefix("err-"))
        if job is None or not self.mine(who, job):
            raise web.HTTPNotFound(text='{"error": {"message": "No such batch."}}')
        return job

    def get(self, who, posted, request):
        job = self.known(who, request)
        self.run(job)
        return web.json_response(self.shown(job))

    def list(self, who, posted, request):
        jobs = [self.shown(job) for job in reversed(self.jobs.values()) if self.mine(who, job)]
        after = [job["id"] for job in jobs].index(request.query["after"]) + 1 if "after" in request.query else 0
        page = jobs[after : after + 2]  # Short pages, so that clients have to turn them.
        return web.json_response({"object": "list", "data": page, "has_more": after + 2 < len(jobs)})

    def cancel(self, who, posted, request):
        job = self.known(who, request)
        if job["status"] == "in_progress":
            ids = [line["custom_id"] for line in job["lines"]]
            self.end(job, "cancelled", set(ids[: len(ids) // 2] if job["polls"] < self.polls else ids[:0]))
        return web.json_response(self.shown(job))

    def content(self, who, posted, request):
        job, good = self.known(who, request), request.match_info["id"].startswith("out-")
        lines = [self.chat_line(*one) for one in job["results"] if (one[1] == 200) is good]
        return web.Response(body="".join(json.dumps(line) + "\n" for line in lines).encode())

    def chat_line(self, name, status, said):
        if status == 0:
            return {"custom_id": name, "response": None, "error": said}
        body = chat_answer(said) if status == 200 else said
        return {"custom_id": name, "response": {"status_code": status, "body": body}, "error": None}

    def chat(self, who, posted, request):
        status, said = self.line(True, posted, "")
        return web.json_response(chat_answer(said) if status == 200 else said, status=status)

    # Anthropic's form.

    def create_messages(self, who, posted, request):
        lines = [{"custom_id": one["custom_id"], "body": one["params"]} for one in posted["requests"]]
        self.headers = dict(request.headers)
        return web.json_response(self.shown_messages(self.add(who, lines, posted)))

    def shown_messages(self, job):
        kinds = Counter(self.kind(one) for one in job["results"])
        left = len(job["lines"]) if job["status"] == "in_progress" else 0
        names = ("succeeded", "errored", "canceled", "expired")
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(job["at"]))
        return {
            "id": job["id"],
            "processing_status": "in_progress" if left else "ended",
            "request_counts": {"processing": left} | {name: kinds[name] for name in names},
            "created_at": at,
            "cancel_initiated_at": at if job["status"] == "cancelled" else None,
        }

    def kind(self, one):
        if one[1] == 0:
            return "expired" if one[2]["code"] == "batch_expired" else "canceled"
        return "succeeded" if one[1] == 200 else "errored"

    def get_messages(self, who, posted, request):
        job = self.known(who, request)
        self.run(job)
        return web.json_response(self.shown_messages(job))

    def list_messages(self, who, posted, request):
        jobs = [self.shown_messages(job) for job in reversed(self.jobs.values()) if self.mine(who, job)]
        return web.json_response({"data": jobs, "has_more": False})

    def cancel_messages(self, who, posted, request):
        self.cancel(who, posted, request)
        return web.json_response(self.shown_messages(self.known(who, request)))

    def results(self, who, posted, request):
        lines = []
        for one in self.known(who, request)["results"]:
            kind, result = self.kind(one), {"type": self.kind(one)}
            if kind == "succeeded":
                content = [{"type": "text", "text": one[2]}]
                usage = {"input_tokens": 11, "output_tokens": 3}
                result["message"] = {"content": content, "stop_reason": "end_turn", "usage": usage}
            elif kind == "errored":
                credit = {"type": "invalid_request_error", "message": "Your credit balance is too low."}
                result["error"] = {"type": "error", "error": credit if one[1] == 429 else one[2]["error"]}
            lines.append({"custom_id": one[0], "result": result})
        return web.Response(body="".join(json.dumps(line) + "\n" for line in lines).encode())

    # The server itself.

    def app(self):
        app = web.Application(client_max_size=2**28)
        for method, path, step, act in (
            ("POST", "/v1/chat/completions", "chat", self.chat),
            ("POST", "/v1/files", "upload", self.upload),
            ("POST", "/v1/files/upload", "upload", self.upload),
            ("GET", "/v1/files/{id:out-.*}/content", "output", self.content),
            ("GET", "/v1/files/{id:err-.*}/content", "errors", self.content),
            ("POST", "/v1/batches", "create", self.create),
            ("GET", "/v1/batches", "list", self.list),
            ("GET", "/v1/batches/{id}", "get", self.get),
            ("POST", "/v1/batches/{id}/cancel", "cancel", self.cancel),
            ("POST", "/v1/messages/batches", "create", self.create_messages),
            ("GET", "/v1/messages/batches", "list", self.list_messages),
            ("GET", "/v1/messages/batches/{id}", "get", self.get_messages),
            ("POST", "/v1/messages/batches/{id}/cancel", "cancel", self.cancel_messages),
            ("GET", "/v1/messages/batches/{id}/results", "results", self.results),
        ):
            app.router.add_route(method, path, self.handler(step, act))
        return app

    def __enter__(self):
        self.loop, ready = asyncio.new_event_loop(), threading.Event()

        async def start():
            self.runner = web.AppRunner(self.app(), shutdown_timeout=0.1)
            await self.runner.setup()
            site = web.TCPSite(self.runner, "127.0.0.1", 0)
            await site.start()
            self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/v1"
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

    def count(self, step):
        return sum(made == step for made, _ in self.calls)


def chat_answer(text):
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return {"choices": [choice], "usage": {"prompt_tokens": 11, "completion_tokens": 3}}


# Faults.


def lost(server, do):
    """The call is carried out, and the answer never arrives."""
    do()


def twice(server, do):
    """A proxy sends the call twice; the client gets the second answer."""
    do()
    return do()


def twice_and_lost(server, do):
    do()
    do()


def refused(status, text="{}", **headers):
    """The call is not carried out."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda server, do: web.Response(status=status, text=text, headers=named)
