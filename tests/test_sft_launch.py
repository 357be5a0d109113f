"""Fine-tuning in several processes, by every accelerate config, on tiny models and CPUs.

Launchers that are told wrongly start one process, or leave gradients apart, without a word: so every look at what came
of a launch asserts the number of processes and the wrapper.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from sft_data import CONFIG, geography, losses, run, write_folder

from teamsrl_hf.cli import main
from teamsrl_hf.paths import resource
from teamsrl_hf.sft.data import chat_texts, check_sft_dataset
from teamsrl_hf.sft.tiny import build_tiny_model

ROOT = resource("recipes").parent
# The whole data in one batch, so that which rows share a step does not depend on how they are handed out.
STEPS = ("--train_sampling_strategy", "sequential", "--max_steps", "3", "--logging_steps", "1")
SAVED = ("--save_strategy", "steps", "--save_steps", "3")
ROUNDING = {"atol": 1e-5, "rtol": 0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    from datasets import Dataset

    rows = check_sft_dataset(Dataset.from_list(list(geography())))
    return build_tiny_model(chat_texts(rows), tmp_path_factory.mktemp("tiny"), seed=1)


def execute(*command, cwd=ROOT):
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "DS_ACCELERATOR": "cpu",
    }
    return subprocess.run(
        [sys.executable, *map(str, command)], env=env, capture_output=True, text=True, timeout=590, cwd=cwd
    )


def launch(config, folder, out, *options, script="recipes/sft.py", launcher=()):
    """What a launch of the quickstart's recipe left: its summary."""
    done = execute(
        *("-m", "accelerate.commands.launch", "--config_file", f"accelerate_configs/{config}.yaml"),
        *("--main_process_port", "0", *launcher, script, "--config", CONFIG, "--dataset_name", folder),
        *("--output_dir", out, "--disable_tqdm", "true", *options),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((Path(out) / "run.json").read_text())["summary"] | {"printed": done.stdout}


def adapter(out):
    return load_file(Path(out) / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def alone(folder, tmp_path_factory):
    """One process with all of each step's rows."""
    out = tmp_path_factory.mktemp("alone") / "model"
    summary = run(folder, out, *STEPS, *SAVED, "--per_device_train_batch_size", "6")
    assert (summary["processes"], summary["steps"]) == (1, 3)
    return out


@pytest.mark.parametrize(
    ("name", "distributed_type", "processes"),
    [
        ("cpu", "MULTI_GPU", 1),
        ("single_gpu", "NO", 1),
        ("ddp", "MULTI_GPU", 2),
        ("zero1", "DEEPSPEED", 2),
        ("zero2", "DEEPSPEED", 2),
        ("zero3", "DEEPSPEED", 2),
        ("zero3_offload", "DEEPSPEED", 2),
        ("fsdp2", "FSDP", 2),
        ("fsdp2_qlora", "FSDP", 2),
    ],
)
def test_every_accelerate_config_is_complete_and_known_to_accelerate(name, distributed_type, processes):
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(resource(f"accelerate_configs/{name}.yaml")))
    assert (config.distributed_type.value, config.num_processes) == (distributed_type, processes)
    assert (config.num_machines, config.use_cpu) == (1, name == "cpu")


def test_no_accelerate_config_is_left_out_here():
    tested = test_every_accelerate_config_is_complete_and_known_to_accelerate.pytestmark[0].args[1]
    assert {name for name, _, _ in tested} == {file.stem for file in resource("accelerate_configs").glob("*.yaml")}


def test_teamsrl_sft_starts_two_processes_that_learn_what_one_learns(folder, alone, tmp_path):
    """`teamsrl sft --accelerate_config cpu`: 2 × batch B has the losses and weights of 1 × batch 2B."""
    both = tmp_path / "both"
    done = execute(
        *("-m", "teamsrl_hf.cli", "sft", "--accelerate_config", "cpu", "--num_processes", "2"),
        *("--main_process_port", "0", "--config", CONFIG, "--dataset_name", folder, "--output_dir", both),
        *(*STEPS, *SAVED, "--per_device_train_batch_size", "3"),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    summary = json.loads((both / "run.json").read_text())["summary"]
    assert (summary["processes"], summary["wrapper"]) == (2, "DistributedDataParallel")
    assert done.stderr.count("Estimate: trains") == 1
    assert losses(both / "checkpoint-3") == pytest.approx(losses(alone / "checkpoint-3"), abs=1e-4)
    assert len(losses(alone / "checkpoint-3")) == 3
    # Not so if each process kept its own gradients, which come from half of every batch.
    torch.testing.assert_close(adapter(both), adapter(alone), **ROUNDING)


def test_an_unknown_accelerate_config_is_named_at_once(capsys):
    started = time.monotonic()
    assert main(["sft", "--accelerate_config", "zero4", "--config", CONFIG]) == 2
    assert time.monotonic() - started < 1
    assert capsys.readouterr().err == (
        "error: No accelerate config 'zero4'; give the path of a file, or one of cpu, ddp, fsdp2, fsdp2_qlora, "
        "single_gpu, zero1, zero2, zero3, zero3_offload; did you mean 'zero3'?\n"
    )
    assert main(["sft", "--config", CONFIG, "--accelerate_config"]) == 2
    assert capsys.readouterr().err == "error: --accelerate_config needs a value.\n"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_is_wrong_in_a_launch_is_told_in_one_line_too(folder, tmp_path):
    done = execute(
        *("-m", "teamsrl_hf.cli", "sft", "--accelerate_config", "ddp", "--main_process_port", "0"),
        *("--config", CONFIG, "--dataset_name", folder, "--output_dir", tmp_path, "--use_cpu", "false"),
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    told = {line for line in done.stderr.splitlines() if line.startswith("error: ")}
    assert told == {
        "error: No GPU is here for 2 processes; run where there is one, "
        "or pass --use_cpu true --bf16 false for a trial on the CPU."
    }


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("config", "processes", "wrapper"),
    [
        ("cpu", 1, "DistributedDataParallel"),
        ("single_gpu", 1, "PeftModelForCausalLM"),
        ("ddp", 2, "DistributedDataParallel"),
    ],
)
def test_plain_configs_run_the_quickstart_recipe_on_a_cpu(config, processes, wrapper, folder, alone, tmp_path):
    size = str(6 // processes)
    summary = launch(config, folder, tmp_path / "out", *STEPS, "--per_device_train_batch_size", size)
    assert (summary["processes"], summary["wrapper"]) == (processes, wrapper)
    torch.testing.assert_close(adapter(tmp_path / "out"), adapter(alone), **ROUNDING)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("processes", [1, 2])
def test_the_quickstarts_recipe_needs_no_further_argument(processes, tmp_path):
    """Where `teamsrl quickstart --output_dir outputs/quickstart` was run before."""
    write_folder(tmp_path / "outputs" / "quickstart" / "dataset")
    launcher = ("--config_file", ROOT / "accelerate_configs/cpu.yaml", "--main_process_port", "0")
    launcher += ("--num_processes", processes) if processes > 1 else ()
    recipe = (ROOT / "recipes/sft.py", "--config", ROOT / "recipes/quickstart/sft.yaml")
    done = execute("-m", "accelerate.commands.launch", *launcher, *recipe, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    summary = json.loads((tmp_path / "outputs" / "sft" / "run.json").read_text())["summary"]
    assert (summary["processes"], summary["wrapper"]) == (processes, "DistributedDataParallel")
    assert summary["steps"] == 80


def _lacks_for_deepspeed():
    if find_spec("deepspeed") is None:
        return "needs teamsrl-hf[deepspeed]"
    missing = [tool for tool in (os.environ.get("CXX", "c++"), "ninja") if shutil.which(tool) is None]
    return f"DeepSpeed compiles its CPU parts, but there is no {missing[0]}" if missing else ""


needs_deepspeed = pytest.mark.skipif(bool(_lacks_for_deepspeed()), reason=_lacks_for_deepspeed())


@needs_deepspeed
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("stage", ["zero1", "zero2", "zero3", "zero3_offload"])
def test_deepspeed_learns_what_one_process_learns(stage, folder, alone, tmp_path):
    # In float32, so that it can be held against one process; as the files stand they go with `bf16: true`.
    options = (*STEPS, "--per_device_train_batch_size", "3")
    summary = launch(stage, folder, tmp_path / "out", *options, launcher=("--mixed_precision", "no"))
    assert (summary["processes"], summary["wrapper"]) == (2, "DeepSpeedEngine")
    torch.testing.assert_close(adapter(tmp_path / "out"), adapter(alone), atol=1e-4, rtol=0)


@needs_deepspeed
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_zero3_as_the_file_stands_saves_a_whole_model_in_bfloat16(folder, tiny, tmp_path):
    from transformers import AutoModelForCausalLM

    options = ("--tiny_model", "false", "--model_name_or_path", tiny, "--use_peft", "false", "--bf16", "true")
    summary = launch("zero3", folder, tmp_path / "out", *STEPS, *options)
    assert (summary["processes"], summary["wrapper"]) == (2, "DeepSpeedEngine")
    assert summary["loss_after"] < summary["loss_before"]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert sum(p.numel() for p in model.parameters()) == summary["parameters"]


@needs_deepspeed
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_4bit_base_trains_under_zero3(folder, tiny, tmp_path):
    pytest.importorskip("bitsandbytes", reason="needs the extra 'quantization'")
    options = ("--tiny_model", "false", "--model_name_or_path", tiny, "--load_in_4bit", "true")
    storage = ("--bnb_4bit_quant_storage", "float32", "--lora_modules_to_save", "embed_tokens")
    launcher = ("--mixed_precision", "no")
    summary = launch("zero3", folder, tmp_path / "out", *STEPS, *options, *storage, launcher=launcher)
    assert (summary["processes"], summary["wrapper"]) == (2, "DeepSpeedEngine")
    assert summary["loss_after"] < summary["loss_before"]


def _by_model(folder, tiny, out, *options):
    """One process, the tiny model from its folder: `lm_head` is not trained, which FSDP would do wrongly."""
    chosen = ("--tiny_model", "false", "--model_name_or_path", str(tiny), "--lora_modules_to_save", "embed_tokens")
    return (*STEPS, *chosen, *options), run(
        folder, out, *STEPS, *chosen, *options, "--per_device_train_batch_size", "6"
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["lora", "whole"])
def test_fsdp2_shards_and_learns_what_one_process_learns(kind, folder, tiny, tmp_path):
    whole = ("--use_peft", "false") if kind == "whole" else ()
    options, _ = _by_model(folder, tiny, tmp_path / "alone", *whole)
    options = (*options, "--per_device_train_batch_size", "3", "--use_cpu", "false")
    script = {"script": "tests/launch_sft.py", "launcher": ("--mixed_precision", "no")}
    summary = launch("fsdp2", folder, tmp_path / "out", *options, **script)
    assert (summary["processes"], summary["wrapper"][:4]) == (2, "FSDP")
    for rank in (0, 1):
        assert f"rank {rank} of 2 holds DTensor 0.50" in summary["printed"]
    name = "model.safetensors" if whole else "adapter_model.safetensors"
    saved = [load_file(tmp_path / run / name) for run in ("out", "alone")]
    torch.testing.assert_close(*saved, atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_fsdp2_shards_a_4bit_base_that_is_stored_as_floats(folder, tiny, tmp_path):
    pytest.importorskip("bitsandbytes", reason="needs the extra 'quantization'")
    quantized = ("--load_in_4bit", "true", "--bnb_4bit_quant_storage", "float32")
    options, alone = _by_model(folder, tiny, tmp_path / "alone", *quantized)
    options = (*options, "--per_device_train_batch_size", "3", "--use_cpu", "false")
    script = {"script": "tests/launch_sft.py", "launcher": ("--mixed_precision", "no")}
    summary = launch("fsdp2_qlora", folder, tmp_path / "out", *options, **script)
    assert (summary["processes"], summary["wrapper"][:4]) == (2, "FSDP")
    assert "rank 0 of 2 holds DTensor 0.50" in summary["printed"]
    assert summary["loss_after"] == pytest.approx(alone["loss_after"], abs=0.01)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("config", ["fsdp2", "fsdp2_qlora"])
def test_fsdp2_runs_in_bfloat16_as_the_files_stand(config, folder, tiny, tmp_path):
    chosen = ("--tiny_model", "false", "--model_name_or_path", tiny, "--use_cpu", "false", "--bf16", "true")
    kind = ("--use_peft", "false")
    if config == "fsdp2_qlora":
        pytest.importorskip("bitsandbytes", reason="needs the extra 'quantization'")
        kind = ("--lora_modules_to_save", "embed_tokens", "--load_in_4bit", "true")
        kind += ("--dtype", "bfloat16", "--bnb_4bit_quant_storage", "bfloat16")
    summary = launch(config, folder, tmp_path / "out", *STEPS, *chosen, *kind, script="tests/launch_sft.py")
    assert (summary["processes"], summary["wrapper"][:4]) == (2, "FSDP")
    assert "rank 1 of 2 holds DTensor 0.50" in summary["printed"]
    assert summary["loss_after"] < summary["loss_before"]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("config", ["ddp", "fsdp2"])
def test_processes_that_were_killed_go_on_from_a_whole_checkpoint_with_the_rows_that_come_next(
    config, folder, tiny, tmp_path
):
    chosen = ("--tiny_model", "false", "--model_name_or_path", tiny, "--use_peft", "false", "--max_steps", "6")
    options = (*chosen, "--save_strategy", "steps", "--save_steps", "2", "--per_device_train_batch_size", "3")
    script = {"launcher": ("--mixed_precision", "no")}
    if config == "fsdp2":
        options = (*options, "--use_cpu", "false", "--train_sampling_strategy", "random")
        script = {"script": "tests/launch_sft.py"}
        script["launcher"] = ("--mixed_precision", "no", "--fsdp_state_dict_type", "SHARDED_STATE_DICT")
    out = tmp_path / "out"
    finished = launch(config, folder, out, *options, **script)
    whole = (out / "model.safetensors").read_bytes()
    (out / "run.json").write_text(json.dumps(json.loads((out / "run.json").read_text()) | {"summary": None}))
    (out / "model.safetensors").unlink()
    (out / "checkpoint-6" / "rng_state_1.pth").write_bytes(b"")
    again = launch(config, folder, out, *options, **script)
    # Step 4 lies in the middle of the second epoch.
    assert (out / "model.safetensors").read_bytes() == whole
    assert again["loss_before"] == finished["loss_before"]
