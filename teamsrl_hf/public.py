"""Public names: in go models, folders and messages with local names, out come the same without private details.

One rule: a Hub id stays, a path becomes its last part, an endpoint becomes its model. No host is published, since a
host's name does not show whether it is internal.
"""

import json
import os
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

# Options of a model that affect its answers; the others affect speed and access.
_TELLING = ("dtype", "quantization", "reasoning_effort", "temperature", "top_p", "max_tokens", "seed")
_ADDRESS = (
    r"\w+://[^\s'\"<>]+|(?<=host )[\w.:-]+"
    r"|\[[0-9a-fA-F]*:[0-9a-fA-F:.]*\](?::\d+)?|\b\d{1,3}(?:\.\d{1,3}){3}\b(?::\d+)?"
)
_PATH = r"(?<![\w/.])(?:~|[A-Za-z]:)?(?:[/\\][\w.@+-]+){2,}[/\\]?"


def is_local(name: str) -> bool:
    """Whether a name is a path of this machine, not a Hub id or a provider's name for a model.

    >>> is_local("/data/llama"), is_local("~/llama"), is_local("meta-llama/Llama-3.1-8B"), is_local("gpt-4o:free")
    (True, True, False, False)
    """
    return bool(re.match(r"[/~]|\.{1,2}([/\\]|$)|\\\\|[A-Za-z]:[/\\]|file:", name)) or os.path.exists(name)


def split_adapter(name: str) -> tuple[str, str | None]:
    """A model's name and that of the adapter to it, which may follow after a plus sign.

    >>> split_adapter("org/model+outputs/rewriter"), split_adapter("org/model")
    (('org/model', 'outputs/rewriter'), ('org/model', None))
    """
    model, plus, adapter = name.rpartition("+")
    return (model, adapter) if plus and model and adapter and not os.path.exists(name) else (name, None)


def public_name(name: str | Path) -> str:
    """A Hub id as it is, a path as its last part.

    >>> public_name("ada/rows"), public_name("/home/ada/outputs/rows/"), public_name(r"C:\\\\models\\\\llama")
    ('ada/rows', 'rows', 'llama')
    """
    name = str(name)
    if not is_local(name):
        return name
    known = Path(name).resolve().name if os.path.exists(name) else ""
    return known or re.split(r"[/\\]", name.rstrip("/\\"))[-1] or "folder"


def public_model(spec: str | Mapping[str, object] | None) -> str:
    """A model's public name for cards and rows, from its name or specification, without address and access.

    >>> public_model("endpoint:gpt-4o@https://key:secret@10.0.0.7:8000/v1"), public_model("transformers:/data/llama")
    ('endpoint:gpt-4o', 'transformers:llama')
    >>> public_model({"transformers": "org/m", "quantization": "4bit", "batch_size": 8})
    'transformers:org/m, quantization: 4bit'
    """
    spec = _mapping(spec)
    if not isinstance(spec, Mapping):
        return _public_model(spec or "")
    kind = next((kind for kind in ("endpoint", "transformers") if kind in spec), None)
    options = [f"{name}: {value}" for name, value in _telling(spec).items()]
    return ", ".join([_public_model(f"{kind}:{spec[kind]}" if kind else next(iter(spec), "")), *options])


def public_spec(spec: str | Mapping[str, object]) -> str | dict[str, object]:
    """A model's specification for a published recipe, without address and access.

    >>> public_spec({"transformers": "/data/llama", "quantization": "4bit", "batch_size": 8})
    {'transformers': 'llama', 'quantization': '4bit'}
    >>> public_spec({"endpoint": "gpt-4o@https://10.0.0.7/v1", "concurrency": 64})
    'endpoint:gpt-4o'
    """
    spec = _mapping(spec)
    model = public_model(spec).partition(", ")[0]
    kind, _, name = model.partition(":")
    options = _telling(spec) if isinstance(spec, Mapping) else {}
    return {kind: name, **options} if options else model


def _mapping(spec: Any) -> Any:
    return json.loads(spec) if isinstance(spec, str) and spec.lstrip().startswith("{") else spec


def _telling(spec: Mapping[str, object]) -> dict[str, object]:
    return {name: spec[name] for name in _TELLING if spec.get(name) is not None}


@lru_cache(maxsize=1_024)  # Asked for each row of a dataset.
def _public_model(spec: str) -> str:
    kind, colon, name = spec.partition(":")
    if kind not in ("endpoint", "transformers"):
        kind, colon, name = "", "", spec
    parts = [part for part in split_adapter(re.sub(r"@\w+://\S*", "", name)) if part is not None]
    return kind + colon + "+".join(map(public_name, parts))


def public_config(value: Any, key: str = "") -> Any:
    """The content of a configuration file, with the last part in place of each name or string that is a path.

    >>> public_config({"backbone_name": "/data/llama", "backbone": {"_name_or_path": "/data/llama"}, "step": "/"})
    {'backbone_name': 'llama', 'backbone': {'_name_or_path': 'llama'}, 'step': '/'}
    """
    if isinstance(value, dict):
        return {name: public_config(part, name) for name, part in value.items()}
    if isinstance(value, list):
        return [public_config(part) for part in value]
    if not isinstance(value, str):
        return value
    # A token or a pattern may look like a path, but no such file exists.
    found = os.path.isabs(value) and value.count("/") > 1 and os.path.exists(value)
    return public_name(value) if found or key.endswith(("name_or_path", "backbone_name")) else value


def public_text(text: str) -> str:
    """A message without addresses and paths, which errors of servers and of the network contain.

    >>> public_text("connection failed: Cannot connect to host gpu7.lan:8000 ssl:default [/home/ada/run/cert.pem]")
    'connection failed: Cannot connect to host [address] ssl:default [[path]]'
    """
    return re.sub(_PATH, "[path]", re.sub(_ADDRESS, "[address]", text))
