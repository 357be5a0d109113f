"""Train the operation policy with PPO: in go seeds and the models that act on them, out comes a saved policy.

One rollout, in the order of this file: seeds → chains (`collect`) → rewards (`compute_rewards`) → transitions with
advantages → `num_ppo_epochs` passes of minibatches through `compute_loss` → `log`. The rest is `transformers.Trainer`.

Metrics, all means over the steps since the last log:
    reward, reward_std              sum of an episode's rewards: mean and deviation over the rollout
    rewards/<name>/mean, …/std      the same for one reward function, before weighting
    accept_rate                     share of rewrites that passed review
    failed_calls                    share of operations whose call failed: they are no steps, and chains with one are
                                    left out of the means of rewards
    operations/<name>               share of an operation among all taken
    advantage_mean, explained_variance   before whitening; how well the value head predicts returns
    policy_loss, value_loss, entropy, approx_kl, clip_ratio, kl   see `losses.PPOLosses`
    skipped                         share of minibatches skipped because `target_kl` was passed
"""

import copy
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from datasets import Dataset
from torch import nn
from transformers import TrainerCallback, set_seed

from ..environment.review import DEFAULT_REWARDS
from ..environment.rewards import RewardFunction, call_rewards, check_weights, weighted_sum
from ..environment.rollout import Chooser, rollout
from ..errors import UserError
from ..hub.arguments import settle_hub_arguments
from ..loading import library
from ..models.base import Generator
from ..text.operations import Operation
from ..text.seeds import seed_from_row
from ..types import Seed, State, Trajectory
from .card import PolicyReport
from .config import InstructionGenPPOConfig
from .losses import explained_variance, generalized_advantages, ppo_loss, reward_spread, whiten
from .metrics import LOGGED_LOSSES, reward_metrics, rollout_metrics, whole
from .policy import check_policy_operations
from .prepare import check_datasets, prepare_policy, unwrapped, warm_start
from .rollout_buffer import RolloutBuffer, RolloutSampler, RowNumbers, Tensors, collate_rows, file_of
from .transitions import Reading, read_chains, transitions

if TYPE_CHECKING:
    from peft import LoraConfig

POLICY_INPUTS = ("history", "action_mask", "input_ids", "attention_mask", "text_vectors")


class InstructionGenPPOTrainer(PolicyReport):
    """PPO for a policy over textual operations.

    Args:
        model: An `OperationPolicy`, or a Hub id or path: of a policy, or of an encoder or causal LM to read text with.
        args: `InstructionGenPPOConfig`.
        instructor: Model that carries out operations.
        reward_funcs: One function or a list, plain or async, see `environment.rewards`; by default validity and
            novelty. They are called on the main process only, once for the global batch, so that a paid judge is
            called once. `args.reward_weights` weighs them.
        operations: The operations behind the policy's actions; by default those in its config.
        train_dataset: Seeds, with columns `id`, `instruction`, `input` and any others; reward functions get them all.
        eval_dataset: Held-out seeds in the same form; `evaluate` compares the policy with the uniform chooser on them.
        processing_class: Tokenizer of the policy's backbone, if it has one.
        peft_config: Train a LoRA adapter on the backbone, and the heads in full.
        reviewer: Model that judges whether a rewrite gained anything; by default the instructor.

    Raises:
        UserError: An argument can't be used, or does not fit the others.

    To change the rollout or the reward, override `collect` or `compute_rewards`; for the loss, `compute_loss`.
    """

    # Losses are means over a micro-batch, so the Trainer must divide them by the number accumulated.
    loss_is_scaled_for_ga = False

    def __init__(
        self,
        model: Any,  # OperationPolicy | str; a PEFT model around a policy, too.
        args: InstructionGenPPOConfig,
        instructor: Generator,
        reward_funcs: RewardFunction | Sequence[RewardFunction] = DEFAULT_REWARDS,
        operations: Sequence[Operation] | None = None,
        train_dataset: Dataset | None = None,
        eval_dataset: Dataset | None = None,
        processing_class: Any = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[torch.optim.Optimizer | None, torch.optim.lr_scheduler.LambdaLR | None] = (None, None),
        peft_config: "LoraConfig | None" = None,
        reviewer: Generator | None = None,
    ):
        settle_hub_arguments(args)  # Again, since they can be changed once they are made.
        set_seed(args.seed)
        prepared = prepare_policy(model, operations, args, processing_class, peft_config)
        self.policy = unwrapped(prepared)
        self.operations = self.policy.config.operation_tuple()
        if operations:
            self.operations = check_policy_operations(self.policy, operations)
        self.instructor, self.reviewer = instructor, instructor if reviewer is None else reviewer
        self.reward_funcs = [reward_funcs] if callable(reward_funcs) else list(reward_funcs)
        self.reward_weights = check_weights(args.reward_weights, self.reward_funcs)
        check_datasets(train_dataset, eval_dataset)
        self.last_rollout: list[Trajectory] = []
        self._metrics: dict[str, list[float]] = defaultdict(list)
        self._losses, self._evaluations = [], []
        with library("The trainer can't be made with these arguments"):
            options: dict[str, Any] = {"callbacks": callbacks, "optimizers": optimizers}
            super().__init__(prepared, args, collate_rows, train_dataset, eval_dataset, processing_class, **options)
        self.ref_model = copy.deepcopy(self.policy).eval() if args.kl_coef and peft_config is None else None
        self._buffer = RolloutBuffer(args)

    def get_train_dataloader(self) -> Any:
        """Loads the row numbers of the seeds of each rollout of this process, once for each of its micro-batches."""
        self._buffer = RolloutBuffer(self.args)  # Without the rollout of an earlier train().
        return self._get_dataloader(
            dataset=RowNumbers(len(self._seeds())),
            description="Training",
            batch_size=self.args.episodes_per_rollout,
            sampler_fn=self._get_train_sampler,
            is_training=True,
        )

    def _get_train_sampler(self, train_dataset: Any = None) -> RolloutSampler:
        batch_size = self.args.episodes_per_rollout * self.accelerator.num_processes
        return RolloutSampler(len(self._seeds()), batch_size, self.args.steps_per_rollout, self.args.seed)

    # -- 1. chains and their rewards

    def collect(self, seeds: Sequence[Seed], choose: Chooser, key: Sequence[object]) -> list[Trajectory]:
        """Walk one chain from each of B seeds; random numbers depend on `key`, seed and step alone."""
        models, steps = (self.instructor, self.reviewer), self.args.operations_per_episode
        return rollout(seeds, choose, self.operations, *models, steps, key, self.args.sampling)

    def compute_rewards(self, trajectories: Sequence[Trajectory], **columns: list[Any]) -> torch.Tensor:
        """Rewards (B, T) of the global batch: the weighted sum of all reward functions, each logged by its name.

        Called on the main process only. `columns` are those of the dataset, with B values each.
        """
        extras: dict[str, list[Any]] = {}
        context = {"trainer_state": self.state, "log_metric": self._record, "log_extra": extras.__setitem__}
        rewards = call_rewards(self.reward_funcs, trajectories, **columns, **context)
        self._record_all(reward_metrics(rewards, trajectories))
        total = torch.from_numpy(weighted_sum(rewards, self.reward_weights))
        self.last_rollout, self.last_rewards, self.last_extras = list(trajectories), total, extras
        return total

    def _roll_out(self, rows: list[dict[str, Any]], number: int) -> Tensors:
        """One rollout of this process as tensors of N transitions, rewarded within the global batch."""
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        # Only where chains outnumber seeds do processes share a seed; they must not walk it with the same numbers.
        shared = (rank,) if len(self._seeds()) < len(rows) * world else ()
        key = ("train", self.args.seed, number, *shared)
        own = self.collect([seed_from_row(row) for row in rows], self._choose, key)
        everyone, everyones_rows = _gathered(own), _gathered(rows)
        rewards = self._rewarded(everyone, everyones_rows)
        self._record_all(rollout_metrics(everyone, rewards, self.operations))
        start = rank * len(own)
        spread = reward_spread(rewards[whole(everyone)], self.args.gamma)
        return self._to_tensors(own, rewards[start : start + len(own)], spread)

    # -- 2. advantages

    def _to_tensors(self, chains: Sequence[Trajectory], rewards: torch.Tensor, spread: torch.Tensor) -> Tensors:
        """The inputs of the loss, by name, for the N transitions of B chains with rewards (B, T)."""
        # A chain with failed calls was cut off, too: with those steps it would have earned more.
        cut = [self.args.bootstrap_value or bool(chain.failed) for chain in chains]
        cut_somewhere = any(_gathered([any(cut)]))
        reading = read_chains(chains, rewards.shape[1], self._read, cut if cut_somewhere else None)
        advantages, returns = self.compute_advantages(rewards, reading, spread)
        inputs, acted = transitions(chains, reading, self.policy.operation_names)
        return {**inputs, **acted, "advantages": advantages, "returns": returns, **self._reference(inputs)}

    def compute_advantages(
        self, rewards: torch.Tensor, reading: Reading, spread: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Advantages and returns (N,) of transitions with rewards (B, T); whitened over all processes if so asked."""
        value, final, gamma, lam = reading.value, reading.final_value, self.args.gamma, self.args.lam
        padded = generalized_advantages(rewards, value, gamma, lam, final, reading.lengths)
        advantages, returns, value = (table[reading.taken] for table in (*padded, value))
        everyones = torch.tensor(_gathered(torch.stack([value, returns, advantages], 1).tolist()))
        self._record("explained_variance", explained_variance(everyones[:, 0], everyones[:, 1]))
        self._record("advantage_mean", everyones[:, 2].mean())
        if self.args.whiten_advantages:
            advantages = whiten(advantages, everyones[:, 2], spread)
        return advantages, returns

    def _reference(self, inputs: Tensors) -> Tensors:
        """Log-probabilities (N, K) of the initial policy; nothing where the loss gives them no weight."""
        if not self.args.kl_coef:
            return {}
        if self.ref_model is not None:
            logits, _ = self._forward(inputs, self.ref_model.to(self.args.device))
        else:
            with self.accelerator.unwrap_model(self.model).disable_adapter():
                logits, _ = self._forward(inputs)
        return {"ref_logprobs": torch.log_softmax(logits, -1)}

    # -- 3. minibatches and the loss

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """One micro-batch, or no gradient at all where its rollout was stopped by `target_kl`."""
        if self._buffer.skip():
            self._record("skipped", 1.0)
            return torch.zeros((), device=self.args.device)  # So the optimizer stands still.
        return super().training_step(model, inputs, num_items_in_batch)

    def _prepare_inputs(self, inputs: Any) -> Tensors:
        """The next micro-batch, after a rollout of these seeds if the last one is used up."""
        number, position = self._buffer.position
        if number == position == 0:
            warm_start(self)
        if position == 0:
            self._buffer.tensors = self._roll_out(_rows(self._seeds(), inputs["rows"]), number)
        return {name: tensor.to(self.args.device) for name, tensor in self._buffer.take().items()}

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean PPO loss of a micro-batch; see `losses.ppo_loss` for its parts."""
        output = model(**{name: tensor for name, tensor in inputs.items() if name in POLICY_INPUTS})
        losses = ppo_loss(
            output.logits,
            output.value,
            **{name: tensor for name, tensor in inputs.items() if name not in POLICY_INPUTS},
            cliprange=self.args.cliprange,
            cliprange_value=self.args.cliprange_value,
            vf_coef=self.args.vf_coef,
            entropy_coef=self.args.entropy_coef,
            kl_coef=self.args.kl_coef,
        )
        # Copied to the CPU and averaged over processes only when logged: here it would stall a GPU at every step.
        self._losses.append(torch.stack([getattr(losses, name) for name in LOGGED_LOSSES]))
        self._watch_divergence(losses.approx_kl)
        return (losses.total, output) if return_outputs else losses.total

    def _watch_divergence(self, approx_kl: torch.Tensor) -> None:
        """Stop the rollout, on all processes alike, once the policy has moved too far from the one that acted."""
        if self.args.target_kl is None:
            return
        self._record("skipped", 0.0)
        if self.accelerator.reduce(approx_kl, "mean") > 1.5 * self.args.target_kl:
            self._buffer.stop()

    # -- 4. checkpoints and evaluation; `PolicyReport` has the log

    def checkpoint_files(self) -> list[str]:
        """The rollout of each process."""
        return [file_of(rank) for rank in range(self.args.world_size)]

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        self._buffer.save(output_dir, self.args.process_index)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            taken = self.state.global_step * self.args.gradient_accumulation_steps
            self._buffer.load(checkpoint, self.args.process_index, taken)

    def _evaluate_chooser(self, dataset: Dataset, choose: Chooser) -> tuple[list[Trajectory], torch.Tensor]:
        """Chains from all B seeds, and the sum of rewards of each, (B,)."""
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        # Each process takes consecutive rows: gathering them restores the order, on which rewards may depend.
        rows = _rows(dataset, torch.arange(len(dataset)).tensor_split(world)[rank])
        own = self.collect([seed_from_row(row) for row in rows], choose, ("eval", self.args.seed))
        everyone = _gathered(own)
        recorded, self._metrics = self._metrics, defaultdict(list)  # These rewards stay out of the training's log.
        rewards = self._rewarded(everyone, _gathered(rows)).sum(1)
        self._metrics = recorded
        return everyone, rewards

    # -- the parts

    def _seeds(self) -> Dataset:
        if self.train_dataset is None:
            raise UserError("train() needs seeds; pass train_dataset to the trainer.")
        return self.train_dataset

    def _read(self, states: Sequence[State]) -> tuple[Tensors, torch.Tensor, torch.Tensor]:
        """Inputs, logits (N, K) and values (N,) of N states."""
        inputs = self.policy.featurize(states)
        return inputs, *self._forward(inputs)

    def _forward(self, inputs: Tensors, model: Callable[..., Any] | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (N, K) and values (N,) on the CPU in float32, without gradients, as the loss would compute them."""
        with torch.no_grad(), self.compute_loss_context_manager():
            # The wrapped model, since ZeRO-3 and FSDP gather their weights in its forward.
            output = (self.model_wrapped if model is None else model)(
                **{name: tensor.to(self.args.device) for name, tensor in inputs.items()}
            )
        return output.logits.float().cpu(), output.value.float().cpu()

    def _rewarded(self, trajectories: list[Trajectory], rows: list[dict[str, Any]]) -> torch.Tensor:
        """The rewards that `compute_rewards` returns on the main process, on every process."""
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        rewards: list[Any] = [None]
        if self.is_world_process_zero():
            rewards = [self.compute_rewards(trajectories, **columns)]
        return rewards[0] if self.accelerator.num_processes == 1 else broadcast_object_list(rewards)[0]


def _gathered(values: list[Any]) -> list[Any]:
    """The values of all processes, in the order of their ranks."""
    return gather_object(values) if PartialState().num_processes > 1 else values


def _rows(dataset: Dataset, numbers: torch.Tensor) -> list[dict[str, Any]]:
    """Rows of a dataset, read at once, which is many times faster than one by one."""
    columns = dataset[numbers.tolist()]
    return [dict(zip(columns, values)) for values in zip(*columns.values())]
