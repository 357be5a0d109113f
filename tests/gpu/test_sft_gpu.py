"""`recipes/sft.py` on one CUDA device, on a model of a real shape: full, LoRA and 4-bit, with speed and peak memory.

`TEAMSRL_TEST_DEVICE=cpu pytest -m gpu tests/gpu` runs the same on a tiny shape, to try the tests themselves.
"""

import math
import os

import pytest
import torch
from measure_sft import LLAMA_1B, SMALL, kinds, measure, table, write_model

DEVICE = os.environ.get("TEAMSRL_TEST_DEVICE", "cuda")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.timeout(1800),
]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    on_cpu = DEVICE == "cpu"
    write_model(folder, SMALL if on_cpu else LLAMA_1B)
    sizes = {"length": 128, "batch": 2, "steps": 6} if on_cpu else {}
    found = {kind: measure(kind, folder, DEVICE, **sizes) for kind in kinds()}
    print(table(found.values(), "CPU" if on_cpu else torch.cuda.get_device_name()))
    return found


@pytest.mark.parametrize("kind", ["full", "LoRA", "4-bit LoRA"])
def test_each_kind_of_training_lowers_the_loss(measured, kind):
    if kind not in measured:
        pytest.skip("needs teamsrl-hf[quantization]")
    found = measured[kind]
    assert found.tokens_per_second > 0
    assert math.isfinite(found.loss_after)
    assert found.loss_after < found.loss_before
    assert (found.trainable == found.parameters) == (kind == "full")


def test_adapters_and_four_bits_take_less_memory(measured):
    if DEVICE == "cpu":
        pytest.skip("torch counts no peak memory on a CPU")
    peaks = [found.peak_memory for found in measured.values()]
    assert peaks == sorted(peaks, reverse=True)


def test_the_estimate_is_near_the_peak(measured):
    if DEVICE == "cpu":
        pytest.skip("torch counts no peak memory on a CPU")
    for found in measured.values():
        assert 0.5 < found.estimated_memory / found.peak_memory < 2


def test_the_chip_is_put_to_work(measured):
    if measured["full"].utilisation is None:
        pytest.skip("this chip's peak is not in measure_sft.PEAK")
    assert 0.05 < measured["full"].utilisation < 1
