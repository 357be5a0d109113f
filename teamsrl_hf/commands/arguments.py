"""Command lines and YAML: in goes what the user typed, out come dataclasses, or one line that says what is wrong."""

import hashlib
import os
import sys
import traceback
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import Field, asdict, dataclass, field, fields
from typing import Any

from .. import __version__
from ..errors import NothingMade, Stopped, UserError
from ..redaction import redact, shown
from ..text.operations import Operation, select_operations
from ..text.seeds import INPUTS, INSTRUCTION, load_seeds, split_seeds
from ..text.tables import ENDINGS
from ..types import Seed
from .signals import Interruption

# Precisions that a command may load a model in.
DTYPES = ("float32", "bfloat16", "float16")


@dataclass
class SeedArguments:
    """Where seed instructions come from."""

    seeds: str | None = field(
        default=None,
        metadata={"help": f"File ({' '.join(ENDINGS)}), folder or Hub dataset; left out: the built-in set."},
    )
    seed_config: str | None = field(default=None, metadata={"help": "Configuration of that folder or Hub dataset."})
    seed_split: str = field(default="train", metadata={"help": "Split of that folder or Hub dataset."})
    seed_column: str = field(
        default=INSTRUCTION, metadata={"help": "Column of instructions, or of conversations: their first user turn."}
    )
    input_column: str | None = field(
        default=None,
        metadata={"help": f"Column of inputs; left out: {', '.join(INPUTS)}, whichever holds any; '' for none."},
    )
    drop_duplicate_seeds: bool = field(
        default=False, metadata={"help": "Keep the first of equal seeds, don't refuse."}
    )
    skip_bad_seeds: bool = field(
        default=False, metadata={"help": "Leave out and count rows that can't be used, don't refuse the first."}
    )
    test_size: float = field(default=0.1, metadata={"help": "Share of seeds held out from training the policy."})

    def __post_init__(self) -> None:
        self.left_out: Counter[str] = Counter()

    def load(self) -> tuple[list[Seed], list[Seed]]:
        """Seeds for training and held-out ones, both in the order of the source; counts in `left_out` what is none."""
        self.left_out.clear()
        seeds = load_seeds(
            self.seeds,
            self.seed_column,
            self.input_column,
            self.seed_split,
            self.drop_duplicate_seeds,
            config=self.seed_config,
            skip_bad=self.skip_bad_seeds,
            left_out=self.left_out,
        )
        return split_seeds(seeds, self.test_size)

    @classmethod
    def add_options(cls, parser: ArgumentParser) -> None:
        """Add the options that choose seeds to a parser that shall not wait for the libraries `parse` needs."""
        for one in cls._choosing():
            how = {"action": "store_true"} if one.default is False else {"default": one.default}
            parser.add_argument(f"--{one.name}", help=one.metadata["help"], **how)

    @classmethod
    def of_options(cls, values: Namespace) -> "SeedArguments":
        return cls(**{one.name: getattr(values, one.name) for one in cls._choosing()})

    def options(self) -> list[str]:
        """The words of a command line that choose the same seeds."""
        given = {one.name: getattr(self, one.name) for one in self._choosing()}
        chosen = {name: value for name, value in given.items() if value != getattr(type(self), name)}
        return [word for name, value in chosen.items() for word in (f"--{name}", str(value))]

    @classmethod
    def _choosing(cls) -> list[Field]:
        return [one for one in fields(cls) if one.name != "test_size"]


@dataclass
class OperationArguments:
    """Which operations are in use."""

    operations: list[str] | None = field(
        default=None,
        metadata={"help": "Operations to use, in the order of the policy's actions; all if left out."},
    )
    own_operations: list[dict] | None = field(
        default=None, metadata={"help": "YAML only: further operations, each with a name and a sentence."}
    )

    def select(self) -> tuple[Operation, ...]:
        return select_operations(self.operations or (), self.own_operations or ())


def parse(
    types: Sequence[type | str],
    argv: Sequence[str] | None = None,
    command: str = "",
    about: str | None = None,
    required: Sequence[str] = (),
    also: Sequence[str] = (),
    check: Callable[[dict[str, Any]], None] = lambda values: None,
) -> tuple[Any, ...]:
    """Fill dataclasses from `--config FILE.yaml` and the command line, which wins.

    Args:
        types: Dataclasses; "module:Class" for one that takes seconds to import, which `--help` then does not wait for.
        command: What was typed before the options, for `--help`.
        about: What `--help` says of the command.
        required: Options that have to be given although their dataclass has a default.
        also: Options that are taken elsewhere, to be suggested for a typo.
        check: Gets all values by name before the dataclasses are made, whose own complaints may be of less use.

    Raises:
        UserError: An option is unknown, missing or has a value that can't be used, on the command line or in the file.
    """
    from .options import Options, build, described, imported

    argv = list(sys.argv[1:] if argv is None else argv)
    asks_for_help = not {"-h", "--help"}.isdisjoint(argv)
    known = [(described if asks_for_help else imported)(kind) for kind in types]
    values = Options(known, command, about or "", required, also).values(argv)
    check(values)
    return build(known, values)


def seeds_digest(seeds: Sequence[Seed]) -> str:
    """A hash of the seeds' contents and order, to tell whether a folder's run was made from the same."""
    return hashlib.blake2b("\0".join(seed.id for seed in seeds).encode(), digest_size=8).hexdigest()


def run_arguments(*dataclasses: Any, without: Sequence[str] = ()) -> dict[str, Any]:
    """The values of dataclasses as one flat dictionary, to compare a run with the one a folder holds."""
    merged: dict[str, Any] = {}
    for values in dataclasses:
        merged |= values.to_dict() if hasattr(values, "to_dict") else asdict(values)
    return {name: value for name, value in merged.items() if name not in without}


# What fails outside of this program and says so itself, by module and name: none is imported for it.
_OUTSIDE = (
    ("builtins", "OSError"),  # The disk, the network, and what libraries can't find there.
    ("builtins", "MemoryError"),
    ("httpx2", "HTTPError"),  # huggingface_hub's transport; not all of it is an OSError.
    ("torch", "OutOfMemoryError"),
)


def _outside() -> tuple[type[BaseException], ...]:
    loaded = ((sys.modules.get(module), name) for module, name in _OUTSIDE)
    return tuple(getattr(module, name) for module, name in loaded if hasattr(module, name))


def guarded(main: Callable[[], Any], signals: Interruption | None = None) -> int:
    """Run `main`; what is no bug is printed as one line. Returns the exit status, see `errors`.

    Every other exception is a bug: its traceback is printed and a line that says so, with status 1. Nothing of it
    shows a token. Set TEAMSRL_TRACEBACK=1 to see where an error of the user's arose.

    Args:
        signals: What is done about signals meanwhile.
    """
    signals = signals or Interruption()
    try:
        with _Bugs() as bugs, signals:
            main()
    except KeyboardInterrupt:
        signals.tell(sys.stderr.write)
        return signals.status
    except (Stopped, NothingMade) as ended:
        print(f"{'stopped' if isinstance(ended, Stopped) else 'nothing made'}: {shown(ended)}", file=sys.stderr)
        return ended.status
    except (UserError, *_outside()) as error:
        if os.environ.get("TEAMSRL_TRACEBACK"):
            print(_traceback(error), file=sys.stderr)
        print(f"error: {shown(error) or type(error).__name__}", file=sys.stderr)
        return 2
    return 1 if bugs.found else 0


class _Bugs:
    """A context that ends with the traceback of an exception that is neither the user's mistake nor from outside."""

    found = False

    def __enter__(self) -> "_Bugs":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        self.found = isinstance(error, Exception) and not isinstance(
            error, (UserError, Stopped, NothingMade, *_outside())
        )
        if self.found:
            note = f"error: this is a bug of teamsrl-hf {__version__}; report it with the lines above"
            print(_traceback(error), note, sep="\n", file=sys.stderr)
        return self.found


def _traceback(error: BaseException) -> str:
    return redact("".join(traceback.format_exception(error)).rstrip())
