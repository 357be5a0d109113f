import json
import math
import os
from types import SimpleNamespace

import pytest
import torch
import yaml
from datasets import Dataset
from sft_data import CONFIG, FACTS, README, assistant, geography, losses, row, run, user, write_folder
from transformers import AutoModelForCausalLM, AutoTokenizer

from teamsrl_hf import paths
from teamsrl_hf.cli import load_recipe
from teamsrl_hf.paths import resource
from teamsrl_hf.ppo.quantization import guard_cpu_4bit
from teamsrl_hf.sft.card import sft_card
from teamsrl_hf.sft.data import chat_texts, check_sft_dataset, hold_out
from teamsrl_hf.sft.merge import merge_adapter
from teamsrl_hf.sft.template import CHAT_TEMPLATE, encode_chat, settle_chat_template, tokenize
from teamsrl_hf.sft.tiny import build_tiny_model


@pytest.fixture(scope="module")
def rows():
    return Dataset.from_list(list(geography()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="module")
def tiny(rows, tmp_path_factory):
    return build_tiny_model(chat_texts(check_sft_dataset(rows)), tmp_path_factory.mktemp("tiny"), seed=1)


@pytest.fixture(scope="module")
def tuned(folder, tmp_path_factory):
    """A finished run: its folder and what it returned."""
    output_dir = tmp_path_factory.mktemp("runs") / "model"
    return output_dir, run(folder, output_dir, "--max_steps", "30")


def with_adapter(output_dir):
    from peft import PeftModel

    base = AutoModelForCausalLM.from_pretrained(output_dir / "base")
    return PeftModel.from_pretrained(base, output_dir).eval()


def answer_loss(model, tokenizer, rows):
    """Nats per answer token, computed without the trainer."""
    losses = []
    for tokens in tokenize(check_sft_dataset(rows), tokenizer):
        ids = torch.tensor([tokens["input_ids"]])
        with torch.no_grad():
            logprobs = model(ids, use_cache=False).logits[0, :-1].log_softmax(-1)
        chosen = -logprobs.gather(1, ids[0, 1:, None])[:, 0]
        losses += chosen[torch.tensor(tokens["completion_mask"][1:]) == 1].tolist()
    return sum(losses) / len(losses)


def test_a_tiny_model_loads_from_its_folder_and_generates(tiny):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny), AutoTokenizer.from_pretrained(tiny)
    ids = torch.tensor([encode_chat(tokenizer, [user("Name the capital of Peru.")], add_generation_prompt=True)])
    answer = model.generate(ids, max_new_tokens=5, min_new_tokens=5, do_sample=False)
    assert answer.shape == (1, ids.shape[1] + 5)
    assert {"model.safetensors", "tokenizer.json", "chat_template.jinja"} <= set(os.listdir(tiny))
    assert model.config.eos_token_id == model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert len({tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}) == 3


def test_the_same_texts_and_seed_build_the_same_files(tmp_path):
    texts = [f"{country} {capital} {language}" for country, (capital, language) in FACTS.items()]
    first, again, other = (build_tiny_model(texts, tmp_path / str(k), seed) for k, seed in enumerate((1, 1, 2)))
    for name in ("model.safetensors", "tokenizer.json"):
        assert (first / name).read_bytes() == (again / name).read_bytes()
    assert (first / "model.safetensors").read_bytes() != (other / "model.safetensors").read_bytes()


def test_building_a_tiny_model_leaves_the_random_numbers_of_others_alone(tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    build_tiny_model(["one two three"], tmp_path)
    assert torch.rand(1) == expected


def test_the_chat_template_marks_roles_and_ends_every_turn(tiny):
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    turns = [{"role": "system", "content": "Be brief."}, user("Hi"), assistant("Hello")]
    assert tokenizer.decode(encode_chat(tokenizer, turns)) == (
        "<|bos|><|system|>\nBe brief.<|eos|><|user|>\nHi<|eos|><|assistant|>\nHello<|eos|>"
    )
    prompt = encode_chat(tokenizer, turns[:2], add_generation_prompt=True)
    assert tokenizer.decode(prompt) == "<|bos|><|system|>\nBe brief.<|eos|><|user|>\nHi<|eos|><|assistant|>\n"


def test_encoding_a_chat_is_what_the_tokenizer_itself_makes_of_plain_text(tiny):
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    turns = [user("Größe: 5 < 6?\n\n  yes 😀"), assistant("  Lima")]
    assert encode_chat(tokenizer, turns) == tokenizer.apply_chat_template(turns)["input_ids"]


def test_the_generation_marks_cover_the_answer_and_its_end(tiny):
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    encoded = tokenizer.apply_chat_template(
        [user("Hi"), assistant("Hello")], return_dict=True, return_assistant_tokens_mask=True
    )
    marked = [i for i, mark in zip(encoded["input_ids"], encoded["assistant_masks"]) if mark]
    assert tokenizer.decode(marked) == "Hello<|eos|>"


def test_only_the_answer_is_learned_up_to_and_with_its_end(tiny, rows):
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokens = tokenize(check_sft_dataset(rows), tokenizer)
    assert tokens.column_names == ["input_ids", "completion_mask"]
    for source, encoded in zip(rows, tokens):
        learned = [i for i, mark in zip(encoded["input_ids"], encoded["completion_mask"]) if mark]
        assert tokenizer.decode(learned) == source["completion"][0]["content"] + "<|eos|>"
        assert encoded["completion_mask"][-1] == 1


def test_control_tokens_in_a_text_stay_text(tiny):
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    text = "Stop<|eos|><|eos|> and <|assistant|>\nno <|pad|><|bos|>"
    ids = encode_chat(tokenizer, [user(text), assistant(text)])
    special = [tokenizer.convert_ids_to_tokens(i) for i in ids if i in tokenizer.all_special_ids]
    assert special == ["<|bos|>", "<|user|>", "<|eos|>", "<|assistant|>", "<|eos|>"]
    assert tokenizer.decode(ids) == f"<|bos|><|user|>\n{text}<|eos|><|assistant|>\n{text}<|eos|>"
    (encoded,) = tokenize(check_sft_dataset(Dataset.from_list([row(text, text)])), tokenizer)
    assert encoded["input_ids"] == ids


def test_a_tokenizer_without_template_gets_ours_and_one_without_end_is_refused(tiny, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer.chat_template = None
    assert settle_chat_template(tokenizer).chat_template == CHAT_TEMPLATE
    own = tmp_path / "own.jinja"
    own.write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}<|pad|>")
    assert settle_chat_template(tokenizer, "<|pad|>", str(own)).eos_token == "<|pad|>"
    assert encode_chat(tokenizer, [user("Lima")]) == tokenizer("Lima<|pad|>")["input_ids"]
    with pytest.raises(ValueError, match=r"is no \.jinja file"):
        settle_chat_template(tokenizer, None, "chatml")
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="has no end-of-sequence token"):
        settle_chat_template(tokenizer)


def test_the_loss_on_held_out_rows_falls(tuned):
    output_dir, summary = tuned
    guessing = math.log(len(AutoTokenizer.from_pretrained(output_dir)))
    assert summary["loss_before"] == pytest.approx(guessing, abs=0.1)
    assert summary["loss_after"] < summary["loss_before"] - 1
    assert summary["perplexity_after"] == pytest.approx(2.718281828 ** summary["loss_after"], rel=1e-6)
    counts = {name: summary[name] for name in ("rows", "test_rows", "cut_rows", "steps", "processes")}
    assert counts == {"rows": 18, "test_rows": 6, "cut_rows": 0, "steps": 30, "processes": 1}
    assert 0 < summary["trainable_parameters"] < summary["parameters"]


def test_the_adapter_read_from_disk_has_the_loss_that_was_reported(tuned, rows):
    output_dir, summary = tuned
    tokenizer = AutoTokenizer.from_pretrained(output_dir)
    held_out = rows.select(range(18, 24))  # One batch, so its mean is the mean over tokens.
    model = with_adapter(output_dir)
    assert answer_loss(model, tokenizer, held_out) == pytest.approx(summary["loss_after"], abs=1e-4)
    with model.disable_adapter():
        assert answer_loss(model, tokenizer, held_out) == pytest.approx(summary["loss_before"], abs=1e-4)


def test_the_merged_model_computes_what_base_and_adapter_compute(tuned, tmp_path):
    output_dir, _ = tuned
    merged = AutoModelForCausalLM.from_pretrained(merge_adapter(output_dir, tmp_path / "merged")).eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    ids = torch.tensor([encode_chat(tokenizer, [user("Where is Lima?")], add_generation_prompt=True)])
    with torch.no_grad():
        expected = with_adapter(output_dir)(ids, use_cache=False).logits
        torch.testing.assert_close(merged(ids, use_cache=False).logits, expected, atol=1e-4, rtol=0)
    assert not any("lora" in name for name, _ in merged.named_parameters())


def test_merging_a_folder_without_adapter_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"No adapter_config\.json in .*; give the folder"):
        merge_adapter(tmp_path, tmp_path / "merged")


def test_the_output_folder_holds_no_pickle(tuned):
    output_dir, _ = tuned
    suffixes = {path.suffix for path in output_dir.rglob("*") if path.is_file()}
    assert suffixes - {".png"} == {".safetensors", ".json", ".jinja", ".md", ".yaml"}


def test_the_card_tells_what_was_computed_and_no_path(tuned, folder):
    output_dir, summary = tuned
    card = (output_dir / "README.md").read_text()
    assert yaml.safe_load(card.split("---\n")[1]) == {
        "license": "unknown",
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["sft", "trl", "lora", "teamsrl"],
    }
    assert f"| loss | {summary['loss_before']:.3f} | {summary['loss_after']:.3f} |" in card
    assert "| hardware | `1 × CPU` |" in card
    assert "the base model has random weights" in card
    assert folder not in card
    assert str(output_dir) not in card


def test_hostile_names_cannot_break_out_of_the_card():
    from trl import ModelConfig, SFTConfig

    name = "evil/`x`\n---\nlicense: mit\n# Gotcha"
    counts = ("rows", "test_rows", "cut_rows", "dropped_rows", "steps", "trainable_parameters", "parameters")
    summary = dict.fromkeys(("loss_before", "loss_after", "perplexity_before", "perplexity_after"), 1.0)
    card = sft_card(
        summary | dict.fromkeys((*counts, "seconds"), 1),
        load_recipe("sft").SFTArguments(dataset_name=name),
        ModelConfig(model_name_or_path=name, lora_target_modules=["```\n# Gotcha"]),
        SFTConfig(output_dir="unused", use_cpu=True, bf16=False, activation_checkpointing=False),
    )
    meta = next(yaml.safe_load_all(card))
    assert meta["base_model"] == name
    assert meta["datasets"] == [name]
    assert meta["license"] == "unknown"
    assert "\n# Gotcha" not in card.split("\n---\n", 1)[1]


def test_two_runs_with_one_seed_agree(folder, tmp_path):
    first, again = (run(folder, tmp_path / name, "--max_steps", "3") for name in ("first", "again"))
    assert first["loss_after"] == again["loss_after"]
    adapters = [(tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("first", "again")]
    assert adapters[0] == adapters[1]


def test_a_run_that_was_cut_off_goes_on_from_its_checkpoint_and_a_finished_one_is_not_run_again(folder, tmp_path):
    options = ("--max_steps", "4", "--save_strategy", "steps", "--save_steps", "2", "--logging_steps", "1")
    finished = run(folder, tmp_path / "run", *options)
    assert run(folder, tmp_path / "run", *options) == finished
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps({**record, "summary": None}))
    (tmp_path / "run" / "checkpoint-4").rename(tmp_path / "checkpoint-4")
    resumed = run(folder, tmp_path / "run", *options)
    assert resumed | {"seconds": 0} == finished | {"seconds": 0}
    assert losses(tmp_path / "run" / "checkpoint-4") == losses(tmp_path / "checkpoint-4")
    assert len(losses(tmp_path / "checkpoint-4")) == 4
    state = json.loads((tmp_path / "run" / "checkpoint-4" / "trainer_state.json").read_text())
    assert [entry["step"] for entry in state["log_history"] if "eval_loss" in entry] == [0]


def test_without_a_test_split_one_row_in_twenty_is_held_out():
    numbers = Dataset.from_dict({"n": range(40)})
    train, test = hold_out(numbers, seed=3)
    assert test["n"][:] == [8, 15]
    assert train["n"][:] == [n for n in range(40) if n not in (8, 15)]
    assert hold_out(numbers, seed=4)[1]["n"][:] != [8, 15]
    assert len(hold_out(numbers.select(range(2)), seed=3)[1]) == 1
    with pytest.raises(ValueError, match="has 1 row and no test split"):
        hold_out(numbers.select(range(1)), seed=3)


def test_rows_without_test_split_train_and_rows_that_are_too_long_are_counted(rows, tmp_path):
    rows.to_parquet(tmp_path / "data" / "train.parquet")
    summary = run(tmp_path / "data", tmp_path / "out", "--max_steps", "1", "--max_length", "18")
    assert (summary["rows"], summary["test_rows"]) == (23, 1)
    assert 0 < summary["cut_rows"] < 23


def test_another_folder_of_the_same_name_yields_its_own_rows(rows, tmp_path):
    recipe, found = load_recipe("sft"), {}
    for place, count in (("here", 18), ("there", 20)):
        data = tmp_path / place / "data"
        for split in ("train", "test"):
            rows.select(range(count)).to_parquet(data / "default" / f"{split}.parquet")
        (data / "README.md").write_text(README.replace("trajectories/", "default/"))
        train, test = recipe.load_rows(recipe.SFTArguments(dataset_name=str(data)), SimpleNamespace(seed=1))
        found[place] = (len(train), len(test))
    assert found == {"here": (18, 18), "there": (20, 20)}


def test_provenance_columns_do_not_reach_the_trainer(rows):
    assert check_sft_dataset(rows).column_names == ["prompt", "completion"]


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        ({"prompt": [user("a")]}, "has no column 'completion', only prompt; rename"),
        ({"prompt": "a", "completion": "b"}, "Row 0, column 'prompt', holds str; wanted a list of"),
        ({"prompt": [], "completion": [assistant("b")]}, "Row 0, column 'prompt', holds an empty list"),
        (
            {"prompt": [user("a")], "completion": [{"role": "assistant", "content": 7}]},
            "a message without text content",
        ),
        ({"prompt": [user("a")], "completion": [{"role": "robot", "content": "b"}]}, "has role 'robot'; known roles"),
        ({"prompt": [user("a")], "completion": [user("b")]}, "must end with a message of role 'assistant'"),
    ],
)
def test_rows_that_cannot_be_learned_from_are_named_in_one_line(bad, complaint):
    with pytest.raises(ValueError) as caught:
        check_sft_dataset(Dataset.from_list([bad]))
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--dataset_name", ""], "Give either --dataset_name FOLDER_OR_HUB_ID or, in the YAML file, several"),
        (["--dataset_name", "missing/dataset"], "Can't load dataset 'missing/dataset' (a folder or a Hub id)"),
        (["--dataset_name", "DATA", "--dataset_config", "trajectories"], "has no column 'prompt', only id"),
        (["--dataset_name", "DATA", "--dataset_train_split", "dev"], "has no split 'dev', only train, test"),
        (["--dataset_name", "DATA", "--model_name_or_path", "x"], "Give either --model_name_or_path"),
        (["--dataset_name", "DATA", "--tiny_model", "false"], "Give either --model_name_or_path"),
        (
            ["--dataset_name", "DATA", "--tiny_model", "false", "--model_name_or_path", "no/such"],
            "Can't load model 'no/such' (a folder or a Hub id)",
        ),
        (
            ["--dataset_name", "DATA", "--max_length", "3"],
            "prompts alone fill it in 18 of 18 rows (the longest prompt has",
        ),
        (["--dataset_name", "DATA", "--push_to_hub", "true"], "push_to_hub needs --hub_model_id USER/NAME"),
        (["--dataset_name", "DATA", "--learning_rate", "fast"], "invalid float value: 'fast'"),
        (["--lerning_rate", "1"], "Unknown option --lerning_rate; did you mean '--learning_rate'?"),
    ],
)
def test_what_a_user_can_mend_is_said_in_one_line(options, complaint, folder, tmp_path):
    options = [folder if option == "DATA" else option for option in options]
    with pytest.raises(ValueError) as caught:
        load_recipe("sft").main(["--config", CONFIG, "--output_dir", str(tmp_path / "out"), *options])
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_key_in_the_yaml_is_fatal(folder, tmp_path):
    config = tmp_path / "sft.yaml"
    config.write_text(resource("recipes/quickstart/sft.yaml").read_text() + "lora_rank: 4\n")
    with pytest.raises(ValueError, match="Unknown key 'lora_rank'"):
        load_recipe("sft").main(["--config", str(config), "--dataset_name", folder])


def test_help_lists_the_arguments_of_recipe_model_and_trainer(capsys):
    with pytest.raises(SystemExit) as stop:
        load_recipe("sft").main(["--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("--tiny_model", "--lora_r", "--completion_only_loss"))


def test_a_whole_model_is_trained_and_saved_without_lora(folder, tmp_path, tiny):
    options = ("--tiny_model", "false", "--model_name_or_path", str(tiny), "--use_peft", "false")
    summary = run(folder, tmp_path / "out", *options, "--max_steps", "5")
    assert summary["loss_after"] < summary["loss_before"]
    assert summary["trainable_parameters"] == summary["parameters"]
    assert (tmp_path / "out" / "model.safetensors").is_file()
    assert yaml.safe_load((tmp_path / "out" / "README.md").read_text().split("---\n")[1])["tags"][:2] == ["sft", "trl"]


def test_the_guard_marks_every_layer_that_would_lose_its_gradients():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Sequential(torch.nn.Linear(2, 2)), torch.nn.ReLU())
    model[0].support_avx512bf16_for_cpu = model[1][0].support_avx512bf16_for_cpu = True
    assert guard_cpu_4bit(model) == 2
    assert [model[0].support_avx512bf16_for_cpu, model[1][0].support_avx512bf16_for_cpu] == [False, False]
    assert not hasattr(model[2], "support_avx512bf16_for_cpu")


def test_gradients_of_a_4bit_model_do_not_depend_on_an_evaluation_before(tiny):
    pytest.importorskip("bitsandbytes", reason="needs the extra 'quantization'")
    from peft import LoraConfig, get_peft_model
    from transformers import BitsAndBytesConfig

    def gradients(evaluate_first):
        torch.manual_seed(0)
        quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
        model = AutoModelForCausalLM.from_pretrained(tiny, quantization_config=quantization)
        assert guard_cpu_4bit(model) == 14
        model = get_peft_model(model, LoraConfig(target_modules="all-linear", init_lora_weights=False))
        ids = torch.arange(10, 26)[None]
        if evaluate_first:
            with torch.no_grad():
                model.eval()(ids, use_cache=False)
        model.train()(ids, labels=ids, use_cache=False).loss.backward()
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    expected, found = gradients(False), gradients(True)
    assert len(expected) == 28
    torch.testing.assert_close(found, expected)


def test_resources_are_found_in_the_package_first_then_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "__file__", str(tmp_path / "teamsrl_hf" / "paths.py"))
    beside, inside = tmp_path / "recipes", tmp_path / "teamsrl_hf" / "recipes"
    beside.mkdir()
    assert resource("recipes") == beside
    inside.mkdir(parents=True)
    assert resource("recipes") == inside


def test_a_resource_that_is_not_installed_is_named():
    with pytest.raises(ValueError, match=r"No 'recipes/none\.py' in the installed package or next to it"):
        resource("recipes/none.py")
