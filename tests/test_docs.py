"""What the documents say can be run: commands name files that exist and arguments that parse, Python blocks run."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from teamsrl_hf.cli import RECIPES, load_recipe
from teamsrl_hf.cli import _parser as command_line

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(file for file in (*ROOT.glob("*.md"), *ROOT.glob("recipes/**/*.md")) if file.name != "CHANGELOG.md")


def _fences(language):
    for file in DOCUMENTS:
        for block in re.findall(rf"```{language}\n(.*?)```", file.read_text(), re.S):
            yield pytest.param(block, id=f"{file.relative_to(ROOT)}:{block.strip().splitlines()[0][:40]}")


def _commands():
    for file in DOCUMENTS:
        text = file.read_text()
        found = re.findall(r"`((?:accelerate launch|python recipes|teamsrl) [^`]*)`", text)
        for block in re.findall(r"```bash\n(.*?)```", text, re.S):
            found += re.split(r"\n|&&", block.replace("\\\n", " "))
        for command in map(str.strip, found):
            if re.match(r"(accelerate launch|python recipes|teamsrl) ", command) and "…" not in command:
                yield pytest.param(command, id=f"{file.relative_to(ROOT)}:{command[:60]}")


@pytest.mark.parametrize("command", list(_commands()))
def test_a_printed_command_names_files_that_exist_and_parses(command):
    words = shlex.split(command)
    for word in words:
        if word.startswith(("recipes/", "accelerate_configs/", "model_cards/")):
            assert (ROOT / word).exists(), word
    if any(word.startswith("recipes/") and word.endswith(".py") for word in words):
        script = next(i for i, word in enumerate(words) if word.startswith("recipes/") and word.endswith(".py"))
        _parses(words[script], words[script + 1 :])
    elif words[1] in RECIPES:
        _parses(f"recipes/{RECIPES[words[1]][0]}.py", words[2:])
    elif words[1] in ("quickstart", "ledger", "push"):
        command_line().parse_args(words[1:])


def _parses(recipe, options):
    """Every option of a recipe's command line is one that its --help lists; every YAML key too."""
    known = _help(recipe)
    if "--config" in options:
        config = yaml.safe_load((ROOT / options[options.index("--config") + 1]).read_text())
        assert set(config) <= known
    assert {option[2:] for option in options if option.startswith("--")} - {"config"} <= known


_known: dict[str, set[str]] = {}


def _help(recipe):
    if recipe not in _known:
        done = subprocess.run([sys.executable, str(ROOT / recipe), "--help"], capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        _known[recipe] = set(re.findall(r"--(\w+)", done.stdout))
    return _known[recipe]


@pytest.mark.parametrize("recipe", [recipe for recipe, _ in RECIPES.values()])
def test_every_recipe_explains_itself_and_its_quickstart_file_fits(recipe):
    config = yaml.safe_load((ROOT / "recipes" / "quickstart" / f"{recipe}.yaml").read_text())
    assert set(config) <= _help(f"recipes/{recipe}.py")
    assert load_recipe(recipe).main.__doc__


# What needs a model behind an address is run by tests/test_write.py.
@pytest.mark.parametrize("block", [block for block in _fences("python") if "https://HOST" not in block.values[0]])
def test_python_blocks_run(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "document", "exec"), {})


def _python_block(file, text):
    """The one Python block of a document that holds `text`."""
    (block,) = (b for b in re.findall(r"```python\n(.*?)```", (ROOT / file).read_text(), re.S) if text in b)
    return block


@pytest.mark.parametrize("name", ["OwnReward", "OwnRollout", "OwnLoss"])
def test_the_documents_trainers_train(name, tmp_path):
    """The subclasses of CONTRIBUTING.md, each for two rollouts in the place of the trainer in the README's example."""
    training = _python_block("README.md", "trainer.train()")
    namespace = {}
    exec(compile(_python_block("CONTRIBUTING.md", "class OwnReward"), "CONTRIBUTING.md", "exec"), namespace)
    own = namespace[name]
    training = training.replace("trainer = InstructionGenPPOTrainer(", "trainer = OwnTrainer(")
    training = training.replace("outputs/brief", str(tmp_path))
    namespace = {"OwnTrainer": own}
    exec(compile(training, "README.md", "exec"), namespace)
    assert isinstance(namespace["trainer"], own)
    assert namespace["trainer"].state.global_step == 16


@pytest.mark.parametrize("block", list(_fences("yaml")))
def test_yaml_blocks_parse(block):
    assert isinstance(yaml.safe_load(block), dict)


def test_the_table_of_where_to_add_what_names_files_that_exist():
    section = (ROOT / "CONTRIBUTING.md").read_text().partition("## How to add …")[2]
    rows = [line for line in section.splitlines() if line.startswith("| a")]
    assert len(rows) == 12
    for row in rows:
        for name in re.findall(r"`([\w/]+(?:/|\.(?:py|md|jsonl?|toml)))`", row):
            assert any((ROOT / folder / name).exists() for folder in ("", "teamsrl_hf", "tests")), name


def test_links_between_documents_lead_somewhere():
    for file in DOCUMENTS:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", file.read_text()):
            assert (file.parent / target).exists(), f"{file.name}: {target}"


def test_the_two_commands_stand_on_the_readmes_first_screen():
    first_screen = "\n".join((ROOT / "README.md").read_text().splitlines()[:40])
    assert first_screen.count("```bash") == 2
    assert "teamsrl quickstart" in first_screen
    assert 'pip install -e ".[test]" && pytest' in first_screen


def test_the_readme_is_short_enough_for_a_visitor():
    prose = re.sub(r"```.*?```", "", (ROOT / "README.md").read_text(), flags=re.S)
    assert 500 < len(prose.split()) <= 900


def test_the_first_screen_shows_a_row_as_code_composes_it_from_the_words_of_the_model():
    from teamsrl_hf import OPERATIONS, DatasetEvolver, EvolverConfig, Rulebook, ScriptedGenerator, Seed
    from teamsrl_hf import uniform_chooser as uniform

    screen = "\n".join((ROOT / "README.md").read_text().splitlines()[:40])
    shown = re.search(r"^\| seed \| (.*) \|\n\| rewrite by `(\w+)` \| (.*) \|\n\| response \| .+ \|$", screen, re.M)
    text, name, rewrite = shown.groups()
    operations = [operation for operation in OPERATIONS if operation.name == name]

    def answer(request):
        return "climate, water and sunlight" if request.task.kind == "rewrite" else "1. Climate: ..."

    model, args = ScriptedGenerator(answer, whole=False), EvolverConfig(operations_per_episode=1)
    evolver = DatasetEvolver(model, Rulebook(), uniform(operations), operations, args)
    (row,) = (row for chain in evolver.evolve([Seed("s1", text)]) for row in chain)
    assert row.candidate.transition.rewrite == rewrite


def test_the_readme_prints_the_file_for_a_language_model():
    file = ROOT / "recipes" / "quickstart" / "evolve_smollm2.yaml"
    assert any(yaml.safe_load(block.values[0]) == yaml.safe_load(file.read_text()) for block in _fences("yaml"))


def test_the_readmes_endpoint_is_a_specification_that_makes_a_generator():
    from teamsrl_hf import make_generator

    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    (endpoint,) = (yaml.safe_load(block)["expert"] for block in blocks if "endpoint" in block)
    model = make_generator(endpoint)
    assert (model.model, model.concurrency) == (endpoint["endpoint"].partition("@")[0], 64)


def test_the_citation_names_the_software_and_the_paper():
    """The keys that version 1.2.0 of the Citation File Format requires, and the facts that the cards give."""
    from teamsrl_hf import __version__

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert (citation["cff-version"], citation["type"]) == ("1.2.0", "software")
    assert (citation["title"], citation["version"], citation["license"]) == ("teamsrl-hf", __version__, "Apache-2.0")
    (paper,) = citation["references"]
    card = (ROOT / "model_cards" / "dataset_card.md").read_text()
    assert f"title   = {{{paper['title']}}}" in card
    authors = " and ".join(f"{author['family-names']}, {author['given-names']}" for author in paper["authors"])
    assert f"author  = {{{authors}}}" in card
    assert (paper["type"], paper["year"]) == ("article", 2024)
    assert paper["url"] == "https://arxiv.org/abs/2403.08694"


def test_continuous_integration_installs_and_tests_as_the_readme_says():
    script = (ROOT / ".ci" / "run").read_text()
    assert 'pip install -q -e ".[test]"' in script
    assert "\nmypy\npytest\npytest -m real -rP -n 3" in script


def test_every_option_the_documents_name_is_one_of_some_command():
    documents = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "recipes" / "README.md")
    named = {name for file in documents for name in re.findall(r"`--(\w+)", file.read_text())}
    recipes = [*(recipe for recipe, _ in RECIPES.values()), "push_folder"]
    known = set().union(*(_help(f"recipes/{recipe}.py") for recipe in recipes), {"seeds", "accelerate_config"})
    assert named - known == set()


def _rows_share_and_calls(seeds):
    """Rows, share of candidates and paid calls per row of each method, as the table prints them."""
    from teamsrl_hf import DatasetEvolver, EvolverConfig, Example, Rulebook, load_seeds, uniform_chooser
    from teamsrl_hf.evolve.config import METHODS
    from teamsrl_hf.text.operations import OPERATIONS

    model, chooser, told = Rulebook(), uniform_chooser(OPERATIONS), []
    for method in METHODS:
        args = EvolverConfig(method=method)
        evolver = DatasetEvolver(model, model, chooser, OPERATIONS, args, instructor=model)
        results = [result for chain in evolver.evolve(load_seeds(*seeds)) for result in chain]
        rows = sum(isinstance(result, Example) for result in results)
        calls = sum(count for result in results for kind, count in result.candidate.calls if kind in args.paid)
        told.append((method, str(rows), f"{rows / len(results):.2f}", f"{calls / rows:.2f}"))
    return told


COSTS = re.findall(
    r"^\| `(\w+)` \| [^|]* \| (\d+) \| ([\d.]+) \| ([\d.]+) \| (\d+) \| ([\d.]+) \| ([\d.]+) \|$",
    (ROOT / "recipes" / "comparison" / "README.md").read_text(),
    re.M,
)


def test_the_comparison_shows_the_calls_per_row_of_each_method():
    assert [row[:4] for row in COSTS] == _rows_share_and_calls(())


def test_the_readme_shows_the_same_calls_per_row():
    shown = re.findall(r"^\| `(\w+)` \| [^|]* \| ([\d.]+) \| [^|]* \|$", (ROOT / "README.md").read_text(), re.M)
    assert shown == [(row[0], row[3]) for row in COSTS]
    assert shown


def test_the_comparison_shows_the_calls_per_row_on_other_peoples_seeds():
    file = os.environ.get("SELF_INSTRUCT_SEEDS")
    if not file:
        pytest.skip("SELF_INSTRUCT_SEEDS does not name Self-Instruct's self_instruct_seed_tasks.jsonl")
    assert [(row[0], *row[4:]) for row in COSTS] == _rows_share_and_calls((file,))
