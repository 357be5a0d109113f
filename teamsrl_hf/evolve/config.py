"""Settings of the evolver: in go numbers and the name of a method, out comes a checked dataclass."""

from dataclasses import dataclass, field
from typing import Any

from ..errors import UserError, check_number, did_you_mean
from ..models.base import Sampling
from ..text.operations import CONSTRAINTS, UNCHECKED
from ..types import CallKind

METHODS = ("stepwise", "plan", "plan_answer", "packed", "evol_instruct")
PLANNED = ("plan", "plan_answer", "packed")  # Walked with the instructor first, then paid for.


def _setting(default: Any, help: str, **more: Any) -> Any:
    return field(default=default, metadata={"help": help, **more})


@dataclass(frozen=True)
class EvolverConfig:
    """How to evolve.

    `method` says what the expert is asked for: "stepwise" (one call per operation, one per answer), "plan" (one call
    per plan, one per answer), "plan_answer" (one call for both), "packed" (one call for `rows_per_call` of these) or
    "evol_instruct" (the baseline: random operations, rewrite, judge and answer each round). `concurrency` limits the
    chains that are walked at the same time, and those that are answered; for "packed", the calls. 1.25 times as many
    chains are walked if the models cap their own concurrency, and all at once if one answers in batches. The help of
    each field describes the others.

    Raises:
        UserError: A number is out of its range, or there is no such method.
    """

    operations_per_episode: int = _setting(6, "Operations tried on each seed (paper: 6).")
    concurrency: int = _setting(16, "Chains walked, and chains answered, at the same time.")
    seed: int = _setting(42, "Seed of the random numbers the chooser draws with.")
    dedup_threshold: float = _setting(0.7, "Least similarity to another seed's row that makes a row a near-duplicate.")
    temperature: float = _setting(0.7, "Sampling temperature of the expert (paper's code: 0.7).")
    top_p: float = _setting(0.95, "Nucleus that the expert samples from (paper's code: 0.95).")
    max_tokens: int = _setting(2048, "Most tokens of the expert's answer; in a packed call, of each row.")
    sampling_seed: int | None = _setting(None, "Seed that the expert samples with; left out: another each time.")
    method: str = _setting("stepwise", "What the expert is asked for in one call.", choices=METHODS)
    plan_length: int = _setting(0, "Planned methods: operations per row; 0: one row for the whole plan.")
    rows_per_call: int = _setting(4, "Seeds whose rows share one packed call.")
    row_retries: int = _setting(1, "Retries for a row of a planned answer that can't be read.")
    retry_cut: bool = _setting(False, "Ask once more, with twice the tokens, for an answer that max_tokens cut.")
    constraints: str = _setting(
        UNCHECKED,
        "What add_constraints adds: what code can check, by rules or worded by a model; or anything, unchecked.",
        choices=CONSTRAINTS,
    )
    answer_retries: int = _setting(1, "Retries for an answer that fails a verifier, with what failed.")
    stop_below: float | None = _setting(
        None, "End a chain where the chooser expects less than this from more operations."
    )

    def __post_init__(self):
        for name in ("operations_per_episode", "concurrency", "rows_per_call"):
            check_number(name, getattr(self, name), 1, whole=True)
        for name in ("plan_length", "row_retries", "answer_retries"):
            check_number(name, getattr(self, name), 0, whole=True)
        check_number("seed", self.seed, whole=True)
        check_number("dedup_threshold", self.dedup_threshold, above=0, most=1)
        if self.stop_below is not None:
            check_number("stop_below", self.stop_below)
        if self.method not in METHODS:
            raise UserError(
                f"Unknown method {self.method!r}; use {', '.join(METHODS)}{did_you_mean(self.method, METHODS)}"
            )
        if self.constraints not in CONSTRAINTS:
            hint = did_you_mean(self.constraints, CONSTRAINTS)
            raise UserError(f"constraints is {self.constraints!r}; use {', '.join(CONSTRAINTS)}{hint}")
        _ = self.sampling  # Which checks the rest.

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.temperature, self.top_p, self.max_tokens, self.sampling_seed)

    @property
    def paid(self) -> tuple[CallKind, ...]:
        """Kinds of calls that the expert answers; in Evol-Instruct it is the judge, too."""
        return (CallKind.REWRITE, CallKind.ANSWER, *([CallKind.REVIEW] if self.method == "evol_instruct" else []))

    @property
    def answered_in_walk(self) -> bool:
        """Whether candidates come with their answers."""
        return self.method in ("plan_answer", "packed", "evol_instruct")

    @property
    def pack_size(self) -> int:
        """Rows asked for in one call."""
        return self.rows_per_call if self.method == "packed" else 1

    @property
    def packs_per_group(self) -> int:
        """Packs that are filled together: the place of a seed without a plan goes to the next seed of its group."""
        return 4 if self.method == "packed" else 1
