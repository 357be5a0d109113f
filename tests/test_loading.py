"""Broken, missing and mistaken models: what is wrong is said in one line, before weights load where it can be."""

import json
import shutil

import pytest
from asked import TRAIN_RULES
from sft_data import write_folder

from teamsrl_hf.cli import main
from teamsrl_hf.errors import UserError
from teamsrl_hf.loading import loading
from teamsrl_hf.models.accounting import table
from teamsrl_hf.models.local import TransformersGenerator
from teamsrl_hf.ppo.policy import OperationPolicy, OperationPolicyConfig, load_policy
from teamsrl_hf.runs import NOT_ROWS
from teamsrl_hf.sft.load import load_finetuned
from teamsrl_hf.sft.tiny import build_tiny_model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return build_tiny_model(["Name the capital of Peru."], tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def saved_policy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policy")
    OperationPolicy(OperationPolicyConfig()).save_pretrained(folder)
    return folder


def changed(**fields):
    def change(folder):
        config = json.loads((folder / "config.json").read_text()) | fields
        config = {name: value for name, value in config.items() if value != "none"}
        (folder / "config.json").write_text(json.dumps(config))

    return change


BROKEN = {
    "no config": (lambda folder: (folder / "config.json").unlink(), "model"),
    "config cut off": (lambda folder: (folder / "config.json").write_text('{"model'), "is not a valid JSON file"),
    "config of bytes": (
        lambda folder: (folder / "config.json").write_bytes(bytes(range(256))),
        "not a valid JSON file",
    ),
    "config of a list": (lambda folder: (folder / "config.json").write_text("[1]"), ""),
    "no model type": (changed(model_type="none"), ""),
    "unknown model type": (changed(model_type="llama9"), "`llama9`"),
    "code of its own": (
        changed(model_type="x", auto_map={"AutoConfig": "x.Y"}),
        "code of its own, which is never run",
    ),
    "size as a text": (changed(hidden_size="many"), "Field 'hidden_size' expected int, got str"),
    "no heads": (changed(num_attention_heads=0), "ZeroDivisionError"),
    "unknown activation": (changed(hidden_act="swoosh"), "swoosh"),
    "unknown dtype": (changed(dtype="floaty"), "floaty"),
    "other size": (changed(hidden_size=32), "ignore_mismatched_sizes"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "no file named model.safetensors"),
    "empty weights": (lambda folder: (folder / "model.safetensors").write_bytes(b""), "header too small"),
    "weights cut off": (
        lambda folder: (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:9000]),
        "incomplete metadata, file not fully covered",
    ),
    "no tokenizer": (lambda folder: [file.unlink() for file in folder.glob("tokenizer*")], "backend tokenizer"),
    "tokenizer cut off": (lambda folder: (folder / "tokenizer.json").write_text('{"a'), "Unterminated string"),
    "tokenizer of something else": (lambda folder: (folder / "tokenizer.json").write_text('{"a": 1}'), "added_tokens"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_model_is_told_in_one_line_by_every_loader(case, tiny, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    breaks, expected = BROKEN[case]
    breaks(folder)
    for load in (
        lambda: TransformersGenerator(str(folder), device="cpu"),
        lambda: load_finetuned(str(folder)),
        lambda: OperationPolicy.from_backbone(str(folder)),
    ):
        if (case, load.__code__.co_names[0]) == ("other size", "OperationPolicy"):
            continue
        with pytest.raises(UserError, match=r"^Can't load (model|tokenizer) ") as refused:
            load()
        assert "\n" not in str(refused.value)
        assert expected in str(refused.value)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("/no/such/folder", "there is no such folder"),
        ("./nothing", "there is no such folder"),
        ("", "is empty"),
        ("a/b/c", "Repo id must be in the form"),
        ("two words", "Repo id must use alphanumeric chars"),
        ("no/such-model", "couldn't connect"),
    ],
)
def test_a_model_that_is_not_there_is_named(name, expected):
    for load in (TransformersGenerator, load_finetuned, load_policy):
        with pytest.raises(UserError, match=r"^Can't load|^The name of") as refused:
            load(name)
        assert expected in str(refused.value)


def test_a_bug_of_ours_beneath_a_library_stays_one():
    with pytest.raises(KeyError), loading("model", "ada/tiny"):
        json.loads("{}", object_hook=table)


def refused(capsys, *argv):
    assert main([str(word) for word in argv]) == 2
    return capsys.readouterr().err.strip().splitlines()[-1].removeprefix("error: ")


def test_a_model_in_place_of_a_policy_and_a_policy_in_place_of_a_model_are_refused(
    tiny, saved_policy, tmp_path, capsys
):
    out = ["--output_dir", tmp_path / "out"]
    told = refused(capsys, "evolve", "--policy", tiny, *out)
    assert told == f"{str(tiny)!r} is no operation policy but a model of type llama; give what train-policy wrote."
    wanted = "is an operation policy, not a language model"
    assert wanted in refused(
        capsys,
        "evolve",
        "--chooser",
        "uniform",
        "--reviewer",
        "rulebook",
        "--expert",
        f"transformers:{saved_policy}",
        *out,
    )
    with pytest.raises(UserError, match=wanted):
        load_finetuned(str(saved_policy))
    options = ("--use_cpu", "true", "--bf16", "false", "--dataset_name", write_folder(tmp_path / "rows"))
    told = refused(capsys, "sft", "--model_name_or_path", saved_policy, *options, *out)
    assert wanted in told
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": str(tiny), "peft_type": "LORA"})
    )
    told = refused(capsys, "evolve", "--policy", adapter, *out)
    assert told == f"{str(adapter)!r} is an adapter to another model than a policy; give what train-policy wrote."
    told = refused(capsys, "sft", "--model_name_or_path", adapter, *options, *out)
    assert told.startswith(f"{str(adapter)!r} is an adapter; ")
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"run.json", NOT_ROWS}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{% for message in messages %}", "the chat template refused the messages: Unexpected end of template"),
        ("{{ raise_exception('Only system messages.') }}", "Only system messages."),
        ("{{ messages[0]['content'] + 5 }}", "can only concatenate str"),
        ("{{ messages[3]['content'] }}", "has no element 3"),
        ("{{ '<|eos|>' * 3000 }}", "leaves no room in the context of 2048"),
    ],
)
def test_a_template_that_takes_no_question_is_told_before_the_first_one(template, expected, tiny, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(UserError, match="can't be asked anything") as refused:
        TransformersGenerator(str(folder), device="cpu")
    assert expected in str(refused.value)


def test_a_tokenizer_with_more_tokens_than_the_model_is_told_before_the_first_question(tiny, tmp_path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer.add_tokens(["<|think|>"])
    tokenizer.chat_template = "<|think|>" + tokenizer.chat_template
    with pytest.raises(UserError, match=r"the tokenizer writes token (\d+), but the model has embeddings for \1 only"):
        TransformersGenerator(str(tiny), device="cpu", processing_class=tokenizer)


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"learning_rate": -1}, "learning_rate must be a number of at least 0, not -1."),
        ({"learning_rate": float("nan")}, "learning_rate must be a number of at least 0, not nan."),
        ({"per_device_train_batch_size": 0}, "per_device_train_batch_size must be a number of at least 1, not 0."),
        ({"gamma": 1.5}, "gamma must be a number of at least 0 and at most 1, not 1.5."),
        ({"cliprange": 0}, "cliprange must be a number above 0, not 0."),
        ({"entropy_coef": -1}, "entropy_coef must be a number of at least 0, not -1."),
        ({"target_kl": -1}, "target_kl must be a number above 0, not -1."),
        ({"num_ppo_epochs": 0}, "num_ppo_epochs must be a whole number of at least 1, not 0."),
        ({"total_episodes": 3}, "total_episodes must be a whole number of at least 4, not 3."),
        ({"total_episodes": 64, "max_steps": 257}, "total_episodes=64 ends after 256 steps, before max_steps; leave"),
        ({"report_to": "wanb"}, "report_to names 'wanb', no tracker that is installed here"),
    ],
)
def test_arguments_of_ppo_out_of_range_are_refused_in_python_too(wrong, expected):
    from teamsrl_hf import InstructionGenPPOConfig

    with pytest.raises(UserError) as refused:
        InstructionGenPPOConfig("out", use_cpu=True, **wrong)
    assert str(refused.value).startswith(expected)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--torch_compile_backend", "foo"], "The trainer can't be made with these arguments: "),
        (["--use_peft", "true", "--lora_target_modules", "nope"], "The policy can't have this adapter: "),
        (["--use_peft", "true", "--lora_dropout", "1"], "lora_dropout must be a number of at least 0 and below 1"),
        (["--chooser", "thompson"], "A bandit needs --max_steps"),
        (
            ["--model_name_or_path", "", "--load_in_4bit", "true"],
            "load_in_4bit is for a policy that reads with a model",
        ),
    ],
)
def test_what_the_trainer_and_peft_refuse_is_no_bug(options, told, tiny, tmp_path, capsys):
    common = ["--use_cpu", "true", "--max_steps", "2", "--model_name_or_path", tiny, "--output_dir", tmp_path / "out"]
    assert refused(capsys, "train-policy", *TRAIN_RULES, *common, *options).startswith(told)


def test_a_hub_out_of_reach_is_not_a_model_without_weights(monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    from teamsrl_hf.publish.lineage import weights_digest

    def unreachable(*_, **__):
        raise LocalEntryNotFoundError("Connection refused.")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    assert weights_digest("ada/tiny") is None  # Offline, as all tests are, and not in the cache.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(UserError, match=r"Can't reach the Hub for 'ada/tiny', no folder here: Connection refused\."):
        weights_digest("ada/tiny")
