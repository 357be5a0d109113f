"""What learning to choose operations brings: train every chooser several times, evolve held-out seeds with each.

    python recipes/operation_policy/study.py --config recipes/operation_policy/study.yaml --output_dir outputs/study

Out come `results.json` in the output folder and beside the README, and the README's tables. A stopped study goes on
when it is started again; each training run is one small file in the output folder.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from teamsrl_hf.commands.arguments import guarded, parse, run_arguments, seeds_digest
from teamsrl_hf.commands.signals import leave
from teamsrl_hf.environment.bandits import LinUCBChooser, ThompsonChooser, train_chooser
from teamsrl_hf.environment.choosers import paper_chooser, uniform_chooser
from teamsrl_hf.environment.review import novelty_reward, validity_reward
from teamsrl_hf.environment.rewards import RewardFunction
from teamsrl_hf.environment.rollout import Chooser, uniform
from teamsrl_hf.errors import UserError
from teamsrl_hf.evaluation.planted import ADDING, TASKS, CoinInstructor, LeavesAlone, reward_per_chain, tossed
from teamsrl_hf.evaluation.study import (
    BUDGETED,
    PLANTED,
    SET_TITLES,
    STEPS,
    by_step,
    operation_counts,
    publish,
    sentence_embeddings,
    short,
    vendi_scores,
)
from teamsrl_hf.evolve.evolver import DatasetEvolver, EvolverConfig
from teamsrl_hf.models.base import Generator
from teamsrl_hf.models.rulebook.rules import Rulebook
from teamsrl_hf.runs import finish_run, hold, open_run
from teamsrl_hf.text.operations import OPERATIONS
from teamsrl_hf.text.seeds import BUILT_IN, load_seeds, split_seeds
from teamsrl_hf.text.words import count_words
from teamsrl_hf.types import Example, Reason, Rejection, Seed, Trajectory

HERE = Path(__file__).resolve().parent
PLANTED_EPISODES = 640
# What can be trained: how a policy's config differs from the default.
POLICIES: dict[str, dict[str, Any]] = {
    "policy": {},
    "warm": {},
    "no_text": {"see_text": False},
    "no_history": {"see_history": False},
    "no_novelty": {},
    "max_repeats_2": {"max_repeats": 2},
    "paper_discount": {},
    # A policy that learned nothing has no preference: the most likely operation would be an accident of its weights.
    "saturated": {"most_likely": False},
    "coin": {"most_likely": False, "operations": [{"name": o.name, "sentence": o.sentence} for o in ADDING]},
}
# … and its training's.
TRAININGS: dict[str, dict[str, Any]] = {
    "warm": {"warm_start": 0.5, "learning_rate": 3e-3},
    "paper_discount": {"gamma": 0.995},
}
FIXED = {"uniform": uniform_chooser, "paper": paper_chooser}
BANDITS = {
    "thompson": lambda: ThompsonChooser(OPERATIONS),
    "linucb": lambda: LinUCBChooser(OPERATIONS),
    "linucb_form": lambda: LinUCBChooser(OPERATIONS, form=True),
}
RUNS = (*FIXED, *BANDITS, *POLICIES, *TASKS)
# Trained fewer times than the rest.
ABLATIONS = ("no_history", "no_novelty", "max_repeats_2", "paper_discount", "saturated", "coin", *TASKS)


@dataclass
class StudyArguments:
    """What to train, how often, and what to measure."""

    output_dir: str = field(metadata={"help": "Folder for the runs and results.json."})
    runs: list[str] = field(
        default_factory=lambda: list(RUNS), metadata={"help": "What is trained.", "choices": tuple(RUNS)}
    )
    training_seeds: int = field(default=10, metadata={"help": "Times each run is trained; at least 2."})
    ablation_seeds: int = field(default=5, metadata={"help": "Times each ablation, control, planted task is trained."})
    episodes: int = field(default=1280, metadata={"help": "Chains of six operations each run learns from."})
    budget_episodes: list[int] = field(
        default_factory=lambda: [192, 640, 1280, 2560], metadata={"help": "Chains at the points of the budget curve."}
    )
    budget_seeds: int = field(default=10, metadata={"help": "Times each further point of the curve is trained."})
    held_out_domains: int = field(default=5, metadata={"help": "Domains never trained on."})
    held_out_share: float = field(default=0.24, metadata={"help": "Share of the other domains' seeds held out."})
    extra_seeds: str | None = field(default=None, metadata={"help": "Seeds of your own as a third held-out set."})
    vendi_draws: int = field(default=10, metadata={"help": "Draws of equal size a Vendi score is the mean of."})
    sentence_embeddings: bool = field(default=True, metadata={"help": "Vendi under MiniLM too, where installed."})
    processes: int = field(default=2, metadata={"help": "Runs trained at the same time."})
    machine: str = field(default="two shared CPU cores", metadata={"help": "What the README calls this machine."})
    readme: str = field(default=str(HERE / "README.md"), metadata={"help": "File whose tables are written."})

    def __post_init__(self):
        if unknown := sorted(set(self.runs) - set(RUNS)):
            raise UserError(f"Unknown run {unknown[0]!r} in runs; use {', '.join(RUNS)}.")
        if self.training_seeds < 2:
            raise UserError(f"training_seeds is {self.training_seeds}; an interval needs at least 2.")


@dataclass(frozen=True)
class Job:
    """One run: what to train, on how many chains, and the seed of its randomness."""

    run: str
    episodes: int
    seed: int

    @property
    def file(self) -> str:
        return f"{self.run}-{self.episodes}-{self.seed}.json"


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Train and evaluate everything, write results.json and the README's tables. Returns the facts of the study."""
    (args,) = parse((StudyArguments,), argv, "python recipes/operation_policy/study.py", __doc__)
    train, held_out = held_out_sets(args.held_out_domains, args.held_out_share, args.extra_seeds)
    everything = [*train, *(seed for seeds in held_out.values() for seed in seeds)]
    told = run_arguments(args, without=("output_dir", "processes", "machine", "readme", "extra_seeds"))
    with hold(args.output_dir):
        done = open_run(args.output_dir, {"seeds": seeds_digest(everything), **told})
        if done is not None:
            print(f"{args.output_dir} is already complete.")
            return done
        folder = Path(args.output_dir) / "runs"
        folder.mkdir(exist_ok=True)
        jobs = jobs_of(args)
        stopwatch = Stopwatch(Path(args.output_dir) / "seconds.json")
        carry_out_jobs(jobs, train, held_out, folder, args.processes, stopwatch)
        results = measured(jobs, folder, held_out, args)
        results["facts"] |= {
            "extra_seeds": args.extra_seeds and Path(args.extra_seeds).name,
            "date": date.today().isoformat(),
            "machine": args.machine,
            "minutes": round(stopwatch.stop() / 60, 1),
            "training_seeds": args.training_seeds,
            "ablation_seeds": args.ablation_seeds,
            "budget_seeds": args.budget_seeds,
            "steps": args.episodes * STEPS,
            "train": len(train),
        }
        publish(results, Path(args.output_dir), Path(args.readme))
        finish_run(args.output_dir, results["facts"])
        return results["facts"]


def held_out_sets(domains: int, share: float, extra: str | None = None) -> tuple[list[Seed], dict[str, list[Seed]]]:
    """Seeds to train on, and disjoint held-out sets by name; which side a domain or seed falls on is hashed."""
    rows = map(json.loads, BUILT_IN.read_text(encoding="utf-8").splitlines())
    domain_of = {row["id"]: row["domain"] for row in rows}
    new = set(sorted(set(domain_of.values()), key=lambda domain: uniform("domain", domain))[:domains])
    seeds = load_seeds()
    train, known = split_seeds([seed for seed in seeds if domain_of[seed.id] not in new], share)
    sets = {"trained_domains": known, "new_domains": [seed for seed in seeds if domain_of[seed.id] in new]}
    if extra:
        sets[Path(extra).stem] = load_seeds(extra)
    return train, sets


def jobs_of(args: StudyArguments) -> list[Job]:
    """All runs, the longest first, so that no process is left with a long one at the end."""
    times = {run: args.ablation_seeds if run in ABLATIONS else args.training_seeds for run in args.runs}
    jobs = [Job(run, args.episodes, seed) for run in args.runs for seed in range(times[run])]
    budgets = [episodes for episodes in args.budget_episodes if episodes != args.episodes]
    budgeted = [run for run in BUDGETED if run in args.runs]
    jobs += [Job(run, episodes, s) for run in budgeted for episodes in budgets for s in range(args.budget_seeds)]
    return sorted(jobs, key=lambda job: -job.episodes)


class Stopwatch:
    """Seconds a study has taken, over all its starts."""

    def __init__(self, file: Path):
        self.file, self.started = file, time.monotonic()
        self.before = json.loads(file.read_text()) if file.exists() else 0.0

    def stop(self) -> float:
        seconds = self.before + time.monotonic() - self.started
        self.file.write_text(json.dumps(seconds))
        return seconds


def carry_out_jobs(jobs: Sequence[Job], train, held_out, folder: Path, processes: int, stopwatch: Stopwatch) -> None:
    """Do what is not done yet."""
    waiting = [job for job in jobs if not (folder / job.file).exists()]
    work = [(job, train, held_out, folder) for job in waiting]
    for count, told in enumerate(_in_processes(work, processes), 1):
        stopwatch.stop()
        print(f"{count}/{len(waiting)} {told}", flush=True)


def _in_processes(work: Sequence[tuple], processes: int) -> Iterator[str]:
    if processes == 1:
        yield from (carry_out(*arguments) for arguments in work)
        return
    with ProcessPoolExecutor(processes, get_context("spawn"), _one_thread) as pool:
        for future in as_completed([pool.submit(carry_out, *arguments) for arguments in work]):
            yield future.result()


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def carry_out(job: Job, train: Sequence[Seed], held_out: dict[str, list[Seed]], folder: Path) -> str:
    """Train, evaluate on every held-out set, write the job's file. Returns a line to show."""
    started = time.monotonic()
    outcomes = (
        on_planted_task(job, train, held_out)
        if job.run in TASKS
        else [
            {"arm": arm, "set": name, **evolved(chooser, seeds, _world(job, "evaluation"), job.seed)}
            for arm, chooser in trained(job, train).items()
            for name, seeds in held_out.items()
        ]
    )
    draft = folder / f".{job.file}.part"
    draft.write_text(json.dumps(outcomes), encoding="utf-8")
    draft.replace(folder / job.file)
    rates = ", ".join(f"{outcome.get('rows_per_call', outcome['reward']):.3f}" for outcome in outcomes)
    return f"{job.run}, {job.episodes} chains, seed {job.seed}: {rates} ({time.monotonic() - started:.1f} s)"


# -- training


def trained(job: Job, seeds: Sequence[Seed]) -> dict[str, Chooser]:
    """Choosers by the names they are evaluated under."""
    if job.run in FIXED:
        return {job.run: FIXED[job.run](OPERATIONS)}
    if job.run in BANDITS:
        return {job.run: train_bandit(job, seeds, Rulebook(), _rewards(job.run))}
    policy = train_policy(job, seeds, _world(job, "training"), _rewards(job.run))
    others = {"policy": {"policy_drawn": drawn(policy)}, "coin": {"coin_uniform": uniform_chooser(ADDING)}}
    return {job.run: policy.choose} | others.get(job.run, {})


def train_bandit(job: Job, seeds: Sequence[Seed], world: Generator, rewards: Sequence[RewardFunction]) -> Chooser:
    """A bandit after the rollouts that a policy would make of `job.episodes` chains."""
    bandit, size = BANDITS[job.run](), rollout_size(job.episodes)
    rounds = job.episodes // size
    train_chooser(bandit, seeds, OPERATIONS, world, world, rounds, rewards, episodes=size, seed=job.seed)
    bandit.explore = False
    return bandit


def rollout_size(episodes: int) -> int:
    """Chains of a rollout when a policy learns from that many in all."""
    from teamsrl_hf.ppo.config import InstructionGenPPOConfig

    with tempfile.TemporaryDirectory() as folder:
        return InstructionGenPPOConfig(folder, use_cpu=True, total_episodes=episodes).episodes_per_rollout


def train_policy(job: Job, seeds: Sequence[Seed], world: Generator, rewards: list[RewardFunction]):
    """A policy after `job.episodes` chains in `world`, with the trainer's default settings."""
    import torch
    from transformers import PrinterCallback

    from teamsrl_hf.ppo.config import InstructionGenPPOConfig
    from teamsrl_hf.ppo.policy import OperationPolicy, OperationPolicyConfig
    from teamsrl_hf.ppo.trainer import InstructionGenPPOTrainer
    from teamsrl_hf.text.seeds import seeds_to_dataset

    torch.manual_seed(job.seed)
    policy = OperationPolicy(OperationPolicyConfig(**POLICIES[job.run]))
    settings = {"use_cpu": True, "total_episodes": job.episodes, **TRAININGS.get(job.run, {})}
    quiet = {"report_to": "none", "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True}
    with tempfile.TemporaryDirectory() as folder:
        config = InstructionGenPPOConfig(folder, seed=job.seed, **settings, **quiet)
        trainer = InstructionGenPPOTrainer(
            policy,
            config,
            instructor=world,
            reviewer=Rulebook(),
            reward_funcs=rewards,
            train_dataset=seeds_to_dataset(seeds),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return policy.eval()


def drawn(policy) -> Chooser:
    """An operation drawn from the policy instead of its most likely one."""
    import torch

    from teamsrl_hf.ppo.policy import draw

    @torch.no_grad()
    def choose(states, uniforms):
        return [draw(policy(**policy.featurize([s])).logits, [u])[0] for s, u in zip(states, uniforms)]

    return choose


def constant_reward(trajectories: Sequence[Trajectory]) -> list[list[float]]:
    """1 for every step, whatever was done."""
    return [[1.0] * len(trajectory.transitions) for trajectory in trajectories]


def on_planted_task(job: Job, train: Sequence[Seed], held_out: dict[str, list[Seed]]) -> list[dict[str, Any]]:
    """Reward per chain on the built-in held-out seeds, of bandits and policies that learned the task."""
    test = [seed for name in SET_TITLES for seed in held_out[name]]
    outcomes = []
    for arm in PLANTED:
        learn = train_bandit if arm in BANDITS else train_policy
        learned = learn(Job(arm, PLANTED_EPISODES, job.seed), train, LeavesAlone(), [TASKS[job.run]])
        chooser = learned if arm in BANDITS else learned.choose_batch
        reward = reward_per_chain(chooser, test, TASKS[job.run], job.seed)
        outcomes.append({"arm": arm, "set": job.run, "reward": reward})
    return outcomes


def _rewards(run: str) -> list[RewardFunction]:
    special = {"saturated": [constant_reward], "no_novelty": [validity_reward]}
    return special.get(run, [validity_reward, novelty_reward])


def _world(job: Job, phase: str) -> Generator:
    return CoinInstructor((job.seed, phase)) if job.run == "coin" else Rulebook()


# -- evaluation


def evolved(chooser: Chooser, seeds: Sequence[Seed], instructor: Generator, seed: int) -> dict[str, Any]:
    """Measures and rows of the dataset that `chooser` makes of `seeds`; `seed` decides the luck it draws with."""
    by_coin = isinstance(instructor, CoinInstructor)
    evolve, operations = (tossed, ADDING) if by_coin else (DatasetEvolver.evolve, OPERATIONS)
    evolver = DatasetEvolver(instructor, Rulebook(), chooser, operations, EvolverConfig(STEPS, seed=seed))
    chains = list(evolve(evolver, seeds))
    results = [result for chain in chains for result in chain]
    rows = [result.candidate.transition.rewrite for result in results if isinstance(result, Example)]
    if not rows:
        raise UserError(f"Not one of {len(results)} operations on {len(seeds)} seeds gave a row; give other seeds.")
    calls = sum(number for result in results for _, number in result.candidate.calls)
    repeated = sum(isinstance(result, Rejection) and result.reason == Reason.NEAR_DUPLICATE for result in results)
    tried, passed = by_step(chains)
    return {
        "reward": _reward_per_chain(chains),
        "rows_per_call": len(rows) / len(results),
        "calls_per_row": calls / len(rows),
        "near_duplicates": repeated / len(results),
        "words": statistics.mean(map(count_words, rows)),
        "tried": tried,
        "passed": passed,
        "rows": rows,
    }


def _reward_per_chain(chains: Sequence[Sequence[Example | Rejection]]) -> float:
    walked = [
        Trajectory(chain[0].candidate.seed, tuple(result.candidate.transition for result in chain)) for chain in chains
    ]
    return sum(sum(map(sum, reward(walked))) for reward in (validity_reward, novelty_reward)) / len(walked)


def measured(jobs: Sequence[Job], folder: Path, held_out, args: StudyArguments) -> dict[str, Any]:
    """What results.json holds: facts of the study, one record a run and set, and counts of operations."""
    records = [
        {"run": job.run, "steps": job.episodes * STEPS, "seed": job.seed, **outcome}
        for job in sorted(jobs, key=lambda job: (RUNS.index(job.run), job.episodes, job.seed))
        for outcome in json.loads((folder / job.file).read_text(encoding="utf-8"))
    ]
    planted = [{name: r[name] for name in ("arm", "set", "seed", "reward")} for r in records if r["run"] in TASKS]
    records = [record for record in records if record["run"] not in TASKS]
    main_records = [record for record in records if record["steps"] == args.episodes * STEPS]
    compared = [record for record in main_records if record["run"] != "coin"]
    sizes = {name: min(len(r["rows"]) for r in compared if r["set"] == name) for name in held_out}
    minilm = sentence_embeddings(text for r in compared for text in r["rows"]) if args.sentence_embeddings else None
    for record in compared:
        record |= vendi_scores(record, sizes[record["set"]], args.vendi_draws, minilm)
    operations = operation_counts(main_records)
    dropped = ("rows", "tried", "passed")
    kept = [{name: short(value) for name, value in r.items() if name not in dropped} for r in records]
    sets = {name: {"seeds": len(seeds), "vendi_rows": sizes[name]} for name, seeds in held_out.items()}
    facts = {"sets": sets, "planted_steps": PLANTED_EPISODES * STEPS}
    return {"facts": facts, "operations": operations, "planted": planted, "records": kept}


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # Before torch is imported, here and in the processes started.
    sys.exit(leave(guarded(main)))
