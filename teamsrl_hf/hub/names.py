"""How what a folder names reads on the Hub: in come folder and repository id, out come the files that differ there.

The folder itself stays as it is. A path of this machine means nothing on another, so none is published.
"""

import json
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import yaml
from huggingface_hub.utils import HFValidationError, validate_repo_id

from ..errors import UserError
from ..public import is_local, public_config
from ..publish.cards import PAPER_TAGS, front_matter, render
from ..redaction import shown
from .files import INDEX, README, Folder, read_json

# Where a folder names the model that its own weights go with.
_BASES = {"adapter_config.json": "base_model_name_or_path", "config.json": "backbone_name"}
# What libraries write paths into.
_CONFIGS = ("config.json", "adapter_config.json", "generation_config.json", "tokenizer_config.json")
# What the snippets of a card load until it is known where the folder lies.
_PLACEHOLDER = re.compile(r"\b(?:FOLDER|PATH)_OR_HUB_ID\b")


def check_repo_id(repo_id: str, what: str) -> None:
    """UserError unless `repo_id` may be one of the Hub."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UserError(f"{what} {repo_id!r} is no Hub id; give USER/NAME. {error}") from error


def check_whole(folder: Folder) -> None:
    """UserError unless all is sent that the index of the weights, or a dataset's card, names."""
    named: dict[str, set[str]] = {INDEX: set(), README: set()}
    if INDEX in folder.files:
        shards = read_json(folder.path / INDEX).get("weight_map")
        named[INDEX] = set(map(str, shards.values())) if isinstance(shards, dict) else set()
    if folder.kind == "dataset":
        named[README] = {path for path in _data_files(_front_matter(folder)[0]) if "://" not in path}
    for file, paths in named.items():
        if missing := sorted(path for path in paths if not _sends(folder, path)):
            raise UserError(
                f"{str(folder.path / file)!r} names {', '.join(map(shown, missing))}, which would not be sent: "
                "missing, a link, or nothing that is pushed; write the folder again."
            )


def _data_files(meta: dict) -> Iterator[str]:
    """Paths and patterns by which a card's `configs` name rows; what is written otherwise, the Hub reads."""
    configs = meta.get("configs")
    for config in configs if isinstance(configs, list) else ():
        files = config.get("data_files") if isinstance(config, dict) and "data_dir" not in config else ()
        for entry in files if isinstance(files, list) else [files]:
            paths = entry.get("path") if isinstance(entry, dict) else entry
            yield from (path for path in (paths if isinstance(paths, list) else [paths]) if isinstance(path, str))


def _sends(folder: Folder, path: str) -> bool:
    return any(fnmatchcase(name, path) or name.startswith(f"{path.rstrip('/')}/") for name in folder.files)


def base_to_publish(folder: Folder, base_model: str | None) -> Path | None:
    """The base model in an adapter's folder, which has to be published with it; None where a Hub id names the base.

    Args:
        base_model: Hub id that is to be named in place of what the folder names.

    Raises:
        UserError: The base is another folder of this machine, or `base_model` is no Hub id or given for no adapter.
    """
    adapter = "adapter_config.json" in folder.files
    if base_model is not None:
        check_repo_id(base_model, "base_model")
        if not adapter:
            raise UserError(f"base_model is for adapters; {str(folder.path)!r} holds a whole {folder.kind}.")
        return None
    local = [name for name in _named(folder).values() if _is_local(name)]
    if not adapter or not local:
        return None
    own = folder.path / "base"
    if folder.kind == "adapter" and all(_is_own(Path(name), own) for name in local):
        return own
    raise UserError(
        f"The base model of {str(folder.path)!r} is a folder of this machine, {local[0]!r}, which nobody else can "
        "load; name the same model on the Hub with --base_model USER/NAME, or make both one with "
        "recipes/merge_adapter.py and push that."
    )


def renamed(folder: Folder, repo_id: str, base: str | None, revision: str | None = None) -> dict[str, bytes]:
    """The files that name the repository itself, or a base, with their content as it is on the Hub.

    Args:
        repo_id: Where the folder goes.
        base: Hub id of the base model, where the folder names another or none.
        revision: The base's commit.

    Raises:
        UserError: A config or the card's front matter can't be read.
    """
    configs = {name: read_json(folder.path / name) for name in _CONFIGS if name in folder.files}
    public = {name: public_config(content) for name, content in configs.items()}
    if base is not None:
        for name in _named(folder):
            public[name][_BASES[name]] = base
        public["adapter_config.json"]["revision"] = revision
    changed = {name: content for name, content in public.items() if content != configs[name]}
    sent = {name: json.dumps(content, indent=2, sort_keys=True).encode() + b"\n" for name, content in changed.items()}
    return {README: _card(folder, repo_id, base).encode(), **sent}


def base_card(folder: Folder, repo_id: str) -> bytes:
    """README.md of the base model that is published with an adapter."""
    license = _front_matter(folder)[0].get("license", "unknown")
    meta = {"library_name": "transformers", "license": license, "tags": [*PAPER_TAGS]}
    return render("base_card.md", meta=front_matter(meta), adapter=repo_id).encode()


def _named(folder: Folder) -> dict[str, str]:
    """The base model that each config names."""
    files = _BASES.keys() & folder.files.keys()
    named = {file: read_json(folder.path / file).get(_BASES[file]) for file in sorted(files)}
    return {file: str(name) for file, name in named.items() if name}


def _is_local(name: str) -> bool:
    if is_local(name):
        return True
    try:
        validate_repo_id(name)
    except HFValidationError:
        return True
    return False


def _is_own(named: Path, own: Path) -> bool:
    """Whether a path names `own`, or did before the folder was moved."""
    kept = (own / "config.json").is_file() and not own.is_symlink()
    return kept and (named.resolve() == own.resolve() or (named.name == own.name and not named.exists()))


def _card(folder: Folder, repo_id: str, base: str | None) -> str:
    meta, front, text = _front_matter(folder)
    if base is not None:
        front = front_matter(meta | {"base_model": base, "base_model_relation": "adapter"}) + "\n"
    return front + _PLACEHOLDER.sub(repo_id, text)


def _front_matter(folder: Folder) -> tuple[dict, str, str]:
    """What the card's YAML says, the YAML between its lines of dashes, and the text below."""
    content = folder.files[README].content
    try:
        text = (content if isinstance(content, bytes) else content.read_bytes()).decode("utf-8")
        found = re.match(r"---\r?\n(.*?\n)?---\r?\n", text, re.DOTALL)
        meta = yaml.safe_load(found[1] or "") if found else None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(
            f"The card {str(folder.path / README)!r} can't be read; it must be UTF-8, and its front matter YAML."
        ) from error
    front = found[0] if found else ""
    return meta if isinstance(meta, dict) else {}, front, text[len(front) :]
