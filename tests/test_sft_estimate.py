"""The line before training: parameters, bytes held against what torch really keeps, steps; and the recipes."""

import re
from pathlib import Path

import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config

from teamsrl_hf.cli import load_recipe
from teamsrl_hf.commands.arguments import parse
from teamsrl_hf.paths import resource
from teamsrl_hf.sft.checks import check_adapter, check_precision, check_quantization
from teamsrl_hf.sft.estimate import Launch, activation_bytes, count_steps, estimate_line, estimate_memory, model_shape
from teamsrl_hf.sft.plan import estimate_run

SMALL = LlamaConfig(
    vocab_size=512,
    hidden_size=256,
    intermediate_size=688,
    num_hidden_layers=4,
    num_attention_heads=8,
    num_key_value_heads=2,
)
SEVEN = {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "tie_word_embeddings": False}
# The shapes that these models' own configurations give, and the parameters their cards tell.
REAL = {
    "meta-llama/Llama-3.1-8B": (
        LlamaConfig(vocab_size=128256, intermediate_size=14336, num_key_value_heads=8, **SEVEN),
        8_030_261_248,
    ),
    "huggyllama/llama-7b": (LlamaConfig(vocab_size=32000, intermediate_size=11008, **SEVEN), 6_738_415_616),
    "Qwen/Qwen3-4B-Base": (
        Qwen3Config(
            vocab_size=151936,
            hidden_size=2560,
            intermediate_size=9728,
            num_hidden_layers=36,
            num_attention_heads=32,
            num_key_value_heads=8,
            head_dim=128,
            tie_word_embeddings=True,
        ),
        4_022_468_096,
    ),
    "HuggingFaceTB/SmolLM2-135M": (
        LlamaConfig(
            vocab_size=49152,
            hidden_size=576,
            intermediate_size=1536,
            num_hidden_layers=30,
            num_attention_heads=9,
            num_key_value_heads=3,
            tie_word_embeddings=True,
        ),
        134_515_008,
    ),
}
RECIPES = sorted(resource("recipes/sft").glob("*.yaml"))


def kept_for_backward(model, tokens, bf16):
    """Bytes that autograd keeps in a forward pass, weights and their copies aside."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    matrices = [p for p in model.parameters() if p.ndim == 2]
    shapes = {p.shape for p in matrices} | {p.T.shape for p in matrices}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights and tensor.shape not in shapes:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    ids = torch.arange(tokens).reshape(4, -1) % 512
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=bf16),
    ):
        model.model(ids, use_cache=False)
    return sum(size for size, _ in kept.values())


@pytest.mark.parametrize(("bf16", "width"), [(False, 4), (True, 2)])
def test_activations_are_estimated_within_a_fifth_of_what_autograd_keeps(bf16, width):
    torch.manual_seed(0)
    kept = kept_for_backward(LlamaForCausalLM(SMALL).train(), 512, bf16)
    expected = activation_bytes(model_shape(SMALL), 512, width, 4, checkpointing=False)
    assert expected == pytest.approx(kept, rel=0.2)


def test_checkpointing_keeps_an_input_per_layer_and_one_layer():
    shape = model_shape(SMALL)
    whole, sparse = (activation_bytes(shape, 512, 4, 4, checkpointing=on) for on in (False, True))
    layer = (whole - 512 * 3 * 4 * 256) / 4
    assert sparse == 512 * 4 * 256 * (4 + 3) + layer


def test_parameters_are_counted_as_on_the_real_model():
    lora = LoraConfig(r=4, target_modules="all-linear", modules_to_save=["lm_head"], task_type="CAUSAL_LM")
    model = LlamaForCausalLM(SMALL)
    total = sum(p.numel() for p in model.parameters())
    shape = model_shape(SMALL, lora)
    trainable, everything = get_peft_model(model, lora).get_nb_trainable_parameters()
    assert (shape.parameters, shape.trainable, shape.parameters + shape.adapter) == (total, trainable, everything)
    assert (shape.layers, shape.hidden, shape.queries, shape.keys) == (4, 256, 256, 64)
    whole = model_shape(SMALL)
    assert (whole.trainable, whole.adapter) == (total, 0)


def test_a_model_that_generates_no_text_is_refused():
    from transformers import ViTConfig

    with pytest.raises(ValueError, match="A 'vit' model is no causal language model"):
        model_shape(ViTConfig())


def test_bytes_worked_by_hand():
    shape = model_shape(SMALL)
    n = shape.parameters
    plain = estimate_memory(shape, tokens=128, checkpointing=False)
    assert (plain.weights, plain.gradients, plain.optimizer) == (4 * n, 4 * n, 8 * n)
    zero3 = estimate_memory(shape, tokens=128, dtype="bfloat16", mixed=True, launch=Launch(4, 4, zero_stage=3))
    assert (zero3.weights, zero3.gradients, zero3.optimizer) == (2 * n / 4, 2 * n / 4, (2 * 2 + 4) * n / 4)
    zero1 = estimate_memory(shape, tokens=128, launch=Launch(4, 4, zero_stage=1))
    assert (zero1.weights, zero1.gradients, zero1.optimizer) == (4 * n, 4 * n, 2 * n)
    offload = Launch(2, 2, zero_stage=3, offload_optimizer=True, offload_parameters=True)
    away = estimate_memory(shape, tokens=128, launch=offload)
    assert (away.weights, away.optimizer) == (0, 0)
    eight = estimate_memory(shape, tokens=128, optimizer="paged_adamw_8bit")
    assert eight.optimizer == 2 * n


def test_four_bits_pack_the_linear_layers_only():
    shape = model_shape(SMALL, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    packed = estimate_memory(shape, tokens=128, dtype="bfloat16", bits=4).weights
    # Half a byte, and four bytes of scale for 64 weights.
    expected = shape.linear * (0.5 + 4 / 64) + 2 * (shape.parameters - shape.linear) + 4 * shape.adapter
    assert packed == expected
    double = estimate_memory(shape, tokens=128, dtype="bfloat16", bits=4, double_quantization=True).weights
    assert packed - double == pytest.approx(shape.linear * (3 - 4 / 256) / 64)


def test_the_launcher_is_read_from_its_environment():
    environ = {
        "WORLD_SIZE": "8",
        "LOCAL_WORLD_SIZE": "4",
        "ACCELERATE_USE_DEEPSPEED": "true",
        "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3",
        "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "cpu",
        "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": "none",
        "ACCELERATE_MIXED_PRECISION": "bf16",
    }
    assert Launch.from_environ(environ) == Launch(
        8, 4, zero_stage=3, offload_optimizer=True, offload_parameters=False, mixed_precision="bf16"
    )
    assert Launch.from_environ({}) == Launch()


def test_steps_count_epochs_batches_and_packs():
    lengths = [100] * 1000
    assert count_steps(lengths, batch=256, epochs=3) == 12
    assert count_steps(lengths, batch=16, accumulation=16, epochs=3) == 12
    assert count_steps(lengths, batch=8, pack_to=1000) == 13
    assert count_steps(lengths, batch=8, max_steps=5) == 5


def test_what_does_not_fit_is_said():
    estimate = estimate_memory(model_shape(REAL["meta-llama/Llama-3.1-8B"][0]), tokens=2048, dtype="bfloat16")
    line = estimate_line(estimate, 24e9, "CUDA", 100, 1)
    assert line.startswith("Estimate: trains 8,030,261,248 of 8,030,261,248 parameters in 100 steps on 1 × CUDA;")
    assert line.endswith("of 24.0 GB: will probably NOT fit.")


@pytest.mark.parametrize("name", REAL)
def test_shapes_of_real_models_have_their_real_number_of_parameters(name):
    config, parameters = REAL[name]
    assert model_shape(config).parameters == parameters


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_a_recipes_hardware_line_is_what_the_estimate_says(file):
    """Each first line names devices and an estimate; the recipe's arguments on the model's shape give that number."""
    from trl import ModelConfig, SFTConfig

    recipe, text = load_recipe("sft"), file.read_text()
    argv = ["--config", str(file), "--use_cpu", "true"]  # Here is no GPU to accept bfloat16.
    _, model_args, sft_args = parse((recipe.SFTArguments, ModelConfig, SFTConfig), argv)
    command = re.search(r"teamsrl sft (.*)", text)[1].split()
    config = command[command.index("--accelerate_config") + 1] if "--accelerate_config" in command else "cpu"
    processes = int(command[command.index("--num_processes") + 1]) if "--num_processes" in command else 1
    launcher = yaml.safe_load(resource(f"accelerate_configs/{config}.yaml").read_text())
    stage = launcher.get("deepspeed_config", {}).get("zero_stage", 0)
    fsdp, precision = launcher["distributed_type"] == "FSDP", launcher["mixed_precision"]
    launch = Launch(processes, processes, zero_stage=stage, fsdp=fsdp, mixed_precision=precision)
    shape = REAL[model_args.model_name_or_path][0]
    estimate = estimate_run(shape, sft_args.max_length, model_args, sft_args, launch)
    told = re.search(r"with (\d+) GB.*\(estimate: ([\d.]+) GB", text.splitlines()[0])
    assert float(told[2]) == pytest.approx(estimate.total / 1e9, rel=0.02)
    assert estimate.fits(float(told[1]) * 1e9)
    check_quantization(model_args, launch)
    check_adapter(model_args, launch)
    check_precision(sft_args, launch)
    assert Path(command[command.index("--config") + 1]).name == file.name
