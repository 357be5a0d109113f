"""Evolve seeds into an instruction dataset, as a folder ready for the Hub.

    python recipes/evolve_dataset.py --config recipes/quickstart/evolve_dataset.yaml --policy outputs/policy \\
        --output_dir outputs/dataset

Stopped or killed, the same command goes on where it was: every answer is in the ledger and is not asked for again.
When all calls to a model fail it stops by itself, and asks again for what failed when it is run again. At its end it
tells rows, rejections, calls, cost and the commonest errors. Exit status: 0 with rows, 2 when an argument can't be
used, 3 at the end of a run without a row, 4 when a budget or refused calls stopped it, 130 after
Ctrl-C (129 and 143 after SIGHUP and SIGTERM), 1 for a bug.

Several processes share the seeds, with the same rows as one; they need a file system in common:

    accelerate launch --config_file accelerate_configs/ddp.yaml --num_processes 4 recipes/evolve_dataset.py …
"""

import gc
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from teamsrl_hf.commands.arguments import (
    OperationArguments,
    SeedArguments,
    guarded,
    parse,
    run_arguments,
    seeds_digest,
)
from teamsrl_hf.commands.signals import leave
from teamsrl_hf.errors import CallsRefused, NothingMade, Stopped, UserError, did_you_mean
from teamsrl_hf.evolve.config import EvolverConfig
from teamsrl_hf.evolve.evolver import DatasetEvolver
from teamsrl_hf.evolve.shards import Team, buy_together, consume, share_of
from teamsrl_hf.models.accounting import outcome, spent
from teamsrl_hf.models.base import Generator
from teamsrl_hf.models.budget import Budget, Price
from teamsrl_hf.models.calls import run_async
from teamsrl_hf.models.factory import make_generator
from teamsrl_hf.models.ledger import Ledger
from teamsrl_hf.models.parts import merge_parts, open_part, prepare_parts
from teamsrl_hf.public import public_model, public_spec
from teamsrl_hf.publish.cards import RULEBOOK, DatasetStatistics, dataset_card, inline_code, recipe_text
from teamsrl_hf.publish.dataset_writer import DatasetWriter
from teamsrl_hf.publish.licenses import settle_license
from teamsrl_hf.publish.lineage import read_lineage, seeds_facts, versions, weights_digest, write_lineage
from teamsrl_hf.publish.plots import plot_dataset
from teamsrl_hf.publish.report import write_report
from teamsrl_hf.runs import finish_run, hold, open_run, reopen_run
from teamsrl_hf.types import Candidate, Example, Rejection

# What changes how long a run takes or how far it gets, but no row of it: it may differ when a run goes on.
HOW_FAR = ("concurrency", "retry_errors", "prices", "budget_calls", "budget_tokens", "budget_cost")
CHOOSERS = ("policy", "uniform", "paper", "thompson", "linucb", "bandit")
WHERE = ("seeds", "ledger", "output_dir")
# The same of an endpoint's options.
PACE = {"concurrency", "timeout", "max_retries", "backoff", "max_wait", "requests_per_minute", "tokens_per_minute"}
RATES = ("requests_per_minute", "tokens_per_minute")


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
    expert: str | dict = field(
        default="rulebook", metadata={"help": "Model that carries out operations and answers; paid, as a rule."}
    )
    reviewer: str | dict = field(
        default="rulebook", metadata={"help": "Model that says whether a rewrite gained anything."}
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
        default=None, metadata={"help": "YAML only: MODEL: {prompt: 0.1, completion: 0.4}, per million tokens."}
    )
    budget_calls: int | None = field(default=None, metadata={"help": "Most calls to buy, earlier runs included."})
    budget_tokens: int | None = field(default=None, metadata={"help": "Most tokens to buy, prompts and answers."})
    budget_cost: float | None = field(default=None, metadata={"help": "Most money to spend; needs prices."})
    license: str | None = field(
        default=None,
        metadata={
            "help": "Licence of the dataset, as the Hub names it, for its card; left out: apache-2.0 for what rules "
            "make of the built-in seeds, else unknown."
        },
    )
    language: str = field(default="en", metadata={"help": "Language of the dataset, for its card."})

    def __post_init__(self):
        _ = self.budget  # What is wrong with it has to be said before the folder is claimed.

    @property
    def budget(self) -> Budget:
        return Budget(self.budget_calls, self.budget_tokens, self.budget_cost)


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

    def make(self) -> Callable[[], list[Callable[[Candidate], str | None]]]:
        """A function that gives fresh filters: those that count start at zero."""
        if self == FilterArguments():
            return list
        from teamsrl_hf.evaluation.measures import embedder
        from teamsrl_hf.evolve.filters import Decontamination, language, length_limits, load_benchmark

        benchmarks = {benchmark_name(spec): load_benchmark(spec) for spec in self.decontaminate or ()}
        embed = embedder(self.decontaminate_embedding) if self.decontaminate_embedding else None
        clean = Decontamination(benchmarks, embed=embed, threshold=self.decontaminate_cosine) if benchmarks else None

        def filters() -> list[Callable[[Candidate], str | None]]:
            limits = self.min_words, self.max_words, self.max_response_words
            made = [length_limits(*limits)] if limits != (0, None, None) else []
            made += [language(self.only_languages)] if self.only_languages else []
            return made + ([clean.fresh()] if clean else [])

        filters()  # What is missing or mistyped shall be told now, not when the first row comes.
        return filters


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Evolve and write the folder. Returns row counts, rejections by reason and calls.

    Raises:
        Stopped: The budget is spent, or a model refuses all calls; the message says how to go on.
        NothingMade: It came to its end without a row.
    """
    types = (SeedArguments, OperationArguments, EvolveArguments, FilterArguments, EvolverConfig)
    seed_args, operation_args, script_args, filter_args, evolver_args = parse(types, argv, "teamsrl evolve", __doc__)
    specs = {role: getattr(script_args, role) for role in ("expert", "reviewer", "instructor")}
    rules = all(spec == RULEBOOK for spec in specs.values() if spec)
    script_args.license = settle_license(script_args.license, ours=rules and seed_args.seeds is None)
    train, test = seed_args.load()
    team = Team.join()
    chooser, operations = pick_chooser(script_args, operation_args)
    models = {role: make_generator(at_pace(spec, evolver_args, team.size)) for role, spec in specs.items() if spec}
    filters, prices = filter_args.make(), read_prices(script_args.prices)
    arguments = run_arguments(
        seed_args, operation_args, script_args, filter_args, evolver_args, without=(*WHERE, *HOW_FAR, *specs)
    )
    arguments |= {"seeds": seeds_digest([*train, *test]), **{role: identity(spec) for role, spec in specs.items()}}
    with ExitStack() as held:
        team.first_does(lambda: held.enter_context(hold(script_args.output_dir)))
        done = team.first_does(lambda: open_run(script_args.output_dir, arguments))
        if done is not None and is_whole(done) and not script_args.retry_errors:
            if team.first:
                print(f"{script_args.output_dir} is already complete.")
            return done
        gc.freeze()  # What is there by now stays to the end; to walk it again and again takes a fifth of a row's time.
        origin = {
            "seeds": seeds_facts(seed_args.seeds, train, test, seed_args.test_size, seed_args.left_out),
            **origin_of(specs, script_args),
            "recipe": recipe(specs, script_args, seed_args, operation_args, filter_args, evolver_args),
        }
        run = Run([*train, *test], models, chooser, operations, filters, script_args, evolver_args, prices, origin)
        try:
            return run.carry_out(team, frozenset(seed.id for seed in test))
        finally:
            gc.unfreeze()
            for model in models.values():
                if hasattr(model, "close"):
                    run_async(model.close())


def is_whole(summary: dict[str, Any]) -> bool:
    """Whether nothing of a finished run could come out better if it were run again."""
    return summary["rows"] > 0 and not summary.get("spent", {}).get("to_ask_again")


@dataclass(frozen=True)
class Run:
    """One evolution, ready to go."""

    seeds: list
    models: dict[str, Generator]
    chooser: Any
    operations: tuple
    filters: Callable[[], list]
    script_args: EvolveArguments
    evolver_args: EvolverConfig
    prices: dict[str, Price]
    origin: dict[str, Any]

    def carry_out(self, team: Team, test_seeds: frozenset[str]) -> dict[str, Any]:
        """The stages: buy together where there are several processes, then write; returns the summary."""
        since = team.first_does(time.time)
        refused = self._buy(team, since) if team.size > 1 else None
        if not team.first:
            if refused:
                raise SystemExit(refused.status)  # The first process says why.
            return {}
        # What failed in a process of this launch is not asked again by this one.
        with self._ledger(since=since, retry_errors=self.script_args.retry_errors) as ledger:
            merge_parts(ledger)
            try:
                if refused:
                    raise refused
                results = self._write(ledger, test_seeds)
            except Stopped:
                print(outcome(spent(ledger)), file=sys.stderr)
                raise
            ledger.conclude()
            summary = {**results, "spent": spent(ledger)}
        finish_run(self.script_args.output_dir, summary)
        print(outcome(summary["spent"], summary, [o.name for o in self.operations]), file=sys.stderr)
        if not summary["rows"]:
            raise NothingMade(f"no row came of {summary['seeds']} seeds; see above why.", summary)
        return summary

    def _buy(self, team: Team, since: float) -> CallsRefused | None:
        """Have every process buy its share, into a ledger of its own; returns what refused them, if anything did."""
        scratch = Path(self.script_args.output_dir) / ".walking"

        def prepare() -> tuple[str, Budget]:
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
            with self._ledger() as ledger:
                return prepare_parts(ledger, team.size), share_of(self.script_args.budget, ledger, team.size)

        identity, budget = team.first_does(prepare)
        options = {"retry_errors": self.script_args.retry_errors, "prices": self.prices, "budget": budget}
        options |= {"since": since, "read_from": [self._path]}
        mine = partial(open_part, self._path, identity, team.rank, **options)
        progress = partial(self._bar, hidden=not team.first, share=team.size)
        stopped = buy_together(team, self.seeds, scratch, self._evolver, mine, progress)
        if team.first:
            shutil.rmtree(scratch, ignore_errors=True)
        # One whose part of the budget is spent leaves the rest to the first process.
        return stopped if isinstance(stopped, CallsRefused) else None

    def _write(self, ledger: Ledger, test_seeds: frozenset[str]) -> dict[str, Any]:
        """Evolve, and write the folder as results come."""
        script_args, evolver = self.script_args, self._evolver(ledger)
        statistics = DatasetStatistics(paid=self.evolver_args.paid)
        reopen_run(script_args.output_dir)
        with DatasetWriter(script_args.output_dir, test_seeds) as writer:
            with self._bar("Evolving", ledger, statistics) as advance:

                def keep(results: list[Example | Rejection]) -> None:
                    statistics.add(results)
                    writer.write(results)
                    advance(1)

                consume(evolver.stream(self.seeds), keep)
            told = {"operations": self.operations, "script_args": script_args, "evolver_args": self.evolver_args}
            card = partial(dataset_card, **told, origin=self.origin)
            plots = plot_dataset(statistics.summary(), script_args.output_dir)
            writer.finish(lambda configs: card(statistics, configs, checks=found(evolver.filters), plots=plots))
        write_lineage(script_args.output_dir, "dataset", self.origin)
        if statistics.rows or statistics.rejections:
            write_report(script_args.output_dir)
        return {"dataset": str(script_args.output_dir), **statistics.summary()}

    def _evolver(self, ledger: Ledger) -> DatasetEvolver:
        recorded = {role: ledger.record(model) for role, model in self.models.items()}
        settings = {"chooser": self.chooser, "operations": self.operations, "args": self.evolver_args}
        return DatasetEvolver(**recorded, **settings, filters=self.filters())

    @property
    def _path(self) -> Path:
        return Path(self.script_args.ledger or Path(self.script_args.output_dir) / "ledger.sqlite")

    def _ledger(self, **options: Any) -> Ledger:
        return Ledger(self._path, prices=self.prices, budget=self.script_args.budget, **options)

    @contextmanager
    def _bar(
        self,
        title: str,
        ledger: Ledger,
        statistics: DatasetStatistics | None = None,
        hidden: bool = False,
        share: int = 1,
    ) -> Iterator[Callable[[int], None]]:
        """Progress: seeds, rate and time left; rows, calls and money so far. Gives what to call when some are done."""
        from tqdm import tqdm

        total = -(-len(self.seeds) // share)
        often = 0.2 if sys.stderr.isatty() else 10  # A log file shall not drown in it.
        with tqdm(total=total, desc=title, unit="seed", disable=hidden, mininterval=often) as bar:

            def told() -> dict[str, Any]:
                rows = {"rows": statistics.rows} if statistics else {}
                return {**rows, "calls": ledger.calls, **({"spent": f"{ledger.cost:.4g}"} if self.prices else {})}

            def advance(seeds: int) -> None:
                # The bar asks for it only when it is drawn: formatting it for each seed would cost more than the seed.
                if bar.update(seeds):
                    bar.set_postfix(told(), refresh=False)

            yield advance
            bar.set_postfix(told())


def origin_of(specs: dict[str, Any], script_args: EvolveArguments) -> dict[str, Any]:
    """Chooser, models and versions, for the record."""
    learned = script_args.policy if script_args.chooser not in ("uniform", "paper") else None
    known = (read_lineage(learned, "policy") or {}) if learned else {}
    chooser = {"name": script_args.chooser, "source": learned, "weights": learned and weights_digest(learned)}
    return {
        "chooser": {**chooser, "seeds": known.get("seeds", {}).get("digest"), "models": known.get("models")},
        "models": {role: public_model(spec) for role, spec in specs.items() if spec},
        "versions": versions(),
    }


def recipe(specs: dict[str, Any], script_args: EvolveArguments, *others: Any) -> str:
    """What makes the dataset again, as YAML."""
    public = replace(script_args, **{role: public_spec(spec) for role, spec in specs.items() if spec})
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

    policy = load_policy(folder, saved=True)
    if operation_args.operations or operation_args.own_operations:
        check_policy_operations(policy, operations)
    return policy.choose, policy.config.operation_tuple()


def read_prices(prices: dict | None) -> dict[str, Price]:
    """Prices by model, from YAML; UserError on anything else than two numbers for each."""
    known = [one.name for one in fields(Price)]
    for model, price in (prices or {}).items():
        if not isinstance(price, dict):
            raise UserError(f"The price of {model!r} is {price!r}; write MODEL: {{prompt: 0.1, completion: 0.4}}.")
        for name in set(price) - set(known):
            raise UserError(f"Unknown key {name!r} in the price of {model!r}{did_you_mean(name, known)}")
    return {model: Price(**price) for model, price in (prices or {}).items()}


def at_pace(spec: str | dict, evolver_args: EvolverConfig, processes: int) -> str | dict:
    """The specification of a model, with as many requests in flight as the evolver has chains, unless it says.

    Its rates are those of the endpoint, so each of several processes gets its part of them.
    """
    spec = as_mapping(spec)
    if not isinstance(spec, dict) or "endpoint" not in spec:
        return spec
    rates = {name: spec[name] / processes for name in RATES if isinstance(spec.get(name), int | float)}
    return {"concurrency": evolver_args.concurrency, **spec, **rates}


def as_mapping(spec: str | dict) -> str | dict:
    """A specification of an endpoint, or one with options, as a mapping."""
    if isinstance(spec, str) and spec.startswith("endpoint:"):
        return {"endpoint": spec.removeprefix("endpoint:")}
    if isinstance(spec, str) and spec.lstrip().startswith("{"):
        try:
            return json.loads(spec)
        except json.JSONDecodeError:
            pass  # `make_generator` tells what is wrong with it.
    return spec


def identity(spec: str | dict | None) -> str | dict | None:
    """What of a specification decides on the answers."""
    spec = as_mapping(spec)
    if isinstance(spec, dict):
        spec = {name: value for name, value in spec.items() if name not in PACE}
        return f"endpoint:{spec['endpoint']}" if spec.keys() == {"endpoint"} else spec
    return spec


def benchmark_name(spec: str) -> str:
    """What the card calls a benchmark: of a file its name alone, not where it lies on this machine."""
    source = spec if Path(spec).exists() else spec.partition(":")[0]
    return Path(source).name if Path(source).exists() else spec


def found(filters: Iterable) -> list[str]:
    """Sentences for the card: what of the named benchmarks was found in rows."""
    return [
        f"Rows refused because they repeat a text of {inline_code(name)}: {count}."
        for judge in filters
        for name, count in getattr(judge, "matches", {}).items()
    ]


if __name__ == "__main__":
    sys.exit(leave(guarded(main)))
