"""Train the operation policy with PPO: in go seeds and the models that act on them, out comes a saved policy.

The order of things in one rollout: seeds → chains (`collect`) → rewards (`compute_rewards`) → advantages →
`num_ppo_epochs` passes of minibatches through `compute_loss`. Everything else is `transformers.Trainer`.

Metrics, all means over the steps since the last log:
    reward, reward_std              sum of rewards of an episode: mean and deviation over the rollout
    rewards/<name>/mean, …/std      the same for one reward function, before weighting
    accept_rate                     share of rewrites that passed review
    failed_calls                    share of operations of which nothing is known, as a call failed: they are no steps,
                                    and chains with one are left out of the means of rewards
    operations/<name>               share of an operation among all taken
    advantage_mean, explained_variance   before whitening; how well the value head predicts returns
    policy_loss, value_loss, entropy, approx_kl, clip_ratio, kl   see `ppo.PPOLosses`
    skipped                         share of minibatches left out since `target_kl` was passed
"""

import copy
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import broadcast_object_list, gather_object
from datasets import Dataset
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import Sampler
from transformers import Trainer, TrainerCallback, set_seed

from ..environment.choosers import uniform_chooser
from ..environment.review import novelty_reward, validity_reward
from ..environment.rewards import RewardFunction, call_rewards, check_weights, weighted_sum
from ..environment.rollout import Chooser, rollout, states_of
from ..errors import UserError
from ..hub.arguments import check_base, check_options, client, settle_hub_arguments
from ..loading import library
from ..models.base import Generator
from ..public import public_name
from ..publish.cards import policy_card
from ..publish.licenses import settle_license
from ..publish.lineage import read_lineage
from ..publish.plots import plot_policy
from ..text.operations import Operation
from ..text.seeds import seed_from_row
from ..training.resumable import Resumable
from ..types import Seed, State, Trajectory
from .config import InstructionGenPPOConfig
from .losses import PPOLosses, explained_variance, generalized_advantages, ppo_loss, reward_spread, whiten
from .policy import HEADS, OperationPolicy, check_policy_operations, check_whole, draw, load_policy

SEED_COLUMNS = ("id", "instruction", "input")
CARD_ARGUMENTS = (
    *("learning_rate", "operations_per_episode", "num_ppo_epochs", "num_mini_batches", "gamma", "lam", "cliprange"),
    *("cliprange_value", "vf_coef", "entropy_coef", "kl_coef", "seed"),
)


class RolloutSampler(Sampler[int]):
    """Yields each global rollout's seeds `repeat` times in a row, so that every pass over it sees the same batch.

    Two processes, 2 episodes each, repeat = 3:

        passed on to      rank 0   rank 1
        step 0            7 2      5 0      <- rolled out here, kept, then reused
        step 1            7 2      5 0
        step 2            7 2      5 0
        step 3            1 4      6 3      <- the next rollout

    The order depends on `seed` and epoch alone, so that a resumed run goes on with the same seeds. A set smaller than
    one rollout is repeated to fill it; what is left over at the end of an epoch is dropped and shuffled anew.
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


class InstructionGenPPOTrainer(Resumable, Trainer):
    """PPO for a policy over textual operations.

    Args:
        model: An `OperationPolicy`, or a Hub id or path: of a policy, or of an encoder or causal LM to read text with.
        args: `InstructionGenPPOConfig`.
        instructor: Model that carries out operations.
        reward_funcs: One function or a list, plain or async, see `rewards`; by default validity and novelty. They are
            told of the whole global batch at once, on the main process alone, so that a paid judge is asked once.
            `args.reward_weights` weighs them.
        operations: What the policy's actions mean; by default those in its config.
        train_dataset: Seeds, with columns `id`, `instruction`, `input`; further ones are handed to reward functions.
        eval_dataset: Held-out seeds in the same form; `evaluate` compares the policy with the uniform chooser on them.
        processing_class: Tokenizer of the policy's backbone, if it has one.
        peft_config: Train a LoRA adapter on the backbone, and the heads in full.
        reviewer: Model that says whether a rewrite gained anything; the instructor if left out.

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
        reward_funcs: RewardFunction | Sequence[RewardFunction] = (validity_reward, novelty_reward),
        operations: Sequence[Operation] | None = None,
        train_dataset: Dataset | None = None,
        eval_dataset: Dataset | None = None,
        processing_class=None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[torch.optim.Optimizer | None, torch.optim.lr_scheduler.LambdaLR | None] = (None, None),
        peft_config=None,
        reviewer: Generator | None = None,
    ):
        settle_hub_arguments(args)  # Again, since they can be changed once they are made.
        set_seed(args.seed)
        model = _prepared(model, operations, args, processing_class, peft_config)
        self.policy = _unwrapped(model)
        self.operations = self.policy.config.operation_tuple()
        if operations:
            check_policy_operations(self.policy, operations)
        self.instructor, self.reviewer = instructor, instructor if reviewer is None else reviewer
        self.reward_funcs = [reward_funcs] if callable(reward_funcs) else list(reward_funcs)
        self.reward_weights = check_weights(args.reward_weights, self.reward_funcs)
        if train_dataset is not None and len(train_dataset) == 0:
            raise UserError("train_dataset holds no seeds; give at least one.")
        self.last_rollout: list[Trajectory] = []
        self._metrics: dict[str, list[float]] = defaultdict(list)
        self._losses: list[torch.Tensor] = []  # `_LOGGED_LOSSES` of each step since the last log.
        self._evaluations: list[dict[str, float]] = []  # The state's log begins anew with train().
        self._begin()
        with library("The trainer can't be made with these arguments"):
            super().__init__(
                model=model,
                args=args,
                data_collator=_row_numbers,
                train_dataset=train_dataset,
                eval_dataset=eval_dataset,
                processing_class=processing_class,
                callbacks=callbacks,
                optimizers=optimizers,
            )
        self.ref_model = copy.deepcopy(self.policy).eval() if args.kl_coef and peft_config is None else None
        self.model.add_model_tags(list(self._tag_names))

    # -- rollout: what a subclass changes

    def collect(self, seeds: Sequence[Seed], choose: Chooser, key: Sequence[object]) -> list[Trajectory]:
        """Walk one chain from each of B seeds; random numbers depend on `key`, seed and step alone."""
        return rollout(
            seeds, choose, self.operations, self.instructor, self.reviewer, self.args.operations_per_episode, key
        )

    def compute_rewards(self, trajectories: Sequence[Trajectory], **columns: list[Any]) -> torch.Tensor:
        """Rewards (B, T) of the global batch: the weighted sum of all reward functions, each logged by its name.

        Called on the main process alone.
        """
        extras: dict[str, list[Any]] = {}
        context = {"trainer_state": self.state, "log_metric": self._record, "log_extra": extras.__setitem__}
        rewards = call_rewards(self.reward_funcs, trajectories, **columns, **context)
        whole = _whole(trajectories).numpy()
        for name, table in ((name, table[whole]) for name, table in rewards.items()):
            told = np.nansum(table, axis=1)[~np.isnan(table).all(axis=1)]
            if len(told):
                self._record(f"rewards/{name}/mean", told.mean())
                self._record(f"rewards/{name}/std", told.std())
        total = torch.from_numpy(weighted_sum(rewards, self.reward_weights))
        self.last_rollout, self.last_rewards, self.last_extras = list(trajectories), total, extras
        return total

    # -- hooks of transformers.Trainer, in the order they are called

    def get_train_dataloader(self):
        if self.train_dataset is None:
            raise UserError("train() needs seeds; pass train_dataset to the trainer.")
        self._begin()  # What an earlier train() left must not be taken for this one's.
        # Row numbers only: the rows themselves are read once a rollout, not at each of its minibatches.
        return self._get_dataloader(
            dataset=_RowNumbers(len(self.train_dataset)),
            description="Training",
            batch_size=self.args.episodes_per_rollout,
            sampler_fn=self._get_train_sampler,
            is_training=True,
        )

    def _get_train_sampler(self, dataset=None) -> RolloutSampler:
        batch_size = self.args.episodes_per_rollout * self.accelerator.num_processes
        repeat = self.args.steps_per_rollout
        return RolloutSampler(len(self.train_dataset), batch_size, repeat, self.args.seed)

    def training_step(self, model, inputs, num_items_in_batch=None) -> torch.Tensor:
        number, position = self._next_micro_step()
        if position and self._stopped_rollout == number:
            self._micro_step += 1
            self._record("skipped", 1.0)
            return torch.zeros((), device=self.args.device)  # No gradient at all, so the optimizer stands still.
        return super().training_step(model, inputs, num_items_in_batch)

    def _prepare_inputs(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The next micro-batch: of a fresh rollout of these seeds, or of the one in hand."""
        number, position = self._next_micro_step()
        if position == 0:
            self._buffer = self._roll_out(_rows(self.train_dataset, inputs["rows"]), number)
        self._micro_step += 1
        part = self._part(number, position)
        return {name: parts[part].to(self.args.device) for name, parts in self._shuffled.items()}

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Mean PPO loss of a micro-batch; see `ppo.ppo_loss` for its parts."""
        output = model(**{name: tensor for name, tensor in inputs.items() if name in _MODEL_INPUTS})
        losses = self._ppo_loss(output, inputs)
        # Read and averaged over processes when logged: to do so here would hold up a GPU at every step.
        self._losses.append(torch.stack([getattr(losses, name) for name in _LOGGED_LOSSES]))
        self._watch_divergence(losses.approx_kl)
        return (losses.total, output) if return_outputs else losses.total

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """Reward of the policy and of the uniform chooser on the same seeds with the same random numbers.

        Returns:
            `eval_reward`, `eval_random_reward` (sums over an episode, means over seeds); `eval_lift`, their
            difference, and `eval_lift_error`, half the width of its 95 % interval over seeds; `eval_accept_rate`,
            `eval_random_accept_rate`; `eval_operations/<step>/<name>`, the policy's mix of operations at each step.
        """
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        if dataset is None:
            raise UserError("evaluate() needs held-out seeds; pass eval_dataset to it or to the trainer.")
        world = self.accelerator.num_processes
        if len(dataset) < world:
            raise UserError(f"eval_dataset holds {len(dataset)} seeds for {world} processes; give one for each.")
        chains, learned = self._evaluate_chooser(dataset, self._choose)
        random_chains, random = self._evaluate_chooser(dataset, uniform_chooser(self.operations))
        whole = _whole(chains, random_chains)
        learned, random = learned[whole], random[whole]
        lift = learned - random
        metrics = {
            "reward": learned.mean().item(),
            "random_reward": random.mean().item(),
            "lift": lift.mean().item(),
            "lift_error": 1.96 * lift.std(correction=0).item() / math.sqrt(len(lift)),
            "accept_rate": _accept_rate(chains),
            "random_accept_rate": _accept_rate(random_chains),
        }
        self._evaluations.append(metrics)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in (metrics | _mix_by_step(chains)).items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if not any(name.startswith("eval_") for name in logs):
            logs = {**logs, **{name: sum(values) / len(values) for name, values in self._metrics.items()}}
            if self._losses:
                means = self.accelerator.reduce(torch.stack(self._losses).mean(0), "mean").tolist()
                logs |= dict(zip(_LOGGED_LOSSES, means))
            self._metrics.clear(), self._losses.clear()
        super().log(logs, start_time)

    def _save(self, output_dir: str | None = None, state_dict=None) -> None:
        super()._save(output_dir, state_dict)
        folder = Path(output_dir or self.args.output_dir)
        # An adapter alone would not tell which operations its heads choose among.
        self.policy.config.save_pretrained(folder)
        # A pickle, which may hold a Hub token; nothing here reads it back.
        (folder / "training_args.bin").unlink(missing_ok=True)

    def checkpoint_files(self) -> list[str]:
        return [_rollout_file(rank) for rank in range(self.args.world_size)]

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        file = Path(output_dir) / _rollout_file(self.args.process_index)
        save_file({**self._buffer, "stopped": torch.tensor(self._stopped_rollout)}, file)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        _, position = self._next_micro_step()
        if position:
            # The policy that walked this rollout is gone, so it can't be made again.
            self._buffer = load_file(Path(checkpoint) / _rollout_file(self.args.process_index))
            self._stopped_rollout = self._buffer.pop("stopped").item()

    def create_model_card(self, model_name: str | None = None, dataset_name=None, tags=None) -> None:
        """Write README.md into the output folder: how the policy was trained, and what held-out seeds say of it.

        Args:
            model_name: Name of the policy in the card's list of results.
            dataset_name: Hub id of the seeds' dataset, or several.
            tags: Further tags, one or several.
        """
        if not self.is_world_process_zero():
            return
        plots = plot_policy(self.state.log_history, self.args.output_dir)
        arguments = {name: getattr(self.args, name) for name in CARD_ARGUMENTS}
        if earlier := self.policy.config.name_or_path:
            unknown = "" if read_lineage(earlier, "policy") else " (no record says whether it knew the held-out seeds)"
            arguments["went on from"] = public_name(earlier) + unknown
        named = {"name": model_name} if model_name else {}
        models = {"instructor": self.instructor.model, "reviewer": self.reviewer.model}
        told = {"datasets": _listed(dataset_name), "tags": _listed(tags), "models": models, **named}
        told["license"] = settle_license(self.args.license, ours=False)
        card = policy_card(self.facts(), self.operations, arguments, plots, **told)
        (Path(self.args.output_dir) / "README.md").write_text(card, encoding="utf-8")

    def init_hf_repo(self, token: str | bool | None = None, private: bool | None = None) -> None:
        """Ask the Hub, before training, whether a push will be possible; it is the push that makes the repository."""
        from ..hub.push import check_push

        check_base(None if self.model is self.policy else self.policy.config.backbone_name)
        if self.is_world_process_zero():
            where = {"private": self._private(private), "revision": self.args.hub_revision}
            check_push("policy", self._repo_id, **where, api=client(token))

    def push_to_hub(
        self,
        commit_message: str = "End of training",
        blocking: bool = True,
        token: str | bool | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **options: Any,
    ) -> str | None:
        """Save, write the card, and push in one commit; returns its URL, on the main process.

        Args:
            blocking: Must be True.
            revision, private: By default `args.hub_revision` and `args.hub_private_repo`.
            options: `model_name`, `dataset_name` and `tags` for the card; others as `hub.push_folder` has them.

        Raises:
            UserError: See `hub.push_folder`.
            RuntimeError: The Hub refused, or stayed away; the policy lies in the output folder.
        """
        from ..hub.push import push_adapter, push_policy

        if not blocking:
            raise UserError("A push can't go on in the background; leave out blocking=False.")
        told = {name: options.pop(name) for name in ("model_name", "dataset_name", "tags") if name in options}
        check_options(options)
        self.save_model(_internal_call=True)  # Else it would push, and so come here again.
        self.create_model_card(**told)
        if not self.is_world_process_zero():
            return None
        push = push_policy if self.model is self.policy else push_adapter
        options |= {"revision": revision or self.args.hub_revision, "private": self._private(private)}
        options = {"api": client(token), **options}
        return push(self.args.output_dir, self._repo_id, commit_message=commit_message, **options)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Nothing: a checkpoint holds the optimizer's state and the seeds in hand."""

    @property
    def _repo_id(self) -> str:
        return self.args.hub_model_id or Path(self.args.output_dir).resolve().name

    def _private(self, asked: bool | None) -> bool:
        return self.args.hub_private_repo if asked is None else asked

    # -- the parts

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

    def _begin(self) -> None:
        """Forget rollout and position; the position is then derived from the global step."""
        self._buffer: dict[str, torch.Tensor] | None = None
        self._shuffled: dict[str, tuple[torch.Tensor, ...]] = {}
        self._shuffled_by: int | None = None
        self._acted: list[tuple[Sequence[State], dict[str, torch.Tensor]]] = []
        self._micro_step: int | None = None
        self._stopped_rollout = -1

    def _next_micro_step(self) -> tuple[int, int]:
        """Number of the rollout and position in it, both derived from the global step, so that a resume keeps them."""
        if self._micro_step is None:
            self._micro_step = self.state.global_step * self.args.gradient_accumulation_steps
        return divmod(self._micro_step, self.args.steps_per_rollout)

    def _roll_out(self, rows: list[dict[str, Any]], number: int) -> dict[str, torch.Tensor]:
        """Chains of this process's seeds as tensors of N transitions, rewarded within the global batch."""
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        # Only where chains outnumber seeds do processes share one; they must not walk it alike.
        shared = (rank,) if len(self.train_dataset) < len(rows) * world else ()
        key = ("train", self.args.seed, number, *shared)
        self._acted = []
        own = self.collect([seed_from_row(row) for row in rows], self._act, key)
        everyone, everyones_rows = self._gathered(own), self._gathered(rows)
        rewards = self._rewarded(everyone, everyones_rows)
        self._record_rollout(everyone, rewards)
        start = rank * len(own)
        spread = reward_spread(rewards[_whole(everyone)], self.args.gamma)
        return self._to_tensors(own, rewards[start : start + len(own)], spread)

    def _to_tensors(
        self, trajectories: list[Trajectory], rewards: torch.Tensor, spread: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """What the loss needs of B chains of ≤ T steps: the policy's inputs; actions, advantages and so on (N,)."""
        lengths = torch.tensor([len(trajectory.transitions) for trajectory in trajectories])
        taken = torch.arange(rewards.shape[1]) < lengths[:, None]
        states = [state for trajectory in trajectories for state in states_of(trajectory)[:-1]]
        inputs, logits, value = self._read_again(states)
        index = self.policy.operation_names
        actions = torch.tensor([index[t.operation] for trajectory in trajectories for t in trajectory.transitions])
        value_table = torch.zeros(rewards.shape).masked_scatter(taken, value)
        final, gamma = self._final_value(trajectories), self.args.gamma
        advantages, returns = generalized_advantages(rewards, value_table, gamma, self.args.lam, final, lengths)
        advantages, returns = advantages[taken], returns[taken]
        everyones = torch.tensor(self._gathered(torch.stack([value, returns, advantages], 1).tolist()))
        self._record("explained_variance", explained_variance(everyones[:, 0], everyones[:, 1]))
        self._record("advantage_mean", everyones[:, 2].mean())
        if self.args.whiten_advantages:
            advantages = whiten(advantages, everyones[:, 2], spread)
        logprobs = torch.log_softmax(logits, -1)
        buffer = {
            **inputs,
            "actions": actions,
            "old_logprobs": logprobs.gather(-1, actions[:, None])[:, 0],
            "old_value": value,
            "advantages": advantages,
            "returns": returns,
        }
        return buffer | self._reference(inputs)

    def _forward(self, inputs: dict[str, torch.Tensor], model: nn.Module | None = None):
        """Logits (N, K) and values (N,) on the CPU in float32, without gradients, as the loss would compute them."""
        with torch.no_grad(), self.compute_loss_context_manager():
            # The wrapped model, since ZeRO-3 and FSDP gather their weights in its forward.
            output = (self.model_wrapped if model is None else model)(
                **{name: tensor.to(self.args.device) for name, tensor in inputs.items()}
            )
        return output.logits.float().cpu(), output.value.float().cpu()

    def _final_value(self, trajectories: list[Trajectory]) -> torch.Tensor | None:
        """What is expected after the end of each chain (B,), 0 where that is a true end.

        A chain that lacks steps since calls failed was cut off: without them it would have earned more.
        """
        cut = [self.args.bootstrap_value or bool(trajectory.failed) for trajectory in trajectories]
        if not any(self._gathered([any(cut)])):
            return None
        value = self._forward(self.policy.featurize([states_of(trajectory)[-1] for trajectory in trajectories]))[1]
        return torch.where(torch.tensor(cut), value, 0.0)

    def _reference(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Log-probabilities (N, K) of the policy as it was at first; nothing where no weight is put on them."""
        if not self.args.kl_coef:
            return {}
        if self.ref_model is not None:
            logits, _ = self._forward(inputs, self.ref_model.to(self.args.device))
        else:
            with self.accelerator.unwrap_model(self.model).disable_adapter():
                logits, _ = self._forward(inputs)
        return {"ref_logprobs": torch.log_softmax(logits, -1)}

    def _part(self, number: int, position: int) -> int:
        """Which micro-batch of the shuffled rollout is next; every pass shuffles anew, always the same way."""
        per_pass = self.args.num_mini_batches * self.args.gradient_accumulation_steps
        ppo_epoch, part = divmod(position, per_pass)
        key = (self.args.seed * 1_000_003 + number) * self.args.num_ppo_epochs + ppo_epoch
        if key != self._shuffled_by:
            generator = torch.Generator().manual_seed(key % 2**63)
            order = torch.randperm(len(self._buffer["actions"]), generator=generator)
            self._shuffled = {name: tensor[order].tensor_split(per_pass) for name, tensor in self._buffer.items()}
            self._shuffled_by = key
        return part

    def _ppo_loss(self, output, inputs: dict[str, torch.Tensor]) -> PPOLosses:
        names = ("actions", "old_logprobs", "old_value", "advantages", "returns")
        coefficients = ("cliprange", "cliprange_value", "vf_coef", "entropy_coef", "kl_coef")
        return ppo_loss(
            output.logits,
            output.value,
            *(inputs[name] for name in names),
            inputs.get("ref_logprobs"),
            **{name: getattr(self.args, name) for name in coefficients},
        )

    def _watch_divergence(self, approx_kl: torch.Tensor) -> None:
        if self.args.target_kl is None:
            return
        self._record("skipped", 0.0)
        if self.accelerator.reduce(approx_kl, "mean") > 1.5 * self.args.target_kl:
            self._stopped_rollout = (self._micro_step - 1) // self.args.steps_per_rollout

    def _choose(self, states: Sequence[State], uniforms: Sequence[float]) -> list[int]:
        return draw(self._forward(self.policy.featurize(states))[0], uniforms)

    def _act(self, states: Sequence[State], uniforms: Sequence[float]) -> list[int]:
        """As `_choose`; what was read and said is kept for the update."""
        inputs = self.policy.featurize(states)
        logits, value = self._forward(inputs)
        self._acted.append((states, {**inputs, "logits": logits, "value": value}))
        return draw(logits, uniforms)

    def _read_again(self, states: list[State]) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
        """Inputs of N states, logits (N, K) and values (N,): from acting on them, or anew if a `collect` went past
        the chooser it was given."""
        row = {state: row for row, state in enumerate(state for acted, _ in self._acted for state in acted)}
        # All processes or none: where weights are sharded, a forward pass needs everyone.
        if not all(self._gathered([all(state in row for state in states)])):
            inputs = self.policy.featurize(states)
            return inputs, *self._forward(inputs)
        rows = torch.tensor([row[state] for state in states])
        parts = [part for _, part in self._acted]
        seen = {name: torch.cat([part[name] for part in parts])[rows] for name in parts[0]}
        return seen, seen.pop("logits"), seen.pop("value")

    def _evaluate_chooser(self, dataset: Dataset, choose: Chooser) -> tuple[list[Trajectory], torch.Tensor]:
        """Chains from all seeds, and the sum of rewards of each, (B,)."""
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        # Parts in a row, so that gathering them restores the order, on which rewards may depend.
        rows = _rows(dataset, torch.arange(len(dataset)).tensor_split(world)[rank])
        own = self.collect([seed_from_row(row) for row in rows], choose, ("eval", self.args.seed))
        everyone = self._gathered(own)
        recorded, self._metrics = self._metrics, defaultdict(list)  # The training log is not told of these rewards.
        rewards = self._rewarded(everyone, self._gathered(rows)).sum(1)
        self._metrics = recorded
        return everyone, rewards

    def _rewarded(self, trajectories: list[Trajectory], rows: list[dict[str, Any]]) -> torch.Tensor:
        """What the main process's `compute_rewards` says, on every process."""
        rewards = self.compute_rewards(trajectories, **_columns(rows)) if self.is_world_process_zero() else None
        if self.accelerator.num_processes == 1:
            return rewards
        return broadcast_object_list([rewards])[0]

    def _gathered(self, values: list[Any]) -> list[Any]:
        return gather_object(values) if self.accelerator.num_processes > 1 else values

    def _record(self, name: str, value: torch.Tensor | float) -> None:
        self._metrics[name].append(float(value))

    def _record_rollout(self, trajectories: list[Trajectory], rewards: torch.Tensor) -> None:
        episodes = rewards[_whole(trajectories)].sum(1)
        self._record("reward", episodes.mean())
        self._record("reward_std", episodes.std(correction=0))
        self._record("accept_rate", _accept_rate(trajectories))
        failed = sum(len(trajectory.failed) for trajectory in trajectories)
        self._record("failed_calls", failed / (failed + sum(len(t.transitions) for t in trajectories)))
        taken = [transition.operation for trajectory in trajectories for transition in trajectory.transitions]
        for operation in self.operations:
            self._record(f"operations/{operation.name}", taken.count(operation.name) / len(taken))


_LOGGED_LOSSES = ("policy_loss", "value_loss", "entropy", "approx_kl", "clip_ratio", "kl")
_MODEL_INPUTS = ("history", "action_mask", "input_ids", "attention_mask", "text_vectors")


def _rollout_file(rank: int) -> str:
    return f"rollout-{rank}.safetensors"


class _RowNumbers(torch.utils.data.Dataset):
    def __init__(self, size: int):
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, row: int) -> int:
        return row


def _row_numbers(rows: list[int]) -> dict[str, torch.Tensor]:
    return {"rows": torch.tensor(rows)}


def _rows(dataset: Dataset, numbers: torch.Tensor) -> list[dict[str, Any]]:
    """Rows of a dataset, read at once, which is many times faster than one by one."""
    columns = dataset[numbers.tolist()]
    return [dict(zip(columns, values)) for values in zip(*columns.values())]


def _prepared(model, operations, args: InstructionGenPPOConfig, processing_class, peft_config) -> nn.Module:
    """The policy to train: loaded if named, without dropout, with an adapter if asked for."""
    if isinstance(model, str):
        entries = [{"name": o.name, "sentence": o.sentence} for o in operations] if operations else None
        steps = args.operations_per_episode
        frozen = peft_config is None
        model = load_policy(model, operations=entries, operations_per_episode=steps, freeze_backbone=frozen)
    if processing_class is not None:
        model._tokenizer = processing_class
    if isinstance(model, OperationPolicy):
        check_whole(model)
    if peft_config is not None:
        model = _with_adapter(model, peft_config)
    if not isinstance(model, OperationPolicy):
        model.push_to_hub = _refuse_push  # PEFT's own is public, and leaves out what the adapter needs to be loaded.
    # With dropout, an adapter's too, the policy that acts is not the one whose ratio is taken.
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def _with_adapter(policy: OperationPolicy, peft_config) -> nn.Module:
    from peft import PeftModel, get_peft_model

    if isinstance(policy, PeftModel):
        raise UserError("The policy has an adapter already; pass it without peft_config, or merge the adapter first.")
    if policy.config.backbone is None:
        raise UserError("peft_config needs a policy with a backbone; make one with OperationPolicy.from_backbone.")
    policy.config.freeze_backbone = False  # Its output changes with the adapter, so no embedding may be kept.
    if peft_config.modules_to_save is None:
        peft_config.modules_to_save = list(HEADS)
    with library("The policy can't have this adapter"):
        return get_peft_model(policy, peft_config)


def _refuse_push(*_: Any, **__: Any) -> None:
    raise UserError("An adapter to a policy is pushed with its config and card; call push_to_hub() of the trainer.")


def _unwrapped(model: nn.Module) -> OperationPolicy:
    return model if isinstance(model, OperationPolicy) else model.get_base_model()


def _listed(names: str | Sequence[str] | None) -> list[str]:
    return [names] if isinstance(names, str) else list(names or ())


def _columns(rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """The dataset's columns beside a seed's own, one list each."""
    names = [name for name in (rows[0] if rows else {}) if name not in SEED_COLUMNS]
    return {name: [row[name] for row in rows] for name in names}


def _whole(*rollouts: Sequence[Trajectory]) -> torch.Tensor:
    """Which places hold a chain without a failed call in every rollout, (B,); all places where none does."""
    whole = torch.tensor([not any(chain.failed for chain in chains) for chains in zip(*rollouts, strict=True)])
    return whole if whole.any() else torch.ones_like(whole)


def _accept_rate(trajectories: Sequence[Trajectory]) -> float:
    passed = [transition.review.passed for trajectory in trajectories for transition in trajectory.transitions]
    return sum(passed) / len(passed)


def _mix_by_step(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Share of each operation at each step, under `operations/<step>/<name>`."""
    counts: dict[tuple[int, str], int] = defaultdict(int)
    totals: dict[int, int] = defaultdict(int)
    for trajectory in trajectories:
        for step, transition in enumerate(trajectory.transitions):
            counts[step, transition.operation] += 1
            totals[step] += 1
    return {f"operations/{step}/{name}": count / totals[step] for (step, name), count in sorted(counts.items())}
