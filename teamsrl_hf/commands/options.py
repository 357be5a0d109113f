"""Options of a command: in go dataclasses, a command line and a YAML file, out come checked values by name.

A word that is no option is an error with a suggestion, never the beginning of one; YAML is held to the same rules.
"""

import argparse
import ast
import builtins
import inspect
import math
import re
import sys
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import Field, field, fields, make_dataclass
from enum import Enum
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ..errors import UserError, did_you_mean
from ..loading import library, module_of_file
from ..redaction import refuse_secrets

# Packages whose dataclasses are listed after ours; what a class of theirs hands on to ours stays theirs.
INHERITED = {"trl": "Inherited from TRL", "transformers": "Inherited from transformers' TrainingArguments"}
# Where a base class is written that its package hands out lazily.
_WRITTEN_IN = {"TrainingArguments": "transformers.training_args", "_BaseConfig": "trl.trainer.base_config"}
_METAVARS = {int: "N", float: "N", str: "TEXT"}


class Formatter(argparse.RawDescriptionHelpFormatter):
    """One spelling of each option, and its default or that it has to be given."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings:
            return super()._format_action_invocation(action)
        values = "" if action.nargs == 0 else " " + self._format_args(action, action.dest.upper())
        return ", ".join(word for word in action.option_strings if "-" not in word[2:]) + values

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        if action.required and action.option_strings:
            return f"{text} (required)"
        if (
            not action.option_strings
            or action.default in (None, argparse.SUPPRESS)
            or "default:" in text
            or action.nargs == 0
        ):
            return text
        shown = " ".join(map(str, action.default)) if isinstance(action.default, list | tuple) else action.default
        shown = shown.value if isinstance(shown, Enum) else shown
        shown = str(shown).lower() if isinstance(shown, bool) else str(shown)
        return f"{text} (default: {shown.replace('%', '%%')})" if shown not in ("", "{}") else text


class Parser(argparse.ArgumentParser):
    """A parser that takes no abbreviations and raises every mistake as a UserError of one line."""

    def __init__(self, also: Sequence[str] = (), **options: Any):
        self.also = also  # Options that another parser takes, to be suggested too.
        super().__init__(**{"allow_abbrev": False, "formatter_class": Formatter, **options})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        args = sys.argv[1:] if args is None else list(args)
        # What follows a subcommand is for that command's own parser.
        for word in args if self._subparsers is None else takewhile(lambda word: word.startswith("-"), args):
            name = word.partition("=")[0]
            if name.startswith("--") and name not in self._option_string_actions:
                spelled = [option for option in (*self._option_string_actions, *self.also) if "-" not in option[2:]]
                self.error(f"Unknown option {name}{did_you_mean(name, spelled)}")
        return super().parse_known_args(args, namespace)

    def _check_value(self, action: argparse.Action, value: object) -> None:
        if action.choices is not None and value not in action.choices:
            name = action.dest.removesuffix("s") if action.nargs == "+" else action.dest
            raise UserError(wrong_choice(name, value, action.choices))

    def error(self, message: str) -> typing.NoReturn:
        message = re.sub(r"(--\w+)/--[\w-]+", r"\1", message)
        end = "" if message.endswith("?") else "."
        raise UserError(f"{message.rstrip('.')}{end} `{self.prog} --help` lists all options.")


def wrong_choice(name: str, value: object, choices: Iterable[object]) -> str:
    """What to say of a value that is none of the `choices` of `name`."""
    known = list(map(str, choices))
    return f"Unknown {name} {value!r}; use {', '.join(known)}{did_you_mean(value, known)}"


class Options(Parser):
    """The options of a command whose dataclasses are `types`, and of the YAML file that `--config` names."""

    def __init__(
        self,
        types: Sequence[type],
        command: str,
        about: str = "",
        required: Sequence[str] = (),
        also: Sequence[str] = (),
    ):
        super().__init__(also, prog=command, description=about)
        self.hints: dict[str, Any] = {}
        self._titled: dict[str, Any] = {}
        self.add_argument("--config", metavar="FILE.yaml", help="YAML file with any of these options, by name")
        for dataclass_type in types:
            self._add_dataclass(dataclass_type)
        for action in self._actions:
            action.required = action.required or action.dest in required
        self._action_groups.sort(key=lambda group: group.title in INHERITED.values())
        needed = [f"{a.option_strings[0]} {a.metavar or a.dest.upper()}" for a in self._actions if a.required]
        self.usage = " ".join([command, *needed, "[--config FILE.yaml]", "[options]"])

    def _add_dataclass(self, dataclass_type: type) -> None:
        hints = get_type_hints(dataclass_type)
        for one in fields(dataclass_type):
            if one.init:
                self.hints[one.name] = hints[one.name]
                plain = copy(one)
                plain.type = str if {str, dict} <= set(_kinds(hints[one.name])) else hints[one.name]
                _field_reader()(self._group(dataclass_type, one), plain)
        for action in self._actions:
            if action.type is dict:
                action.type, action.metavar = _in_yaml_only, "YAML"
            if action.option_strings[0].startswith("--no_"):
                action.help = argparse.SUPPRESS
            if action.choices is None and action.nargs != 0:
                kind: Any = action.type
                action.metavar = action.metavar or _METAVARS.get(kind, "true|false" if action.const else "TEXT")

    def _group(self, dataclass_type: type, one: Field) -> Any:
        """The group of a field, by the class that says what it is."""
        owner = next(kind for kind in dataclass_type.__mro__ if one.name in inspect.get_annotations(kind))
        title = INHERITED.get(owner.__module__.partition(".")[0]) or (owner.__doc__ or owner.__name__).splitlines()[0]
        if title not in self._titled:
            self._titled[title] = self.add_argument_group(title.rstrip("."))
        return self._titled[title]

    def values(self, argv: Sequence[str]) -> dict[str, Any]:
        """Values by name: of the command line, else of the YAML file, else defaults.

        Raises:
            UserError: An option is unknown, missing, or has a value of the wrong type, in either place.
        """
        self._take_defaults(read_config(argv))
        values = vars(self.parse_args(list(argv)))
        if values.get("trust_remote_code"):
            raise UserError(
                "trust_remote_code would run code from the Hub; here only models of transformers are taken."
            )
        for name, value in values.items():
            refuse_secrets(name, value)
            if "\0" in str(value):
                raise UserError(f"{name} holds a null byte, which no file name or text may; remove it.")
            if any(isinstance(number, float) and not math.isfinite(number) for number in _items(value)):
                raise UserError(f"{name} must be a finite number, not {value}.")
        return values

    def _take_defaults(self, config: Mapping[str, Any]) -> None:
        for name, value in config.items():
            if name not in self.hints:
                raise UserError(
                    f"Unknown key {name!r} in the YAML file{did_you_mean(name, self.hints)} "
                    f"`{self.prog} --help` lists all options."
                )
            if not _fits(value, self.hints[name]):
                quotes = "; YAML reads no, yes, off and on as false and true, so put them in quotes"
                wanted = _wanted(self.hints[name]) + quotes * isinstance(value, bool)
                # A list or mapping might hold a token deep within.
                given = f"a {type(value).__name__}" if isinstance(value, list | dict) else repr(value)
                raise UserError(f"{name} in the YAML file must be {wanted}, not {given}.")
            for action in (action for action in self._actions if action.dest == name):
                for one in _items(value) if value is not None else ():
                    self._check_value(action, one)
                action.default, action.required = value, False


def build(types: Sequence[type], values: Mapping[str, Any]) -> tuple[Any, ...]:
    """Instances of dataclasses; what those of TRL and transformers refuse is the user's mistake, as the values are."""
    with library("The options can't be used"):
        return tuple(kind(**{one.name: values[one.name] for one in fields(kind) if one.init}) for kind in types)


def read_config(argv: Sequence[str]) -> dict[str, Any]:
    """What the YAML file says that `--config` names on a command line; nothing where there is none.

    Raises:
        UserError: It can't be read, or holds something else than options by name.
    """
    import yaml

    paths = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    paths.add_argument("--config", nargs="?", default="")
    path = paths.parse_known_args(list(argv))[0].config
    if path is None:
        raise UserError("--config needs the path of a YAML file.")
    if not path:
        return {}
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The YAML file {path} can't be read: {getattr(error, 'strerror', None) or error}.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        problem = re.sub(r"'[^'<]{2,}'", "'…'", getattr(error, "problem", None) or type(error).__name__)
        at = getattr(error, "problem_mark", None)
        where = f" (line {at.line + 1}, column {at.column + 1})" if at else ""
        # Not the error's own text: it shows the line, and a line may hold a token.
        raise UserError(f"The YAML file {path} can't be read: {problem}{where}.") from None
    if content is None:
        raise UserError(f"The YAML file {path} is empty; write one option a line, such as `seed: 42`.")
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise UserError(f"The YAML file {path} must hold one option a line, such as `seed: 42`.")
    return content


@cache
def _field_reader() -> Callable[[Any, Field], None]:
    """transformers' way from a field to an option, from its module alone: the package takes half a second to load."""
    try:
        module = module_of_file("transformers_hf_argparser", _source("transformers.hf_argparser"))
    except ImportError:  # A version of it that needs the package.
        module = import_module("transformers.hf_argparser")
    return module.HfArgumentParser._parse_dataclass_field


def _members(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (UnionType, typing.Union) else (hint,)


def _kinds(hint: Any) -> list[Any]:
    return [get_origin(member) or member for member in _members(hint)]


def _in_yaml_only(text: str) -> typing.NoReturn:
    raise argparse.ArgumentTypeError("belongs into the YAML file")


def _items(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [value]


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value from YAML is of the type; a text for a number or a truth value is left to argparse to read."""
    return any(_fits_one(value, member) for member in _members(hint))


def _fits_one(value: Any, kind: Any) -> bool:
    origin = get_origin(kind) or kind
    if origin is Literal:
        return value in get_args(kind)
    if origin is list:
        return isinstance(value, list) and all(_fits(one, *(get_args(kind) or (Any,))) for one in value)
    if origin in (int, float):
        return isinstance(value, int | str | origin) and not isinstance(value, bool)
    if origin is bool:
        return isinstance(value, bool | str)
    if isinstance(origin, type) and issubclass(origin, Enum):
        return value in [member.value for member in origin]
    return not isinstance(origin, type) or isinstance(value, origin)


def _wanted(hint: Any) -> str:
    """A type in words.

    >>> _wanted(list[str] | None), _wanted(float)
    ('a list of texts, or left out', 'a number')
    """
    words = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", dict: "a mapping"}
    words |= {list[str]: "a list of texts", list[int]: "a list of whole numbers", list[float]: "a list of numbers"}
    words |= {list[dict]: "a list of mappings", NoneType: "left out"}
    return ", or ".join(dict.fromkeys(words.get(kind) or _one_of(kind) for kind in _members(hint)))


def _one_of(kind: Any) -> str:
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "one of " + ", ".join(str(member.value) for member in kind)
    return "one of " + ", ".join(map(str, get_args(kind))) if get_origin(kind) is Literal else str(kind)


# -- dataclasses that take seconds to import, for --help


def imported(path: str | type) -> type:
    """The class that "module:Class" names."""
    if isinstance(path, type):
        return path
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def described(path: str | type) -> type:
    """As `imported`, but read from its source without running it: a dataclass with the same fields, for `--help`.

    TrainingArguments alone takes four seconds to import, since torch comes with it. Types of values that only the
    module knows, such as its enumerations, become texts.
    """
    if isinstance(path, type):
        return path
    module, _, name = path.partition(":")
    tree = ast.parse(_source(module).read_text(encoding="utf-8"))
    node = _class_of(tree, name)
    if node is None:
        raise ImportError(f"{module} defines no class {name}")
    parents = [base.id for base in node.bases if isinstance(base, ast.Name)]
    bases = tuple(described(f"{_WRITTEN_IN[parent]}:{parent}") for parent in parents)
    names = _Names(module, tree)
    for assignment in (found for found in ast.walk(node) if isinstance(found, ast.Assign)):
        if isinstance(assignment.targets[0], ast.Name) and isinstance(assignment.value, ast.Constant):
            names[assignment.targets[0].id] = assignment.value.value
    made = [
        (one.target.id, names.value_of(one.annotation), *names.field_of(one.value))
        for one in node.body
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
    ]
    about = {"__module__": module, "__doc__": ast.get_docstring(node)}
    return make_dataclass(name, made, bases=bases, kw_only=True, namespace=about)


def _source(module: str) -> Path:
    package, _, rest = module.partition(".")
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ImportError(f"{package} is not installed")
    return Path(spec.origin).parent.joinpath(*rest.split(".")).with_suffix(".py")


def _class_of(tree: ast.Module, name: str) -> ast.ClassDef | None:
    return next((node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name), None)


class _Names(dict):
    """Names for the expressions of a class' body: enumerations by their source; one not known stands for a text."""

    def __init__(self, module: str, tree: ast.Module):
        super().__init__({"field": field, "Literal": Literal, "Any": Any})
        self.module, self.tree = module, tree

    def __missing__(self, name: str) -> Any:
        if hasattr(builtins, name):
            raise KeyError(name)  # Then Python looks there.
        self[name] = _enumeration(self.module, self.tree, name) or str
        return self[name]

    def field_of(self, node: ast.expr | None) -> list[Any]:
        """The field or plain default after a name, as a list of one, or of none."""
        for call in ast.walk(node) if node is not None else ():
            for metadata in (word.value for word in getattr(call, "keywords", ()) if word.arg == "metadata"):
                # Choices that the module computes can't be known; what they are, the help's text says.
                known = [pair for pair in zip(metadata.keys, metadata.values) if not isinstance(pair[1], ast.Call)]
                metadata.keys, metadata.values = map(list, zip(*known))
        return [] if node is None else [self.value_of(node)]

    def value_of(self, node: ast.expr) -> Any:
        return eval(compile(ast.Expression(node), self.module, "eval"), {}, self)


def _enumeration(module: str, tree: ast.Module, name: str) -> Any:
    """The enumeration of texts called `name` that a module defines or imports from a neighbour; None without one."""
    node = _class_of(tree, name)
    if node is not None:
        members = {
            one.targets[0].id: one.value.value
            for one in node.body
            if isinstance(one, ast.Assign)
            and isinstance(one.targets[0], ast.Name)
            and isinstance(one.value, ast.Constant)
        }
        return Enum(name, members) if members else None
    for one in tree.body:
        if isinstance(one, ast.ImportFrom) and one.level == 1 and name in [alias.name for alias in one.names]:
            beside = f"{module.rpartition('.')[0]}.{one.module}"
            return _enumeration(beside, ast.parse(_source(beside).read_text(encoding="utf-8")), name)
    return None
