"""Attention on spatial arrays: published times of two machines, and what is true of any."""

from __future__ import annotations

from dataclasses import replace

import pytest

from perfmodel.machine.build import build_engine, build_machine
from perfmodel.machine.engine import Engine
from perfmodel.machine.kernels import kernel_time
from perfmodel.machine.spatial import attention_one_pass, attention_three_pass, tile_rows
from perfmodel.operators.attention import attention
from perfmodel.operators.gemm import gemm
from perfmodel.specs.system import load_device, load_system


def engine(name: str) -> Engine:
    return build_machine(load_system(name)).main


FLAT, FUSEMAX = engine("flat-cloud"), engine("fusemax")


@pytest.mark.parametrize(
    ("heads", "d", "tokens", "flat", "fusemax"),
    [
        (768.0, 64.0, 1024.0, 13.386076595744681e-3, 2.013140425531915e-3),
        (768.0, 64.0, 65536.0, 54.829369736170214, 7.402500357446808),
        (512.0, 64.0, 16384.0, 2.2845570723404256, 0.3101107744680851),
        (1024.0, 128.0, 4096.0, 0.2855696340425532, 0.07641218723404256),
    ],
)
def test_published_times(heads: float, d: float, tokens: float, flat: float, fusemax: float) -> None:
    """FPSG-UIUC/micro24-fusemax-artifact, data/pregenerated/attn-flat.csv and attn-proposal.csv."""
    sizes = (heads, tokens, tokens, d)
    assert attention_three_pass(*sizes, FLAT).seconds == pytest.approx(flat, rel=1e-6)
    assert attention_one_pass(*sizes, FUSEMAX).seconds == pytest.approx(fusemax, rel=1e-6)


def test_one_pass_never_spills() -> None:
    """Three passes move scores once a block of rows outgrows the buffer; one pass moves the matrices only."""
    for tokens in (2.0**16, 2.0**17):
        three, one = (
            attention_three_pass(1.0, tokens, tokens, 64.0, FLAT),
            attention_one_pass(1.0, tokens, tokens, 64.0, FLAT),
        )
        assert (three.bytes > 8.0 * tokens**2) == (tile_rows(FLAT, "fp16") * tokens * 2.0 > FLAT.cache)
        assert one.bytes < 0.1 * tokens**2


def test_the_slowest_part_is_the_time() -> None:
    slow = replace(FLAT, memories=(FLAT.memories[0], FLAT.memories[1]._replace(bandwidth=1e6)))
    for model in (attention_three_pass, attention_one_pass):
        found = model(1.0, 4096.0, 4096.0, 64.0, slow)
        assert found.seconds == found.memory
        usual = model(1.0, 4096.0, 4096.0, 64.0, FLAT)
        assert usual.seconds >= max(usual.products, usual.vector, usual.memory)
        faster = model(1.0, 4096.0, 4096.0, 64.0, replace(FLAT, matrix={"fp16": 2.0 * FLAT.matrix["fp16"]}))
        assert faster.seconds <= usual.seconds


def test_small_units_of_a_spatial_device_work_together() -> None:
    """12,288 DSPs attend as quickly as the arrays made of them, and a product comes near what they multiply."""
    device = load_device("versal-vhk158")
    classes = load_system("versal-vhk158").class_constants
    times = {}
    for units in (304.0, 12288.0):
        counted = device.model_copy(update={"units": device.units.model_copy(update={"value": units})})
        found = build_engine("main", counted, classes)
        works = (gemm(1024.0, 4096.0, 4096.0), attention(1.0, 32.0, 32.0, 128, 128, 1024.0, 1024.0))
        times[units] = [float(kernel_time(work, found).seconds) for work in works]
        assert times[units][0] < 4.0 * works[0].flops / found.peak("fp16")
    assert times[304.0] == times[12288.0]
