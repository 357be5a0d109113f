"""Specifications of models, as users write them: in goes one, out comes one at another pace, or its identity.

`factory.make_generator` makes models of them.
"""

import json
from typing import Any

from .factory import BATCH_OPTIONS

Spec = str | dict[str, Any]
RATES = ("requests_per_minute", "tokens_per_minute")
# Options of an endpoint that change how long a run takes or how far it gets, but no row: they may differ when a run is
# continued.
PACE = {"concurrency", "timeout", "max_retries", "backoff", "max_wait", *RATES}
PACE |= {"max_tokens_field", "headers", "bill_to", "plain_http", *BATCH_OPTIONS}
# What a single question is asked with, so that a wrong address shows soon.
_IMPATIENT = {"max_retries": 1, "backoff": 0.2, "max_wait": 10.0}


def as_mapping(spec: Spec) -> Spec:
    """A specification of an endpoint, or one with options, as a mapping."""
    if isinstance(spec, str) and spec.startswith("endpoint:"):
        return {"endpoint": spec.removeprefix("endpoint:")}
    if isinstance(spec, str) and spec.lstrip().startswith("{"):
        try:
            return json.loads(spec)
        except json.JSONDecodeError:
            pass  # `make_generator` tells what is wrong with it.
    return spec


def at_pace(spec: Spec, concurrency: int, processes: int) -> Spec:
    """The specification of a model, with so many requests in flight unless it says.

    Its rates are those of the endpoint, so each of several processes gets its part of them.
    """
    spec = as_mapping(spec)
    if not isinstance(spec, dict) or "endpoint" not in spec:
        return spec
    rates = {name: spec[name] / processes for name in RATES if isinstance(spec.get(name), int | float)}
    return {"concurrency": concurrency, **spec, **rates}


def impatient(spec: Spec) -> Spec:
    """The specification of the same model, asked at once and not in batches, which soon gives up.

    >>> impatient("endpoint:m@https://h/v1")["max_retries"], impatient("rulebook")
    (1, 'rulebook')
    """
    spec = as_mapping(spec)
    if not isinstance(spec, dict) or "endpoint" not in spec:
        return spec
    return {name: value for name, value in spec.items() if name not in BATCH_OPTIONS} | _IMPATIENT


def identity(spec: Spec | None) -> Spec | None:
    """What of a specification decides on the answers."""
    spec = None if spec is None else as_mapping(spec)
    if isinstance(spec, dict):
        spec = {name: value for name, value in spec.items() if name not in PACE}
        return f"endpoint:{spec['endpoint']}" if spec.keys() == {"endpoint"} else spec
    return spec
