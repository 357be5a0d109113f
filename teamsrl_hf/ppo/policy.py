"""The operation policy: in go states (text, operations tried, step), out come logits over operations and a value.

A `PreTrainedModel` whose config carries its operations, so that `save_pretrained`, `from_pretrained` and the Hub work
as for any other model and a policy can't be used with operations it was not trained on. It reads text in one of three
ways: by its form and hashed words (the default); with a frozen encoder, which embeds each text once; or with an
encoder or causal LM that is trained along with it, usually by LoRA.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput, cached_file

from ..errors import UserError
from ..loading import loading
from ..text.features import hashed_vectors, history_features, text_features
from ..text.operations import Operation, prompted_as
from ..types import State
from .policy_config import OperationPolicyConfig
from .quantization import guard_cpu_4bit

# Parts that start untrained and so must be trained in full beside LoRA's matrices.
HEADS = ("encoder", "operation_head", "value_head")
# Far below any logit, yet finite: minus infinity would turn the entropy's 0 × log 0 into NaN.
MASKED = -1e4


@dataclass
class OperationPolicyOutput(ModelOutput):
    """`logits` (N, K) over operations; `value` (N,) the expected return."""

    logits: torch.FloatTensor | None = None
    # Not `values`: that name would shadow dict.values, on which DDP and DeepSpeed call.
    value: torch.FloatTensor | None = None


class OperationPolicy(PreTrainedModel):
    """Two layers over a vector of the text and the chain's history; one head for operations, one for the value.

    Unlike the official policy, which sees only the last operation, it reads the text, so it can tell texts apart.
    Make one with `OperationPolicy(OperationPolicyConfig())`, or with `from_backbone`.
    """

    config_class = OperationPolicyConfig
    base_model_prefix = "policy"
    main_input_name = "history"
    supports_gradient_checkpointing = True
    _supports_sdpa = True

    def __init__(self, config: OperationPolicyConfig, backbone: PreTrainedModel | None = None):
        super().__init__(config)
        text_size = config.text_width
        if config.backbone is not None:
            # A loaded backbone is used as it is: building one first would double its memory, and fails under ZeRO-3.
            if backbone is None:
                backbone = AutoModel.from_config(_backbone_config(config), trust_remote_code=False)
            self.backbone = backbone
            self.backbone.requires_grad_(not config.freeze_backbone)
            text_size = self.backbone.config.hidden_size
        self.encoder = nn.Sequential(
            nn.Linear(text_size + config.history_size, config.hidden_size),
            nn.Tanh(),
            nn.Linear(config.hidden_size, config.hidden_size),
            nn.Tanh(),
        )
        self.operation_head = nn.Linear(config.hidden_size, len(config.entries))
        self.value_head = nn.Linear(config.hidden_size, 1)
        self._tokenizer: Any = None
        self._embedded: dict[str, torch.Tensor] = {}
        self.post_init()

    @classmethod
    def from_backbone(
        cls, name: str, processing_class: Any = None, quantization_config: Any = None, **config: Any
    ) -> "OperationPolicy":
        """A policy that reads with the model `name`, a Hub id or path of an encoder or a causal LM; its heads are new.

        Args:
            processing_class: Its tokenizer; loaded from `name` if left out.
            quantization_config: For a 4- or 8-bit backbone, to be trained with LoRA.
            config: Fields of `OperationPolicyConfig`; `pooling` is "last" for a causal LM unless given.
        """
        quantized = {} if quantization_config is None else {"quantization_config": quantization_config}
        with loading("model", name):
            tokenizer = processing_class
            if tokenizer is None:
                tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
            backbone = AutoModel.from_pretrained(
                name, use_safetensors=True, dtype=torch.float32, trust_remote_code=False, **quantized
            )
        guard_cpu_4bit(backbone)
        is_causal = any("CausalLM" in architecture for architecture in backbone.config.architectures or ())
        config = {"pooling": "last" if is_causal else "mean", **config}
        description = backbone.config.to_dict()
        for unwanted in ("quantization_config", "_name_or_path"):  # The latter may be a path of this machine.
            description.pop(unwanted, None)
        policy = cls(OperationPolicyConfig(backbone=description, backbone_name=name, **config), backbone)
        policy._tokenizer = tokenizer
        return policy

    def _init_weights(self, module: nn.Module) -> None:
        # A near-zero operation head starts as the uniform chooser, so that early rollouts explore evenly.
        if isinstance(module, nn.Linear):
            nn.init.orthogonal_(module.weight, 0.01 if module is self.operation_head else 1.0)
            nn.init.zeros_(module.bias)

    def forward(
        self,
        history: torch.Tensor,
        action_mask: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        text_vectors: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> OperationPolicyOutput:
        """Logits and values of N states, from the tensors that `featurize` returns.

        Args:
            history: (N, H).
            action_mask: (N, K), 0 where an operation is not to be chosen.
            input_ids: (N, L), a backbone's tokens.
            attention_mask: (N, L), for a backbone.
            text_vectors: (N, E), hashed words or a frozen backbone's embedding, in place of the two above.
        """
        if text_vectors is None:
            assert input_ids is not None
            assert attention_mask is not None
            text_vectors = self._read(input_ids, attention_mask)
        text = text_vectors.to(next(self.encoder.parameters()).dtype)
        if not self.config.see_text:
            text = torch.zeros_like(text)
        hidden = self.encoder(torch.cat([text, history.to(text.dtype)], dim=-1))
        logits = self.operation_head(hidden)
        if action_mask is not None:
            logits = logits.masked_fill(action_mask == 0, MASKED)
        return OperationPolicyOutput(logits=logits, value=self.value_head(hidden).squeeze(-1))

    def _read(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """One vector for each text, (N, E)."""
        states = self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        if self.config.pooling == "last":
            last = attention_mask.cumsum(1).argmax(1)
            return states[torch.arange(len(states), device=states.device), last]
        weights = attention_mask.unsqueeze(-1).to(states.dtype)
        return (states * weights).sum(1) / weights.sum(1).clamp(min=1)

    # -- from states to tensors

    def featurize(self, states: Sequence[State]) -> dict[str, torch.Tensor]:
        """Inputs of `forward` for N states, on the CPU."""
        # Read once: a config's attributes are looked up through several layers.
        config, index, length = self.config, self.operation_names, self.config.operations_per_episode
        seen = states if config.see_history else [State(state.text, step=state.step) for state in states]
        inputs = {"history": torch.from_numpy(history_features(seen, index, length))}
        if config.max_repeats is not None:
            inputs["action_mask"] = torch.tensor([_allowed(state, index, config.max_repeats) for state in states])
        return inputs | self._featurize_texts([state.text for state in states])

    def _featurize_texts(self, texts: list[str]) -> dict[str, torch.Tensor]:
        config = self.config
        if config.backbone is None:
            read = text_features if config.form else hashed_vectors
            return {"text_vectors": torch.from_numpy(read(texts, config.text_size))}
        if not config.freeze_backbone:
            return self._tokenize(texts)
        self._embed({text: None for text in texts if text not in self._embedded})
        return {"text_vectors": torch.stack([self._embedded[text] for text in texts])}

    def _tokenize(self, texts: list[str], padding: str = "max_length") -> dict[str, torch.Tensor]:
        encoded = self.processing_class(
            texts,
            padding=padding,
            truncation=True,
            max_length=self.config.max_length,
            return_tensors="pt",
            split_special_tokens=True,
        )
        return {name: encoded[name] for name in ("input_ids", "attention_mask")}

    @torch.no_grad()
    def _embed(self, texts: dict[str, None], batch_size: int = 32) -> None:
        """Embed texts not seen before, and cache their vectors."""
        if len(self._embedded) > 100_000:  # Else the cache would grow without bound.
            self._embedded = {text: self._embedded[text] for text in texts if text in self._embedded}
        waiting = list(texts)
        was_training = self.backbone.training
        self.backbone.eval()
        for start in range(0, len(waiting), batch_size):
            batch = waiting[start : start + batch_size]
            inputs = {name: tensor.to(self.device) for name, tensor in self._tokenize(batch, "longest").items()}
            self._embedded.update(zip(batch, self._read(**inputs).float().cpu()))
        self.backbone.train(was_training)

    @property
    def processing_class(self) -> Any:
        """The backbone's tokenizer: loaded from the policy's folder, or from the backbone's."""
        if self._tokenizer is None:
            name = self.name_or_path if self.name_or_path else self.config.backbone_name
            with loading("tokenizer", name):
                self._tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._tokenizer.padding_side = "right"
        return self._tokenizer

    def save_pretrained(  # type: ignore[override]  # The options stay those of the base class.
        self, save_directory: str | Path, *args: Any, push_to_hub: bool = False, **kwargs: Any
    ) -> None:
        """Save the policy, and the backbone's tokenizer beside the weights."""
        if push_to_hub:
            raise UserError(
                "save_pretrained saves only; call push_to_hub(REPO_ID) after it, which pushes in one commit."
            )
        check_whole(self)
        super().save_pretrained(save_directory, *args, **kwargs)
        if self.config.backbone is not None:
            self.processing_class.save_pretrained(save_directory)

    def push_to_hub(  # type: ignore[override]  # No positional options, and a URL in place of a CommitInfo.
        self,
        repo_id: str,
        *,
        commit_message: str = "Upload policy",
        private: bool | None = None,
        token: str | bool | None = None,
        max_shard_size: int | str = "50GB",
        tags: Sequence[str] = (),
        **options: Any,
    ) -> str:
        """Push weights, config and a card without any facts of the training in one commit; returns its URL.

        `InstructionGenPPOTrainer.push_to_hub` pushes with the training's card, `teamsrl push` pushes a saved folder.

        Args:
            private: Visibility of a new repository; private unless False.
            max_shard_size: Size of one weight file at most, such as "5GB".
            tags: Further tags for the card.
            options: `revision`, `create_pr` and others; see `hub.push_folder`, also for errors.
        """
        from ..hub.arguments import check_options, client
        from ..hub.push import push_policy
        from ..publish.cards import policy_card

        check_options(options)
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder, max_shard_size=max_shard_size)
            card = policy_card(None, self.config.operation_tuple(), {}, tags=tags)
            (Path(folder) / "README.md").write_text(card, encoding="utf-8")
            options = {"commit_message": commit_message, "private": private is not False, **options}
            return push_policy(folder, repo_id, **{"api": client(token), **options})

    @property
    def operation_names(self) -> dict[str, int]:
        """Index of each operation by name."""
        return {entry["name"]: index for index, entry in enumerate(self.config.entries)}

    # -- choosing

    def choose(self, states: Sequence[State], uniforms: Sequence[float]) -> list[int]:
        """The most likely operation for each state or, if `config.most_likely` is False, one drawn with `uniforms`.

        Each state gets a forward pass of its own: the other rows of a batch may change the last bits of a matrix
        product, and so, rarely, an operation; a dataset must not depend on which chains happened to run together.
        """
        return [action for state, u in zip(states, uniforms) for action in self.choose_batch([state], [u])]

    @torch.no_grad()
    def choose_batch(self, states: Sequence[State], uniforms: Sequence[float]) -> list[int]:
        """As `choose`, in one forward pass: faster, but reproducible only for exactly the same batch."""
        return pick(self._seen(states)[0], uniforms, self.config.most_likely)

    @torch.no_grad()
    def value(self, states: Sequence[State]) -> list[float]:
        """Expected reward of each state from here to the chain's end; for `EvolverConfig.stop_below`."""
        return [self._seen([state])[1].item() for state in states]  # One by one, as in `choose`.

    def _seen(self, states: Sequence[State]) -> tuple[torch.Tensor, torch.Tensor]:
        output = self(**{name: tensor.to(self.device) for name, tensor in self.featurize(states).items()})
        return output.logits, output.value


def pick(logits: torch.Tensor, uniforms: Sequence[float], most_likely: bool) -> list[int]:
    """The most likely operation in each of N states, or one drawn; `logits` (N, K)."""
    return logits.argmax(-1).tolist() if most_likely else draw(logits, uniforms)


def draw(logits: torch.Tensor, uniforms: Sequence[float]) -> list[int]:
    """The operation at each of N numbers in [0, 1) on the scale of cumulative probability; `logits` (N, K)."""
    cumulative = torch.softmax(logits.float().cpu(), dim=-1).double().cumsum(-1)
    drawn = torch.tensor(uniforms, dtype=torch.float64)[:, None]
    return (cumulative <= drawn).sum(-1).clamp(max=logits.shape[1] - 1).tolist()


def _allowed(state: State, index: dict[str, int], max_repeats: int) -> list[float]:
    """1 for each operation tried fewer than `max_repeats` times, (K,); all 1 when none is left."""
    allowed = [float(state.operations.count(name) < max_repeats) for name in index]
    return allowed if any(allowed) else [1.0] * len(index)


def _backbone_config(config: OperationPolicyConfig) -> PreTrainedConfig:
    assert config.backbone is not None
    return AutoConfig.for_model(**config.backbone)


def check_policy_operations(policy: OperationPolicy, operations: Sequence[Operation]) -> tuple[Operation, ...]:
    """The policy's operations with the prompts of `operations`; UserError unless both have the same names in order."""
    own, given = list(policy.operation_names), [operation.name for operation in operations]
    if own != given:
        raise UserError(
            f"The policy chooses among {own}, but the operations in use are {given}; they must be the same."
        )
    return prompted_as(policy.config.operation_tuple(), operations)


def check_whole(policy: OperationPolicy) -> None:
    """UserError when a policy's weights hold an adapter, since `from_pretrained` would not find its own among them."""
    if any(".base_layer." in name for name, _ in policy.named_parameters()):
        raise UserError(
            "The policy holds an adapter, with which it can't be saved or trained as a whole policy; give the PEFT "
            "model around it, or the result of its merge_and_unload(), and push an adapter's folder as it is."
        )


def load_policy(name: str | Path, saved: bool = False, **config: Any) -> OperationPolicy:
    """The policy `name`: a Hub id or folder of a saved policy, of an adapter to one, or of a model to read text with.

    Args:
        saved: Accept only a saved policy: a new one around a language model has learned nothing.
        config: Fields of `OperationPolicyConfig` for a new policy around a language model.

    Raises:
        UserError: It can't be loaded, or `saved` is True and it is no policy.
    """
    name = str(name)
    with loading("policy", name):
        if cached_file(name, "adapter_config.json", _raise_exceptions_for_missing_entries=False):
            return _load_adapter(name)
        kind = AutoConfig.from_pretrained(name, trust_remote_code=False).model_type
        if kind == OperationPolicyConfig.model_type:
            return OperationPolicy.from_pretrained(name, use_safetensors=True, trust_remote_code=False)
    if saved:
        raise UserError(f"{name!r} is no operation policy but a model of type {kind}; give what train-policy wrote.")
    return OperationPolicy.from_backbone(name, **config)


def _load_adapter(name: str) -> OperationPolicy:
    """The policy whose LoRA adapter and heads are `name`, on the backbone its config names."""
    from peft import PeftModel

    file = cached_file(name, "config.json", _raise_exceptions_for_missing_entries=False)
    saved = json.loads(Path(file).read_text(encoding="utf-8")) if file else {}
    if not isinstance(saved, dict) or not saved.get("backbone_name"):
        raise UserError(f"{name!r} is an adapter to another model than a policy; give what train-policy wrote.")
    fields = OperationPolicyConfig.__annotations__.keys() - {"backbone", "backbone_name"}
    known = {field: saved[field] for field in fields if field in saved}
    policy = OperationPolicy.from_backbone(saved["backbone_name"], **known)
    adapted = PeftModel.from_pretrained(policy, name).get_base_model()
    assert isinstance(adapted, OperationPolicy)
    return adapted


AutoConfig.register(OperationPolicyConfig.model_type, OperationPolicyConfig)
AutoModel.register(OperationPolicyConfig, OperationPolicy)
