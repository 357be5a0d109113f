"""The PPO trainer on one CUDA device: in bfloat16, with LoRA, on four bits, and that something is learned there.

`TEAMSRL_TEST_DEVICE=cpu pytest -m gpu tests/gpu` runs the same on the CPU, to try the tests themselves; see README.md.
"""

import os

import pytest
import torch
from asked import rewrite_of
from peft import LoraConfig

from teamsrl_hf import (
    InstructionGenPPOConfig,
    InstructionGenPPOTrainer,
    OperationPolicy,
    OperationPolicyConfig,
    ScriptedGenerator,
    Seed,
    State,
    load_policy,
    seeds_to_dataset,
)
from teamsrl_hf.sft.tiny import build_tiny_model

DEVICE = os.environ.get("TEAMSRL_TEST_DEVICE", "cuda")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="needs a CUDA device"),
]
STATES = [State("Why is the sky blue?"), State("Sort these.\n\n3, 1, 2", ("deepen",), (True,), 1), State("x" * 2000)]
LORA = {"r": 4, "lora_dropout": 0.5, "target_modules": ["q_proj", "v_proj"]}


@pytest.fixture(scope="module")
def causal_lm(tmp_path_factory):
    return str(build_tiny_model(["Why is the sky blue? Sort these numbers."] * 3, tmp_path_factory.mktemp("lm")))


def _instructor(request):
    """Only one operation means anything to it."""
    found = rewrite_of(request)
    if found is None:
        return "Different"
    name, text = found
    return f"{text} Further {len(text)}." if name == "concretize" else text


def _trainer(tmp_path, model=None, peft_config=None, **changes):
    options = {"max_steps": 8, "per_device_train_batch_size": 4, "learning_rate": 1e-2, "logging_steps": 1, **changes}
    args = InstructionGenPPOConfig(
        output_dir=str(tmp_path / "out"),
        use_cpu=DEVICE == "cpu",
        disable_tqdm=True,
        report_to="none",
        save_strategy="no",
        num_mini_batches=2,
        num_ppo_epochs=2,
        **options,
    )
    torch.manual_seed(0)
    policy = model or OperationPolicy(OperationPolicyConfig())
    seeds = seeds_to_dataset([Seed(f"s{i}", f"Explain subject number {i} to a friend.") for i in range(40)])
    held_out = seeds_to_dataset([Seed(f"t{i}", f"Describe topic {i} briefly.") for i in range(10)])
    instructor = ScriptedGenerator(_instructor)
    datasets = {"train_dataset": seeds, "eval_dataset": held_out}
    return InstructionGenPPOTrainer(policy, args, instructor, peft_config=peft_config, **datasets)


def _train(trainer):
    """Train, and tell the names of what moved and of what did not."""
    before = {name: tensor.data.clone().cpu() for name, tensor in trainer.model.named_parameters()}
    trainer.train()
    now = dict(trainer.model.named_parameters())
    assert {tensor.device.type for tensor in now.values()} == {DEVICE}
    moved = {name for name, tensor in now.items() if not torch.equal(tensor.data.cpu(), before[name])}
    return moved, now.keys() - moved


def _logits(policy):
    policy.eval()
    with torch.no_grad():
        inputs = {name: tensor.to(policy.device) for name, tensor in policy.featurize(STATES).items()}
        return policy(**inputs).logits.float().cpu()


def _losses(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def _divergence(trainer):
    return [entry["approx_kl"] for entry in trainer.state.log_history if "approx_kl" in entry]


def test_the_default_policy_trains_in_bfloat16_with_weights_in_float32(tmp_path):
    trainer = _trainer(tmp_path, bf16=True)
    _, still = _train(trainer)
    assert still == set()
    assert {tensor.dtype for tensor in trainer.model.parameters()} == {torch.float32}
    assert len(_losses(trainer)) == 8
    assert all(abs(loss) < 10 for loss in _losses(trainer))
    trainer.save_model()
    loaded = load_policy(tmp_path / "out")
    # The one in hand still computes in bfloat16, with errors of some 1e-3.
    torch.testing.assert_close(_logits(loaded), _logits(trainer.policy), atol=1e-2, rtol=0)


def test_a_rollout_is_made_in_the_precision_it_is_learned_from(tmp_path):
    trainer = _trainer(tmp_path, bf16=True)
    trainer.train()
    divergence = _divergence(trainer)
    # At the first minibatch of each of two rollouts the policy is still the one that acted. Logits in bfloat16 have
    # errors of some 1e-3, and the divergence goes with their square.
    assert max(divergence[0], divergence[4]) < 1e-4
    assert max(divergence) > 1e-4


def test_a_policy_chooses_alike_on_both_devices():
    torch.manual_seed(0)
    policy = OperationPolicy(OperationPolicyConfig())
    uniforms = [0.1, 0.45, 0.9]
    here = policy.choose(STATES, uniforms)
    assert policy.to(DEVICE).choose(STATES, uniforms) == here
    assert policy.choose_batch(STATES, uniforms) == here


def test_lora_on_a_causal_lm_trains_in_bfloat16(causal_lm, tmp_path):
    policy = OperationPolicy.from_backbone(causal_lm, max_length=64)
    trainer = _trainer(tmp_path, policy, LoraConfig(**LORA), bf16=True, kl_coef=0.1)
    trainer.evaluate()
    moved, still = _train(trainer)
    assert {"q_proj.lora_A", "v_proj.lora_B", "operation_head.modules_to_save"} <= _parts(moved)
    assert all("lora" in name or "modules_to_save" in name for name in moved)
    assert not [name for name in still if "lora" in name]
    assert _divergence(trainer)[4] < 1e-4  # A rollout begins: no dropout comes between acting and learning.
    trainer.save_model()
    torch.testing.assert_close(_logits(load_policy(tmp_path / "out")), _logits(trainer.policy), atol=1e-3, rtol=0)


def _parts(names):
    """`…layers.0.self_attn.q_proj.lora_A.default.weight` as `q_proj.lora_A`, and so on."""
    return {".".join(pair) for name in names for pair in zip(name.split("."), name.split(".")[1:])}


def test_a_four_bit_backbone_trains_with_lora(causal_lm, tmp_path):
    pytest.importorskip("bitsandbytes", reason="needs teamsrl-hf[quantization]")
    from transformers import BitsAndBytesConfig

    quantization = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
    )
    policy = load_policy(causal_lm, quantization_config=quantization, max_length=64)
    trainer = _trainer(tmp_path, policy, LoraConfig(**LORA), bf16=True, max_steps=4)
    trainer.evaluate()
    moved, still = _train(trainer)
    assert {"q_proj.lora_A", "v_proj.lora_B", "operation_head.modules_to_save"} <= _parts(moved)
    parameters = dict(trainer.model.named_parameters())
    packed = {name for name, tensor in parameters.items() if tensor.dtype == torch.uint8}
    assert "q_proj.base_layer" in _parts(packed)
    assert packed <= still
    trainer.save_model()
    # Saved is the adapter; it loads on the model in full precision, from which four bits differ a little.
    assert (_logits(load_policy(tmp_path / "out")) - _logits(trainer.policy)).abs().max() < 0.5


@pytest.mark.parametrize("bf16", [False, True])
def test_a_planted_best_operation_is_learned(tmp_path, bf16):
    trainer = _trainer(tmp_path, max_steps=120, per_device_train_batch_size=8, logging_steps=40, bf16=bf16)
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert before["eval_accept_rate"] < 0.4
    assert after["eval_accept_rate"] > 0.9
    assert after["eval_reward"] > before["eval_reward"] + 2
    assert after["eval_lift"] - after["eval_lift_error"] > 0
