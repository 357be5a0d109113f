"""Examples in docstrings are true."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted(".".join(file.relative_to(ROOT).with_suffix("").parts) for file in ROOT.glob("teamsrl_hf/**/*.py"))


@pytest.mark.parametrize("module", [name for name in MODULES if not name.endswith(("__init__", ".app"))])
def test_examples_of_a_module_are_true(module):
    assert doctest.testmod(importlib.import_module(module)).failed == 0
