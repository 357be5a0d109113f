"""The one direction of imports, short functions, a light start: what keeps the house in order."""

import ast
import graphlib
import statistics
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "teamsrl_hf"

# A package imports only packages that stand before it. "" are the modules beside them, which all may use.
ORDER = ("", "verifiers", "text", "commands", "models", "environment", "publish", "hub", "training", "ppo", "evolve")
ORDER = (*ORDER, "sft", "evaluation", "cli")
# Text rooms: to be tested, and imported by users, without torch. The others import it where they use it.
LIGHT = (*ORDER[: ORDER.index("training")], "evolve", "cli")
NEEDS_TORCH = ("models.decoding", "models.local")
HEAVY = ("torch", "transformers", "datasets", "trl", "peft", "accelerate")

FILES = {
    ".".join(file.relative_to(PACKAGE).with_suffix("").parts): file
    for file in sorted(PACKAGE.rglob("*.py"))
    if file.name != "__init__.py" and "metrics" not in file.parts
}
RECIPES = sorted((ROOT / "recipes").rglob("*.py"))


def _package(module):
    return module if module == "cli" else module.rpartition(".")[0].partition(".")[0]


def _imported(module):
    """The modules of ours that a module imports, `models.ledger` for each of `from ..models.ledger import …`."""
    here = module.split(".")[:-1]
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*here[: len(here) - node.level + 1], *(node.module.split(".") if node.module else [])]
            names = [".".join([*base, alias.name]) for alias in node.names]
            yield from [name for name in names if name in FILES] or [".".join(base)]


def _functions():
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{file.name}:{node.name}", node.end_lineno - node.lineno + 1


def test_every_package_has_its_place_in_the_order():
    assert {_package(module) for module in FILES} == set(ORDER)


@pytest.mark.parametrize("module", FILES)
def test_a_module_imports_only_packages_before_its_own(module):
    allowed = ORDER[: ORDER.index(_package(module)) + 1]
    assert {_package(name) for name in _imported(module)} <= set(allowed)


def test_no_module_imports_itself_through_others():
    graphlib.TopologicalSorter({module: set(_imported(module)) for module in FILES}).prepare()


def test_the_package_imports_no_recipe_and_recipes_use_only_public_names():
    for file in [*FILES.values(), *RECIPES]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in ("teamsrl_hf", "recipes"):
                assert file in RECIPES, f"{file.name}:{node.lineno}"
                assert [alias.name for alias in node.names if alias.name.startswith("_")] in ([], ["__version__"])


def test_every_package_says_what_comes_in_and_goes_out():
    for folder in {file.parent for file in FILES.values()}:
        assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text())), folder.name


def test_a_wheel_holds_every_package():
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    folders = {file.parent for file in PACKAGE.rglob("*.py")}
    assert {".".join(("teamsrl_hf", *folder.relative_to(PACKAGE).parts)) for folder in folders} - listed == set()


def test_functions_are_short():
    sizes = [size for _, size in _functions()]
    assert statistics.median(sizes) <= 15
    assert sum(size <= 45 for size in sizes) >= 0.9 * len(sizes)
    assert [name for name, size in _functions() if size > 60] == []


def test_modules_and_classes_are_short_and_folders_hold_twelve():
    folders = Counter(file.parent for file in FILES.values())
    assert [folder.name for folder, count in folders.items() if count > 12] == []
    for file in [*FILES.values(), *RECIPES]:
        name, text = file.name, file.read_text()
        assert text.count("\n") <= 400, name
        classes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ClassDef)]
        assert [node.name for node in classes if node.end_lineno - node.lineno >= 250] == [], name


@pytest.mark.parametrize("module", FILES)
def test_no_module_swallows_every_exception_or_trusts_remote_code(module):
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None
            assert getattr(node.type, "id", "") != "Exception"
        if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
            assert node.value.value is False


# What loads a model, a tokenizer or a configuration by name. PEFT's loaders run no code that comes with an adapter.
LOADERS = ("from_pretrained", "from_config", "pipeline", "SentenceTransformer", "HFLM")


def test_every_loader_says_that_no_code_is_run():
    silent = []
    for file in [*PACKAGE.rglob("*.py"), *RECIPES]:
        for node in ast.walk(ast.parse(file.read_text())):
            name = getattr(node.func, "attr", getattr(node.func, "id", "")) if isinstance(node, ast.Call) else ""
            owner = getattr(getattr(node.func, "value", None), "id", "") if name else ""
            if name in LOADERS and not owner.startswith("Peft"):
                said = [word.value for word in node.keywords if word.arg == "trust_remote_code"]
                if not (said and isinstance(said[0], ast.Constant) and said[0].value is False):
                    silent.append(f"{file.name}:{node.lineno}")
    assert silent == []


def test_text_rooms_and_the_command_line_load_no_heavy_library():
    light = [name for name in FILES if _package(name) in LIGHT and name not in NEEDS_TORCH]
    code = f"""
import sys, importlib, teamsrl_hf
assert "numpy" not in sys.modules
for module in {[*light, "evaluation.measures"]!r}:
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


def test_a_wheel_carries_every_package():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {file.parent.relative_to(ROOT) for file in PACKAGE.rglob("*.py")}
    assert {".".join(folder.parts) for folder in folders} - set(listed) == set()
