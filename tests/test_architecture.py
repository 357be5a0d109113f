"""The one direction of imports, short functions, a light start: what keeps the house in order."""

import ast
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "teamsrl_hf"

# A module imports only modules that stand before it.
ORDER = (
    *(
        "errors",
        "redaction",
        "types",
        "tokens",
        "signals",
        "calls",
        "paths",
        "public",
        "loading",
        "options",
        "runs",
        "checkpoints",
        "features",
        "tables",
        "seeds",
        "operations",
        "plans",
        "arguments",
        "lineage",
        "licenses",
        "pacing",
        "generation",
        "rulebook_words",
    ),
    *(
        "rulebook",
        "local_generation",
        "models",
        "ledger",
        "parts",
        "accounting",
        "reviewer",
        "filters",
        "environment",
        "rewards",
        "baselines",
        "dedup",
        "schema",
    ),
    *(
        "cards",
        "card_sections",
        "plots",
        "report",
        "hub_files",
        "hub_names",
        "hub_calls",
        "hub_target",
        "hub",
        "hub_arguments",
        "ppo",
        "quantization",
        "policy",
        "training_checks",
        "ppo_config",
        "resumable",
        "ppo_trainer",
        "callbacks",
        "overlap",
        "evolver_config",
        "methods",
        "evolver",
        "scaleout",
        "estimate",
        "sft",
        "sft_checks",
        "sft_card",
        "evaluation",
        "judging",
        "finetuned",
        "privacy",
        "cli",
    ),
)
# Text rooms: to be tested, and imported by users, without torch.
LIGHT = ORDER[: ORDER.index("ppo")]
HEAVY = ("torch", "transformers", "datasets", "trl", "peft", "accelerate")


def _tree(module):
    return ast.parse((PACKAGE / f"{module}.py").read_text())


def _imported(module):
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            yield from [node.module] if node.module else [alias.name for alias in node.names]


def _functions():
    for file in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{file.name}:{node.name}", node.end_lineno - node.lineno + 1


def test_every_module_has_its_place_in_the_order():
    assert {file.stem for file in PACKAGE.glob("*.py")} - {"__init__"} == set(ORDER)


@pytest.mark.parametrize("module", ORDER)
def test_a_module_imports_only_modules_before_it(module):
    allowed = {*ORDER[: ORDER.index(module)], "__version__"}
    assert set(_imported(module)) <= allowed


def test_functions_are_short():
    sizes = [size for _, size in _functions()]
    assert statistics.median(sizes) <= 15
    assert sum(size <= 45 for size in sizes) >= 0.9 * len(sizes)
    assert [name for name, size in _functions() if size > 80] == []


@pytest.mark.parametrize("module", ORDER)
def test_no_module_swallows_every_exception_or_trusts_remote_code(module):
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None
            assert getattr(node.type, "id", "") != "Exception"
        if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
            assert node.value.value is False


# What loads a model, a tokenizer or a configuration by name. PEFT's loaders run no code that comes with an adapter.
LOADERS = ("from_pretrained", "from_config", "pipeline", "SentenceTransformer", "HFLM")


def test_every_loader_says_that_no_code_is_run():
    silent = []
    for file in [*PACKAGE.rglob("*.py"), *(PACKAGE.parent / "recipes").rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            name = getattr(node.func, "attr", getattr(node.func, "id", "")) if isinstance(node, ast.Call) else ""
            owner = getattr(getattr(node.func, "value", None), "id", "") if name else ""
            if name in LOADERS and not owner.startswith("Peft"):
                said = [word.value for word in node.keywords if word.arg == "trust_remote_code"]
                if not (said and isinstance(said[0], ast.Constant) and said[0].value is False):
                    silent.append(f"{file.name}:{node.lineno}")
    assert silent == []


def test_text_rooms_and_the_command_line_load_no_heavy_library():
    code = f"""
import sys, importlib, teamsrl_hf
assert "numpy" not in sys.modules
for module in {(*LIGHT, "evolver", "evaluation", "cli")!r}:
    if module != "local_generation":
        importlib.import_module(f"teamsrl_hf.{{module}}")
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_public_names_resolve_and_are_listed():
    import teamsrl_hf

    for name in teamsrl_hf.__all__:
        assert getattr(teamsrl_hf, name) is not None
        assert name in dir(teamsrl_hf)
    with pytest.raises(AttributeError, match="no attribute 'Trainer'"):
        _ = teamsrl_hf.Trainer
