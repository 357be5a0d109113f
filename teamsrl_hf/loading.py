"""Things that users name, loaded by libraries: in goes a name, out comes one line when a library can't load it."""

from collections.abc import Iterator
from itertools import dropwhile
from pathlib import Path
from traceback import walk_tb
from types import TracebackType
from typing import Any

from .errors import UserError
from .public import is_local
from .redaction import shown
from .types import POLICY_TYPE


class library:
    """A context for a call of a library that depends on what the user gave; what it raises becomes a UserError.

    Libraries raise anything from OSError to ZeroDivisionError on a broken folder, so it is not the type that tells
    whose mistake it was but the place: an exception that arose in this package, beneath the library's, is a bug.

    Args:
        failure: The beginning of the message, such as "Can't load the model"; the library's words follow.
    """

    def __init__(self, failure: str):
        self.failure = failure

    def __enter__(self) -> "library":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, Exception) and not isinstance(error, UserError) and _of_library(trace):
            raise UserError(f"{self.failure}: {reason(error)}") from error


class loading(library):
    """As `library`, for what the user named by a folder or a Hub id.

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
    """UserError where `name` is an operation policy and a language model is wanted, or its config can't be read."""
    from transformers import PreTrainedConfig

    with loading("model", name):
        config, _ = PreTrainedConfig.get_config_dict(str(name), **options)
    if isinstance(config, dict) and config.get("model_type") == POLICY_TYPE:
        raise UserError(
            f"{str(name)!r} is an operation policy, not a language model; give what it is to be used with."
        )


def check_tokens(config: Any, highest: int, longest: int) -> None:
    """Whether a model can read what a tokenizer made; torch's own complaint would be an index out of range.

    Args:
        config: The model's configuration.
        highest: The highest id of a token.
        longest: Tokens of the longest row.

    Raises:
        UserError: The model has no embedding for that token, or no position for the last of so many.
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
    """What a library says, as one line of at most 400 characters; the cause where the error itself says nothing."""
    if type(error).__name__ == "DatasetGenerationError" and error.__cause__ is not None:
        error = error.__cause__
    if "trust_remote_code" in str(error):
        return (
            "it comes with code of its own, which is never run (trust_remote_code); give one that transformers knows"
        )
    telling = isinstance(error, OSError | ValueError | RuntimeError | ImportError) and str(error).strip()
    return shown(error if telling else f"{type(error).__name__}: {error}")[:400]


def _of_library(trace: TracebackType | None) -> bool:
    """Whether the exception came out of a library that was called from here, and not out of ours that it called."""

    def ours(name: str) -> bool:
        return name.startswith("teamsrl")

    names: Iterator[str] = (frame.f_globals.get("__name__", "") for frame, _ in walk_tb(trace))
    next(names, None)  # The frame with the context, a recipe's or a test's perhaps.
    beyond = list(dropwhile(ours, names))
    return bool(beyond) and not any(map(ours, beyond))
