"""A tiny random base model: in go texts, out come a Llama of 0.3 million parameters and its tokenizer."""

from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from .data import ROLES
from .template import CHAT_TEMPLATE


def build_tiny_model(
    texts: Iterable[str], output_dir: str | Path, seed: int = 0, tokenizer: PreTrainedTokenizerFast | None = None
) -> Path:
    """Write a randomly initialised Llama of about 0.3 million parameters and a tokenizer trained on `texts`.

    Args:
        tokenizer: The result of `train_tokenizer` for the same texts, if the caller has it.

    Returns:
        `output_dir`, which `from_pretrained` loads. The same texts and seed give the same files.
    """
    tokenizer = train_tokenizer(texts) if tokenizer is None else tokenizer
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # Not AutoModel.from_config: once ZeRO-3 arguments exist, that would partition the weights and save none.
        LlamaForCausalLM(tiny_config(tokenizer)).save_pretrained(output_dir)
    tokenizer.save_pretrained(output_dir)
    return Path(output_dir)


def tiny_config(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """The shape of the tiny model."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=172,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def train_tokenizer(texts: Iterable[str], vocab_size: int = 1024) -> PreTrainedTokenizerFast:
    """A tokenizer of byte-level BPE: every text can be encoded, so no unknown token is needed."""
    roles = [f"<|{role}|>" for role in ROLES]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|bos|>", "<|eos|>", "<|pad|>", *roles],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|bos|>",
        eos_token="<|eos|>",
        pad_token="<|pad|>",
        additional_special_tokens=roles,
        model_max_length=2048,
        chat_template=CHAT_TEMPLATE,
    )
