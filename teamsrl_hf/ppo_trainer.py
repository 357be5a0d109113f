"""Train the operation policy with PPO: in go seeds and the models that act on them, out comes a saved policy.

The order of things in one rollout: seeds → chains (`collect`) → rewards (`compute_rewards`) → advantages →
`num_ppo_epochs` passes of minibatches through `compute_loss`. Everything else is `transformers.Trainer`.

Metrics, all means over the steps since the last log:
    reward, reward_std              sum of rewards of an episode: mean and deviation over the rollout
    rewards/<name>/mean             the same for one reward function, before weighting
    accept_rate                     share of rewrites that passed review
    operations/<name>               share of an operation among all taken
    advantage_mean, explained_variance   before whitening; how well the value head predicts returns
    policy_loss, value_loss, entropy, approx_kl, clip_ratio   see `ppo.py`
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from safetensors.torch import load_file, save_file
from torch.utils.data import Sampler
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from .baselines import uniform_chooser
from .cards import policy_card
from .environment import Chooser, rollout, states_of
from .generation import Generator
from .operations import Operation
from .policy import OperationPolicy, check_policy_operations
from .ppo import PPOLosses, explained_variance, generalized_advantages, ppo_loss, reward_spread, whiten
from .ppo_config import InstructionGenPPOConfig
from .reviewer import novelty_reward, validity_reward
from .seeds import seed_from_row
from .types import Seed, Trajectory

RewardFunction = Callable[..., list[list[float]]]
CARD_ARGUMENTS = (
    *("learning_rate", "operations_per_episode", "num_ppo_epochs", "num_mini_batches", "gamma", "lam", "cliprange"),
    *("cliprange_value", "vf_coef", "entropy_coef", "seed"),
)


class RolloutSampler(Sampler[int]):
    """Yields each global rollout's seeds `repeat` times in a row, so that every pass over it sees the same batch.

    Two processes, 2 episodes each, repeat = 3:

        passed on to      rank 0   rank 1
        step 0            7 2      5 0      <- rolled out here, kept, then reused
        step 1            7 2      5 0
        step 2            7 2      5 0
        step 3            1 4      6 3      <- the next rollout

    The order depends on `seed` and epoch alone, so that a resumed run goes on with the same seeds. A set smaller
    than one rollout is repeated to fill it; what is left over at the end of an epoch is dropped and shuffled anew.
    """

    def __init__(self, size: int, batch_size: int, repeat: int, seed: int):
        self.size, self.batch_size, self.repeat, self.seed, self.epoch = size, batch_size, repeat, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        copies = math.ceil(self.batch_size / self.size)
        order = torch.cat([torch.randperm(self.size, generator=generator) for _ in range(copies)]).tolist()
        for start in range(0, len(order) - self.batch_size + 1, self.batch_size):
            for _ in range(self.repeat):
                yield from order[start : start + self.batch_size]

    def __len__(self) -> int:
        return max(self.size // self.batch_size, 1) * self.batch_size * self.repeat


class InstructionGenPPOTrainer(Trainer):
    """PPO for a policy over textual operations.

    Args:
        model: An `OperationPolicy`, or a Hub id or path of one.
        args: `InstructionGenPPOConfig`.
        instructor: Model that carries out operations.
        reviewer: Model that says whether a rewrite gained anything.
        reward_funcs: One function or a list: `(trajectories) -> rewards`, B lists of T numbers. By default validity
        and
            novelty. They are told of the whole global batch at once.
        train_dataset: Seeds, with columns `id`, `instruction`, `input`.
        eval_dataset: Held-out seeds in the same form; `evaluate` compares the policy with the uniform chooser on them.
        operations: What the policy's actions mean; by default those in its config.

    To change the rollout or the reward, override `collect` or `compute_rewards`; for the loss, `compute_loss`.
    """

    _name = "InstructionGenPPO"
    _tag_names = ("teamsrl", "ppo", "instruction-generation")
    _paper = {  # noqa: RUF012 (read-only by convention, as in TRL)
        "title": "TeaMs-RL: Teaching LLMs to Generate Better Instruction Datasets via Reinforcement Learning",
        "id": "2403.08694",
    }
    # Losses are means over a micro-batch, so the Trainer must divide them by the number accumulated.
    loss_is_scaled_for_ga = False

    def __init__(
        self,
        model: OperationPolicy | str,
        args: InstructionGenPPOConfig,
        instructor: Generator,
        reviewer: Generator,
        train_dataset: Dataset,
        eval_dataset: Dataset | None = None,
        reward_funcs: RewardFunction | Sequence[RewardFunction] = (validity_reward, novelty_reward),
        operations: Sequence[Operation] | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[torch.optim.Optimizer | None, torch.optim.lr_scheduler.LambdaLR | None] = (None, None),
    ):
        if isinstance(model, str):
            model = OperationPolicy.from_pretrained(model)
        self.operations = tuple(operations) if operations else model.config.operation_tuple()
        check_policy_operations(model, self.operations)
        self.instructor, self.reviewer = instructor, reviewer
        self.reward_funcs = [reward_funcs] if callable(reward_funcs) else list(reward_funcs)
        self.reward_weights = _checked_weights(args.reward_weights, self.reward_funcs)
        if len(train_dataset) == 0:
            raise ValueError("train_dataset holds no seeds; give at least one.")
        self._metrics: dict[str, list[float]] = defaultdict(list)
        self._evaluations: list[dict[str, float]] = []  # The state's log begins anew with train().
        self._buffer: dict[str, torch.Tensor] | None = None
        self._micro_step: int | None = None
        self._resumed_from: Path | None = None
        super().__init__(
            model=model,
            args=args,
            data_collator=list,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            callbacks=callbacks,
            optimizers=optimizers,
        )
        self.model.add_model_tags(list(self._tag_names))

    # -- rollout: what a subclass changes ---------------------------------------------------------------------------

    def collect(self, seeds: Sequence[Seed], choose: Chooser, key: Sequence[object]) -> list[Trajectory]:
        """Walk one chain from each of B seeds; random numbers depend on `key`, seed and step alone."""
        return rollout(
            seeds, choose, self.operations, self.instructor, self.reviewer, self.args.operations_per_episode, key
        )

    def compute_rewards(self, trajectories: Sequence[Trajectory]) -> torch.Tensor:
        """Rewards (B, T) of the global batch: the weighted sum of all reward functions, each logged by name."""
        total = torch.zeros(len(trajectories), self.args.operations_per_episode)
        for function, weight in zip(self.reward_funcs, self.reward_weights):
            rewards = torch.tensor(function(trajectories), dtype=torch.float32)
            if rewards.shape != total.shape:
                raise ValueError(
                    f"Reward function {_name_of(function)} returned shape {tuple(rewards.shape)} for "
                    f"{total.shape[0]} trajectories of {total.shape[1]} steps; it must return one number a step."
                )
            self._record(f"rewards/{_name_of(function)}/mean", rewards.sum(1).mean())
            total += weight * rewards
        return total

    # -- hooks of transformers.Trainer, in the order they are called
    # ---------------------------------------------------

    def get_train_dataloader(self):
        return self._get_dataloader(
            dataset=self.train_dataset,
            description="Training",
            batch_size=self.args.episodes_per_rollout,
            sampler_fn=self._get_train_sampler,
            is_training=True,
        )

    def _get_train_sampler(self, dataset: Dataset | None = None) -> RolloutSampler:
        dataset = self.train_dataset if dataset is None else dataset
        batch_size = self.args.episodes_per_rollout * self.accelerator.num_processes
        return RolloutSampler(len(dataset), batch_size, self.args.steps_per_rollout, self.args.seed)

    def _prepare_inputs(self, inputs: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """The next micro-batch: of a fresh rollout of these seeds, or of the one in hand."""
        if self._micro_step is None:
            self._micro_step = self.state.global_step * self.args.gradient_accumulation_steps
        number, position = divmod(self._micro_step, self.args.steps_per_rollout)
        if position == 0:
            self._buffer = self._roll_out([seed_from_row(row) for row in inputs], number)
        elif self._buffer is None:
            self._buffer = self._load_rollout()
        self._micro_step += 1
        chosen = self._minibatch(number, position)
        return {name: tensor[chosen].to(self.args.device) for name, tensor in self._buffer.items()}

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Mean PPO loss of a micro-batch; see `ppo.ppo_loss` for its parts."""
        output = model(input_ids=inputs["input_ids"], history=inputs["history"])
        losses = self._ppo_loss(output, inputs)
        for name in ("policy_loss", "value_loss", "entropy", "approx_kl", "clip_ratio"):
            self._record(name, getattr(losses, name))
        return (losses.total, output) if return_outputs else losses.total

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """Reward of the policy and of the uniform chooser on the same seeds with the same random numbers.

        Returns:
            `eval_reward`, `eval_random_reward` (sums over an episode, means over seeds), `eval_lift` (their
            difference), `eval_accept_rate`, `eval_random_accept_rate`.
        """
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        if dataset is None:
            raise ValueError("evaluate() needs held-out seeds; pass eval_dataset to it or to the trainer.")
        seeds = [seed_from_row(row) for row in dataset]
        learned, learned_rate = self._evaluate_chooser(seeds, self._choose)
        random, random_rate = self._evaluate_chooser(seeds, uniform_chooser(self.operations))
        metrics = {"reward": learned, "random_reward": random, "lift": learned - random}
        metrics |= {"accept_rate": learned_rate, "random_accept_rate": random_rate}
        self._evaluations.append(metrics)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if not any(name.startswith("eval_") for name in logs):
            logs = {**logs, **{name: sum(values) / len(values) for name, values in self._metrics.items()}}
            self._metrics.clear()
        super().log(logs, start_time)

    def _save(self, output_dir: str | None = None, state_dict=None) -> None:
        super()._save(output_dir, state_dict)
        # A pickle, which may hold a Hub token; nothing here reads it back.
        (Path(output_dir or self.args.output_dir) / "training_args.bin").unlink(missing_ok=True)

    def _save_checkpoint(self, model, trial) -> None:
        super()._save_checkpoint(model, trial)
        folder = Path(self._get_output_dir(trial)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        if self._buffer is not None and folder.is_dir():
            save_file(self._buffer, folder / self._rollout_file)

    def create_model_card(self, model_name=None, dataset_name=None, tags=None) -> None:
        """Write README.md into the output folder: how the policy was trained, and what held-out seeds say of it."""
        if not self.is_world_process_zero():
            return
        card = policy_card(self.facts(), self.operations, {name: getattr(self.args, name) for name in CARD_ARGUMENTS})
        (Path(self.args.output_dir) / "README.md").write_text(card, encoding="utf-8")

    def facts(self) -> dict[str, float | int | None]:
        """Numbers of the run: seeds, operations tried, and rewards by the first and the last evaluation, if any."""
        first, last = (self._evaluations[0], self._evaluations[-1]) if self._evaluations else ({}, {})
        rollouts = math.ceil(self.state.global_step / (self.args.num_ppo_epochs * self.args.num_mini_batches))
        episodes = rollouts * self.args.episodes_per_rollout * self.accelerator.num_processes
        return {
            "train_seeds": len(self.train_dataset),
            "test_seeds": len(self.eval_dataset) if self.eval_dataset is not None else 0,
            "environment_steps": episodes * self.args.operations_per_episode,
            "reward_before": first.get("reward"),
            "reward_after": last.get("reward"),
            "reward_uniform": last.get("random_reward"),
            "accept_rate_after": last.get("accept_rate"),
            "accept_rate_uniform": last.get("random_accept_rate"),
        }

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        self._resumed_from = Path(resume_from_checkpoint)
        super()._load_from_checkpoint(resume_from_checkpoint, model)

    # -- the parts
    # -----------------------------------------------------------------------------------------------------

    def _roll_out(self, seeds: list[Seed], number: int) -> dict[str, torch.Tensor]:
        """Chains of this process's seeds as tensors of N = B × T transitions, rewarded within the global batch."""
        own = self.collect(seeds, self._choose, ("train", self.args.seed, number))
        everyone = gather_object(own) if self.accelerator.num_processes > 1 else own
        rewards = self.compute_rewards(everyone)
        self._record_rollout(everyone, rewards)
        start = self.accelerator.process_index * len(own)
        spread = reward_spread(rewards, self.args.gamma)
        return self._to_tensors(own, rewards[start : start + len(own)], spread)

    def _to_tensors(
        self, trajectories: list[Trajectory], rewards: torch.Tensor, spread: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """What the loss needs of B chains: the policy's inputs; actions, log-probabilities, advantages … (N,)."""
        steps = self.args.operations_per_episode
        policy = self.accelerator.unwrap_model(self.model)
        inputs = policy.featurize([s for trajectory in trajectories for s in states_of(trajectory)[:steps]])
        index = policy.operation_names
        actions = torch.tensor([index[t.operation] for trajectory in trajectories for t in trajectory.transitions])
        with torch.no_grad():
            output = self.model_wrapped(**{name: tensor.to(self.args.device) for name, tensor in inputs.items()})
        logprobs = torch.log_softmax(output.logits.float(), -1).cpu().gather(-1, actions[:, None])[:, 0]
        value = output.value.float().cpu()
        advantages, returns = generalized_advantages(rewards, value.view(-1, steps), self.args.gamma, self.args.lam)
        self._record("explained_variance", explained_variance(value, returns.flatten()))
        self._record("advantage_mean", advantages.mean())
        if self.args.whiten_advantages:
            everyone = self.accelerator.gather(advantages.to(self.args.device)).cpu()
            advantages = whiten(advantages, everyone, spread)
        return {
            **inputs,
            "actions": actions,
            "old_logprobs": logprobs,
            "old_value": value,
            "advantages": advantages.flatten(),
            "returns": returns.flatten(),
        }

    def _minibatch(self, number: int, position: int) -> torch.Tensor:
        """Indices of the transitions in one micro-batch; every pass shuffles the rollout anew, always the same way."""
        per_pass = self.args.num_mini_batches * self.args.gradient_accumulation_steps
        ppo_epoch, part = divmod(position, per_pass)
        key = (self.args.seed * 1_000_003 + number) * self.args.num_ppo_epochs + ppo_epoch
        generator = torch.Generator().manual_seed(key % 2**63)
        order = torch.randperm(len(self._buffer["actions"]), generator=generator)
        return order.chunk(per_pass)[part]

    def _ppo_loss(self, output, inputs: dict[str, torch.Tensor]) -> PPOLosses:
        names = ("actions", "old_logprobs", "old_value", "advantages", "returns")
        return ppo_loss(
            output.logits,
            output.value,
            *(inputs[name] for name in names),
            cliprange=self.args.cliprange,
            cliprange_value=self.args.cliprange_value,
            vf_coef=self.args.vf_coef,
            entropy_coef=self.args.entropy_coef,
        )

    def _choose(self, states, uniforms) -> list[int]:
        return self.accelerator.unwrap_model(self.model).choose_batch(states, uniforms)

    def _evaluate_chooser(self, seeds: list[Seed], choose: Chooser) -> tuple[float, float]:
        """Mean reward of an episode, and share of rewrites that passed."""
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        own = self.collect(seeds[rank::world], choose, ("eval", self.args.seed))
        everyone = gather_object(own) if world > 1 else own
        recorded, self._metrics = self._metrics, defaultdict(list)  # The training log is not told of these rewards.
        rewards = self.compute_rewards(everyone).sum(1)
        self._metrics = recorded
        return rewards.mean().item(), _accept_rate(everyone)

    def _record(self, name: str, value: torch.Tensor | float) -> None:
        self._metrics[name].append(float(value))

    def _record_rollout(self, trajectories: list[Trajectory], rewards: torch.Tensor) -> None:
        self._record("reward", rewards.sum(1).mean())
        self._record("reward_std", rewards.sum(1).std(correction=0))
        self._record("accept_rate", _accept_rate(trajectories))
        taken = [transition.operation for trajectory in trajectories for transition in trajectory.transitions]
        for operation in self.operations:
            self._record(f"operations/{operation.name}", taken.count(operation.name) / len(taken))

    @property
    def _rollout_file(self) -> str:
        return f"rollout-{self.accelerator.process_index}.safetensors"

    def _load_rollout(self) -> dict[str, torch.Tensor]:
        """The rollout a checkpoint in its middle was saved with; its policy is gone, so it can't be made again."""
        file = self._resumed_from / self._rollout_file if self._resumed_from else None
        if file is None or not file.exists():
            raise ValueError(
                f"The checkpoint {self._resumed_from} was saved in the middle of a rollout but holds no "
                f"{self._rollout_file}; resume from another one, with as many processes as it was saved with."
            )
        return load_file(file)


def _accept_rate(trajectories: Sequence[Trajectory]) -> float:
    passed = [transition.review.passed for trajectory in trajectories for transition in trajectory.transitions]
    return sum(passed) / len(passed)


def _name_of(function: RewardFunction) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _checked_weights(weights: Sequence[float] | None, functions: Sequence[RewardFunction]) -> list[float]:
    if weights is None:
        return [1.0] * len(functions)
    if len(weights) != len(functions):
        raise ValueError(f"reward_weights has {len(weights)} numbers for {len(functions)} reward functions.")
    return list(weights)
