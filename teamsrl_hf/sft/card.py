"""The card of a fine-tuned model: in go a run's summary, arguments and losses, out come Markdown and a plot.

Folders of this machine are named by their last part, and never in the YAML front matter.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..hub.arguments import HUB_ARGUMENTS
from ..public import is_local, public_model, public_name
from ..publish.card_sections import drop_sections
from ..publish.cards import (
    PAPER_TAGS,
    card_of,
    front_matter,
    license_of,
    read_front_matter,
    recipe_text,
    render,
    tags_of,
)
from ..publish.licenses import settle_license
from ..publish.lineage import versions
from ..publish.plots import draw_curves
from ..runs import read_run

PLOT = "loss.png"
# Arguments about paths, logging and the Hub, which do not affect the model.
NOT_RECIPE = (
    *HUB_ARGUMENTS,
    *("output_dir", "run_name", "report_to", "disable_tqdm", "resume_from_checkpoint", "model_name_or_path"),
    *("dataset_name", "datasets", "eval_on_start", "trackio_space_id", "project", "logging_steps", "use_cpu"),
    *("gradient_checkpointing", "fsdp", "fsdp_config", "accelerator_config", "deepspeed", "chat_template_path"),
)


def sft_card(
    summary: Mapping[str, Any],
    script_args: Any,
    model_args: Any,
    sft_args: Any,
    history: Sequence[Mapping[str, float]] = (),
    plot: str | None = None,
) -> str:
    """The text of README.md.

    Args:
        summary: What the recipe returns.
        script_args: Attributes `dataset_name`, `datasets`, `tiny_model`.
        model_args: TRL's `ModelConfig`.
        sft_args: TRL's `SFTConfig`.
        history: The trainer's `state.log_history`.
        plot: File name of the loss curve, if it was drawn.
    """
    base, adapter = model_args.model_name_or_path, model_args.use_peft
    sources = dataset_sources(script_args)
    public = {} if is_local(base) else {"base_model": base}
    if public:
        public["base_model_relation"] = "adapter" if adapter else "finetune"
    if online := [source for source in sources if not is_local(source)]:
        public["datasets"] = online
    evolved = all("teamsrl" in tags_of(source, "dataset") for source in sources)
    meta = {
        "license": settled_license(script_args),
        "library_name": "peft" if adapter else "transformers",
        "pipeline_tag": "text-generation",
        **public,
        "tags": ["sft", "trl", *(["lora"] if adapter else []), *(PAPER_TAGS if evolved else PAPER_TAGS[:1])],
    }
    return render(
        "sft_card.md",
        meta=front_matter(meta),
        summary=summary,
        base=public_name(base),
        base_link=_hub_link(base),
        datasets=[
            {"name": public_name(s), "link": _hub_link(s, "datasets/"), "calls": data_calls(s)} for s in sources
        ],
        evolved=evolved,
        tiny=script_args.tiny_model,
        adapter=adapter,
        recipe=recipe_text(script_args, model_args, sft_args, without=NOT_RECIPE),
        batch=sft_args.per_device_train_batch_size * sft_args.gradient_accumulation_steps * sft_args.world_size,
        hardware=_hardware(sft_args),
        curve=loss_curve(history),
        plot=plot,
        versions=versions(),
    )


def rewriter_card(summary: Mapping[str, Any], script_args: Any, model_args: Any, grpo_args: Any) -> str:
    """The card of a model that `recipes/train_rewriter.py` taught to rewrite.

    Args:
        summary: What the recipe returns.
        script_args: Attributes `reviewer` and `license`.
        model_args, grpo_args: TRL's `ModelConfig` and `GRPOConfig`.
    """
    reviewer = public_model(script_args.reviewer)
    return _grpo_card("rewriter_card.md", summary, script_args, model_args, grpo_args, {}, reviewer=reviewer)


def verified_card(summary: Mapping[str, Any], script_args: Any, model_args: Any, grpo_args: Any) -> str:
    """The card of a model that `recipes/grpo.py` taught with verifiers.

    Args:
        summary: What the recipe returns.
        script_args: Attributes `dataset_name` and `license`.
        model_args, grpo_args: TRL's `ModelConfig` and `GRPOConfig`.
    """
    name = script_args.dataset_name
    meta = {} if is_local(name) else {"datasets": [name]}
    about = {"dataset": public_name(name), "dataset_link": _hub_link(name, "datasets/")}
    return _grpo_card("verified_card.md", summary, script_args, model_args, grpo_args, meta, **about)


def _grpo_card(
    template: str,
    summary: Mapping[str, Any],
    script_args: Any,
    model_args: Any,
    grpo_args: Any,
    more: Mapping[str, Any],
    **values: Any,
) -> str:
    base, adapter = model_args.model_name_or_path, model_args.use_peft
    relation = {"base_model": base, "base_model_relation": "adapter" if adapter else "finetune"}
    meta = {
        "license": settle_license(script_args.license, ours=False),
        "library_name": "peft" if adapter else "transformers",
        "pipeline_tag": "text-generation",
        **({} if is_local(base) else relation),
        **more,
        "tags": ["grpo", "trl", *(["lora"] if adapter else []), *PAPER_TAGS],
    }
    return render(
        template,
        meta=front_matter(meta),
        summary=summary,
        base=public_name(base),
        base_link=_hub_link(base),
        adapter=adapter,
        recipe=recipe_text(script_args, model_args, grpo_args, without=NOT_RECIPE),
        versions=versions(),
        **values,
    )


def settled_license(script_args: Any) -> str:
    """The licence given for a model; else that of all its datasets if the base is a random one, else "unknown"."""
    named = {license_of(source, "dataset") for source in dataset_sources(script_args)}
    known = named.pop() if script_args.tiny_model and len(named) == 1 else None
    return settle_license(script_args.license or known, ours=False)


def base_card(script_args: Any) -> str:
    """The card of the tiny base model that a run builds."""
    meta = {"license": settled_license(script_args), "library_name": "transformers", "pipeline_tag": "text-generation"}
    sources = [public_name(source) for source in dataset_sources(script_args)]
    return render("random_base_card.md", meta=front_matter(meta), sources=sources)


def merged_card(adapter_dir: str | Path, dtype: str) -> str:
    """The card of a merged model, from that of its adapter.

    Measurements of the adapter are left out, since the merged weights differ.
    """
    folder = Path(adapter_dir)
    base = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    meta, card = read_front_matter(drop_sections(card_of(str(folder), "model")))
    meta = {"license": "unknown", **meta, "library_name": "transformers"}
    meta["tags"] = [tag for tag in meta.get("tags", []) if tag != "lora"]
    if "base_model_relation" in meta:
        meta["base_model_relation"] = "finetune"
    shown = {"base": public_name(base), "adapter": public_name(str(folder)), "dtype": dtype}
    for other in (r"^# .*?$", r"^```python\n.*?^```\n"):  # The adapter's title, and how it is loaded.
        card = re.sub(other, "", card, count=1, flags=re.MULTILINE | re.DOTALL)
    return render("merged_card.md", meta=front_matter(meta), card=card, **shown)


def dataset_sources(script_args: Any) -> list[str]:
    """Names of the datasets of a run, in the order in which they are mixed."""
    mixture = getattr(script_args, "datasets", None)
    return [str(part.get("path")) for part in mixture] if mixture else [script_args.dataset_name]


def _hub_link(name: str, kind: str = "") -> str | None:
    """The page of a Hub id; None for a folder, and for what is no id and could break out of the link."""
    is_id = re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) and not is_local(name)
    return f"https://huggingface.co/{kind}{name}" if is_id else None


def data_calls(dataset: str) -> dict[str, str]:
    """The model calls of a dataset, by the run in its folder or else by its card; empty if neither has them."""
    folder = Path(dataset)
    if folder.is_dir():
        try:
            summary = (read_run(folder) or {})["summary"]
            counts = {f"{kind} calls": f"{count:,}" for kind, count in summary["calls"].items()}
            return counts | {"expert calls per row": str(summary["expert_calls_per_row"])}
        except (KeyError, TypeError, AttributeError):
            pass  # Downloaded, or from another program; its card may have the counts.
    return calls_of_card(card_of(dataset, "dataset"))


def calls_of_card(card: str) -> dict[str, str]:
    r"""The rows of a dataset card's tables that count calls.

    >>> calls_of_card("| rows | 7 |\n| reviewer calls | 12 |\n| expert calls per row | 1.7 |")
    {'reviewer calls': '12', 'expert calls per row': '1.7'}
    """
    return dict(re.findall(r"^\| ([^|\n]{0,80}\bcalls\b[^|\n]{0,80}) \| ([\d.,+ ]+) \|$", card, re.M))


def loss_curve(history: Sequence[Mapping[str, float]]) -> dict[str, list[tuple[int, float]]]:
    """Steps and losses, of training and of the held-out rows."""
    curve = {
        "training": [(int(entry["step"]), float(entry["loss"])) for entry in history if "loss" in entry],
        "held-out rows": [
            (int(entry["step"]), float(entry["eval_loss"])) for entry in history if "eval_loss" in entry
        ],
    }
    return {name: points for name, points in curve.items() if points}


def draw_losses(history: Sequence[Mapping[str, float]], path: str | Path) -> bool:
    """Draw the loss curve as PNG; returns False without matplotlib (the extra `plots`) or losses."""
    return draw_curves(loss_curve(history), path, "step", "loss (nats per answer token)")


def _hardware(sft_args: Any) -> str:
    """Number of processes, and the device of each."""
    import torch

    on_gpu = sft_args.device.type == "cuda"
    device = torch.cuda.get_device_name(sft_args.device) if on_gpu else sft_args.device.type.upper()
    return f"{sft_args.world_size} × {device}"
