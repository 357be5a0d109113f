"""Evolve seeds into an instruction dataset, as a folder ready for the Hub.

    python recipes/evolve_dataset.py --config recipes/quickstart/evolve_dataset.yaml --policy outputs/policy \\
        --output_dir outputs/dataset

After a stop or a kill, run the same command again: it continues, and buys no recorded answer again. A run stops when
all calls to a model fail, and the next run asks again for what failed. At its end a run prints rows, rejections,
calls, cost and the commonest errors. Exit status: 0 with rows, 2 when an argument can't be used, 3 at the end of a run
without a row, 4 when a budget or refused calls stopped it, 130 after Ctrl-C (129 and 143 after SIGHUP and SIGTERM), 1
for a bug.

Several processes share the seeds, with the same rows as one; they need a file system in common:

    accelerate launch --config_file accelerate_configs/ddp.yaml --num_processes 4 recipes/evolve_dataset.py …

`--dry_run` shows a request of each role, asks it, and forecasts calls, tokens, cost and rows; `--pilot 20` evolves 20
seeds for that, which the run that follows finds in its ledger. Its exit status is 0 if each model answered, else 4.

`--target rows --budget_cost 5` makes the most of a budget: a pilot of 20 seeds decides how many seeds are evolved and
where chains end, says what to expect, and the run follows. With `--pilot 20` it ends after saying so.

From Python: `DatasetEvolver.write`.
"""

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from teamsrl_hf.calls import run_async
from teamsrl_hf.commands.arguments import (
    OperationArguments,
    SeedArguments,
    guarded,
    parse,
    run_arguments,
    seeds_digest,
)
from teamsrl_hf.commands.signals import leave
from teamsrl_hf.environment.calibration import ReviewingArguments
from teamsrl_hf.errors import NothingMade, Stopped, UserError, check_number
from teamsrl_hf.evolve.config import EvolverConfig
from teamsrl_hf.evolve.evolver import DatasetEvolver
from teamsrl_hf.evolve.filters import Filter
from teamsrl_hf.evolve.forecast.allocation import DECIDED, TARGETS, settle
from teamsrl_hf.evolve.forecast.dry_run import dry_run
from teamsrl_hf.evolve.record import CardSettings, RunRecord
from teamsrl_hf.evolve.shards import Team
from teamsrl_hf.evolve.write import Payment, Writing, WrittenDataset
from teamsrl_hf.models.accounting import outcome
from teamsrl_hf.models.budget import Budget, read_prices
from teamsrl_hf.models.factory import check_named, make_generator
from teamsrl_hf.models.ledger import Ledger
from teamsrl_hf.models.specification import Spec, at_pace, identity, impatient
from teamsrl_hf.public import public_model, public_spec
from teamsrl_hf.publish.cards import recipe_text
from teamsrl_hf.publish.counts import RULEBOOK
from teamsrl_hf.publish.licenses import settle_license
from teamsrl_hf.publish.lineage import read_lineage, seeds_facts, versions, weights_digest
from teamsrl_hf.types import Seed

ROLES = ("expert", "reviewer", "instructor")
# These change how long a run takes or how far it gets, but no row: they may differ when a run is continued.
HOW_FAR = ("concurrency", "retry_errors", "prices", "budget_calls", "budget_tokens", "budget_cost", "cancel")
HOW_FAR += ("dry_run", "pilot")
CHOOSERS = ("policy", "uniform", "paper", "thompson", "linucb", "bandit")
WHERE = ("seeds", "ledger", "output_dir", "card_template")


@dataclass
class EvolveArguments:
    """Which models and which chooser evolve the seeds, what it may cost, and where the dataset goes."""

    output_dir: str = field(metadata={"help": "Folder of the dataset."})
    chooser: str = field(
        default="policy",
        metadata={"help": "What picks operations; bandit is thompson or linucb.", "choices": CHOOSERS},
    )
    policy: str | None = field(
        default=None, metadata={"help": "Folder or Hub id of the policy, or folder of the bandit."}
    )
    expert: str | dict | None = field(
        default=None, metadata={"help": "Required: model that carries out operations and answers; paid, as a rule."}
    )
    reviewer: str | dict | None = field(
        default=None, metadata={"help": "Required: model that says whether a rewrite gained anything."}
    )
    instructor: str | dict | None = field(
        default=None, metadata={"help": "Free model that walks the chains of the methods plan, plan_answer, packed."}
    )
    ledger: str | None = field(
        default=None, metadata={"help": "SQLite record of all calls; in the output folder if left out."}
    )
    retry_errors: bool = field(
        default=False, metadata={"help": "Ask again, too, what a model refused for its content."}
    )
    prices: dict | None = field(
        default=None,
        metadata={
            "help": "YAML only: MODEL: {prompt: 1, completion: 4, cached_prompt: 0.1}, per million tokens; flex and "
            "batch, if given, are the shares of it that such calls cost (0.5)."
        },
    )
    budget_calls: int | None = field(
        default=None, metadata={"help": "Most requests to send, repeated ones and those of earlier runs included."}
    )
    budget_tokens: int | None = field(default=None, metadata={"help": "Most tokens to buy, prompts and answers."})
    budget_cost: float | None = field(default=None, metadata={"help": "Most money to spend; needs prices."})
    cancel: bool = field(
        default=False,
        metadata={"help": "Cancel the batches of this run that are under way, keep what they answered, and end."},
    )
    license: str | None = field(
        default=None,
        metadata={
            "help": "Licence of the dataset, as the Hub names it, for its card; left out: apache-2.0 for what rules "
            "make of the built-in seeds, else unknown."
        },
    )
    language: str = field(default="en", metadata={"help": "Language of the dataset, for its card."})
    card_template: str | None = field(
        default=None, metadata={"help": "Jinja file for the card, in place of model_cards/dataset_card.md."}
    )

    dry_run: bool = field(
        default=False, metadata={"help": "Ask each model one question and forecast calls, tokens, cost and rows."}
    )
    pilot: int | None = field(
        default=None, metadata={"help": "Dry run that evolves so many seeds for its forecast; the run reuses them."}
    )

    target: str | None = field(
        default=None,
        metadata={
            "help": "Make the most of the budget: of rows, of verified rows, or of seeds with a row (diversity). A "
            "pilot decides how many seeds are evolved and where chains end.",
            "choices": tuple(TARGETS),
        },
    )

    def __post_init__(self) -> None:
        _ = self.budget  # An error in it has to show before the folder is claimed.
        if self.target and self.budget == Budget():
            raise UserError("A target needs a budget; give budget_calls, budget_tokens, or budget_cost and prices.")
        if self.pilot is not None:
            check_number("pilot", self.pilot, 2, whole=True)

    @property
    def budget(self) -> Budget:
        return Budget(self.budget_calls, self.budget_tokens, self.budget_cost)

    @property
    def specs(self) -> dict[str, str | dict]:
        """Specification of each model in use, by role."""
        given = {"expert": self.expert, "reviewer": self.reviewer, "instructor": self.instructor}
        return {role: spec for role, spec in given.items() if spec}


@dataclass
class FilterArguments:
    """What a row has to pass besides review and near-duplicate removal."""

    min_words: int = field(default=0, metadata={"help": "Fewest words of an instruction."})
    max_words: int | None = field(default=None, metadata={"help": "Most words of an instruction."})
    max_response_words: int | None = field(default=None, metadata={"help": "Most words of an answer."})
    only_languages: list[str] | None = field(
        default=None, metadata={"help": "Codes such as 'en': reject rows in any other language."}
    )
    decontaminate: list[str] | None = field(
        default=None,
        metadata={"help": "Benchmarks that rows must not repeat: ID:CONFIG:SPLIT:COLUMN on the Hub, or FILE:COLUMN."},
    )
    decontaminate_embedding: str | None = field(
        default=None,
        metadata={"help": "Compare meanings too, by 'hashed_words' or a sentence-transformers model."},
    )
    decontaminate_cosine: float = field(default=0.95, metadata={"help": "Cosine from which on meanings are the same."})

    def make(self) -> list[Filter]:
        """The filters.

        Raises:
            UserError: A benchmark can't be read, or a limit can't be used.
        """
        if self == FilterArguments():
            return []
        from teamsrl_hf.evaluation.embeddings import embedder
        from teamsrl_hf.evolve.filters import Decontamination, benchmark_name, language, length_limits, load_benchmark

        benchmarks = {benchmark_name(spec): load_benchmark(spec) for spec in self.decontaminate or ()}
        embed = embedder(self.decontaminate_embedding) if self.decontaminate_embedding else None
        limits = self.min_words, self.max_words, self.max_response_words
        made: list[Filter] = [length_limits(*limits)] if limits != (0, None, None) else []
        made += [language(self.only_languages)] if self.only_languages else []
        if benchmarks:
            made += [Decontamination(benchmarks, embed=embed, threshold=self.decontaminate_cosine)]
        return made


@dataclass(frozen=True)
class Given:
    """All that the user gave."""

    seeds: SeedArguments
    operations: OperationArguments
    script: EvolveArguments
    reviewing: ReviewingArguments
    filters: FilterArguments
    evolver: EvolverConfig
    allocation: dict[str, Any] | None = None  # What a pilot decided, see `allocated`.


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Evolve and write the folder. Returns row counts, rejections by reason and calls.

    Raises:
        Stopped: The budget is spent, or a model refuses all calls; the message says how to continue.
        NothingMade: The run came to its end without a row.
    """
    given = read_arguments(argv)
    train, test = given.seeds.load()
    team = Team.join()
    if given.script.target and not given.script.dry_run and not given.script.cancel:
        given, train = allocated(given, train, test)
        if given.script.pilot:
            return {"allocation": given.allocation}
    evolver = make_evolver(given, team)
    try:
        if given.script.cancel:
            return cancel(evolver, given)
        if given.script.dry_run or given.script.pilot:
            return rehearse(evolver, given, train, test)
        written = write(evolver, given, train, test)
    finally:
        close(evolver)
    if team.first:
        report(written, evolver)
    return dict(written.summary)


def read_arguments(argv: list[str] | None) -> Given:
    """The command line and YAML, with a licence for the card."""
    types = (SeedArguments, OperationArguments, EvolveArguments, ReviewingArguments, FilterArguments, EvolverConfig)
    given = Given(*parse(types, argv, "teamsrl evolve", __doc__))
    rules = all(spec == RULEBOOK for spec in given.script.specs.values())
    given.script.license = settle_license(given.script.license, ours=rules and given.seeds.seeds is None)
    return given


def make_evolver(given: Given, team: Team, asked: Callable[[Spec], Spec] = lambda spec: spec) -> DatasetEvolver:
    """The evolver with its models, chooser and filters; `asked` changes the specifications of its models."""
    chooser, operations = pick_chooser(given.script, given.operations)
    check_named(expert=given.script.expert, reviewer=given.script.reviewer)
    specs = given.script.specs.items()
    pace = given.evolver.concurrency, team.size
    models = {role: make_generator(asked(at_pace(spec, *pace))) for role, spec in specs}
    models["reviewer"] = given.reviewing.apply(models["reviewer"])
    settings = {"chooser": chooser, "operations": operations, "args": given.evolver}
    return DatasetEvolver(**models, **settings, filters=given.filters.make())


def write(evolver: DatasetEvolver, given: Given, train: list[Seed], test: list[Seed]) -> WrittenDataset:
    """Evolve and write the folder; where there is no row, or the run stops, print its counts."""
    script = given.script
    prices = read_prices(script.prices)
    payment = {"retry_errors": script.retry_errors, "prices": prices, "budget": script.budget}
    card = {"license": script.license, "language": script.language, "card_template": script.card_template}
    record = make_record(given, train, test)
    try:
        return evolver.write(train, script.output_dir, test, ledger=script.ledger, record=record, **payment, **card)
    except (Stopped, NothingMade) as ended:
        print("\n".join(getattr(ended, "__notes__", ())), file=sys.stderr)
        if isinstance(ended, NothingMade):
            raise NothingMade(f"{ended}; see above why.", ended.summary) from ended
        raise


def cancel(evolver: DatasetEvolver, given: Given) -> dict[str, Any]:
    """Cancel the batches that the run has left at their providers; their answers go into the ledger."""
    script = given.script
    path = Path(script.ledger or Path(script.output_dir) / "ledger.sqlite")
    if not path.is_file():
        raise UserError(f"There is no ledger at {path}, so there is no batch to cancel; give the run's --output_dir.")
    with Ledger(path, prices=read_prices(script.prices)) as ledger:
        evolver.recorded(ledger)
        batches, answers = run_async(ledger.batches.cancel())
    print(f"batches cancelled: {batches:,}, answers kept: {answers:,}", file=sys.stderr)
    return {"batches": batches, "answers": answers}


def rehearse(evolver: DatasetEvolver, given: Given, train: list[Seed], test: list[Seed]) -> dict[str, Any]:
    """Ask each model one question and print a forecast; returns it."""
    script, folder = given.script, Path(given.script.output_dir)
    card = CardSettings(script.license, script.language, script.card_template)
    writing = Writing(evolver, train, test, folder, payment(given), card, make_record(given, train, test))
    asking = make_evolver(given, Team(), impatient)
    try:
        found = dry_run(writing, script.pilot or 0, asking)
    finally:
        close(asking)
    return {"forecast": found and asdict(found)}


def allocated(given: Given, train: list[Seed], test: list[Seed]) -> tuple[Given, list[Seed]]:
    """What is given, with the settings and seeds that make the most of the budget; see `settle`."""
    evolver, script = make_evolver(given, Team()), given.script
    try:
        found = settle(evolver, train, test, script.output_dir, payment(given), script.target, script.pilot)
    finally:
        close(evolver)
    settings = {name: found.record[name] for name in DECIDED}
    return replace(given, evolver=replace(given.evolver, **settings), allocation=found.record), found.seeds


def payment(given: Given) -> Payment:
    """Where calls are recorded, and what they may cost."""
    script = given.script
    ledger = script.ledger or Path(script.output_dir) / "ledger.sqlite"
    return Payment(ledger, script.retry_errors, read_prices(script.prices), script.budget)


def close(evolver: DatasetEvolver) -> None:
    """Close the connections of its models."""
    for model in (evolver.expert, evolver.reviewer, evolver.instructor):
        if hasattr(model, "close"):
            run_async(model.close())


def report(written: WrittenDataset, evolver: DatasetEvolver) -> None:
    """Print the counts of a finished run."""
    if written.was_complete:
        print(f"{written.folder} is already complete.")
    else:
        names = [operation.name for operation in evolver.operations]
        print(outcome(written.summary["spent"], written.summary, names), file=sys.stderr)


def make_record(given: Given, train: list[Seed], test: list[Seed]) -> RunRecord:
    """What identifies the run, and what lineage.json and the card say about it."""
    script, specs, seeds = given.script, given.script.specs, given.seeds
    everything = seeds, given.operations, script, given.filters, given.evolver
    arguments = run_arguments(*everything, without=(*WHERE, *HOW_FAR, *ROLES))
    arguments |= {"seeds": seeds_digest([*train, *test]), **{role: identity(specs.get(role)) for role in ROLES}}
    arguments |= given.reviewing.arguments
    arguments |= {"allocation": given.allocation} if given.allocation else {}
    origin = {
        "seeds": seeds_facts(seeds.seeds, train, test, seeds.test_size, seeds.left_out),
        **origin_of(specs, script),
        "reviewing": given.reviewing.facts,
        "recipe": recipe(specs, script, seeds, given.operations, given.reviewing, given.filters, given.evolver),
    }
    return RunRecord(arguments, origin)


def origin_of(specs: dict[str, Any], script_args: EvolveArguments) -> dict[str, Any]:
    """Chooser, models and versions, for the record."""
    learned = script_args.policy if script_args.chooser not in ("uniform", "paper") else None
    known = (read_lineage(learned, "policy") or {}) if learned else {}
    chooser = {"name": script_args.chooser, "source": learned, "weights": learned and weights_digest(learned)}
    return {
        "chooser": {**chooser, "seeds": known.get("seeds", {}).get("digest"), "models": known.get("models")},
        "models": {role: public_model(spec) for role, spec in specs.items()},
        "versions": versions(),
    }


def recipe(specs: dict[str, Any], script_args: EvolveArguments, *others: Any) -> str:
    """What makes the dataset again, as YAML."""
    public = replace(script_args, **{role: public_spec(spec) for role, spec in specs.items()})
    return recipe_text(*others, public, without=("ledger", "output_dir", *HOW_FAR))


def pick_chooser(script_args: EvolveArguments, operation_args: OperationArguments):
    """The chooser and its operations; UserError when the arguments do not name one."""
    from teamsrl_hf.environment import choosers as baselines

    name, folder, operations = script_args.chooser, script_args.policy, operation_args.select()
    if name in ("uniform", "paper"):
        return baselines.CHOOSERS[name](operations), operations
    if not folder:
        raise UserError(f"The chooser {name!r} needs --policy FOLDER_OR_HUB_ID; or use --chooser uniform.")
    if name != "policy":
        chooser = baselines.load_chooser(folder, operations)
        if name not in ("bandit", chooser.name):
            raise UserError(f"{folder} holds the chooser {chooser.name!r}, not {name!r}; use --chooser bandit.")
        # Greedy Thompson would take one operation for ever; greedy LinUCB looks at each state.
        chooser.explore = chooser.name == "thompson"
        return chooser, operations
    from teamsrl_hf.ppo.policy import check_policy_operations, load_policy
    from teamsrl_hf.text.operations import prompted_as

    policy = load_policy(folder, saved=True)
    if operation_args.operations or operation_args.own_operations:
        check_policy_operations(policy, operations)
    return policy.choose, prompted_as(policy.config.operation_tuple(), operations)


if __name__ == "__main__":
    sys.exit(leave(guarded(main)))
