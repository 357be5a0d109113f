"""Special tokens and ends: what a model is taught is what generation will show it and wait for."""

import pytest
import torch
from datasets import Dataset
from sft_data import assistant, geography, row, run, user, write_folder
from transformers import AutoModelForCausalLM, AutoTokenizer

from teamsrl_hf.sft.data import chat_texts, check_sft_dataset
from teamsrl_hf.sft.template import (
    answer_end,
    check_lengths,
    count_broken_prompts,
    encode_chat,
    settle_chat_template,
    tokenize,
)
from teamsrl_hf.sft.tiny import build_tiny_model

# As Qwen's base models have it: turns end with <|im_end|>, and the tokenizer's end of sequence is another token.
IM_END = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def rows():
    return check_sft_dataset(Dataset.from_list(list(geography())))


@pytest.fixture(scope="module")
def tiny(rows, tmp_path_factory):
    return build_tiny_model(chat_texts(rows), tmp_path_factory.mktemp("tiny"), seed=1)


@pytest.fixture
def tokenizer(tiny):
    return AutoTokenizer.from_pretrained(tiny)


@pytest.fixture(scope="module")
def qwen_like(tiny, tmp_path_factory):
    """A base model whose template ends turns with a token that is not its end of sequence."""
    folder = tmp_path_factory.mktemp("qwen")
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = IM_END
    model = AutoModelForCausalLM.from_pretrained(tiny)
    model.resize_token_embeddings(len(tokenizer))
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def learned(tokens, tokenizer):
    """The text that the loss covers."""
    return tokenizer.decode([i for i, mark in zip(tokens["input_ids"], tokens["completion_mask"]) if mark])


def batch_labels(rows, tokenizer):
    """Labels as the trainer's own collator gives them to the model."""
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    collate = DataCollatorForLanguageModeling(pad_token_id=tokenizer.pad_token_id)
    marked = [
        {
            "input_ids": row["input_ids"],
            "labels": [i if mark else -100 for i, mark in zip(row["input_ids"], row["completion_mask"])],
        }
        for row in tokenize(rows, tokenizer)
    ]
    return collate(marked)["labels"]


def test_the_end_is_learned_where_padding_uses_the_same_token(tokenizer, rows):
    tokenizer.pad_token = tokenizer.eos_token
    labels = batch_labels(rows, tokenizer)
    assert (labels == tokenizer.eos_token_id).sum() == len(rows)  # Of each row one, and none of the padding.
    last = [line[line != -100][-1].item() for line in labels]
    assert set(last) == {tokenizer.eos_token_id}


def test_one_token_as_beginning_and_end_is_learned_as_the_end_only(tokenizer, rows):
    tokenizer.bos_token = tokenizer.eos_token = "<|eos|>"
    settle_chat_template(tokenizer)
    for tokens in tokenize(rows, tokenizer):
        assert tokens["input_ids"][0] == tokenizer.eos_token_id
        assert learned(tokens, tokenizer).count("<|eos|>") == 1
        assert learned(tokens, tokenizer).endswith("<|eos|>")


def test_a_tokenizer_that_adds_a_beginning_itself_does_not_double_it(tokenizer, rows):
    from tokenizers.processors import TemplateProcessing

    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|bos|> $A", special_tokens=[("<|bos|>", tokenizer.bos_token_id)]
    )
    assert tokenizer("Lima")["input_ids"][0] == tokenizer.bos_token_id
    ids = encode_chat(tokenizer, [user("Where is Lima?"), assistant("In Peru.")])
    assert ids.count(tokenizer.bos_token_id) == 1
    assert ids[0] == tokenizer.bos_token_id


def test_the_end_of_answers_becomes_the_end_of_sequence(qwen_like):
    tokenizer = AutoTokenizer.from_pretrained(qwen_like)
    assert (tokenizer.eos_token, answer_end(tokenizer)) == ("<|eos|>", "<|im_end|>")
    assert settle_chat_template(tokenizer).eos_token == "<|im_end|>"


def test_an_end_asked_for_that_the_template_does_not_write_is_refused(qwen_like):
    tokenizer = AutoTokenizer.from_pretrained(qwen_like)
    with pytest.raises(ValueError, match=r"but the chat template ends answers with '<\|im_end\|>'; give that one"):
        settle_chat_template(tokenizer, "<|eos|>")


def test_a_template_without_an_end_is_refused(tokenizer):
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
    with pytest.raises(ValueError, match="ends answers with no special token, so the model would never learn to stop"):
        settle_chat_template(tokenizer)


def test_the_trained_model_stops_where_its_template_ends_answers(qwen_like, tmp_path, capsys):
    """Learned by heart from one row, merged, and generated with nothing but what the folder says."""
    one = [row("Where is Lima?", "In Peru."), row("Where is Lima?", "In Peru.")]
    other = [row("Where is Quito?", "In Ecuador.")]
    for split, held in (("train", one), ("test", other)):
        Dataset.from_list(held).to_parquet(tmp_path / "data" / f"{split}.parquet")
    options = ("--tiny_model", "false", "--model_name_or_path", str(qwen_like), "--use_peft", "false")
    run(tmp_path / "data", tmp_path / "out", *options, "--max_steps", "25")
    assert "Answers will end with '<|im_end|>', not '<|eos|>'." in capsys.readouterr().err
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = torch.tensor([encode_chat(tokenizer, [user("Where is Lima?")], add_generation_prompt=True)])
    answer = model.generate(ids, max_new_tokens=30, do_sample=False)[0, ids.shape[1] :]
    assert tokenizer.decode(answer) == "In Peru.<|im_end|>"


def test_prompts_that_a_template_shows_otherwise_before_an_answer_are_counted(tokenizer, rows):
    assert count_broken_prompts(rows, tokenizer) == 0
    tokenizer.chat_template = (
        "{% if add_generation_prompt %}Vicuna: {% else %}Alpaca: {% endif %}"
        "{% for message in messages %}{{ message['content'] }}{{ eos_token }}{% endfor %}"
    )
    assert count_broken_prompts(rows, tokenizer, most=5) == 5


def test_long_rows_are_counted_cut_or_left_out(tokenizer, rows):
    tokens = tokenize(rows, tokenizer)
    lengths = [len(ids) for ids in tokens["input_ids"]]
    limit = sorted(lengths)[-3]
    prompts = max(mask.index(1) for mask in tokens["completion_mask"])
    assert prompts < limit
    longer = sum(length > limit for length in lengths)
    kept, cut, dropped = check_lengths(tokens, limit)
    assert (len(kept), cut, dropped) == (24, longer, 0)
    kept, cut, dropped = check_lengths(tokens, limit, drop=True)
    assert (len(kept), cut, dropped) == (24 - longer, 0, longer)
    assert all(ids[-1] == tokenizer.eos_token_id for ids in kept["input_ids"])
    assert check_lengths(tokens, None) == (tokens, 0, 0)
    with pytest.raises(ValueError, match="prompts alone fill it in 24 of 24 rows"):
        check_lengths(tokens, 3, drop=True)


def test_a_gpt2_like_base_model_trains_with_our_template(tiny, tmp_path):
    """No template, one token for beginning, end and padding: the commonest base models."""
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer.chat_template = None
    tokenizer.bos_token = tokenizer.eos_token = tokenizer.pad_token = "<|eos|>"
    base = tmp_path / "base"
    tokenizer.save_pretrained(base)
    (base / "chat_template.jinja").unlink(missing_ok=True)
    AutoModelForCausalLM.from_pretrained(tiny).save_pretrained(base)
    options = ("--tiny_model", "false", "--model_name_or_path", str(base), "--max_steps", "3")
    summary = run(write_folder(tmp_path / "data"), tmp_path / "out", *options)
    assert summary["loss_after"] < summary["loss_before"]
    assert "generation" in AutoTokenizer.from_pretrained(tmp_path / "out").chat_template
