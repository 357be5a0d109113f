"""Calls of the Hub: in goes a call, out comes its result, or one line that says what the Hub or the network did."""

import logging
import random
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from json import JSONDecodeError
from typing import Any

from huggingface_hub import HfApi, get_token, set_client_factory
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import _http, httpx, parse_ratelimit_headers

from ..errors import UserError

logger = logging.getLogger(__name__)

# What the client raises on answers that are none of a Hub's, and on what it refuses to send.
_ODD = (ValueError, KeyError, IndexError, TypeError, AttributeError)
# Transport errors that say what was asked for is impossible.
_LASTING = (OfflineModeIsEnabled, httpx.LocalProtocolError, httpx.UnsupportedProtocol)


@dataclass(frozen=True)
class Calls:
    """Makes calls until they hold, or `deadline` (monotonic seconds) has passed."""

    api: HfApi
    repo_id: str
    deadline: float

    def __call__(self, step: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """The result of `step`, tried again after faults that pass.

        Raises:
            UserError: From `step`.
            RuntimeError: The Hub refused, stayed away for too long, or is none.
        """
        for attempt in count():
            try:
                return step(*args, **options)
            except UserError:
                raise
            except (OSError, RuntimeError, httpx.HTTPError, *_ODD) as error:
                answer, passing = judge(error)
                if answer is None and not passing and not _of_client(error):
                    raise
                what = f"{answer.status_code} {answer.reason_phrase}" if answer is not None else type(error).__name__
                wait = _wait(answer, attempt)
                # From None: a chain would print all that the server sent, and some servers echo the request's headers.
                if not passing:
                    raise RuntimeError(self._refusal(error, answer, what)) from None
                if time.monotonic() + wait > self.deadline:
                    raise RuntimeError(
                        f"The Hub did not take the push to {self.repo_id}: {what}. Call again later."
                    ) from None
            logger.warning("The Hub did not take the push to %s: %s. Next try in %.0f s.", self.repo_id, what, wait)
            time.sleep(wait)

    def _refusal(self, error: BaseException, answer: httpx.Response | None, what: str) -> str:
        said = " ".join(str(error).split()).replace(token_of(self.api) or "\0", "***")[:500]
        if answer is None:
            return f"The push to {self.repo_id} failed at {self.api.endpoint}: {what}: {said}"
        login = " Log in with `hf auth login`, or set HF_TOKEN." if answer.status_code == 401 else ""
        return f"The Hub refused the push to {self.repo_id}: {what}. {said}{login}"


def token_of(api: HfApi) -> str | None:
    """The token that `api` sends, if any."""
    return api.token if isinstance(api.token, str) else None if api.token is False else get_token()


def tokens_in_use(api: HfApi) -> set[str]:
    """That token, and the one of the environment or the login."""
    return {token for token in (token_of(api), get_token()) if token}


def judge(error: BaseException | None) -> tuple[httpx.Response | None, bool]:
    """The Hub's answer behind `error`, if there was one, and whether the fault may be gone at the next try."""
    # JSONDecodeError: a gateway's HTML page where JSON was due loses its status on the way.
    while error is not None:
        if isinstance(error, HfHubHTTPError):
            status = error.response.status_code
            return error.response, status >= 500 or status in (408, 409, 412, 429)
        if isinstance(error, (httpx.TransportError, ConnectionError, TimeoutError, JSONDecodeError)):
            return None, not isinstance(error, _LASTING)
        error = error.__cause__
    return None, False


def _of_client(error: BaseException) -> bool:
    """Whether the Hub's client raised it, and not this project."""
    names = [frame.f_globals.get("__name__", "").split(".")[0] for frame, _ in traceback.walk_tb(error.__traceback__)]
    ours = __name__.partition(".")[0]
    return [name for name in names if name in ("huggingface_hub", ours)][-1] == "huggingface_hub"


def _wait(answer: httpx.Response | None, attempt: int) -> float:
    """Seconds: what the Hub asks for if it does, else doubling up to a minute; with jitter, so that rivals part."""
    headers = answer.headers if answer is not None else {}
    limit = parse_ratelimit_headers(headers)
    if headers.get("Retry-After", "").isdigit():
        return int(headers["Retry-After"]) + random.random()
    if limit and limit.remaining == 0:
        return limit.reset_in_seconds + random.random()
    return min(60.0, 2.0**attempt) * random.uniform(0.5, 1.0)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Within, no request waits longer for the next byte; by default the wait is endless."""

    def limit(request: httpx.Request) -> None:
        # Here and not on the client, since some calls (the tree's) pass timeout=None, which overrules the client.
        asked = request.extensions.get("timeout", {})
        request.extensions["timeout"] = {k: asked.get(k) or seconds for k in ("connect", "read", "write", "pool")}

    def factory() -> httpx.Client:
        client = before()
        client.event_hooks = {**client.event_hooks, "request": [*client.event_hooks["request"], limit]}
        return client

    before = _http._GLOBAL_CLIENT_FACTORY  # there is a public way to set it, none to read it
    set_client_factory(factory)
    try:
        yield
    finally:
        set_client_factory(before)
