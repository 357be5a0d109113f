"""Log, evaluation, card and pushes: in goes what a trainer measured, out come metrics, README.md and a commit."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from datasets import Dataset

from ..environment.choosers import uniform_chooser
from ..environment.rollout import Chooser
from ..errors import UserError
from ..hub.arguments import check_base, check_options, client
from ..models.base import Generator
from ..public import public_name
from ..publish.cards import policy_card
from ..publish.licenses import settle_license
from ..publish.lineage import read_lineage
from ..publish.plots import plot_policy
from ..text.operations import Operation
from ..training.resumable import Resumable
from ..types import State, Trajectory
from .config import InstructionGenPPOConfig
from .metrics import LOGGED_LOSSES, evaluation_metrics, mix_by_step, rejections
from .policy import OperationPolicy, draw, pick

CARD_ARGUMENTS = (
    *("learning_rate", "operations_per_episode", "num_ppo_epochs", "num_mini_batches", "gamma", "lam", "cliprange"),
    *("cliprange_value", "vf_coef", "entropy_coef", "kl_coef", "seed"),
)


class PolicyReport(Resumable):
    """The part of `InstructionGenPPOTrainer` that says what a policy is worth: log, evaluation, card and pushes.

    Attributes:
        _name: Name of the training method on the card.
        _paper: Its paper: `title`, and `id` on arXiv.
        _tag_names: The card's tags.
    """

    _name: ClassVar[str] = "PPO"
    _paper: ClassVar[Mapping[str, str]] = {
        "title": "TeaMs-RL: Teaching LLMs to Generate Better Instruction Datasets via Reinforcement Learning",
        "id": "2403.08694",
    }
    _tag_names: ClassVar[Sequence[str]] = ("ppo", "instruction-generation", "teamsrl")

    args: InstructionGenPPOConfig
    policy: OperationPolicy
    operations: tuple[Operation, ...]
    instructor: Generator
    reviewer: Generator
    train_dataset: Dataset | None
    eval_dataset: Dataset | None
    _metrics: dict[str, list[float]]  # Recorded since the last log.
    _losses: list[torch.Tensor]  # `LOGGED_LOSSES` of each step since the last log.
    _evaluations: list[dict[str, Any]]  # Of all trainings: the state's log begins again with train().

    def _evaluate_chooser(self, dataset: Dataset, choose: Chooser) -> tuple[list[Trajectory], torch.Tensor]:
        """Chains from all B seeds, and the sum of rewards of each, (B,)."""
        raise NotImplementedError

    def _read(self, states: Sequence[State]) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
        """Inputs of the policy as it is now, logits (N, K) and values (N,)."""
        raise NotImplementedError

    def _choose(self, states: Sequence[State], uniforms: Sequence[float]) -> list[int]:
        """Operations drawn from the policy, as in training."""
        return draw(self._read(states)[1], uniforms)

    def _choose_in_use(self, states: Sequence[State], uniforms: Sequence[float]) -> list[int]:
        """Operations as `OperationPolicy.choose` takes them.

        A new policy prefers none: its most likely operation would be an accident of its first weights.
        """
        new = self.state.global_step == 0 and not self.policy.config.name_or_path
        return pick(self._read(states)[1], uniforms, self.policy.config.most_likely and not new)

    def _record(self, name: str, value: torch.Tensor | float) -> None:
        self._metrics[name].append(float(value))

    def _record_all(self, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._record(name, value)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log with the means of what was recorded since the last log; an evaluation is logged alone."""
        if not any(name.startswith("eval_") for name in logs):
            logs = {**logs, **{name: sum(values) / len(values) for name, values in self._metrics.items()}}
            if self._losses:
                means = self.accelerator.reduce(torch.stack(self._losses).mean(0), "mean").tolist()
                logs |= dict(zip(LOGGED_LOSSES, means))
            self._metrics.clear()
            self._losses.clear()
        super().log(logs, start_time)

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Reward of the policy, as it is used, and of the uniform chooser on the same seeds with the same numbers.

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
        chains, learned = self._evaluate_chooser(dataset, self._choose_in_use)
        random_chains, random = self._evaluate_chooser(dataset, uniform_chooser(self.operations))
        metrics = evaluation_metrics(chains, learned, random_chains, random)
        self._evaluations.append({**metrics, "rejections": rejections(chains)})
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in (metrics | mix_by_step(chains)).items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def facts(self) -> dict[str, Any]:
        """Numbers of the run: seeds, operations tried, and rewards in the first and the last evaluation, if any.

        `rejections_after` counts the rewrites by the policy that did not pass in the last one, by reason.
        """
        first, last = (self._evaluations[0], self._evaluations[-1]) if self._evaluations else ({}, {})
        rollouts = math.ceil(self.state.global_step / (self.args.num_ppo_epochs * self.args.num_mini_batches))
        rollouts += self.args.warm_rollouts(self.args.episodes_per_rollout)
        episodes = rollouts * self.args.episodes_per_rollout * self.accelerator.num_processes
        return {
            "train_seeds": 0 if self.train_dataset is None else len(self.train_dataset),
            "test_seeds": 0 if self.eval_dataset is None else len(self.eval_dataset),
            "environment_steps": episodes * self.args.operations_per_episode,
            "reward_before": first.get("reward"),
            "reward_after": last.get("reward"),
            "reward_uniform": last.get("random_reward"),
            "accept_rate_after": last.get("accept_rate"),
            "accept_rate_uniform": last.get("random_accept_rate"),
            "rejections_after": last.get("rejections"),
        }

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)
        folder = self._folder if output_dir is None else Path(output_dir)
        # An adapter alone would not say which operations its heads choose among.
        self.policy.config.save_pretrained(folder)
        # A pickle, which may hold a Hub token; nothing here reads it back.
        (folder / "training_args.bin").unlink(missing_ok=True)

    def create_model_card(  # type: ignore[override]  # A card's other facts come from the run.
        self,
        model_name: str | None = None,
        dataset_name: str | Sequence[str] | None = None,
        tags: str | Sequence[str] | None = None,
    ) -> None:
        """Write README.md into the output folder: how the policy was trained, and its rewards on held-out seeds.

        Args:
            model_name: Name of the policy in the card's list of results.
            dataset_name: Hub id of the seeds' dataset, or several.
            tags: Further tags, one or several.
        """
        if not self.is_world_process_zero():
            return
        arguments = {name: getattr(self.args, name) for name in CARD_ARGUMENTS}
        if earlier := self.policy.config.name_or_path:
            unknown = "" if read_lineage(earlier, "policy") else " (no record says whether it knew the held-out seeds)"
            arguments["continued from"] = public_name(earlier) + unknown
        card = policy_card(
            self.facts(),
            self.operations,
            arguments,
            plot_policy(self.state.log_history, self._folder),
            name="operation policy" if model_name is None else model_name,
            datasets=_listed(dataset_name),
            tags=_listed(tags),
            models={"instructor": self.instructor.model, "reviewer": self.reviewer.model},
            license=settle_license(self.args.license, ours=False),
            method=self._name,
            paper=self._paper,
            method_tags=self._tag_names,
        )
        (self._folder / "README.md").write_text(card, encoding="utf-8")

    def init_hf_repo(self, token: str | bool | None = None, private: bool | None = None) -> None:
        """Ask the Hub, before training, whether a push will be possible; the push itself creates the repository."""
        from ..hub.push import check_push

        check_base(None if self.model is self.policy else self.policy.config.backbone_name)
        if self.is_world_process_zero():
            visible, revision = self._private(private), self.args.hub_revision
            check_push("policy", self._repo_id, private=visible, revision=revision, api=client(token))

    def push_to_hub(  # type: ignore[override]  # A URL in place of a CommitInfo, and only on the main process.
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | bool | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **options: Any,
    ) -> str | None:
        """Save, write the card, and push in one commit; returns its URL on the main process, None on the others.

        Args:
            blocking: Must be True.
            revision, private: By default `args.hub_revision` and `args.hub_private_repo`.
            options: `model_name`, `dataset_name` and `tags` for the card; all others go to `hub.push.push_folder`.

        Raises:
            UserError: See `hub.push.push_folder`.
            RuntimeError: The Hub refused, or could not be reached; the policy is in the output folder.
        """
        from ..hub.push import push_adapter, push_policy

        if not blocking:
            raise UserError("A push can't run in the background; leave out blocking=False.")
        on_card = {name: options.pop(name) for name in ("model_name", "dataset_name", "tags") if name in options}
        check_options(options)
        self.save_model(_internal_call=True)  # Else it would push, and so call this method again.
        self.create_model_card(**on_card)
        if not self.is_world_process_zero():
            return None
        push = push_policy if self.model is self.policy else push_adapter
        options = {
            "api": client(token),
            **options,
            "revision": self.args.hub_revision if revision is None else revision,
            "private": self._private(private),
        }
        if commit_message is not None:
            options["commit_message"] = commit_message
        return push(self._folder, self._repo_id, **options)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Do nothing: a checkpoint holds the optimizer's state and seeds, which are not for the Hub."""

    @property
    def _repo_id(self) -> str:
        return self.args.hub_model_id if self.args.hub_model_id else self._folder.resolve().name

    def _private(self, asked: bool | None) -> bool:
        return self.args.hub_private_repo is not False if asked is None else asked


def _listed(names: str | Sequence[str] | None) -> list[str]:
    if names is None:
        return []
    return [names] if isinstance(names, str) else list(names)
