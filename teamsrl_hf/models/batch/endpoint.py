"""A chat model behind a provider's batch API, as a generator: it says how it is asked, and a ledger asks it."""

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from ...errors import UserError, check_number, did_you_mean
from ..base import Completion, Generator, Request
from ..wire.failure import Failure, read_refusal
from ..wire.request import LIMITS, Dialect, refused_parameter
from ..wire.response import read_answer
from ..wire.transport import Line, address
from .files import FILES, TOGETHER
from .job import Form, Result
from .messages import MESSAGES
from .service import Service

logger = logging.getLogger(__name__)
FORMS = {"files": FILES, "together": TOGETHER, "messages": MESSAGES}
# Hosts, and all below them, that are not asked by OpenAI's form.
_HOSTS = {"anthropic.com": "messages", "together.xyz": "together", "together.ai": "together"}


class BatchEndpoint:
    """A chat model that answers within hours, at about half the price. It needs a ledger, which asks it.

    `Ledger.record` gives a generator that waits until no request of the run can go on without an answer, and sends
    those that wait as one batch, or as several of at most 2,000 requests. See `batch.batches.Batches`.

    Args:
        model: Name of the model, as the provider knows it.
        base_url: What comes before `/batches`, such as "https://api.openai.com/v1".
        batch_form: "files" (OpenAI's form), "together" (its variant) or "messages" (Anthropic's); by default what the
            host speaks, else "files".
        poll_interval: Seconds between two questions about a batch; up to ten times as many while nothing changes.
        timeout: Seconds that one call of the batch API may take; uploads take longest.
        max_retries: How often a request is asked again that the batch did not run or that failed for the moment.
        max_wait: Seconds without an answer of the batch API after which the run stops; it resumes where it was.
        api_key_env, headers, query, bill_to, plain_http: See `endpoint.EndpointGenerator`.
        extra_body, max_tokens_field, drop, system, reasoning_effort, choices: See `wire.request.Dialect`.

    Raises:
        UserError: An argument can't be used; or, when called: there is no ledger.
    """

    concurrency = math.inf

    def __init__(
        self,
        model: str,
        base_url: str,
        *,
        batch_form: str | None = None,
        poll_interval: float = 30.0,
        timeout: float = 600.0,
        max_retries: int = 6,
        max_wait: float = 300.0,
        api_key_env: str | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        bill_to: str | None = None,
        plain_http: bool = False,
        **dialect: Any,
    ):
        check_number("poll_interval", poll_interval, above=0)
        check_number("timeout", timeout, above=0)
        check_number("max_retries", max_retries, 0, whole=True)
        check_number("max_wait", max_wait, 0)
        form = _form(base_url, batch_form)
        self.model, self.max_retries, self.batch = model, max_retries, self
        where = address(base_url, api_key_env, headers, query, bill_to, plain_http)
        self.api_key_env = where.api_key_env
        if form.key_header is not None and where.api_key_env:
            where = replace(where, api_key_env=None, headers={**where.headers, form.key_header: where.api_key_env})
        self.service = Service(form, Line(where, timeout), poll_interval, max_wait)
        self._dialect = Dialect(**dialect)
        unknown = [name for name in ("reasoning_effort", "choices") if dialect.get(name) and form is MESSAGES]
        if unknown:
            raise UserError(f"Anthropic's batches know no {unknown[0]}; leave it out, or use extra_body.")
        self._refused: set[str] = set()

    @property
    def base_url(self) -> str:
        """What comes before the paths of the batch API."""
        return self.service.where

    def answer_options(self, request: Request) -> dict[str, object]:
        """As of single calls, so that these and batches share their answers. See `base.answer_options_of`."""
        return self._dialect.answer_options(request)

    async def __call__(self, request: Request) -> Completion:
        raise UserError(
            f"{self.model!r} answers in batches, which need a ledger: wrap it with Ledger.record, or leave out batch."
        )

    def body(self, request: Request) -> dict[str, Any]:
        """The body of a request inside a batch."""
        return self.service.form.body(self._dialect.body(request, self.model, self._refused))

    def read(self, result: Result, sent: Mapping[str, object] | None) -> Completion | Failure | None:
        """What became of a request; None where it was not run.

        Args:
            sent: Its body, where it is known.
        """
        if result.status == 0:
            return None
        body, secrets = json.dumps(result.body).encode(), self.service.secrets
        if result.status == 200:
            certain = sent is not None and sent.get("temperature") == 0
            return read_answer(body, self.model, secrets, certain)
        refusal = read_refusal(result.status, {}, body, secrets, self.service.variable)
        name = refused_parameter(result.status, body.decode(), sent) if sent else None
        if name is None or (name in LIMITS and not self._refused.isdisjoint({*LIMITS} - {name})):
            return refusal
        if name not in self._refused:
            self._refused.add(name)
            what = self.model, name, refusal.reason
            logger.warning("%s refuses the parameter %r; requests of this run leave it out (%s)", *what)
        return Failure(refusal.reason, status=refusal.status, parameter=name)

    async def close(self) -> None:
        """Close the connections before the event loop ends."""
        await self.service.close()


def batch_of(generator: Generator) -> BatchEndpoint | None:
    """The model behind a generator that is asked in batches, None for any other."""
    return getattr(generator, "batch", None)


def _form(base_url: str, given: str | None) -> Form:
    host = urlsplit(base_url).hostname or ""
    name = next((form for known, form in _HOSTS.items() if host == known or host.endswith(f".{known}")), "files")
    if given is not None and given not in FORMS:
        raise UserError(f"batch_form may be {', '.join(FORMS)}, not {given!r}{did_you_mean(given, FORMS)}")
    return FORMS[given or name]
