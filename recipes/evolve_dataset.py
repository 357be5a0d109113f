"""Evolve seeds into an instruction dataset, as a folder ready for the Hub.

    python recipes/evolve_dataset.py --config recipes/quickstart/evolve_dataset.yaml --policy outputs/policy \\
        --output_dir outputs/dataset

Stopped or killed, the same command goes on where it was: every answer is in the ledger and is not asked for again.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from teamsrl_hf.arguments import OperationArguments, SeedArguments, guarded, parse, run_arguments, seeds_digest
from teamsrl_hf.evolver import DatasetEvolver, EvolverConfig
from teamsrl_hf.models import make_generator
from teamsrl_hf.runs import finish_run, open_run


@dataclass
class EvolveArguments:
    """Which models and which chooser evolve the seeds, and where the dataset goes."""

    output_dir: str = field(metadata={"help": "Folder of the dataset."})
    chooser: str = field(
        default="policy", metadata={"help": "What picks operations: policy, thompson, linucb, uniform or paper."}
    )
    policy: str | None = field(
        default=None, metadata={"help": "Folder or Hub id of the policy, or folder of the bandit."}
    )
    expert: str = field(default="rulebook", metadata={"help": "Model that carries out operations and answers."})
    reviewer: str = field(default="rulebook", metadata={"help": "Model that says whether a rewrite gained anything."})
    ledger: str | None = field(
        default=None, metadata={"help": "SQLite record of all calls; in the output folder if left out."}
    )
    license: str = field(default="unknown", metadata={"help": "Licence of the dataset, for its card."})
    language: str = field(default="en", metadata={"help": "Language of the dataset, for its card."})


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Evolve and write the folder. Returns row counts, rejections by reason and calls."""
    types = (SeedArguments, OperationArguments, EvolveArguments, EvolverConfig)
    seed_args, operation_args, script_args, evolver_args = parse(types, argv)
    train, test = seed_args.load()
    chooser, operations = pick_chooser(script_args, operation_args)
    models = make_generator(script_args.expert), make_generator(script_args.reviewer)
    arguments = run_arguments(
        seed_args, operation_args, script_args, evolver_args, without=("seeds", "ledger", "output_dir", "concurrency")
    )
    done = open_run(script_args.output_dir, {"seeds": seeds_digest([*train, *test]), **arguments})
    if done is not None:
        print(f"{script_args.output_dir} is already complete.")
        return done
    summary = evolve(train, test, models, chooser, operations, script_args, evolver_args)
    finish_run(script_args.output_dir, summary)
    return summary


def pick_chooser(script_args: EvolveArguments, operation_args: OperationArguments):
    """The chooser and its operations; ValueError when the arguments do not name one."""
    from teamsrl_hf.baselines import CHOOSERS, load_chooser

    name, folder, operations = script_args.chooser, script_args.policy, operation_args.select()
    if name not in ("policy", *CHOOSERS):
        raise ValueError(f"Unknown chooser {name!r}; use policy, {', '.join(CHOOSERS)}.")
    if name in ("uniform", "paper"):
        return CHOOSERS[name](operations), operations
    if not folder:
        raise ValueError(f"The chooser {name!r} needs --policy FOLDER_OR_HUB_ID; or use --chooser uniform.")
    if name != "policy":
        chooser = load_chooser(folder, operations)
        # Greedy Thompson would take one operation for ever; greedy LinUCB looks at each state.
        chooser.explore = name == "thompson"
        return chooser, operations
    from teamsrl_hf.policy import check_policy_operations, load_policy

    policy = load_policy(folder)
    if operation_args.operations or operation_args.own_operations:
        check_policy_operations(policy, operations)
    return policy.choose, policy.config.operation_tuple()


def evolve(train, test, models, chooser, operations, script_args, evolver_args) -> dict[str, Any]:
    """The stages: chains, folder."""
    from tqdm import tqdm

    from teamsrl_hf.cards import dataset_card, dataset_statistics
    from teamsrl_hf.ledger import Ledger
    from teamsrl_hf.schema import write_folder

    test_seeds = frozenset(seed.id for seed in test)
    with Ledger(script_args.ledger or Path(script_args.output_dir) / "ledger.sqlite") as ledger:
        evolver = DatasetEvolver(
            expert=ledger.record(models[0]),
            reviewer=ledger.record(models[1]),
            chooser=chooser,
            operations=operations,
            args=evolver_args,
        )
        chains = tqdm(evolver.evolve([*train, *test]), total=len(train) + len(test), desc="Evolving", unit="seed")
        results = [result for chain in chains for result in chain]
        statistics = dataset_statistics(results)
        write_folder(
            script_args.output_dir,
            results,
            test_seeds,
            lambda configs: dataset_card(results, statistics, configs, operations, script_args, evolver_args),
        )
    return {"dataset": str(script_args.output_dir), **statistics}


if __name__ == "__main__":
    sys.exit(guarded(main))
