"""Loading by name: in goes a name from the user, out comes a module, or one line if a library can't load it."""

import sys
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from itertools import dropwhile
from pathlib import Path
from traceback import walk_tb
from types import ModuleType, TracebackType
from typing import Any

from .errors import UserError
from .public import is_local
from .redaction import shown
from .types import POLICY_TYPE


def module_of_file(name: str, path: Path) -> ModuleType:
    """The module of a Python file, run once and then known as `name`."""
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = module_from_spec(spec)
    sys.modules[name] = module  # Dataclasses look their module up by name.
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


class library:
    """A context for a library call that depends on user input; exceptions of the library become UserErrors.

    Libraries raise anything from OSError to ZeroDivisionError on a broken folder. So the place decides, not the type:
    an exception that arose in this package, called back by the library, is a bug.

    Args:
        failure: The beginning of the message, such as "Can't load the model"; the library's message follows.
    """

    def __init__(self, failure: str):
        self.failure = failure

    def __enter__(self) -> "library":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, Exception) and not isinstance(error, UserError) and _of_library(trace):
            raise UserError(f"{self.failure}: {reason(error)}") from error


class loading(library):
    """As `library`, for anything that the user names by a folder or a Hub id.

    >>> import json
    >>> with loading("model", "ada/tiny"):  # doctest: +IGNORE_EXCEPTION_DETAIL
    ...     json.loads("oops")
    Traceback (most recent call last):
    teamsrl_hf.errors.UserError: Can't load model 'ada/tiny' (a folder or a Hub id): Expecting value: …
    """

    def __init__(self, kind: str, name: str | Path):
        self.kind, self.name = kind, str(name)
        super().__init__(f"Can't load {kind} {self.name!r} (a folder or a Hub id)")

    def __enter__(self) -> "loading":
        if not self.name.strip():
            raise UserError(f"The name of the {self.kind} is empty; give a folder or a Hub id.")
        if is_local(self.name) and not Path(self.name).exists():
            raise UserError(f"Can't load {self.kind} {self.name!r}: there is no such folder.")
        if not Path(self.name).exists():
            self.failure += ", and there is no such folder here"
        return self


def refuse_policy(name: str | Path, **options: str | None) -> None:
    """UserError if `name` is an operation policy instead of a language model, or its config can't be read."""
    from transformers import PreTrainedConfig

    with loading("model", name):
        config, _ = PreTrainedConfig.get_config_dict(str(name), **options)
    if isinstance(config, dict) and config.get("model_type") == POLICY_TYPE:
        raise UserError(f"{str(name)!r} is an operation policy, not a language model; name a language model.")


def check_tokens(config: Any, highest: int, longest: int) -> None:
    """Check that a model can read the tokenizer's ids; torch would only report an index out of range.

    Args:
        config: The model's configuration.
        highest: The highest token id.
        longest: Number of tokens in the longest row.

    Raises:
        UserError: The model has no embedding for `highest`, or fewer positions than `longest`.
    """
    text = config.get_text_config()
    known, places = getattr(text, "vocab_size", None), getattr(text, "max_position_embeddings", None)
    if known is not None and highest >= known:
        raise UserError(
            f"The tokenizer writes token {highest}, but the model has embeddings for {known} only; "
            "give the model and the tokenizer that belong together."
        )
    if places is not None and longest > places:
        raise UserError(
            f"Rows of {longest} tokens don't fit into the model's context of {places}; set max_length to {places} or "
            "less, or take a model with a longer one."
        )


def reason(error: BaseException) -> str:
    """A library's error message as one line of at most 400 characters; that of the cause if the error has none."""
    if type(error).__name__ == "DatasetGenerationError" and error.__cause__ is not None:
        error = error.__cause__
    if "trust_remote_code" in str(error):
        return (
            "it comes with code of its own, which is never run (trust_remote_code); give one that transformers knows"
        )
    telling = isinstance(error, OSError | ValueError | RuntimeError | ImportError) and str(error).strip()
    return shown(error if telling else f"{type(error).__name__}: {error}")[:400]


def _of_library(trace: TracebackType | None) -> bool:
    """Whether the exception arose in a library called from here, not in our code that the library called back."""

    def ours(name: str) -> bool:
        return name.startswith("teamsrl")

    names: Iterator[str] = (frame.f_globals.get("__name__", "") for frame, _ in walk_tb(trace))
    next(names, None)  # The frame that holds the context, perhaps of a recipe or a test.
    beyond = list(dropwhile(ours, names))
    return bool(beyond) and not any(map(ours, beyond))
