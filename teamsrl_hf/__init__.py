"""TeaMs-RL on the Hugging Face stack: reinforcement learning that writes better instruction datasets.

Names are resolved on first use, so that importing the package loads neither torch nor datasets.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_ROOMS = {
    "environment.bandits": ("LinUCBChooser", "ThompsonChooser", "train_chooser"),
    "environment.choosers": ("CHOOSERS", "load_chooser", "paper_chooser", "save_chooser", "uniform_chooser"),
    "ppo.callbacks": ("EvolvedExamplesCallback",),
    "environment.rewriter": ("rewriter_reward", "rewriting_rows"),
    "environment.student.answers": ("gap_reward", "learnability_reward", "verified_reward"),
    "environment.student.influence": ("Influence", "influence_reward"),
    "environment.student.losses": ("AnswerLosses", "ifd_reward"),
    "environment.rollout": ("rollout",),
    "environment.tools": ("evolution_environment", "evolution_rows"),
    "errors": ("CallsRefused", "Stopped", "UserError"),
    "evaluation.measures": ("instruction_measures", "query_efficiency"),
    "evolve.evolver": ("DatasetEvolver", "EvolverConfig"),
    "evolve.write": ("WrittenDataset",),
    "evolve.dedup": ("NearDuplicates",),
    "evolve.filters": ("Decontamination", "language", "length_limits", "load_benchmark"),
    "models.base": ("Completion", "Generator", "Request", "Sampling", "ScriptedGenerator", "Task"),
    "models.endpoint": ("EndpointGenerator",),
    "hub.push": ("push_adapter", "push_dataset", "push_folder", "push_policy"),
    "evaluation.judging": ("judge_pairs", "win_rate"),
    "models.budget": ("Budget", "BudgetExhausted", "Price"),
    "models.ledger": ("Ledger",),
    "models.local": ("TransformersGenerator",),
    "models.factory": ("make_generator",),
    "text.operations": ("OPERATIONS", "Operation", "with_prompts"),
    "ppo.policy": ("OperationPolicy", "OperationPolicyConfig", "load_policy"),
    "ppo.config": ("InstructionGenPPOConfig",),
    "ppo.trainer": ("InstructionGenPPOTrainer",),
    "evaluation.privacy.report": ("audit",),
    "publish.report": ("write_report",),
    "environment.review": ("novelty_reward", "validity_reward"),
    "text.rules": ("instruction_violations", "response_violations"),
    "models.rulebook.rules": ("Rulebook",),
    "publish.dataset_writer": ("DatasetWriter",),
    "text.seeds": ("load_seeds", "seeds_to_dataset", "split_seeds"),
    "types": (
        *("CallKind", "Candidate", "Example", "Reason", "Rejection", "Review", "Role", "Seed", "State", "Trajectory"),
        *("TaskKind", "Transition", "Verdict", "Verifier"),
    ),
    "verifiers.reward": ("verifier_reward",),
}
_HOME = {name: room for room, names in _ROOMS.items() for name in names}
__all__ = sorted(_HOME)

if TYPE_CHECKING:
    from .environment.bandits import LinUCBChooser as LinUCBChooser
    from .environment.bandits import ThompsonChooser as ThompsonChooser
    from .environment.bandits import train_chooser as train_chooser
    from .environment.choosers import CHOOSERS as CHOOSERS
    from .environment.choosers import load_chooser as load_chooser
    from .environment.choosers import paper_chooser as paper_chooser
    from .environment.choosers import save_chooser as save_chooser
    from .environment.choosers import uniform_chooser as uniform_chooser
    from .environment.review import novelty_reward as novelty_reward
    from .environment.review import validity_reward as validity_reward
    from .environment.rewriter import rewriter_reward as rewriter_reward
    from .environment.rewriter import rewriting_rows as rewriting_rows
    from .environment.rollout import rollout as rollout
    from .environment.student.answers import gap_reward as gap_reward
    from .environment.student.answers import learnability_reward as learnability_reward
    from .environment.student.answers import verified_reward as verified_reward
    from .environment.student.influence import Influence as Influence
    from .environment.student.influence import influence_reward as influence_reward
    from .environment.student.losses import AnswerLosses as AnswerLosses
    from .environment.student.losses import ifd_reward as ifd_reward
    from .environment.tools import evolution_environment as evolution_environment
    from .environment.tools import evolution_rows as evolution_rows
    from .errors import CallsRefused as CallsRefused
    from .errors import Stopped as Stopped
    from .errors import UserError as UserError
    from .evaluation.judging import judge_pairs as judge_pairs
    from .evaluation.judging import win_rate as win_rate
    from .evaluation.measures import instruction_measures as instruction_measures
    from .evaluation.measures import query_efficiency as query_efficiency
    from .evaluation.privacy.report import audit as audit
    from .evolve.dedup import NearDuplicates as NearDuplicates
    from .evolve.evolver import DatasetEvolver as DatasetEvolver
    from .evolve.evolver import EvolverConfig as EvolverConfig
    from .evolve.filters import Decontamination as Decontamination
    from .evolve.filters import language as language
    from .evolve.filters import length_limits as length_limits
    from .evolve.filters import load_benchmark as load_benchmark
    from .evolve.write import WrittenDataset as WrittenDataset
    from .hub.push import push_adapter as push_adapter
    from .hub.push import push_dataset as push_dataset
    from .hub.push import push_folder as push_folder
    from .hub.push import push_policy as push_policy
    from .models.base import Completion as Completion
    from .models.base import Generator as Generator
    from .models.base import Request as Request
    from .models.base import Sampling as Sampling
    from .models.base import ScriptedGenerator as ScriptedGenerator
    from .models.base import Task as Task
    from .models.budget import Budget as Budget
    from .models.budget import BudgetExhausted as BudgetExhausted
    from .models.budget import Price as Price
    from .models.endpoint import EndpointGenerator as EndpointGenerator
    from .models.factory import make_generator as make_generator
    from .models.ledger import Ledger as Ledger
    from .models.local import TransformersGenerator as TransformersGenerator
    from .models.rulebook.rules import Rulebook as Rulebook
    from .ppo.callbacks import EvolvedExamplesCallback as EvolvedExamplesCallback
    from .ppo.config import InstructionGenPPOConfig as InstructionGenPPOConfig
    from .ppo.policy import OperationPolicy as OperationPolicy
    from .ppo.policy import OperationPolicyConfig as OperationPolicyConfig
    from .ppo.policy import load_policy as load_policy
    from .ppo.trainer import InstructionGenPPOTrainer as InstructionGenPPOTrainer
    from .publish.dataset_writer import DatasetWriter as DatasetWriter
    from .publish.report import write_report as write_report
    from .text.operations import OPERATIONS as OPERATIONS
    from .text.operations import Operation as Operation
    from .text.operations import with_prompts as with_prompts
    from .text.rules import instruction_violations as instruction_violations
    from .text.rules import response_violations as response_violations
    from .text.seeds import load_seeds as load_seeds
    from .text.seeds import seeds_to_dataset as seeds_to_dataset
    from .text.seeds import split_seeds as split_seeds
    from .types import CallKind as CallKind
    from .types import Candidate as Candidate
    from .types import Example as Example
    from .types import Reason as Reason
    from .types import Rejection as Rejection
    from .types import Review as Review
    from .types import Role as Role
    from .types import Seed as Seed
    from .types import State as State
    from .types import TaskKind as TaskKind
    from .types import Trajectory as Trajectory
    from .types import Transition as Transition
    from .types import Verdict as Verdict
    from .types import Verifier as Verifier
    from .verifiers.reward import verifier_reward as verifier_reward


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
