"""Options on a command line and in YAML: typos are errors with a suggestion, help is quick and says what there is."""

import re
import resource
import subprocess
import sys
from dataclasses import dataclass, field

import pytest
from asked import EVOLVE_RULES

from teamsrl_hf.cli import LAUNCH_OPTIONS, RECIPES, load_recipe, main
from teamsrl_hf.commands.arguments import parse
from teamsrl_hf.commands.options import Options, described, imported
from teamsrl_hf.errors import UserError, check_number
from teamsrl_hf.evolve.config import EvolverConfig
from teamsrl_hf.models.base import Sampling

TRAINED = ("trl.trainer.model_config:ModelConfig", "teamsrl_hf.ppo.config:InstructionGenPPOConfig")
TUNED = ("trl.trainer.model_config:ModelConfig", "trl.trainer.sft_config:SFTConfig")


def refused(capsys, *argv):
    assert main([str(word) for word in argv]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


@pytest.mark.parametrize(
    ("command", "wrong", "named"),
    [
        ("evolve", "--max_word=3", "--max_words"),
        ("evolve", "--budget_call=10", "--budget_calls"),
        ("evolve", "--temprature=1", "--temperature"),
        ("evolve", "--outputdir=x", "--output_dir"),
        ("train-policy", "--learning_rat=3", "--learning_rate"),
        ("train-policy", "--instruct=rulebook", "--instructor"),
        ("sft", "--dataset_nam=x", "--dataset_name"),
        ("sft", "--lora_alph=8", "--lora_alpha"),
        ("sft", "--num_process=2", "--num_processes"),
        ("audit", "--make_splits=true", "--make_split"),
        ("eval", "--task=arc_easy", "--tasks"),
        ("compare", "--method=policy", "--methods"),
        ("quickstart", "--seed=x", "--seeds"),
        ("ledger", "--jsn", "--json"),
        ("push", "--pubic", "--public"),
    ],
)
def test_a_beginning_or_a_typo_of_an_option_is_refused_and_the_right_one_named(command, wrong, named, capsys):
    line = refused(capsys, command, wrong)
    given = wrong.partition("=")[0]
    assert line.startswith(f"Unknown option {given}; did you mean {named!r}? `teamsrl {command} --help` lists all")


def test_a_value_that_the_launcher_refuses_is_one_line(capsys):
    line = refused(capsys, "sft", "--mixed_precision", "foo")
    assert line.startswith("argument --mixed_precision/--mixed-precision: invalid choice: 'foo'")


@pytest.mark.parametrize("argv", [["evlove"], ["evolv", "--output_dir", "x"]])
def test_an_unknown_command_is_refused_with_the_likeliest(argv, capsys):
    assert refused(capsys, *argv).endswith("audit; did you mean 'evolve'?")


def test_no_command_names_all_there_are(capsys):
    line = refused(capsys)
    assert all(command in line for command in (*RECIPES, "quickstart", "ledger", "push"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("temprature: 1", "Unknown key 'temprature' in the YAML file; did you mean 'temperature'?"),
        ("output-dir: x", "Unknown key 'output-dir' in the YAML file; did you mean 'output_dir'?"),
        ("operations: breadth", "operations in the YAML file must be a list of texts, or left out, not 'breadth'."),
        ("operations_per_episode: 2.5", "operations_per_episode in the YAML file must be a whole number, not 2.5."),
        ("operations_per_episode: six", "argument --operations_per_episode: invalid int value: 'six'."),
        ("temperature: [1]", "temperature in the YAML file must be a number, not a list."),
        ("temperature: .nan", "temperature must be a finite number, not nan."),
        ("temperature:", "temperature in the YAML file must be a number, not None."),
        ("method: plans", "Unknown method 'plans'; use stepwise, plan, plan_answer, packed, evol_instruct; did you"),
        ("chooser: no", "chooser in the YAML file must be a text; YAML reads no, yes, off and on as false and true"),
        ("prices: cheap", "prices in the YAML file must be a mapping, or left out, not 'cheap'."),
        ("prices: {m: {promt: 1}}", "Unknown key 'promt' in the price of 'm'; did you mean 'prompt'?"),
        ("prices: {m: {prompt: .nan}}", "The price prompt is nan, wanted a number from 0 up"),
        ("own_operations: [{nam: x, sentence: y}]", "'sentence': 'y'}; did you mean 'name'?"),
        ("expert: {endpoint: m@http://127.0.0.1:1/v1, concurency: 3}", "did you mean 'concurrency'?"),
        ("- a\n- b", "must hold one option a line"),
        ("5: five", "must hold one option a line"),
        ("", "is empty"),
        ("a: {", "can't be read: expected the node content, but found '<stream end>' (line 2, column 1)."),
        ("a: *b", "can't be read: found undefined alias"),
    ],
)
def test_yaml_is_held_to_the_options_names_and_types(text, expected, tmp_path, capsys):
    (tmp_path / "run.yaml").write_text(text + "\n")
    options = ("--config", tmp_path / "run.yaml", "--output_dir", tmp_path / "out")
    options += () if "chooser" in text else ("--chooser", "uniform")
    options += ("--reviewer", "rulebook", *(() if "expert" in text else ("--expert", "rulebook")))
    assert expected in refused(capsys, "evolve", *options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["none", "folder", "binary"])
def test_a_config_that_is_no_text_file_is_named(kind, tmp_path, capsys):
    path = tmp_path / "run.yaml"
    if kind == "folder":
        path.mkdir()
    if kind == "binary":
        path.write_bytes(bytes(range(256)))
    line = refused(capsys, "evolve", f"--config={path}", "--output_dir", tmp_path / "out")
    assert line.startswith(f"The YAML file {path} can't be read: ")


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("--temperature=-1", "temperature must be a number of at least 0, not -1.0."),
        ("--temperature=inf", "temperature must be a finite number, not inf."),
        ("--top_p=3", "top_p must be a number above 0 and at most 1, not 3.0."),
        ("--top_p=0", "top_p must be a number above 0 and at most 1, not 0.0."),
        ("--max_tokens=0", "max_tokens must be a whole number of at least 1, not 0."),
        ("--concurrency=0", "concurrency must be a whole number of at least 1, not 0."),
        ("--operations_per_episode=0", "operations_per_episode must be a whole number of at least 1, not 0."),
        ("--dedup_threshold=nan", "dedup_threshold must be a finite number, not nan."),
        ("--budget_calls=-1", "The budget calls is -1, wanted a number from 0 up"),
        ("--budget_cost=nan", "budget_cost must be a finite number, not nan."),
        ("--test_size=1", "test_size is 1.0, wanted a share from 0"),
        ("--min_words=-1", "min_words is -1, wanted a number of words from 0 up"),
    ],
)
def test_numbers_out_of_range_are_refused_before_anything_is_made(option, expected, tmp_path, capsys):
    line = refused(capsys, "evolve", *EVOLVE_RULES, "--chooser", "uniform", option, "--output_dir", tmp_path / "out")
    assert line.startswith(expected)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        *({"temperature": -0.1}, {"temperature": float("nan")}, {"temperature": None}, {"temperature": True}),
        *({"top_p": 0}, {"top_p": 1.1}, {"max_tokens": 0}, {"max_tokens": 2.5}, {"seed": "7"}, {"seed": 1.5}),
    ],
)
def test_sampling_out_of_range_is_refused_in_python_too(wrong):
    (name,) = wrong
    with pytest.raises(UserError, match=f"^{name} must be"):
        Sampling(**wrong)
    with pytest.raises(UserError, match=f"^{name} must be"):
        EvolverConfig(**wrong)


def test_numbers_are_checked_against_their_bounds():
    check_number("share", 1, 0, 1)
    for value in (True, "1", float("inf"), -0.5, 2):
        with pytest.raises(UserError, match="share must be a number of at least 0 and at most 1, not"):
            check_number("share", value, 0, 1)


@pytest.mark.parametrize("types", [TRAINED, TUNED])
def test_help_shows_the_very_options_that_the_command_takes(types):
    """Help reads the classes' source, since importing them takes seconds."""

    def listed(load):
        actions = Options([load(kind) for kind in types], "teamsrl x")._actions
        return {action.dest: action for action in actions if action.nargs != 0}

    real, shown = listed(imported), listed(described)
    assert list(shown) == list(real)
    for name, action in real.items():
        assert (name, shown[name].help, shown[name].default) == (name, action.help, action.default)
        # Choices that are computed when the module is loaded are told by the help's text alone.
        if not name.startswith("log_level"):
            assert [str(choice) for choice in shown[name].choices or ()] == [str(c) for c in action.choices or ()], (
                name
            )


def _seconds_of_children():
    """Processor time, since that of the clock depends on what else the machine does."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_every_command_helps_within_a_second_with_its_name_its_needs_and_ours_first():
    needs = {
        "train-policy": "--output_dir",
        "evolve": "--output_dir",
        "sft": "--output_dir",
        "compare": "--output_dir",
    }
    needs |= {"eval": "--model TEXT --output_dir", "audit": "--dataset_name TEXT --output_dir"}
    for command, needed in needs.items():
        spent = _seconds_of_children()
        done = subprocess.run(
            [sys.executable, "-m", "teamsrl_hf.cli", command, "--help"], capture_output=True, text=True
        )
        assert _seconds_of_children() - spent < 1, command
        assert done.stdout.startswith(f"usage: teamsrl {command} {needed} TEXT [--config FILE.yaml] [options]\n")
        ours, _, inherited = done.stdout.partition("Inherited from TRL:")
        assert bool(inherited) == (command in ("train-policy", "sft"))
        assert "Inherited" not in ours
        if inherited:
            assert re.search(
                r"Inherited from transformers' TrainingArguments:\n.*--gradient_checkpointing", inherited, re.S
            )


def test_help_tells_choices_and_defaults_and_that_an_option_is_required(capsys):
    with pytest.raises(SystemExit):
        main(["evolve", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "--method {stepwise,plan,plan_answer,packed,evol_instruct}" in shown
    assert "--chooser {policy,uniform,paper,thompson,linucb,bandit}" in shown
    assert "--temperature N Sampling temperature of the expert (paper's code: 0.7). (default: 0.7)" in shown
    assert "--output_dir TEXT Folder of the dataset. (required)" in shown
    assert "--output-dir" not in shown


def test_both_spellings_of_an_option_are_taken_and_the_last_value_wins():
    (args,) = parse((EvolverConfig,), ["--max-tokens", "5", "--max_tokens=7"])
    assert args.max_tokens == 7


def test_every_recipe_explains_each_of_its_own_options():
    for command, (recipe, _) in RECIPES.items():
        load_recipe(recipe)
        with pytest.raises(SystemExit):
            main([command, "--help"])


def test_the_help_of_sft_names_the_options_of_the_launcher(capsys):
    with pytest.raises(SystemExit):
        main(["sft", "--help"])
    shown = capsys.readouterr().out
    assert [option for option in LAUNCH_OPTIONS if option not in shown] == []


def test_code_from_the_hub_is_refused_whatever_dataclass_offers_it():
    @dataclass
    class Offers:
        trust_remote_code: bool = field(default=False, metadata={"help": "Run code."})

    assert parse((Offers,), [])[0].trust_remote_code is False
    with pytest.raises(UserError, match="would run code from the Hub"):
        parse((Offers,), ["--trust_remote_code", "true"])


def test_a_parser_without_words_reads_the_command_line(monkeypatch):
    from teamsrl_hf.commands.options import Parser

    parser = Parser()
    parser.add_argument("--tag")
    monkeypatch.setattr("sys.argv", ["push_folder.py", "--tag", "v1"])
    assert parser.parse_args().tag == "v1"
