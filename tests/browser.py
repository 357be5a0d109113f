"""Debian's Chromium without a window, driven over its DevTools protocol: pages go in, values and pictures come out."""

import asyncio
import base64
import json
import re
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--no-first-run")
QUIET = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage")


@contextmanager
def chromium():
    """A running browser's address."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        command = [CHROMIUM, *FLAGS, *QUIET, f"--user-data-dir={home}", "about:blank"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        try:
            yield next(found[1] for line in process.stderr if (found := re.search(r"listening on (ws://\S+)", line)))
        finally:
            process.terminate()
            process.wait(20)
            process.stderr.close()


class Page:
    """One page; `evaluate` runs JavaScript in it and gives its value."""

    def __init__(self, socket, session: str):
        self._socket, self._session, self._asked = socket, session, 0
        self.errors: list[str] = []
        self.requests: list[str] = []

    async def call(self, method: str, **params):
        self._asked += 1
        await self._socket.send_json(
            {"id": self._asked, "method": method, "params": params, "sessionId": self._session}
        )
        while True:
            told = json.loads((await self._socket.receive(60)).data)
            self._note(told)
            if told.get("id") == self._asked:
                assert "error" not in told, told
                return told["result"]

    async def evaluate(self, code: str):
        done = await self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    async def until(self, code: str, seconds: float = 30):
        """The value of the code once it is true."""
        for _ in range(int(seconds * 20)):
            if value := await self.evaluate(code):
                return value
            await asyncio.sleep(0.05)
        raise AssertionError(f"never true: {code}; {self.errors}")

    async def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode((await self.call("Page.captureScreenshot", format="png"))["data"]))

    def _note(self, told: dict) -> None:
        params = told.get("params", {})
        if told.get("method") == "Runtime.exceptionThrown":
            self.errors.append(str(params["exceptionDetails"]))
        if told.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(params["entry"]["text"])
        if told.get("method") == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])


def browse(address: str, file: Path, visit, dark: bool = False):
    """Open a file in the browser at `address` and return what `visit(page)` gives."""

    async def run():
        import aiohttp

        async with aiohttp.ClientSession() as session, session.ws_connect(address, max_msg_size=0) as socket:
            await socket.send_json({"id": 1, "method": "Target.createTarget", "params": {"url": "about:blank"}})
            target = (await _answer(socket, 1))["targetId"]
            asked = {"targetId": target, "flatten": True}
            await socket.send_json({"id": 2, "method": "Target.attachToTarget", "params": asked})
            page = Page(socket, (await _answer(socket, 2))["sessionId"])
            for domain in ("Page", "Runtime", "Log", "Network"):
                await page.call(f"{domain}.enable")
            size = {"width": 1280, "height": 800, "deviceScaleFactor": 1, "mobile": False}
            await page.call("Emulation.setDeviceMetricsOverride", **size)
            scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
            await page.call("Emulation.setEmulatedMedia", features=[scheme])
            await page.call("Page.navigate", url=file.resolve().as_uri())
            try:
                return await visit(page)
            finally:
                await page.call("Page.close")

    return asyncio.run(run())


async def _answer(socket, number: int) -> dict:
    while True:
        told = json.loads((await socket.receive(60)).data)
        if told.get("id") == number:
            return told["result"]
