"""The log of an endpoint: in go failures and answers, out come few lines, each when a user has to know."""

import logging
import math
import time

from .failure import Failure
from .request import LIMITS

_QUIET = 30.0  # Seconds between two lines about failures of one kind.
logger = logging.getLogger(__name__)


class EndpointLog:
    """What the log says about one endpoint: a line when it stops taking requests, and one when it takes them again.

    Other failures that are retried get a line per kind, at most one every `_QUIET` seconds.
    """

    def __init__(self, model: str, max_wait: float):
        self.model, self.max_wait = model, max_wait
        self._last: dict[str, tuple[float, int]] = {}  # By kind: the time of the last line, and failures since.
        self._paused_at: float | None = None
        self._refused, self._announced, self._gave_up = 0, False, False
        self._kinds: set[str] = set()

    def refused(self, failure: Failure) -> None:
        """The endpoint refused a request because it is busy or gone."""
        if self._paused_at is None:
            self._paused_at, self._refused, self._kinds = time.monotonic(), 0, set()
            self._announced = self._gave_up = False
        self._refused += 1
        kind = _kind(failure)
        if kind not in self._kinds:
            self._kinds.add(kind)
            self._announced |= self._warn(failure, self._then(failure.retry_after))

    def answered(self) -> None:
        """The endpoint accepts requests."""
        if self._paused_at is not None:
            seconds, self._paused_at = time.monotonic() - self._paused_at, None
            if self._announced:
                logger.info("%s: answers again after %.1f s; requests refused: %d", self.model, seconds, self._refused)

    def retried(self, failure: Failure) -> None:
        """One request failed, and is sent again."""
        self._warn(failure, "it is tried again")

    def learned(self, failure: Failure, limit: str) -> None:
        """The endpoint refused a parameter, which no request sends any more; `limit` now names the one of tokens."""
        instead = f"; {limit!r} is sent in its place" if failure.parameter in LIMITS else ""
        now = f"requests of this run leave it out{instead}"
        logger.warning("%s refuses the parameter %r; %s (%s)", self.model, failure.parameter, now, failure.reason)

    def gave_up(self, failure: Failure) -> None:
        """A request failed because the pause outlasted `max_wait`."""
        if self._paused_at is not None and not self._gave_up:
            self._gave_up = True
            logger.warning("%s: %s, for %g s by now; requests fail", self.model, failure.reason, self.max_wait)

    def _then(self, retry_after: float) -> str:
        if retry_after > self.max_wait:
            longer = f"longer than max_wait ({self.max_wait:g} s)"
            return f"it asks for a wait of {retry_after:.0f} s, {longer}; requests fail"
        return f"requests wait, and are tried again for up to {self.max_wait:g} s"

    def _warn(self, failure: Failure, then: str) -> bool:
        """Whether a line was written."""
        now, kind = time.monotonic(), _kind(failure)
        last, more = self._last.get(kind, (-math.inf, 0))
        if now - last < _QUIET:
            self._last[kind] = last, more + 1
            return False
        self._last[kind] = now, 0
        again = f" ({more:,} more since the last such line)" if more else ""
        logger.warning("%s: %s; %s%s", self.model, failure.reason, then, again)
        return True


def _kind(failure: Failure) -> str:
    return failure.reason.partition(":")[0]
