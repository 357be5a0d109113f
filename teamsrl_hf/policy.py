"""The operation policy: in go states (text, operations tried, step), out come logits over operations and a value.

A `PreTrainedModel` whose config carries its operations, so that `save_pretrained`, `from_pretrained` and the Hub
work as for any other model and a policy can't be used with operations it was not trained on.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from .features import bucket_ids
from .operations import OPERATIONS, Operation, check_operations
from .types import State


class OperationPolicyConfig(PreTrainedConfig):
    """Sizes of the policy and the operations it chooses from.

    Args:
        operations: Mappings with `name` and `sentence`, in the order of the policy's actions.
        operations_per_episode: Steps after which the step feature saturates; the length of an episode in training.
        vocab_size: Hash buckets for words; 0 is padding.
        max_words: Words of a text that are read.
        embedding_size: Width of a word's embedding.
        hidden_size: Width of both hidden layers.
    """

    model_type = "teamsrl_operation_policy"

    operations: list[dict[str, str]] | None = None
    operations_per_episode: int = 6
    vocab_size: int = 4096
    max_words: int = 96
    embedding_size: int = 32
    hidden_size: int = 64

    def __post_init__(self, **kwargs):
        if self.operations is None:
            self.operations = [{"name": o.name, "sentence": o.sentence} for o in OPERATIONS]
        super().__post_init__(**kwargs)

    def operation_tuple(self) -> tuple[Operation, ...]:
        """The operations as the tuple that rollouts take."""
        return check_operations([Operation(**entry) for entry in self.operations])

    @property
    def history_size(self) -> int:
        """Width of the history features: tried and accepted counts, last operation and its success, step."""
        return 3 * len(self.operations) + 2 + self.operations_per_episode


@dataclass
class OperationPolicyOutput(ModelOutput):
    """`logits` (N, K) over operations; `value` (N,) the expected return."""

    logits: torch.FloatTensor | None = None
    # Not `values`: that name would shadow dict.values, on which DDP and DeepSpeed call.
    value: torch.FloatTensor | None = None


class OperationPolicy(PreTrainedModel):
    """Mean of hashed word embeddings, joined with the chain's history, through two layers, to an operation and a
    value.

    Reading words and not only the last operation is what the official policy lacks; it can tell one text from another.
    """

    config_class = OperationPolicyConfig
    base_model_prefix = "policy"
    main_input_name = "input_ids"

    def __init__(self, config: OperationPolicyConfig):
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.embedding_size, padding_idx=0)
        width = config.embedding_size + config.history_size
        self.encoder = nn.Sequential(
            nn.Linear(width, config.hidden_size),
            nn.Tanh(),
            nn.Linear(config.hidden_size, config.hidden_size),
            nn.Tanh(),
        )
        self.operation_head = nn.Linear(config.hidden_size, len(config.operations))
        self.value_head = nn.Linear(config.hidden_size, 1)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        # A near-zero operation head starts as the uniform chooser, so that early rollouts explore evenly.
        if isinstance(module, nn.Linear):
            nn.init.orthogonal_(module.weight, 0.01 if module is self.operation_head else 1.0)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=1.0)
            nn.init.zeros_(module.weight[0])

    def forward(self, input_ids: torch.Tensor, history: torch.Tensor, **kwargs) -> OperationPolicyOutput:
        """`input_ids` (N, L) word buckets padded with 0; `history` (N, H) from `featurize`."""
        known = (input_ids != 0).unsqueeze(-1)
        text = (self.embedding(input_ids) * known).sum(1) / known.sum(1).clamp(min=1)
        hidden = self.encoder(torch.cat([text, history.to(text.dtype)], dim=-1))
        return OperationPolicyOutput(logits=self.operation_head(hidden), value=self.value_head(hidden).squeeze(-1))

    def featurize(self, states: Sequence[State]) -> dict[str, torch.Tensor]:
        """Inputs of `forward` for N states, on the CPU: `input_ids` (N, L), `history` (N, H)."""
        config = self.config
        ids = [bucket_ids(state.text, config.vocab_size, config.max_words) for state in states]
        padded = np.zeros((len(ids), config.max_words + 1), np.int64)
        for row, known in zip(padded, ids):
            row[: len(known)] = known
        history = np.stack([_history(state, self.operation_names, config.operations_per_episode) for state in states])
        return {"input_ids": torch.from_numpy(padded), "history": torch.from_numpy(history)}

    @property
    def operation_names(self) -> dict[str, int]:
        """Index of each operation by name."""
        return {entry["name"]: index for index, entry in enumerate(self.config.operations)}

    @torch.no_grad()
    def choose(self, states: Sequence[State], uniforms: Sequence[float]) -> list[int]:
        """Sample an operation for each state from the policy, by inverse cumulative probability at `uniforms`.

        States are looked at one by one: a batch's make-up may change the last bits of a product of matrices, and with
        them, rarely, an operation; a dataset must not depend on which chains happened to run side by side.
        """
        return [action for state, u in zip(states, uniforms) for action in self.choose_batch([state], [u])]

    @torch.no_grad()
    def choose_batch(self, states: Sequence[State], uniforms: Sequence[float]) -> list[int]:
        """As `choose`, in one forward pass: faster, and reproducible only for the very same batch."""
        inputs = {name: tensor.to(self.device) for name, tensor in self.featurize(states).items()}
        probabilities = torch.softmax(self(**inputs).logits.float(), dim=-1).double().cumsum(-1).cpu()
        drawn = torch.tensor(uniforms, dtype=torch.float64)[:, None]
        last = probabilities.shape[1] - 1
        return (probabilities <= drawn).sum(-1).clamp(max=last).tolist()


def _history(state: State, index: dict[str, int], length: int) -> np.ndarray:
    """Features of one state's past, (3 K + 2 + length,): tried, accepted, last operation, [it passed, start], step."""
    count = len(index)
    features = np.zeros(3 * count + 2 + length, np.float32)
    for name, accepted in zip(state.operations, state.accepted):
        features[index[name]] += 1.0 / length
        features[count + index[name]] += accepted / length
    if state.operations:
        features[2 * count + index[state.operations[-1]]] = 1.0
        features[3 * count] = float(state.accepted[-1])
    else:
        features[3 * count + 1] = 1.0
    features[3 * count + 2 + min(state.step, length - 1)] = 1.0
    return features


def check_policy_operations(policy: OperationPolicy, operations: Sequence[Operation]) -> None:
    """ValueError that shows both lists unless `policy` was made for just these operations, in this order."""
    own, given = list(policy.operation_names), [operation.name for operation in operations]
    if own != given:
        raise ValueError(
            f"The policy chooses among {own}, but the operations in use are {given}; they must be the same."
        )


AutoConfig.register(OperationPolicyConfig.model_type, OperationPolicyConfig)
AutoModel.register(OperationPolicyConfig, OperationPolicy)
