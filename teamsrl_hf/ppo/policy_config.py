"""Config of the operation policy: in go sizes, operations and a backbone, out comes `config.json`."""

from typing import Any

from transformers import PreTrainedConfig

from ..errors import UserError, check_number
from ..text.features import FORM
from ..text.operations import OPERATIONS, Operation, check_operations, prompted_as
from ..types import POLICY_TYPE


class OperationPolicyConfig(PreTrainedConfig):
    """Sizes of the policy and the operations it chooses from.

    Args:
        operations: Mappings with `name` and `sentence`, in the order of the policy's actions; by default the built-in
            ones.
        operations_per_episode: Steps after which the step feature saturates; the length of an episode in training.
        max_repeats: Times an operation may be tried in one chain before it is masked; None for no limit. A mask keeps
            the mix of operations from collapsing onto the one or two that pay best.
        see_text, see_history: Whether the policy sees the text, and what was tried before; for ablations.
        hidden_size: Width of both hidden layers.
        text_size: Hash buckets for a text's words and pairs of words. Without a backbone only.
        form: Whether form features (`text.features.FORM`) stand beside those words, which then count a fifth. Without
            a backbone only.
        most_likely: Whether `OperationPolicy.choose` takes the most likely operation; else it draws one.
        backbone: Config of the model that reads the text, as a mapping; None for hashed words.
        backbone_name: Where that model came from.
        freeze_backbone: Whether it stays as it is, so that each text is embedded once.
        pooling: How its token states become one vector: "mean", or "last" for a causal LM.
        max_length: Tokens of a text it reads.
    """

    model_type = POLICY_TYPE

    operations: list[dict[str, str]] | None = None
    operations_per_episode: int = 6
    max_repeats: int | None = None
    see_text: bool = True
    see_history: bool = True
    hidden_size: int = 64
    text_size: int = 32
    form: bool = True
    most_likely: bool = True
    backbone: dict[str, Any] | None = None
    backbone_name: str | None = None
    freeze_backbone: bool = True
    pooling: str = "mean"
    max_length: int = 256

    def __post_init__(self, **kwargs: Any) -> None:
        if self.operations is None:
            self.operations = [{"name": o.name, "sentence": o.sentence} for o in OPERATIONS]
        super().__post_init__(**kwargs)
        for name in ("operations_per_episode", "hidden_size", "text_size", "max_length"):
            check_number(name, getattr(self, name), 1, whole=True)
        if self.pooling not in ("mean", "last"):
            raise UserError(f"Unknown pooling {self.pooling!r}; use mean or last.")
        if not all(isinstance(entry, dict) and set(entry) == {"name", "sentence"} for entry in self.entries):
            raise UserError("operations of a policy must be mappings of name and sentence.")
        self.operation_tuple()

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """The config that `to_dict` described; one from before `form` and `most_likely` has neither."""
        return super().from_dict({"form": False, "most_likely": False, **config_dict}, **kwargs)

    def to_diff_dict(self) -> dict[str, Any]:
        """What config.json holds: all that differs from the defaults, and what configs did not always have."""
        return {**super().to_diff_dict(), "form": self.form, "most_likely": self.most_likely}

    def push_to_hub(self, *args: Any, **kwargs: Any) -> str:
        raise UserError("A config alone is no policy; push it with its weights: OperationPolicy.push_to_hub(REPO_ID).")

    def save_pretrained(self, save_directory: Any, push_to_hub: bool = False, **kwargs: Any) -> None:
        if push_to_hub:
            self.push_to_hub()
        super().save_pretrained(save_directory, **kwargs)

    def operation_tuple(self) -> tuple[Operation, ...]:
        """The operations as the tuple that rollouts take."""
        return check_operations(prompted_as([Operation(entry["name"], entry["sentence"]) for entry in self.entries]))

    @property
    def entries(self) -> list[dict[str, str]]:
        """`operations`, which is never None once the config is made."""
        assert self.operations is not None
        return self.operations

    @property
    def text_width(self) -> int:
        """Width of a text's vector without a backbone: form features, if any, and hash buckets."""
        return self.form * len(FORM) + self.text_size

    @property
    def history_size(self) -> int:
        """Width of the history features: tried and accepted counts, last operation and its success, step."""
        return 3 * len(self.entries) + 2 + self.operations_per_episode
