"""Reward functions by name: in go the options of a command, out come functions whose calls a ledger records."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import UserError, check_number, did_you_mean
from ...models.base import Generator, Sampling
from ...models.factory import check_model, make_generator
from ...public import public_model
from ...text.operations import CONSTRAINTS, UNCHECKED, Operation, with_proofs
from ..review import DEFAULT_REWARDS
from ..rewards import RewardFunction, name_of
from .answers import gap_reward, learnability_reward, verified_reward
from .influence import Influence, influence_reward
from .losses import AnswerLosses, Row, ifd_reward, loaded_in

_PLAIN = {name_of(function): function for function in DEFAULT_REWARDS}
# Those that ask a student for answers to check, and those that read its losses.
_ASKING: Mapping[str, Callable[..., RewardFunction]] = {
    "verified_reward": verified_reward,
    "learnability_reward": learnability_reward,
    "gap_reward": gap_reward,
}
_READING = ("ifd_reward", "influence_reward")
REWARDS = (*_PLAIN, *_ASKING, *_READING)


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
    anchors: str | None = field(
        default=None,
        metadata={"help": "influence_reward: JSONL file of rows to get better at, with instruction and response."},
    )
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
        wanted = {"student": (*_ASKING, *_READING), "strong_student": ["gap_reward"], "anchors": ["influence_reward"]}
        for option, names in wanted.items():
            needing = [name for name in self.reward_funcs if name in names]
            if needing and getattr(self, option) is None:
                raise UserError(f"{needing[0]} needs what nobody has named; name it with --{option}.")

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

    def make(
        self, record: Callable[[Generator], Generator], answerer: Generator, seed: int | None = None
    ) -> list[RewardFunction]:
        """The functions; models are loaded, and wrapped by `record`, such as `Ledger.record`.

        Args:
            answerer: Model whose answers `ifd_reward` and `influence_reward` have a student read.
            seed: Of the sampling of students; None for a random one.

        Raises:
            UserError: A model or the anchors can't be loaded, or the student to read is not in this process.
        """
        names = [name for name in self.reward_funcs if name not in _PLAIN]
        student: Any = make_generator(self.student or "") if names else None
        made = {name: self._asking(name, student, record, seed) for name in names if name in _ASKING}
        made |= {name: self._reading(name, student, record, answerer) for name in names if name in _READING}
        return [_PLAIN.get(name) or made[name] for name in self.reward_funcs]

    def _asking(self, name: str, student: Generator, record: Callable, seed: int | None) -> RewardFunction:
        sampling = Sampling(self.student_temperature, max_tokens=self.student_max_tokens, seed=seed)
        models = {"student": record(student)}
        if name == "gap_reward":
            models["strong"] = record(make_generator(self.strong_student or ""))
        return _ASKING[name](**models, samples=self.student_samples, sampling=sampling)

    def _reading(self, name: str, student: Generator, record: Callable, answerer: Generator) -> RewardFunction:
        greedy = Sampling(temperature=0.0, top_p=1.0, max_tokens=self.student_max_tokens)
        model, tokenizer = loaded_in(student)
        if name == "ifd_reward":
            return ifd_reward(record(AnswerLosses(model, tokenizer, student.model)), answerer, greedy)
        reader = Influence(model, tokenizer, student.model, read_anchors(self.anchors or ""))
        return influence_reward(record(reader), answerer, greedy)

    @property
    def facts(self) -> dict[str, Any]:
        """What a record of the training says of its rewards."""
        named = {"student": self.student, "strong_student": self.strong_student}
        models = {name: public_model(spec) for name, spec in named.items() if spec is not None}
        return {"reward_funcs": list(self.reward_funcs), **models}


def read_anchors(path: str | Path) -> list[Row]:
    """The rows of a JSONL file with the texts `instruction` and `response`.

    Raises:
        UserError: There is no such file, or a line has other content.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
        rows = [json.loads(line) for line in lines if line.strip()]
        found = [(row["instruction"], row["response"]) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"Can't read anchors from {path} ({type(error).__name__}: {error}); give a JSONL file with instruction "
            "and response."
        ) from error
    if not all(isinstance(text, str) for row in found for text in row):
        raise UserError(f"{path} holds an instruction or response that is no text; correct it.")
    return found
