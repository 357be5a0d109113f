"""Merge a LoRA adapter into its base model: one folder that loads without PEFT, serves anywhere and can be pushed.

    python recipes/merge_adapter.py --adapter outputs/model --output_dir outputs/merged --dtype bfloat16

The base is loaded in full precision, even if the adapter was trained on 4-bit weights, since merging into those loses
too much.
"""

import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from teamsrl_hf.commands.arguments import DTYPES, guarded, parse
from teamsrl_hf.commands.signals import leave
from teamsrl_hf.errors import UserError
from teamsrl_hf.runs import contents, hold, staged


@dataclass
class MergeArguments:
    """The adapter, and the folder of the merged model."""

    adapter: str = field(metadata={"help": "Folder that the fine-tuning wrote."})
    output_dir: str = field(metadata={"help": "Folder for the merged model; a new one."})
    dtype: str = field(
        default="float32",
        metadata={"help": "Precision of the merged model.", "choices": DTYPES},
    )


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Merge, and write model, tokenizer and card."""
    (args,) = parse((MergeArguments,), argv, "python recipes/merge_adapter.py", __doc__)
    from teamsrl_hf.publish.lineage import weights_digest, write_lineage
    from teamsrl_hf.sft.card import merged_card
    from teamsrl_hf.sft.load import recorded_training
    from teamsrl_hf.sft.merge import merge_adapter

    with hold(args.output_dir):
        if contents(args.output_dir):
            raise UserError(f"The output folder {args.output_dir} is not empty; give a new one.")
        known = recorded_training(args.adapter)
        with staged(args.output_dir) as folder:
            merge_adapter(args.adapter, folder, args.dtype)
            card = merged_card(args.adapter, args.dtype)
            (folder / "README.md").write_text(card, encoding="utf-8")
            for picture in Path(args.adapter).glob("*.png"):
                if f"({picture.name})" in card:
                    shutil.copy(picture, folder)
            if known:
                adapter, merged = known["weights"], weights_digest(folder)
                known |= {"trained_on": known["trained_on"].to_json(), "weights": merged, "merged_from": adapter}
                write_lineage(folder, "model", known)
    print(f"The merged model is in {args.output_dir}.")
    return {"model": str(args.output_dir)}


if __name__ == "__main__":
    sys.exit(leave(guarded(main)))
