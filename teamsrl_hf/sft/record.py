"""The record of a fine-tuning: in go the trainer and its rows, out comes what an audit later checks claims against."""

from typing import Any

from datasets import Dataset

from ..publish.lineage import RowSet, identity, read_lineage, versions, weights_digest
from .card import dataset_sources


def training_record(
    trainer: Any, texts: Dataset, learned: RowSet, script_args: Any, model_args: Any
) -> dict[str, Any]:
    """The content of the model's lineage.json.

    Args:
        trainer: The trainer, after training and saving.
        texts: The rows it was trained on.
        learned: These rows and, if they are known, those that its base was trained on.
        script_args: Attributes `dataset_name`, `datasets`, `dataset_train_split`.
        model_args: TRL's `ModelConfig`.
    """
    args, state = trainer.args, trainer.state
    last = state.best_global_step if args.load_best_model_at_end else None
    sources = dataset_sources(script_args)
    records = {name: read_lineage(name, "dataset") or read_lineage(name, "split") or {} for name in sources}
    return {
        "weights": weights_digest(args.output_dir),
        "base": identity(model_args.model_name_or_path, model_args.model_revision),
        "trained_on": learned.to_json(),
        "rows": len(texts),
        "fingerprint": RowSet.of(texts).fingerprint,
        "passes": state.epoch * (state.global_step if last is None else last) / state.global_step,
        "max_length": args.max_length,
        "datasets": [{"name": name, "seeds": record.get("seeds")} for name, record in records.items()],
        "split": script_args.dataset_train_split,
        "versions": versions(),
    }
