"""Policies that read text with a model: an encoder, frozen or trained, and a causal LM with LoRA; all tiny."""

import pytest
import torch
from asked import changed, rewrite_of
from peft import LoraConfig
from transformers import AutoModel, BertConfig, BertModel

from teamsrl_hf import (
    InstructionGenPPOConfig,
    InstructionGenPPOTrainer,
    OperationPolicy,
    ScriptedGenerator,
    Seed,
    State,
    load_policy,
    seeds_to_dataset,
)
from teamsrl_hf.sft.tiny import build_tiny_model

STATES = [State("Why is the sky blue?"), State("Sort these.\n\n3, 1, 2", ("deepen",), (True,), 1), State("x" * 2000)]
LORA = {"r": 4, "target_modules": ["q_proj", "v_proj"]}


@pytest.fixture(scope="module")
def causal_lm(tmp_path_factory):
    return str(build_tiny_model(["Why is the sky blue? Sort these numbers."] * 3, tmp_path_factory.mktemp("lm")))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory, causal_lm):
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("encoder")
    tokenizer = AutoTokenizer.from_pretrained(causal_lm)
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=256, **sizes)).save_pretrained(folder)
    return str(folder)


def _instructor(request):
    found = rewrite_of(request)
    if found is None:
        return "Different"
    name, text = found
    return changed(name, text) if name == "deepen" else text


def _trainer(tmp_path, model, max_steps=4, **options):
    settings = {name: options.pop(name) for name in ("kl_coef", "learning_rate", "bf16") if name in options}
    args = InstructionGenPPOConfig(
        output_dir=str(tmp_path / "out"),
        use_cpu=True,
        disable_tqdm=True,
        report_to="none",
        save_strategy="no",
        per_device_train_batch_size=2,
        num_mini_batches=2,
        num_ppo_epochs=2,
        operations_per_episode=3,
        max_steps=max_steps,
        **settings,
    )
    seeds = seeds_to_dataset([Seed(f"s{i}", f"Explain subject {i}.") for i in range(8)])
    generator = ScriptedGenerator(_instructor)
    return InstructionGenPPOTrainer(model, args, generator, train_dataset=seeds, eval_dataset=seeds, **options)


def _output(policy):
    policy.eval()
    with torch.no_grad():
        return policy(**policy.featurize(STATES))


def test_a_frozen_encoder_embeds_each_text_once(encoder):
    policy = OperationPolicy.from_backbone(encoder)
    calls = []
    policy.backbone.register_forward_hook(lambda *_: calls.append(1))
    first, second = _output(policy), _output(policy)
    assert len(calls) == 1
    assert torch.equal(first.logits, second.logits)
    assert not any(parameter.requires_grad for parameter in policy.backbone.parameters())


def test_embedding_leaves_a_backbone_in_the_mode_it_was_in(encoder):
    policy = OperationPolicy.from_backbone(encoder)
    for training in (True, False):
        policy.backbone.train(training)
        policy.featurize([State(f"Is it {training}?")])
        assert policy.backbone.training is training


def test_texts_read_alike_alone_and_in_a_batch(encoder, causal_lm):
    for name in (encoder, causal_lm):
        policy = OperationPolicy.from_backbone(name, freeze_backbone=False).eval()
        together = _output(policy).value
        alone = torch.cat([policy(**policy.featurize([state])).value for state in STATES])
        assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_a_backbone_reads_no_padding(encoder, causal_lm, pooling):
    for name in (encoder, causal_lm):
        policy = OperationPolicy.from_backbone(name, freeze_backbone=False, pooling=pooling).eval()
        padded, bare = (policy._tokenize(["Why is the sky blue?"], padding) for padding in ("max_length", "longest"))
        assert padded["input_ids"].shape[1] == 256 > bare["input_ids"].shape[1]
        with torch.no_grad():
            states = policy.backbone(input_ids=bare["input_ids"]).last_hidden_state[0]
            expected = states.mean(0) if pooling == "mean" else states[-1]
            assert torch.allclose(policy._read(**padded)[0], expected, atol=1e-5)


def test_a_causal_lm_is_pooled_at_its_last_token_and_an_encoder_over_all(encoder, causal_lm):
    assert OperationPolicy.from_backbone(causal_lm).config.pooling == "last"
    assert OperationPolicy.from_backbone(encoder).config.pooling == "mean"


def test_control_tokens_in_a_seed_are_read_as_plain_text(causal_lm):
    policy = OperationPolicy.from_backbone(causal_lm)
    special = set(policy.processing_class.all_special_ids) - {policy.processing_class.pad_token_id}
    inputs = policy._tokenize(["Stop <|eos|> now"])
    seen = set(inputs["input_ids"][inputs["attention_mask"].bool()].tolist())
    assert policy.processing_class.eos_token_id not in seen
    assert len(special & seen) <= 1  # A tokenizer may open every text with its own mark.


@pytest.mark.parametrize("frozen", [True, False])
def test_a_policy_with_a_backbone_is_whole_in_its_folder(encoder, frozen, tmp_path):
    policy = OperationPolicy.from_backbone(encoder, freeze_backbone=frozen, max_repeats=2)
    policy.save_pretrained(tmp_path)
    again = load_policy(tmp_path)
    assert torch.allclose(_output(again).logits, _output(policy).logits, atol=1e-6)
    assert again.config.max_repeats == 2
    assert isinstance(AutoModel.from_pretrained(tmp_path), OperationPolicy)


def test_training_moves_the_heads_and_leaves_a_frozen_backbone_alone(encoder, tmp_path):
    trainer = _trainer(tmp_path, encoder, peft_config=None)
    before = {name: tensor.clone() for name, tensor in trainer.model.named_parameters()}
    trainer.train()
    moved = {name for name, tensor in trainer.model.named_parameters() if not torch.equal(tensor, before[name])}
    assert {name.split(".")[0] for name in moved} == {"encoder", "operation_head", "value_head"}


def test_lora_on_a_causal_lm_trains_saves_loads_and_goes_on(causal_lm, tmp_path):
    trainer = _trainer(tmp_path, causal_lm, peft_config=LoraConfig(**LORA), learning_rate=1e-2)
    before = {name: tensor.clone() for name, tensor in trainer.model.named_parameters()}
    trainer.train()
    moved = {name for name, tensor in trainer.model.named_parameters() if not torch.equal(tensor, before[name])}
    assert any("lora_B" in name for name in moved)
    assert any("operation_head" in name for name in moved)
    assert not any("base_layer" in name for name in moved)
    trainer.save_model()
    loaded = load_policy(tmp_path / "out")
    assert torch.allclose(_output(loaded).logits, _output(trainer.policy).logits, atol=1e-5)
    assert loaded.choose(STATES[:1], [0.5]) == trainer.policy.choose(STATES[:1], [0.5])
    again = _trainer(tmp_path / "more", causal_lm, peft_config=LoraConfig(**LORA))
    again.train()
    assert again.state.global_step == 4


def test_a_policy_that_holds_an_adapter_is_not_saved_trained_or_pushed_as_a_whole_one(causal_lm, tmp_path):
    trainer = _trainer(tmp_path, causal_lm, peft_config=LoraConfig(**LORA))
    trainer.save_model()
    loaded = load_policy(tmp_path / "out")
    with pytest.raises(ValueError, match="holds an adapter, with which it can't be saved or trained"):
        loaded.save_pretrained(tmp_path / "whole")
    for again in (None, LoraConfig(**LORA)):
        with pytest.raises(ValueError, match="holds an adapter, with which it can't be saved or trained"):
            _trainer(tmp_path / "more", loaded, peft_config=again)
    with pytest.raises(ValueError, match="call push_to_hub\\(\\) of the trainer"):
        trainer.model.push_to_hub("ada/adapter")
    assert not (tmp_path / "whole").exists()


def test_a_reference_keeps_the_policy_near_where_it_began(encoder, tmp_path):
    def shift(kl_coef):
        torch.manual_seed(0)
        folder = tmp_path / str(kl_coef)
        trainer = _trainer(folder, encoder, max_steps=24, kl_coef=kl_coef, learning_rate=3e-3)
        before = torch.softmax(_output(trainer.policy).logits, -1)
        trainer.train()
        return (torch.softmax(_output(trainer.policy).logits, -1) - before).abs().max().item()

    assert shift(10.0) < 0.5 * shift(1e-6)


def test_the_reference_of_an_adapter_is_the_model_without_it(causal_lm, tmp_path):
    trainer = _trainer(tmp_path, causal_lm, peft_config=LoraConfig(**LORA), kl_coef=0.1, learning_rate=1e-2)
    trainer.train()
    assert trainer.ref_model is None
    assert trainer.state.log_history[-1] is not None


def test_an_adapter_on_an_adapter_and_on_hashed_words_is_refused(causal_lm, tmp_path):
    from teamsrl_hf import OperationPolicyConfig

    with pytest.raises(ValueError, match="needs a policy with a backbone"):
        _trainer(tmp_path, OperationPolicy(OperationPolicyConfig()), peft_config=LoraConfig(**LORA))


def test_four_bit_backbones_load_and_train_with_lora(causal_lm, tmp_path):
    pytest.importorskip("bitsandbytes", reason="needs teamsrl-hf[quantization]")
    from transformers import BitsAndBytesConfig

    quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    policy = load_policy(causal_lm, quantization_config=quantization, operations_per_episode=3)
    trainer = _trainer(tmp_path, policy, peft_config=LoraConfig(**LORA))
    trainer.train()
    assert trainer.state.global_step == 4
