"""Reward functions by name: in go the options of a command, out come functions whose calls a ledger records."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...errors import UserError, check_number, did_you_mean
from ...models.base import Generator, Sampling
from ...models.factory import check_model, make_generator
from ...public import public_model
from ...text.operations import CONSTRAINTS, UNCHECKED, Operation, with_proofs
from ..review import DEFAULT_REWARDS
from ..rewards import RewardFunction, name_of
from .answers import gap_reward, learnability_reward, verified_reward

_PLAIN = {name_of(function): function for function in DEFAULT_REWARDS}
_ASKING: Mapping[str, Callable[..., RewardFunction]] = {
    "verified_reward": verified_reward,
    "learnability_reward": learnability_reward,
    "gap_reward": gap_reward,
}
REWARDS = (*_PLAIN, *_ASKING)


@dataclass
class RewardArguments:
    """What pays the operations, and the student that some rewards ask."""

    reward_funcs: list[str] = field(
        default_factory=lambda: list(_PLAIN),
        metadata={"help": f"Reward functions, of {', '.join(REWARDS)}; reward_weights weighs them."},
    )
    student: str | dict | None = field(
        default=None, metadata={"help": "Model that rewards about a student ask: the one to be trained on the rows."}
    )
    strong_student: str | dict | None = field(
        default=None, metadata={"help": "gap_reward: model that should pass where the student fails."}
    )
    student_samples: int = field(default=4, metadata={"help": "Answers of a student to each rewrite."})
    student_temperature: float = field(default=0.7, metadata={"help": "Sampling temperature of these answers."})
    student_max_tokens: int = field(default=512, metadata={"help": "Longest of these answers."})
    constraints: str = field(
        default=UNCHECKED,
        metadata={"help": "What add_constraints adds, as in `teamsrl evolve`.", "choices": CONSTRAINTS},
    )

    def __post_init__(self) -> None:
        for name in self.reward_funcs:
            if name not in REWARDS:
                raise UserError(
                    f"No reward function {name!r}; there are {', '.join(REWARDS)}{did_you_mean(name, REWARDS)}"
                )
        check_number("student_samples", self.student_samples, 1, whole=True)
        check_number("student_max_tokens", self.student_max_tokens, 1, whole=True)
        check_number("student_temperature", self.student_temperature, 0)
        asking = [name for name in self.reward_funcs if name in _ASKING]
        wanted = {"student": asking, "strong_student": [name for name in asking if name == "gap_reward"]}
        for option, names in wanted.items():
            if names and getattr(self, option) is None:
                raise UserError(f"{names[0]} asks a model that nobody has named; name it with --{option}.")

    def operations(self, operations: Sequence[Operation]) -> tuple[Operation, ...]:
        """The operations with what `constraints` says.

        Raises:
            UserError: A reward is paid for verifiers, and no operation adds any.
        """
        changed = with_proofs(operations, self.constraints)
        asking = [name for name in self.reward_funcs if name in _ASKING]
        if asking and not any(one.proof for one in changed):
            raise UserError(
                f"{asking[0]} is paid for answers that code can check, and no operation adds what to check; give "
                "--constraints rules, or an operation of your own with `verifiers`."
            )
        return changed

    def check(self) -> None:
        """UserError for a model that can't be made, as far as that shows without loading it."""
        for spec in (self.student, self.strong_student):
            if spec is not None:
                check_model(spec)

    def make(self, record: Callable[[Generator], Generator], seed: int | None = None) -> list[RewardFunction]:
        """The functions; models are loaded, and wrapped by `record`, such as `Ledger.record`.

        Args:
            seed: Of the sampling of students; None for a random one.
        """
        sampling = Sampling(self.student_temperature, max_tokens=self.student_max_tokens, seed=seed)
        models: dict[str, Any] = {}
        if any(name in _ASKING for name in self.reward_funcs):
            models["student"] = record(make_generator(self.student or ""))
        if "gap_reward" in self.reward_funcs:
            models["strong"] = record(make_generator(self.strong_student or ""))
        return [self._function(name, models, sampling) for name in self.reward_funcs]

    def _function(self, name: str, models: Mapping[str, Generator], sampling: Sampling) -> RewardFunction:
        if name in _PLAIN:
            return _PLAIN[name]
        asked = models if name == "gap_reward" else {"student": models["student"]}
        return _ASKING[name](**asked, samples=self.student_samples, sampling=sampling)

    @property
    def facts(self) -> dict[str, Any]:
        """What a record of the training says of its rewards."""
        named = {"student": self.student, "strong_student": self.strong_student}
        models = {name: public_model(spec) for name, spec in named.items() if spec is not None}
        return {"reward_funcs": list(self.reward_funcs), **models}
