"""Examples in docstrings are true."""

import doctest
import importlib
from pathlib import Path

import pytest

MODULES = sorted(file.stem for file in (Path(__file__).parent.parent / "teamsrl_hf").glob("*.py"))


@pytest.mark.parametrize("module", [module for module in MODULES if module != "__init__"])
def test_examples_of_a_module_are_true(module):
    assert doctest.testmod(importlib.import_module(f"teamsrl_hf.{module}")).failed == 0
