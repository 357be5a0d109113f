"""Model specifications: in goes one from a command line or a YAML file, out comes the generator it names."""

import json
import re
from collections.abc import Callable, Mapping
from weakref import WeakValueDictionary

from ..errors import UserError, did_you_mean
from ..loading import refuse_policy
from ..public import split_adapter
from ..redaction import shown
from .base import Generator, Sampled, Sampling
from .endpoint import EndpointGenerator

FORMS = "'rulebook', 'rulebook:SEED', 'endpoint:MODEL@BASE_URL' or 'transformers:PATH_OR_ID[+ADAPTER]'"

# Options of a mapping and their types. A float may be written as an integer.
ENDPOINT_OPTIONS = {
    "api_key_env": str,
    "concurrency": int,
    "timeout": float,
    "max_retries": int,
    "backoff": float,
    "max_wait": float,
    "requests_per_minute": float,
    "tokens_per_minute": float,
    "headers": dict,
    "query": dict,
    "bill_to": str,
    "plain_http": bool,
    "extra_body": dict,
    "max_tokens_field": str,
    "drop": list,
    "system": str,
    "reasoning_effort": str,
    "choices": str,
}
# With `batch: true`; of the others, those of single calls have no effect then.
BATCH_OPTIONS = {"batch": bool, "poll_interval": float, "batch_form": str}
SINGLE_CALL_OPTIONS = ("concurrency", "backoff", "requests_per_minute", "tokens_per_minute")
ENDPOINT_OPTIONS |= BATCH_OPTIONS
LOCAL_OPTIONS = {"batch_size": int, "dtype": str, "quantization": str, "gguf_file": str, "device": str}
# Of every kind but rules. They stand in place of what the command says, for all requests to that model.
SAMPLING_OPTIONS = {"temperature": float, "top_p": float, "max_tokens": int, "seed": int}
_TYPES = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
_TYPES |= {dict: "a mapping", list: "a list of texts"}
# Models in use, so that roles that name the same model share its memory and its batches; the last role to go frees it.
_loaded: WeakValueDictionary[str, Generator] = WeakValueDictionary()
_OPTIONS = {"endpoint": ENDPOINT_OPTIONS | SAMPLING_OPTIONS, "transformers": LOCAL_OPTIONS | SAMPLING_OPTIONS}
_OPTIONS |= {"rulebook": {}}


def make_generator(spec: str | Mapping[str, object]) -> Generator:
    """The generator that `spec` names.

    Args:
        spec: "rulebook" or "rulebook:SEED" for the embedded rules, "endpoint:MODEL@BASE_URL" for an OpenAI-compatible
            endpoint, "transformers:PATH_OR_ID" for a model loaded into this process, "transformers:PATH_OR_ID+ADAPTER"
            for one with a LoRA adapter. With options it is a mapping, in
            YAML or as JSON on a command line: `{endpoint: MODEL@BASE_URL, concurrency: 64, requests_per_minute: 600}`
            takes the arguments of `EndpointGenerator`, with `batch: true` those of `BatchEndpoint`; `{transformers:
            PATH_OR_ID, batch_size: 16, quantization: 4bit}` those of `TransformersGenerator`. All take `temperature`,
            `top_p`, `max_tokens` and `seed`, with which every request to the model is then sampled, a reviewer's too.

    Raises:
        UserError: `spec` has none of these forms, an option is unknown or of the wrong type, or the generator refuses
            its arguments.

    >>> make_generator({"endpoint": "tiny@http://127.0.0.1:8000/v1", "concurrency": 64}).concurrency
    64
    """
    return _maker(spec)[0]()


def check_named(**specs: object) -> None:
    """UserError for the first role whose model nobody has named."""
    for role, spec in specs.items():
        if spec is None:
            raise UserError(
                f"No model is named as {role}: give --{role} endpoint:MODEL@BASE_URL or --{role} "
                f"transformers:PATH_OR_ID, or --{role} rulebook for rules in place of a language model."
            )


def check_model(spec: str | Mapping[str, object]) -> None:
    """Raise UserError if `make_generator` would refuse `spec`, as far as can be checked without loading a model."""
    _, local = _maker(spec)
    if local:
        refuse_policy(local)


def _maker(spec: str | Mapping[str, object]) -> tuple[Callable[[], Generator], str | None]:
    """A function that makes the generator, and the name of the model that it has to load, if any."""
    if isinstance(spec, str) and spec.lstrip().startswith("{"):
        spec = _from_json(spec)
    name, options = _split(spec) if isinstance(spec, Mapping) else (spec, {})
    kind, _, rest = name.partition(":")
    own = {option: options.pop(option) for option in SAMPLING_OPTIONS if option in options}
    Sampling(**own)  # Which checks them, before a model is loaded.
    if name == "rulebook" or (kind == "rulebook" and re.fullmatch(r"\d{1,18}", rest)):
        from .rulebook.rules import Rulebook

        return lambda: Rulebook(seed=int(rest or 0)), None
    endpoint = re.fullmatch(r"(\S+?)@(https?://\S+)", rest, re.I)
    if kind == "endpoint" and endpoint:
        generator = _endpoint(endpoint[1], endpoint[2], options)
        return lambda: _sampled(generator, own), None
    if kind == "transformers" and rest.strip():
        make = _local(rest, options)
        return lambda: _sampled(make(), own), split_adapter(rest)[0]
    hint = "." if kind in _OPTIONS else did_you_mean(kind, _OPTIONS)
    raise UserError(f"No model is named by a specification {_start(name)}; write {FORMS}{hint}")


def _start(name: str) -> str:
    """The start of a specification, unless it may be a password or a token."""
    kind, colon, rest = name.partition("@")[0].partition(":")
    start = kind + colon * (kind in _OPTIONS) + rest * (kind in _OPTIONS and ":" not in rest)
    return (
        f"that starts with {start!r}" if re.fullmatch(r"[a-z0-9._-]{0,16}(:[\w./-]{0,16})?", start) else "of this form"
    )


def _endpoint(model: str, base_url: str, options: dict) -> Generator:
    options = dict(options)
    if options.pop("batch", False):
        from .batch.endpoint import BatchEndpoint

        return BatchEndpoint(
            model, base_url, **{name: value for name, value in options.items() if name not in SINGLE_CALL_OPTIONS}
        )
    for name in BATCH_OPTIONS:
        if name in options:
            raise UserError(f"{name} is for models that answer in batches; give `batch: true` too, or leave it out.")
    return EndpointGenerator(model, base_url, **options)


def _local(name: str, options: dict) -> Callable[[], Generator]:
    quantization = options.pop("quantization", None)
    if quantization not in (None, "4bit"):
        raise UserError(f"quantization must be 4bit or left out, not {quantization!r}.")

    def make() -> Generator:
        from .local import TransformersGenerator

        key = json.dumps([name, quantization, options], sort_keys=True)
        if (generator := _loaded.get(key)) is None:
            generator = TransformersGenerator(name, quantize_4bit=quantization is not None, **options)
            _loaded[key] = generator
        return generator

    return make


def _sampled(generator: Generator, own: Mapping[str, object]) -> Generator:
    return Sampled(generator, own) if own else generator


def _from_json(text: str) -> Mapping[str, object]:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        # From None: a chain would show the text.
        raise UserError(f"A specification that starts with '{{' must be JSON, but: {error}.") from None


def _split(spec: Mapping[str, object]) -> tuple[str, dict]:
    """A mapping as a specification without options, and the checked options."""
    kinds = [kind for kind in _OPTIONS if kind in spec]
    if len(kinds) != 1:
        given = ", ".join(map(str, spec)) or "nothing"
        raise UserError(f"A model is one of {', '.join(_OPTIONS)}, each with its options, not a mapping of {given}.")
    kind, allowed = kinds[0], _OPTIONS[kinds[0]]
    options = {name: value for name, value in spec.items() if name != kind and value is not None}
    for name, value in options.items():
        if name not in allowed:
            there = ", ".join(allowed) or "none"
            raise UserError(f"Unknown option {name!r} of {kind}; there are: {there}{did_you_mean(name, allowed)}")
        wanted = (int, float) if allowed[name] is float else allowed[name]
        if not isinstance(value, wanted) or isinstance(value, bool) != (wanted is bool):
            given = "something else" if name in ("api_key_env", "headers") else shown(repr(value))
            raise UserError(f"{name} of {kind} must be {_TYPES[allowed[name]]}, not {given}.")
    return f"{kind}:{spec[kind]}" if spec[kind] is not None else kind, options
