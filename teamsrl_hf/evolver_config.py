"""Settings of the evolver: in go numbers and the name of a method, out comes a checked dataclass."""

from dataclasses import dataclass

from .errors import UserError
from .generation import Sampling

METHODS = ("stepwise", "plan", "plan_answer", "packed", "evol_instruct")
PLANNED = ("plan", "plan_answer", "packed")  # Walked with the instructor first, then paid for.


@dataclass(frozen=True)
class EvolverConfig:
    """How to evolve.

    Attributes:
        operations_per_episode: Operations tried on each seed (paper: 6).
        concurrency: Chains walked, and chains answered, at the same time; for "packed", calls. A quarter more are
            walked where no model sends more than so many requests at once.
        seed: Seed of the random numbers the chooser draws with.
        dedup_threshold: Similarity to another seed's row from which on a row is a near-duplicate.
        temperature, top_p, max_tokens: How the expert samples (paper's code: 0.7, 0.95, 2048). A packed call gets
            `max_tokens` for each of its rows.
        method: What the expert is asked for: "stepwise" (one call per operation, one per answer), "plan" (one call per
            plan, one per answer), "plan_answer" (one call for both), "packed" (one call for `rows_per_call` of
            these) or "evol_instruct" (the baseline: random operations, rewrite, judge and answer each round).
        plan_length: Planned methods give a row for the whole plan (0), or one for every so many operations of it.
        rows_per_call: Seeds whose rows share one packed call.
        row_retries: How often a row of a planned answer that can't be read is asked for again.
        retry_cut: Ask once more, with twice the tokens, for an answer that `max_tokens` cut.
        stop_below: End a chain where the chooser expects less than this from going on; never if left out.
    """

    operations_per_episode: int = 6
    concurrency: int = 16
    seed: int = 42
    dedup_threshold: float = 0.7
    temperature: float = 0.7
    top_p: float = 0.95
    max_tokens: int = 2048
    method: str = "stepwise"
    plan_length: int = 0
    rows_per_call: int = 4
    row_retries: int = 1
    retry_cut: bool = False
    stop_below: float | None = None

    def __post_init__(self):
        for name in ("operations_per_episode", "concurrency", "max_tokens", "rows_per_call"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, not {getattr(self, name)}.")
        for name in ("plan_length", "row_retries"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} must be at least 0, not {getattr(self, name)}.")
        if not 0 < self.dedup_threshold <= 1:
            raise UserError(f"dedup_threshold must lie in (0, 1], not {self.dedup_threshold}.")
        if self.method not in METHODS:
            raise UserError(f"Unknown method {self.method!r}; use {', '.join(METHODS)}.")

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.temperature, self.top_p, self.max_tokens)

    @property
    def paid(self) -> tuple[str, ...]:
        """Kinds of calls that the expert is asked: in Evol-Instruct it is the judge, too."""
        return ("rewrite", "answer", *(["review"] if self.method == "evol_instruct" else []))

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
        """Packs filled together: a seed on which nothing was planned leaves its place to the next of its group."""
        return 4 if self.method == "packed" else 1
