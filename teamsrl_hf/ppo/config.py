"""Arguments of `InstructionGenPPOTrainer`: those of `transformers.TrainingArguments` and PPO's own."""

from dataclasses import dataclass, field

from transformers import TrainingArguments

from ..errors import UserError, check_number
from ..hub.arguments import settle_hub_arguments
from ..models.base import Sampling
from ..publish.licenses import settle_license
from ..training.checks import check_training

# Rollouts that a budget is cut into, and chains of a rollout at most. A small budget teaches more in eight small
# rollouts than in three large ones (recipes/operation_policy).
ROLLOUTS, MOST_CHAINS = 8, 128


@dataclass
class InstructionGenPPOConfig(TrainingArguments):
    """Arguments of the PPO trainer.

    A rollout holds `per_device_train_batch_size × gradient_accumulation_steps × num_mini_batches` episodes on each
    process, and is used for `num_ppo_epochs × num_mini_batches` optimizer steps. One epoch walks every seed once.
    With `total_episodes`, rollouts get a size that fits that budget; `max_steps` beside it ends the training earlier.

    With `push_to_hub`, the trainer's `save_model()` pushes the policy, in one commit, to a repository that is private
    unless `hub_private_repo` is False. Checkpoints are never pushed: as `hub_strategy`, "end" and the default
    "every_save" mean the same. Other values are errors, as are `hub_token` and `hub_always_push`.
    """

    learning_rate: float = field(
        default=1e-2, metadata={"help": "Initial learning rate of AdamW; for the small policy, less for a backbone's."}
    )
    lr_scheduler_type: str = field(default="linear", metadata={"help": "Learning rate schedule."})
    max_grad_norm: float = field(default=0.5, metadata={"help": "Gradient norm limit (OpenAI baselines, ppo2)."})
    logging_steps: float = field(default=16, metadata={"help": "Log every so many optimizer steps."})
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Keep False: seed columns are read by the rollout, not by the model."}
    )
    bf16: bool = field(default=False, metadata={"help": "bfloat16 autocast; no gain for the default policy."})

    total_episodes: int | None = field(
        default=None,
        metadata={"help": "Chains to learn from, in all; sets max_steps and per_device_train_batch_size."},
    )
    warm_start: float = field(
        default=0.0,
        metadata={"help": "Share of total_episodes in which a bandit chooses; the policy starts as its imitation."},
    )
    operations_per_episode: int = field(default=6, metadata={"help": "Operations tried in each chain (paper: 6)."})
    temperature: float = field(
        default=0.7, metadata={"help": "Sampling temperature of the instructor (paper's code: 0.7)."}
    )
    top_p: float = field(
        default=0.95, metadata={"help": "Nucleus that the instructor samples from (paper's code: 0.95)."}
    )
    max_tokens: int = field(default=2048, metadata={"help": "Most tokens of a rewrite by the instructor."})
    sampling_seed: int | None = field(
        default=None, metadata={"help": "Seed that the instructor samples with; left out: another each time."}
    )
    num_ppo_epochs: int = field(
        default=8, metadata={"help": "Passes over each rollout (recipes/operation_policy; TRL PPO: 4)."}
    )
    num_mini_batches: int = field(default=4, metadata={"help": "Minibatches per pass (OpenAI baselines, ppo2: 4)."})
    gamma: float = field(
        default=0.5, metadata={"help": "Discount (recipes/operation_policy; the paper's 0.995 learns worse there)."}
    )
    lam: float = field(default=0.97, metadata={"help": "Lambda of GAE (paper's code: 0.97)."})
    cliprange: float = field(default=0.2, metadata={"help": "Clip range of the policy ratio (Schulman et al. 2017)."})
    cliprange_value: float = field(default=0.2, metadata={"help": "Clip range of the value (TRL PPO: 0.2)."})
    vf_coef: float = field(default=0.5, metadata={"help": "Weight of the value loss (OpenAI baselines: 0.5)."})
    entropy_coef: float = field(
        default=0.01, metadata={"help": "Weight of the entropy bonus (Schulman et al. 2017: 0.01)."}
    )
    kl_coef: float = field(
        default=0.0, metadata={"help": "Weight of the divergence from the initial policy; 0 keeps no reference."}
    )
    target_kl: float | None = field(
        default=None, metadata={"help": "End a rollout's updates once the divergence passes 1.5 times this."}
    )
    bootstrap_value: bool = field(
        default=False, metadata={"help": "Count a chain's end as a cut, not as an end: add the value of what follows."}
    )
    whiten_advantages: bool = field(default=True, metadata={"help": "Whiten advantages over the whole rollout."})
    reward_weights: list[float] | None = field(
        default=None, metadata={"help": "Weight of each reward function, in order; all 1 when left out."}
    )
    license: str | None = field(
        default=None, metadata={"help": "Licence of the policy, as the Hub names it, for its card; left out: unknown."}
    )

    def __post_init__(self):
        self.output_dir = "." if self.output_dir == "" else self.output_dir  # As for every other path here.
        super().__post_init__()
        settle_hub_arguments(self)
        settle_license(self.license, ours=False)
        check_training(self)
        _ = self.sampling  # Which checks its numbers.
        for name in ("operations_per_episode", "num_ppo_epochs", "num_mini_batches"):
            check_number(name, getattr(self, name), 1, whole=True)
        for name in ("gamma", "lam"):
            check_number(name, getattr(self, name), 0, 1)
        for name in ("cliprange", "cliprange_value"):
            check_number(name, getattr(self, name), above=0)
        for name in ("vf_coef", "entropy_coef", "kl_coef"):
            check_number(name, getattr(self, name), 0)
        check_number("warm_start", self.warm_start, 0, below=1)
        if self.total_episodes is not None:
            self._settle_budget(self.total_episodes)
        if self.warm_start and (self.total_episodes is None or self.world_size > 1):
            raise UserError(
                "warm_start is a share of total_episodes, and works in one process; give that, or leave it out."
            )
        if self.target_kl is not None:
            check_number("target_kl", self.target_kl, above=0)
        if self.target_kl is not None and self.deepspeed_plugin is not None:
            raise UserError("target_kl can't stop a DeepSpeed engine in the middle of a rollout; leave it out.")

    def _settle_budget(self, total: int) -> None:
        """Set the size of a rollout and the number of optimizer steps, so that no more than `total` chains are walked.

        Raises:
            UserError: `total` is less than one chain for each minibatch, or ends before `max_steps`.
        """
        parts = self.num_mini_batches * self.gradient_accumulation_steps * self.world_size
        check_number("total_episodes", total, parts, whole=True)
        size = max(1, min(total // ROLLOUTS, MOST_CHAINS) // parts)
        rollouts = total // (size * parts) - self.warm_rollouts(size * parts)
        steps = rollouts * self.num_ppo_epochs * self.num_mini_batches
        if self.max_steps > steps:
            raise UserError(f"total_episodes={total} ends after {steps} steps, before max_steps; leave one out.")
        self.per_device_train_batch_size, self.max_steps = size, self.max_steps if self.max_steps > 0 else steps

    def warm_rollouts(self, episodes: int) -> int:
        """Rollouts of `episodes` chains in which the bandit chooses."""
        return int(self.warm_start * ((self.total_episodes or 0) // episodes))

    @property
    def sampling(self) -> Sampling:
        """Sampling parameters of the instructor."""
        return Sampling(self.temperature, self.top_p, self.max_tokens, self.sampling_seed)

    @property
    def steps_per_rollout(self) -> int:
        """Micro-batches from one rollout; `gradient_accumulation_steps` of them make an optimizer step."""
        return self.num_ppo_epochs * self.num_mini_batches * self.gradient_accumulation_steps

    @property
    def episodes_per_rollout(self) -> int:
        """Episodes of one rollout on one process."""
        return self.per_device_train_batch_size * self.num_mini_batches * self.gradient_accumulation_steps
