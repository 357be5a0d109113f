"""Audit a fine-tuned model's privacy: can rows it was trained on be told from rows it was not?

    python recipes/audit.py --make_split true --dataset_name outputs/dataset --output_dir outputs/split
    python recipes/sft.py --config recipes/quickstart/sft.yaml --dataset_name outputs/split --output_dir outputs/model
    python recipes/audit.py --model outputs/model --dataset_name outputs/split --output_dir outputs/audit

The first parts a dataset into halves of one distribution: `train`, the members, to fine-tune on, and `test`, which the
model must not see. The last writes audit.json and roc.png, and a section into the model's card. A split that words and
lengths alone betray is refused by the first and never claimed upon by the last.
"""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from teamsrl_hf.arguments import guarded, parse, run_arguments
from teamsrl_hf.errors import UserError
from teamsrl_hf.runs import finish_run, open_run


@dataclass
class AuditArguments:
    """What is audited, against which rows."""

    dataset_name: str = field(metadata={"help": "Folder or Hub id: rows to part, or a split made here."})
    output_dir: str = field(metadata={"help": "Folder for the split, or for audit.json and roc.png."})
    make_split: bool = field(default=False, metadata={"help": "Part the dataset into members and non-members; stop."})
    model: str | None = field(default=None, metadata={"help": "Folder or Hub id of the fine-tuned model or adapter."})
    reference_model: str | None = field(
        default=None, metadata={"help": "Its base; known for an adapter, and for a model with a folder `base`."}
    )
    dataset_config: str | None = field(default=None, metadata={"help": "Configuration of the dataset."})
    member_split: str = field(default="train", metadata={"help": "Split the model was trained on."})
    non_member_split: str = field(default="test", metadata={"help": "Split it was not trained on."})
    group_column: str = field(
        default="seed_id", metadata={"help": "Column whose equal values stay together, where there is one."}
    )
    max_rows: int | None = field(default=None, metadata={"help": "Look at so many rows of each side at most."})
    max_length: int = field(default=1024, metadata={"help": "Tokens of a row that are looked at; as in training."})
    batch_size: int = field(default=8, metadata={"help": "Rows scored at once."})
    dtype: str = field(default="float32", metadata={"help": "Precision to load the model in."})
    device: str = field(default="cpu", metadata={"help": "Where to run it, such as cuda."})
    update_card: bool = field(default=True, metadata={"help": "Write the section into the model folder's README.md."})
    seed: int = field(default=42, metadata={"help": "Seed of the split and of the resampling."})

    def __post_init__(self):
        if self.make_split == bool(self.model):
            raise UserError("Give either --model FOLDER_OR_HUB_ID to audit, or --make_split true to part a dataset.")


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Make the split, or audit the model. Returns what was found."""
    (args,) = parse((AuditArguments,), argv)
    done = open_run(args.output_dir, run_arguments(args, without=("output_dir", "device", "batch_size")))
    if done is not None:
        print(f"{args.output_dir} is already complete.")
        return done
    found = make_split(args) if args.make_split else audit_model(args)
    finish_run(args.output_dir, found)
    return found


def load_splits(args: AuditArguments) -> Any:
    """The dataset's splits."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    from teamsrl_hf.paths import folder_cache
    from teamsrl_hf.sft import first_line

    name = args.dataset_name
    try:
        cache_dir = folder_cache(name) if Path(name).is_dir() else None
        return load_dataset(name, args.dataset_config, cache_dir=cache_dir)
    except (OSError, ValueError, DatasetsError) as error:
        raise UserError(f"Can't load dataset {name!r} (a folder or a Hub id): {first_line(error)}") from error


def groups_of(rows, column: str) -> list[Any]:
    """What each row belongs to; without the column, to its prompt."""
    if column in rows.column_names:
        return rows[column]
    return [json.dumps(prompt) for prompt in rows["prompt"]]


def make_split(args: AuditArguments) -> dict[str, Any]:
    """Part all rows of the dataset, check the halves and write them."""
    from datasets import concatenate_datasets

    from teamsrl_hf.privacy import blind_check, split_members
    from teamsrl_hf.sft import check_sft_dataset

    rows = concatenate_datasets(list(load_splits(args).values()))
    check_sft_dataset(rows)
    kept = [name for name in ("prompt", "completion", args.group_column) if name in rows.column_names]
    rows = rows.select_columns(kept)
    groups = groups_of(rows, args.group_column)
    parts = split_members(groups, args.seed)
    members, non_members = (rows.select(part) for part in parts)
    sides = tuple([groups[row] for row in part] for part in parts)
    blind = blind_check(list(members), list(non_members), sides, args.seed)
    if blind["p_value"] < 0.05:
        raise UserError(
            f"Words and lengths alone tell the halves apart (AUC {blind['auc']:.2f}, by chance up to "
            f"{blind['by_chance']:.2f}), so an audit on them would mean nothing; "
            "try another --seed, or a dataset of more seeds."
        )
    folder = Path(args.output_dir)
    files = [write_split(part, folder, name) for name, part in (("train", members), ("test", non_members))]
    (folder / "README.md").write_text(split_card(members, non_members, files, blind, args), encoding="utf-8")
    print(
        f"{len(members)} members (train) and {len(non_members)} non-members (test) in {folder}; fine-tune on it now."
    )
    return {"split": str(folder), "members": len(members), "non_members": len(non_members), "blind": blind}


def write_split(rows, folder: Path, split: str) -> dict[str, str]:
    """Write one Parquet file; returns the entry under which the card lists it."""
    from teamsrl_hf.schema import name_by_content

    draft = folder / f".{split}.part"
    rows.to_parquet(draft)
    return {"split": split, "path": name_by_content(draft, split).name}


def split_card(members, non_members, files: list[dict], blind: dict[str, Any], args: AuditArguments) -> str:
    """The card that makes `load_dataset` find both splits."""
    from teamsrl_hf.cards import front_matter

    return f"""{front_matter({"configs": [{"config_name": "default", "data_files": files}]})}

# Members and non-members for a privacy audit

{len(members)} rows to fine-tune on (`train`) and {len(non_members)} that the model must not see (`test`), parted
at random by `{args.group_column}` with seed {args.seed}. A classifier on words and lengths tells them apart with an
AUC of {blind["auc"]:.3f} (.5 is none; by chance up to {blind["by_chance"]:.3f}).
"""


def audit_model(args: AuditArguments) -> dict[str, Any]:
    """Score both splits, say what that shows, write audit.json, the plot and the card's section."""
    from teamsrl_hf.finetuned import load_finetuned
    from teamsrl_hf.privacy import attack, audit_section, blind_check, report, roc_plot, write_section

    rows, groups = member_rows(args)
    model, tokenizer, reference = load_finetuned(args.model, args.reference_model, args.dtype, args.device)
    options = {"batch_size": args.batch_size, "max_length": args.max_length}
    pairs = attack(model, tokenizer, *rows, reference=reference, **options)
    found = report(pairs, blind_check(*rows, groups, args.seed), groups, args.seed)
    out = Path(args.output_dir)
    plot = out / "roc.png"
    try:
        roc_plot(pairs, plot)
    except ImportError as error:
        print(f"no plot: {error}", file=sys.stderr)
    (out / "audit.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    section = audit_section(found, plot.name if plot.exists() else None)
    (out / "README.md").write_text(section + "\n", encoding="utf-8")
    if args.update_card and Path(args.model).is_dir():
        if plot.exists():
            (Path(args.model) / plot.name).write_bytes(plot.read_bytes())
        write_section(Path(args.model) / "README.md", section)
    print(section.partition("\n\n")[2].rpartition("\n")[0])
    if not found["split_ok"]:
        print(f"warning: {found['conclusion']}", file=sys.stderr)
    return found


def member_rows(args: AuditArguments) -> tuple[list[list[dict]], tuple[list[Any], list[Any]]]:
    """Rows of both sides, and what they belong to."""
    from teamsrl_hf.sft import check_sft_dataset

    splits = load_splits(args)
    missing = [name for name in (args.member_split, args.non_member_split) if name not in splits]
    if missing:
        raise UserError(
            f"Dataset {args.dataset_name!r} has no split {missing[0]!r}, only {', '.join(splits)}; "
            "make members and non-members with --make_split true, fine-tune on them, then audit."
        )
    rows, groups = [], []
    for name in (args.member_split, args.non_member_split):
        side = (
            splits[name].shuffle(args.seed).select(range(min(len(splits[name]), args.max_rows or len(splits[name]))))
        )
        groups.append(groups_of(side, args.group_column))
        rows.append(list(check_sft_dataset(side)))
    return rows, tuple(groups)


if __name__ == "__main__":
    sys.exit(guarded(main))
