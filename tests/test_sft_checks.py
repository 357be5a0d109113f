"""What can't work is told in one line, before any weight is loaded."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import yaml
from datasets import Dataset
from sft_data import CONFIG, assistant, run, user, write_folder
from transformers import AutoConfig, AutoModelForCausalLM

from teamsrl_hf.cli import load_recipe
from teamsrl_hf.errors import UserError
from teamsrl_hf.loading import check_tokens
from teamsrl_hf.runs import NOT_ROWS
from teamsrl_hf.sft.checks import check_devices
from teamsrl_hf.sft.estimate import Launch
from teamsrl_hf.sft.tiny import build_tiny_model

BASE = ("--tiny_model", "false", "--model_name_or_path")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return str(build_tiny_model(["Name the capital of Peru."], tmp_path_factory.mktemp("tiny")))


@pytest.fixture
def refused(monkeypatch, tmp_path):
    """Run the recipe, which must refuse in one line, load no weight and leave no model behind."""

    def loaded(*args, **options):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", loaded)

    def refuse(dataset, *options, out=tmp_path / "out", config=CONFIG):
        with pytest.raises(ValueError) as caught:
            run(dataset, out, *options, config=config)
        assert not list(tmp_path.rglob("*.safetensors"))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return refuse


def test_a_gpu_config_without_a_gpu_is_refused(refused, folder, monkeypatch):
    monkeypatch.setattr(load_recipe("sft"), "count_devices", lambda: 0)
    told = "No GPU is here for 1 process; run where there is one, or pass --use_cpu true --bf16 false"
    assert told in refused(folder, "--use_cpu", "false")


def test_more_processes_than_devices_are_refused(refused, folder, monkeypatch):
    monkeypatch.setattr(load_recipe("sft"), "count_devices", lambda: 2)
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    told = refused(folder, "--use_cpu", "false")
    assert told == "4 processes were started on a machine with 2 GPUs; pass --num_processes 2 to the launcher."


def test_one_process_before_several_gpus_is_refused(refused, folder, monkeypatch):
    monkeypatch.setattr(load_recipe("sft"), "count_devices", lambda: 4)
    told = refused(folder, "--use_cpu", "false")
    assert told.startswith("One process sees 4 GPUs; pass --accelerate_config ddp --num_processes 4")
    check_devices(False, 4, Launch(launched=True))


def test_fsdp_on_a_cpu_is_refused(refused, folder, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert "FSDP on a CPU would silently train as plain DDP" in refused(folder)


def test_a_device_for_each_process_is_enough():
    check_devices(False, 4, Launch(8, 4))
    check_devices(True, 0, Launch(2, 2))


def test_use_cpu_is_found_on_the_command_line_and_in_the_yaml(refused, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(load_recipe("sft"), "count_devices", lambda: 0)
    config = tmp_path / "a.yaml"
    config.write_text("use_cpu: true\nbf16: false\n")
    for options in ([], ["--use_cpu"], ["--use-cpu=True"]):
        assert refused(folder, *options, config=str(config)).startswith("Give either --model_name_or_path")
    assert "No GPU is here" in refused(folder, "--use_cpu", "false", config=str(config))
    assert "missing.yaml can't be read" in refused(folder, config=str(tmp_path / "missing.yaml"))


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ({"prompt": [user("a")]}, "has no column 'completion', only prompt"),
        ({"text": "a"}, "has no column 'prompt', only text"),
        ({"prompt": "a", "completion": "b"}, "Row 0, column 'prompt', holds str; wanted a list of"),
        ({"prompt": 1, "completion": 2}, "Row 0, column 'prompt', holds int; wanted a list of"),
        ({"messages": [user("a")]}, "Row 0, column 'messages', holds one message"),
        ({"messages": [user("a"), user("b")]}, "must end with a message of role 'assistant'"),
    ],
)
def test_a_dataset_without_completions_or_with_other_types_is_refused(rows, told, refused, tmp_path):
    Dataset.from_list([rows, rows]).to_parquet(tmp_path / "data" / "train.parquet")
    assert told in refused(tmp_path / "data")


def test_prompts_that_fill_max_length_are_counted(refused, folder, tmp_path):
    told = refused(folder, "--max_length", "12")
    assert told.startswith("max_length = 12 tokens is too short: prompts alone fill it in ")
    assert "of 18 rows (the longest prompt has " in told
    assert told.endswith("raise it, or leave long rows out with long_rows: drop.")
    # Nothing was made, so that the same folder serves the next try.
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"run.json", NOT_ROWS}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            ["--load_in_4bit", "true", "--use_peft", "false"],
            "load_in_4bit is set for a full fine-tuning; add use_peft",
        ),
        (["--load_in_8bit", "true", "--use_peft", "false"], "load_in_8bit is set for a full fine-tuning"),
        (["--lora_target_modules", "q_proj", "lm_head"], "list it under lora_modules_to_save"),
        (["--attn_implementation", "flash_attention_2"], "needs the package flash-attn"),
        (["--use_liger_kernel", "true"], "needs the package liger-kernel"),
        (["--hub_token", "hf_secret"], "set HF_TOKEN in the environment"),
        (["--trust_remote_code", "true"], "would run code from the Hub"),
        (["--assistant_only_loss", "true"], "completion_only_loss does the same"),
        (["--early_stopping_patience", "2"], "to be the same, steps or epoch; they are no and no"),
        (["--eos_token", "<|none|>"], "eos_token '<|none|>' is no token of this tokenizer"),
    ],
)
def test_settings_that_cannot_work_are_refused(options, told, refused, folder, tiny):
    answer = refused(folder, *BASE, tiny, *options)
    assert told in answer
    assert "hf_secret" not in answer


def test_saving_that_skips_evaluations_is_refused_with_early_stopping(refused, folder):
    steps = ("--eval_strategy", "steps", "--eval_steps", "4", "--save_strategy", "steps", "--save_steps", "6")
    assert "6 is none of 4" in refused(folder, "--early_stopping_patience", "2", *steps)


def _settle(launch, *options):
    """Arguments as the launcher's processes would see them; without its engine, which need not be installed."""
    from trl import ModelConfig, SFTConfig

    from teamsrl_hf.commands.arguments import parse

    recipe = load_recipe("sft")
    argv = ["--config", CONFIG, "--dataset_name", "x", *options]
    recipe.settle_arguments(*parse((recipe.SFTArguments, ModelConfig, SFTConfig), argv), launch)


FOUR_BITS = ("--load_in_4bit", "true", "--dtype", "bfloat16")


@pytest.mark.parametrize(
    ("launch", "options", "told"),
    [
        (Launch(4, 4, zero_stage=3), FOUR_BITS, "bnb_4bit_quant_storage is 'uint8' and dtype 'bfloat16'"),
        (
            Launch(4, 4, fsdp=True),
            (*FOUR_BITS, "--bnb_4bit_quant_storage", "float16"),
            "bnb_4bit_quant_storage is 'float16' and dtype 'bfloat16'",
        ),
        (Launch(4, 4, zero_stage=3), ("--load_in_8bit", "true"), "load_in_8bit can't be sharded"),
        (Launch(4, 4, fsdp=True), (), "lora_modules_to_save holds lm_head, whose gradients come out wrong under FSDP"),
        (Launch(2, 2, zero_stage=2, mixed_precision="bf16"), (), "mixed_precision: bf16, the recipe no; pass"),
        (Launch(2, 2, zero_stage=2, mixed_precision="no"), ("--bf16", "true"), "or set bf16: false in the recipe"),
        (Launch(2, 2, mixed_precision="fp16"), (), "mixed_precision: fp16, the recipe no"),
    ],
)
def test_what_does_not_fit_the_launcher_is_refused(launch, options, told):
    with pytest.raises(ValueError) as caught:
        _settle(launch, *options)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_output_folder_with_another_run_is_refused(refused, folder, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    assert "is not empty and was not made by this command" in refused(folder)
    (tmp_path / "out" / "run.json").write_text('{"arguments": {"seed": 7}, "summary": null}')
    assert "holds a run with" in refused(folder)


def test_mixtures_are_refused_where_they_make_no_sense(refused, folder, tmp_path):
    def mixture(*parts):
        config = tmp_path / "mixture.yaml"
        content = yaml.safe_load(Path(CONFIG).read_text()) | {"datasets": list(parts)}
        content.pop("dataset_name", None)
        config.write_text(yaml.safe_dump(content))
        return refused(None, config=config)

    assert "Can't read {'path': 'x', 'weight': 2} of the mixture" in mixture({"path": "x", "weight": 2})
    assert "needs path and may have name, data_dir" in mixture({"name": "x"})
    assert "give each dataset a positive one, or none" in mixture({"path": folder, "fraction": 0.5}, {"path": folder})
    broken = tmp_path / "broken"
    Dataset.from_list([{"prompt": "a", "completion": assistant("b")}]).to_parquet(broken / "train.parquet")
    assert f"Dataset '{broken}' of the mixture: Row 0, column 'prompt'" in mixture({"path": str(broken)})


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--learning_rate", "-1"], "learning_rate must be a number of at least 0, not -1.0."),
        (["--per_device_train_batch_size", "0"], "per_device_train_batch_size must be a number of at least 1, not 0."),
        (["--adam_beta1", "2"], "adam_beta1 must be a number of at least 0 and below 1, not 2.0."),
        (["--seed", "-1"], "seed must be a number of at least 0 and at most 4294967295, not -1."),
        (["--pad_to_multiple_of", "0"], "pad_to_multiple_of must be a number of at least 1, not 0."),
        (["--max_length", "-1"], "max_length must be a number of at least 1, not -1."),
        (["--report_to", "tensorbord"], "report_to names 'tensorbord', no tracker that is installed here"),
        (["--optim", "paged_adamw_8bit"], "The optimizer can't be used: You need to install `bitsandbytes`"),
        (["--lr_scheduler_kwargs", '{"a": 1}'], "The schedule of the learning rate can't be used: TypeError:"),
        (["--resume_from_checkpoint", "no/folder"], "resume_from_checkpoint is 'no/folder', which is no folder"),
        (["--trust_remote_code", "true"], "trust_remote_code would run code"),
        (["--activation_offloading", "true"], "leave it out on a CPU"),
        (["--use_peft", "true", "--lora_r", "0"], "lora_r must be a number of at least 1, not 0."),
        (["--use_peft", "true", "--lora_task_type", "x"], "The adapter can't be configured: Invalid task type: 'x'"),
        (
            ["--use_peft", "true", "--lora_target_modules", "nope"],
            "The adapter does not fit the model: Target modules nope not found in the base model.",
        ),
        (
            ["--use_peft", "true", "--lora_modules_to_save", "lm_hed"],
            "lora_modules_to_save names 'lm_hed', no module of the model; did you mean 'lm_head'?",
        ),
    ],
)
def test_what_the_libraries_would_refuse_is_refused_before_weights_load(
    options, told, refused, folder, tiny, tmp_path
):
    config = tmp_path / "bare.yaml"
    config.write_text("use_cpu: true\nbf16: false\nactivation_checkpointing: false\n")
    if "bitsandbytes" in told and importlib.util.find_spec("bitsandbytes"):
        pytest.skip("bitsandbytes is installed")
    assert told in refused(folder, *BASE, tiny, *options, config=config)


def test_a_model_that_can_not_read_the_rows_is_refused(refused, folder, tiny, tmp_path):
    config = tmp_path / "bare.yaml"
    config.write_text("use_cpu: true\nbf16: false\nmax_length: 64\n")
    for field, value, told in (
        ("vocab_size", 100, "but the model has embeddings for 100 only"),
        ("max_position_embeddings", 16, "don't fit into the model's context of 16; set max_length to 16 or less"),
    ):
        model = tmp_path / field
        shutil.copytree(tiny, model, ignore=shutil.ignore_patterns("*.safetensors"))
        (model / "config.json").write_text(
            json.dumps(json.loads((model / "config.json").read_text()) | {field: value})
        )
        assert told in refused(folder, *BASE, str(model), config=config)
        with pytest.raises(UserError, match=told.partition(";")[0]):
            check_tokens(AutoConfig.from_pretrained(model), 280, 30)
