"""Which measured kernels a plan gets: the nearest tier, taken whole, and never below what physics allows."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planning import model, system

from perfmodel.machine.build import build_machine
from perfmodel.machine.engine import Engine
from perfmodel.machine.kernels import kernel_lower_bound, kernel_time
from perfmodel.operators import attention, gemm, moe, streaming
from perfmodel.operators.layers import Sizes, layer_calls
from perfmodel.operators.work import Work
from perfmodel.phases.emit import uncovered
from perfmodel.specs.calibration import CalibrationFile
from perfmodel.specs.framework import load_framework
from perfmodel.specs.load import parse
from perfmodel.specs.locate import calibration_files, find_framework, find_hardware
from perfmodel.specs.overrides import override
from perfmodel.specs.yamlfile import read

DEVICES = sorted(p.stem for p in Path(find_hardware("h100-sxm")).parent.glob("*.yaml"))
SERVING = [
    f
    for f in (load_framework(p) for p in sorted(Path(find_framework("vllm")).parent.glob("*.yaml")))
    if f.kind == "serving"
]
KERNELS = ["", *(f.kernels for f in SERVING if f.kernels)]
ARTEFACTS = ("cache_speed", "cache_share", "host_floor")


def main(device: str, kernels: str = "") -> Engine:
    return build_machine(system(device), kernels).main


def power(low: int, high: int) -> st.SearchStrategy[float]:
    return st.floats(low, high).map(lambda x: float(math.floor(2.0**x)))


@st.composite
def works(draw: st.DrawFn) -> Work:
    """Any kernel of a model, at sizes from one token to a large prefill."""
    format, stored = draw(
        st.sampled_from([("bf16", ""), ("fp8", ""), ("fp8", "fp8_block"), ("nvfp4", ""), ("bf16", "int4")])
    )
    weights = {"": 2.0, "fp8_block": 1.0002, "int4": 0.52}[stored] if format == "bf16" or stored else 1.0
    kind = draw(st.sampled_from(["gemm", "attention", "decode", "latent", "latent decode", "moe", "norm"]))
    batch, queries, before = draw(power(0, 8)), draw(power(0, 13)), draw(power(4, 16))
    heads, groups = draw(st.sampled_from([1.0, 8.0, 64.0])), draw(st.sampled_from([1.0, 4.0, 8.0]))
    cached = draw(st.sampled_from([1.0, 2.0]))
    if kind == "gemm":
        found = gemm.gemm(
            draw(power(0, 14)), draw(power(4, 15)), draw(power(4, 15)), weight_bytes=weights, format=format
        )
    elif kind == "attention":
        found = attention.attention(
            min(batch, 8.0), heads * groups, heads, 128, 128, queries, queries + before, kv_bytes=cached, format=format
        )
    elif kind == "decode":
        found = attention.decode_attention(
            batch, heads * groups, heads, 128, 128, before, kv_bytes=cached, format=format
        )
    elif kind == "latent":
        found = attention.attention(min(batch, 8.0), 16.0, 16.0, 192, 128, queries, queries, format=format)
        found = found._replace(operator="latent_attention")
    elif kind == "latent decode":
        found = attention.decode_attention(batch, 16.0, 1.0, 576, 512, before, latent=True, format=format)
        found = found._replace(operator="latent_decode")
    elif kind == "moe":
        tokens, experts, top_k = draw(power(0, 14)), draw(power(3, 8)), draw(st.sampled_from([1.0, 2.0, 8.0]))
        active = experts * (1.0 - (1.0 - top_k / experts) ** tokens)
        loads = moe.expected_loads(tokens * top_k, max(active, 1.0))
        found = moe.moe(
            tokens, draw(power(9, 13)), draw(power(7, 13)), loads, experts=experts, top_k=top_k, weight_bytes=weights,
            format=format,
        )  # fmt: skip
    else:
        found = streaming.norm(draw(power(0, 15)), draw(power(8, 14)))
    return found._replace(kernels=stored) if kind in ("gemm", "moe") else found


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=150, deadline=None)
@given(work=works(), kernels=st.sampled_from(KERNELS))
def test_no_prediction_beats_the_bytes_and_the_peak(device: str, work: Work, kernels: str) -> None:
    engine = main(device, kernels)
    if engine.bandwidth > 0.0:
        assert kernel_time(work, engine).seconds >= kernel_lower_bound(work, engine) * (1.0 - 1e-9)


OF_DEVICES = [path for path in calibration_files() if "- operator: gemm" in path.read_text(encoding="utf-8")]
"""Calibrations of devices; others are of machines and hold collectives."""


@pytest.mark.parametrize("path", OF_DEVICES, ids=lambda p: p.stem)
def test_plans_run_the_kernels_of_their_framework(path: Path) -> None:
    """Where a serving framework was measured its constants are those of one of its groups, artefacts left out."""
    groups = parse(CalibrationFile, read(path)).groups
    for kernels in KERNELS[1:]:
        ours = [g for g in groups if g.operator == "gemm" and g.format == "bf16" and g.variant.split("/")[0] == kernels]
        found = main(path.stem, kernels).constant("gemm", "bf16")
        if not ours:
            assert found.tier != "framework"
            continue
        assert found.tier == "framework"
        assert found.compute_fraction in [g.constants["compute_fraction"] for g in ours]
        neutral = type(found)()
        assert all(getattr(found, name) == getattr(neutral, name) for name in ARTEFACTS)


def test_timings_of_the_host_are_not_kernels() -> None:
    """vLLM's latent attention was launched call by call on Hopper, 150 us and more each: plans leave that out."""
    found = main("h200", "vllm").constant("latent_decode", "bf16")
    assert found.tier == "device"
    one = attention.decode_attention(1.0, 16.0, 1.0, 576, 512, 512.0, latent=True)._replace(operator="latent_decode")
    assert kernel_time(one, main("h200", "vllm")).seconds < 30e-6  # 12 to 18 us where graphs were replayed


def test_tiers_fall_back_in_order() -> None:
    measured, twin, alone = main("h200", "vllm"), main("h100-pcie", "vllm"), main("epyc-9654", "vllm")
    assert measured.constant("gemm", "bf16").tier == "framework"
    assert main("h200").constant("moe", "bf16").tier == "device"  # no framework named: pooled
    assert twin.constant("gemm", "bf16").tier == "sibling"
    assert "h100-sxm" in twin.constant("gemm", "bf16").basis
    assert alone.constant("gemm", "bf16").tier == "class"
    assert twin.constant("gemm", "bf16").spread >= measured.constant("gemm", "bf16").spread


def test_narrower_evidence_is_never_surer() -> None:
    """Constants carried from siblings have at least the half-width of that tier, whatever their own residuals."""
    for device in ("h100-pcie", "gb300"):
        for format in ("bf16", "fp8"):
            found = main(device, "vllm").constant("moe", format)
            assert found.tier == "sibling"
            assert found.spread >= math.expm1(0.3) - 1e-12


def test_what_is_set_by_hand_goes_before_what_was_measured() -> None:
    changed = override(system("h200"), {"accelerator.kernels.gemm.any.compute_fraction": 0.5})
    engine = build_machine(changed, "vllm").main
    assert engine.constant("gemm", "bf16").compute_fraction == 0.5
    assert engine.constant("gemm", "bf16").launch == main("h200", "vllm").constant("gemm", "bf16").launch


def test_operators_without_constants_stand_on_others() -> None:
    cpu = main("epyc-9654")
    assert cpu.constant("moe", "bf16").compute_fraction == cpu.constant("gemm", "bf16").compute_fraction
    assert cpu.constant("latent_decode", "bf16").memory_fraction == (
        cpu.constant("decode_attention", "bf16").memory_fraction
    )


@pytest.mark.parametrize("architecture", ["llama-3.1-70b", "deepseek-v3"])
def test_rotation_is_counted_once(architecture: str) -> None:
    """Left out exactly where the attention kernel that was measured rotates; a device without it counts the call."""
    framework = load_framework("tensorrt-llm")
    sizes = Sizes(sequences=4.0, queries=1.0, context=4096.0, decode=True)
    calls = layer_calls(model(architecture).architecture, sizes)
    for device, covered in (("h200", True), ("epyc-9654", False)):
        machine = build_machine(system(device), framework.kernels, framework.covers)
        left = uncovered(calls, machine)
        assert len(calls) - len(left) == sum(c.part == "rotary" for c in calls) * covered
    plain = build_machine(system("h200"), "vllm", load_framework("vllm").covers)
    assert uncovered(calls, plain) == calls


def test_kernels_stand_in_where_a_framework_was_not_measured() -> None:
    """TensorRT-LLM was not timed on A100, vLLM was; on H100 its own kernels run."""
    key = ("decode_attention", "bf16")
    alone, joined = (build_machine(system("a100-80gb-sxm"), "trtllm", (), name).main for name in ("", "vllm"))
    assert joined.constant(*key).memory_fraction == main("a100-80gb-sxm", "vllm").constant(*key).memory_fraction
    assert (joined.constant(*key).tier, alone.constant(*key).memory_fraction) == ("device", 0.674)
    own = build_machine(system("h100-sxm"), "trtllm", (), "vllm").main
    assert own.constant(*key) == main("h100-sxm", "trtllm").constant(*key)
