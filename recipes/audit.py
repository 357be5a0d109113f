"""Audit a fine-tuned model's privacy: do attacks separate the rows it was trained on from other rows?

    python recipes/audit.py --make_split true --dataset_name outputs/dataset --output_dir outputs/split
    python recipes/sft.py --config recipes/quickstart/sft.yaml --dataset_name outputs/split --output_dir outputs/model
    python recipes/audit.py --model outputs/model --dataset_name outputs/split --output_dir outputs/audit

The first command splits a dataset into halves of one distribution: `train`, the members, to fine-tune on, and `test`,
which the model must not see. It refuses a split whose halves words and lengths alone can separate. The last command
writes audit.json, roc.png and a section of the model's card. It refuses splits that contradict the record of the
fine-tuning, and draws no conclusion if words and lengths separate them.
"""

import json
import random
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from teamsrl_hf.commands.arguments import DTYPES, guarded, parse, run_arguments
from teamsrl_hf.commands.signals import leave
from teamsrl_hf.errors import UserError, check_number
from teamsrl_hf.runs import NOT_ROWS, finish_run, hold, open_run


@dataclass
class AuditArguments:
    """The model to audit, and the rows."""

    dataset_name: str = field(metadata={"help": "Folder or Hub id: rows to split, or a split of this command."})
    output_dir: str = field(metadata={"help": "Folder for the split, or for audit.json and roc.png."})
    make_split: bool = field(default=False, metadata={"help": "Only split the dataset into members and non-members."})
    model: str | None = field(default=None, metadata={"help": "Folder or Hub id of the fine-tuned model or adapter."})
    reference_model: str | None = field(
        default=None, metadata={"help": "Its base; known for an adapter, and for a model with a folder `base`."}
    )
    dataset_config: str | None = field(default=None, metadata={"help": "Configuration of the dataset."})
    member_split: str = field(default="train", metadata={"help": "Split the model was trained on."})
    non_member_split: str = field(default="test", metadata={"help": "Split it was not trained on."})
    group_column: str = field(
        default="seed_id", metadata={"help": "Column whose equal values stay on one side, if it exists."}
    )
    max_rows: int | None = field(default=None, metadata={"help": "Most rows of each side to score."})
    max_length: int | None = field(
        default=None, metadata={"help": "Tokens of a row to score; left out: as in training, if recorded."}
    )
    trust_split: bool = field(
        default=False,
        metadata={"help": "Without a record of the training, believe the splits."},
    )
    batch_size: int = field(default=8, metadata={"help": "Rows scored at once."})
    dtype: str = field(default="float32", metadata={"help": "Precision to load the model in.", "choices": DTYPES})
    device: str = field(default="cpu", metadata={"help": "Where to run it, such as cuda."})
    update_card: bool = field(default=True, metadata={"help": "Write the section into the model folder's README.md."})
    seed: int = field(default=42, metadata={"help": "Seed of the split and of the resampling."})

    def __post_init__(self):
        for name in ("max_length", "batch_size", "max_rows"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), 1)
        check_number("seed", self.seed, 0, 2**32 - 1)
        if self.make_split == bool(self.model):
            raise UserError("Give either --model FOLDER_OR_HUB_ID to audit, or --make_split true to part a dataset.")


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Make the split, or audit the model. Returns the findings."""
    (args,) = parse((AuditArguments,), argv, "teamsrl audit", __doc__)  # Before the imports, for a quick --help.
    from teamsrl_hf.publish.lineage import RowSet, weights_digest

    splits = load_splits(args)
    settings = run_arguments(args, without=("output_dir", "device", "batch_size"))
    settings["rows"] = {name: RowSet.of(split).fingerprint for name, split in splits.items()}
    if not args.make_split:
        known = check_claims(args, splits)
        settings["weights"] = weights_digest(args.model)
    with hold(args.output_dir):
        done = open_run(args.output_dir, settings)
        if done is not None:
            print(f"{args.output_dir} is already complete.")
            return done
        found = make_split(args, splits) if args.make_split else audit_model(args, splits, known)
        finish_run(args.output_dir, found)
        return found


def load_splits(args: AuditArguments) -> dict[str, Any]:
    """The checked splits: `prompt`, `completion` and, if it exists, the group's column."""
    from teamsrl_hf.sft.data import load_source

    name = args.dataset_name
    found = load_source(name, args.dataset_config)
    wanted = list(found) if args.make_split else [args.member_split, args.non_member_split]
    if missing := [split for split in wanted if split not in found]:
        raise UserError(
            f"Dataset {name!r} has no split {missing[0]!r}, only {', '.join(found)}; "
            "make members and non-members with --make_split true, fine-tune on them, then audit."
        )
    return {split: checked(found[split], args.group_column) for split in wanted}


def checked(rows, column: str) -> Any:
    """The prompt, completion and group columns of rows that are fit for fine-tuning."""
    from datasets import concatenate_datasets

    from teamsrl_hf.sft.data import check_sft_dataset

    texts = check_sft_dataset(rows)
    if column not in rows.features or column in texts.features:
        return texts
    return concatenate_datasets([texts, rows.select_columns([column])], axis=1)


def groups_of(rows, column: str) -> list[Any]:
    """The group of each row: rows that share a seed are in one group, and so are rows that share a prompt."""
    from teamsrl_hf.publish.lineage import prompt_key

    prompts = [prompt_key(row) for row in rows.select_columns(["prompt"])]
    seeds = rows[column] if column in rows.column_names and column != "prompt" else prompts
    leaders: dict[tuple[str, Any], tuple[str, Any]] = {}

    def leader(node: tuple[str, Any]) -> tuple[str, Any]:
        while leaders.setdefault(node, node) != node:
            leaders[node] = node = leaders[leaders[node]]
        return node

    seeds = [json.dumps(seed) if isinstance(seed, list | dict) else seed for seed in seeds]
    for seed, prompt in zip(seeds, prompts):
        leaders[leader(("prompt", prompt))] = leader(("seed", seed))
    return [leader(("seed", seed))[1] for seed in seeds]


def make_split(args: AuditArguments, splits) -> dict[str, Any]:
    """Split all rows of the dataset, check the halves and write them."""
    from datasets import concatenate_datasets

    from teamsrl_hf.evaluation.privacy.split import blind_check, split_members
    from teamsrl_hf.publish.lineage import RowSet, read_lineage, write_lineage

    rows = concatenate_datasets(list(splits.values()))
    groups = groups_of(rows, args.group_column)
    parts = split_members(groups, args.seed)
    members, non_members = (rows.select(part) for part in parts)
    sides = tuple([groups[row] for row in part] for part in parts)
    blind = blind_check(list(members), list(non_members), sides, args.seed)
    if blind["p_value"] < 0.05:
        raise UserError(
            f"Words and lengths alone separate the halves (AUC {blind['auc']:.2f}, by chance up to "
            f"{blind['by_chance']:.2f}), so an audit on them would mean nothing; "
            "try another --seed, or a dataset of more seeds."
        )
    folder = Path(args.output_dir)
    files = [write_split(part, folder, name) for name, part in (("train", members), ("test", non_members))]
    (folder / "README.md").write_text(split_card(members, non_members, files, blind, args), encoding="utf-8")
    (folder / NOT_ROWS).unlink(missing_ok=True)
    parent = {"name": args.dataset_name, "config": args.dataset_config, "fingerprint": RowSet.of(rows).fingerprint}
    seeds = (read_lineage(args.dataset_name, "dataset") or {}).get("seeds")
    rule = {"group_column": args.group_column, "seed": args.seed}
    write_lineage(folder, "split", {"parent": parent, "seeds": seeds, "rule": rule})
    print(
        f"{len(members)} members (train) and {len(non_members)} non-members (test) in {folder}; fine-tune on it now."
    )
    return {"split": str(folder), "members": len(members), "non_members": len(non_members), "blind": blind}


def write_split(rows, folder: Path, split: str) -> dict[str, str]:
    """Write one Parquet file; returns the entry under which the card lists it."""
    from teamsrl_hf.publish.dataset_writer import name_by_content

    draft = folder / f".{split}.part"
    rows.to_parquet(draft)
    return {"split": split, "path": name_by_content(draft, split).name}


def split_card(members, non_members, files: list[dict], blind: dict[str, Any], args: AuditArguments) -> str:
    """The card that makes `load_dataset` find both splits."""
    from teamsrl_hf.public import public_name
    from teamsrl_hf.publish.cards import front_matter, inline_code, license_of, tags_of

    parent = inline_code(public_name(args.dataset_name))
    meta = {
        "license": license_of(args.dataset_name, "dataset"),
        **({"tags": tags} if (tags := tags_of(args.dataset_name, "dataset")) else {}),
        "configs": [{"config_name": "default", "data_files": files}],
    }
    return f"""{front_matter(meta)}

# Members and non-members for a privacy audit

{len(members)} rows to fine-tune on (`train`) and {len(non_members)} that the model must not see (`test`), all rows of
{parent}, parted at random by `{args.group_column}` with seed {args.seed}: rows of one group or of one prompt
stay together. A classifier on words and lengths separates them with an
AUC of {blind["auc"]:.3f} (.5 is none; by chance up to {blind["by_chance"]:.3f}).
"""


def check_claims(args: AuditArguments, splits) -> dict[str, Any] | None:
    """The record of the model's training, checked against the splits; None without one if the user trusts them."""
    from teamsrl_hf.publish.lineage import prompt_key, row_key, weights_digest
    from teamsrl_hf.sft.load import recorded_training

    if weights_digest(args.model) is None:
        raise UserError(f"{args.model!r} holds no weights (*.safetensors); give the folder or Hub id of a model.")
    model, known = repr(args.model), recorded_training(args.model, args.reference_model)
    trust = "pass --trust_split true, and the card will say that the splits are your word"
    if known is None and not args.trust_split:
        raise UserError(
            f"Nothing recorded says which rows {model} was trained on; audit the folder that the fine-tuning "
            f"wrote, or {trust}."
        )
    if known is None:
        return None
    members, others = splits[args.member_split], splits[args.non_member_split]
    trained = known["trained_on"]
    if seen := sum(prompt_key(row) in trained.prompts for row in others):
        raise UserError(
            f"{model} was trained on {seen} of the {len(others)} rows of split {args.non_member_split!r}, or on "
            "others with their prompts; make the split first (--make_split true), fine-tune on it, then audit on it."
        )
    if unseen := sum(row_key(row) not in trained.rows for row in members):
        raise UserError(
            f"{model} was not trained on {unseen} of the {len(members)} rows of split {args.member_split!r}; "
            "audit on the split that it was fine-tuned on, without rows that were held out or too long."
        )
    if known["passes"] < 1 and not args.trust_split:
        raise UserError(
            f"{model} was trained for {known['passes']:.2f} of a pass over its rows, so which of them it saw is "
            f"not known; train it for a whole pass, or {trust}."
        )
    return known


def looked_at(args: AuditArguments, known: dict[str, Any] | None) -> int | None:
    """Tokens of a row to score: as many as in training."""
    if known is None:
        return 1024 if args.max_length is None else args.max_length
    if args.max_length not in (None, known["max_length"]):
        raise UserError(
            f"max_length is {args.max_length}, but the model was trained with {known['max_length']}; leave it out."
        )
    return known["max_length"]


def audit_model(args: AuditArguments, splits, known: dict[str, Any] | None) -> dict[str, Any]:
    """Score both splits, draw a conclusion, write audit.json, the plot and the card's section."""
    from teamsrl_hf.evaluation.privacy.report import audit_section, report, roc_plot
    from teamsrl_hf.evaluation.privacy.scores import attack
    from teamsrl_hf.evaluation.privacy.split import blind_check
    from teamsrl_hf.publish.card_sections import write_section
    from teamsrl_hf.publish.cards import front_matter, license_of
    from teamsrl_hf.publish.lineage import weights_digest
    from teamsrl_hf.sft.load import load_finetuned

    rows, groups = member_rows(args, splits)
    model, tokenizer, reference = load_finetuned(args.model, args.reference_model, args.dtype, args.device)
    options = {"batch_size": args.batch_size, "max_length": looked_at(args, known)}
    pairs = attack(model, tokenizer, *rows, reference=reference, **options)
    found = report(pairs, blind_check(*rows, groups, args.seed), groups, args.seed)
    sure = known is not None and known["passes"] >= 1
    found |= {"membership": "recorded" if sure else "unknown", "weights": weights_digest(args.model)}
    out = Path(args.output_dir)
    plot = out / "roc.png"
    try:
        roc_plot(pairs, plot)
    except ImportError as error:
        print(f"no plot: {error}", file=sys.stderr)
    (out / "audit.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    section = audit_section(found, plot.name if plot.exists() else None)
    front = front_matter({"license": license_of(args.model, "model")})
    (out / "README.md").write_text(f"{front}\n\n{section}\n", encoding="utf-8")
    if args.update_card and Path(args.model).is_dir():
        if plot.exists():
            (Path(args.model) / plot.name).write_bytes(plot.read_bytes())
        write_section(Path(args.model) / "README.md", "privacy audit", section, found["weights"])
    print(section.partition("\n\n")[2])
    if not found["split_ok"]:
        print(f"warning: {found['conclusion']}", file=sys.stderr)
    return found


def member_rows(args: AuditArguments, splits) -> tuple[list[list[dict]], tuple[list[Any], list[Any]]]:
    """The rows of both sides to score, and their groups.

    They keep their order: the result of the blind check depends on it, and must equal that of the split.
    """
    rows, groups = [], []
    for name in (args.member_split, args.non_member_split):
        count = len(splits[name]) if args.max_rows is None else min(len(splits[name]), args.max_rows)
        side = splits[name].select(sorted(random.Random(args.seed).sample(range(len(splits[name])), count)))
        groups.append(groups_of(side, args.group_column))
        rows.append(list(side.select_columns(["prompt", "completion"])))
    return rows, tuple(groups)


if __name__ == "__main__":
    sys.exit(leave(guarded(main)))
