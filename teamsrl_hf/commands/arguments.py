"""Command lines and YAML: in go words and a file, out come dataclasses, or one line that says what is wrong."""

import hashlib
import os
import select
import sys
import traceback
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import Field, asdict, dataclass, field, fields
from typing import Any

from .. import __version__
from ..errors import NothingMade, Stopped, UserError, check_number
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
        default=False, metadata={"help": "Keep the first of equal seeds instead of refusing them."}
    )
    skip_bad_seeds: bool = field(
        default=False, metadata={"help": "Skip and count rows that can't be used instead of refusing the first."}
    )
    max_seeds: int | None = field(default=None, metadata={"help": "Use only the first seeds of the source, so many."})
    test_size: float = field(default=0.1, metadata={"help": "Share of seeds held out from training the policy."})

    def __post_init__(self) -> None:
        if self.max_seeds is not None:
            check_number("max_seeds", self.max_seeds, 1, whole=True)
        self.left_out: Counter[str] = Counter()

    def load(self) -> tuple[list[Seed], list[Seed]]:
        """Training seeds and held-out seeds, in the order of the source; `left_out` counts rows without a seed."""
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
        return split_seeds(seeds[: self.max_seeds], self.test_size)

    @classmethod
    def add_options(cls, parser: ArgumentParser) -> None:
        """Add the options that choose seeds to a parser, without importing the libraries that `parse` needs."""
        for one in cls._choosing():
            how: dict[str, Any] = {"action": "store_true"} if one.default is False else {"default": one.default}
            how |= {"type": int} if one.type == int | None else {}
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
    prompts: str | dict = field(
        default="small",
        metadata={
            "help": "How models are asked: small (for edits, with worked examples), large (for whole rewrites), tiny "
            "(for edits that a model of some 100M parameters can write, without those that it is unsure of), or a "
            "YAML or JSON file; in YAML also a mapping with the keys of such a file."
        },
    )

    def select(self) -> tuple[Operation, ...]:
        names, own = self.operations, self.own_operations
        return select_operations(() if names is None else names, () if own is None else own, self.prompts)


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
        types: Dataclasses; "module:Class" for one that takes seconds to import, so that `--help` is fast.
        command: The words before the options, for `--help`.
        about: The description of the command in `--help`.
        required: Options that are required although their dataclass has a default.
        also: Options that another parser handles, to suggest after a typo.
        check: Called with all values by name before the dataclasses check them, for clearer errors.

    Raises:
        UserError: An option is unknown, missing or has an unusable value, on the command line or in the file.
    """
    from .options import Options, build, described, imported

    argv = list(sys.argv[1:] if argv is None else argv)
    asks_for_help = not {"-h", "--help"}.isdisjoint(argv)
    known = [(described if asks_for_help else imported)(kind) for kind in types]
    values = Options(known, command, about or "", required, also).values(argv)
    check(values)
    return build(known, values)


def seeds_digest(seeds: Sequence[Seed]) -> str:
    """A hash of the seeds' contents and order, to check whether a folder's run used the same seeds."""
    return hashlib.blake2b("\0".join(seed.id for seed in seeds).encode(), digest_size=8).hexdigest()


def run_arguments(*dataclasses: Any, without: Sequence[str] = ()) -> dict[str, Any]:
    """The values of dataclasses as one flat dictionary, to compare a run with that of a folder."""
    merged: dict[str, Any] = {}
    for values in dataclasses:
        merged |= values.to_dict() if hasattr(values, "to_dict") else asdict(values)
    return {name: value for name, value in merged.items() if name not in without}


# The status of a program that SIGPIPE ends, since nobody reads its output; other command-line tools have it too.
READER_LEFT = 141
# Exceptions with causes outside of this program, by module and name, so that none has to be imported.
_OUTSIDE = (
    ("builtins", "OSError"),  # The disk, the network, and files that libraries can't find.
    ("builtins", "MemoryError"),
    ("httpx2", "HTTPError"),  # huggingface_hub's transport; not all of it is an OSError.
    ("torch", "OutOfMemoryError"),
)


def _no_bugs() -> tuple[type[BaseException], ...]:
    loaded = ((sys.modules.get(module), name) for module, name in _OUTSIDE)
    return UserError, *(getattr(module, name) for module, name in loaded if hasattr(module, name))


def guarded(main: Callable[[], Any], signals: Interruption | None = None) -> int:
    """Run `main` and print expected errors as one line. Returns the exit status, see `errors`.

    Every other exception is a bug: its traceback is printed with a line that says so, and the status is 1. Tokens are
    redacted. Set TEAMSRL_TRACEBACK=1 to see the traceback of a user's error.

    Args:
        signals: Handles signals meanwhile; by default `Interruption`.
    """
    signals = Interruption() if signals is None else signals
    try:
        with _Bugs() as bugs, signals:
            main()
    except KeyboardInterrupt:
        signals.tell(sys.stderr.write)
        return signals.status
    except (Stopped, NothingMade) as ended:
        print(f"{'stopped' if isinstance(ended, Stopped) else 'nothing made'}: {shown(ended)}", file=sys.stderr)
        return ended.status
    except SystemExit:  # Of --help, which prints and leaves.
        if _reader_has_left():
            return READER_LEFT
        raise
    except _no_bugs() as error:
        if isinstance(error, BrokenPipeError) and _reader_has_left():
            return READER_LEFT
        if os.environ.get("TEAMSRL_TRACEBACK"):
            print(_traceback(error), file=sys.stderr)
        print(f"error: {shown(error) or type(error).__name__}", file=sys.stderr)
        return 2
    if bugs.found:
        return 1
    return READER_LEFT if _reader_has_left() else 0


def _reader_has_left() -> bool:
    """Whether nobody reads standard output any more, as after `| head`; if so, later output is discarded."""
    try:
        sys.stdout.flush()
        output = sys.stdout.fileno()
        watch = select.poll()
        watch.register(output, 0)  # A pipe without a reader reports an error, also where nothing is left to flush.
        if not any(event & select.POLLERR for _, event in watch.poll(0)):
            return False
    except BrokenPipeError:
        output = sys.stdout.fileno()
    except (OSError, AttributeError):  # A stream without a file, or a system without poll.
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    return True


class _Bugs:
    """A context that prints the traceback of an exception that is neither a user's error nor caused outside."""

    found = False

    def __enter__(self) -> "_Bugs":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, Exception) and not isinstance(error, (Stopped, NothingMade, *_no_bugs())):
            self.found = True
            note = f"error: this is a bug of teamsrl-hf {__version__}; report it with the lines above"
            print(_traceback(error), note, sep="\n", file=sys.stderr)
        return self.found


def _traceback(error: BaseException) -> str:
    return redact("".join(traceback.format_exception(error)).rstrip())
