"""What a row does to a student: in go rows and a user's anchor rows, out comes the fall of the anchors' loss.

The student takes one step on the row with a LoRA adapter, reads the anchors, and forgets the step.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import UserError
from ...models.base import Generator, Request, Sampling
from ...types import Trajectory
from .answers import StepRewards, StudentReward
from .losses import ANSWER_SAMPLING, Reader, Row, by_answer, digest_of, mean_losses

RANK = 8


class Influence(Reader):
    """Reads the mean loss of anchor rows before and after one step on a row, in nats a token.

    The step is along the row's gradient, of the same length for each row (as Adam's first step nearly is), so that a
    row is worth what it teaches and not how badly the student knows it. Only a LoRA adapter moves (its second half,
    which is 0 before), in float32, on a copy of the model.

    Args:
        anchors: Instructions and answers of the kind that the student is to get better at.
        step_size: Length of the step.

    Raises:
        UserError: There is no anchor.
    """

    measures = "influence on anchors"

    def __init__(
        self,
        model: Any,
        processing_class: Any,
        name: str,
        anchors: Sequence[Row],
        step_size: float = 0.1,
        **options: Any,
    ):
        if not anchors:
            raise UserError("There are no anchor rows; give a few rows that the student should get better at.")
        super().__init__(_with_lora(model), processing_class, name, **options)
        self.step_size, self._digest = step_size, digest_of(anchors)
        self._anchors = [self.encoded(row) for row in anchors]
        self._moved = [p for p in self._model.parameters() if p.requires_grad]
        self.before = self._anchor_loss()

    def answer_options(self, request: Request) -> Mapping[str, object]:
        """See `Reader`."""
        return {**super().answer_options(request), "anchors": self._digest, "step_size": self.step_size, "rank": RANK}

    def read(self, rows: Sequence[Row]) -> list[tuple[float, ...]]:
        """(anchors' loss before, after a step on the row) for each row, one by one."""
        return [(self.before, self._after(row)) for row in rows]

    def _after(self, row: Row) -> float:
        import torch

        pair = self.encoded(row)
        if not pair[1]:
            return self.before
        mean_losses(self._model, [pair], gradient=True)[0].backward()
        gradients = [p.grad for p in self._moved if p.grad is not None]
        norm = math.sqrt(sum(float(g.square().sum()) for g in gradients))
        with torch.no_grad():
            for p in self._moved:
                p.sub_(p.grad, alpha=self.step_size / max(norm, 1e-12))
            after = self._anchor_loss()
            for p in self._moved:
                p.zero_()
                p.grad = None
        return after

    def _anchor_loss(self) -> float:
        batches = [self._anchors[at : at + self.batch_size] for at in range(0, len(self._anchors), self.batch_size)]
        losses = [float(loss) for batch in batches for loss in mean_losses(self._model, batch, gradient=False)]
        return sum(losses) / len(losses)


def _with_lora(model: Any) -> Any:
    """A copy of a model with a LoRA adapter, of which the second halves, which are 0, can be trained."""
    import torch
    from peft import LoraConfig, get_peft_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        lora = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
        adapted = get_peft_model(copy.deepcopy(model), lora)
    for name, parameter in adapted.named_parameters():
        parameter.requires_grad_("lora_B" in name)
    return adapted


def influence_reward(influence: Generator, answerer: Generator, sampling: Sampling = ANSWER_SAMPLING) -> StudentReward:
    """A reward function: the fall of the anchors' loss by a step on a rewrite and its answer, in nats a token.

    Args:
        influence: `Influence` of the student.
        answerer: Model that answers each rewrite once.
        sampling: How it is sampled.
    """

    async def influence_reward(trajectories: Sequence[Trajectory], log_metric: Any = None) -> StepRewards:
        return await by_answer(trajectories, influence, answerer, sampling, gain, log_metric, "influence_reward")

    return influence_reward


def gain(scores: tuple[float, ...]) -> float:
    """What `influence_reward` pays for the scores of `Influence`.

    >>> gain((2.5, 2.0))
    0.5
    """
    return scores[0] - scores[1]
