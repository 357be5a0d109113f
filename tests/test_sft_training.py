"""What fine-tuning does with its options: packing, early stopping, mixtures, four bits, the card, the push."""

import functools
import json
import math
import re
from pathlib import Path

import pytest
import torch
import yaml
from datasets import Dataset
from sft_data import CONFIG, assistant, geography, losses, run, user, write_folder
from transformers import AutoModelForCausalLM, AutoTokenizer

from teamsrl_hf.cli import load_recipe
from teamsrl_hf.publish.cards import recipe_text
from teamsrl_hf.sft.card import NOT_RECIPE, data_calls, draw_losses
from teamsrl_hf.sft.data import chat_texts, check_sft_dataset, mix_datasets
from teamsrl_hf.sft.template import encode_chat
from teamsrl_hf.sft.tiny import build_tiny_model

STEPS = ("--train_sampling_strategy", "sequential", "--logging_steps", "1", "--save_strategy", "steps")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    rows = check_sft_dataset(Dataset.from_list(list(geography())))
    return build_tiny_model(chat_texts(rows), tmp_path_factory.mktemp("tiny"), seed=1)


CALLS = {"calls": {"rewrite": 1200, "review": 900, "answer": 60}, "expert_calls_per_row": 1.26}
TUNED = ("--max_steps", "4", "--logging_steps", "2", "--per_device_train_batch_size", "6")


@pytest.fixture(scope="module")
def tuned(tiny, tmp_path_factory):
    """A run on a dataset whose making is on record: how it was called, and its folder."""
    root = tmp_path_factory.mktemp("tuned")
    data = Path(write_folder(root / "data"))
    (data / "run.json").write_text(json.dumps({"arguments": {}, "summary": CALLS}))
    call = (data, root / "out", "--tiny_model", "false", "--model_name_or_path", str(tiny), *TUNED)
    run(*call)
    return call, root / "out"


def test_packed_rows_have_the_loss_curve_of_the_same_rows_unpacked(folder, tmp_path):
    """All rows in each step, so that only packing differs; they must not see each other."""
    options = (*STEPS, "--max_steps", "4", "--save_steps", "4", "--per_device_train_batch_size", "18")
    run(folder, tmp_path / "plain", *options)
    run(folder, tmp_path / "packed", *options, "--packing", "true", "--max_length", "100")
    plain, packed = (losses(tmp_path / name / "checkpoint-4") for name in ("plain", "packed"))
    assert len(plain) == 4
    assert plain[3] < plain[0] - 0.3
    # Sums in another order; Adam makes of a gradient near zero a step of full length, whatever its last bits.
    assert packed == pytest.approx(plain, abs=2e-3)
    assert packed[0] == pytest.approx(plain[0], abs=1e-5)


def test_training_stops_early_and_keeps_the_best(folder, tmp_path):
    options = ("--early_stopping_patience", "2", "--eval_strategy", "steps", "--eval_steps", "1", "--save_steps", "1")
    frozen = ("--learning_rate", "0.0", "--lr_scheduler_type", "constant")
    summary = run(folder, tmp_path / "out", *STEPS, *options, *frozen, "--max_steps", "20")
    assert summary["steps"] == 3  # The first evaluation is the best, two more are not better.
    assert summary["loss_after"] == pytest.approx(summary["loss_before"], abs=1e-6)


def test_of_a_training_that_gets_worse_the_best_checkpoint_is_kept(folder, tmp_path):
    options = ("--early_stopping_patience", "2", "--eval_strategy", "steps", "--eval_steps", "1", "--save_steps", "1")
    wild = ("--learning_rate", "0.5", "--lr_scheduler_type", "constant", "--warmup_steps", "0")
    summary = run(folder, tmp_path / "out", *STEPS, *options, *wild, "--max_steps", "20")
    state = json.loads((tmp_path / "out" / f"checkpoint-{summary['steps']}" / "trainer_state.json").read_text())
    losses = [entry["eval_loss"] for entry in state["log_history"] if "eval_loss" in entry and entry["step"]]
    assert max(losses) > min(losses) + 0.1
    assert summary["loss_after"] == pytest.approx(min(losses), abs=1e-3)


def test_mixtures_take_shares_of_each_part():
    first, second = Dataset.from_dict({"n": range(10)}), Dataset.from_dict({"n": range(100, 130)})
    assert mix_datasets([first, second])["n"][:] == [*range(10), *range(100, 130)]
    assert mix_datasets([first, second], [None, None])["n"][:] == [*range(10), *range(100, 130)]
    # As many rows as shares of 3:1 allow, with 30 rows of the one and 10 of the other.
    assert mix_datasets([first, second], [0.25, 0.75])["n"][:] == [*range(10), *range(100, 130)]
    assert mix_datasets([first, second], [2, 2])["n"][:] == [*range(10), *range(100, 110)]


def test_a_mixture_of_forms_trains(folder, tmp_path):
    chats = [
        {"messages": [user("Hi"), assistant("Ho"), user(f"And {n}?"), assistant(f"{n}.")], "x": n} for n in range(9)
    ]
    Dataset.from_list(chats).to_json(tmp_path / "chats.jsonl")
    config = tmp_path / "mixture.yaml"
    content = yaml.safe_load(Path(CONFIG).read_text())
    del content["dataset_name"]
    content["datasets"] = [
        {"path": folder, "name": "default", "split": "train[:6]"},
        {"path": "json", "data_files": str(tmp_path / "chats.jsonl"), "columns": ["messages"]},
    ]
    config.write_text(yaml.safe_dump(content | {"test_split_size": 0.2, "max_steps": 2}))
    summary = run(None, tmp_path / "out", config=config)
    assert (summary["rows"], summary["test_rows"]) == (12, 3)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Neither the folder nor the card of `json` says how many model calls it took." in card


def test_the_last_answer_of_a_conversation_is_its_completion():
    turns = [user("Hi"), assistant("Ho"), user("Where?"), {**assistant("Here."), "name": "bot"}]
    turns = [{"name": None, **turn} for turn in turns]
    (made,) = check_sft_dataset(Dataset.from_list([{"messages": turns}]))
    assert made == {"prompt": [user("Hi"), assistant("Ho"), user("Where?")], "completion": [assistant("Here.")]}


def test_a_4bit_base_trains_saves_reloads_merges_and_generates(folder, tiny, tmp_path):
    pytest.importorskip("bitsandbytes", reason="needs the extra 'quantization'")
    from peft import PeftModel

    options = ("--tiny_model", "false", "--model_name_or_path", str(tiny), "--load_in_4bit", "true")
    double = ("--use_bnb_nested_quant", "true")
    summary = run(folder, tmp_path / "out", *options, *double, "--max_steps", "20")
    assert summary["loss_after"] < summary["loss_before"] - 0.5
    assert "load_in_4bit: true" in (tmp_path / "out" / "README.md").read_text()
    merge = load_recipe("merge_adapter").main
    merge(["--adapter", str(tmp_path / "out"), "--output_dir", str(tmp_path / "merged")])
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    base, merged = (AutoModelForCausalLM.from_pretrained(f).eval() for f in (tiny, tmp_path / "merged"))
    with_adapter = PeftModel.from_pretrained(base, tmp_path / "out").eval()
    ids = torch.tensor([encode_chat(tokenizer, [user("Where is Lima?")], add_generation_prompt=True)])
    with torch.no_grad():
        expected = with_adapter(ids, use_cache=False).logits
        torch.testing.assert_close(merged(ids, use_cache=False).logits, expected, atol=1e-4, rtol=0)
    answers = [m.generate(ids, max_new_tokens=8, do_sample=False)[0].tolist() for m in (merged, with_adapter)]
    assert answers[0] == answers[1]
    assert len(answers[0]) > ids.shape[1]
    card = (tmp_path / "merged" / "README.md").read_text()
    assert yaml.safe_load(card.split("---\n")[1])["library_name"] == "transformers"
    assert "with the adapter `out` merged in" in card


def test_an_adapter_merges_by_its_recipe(tuned, tmp_path):
    merge = load_recipe("merge_adapter").main
    target = ["--adapter", str(tuned[1]), "--output_dir", str(tmp_path / "merged"), "--dtype", "bfloat16"]
    assert merge(target) == {"model": str(tmp_path / "merged")}
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert (model.dtype, model.generation_config.eos_token_id) == (torch.bfloat16, model.config.eos_token_id)
    card = (tmp_path / "merged" / "README.md").read_text()
    snippet, *others = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert 'AutoModelForCausalLM.from_pretrained("PATH_OR_HUB_ID")' in snippet
    assert others == []
    shown = re.findall(r"!\[.*?\]\((.*?)\)", card)
    assert [(tmp_path / "merged" / picture).is_file() for picture in shown] == [True] * len(shown) != []
    with pytest.raises(ValueError, match="is not empty; give a new one"):
        merge(target)
    with pytest.raises(ValueError, match="are required: --adapter, --output_dir"):
        merge([])


def test_the_card_holds_the_recipe_the_loss_curve_and_what_the_data_cost(tuned):
    (data, *_), out = tuned
    card = (out / "README.md").read_text()
    assert "rewrite calls `1,200`, review calls `900`, answer calls `60`, expert calls per row `1.26`." in card
    recipe = yaml.safe_load(card.split("```text\n")[1].split("```")[0])
    expected = yaml.safe_load(Path(CONFIG).read_text())
    shown = ("use_peft", "lora_r", "lora_alpha", "max_length", "learning_rate", "lr_scheduler_type", "warmup_steps")
    assert {name: recipe[name] for name in shown} == {name: expected[name] for name in shown}
    assert (recipe["max_steps"], recipe["per_device_train_batch_size"]) == (4, 6)
    assert not {"dataset_name", "output_dir", "hub_token", "model_name_or_path"} & recipe.keys()
    assert ("![Loss by step](loss.png)" in card) == (out / "loss.png").is_file()
    assert ("- training: 2: " in card) != (out / "loss.png").is_file()
    assert str(data.parent) not in card


def test_the_loss_curve_is_a_png(tmp_path):
    pytest.importorskip("matplotlib", reason="needs the extra 'plots'")
    history = [{"step": 0, "eval_loss": 3.0}, {"step": 10, "loss": 2.5}, {"step": 20, "loss": 2.0}]
    assert draw_losses(history, tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert not draw_losses([], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_what_data_cost_is_read_from_a_card_too_and_a_strange_one_tells_nothing(tmp_path):
    (tmp_path / "README.md").write_text(
        "| rows | 9 |\n| expert calls (rewrites + answers) | 40 + 9 |\n| reviewer calls | `<script>` |\n"
    )
    assert data_calls(str(tmp_path)) == {"expert calls (rewrites + answers)": "40 + 9"}
    (tmp_path / "run.json").write_text('{"summary": {"calls": 7}}')
    assert data_calls(str(tmp_path)) == {"expert calls (rewrites + answers)": "40 + 9"}
    assert data_calls(str(tmp_path / "missing")) == {}


def test_the_recipe_in_a_card_leaves_out_what_is_default_or_of_this_machine():
    from trl import SFTConfig

    args = SFTConfig(output_dir="/secret/place", use_cpu=True, bf16=False, learning_rate=3e-4, report_to="none")
    recipe = yaml.safe_load(recipe_text(args, without=NOT_RECIPE))
    assert recipe["learning_rate"] == 3e-4
    assert not {"output_dir", "use_cpu", "report_to", "num_train_epochs"} & recipe.keys()


@pytest.fixture
def based(tuned, tiny):
    """The run as if its base had come from the Hub."""
    call, out = tuned
    written = {file: file.read_text() for file in (out / "adapter_config.json", out / "run.json")}
    for file, text in written.items():
        file.write_text(text.replace(str(tiny), "me/tiny"))
    yield ["me/tiny" if word == str(tiny) else word for word in call]
    for file, text in written.items():
        file.write_text(text)


@pytest.fixture
def server(monkeypatch):
    from hub_server import Hub
    from huggingface_hub import HfApi, constants

    from teamsrl_hf.hub import push as hub

    with Hub() as server:
        server.accounts["hf_test"] = "me"
        monkeypatch.setattr(hub, "HfApi", functools.partial(HfApi, endpoint=server.url, token="hf_test"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield server


PUSH = ("--push_to_hub", "true", "--hub_model_id", "me/tuned")


def test_an_adapter_to_a_model_of_this_machine_is_not_pushed(tuned, server):
    call, _ = tuned
    with pytest.raises(ValueError, match="is a folder of this machine"):
        run(*call, *PUSH)
    assert server.repos == {}


def test_a_finished_model_is_pushed_in_one_commit_and_private(based, server, capsys):
    run(*based, *PUSH)  # Complete before, so that only the push is left to do.
    run(*based, *PUSH)  # And nothing is left to send.
    (repo,) = server.repos.values()
    assert repo.private
    assert server.requests.count(("commit", 200)) == 1
    files = set(repo.commits[repo.sha(None)])
    assert {"README.md", "adapter_model.safetensors", "adapter_config.json", "tokenizer.json"} <= files
    assert not {"run.json", "training_args.bin"} & files
    assert "me/tuned" in capsys.readouterr().out


def test_perplexity_is_the_exponential_of_the_loss():
    assert load_recipe("sft").measures(math.log(8), math.log(2)) == {
        "loss_before": math.log(8),
        "loss_after": math.log(2),
        "perplexity_before": pytest.approx(8),
        "perplexity_after": pytest.approx(2),
    }
