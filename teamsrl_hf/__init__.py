"""TeaMs-RL on the Hugging Face stack: reinforcement learning that writes better instruction datasets.

Names are resolved on first use, so that importing the package loads neither torch nor datasets.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_ROOMS = {
    "baselines": (
        *("CHOOSERS", "LinUCBChooser", "ThompsonChooser", "load_chooser", "paper_chooser", "save_chooser"),
        *("train_chooser", "uniform_chooser"),
    ),
    "callbacks": ("EvolvedExamplesCallback",),
    "environment": ("rollout",),
    "errors": ("CallsRefused", "Stopped", "UserError"),
    "evaluation": ("instruction_measures", "query_efficiency"),
    "evolver": ("DatasetEvolver", "EvolverConfig"),
    "filters": ("Decontamination", "language", "length_limits", "load_benchmark"),
    "generation": ("Completion", "EndpointGenerator", "Generator", "Request", "Sampling", "ScriptedGenerator"),
    "hub": ("push_adapter", "push_dataset", "push_folder", "push_policy"),
    "judging": ("judge_pairs", "win_rate"),
    "ledger": ("Budget", "BudgetExhausted", "Ledger", "Price"),
    "local_generation": ("TransformersGenerator",),
    "models": ("make_generator",),
    "operations": ("OPERATIONS", "Operation"),
    "policy": ("OperationPolicy", "OperationPolicyConfig", "load_policy"),
    "ppo_config": ("InstructionGenPPOConfig",),
    "ppo_trainer": ("InstructionGenPPOTrainer",),
    "privacy": ("audit",),
    "report": ("write_report",),
    "reviewer": ("novelty_reward", "validity_reward"),
    "rulebook": ("Rulebook",),
    "schema": ("DatasetWriter",),
    "seeds": ("load_seeds", "seeds_to_dataset", "split_seeds"),
    "types": (
        *("CallKind", "Candidate", "Example", "Reason", "Rejection", "Review", "Role", "Seed", "State", "Trajectory"),
        *("Transition", "Verdict"),
    ),
}
_HOME = {name: room for room, names in _ROOMS.items() for name in names}
__all__ = sorted(_HOME)

if TYPE_CHECKING:
    from .baselines import CHOOSERS as CHOOSERS
    from .baselines import LinUCBChooser as LinUCBChooser
    from .baselines import ThompsonChooser as ThompsonChooser
    from .baselines import load_chooser as load_chooser
    from .baselines import paper_chooser as paper_chooser
    from .baselines import save_chooser as save_chooser
    from .baselines import train_chooser as train_chooser
    from .baselines import uniform_chooser as uniform_chooser
    from .callbacks import EvolvedExamplesCallback as EvolvedExamplesCallback
    from .environment import rollout as rollout
    from .errors import CallsRefused as CallsRefused
    from .errors import Stopped as Stopped
    from .errors import UserError as UserError
    from .evaluation import instruction_measures as instruction_measures
    from .evaluation import query_efficiency as query_efficiency
    from .evolver import DatasetEvolver as DatasetEvolver
    from .evolver import EvolverConfig as EvolverConfig
    from .filters import Decontamination as Decontamination
    from .filters import language as language
    from .filters import length_limits as length_limits
    from .filters import load_benchmark as load_benchmark
    from .generation import Completion as Completion
    from .generation import EndpointGenerator as EndpointGenerator
    from .generation import Generator as Generator
    from .generation import Request as Request
    from .generation import Sampling as Sampling
    from .generation import ScriptedGenerator as ScriptedGenerator
    from .hub import push_adapter as push_adapter
    from .hub import push_dataset as push_dataset
    from .hub import push_folder as push_folder
    from .hub import push_policy as push_policy
    from .judging import judge_pairs as judge_pairs
    from .judging import win_rate as win_rate
    from .ledger import Budget as Budget
    from .ledger import BudgetExhausted as BudgetExhausted
    from .ledger import Ledger as Ledger
    from .ledger import Price as Price
    from .local_generation import TransformersGenerator as TransformersGenerator
    from .models import make_generator as make_generator
    from .operations import OPERATIONS as OPERATIONS
    from .operations import Operation as Operation
    from .policy import OperationPolicy as OperationPolicy
    from .policy import OperationPolicyConfig as OperationPolicyConfig
    from .policy import load_policy as load_policy
    from .ppo_config import InstructionGenPPOConfig as InstructionGenPPOConfig
    from .ppo_trainer import InstructionGenPPOTrainer as InstructionGenPPOTrainer
    from .privacy import audit as audit
    from .report import write_report as write_report
    from .reviewer import novelty_reward as novelty_reward
    from .reviewer import validity_reward as validity_reward
    from .rulebook import Rulebook as Rulebook
    from .schema import DatasetWriter as DatasetWriter
    from .seeds import load_seeds as load_seeds
    from .seeds import seeds_to_dataset as seeds_to_dataset
    from .seeds import split_seeds as split_seeds
    from .types import CallKind as CallKind
    from .types import Candidate as Candidate
    from .types import Example as Example
    from .types import Reason as Reason
    from .types import Rejection as Rejection
    from .types import Review as Review
    from .types import Role as Role
    from .types import Seed as Seed
    from .types import State as State
    from .types import Trajectory as Trajectory
    from .types import Transition as Transition
    from .types import Verdict as Verdict


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
