"""How servers were launched: what public scripts say goes before defaults, and tells runs that draft tokens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from perfmodel.calibration.serving import blocks, predict, stated_constants
from perfmodel.calibration.serving_aside import cold, set_aside, speculating
from perfmodel.calibration.serving_launches import launch_of
from perfmodel.calibration.serving_rows import ServingRow, read_row
from perfmodel.specs.framework import load_framework

ROW = {
    "framework": "sglang", "model": "deepseek-ai/DeepSeek-R1", "system": "b200_sxm", "precision": "fp8", "mode": "agg",
    "isl": "1024", "osl": "1024", "tp_size": "8.0", "moe_tp_size": "8.0", "moe_ep_size": "1.0", "concurrency": "32.0",
    "ttft_ms": "500", "tpot_ms": "17", "measured_date": "2026-03-25",
}  # fmt: skip


def run(**changes: str) -> ServingRow:
    """One run as the table records it."""
    return read_row(2, {**ROW, **changes})


def settings(**changes: str) -> dict[str, float]:
    """What the launch of a run chose."""
    return dict(launch_of({**ROW, **changes}).settings)


def test_the_first_entry_that_states_a_setting_decides() -> None:
    """Few requests and four ranks are polled every 10 passes, the rest every 30 (InferenceX scripts)."""
    assert settings()["polling"] == settings(concurrency="512.0")["polling"] == 30.0
    assert settings(concurrency="8.0")["polling"] == settings(tp_size="4.0")["polling"] == 10.0
    assert (settings(tp_size="4.0")["chunk_tokens"], settings()["chunk_tokens"]) == (8192.0, 32768.0)
    assert not settings(framework="vllm")


def test_a_launch_goes_before_the_defaults_of_the_engine() -> None:
    """Hosts that no script describes keep what the framework file says of their devices."""
    known, unknown = (stated_constants(blocks([run(system=s)])[0]) for s in ("b200_sxm", "l40s"))
    assert (known["polling"], known["chunk_tokens"]) == (30.0, 32768.0)
    plain = load_framework("sglang")
    assert (unknown["polling"], unknown["chunk_tokens"]) == (plain.constants["polling"], 4096.0)


def test_products_run_the_kernels_of_the_library_that_a_launch_chose() -> None:
    """TensorRT-LLM's products of 8-bit blocks through FlashInfer on Blackwell; others are SGLang's own."""
    chosen, default = (blocks([run(model=f"x/{m}")])[0].machine.main for m in ("DeepSeek-R1", "Qwen3-235B-A22B"))
    assert "trtllm" in chosen.constant("gemm", "fp8_block").basis
    assert "sglang" in default.constant("gemm", "fp8_block").basis
    assert chosen.constant("gemm", "nvfp4") == default.constant("gemm", "nvfp4")


def test_of_two_runs_of_one_shape_the_quicker_drafts() -> None:
    """The configuration was run with and without drafts; alone, or on a machine where none drafts, it tells nothing."""
    slow, quick = run(), run(tpot_ms="14")
    assert speculating([slow, quick], np.array([0.017, 0.017])) == [1]
    assert speculating([quick], np.array([0.017])) == []
    assert speculating([run(concurrency="256.0")], np.array([1.0])) == [0]
    hopper = [run(system="h200_sxm", tpot_ms=t) for t in ("10", "10", "10", "10")]
    assert speculating(hopper, np.full(4, 0.016)) == []


def test_a_server_that_was_not_warm_delays_first_tokens_alone() -> None:
    """Decided by cohort, and only where tokens come in time: whatever slows both is not the start."""
    rows = [run(ttft_ms="8000") for _ in range(4)]
    tpot, ttft = np.full(4, 0.0165), np.full(4, 0.5)
    assert cold(rows, tpot, ttft) == [0, 1, 2, 3]
    assert cold(rows, 2.0 * tpot, ttft) == cold(rows[:3], tpot[:3], ttft[:3]) == []
    assert cold([run() for _ in range(4)], tpot, ttft) == []
    warm = replace(rows[0], measured={"tpot": 0.0165})
    assert set(set_aside([warm], "ttft", [], [0])) == {0}
    assert not set_aside([warm], "tpot", [], [0])


@pytest.mark.parametrize("clients", [16, 4096])
def test_more_clients_than_places_wait_and_gain_nothing(clients: int) -> None:
    """Requests beyond those that an engine runs leave its rate as it is (Little's law)."""
    made = predict(blocks([run(concurrency=str(c), system="l40s") for c in (clients, 2 * clients)]))
    full = clients > 2048
    assert bool(abs(made.throughput[1] / made.throughput[0] - 1.0) < 1e-6) is full
    assert bool(made.ttft[1] > 1.5 * made.ttft[0]) is full


def test_kernels_known_to_be_missing_set_a_run_aside() -> None:
    """On the one device that lacks them, with the release that fell back; other models and devices stay."""
    given = {"backend_version": "0.5.10.post1", "system": "b300_sxm"}
    rows = [run(**given), run(**given, model="zhipuai/GLM-5"), run(**{**given, "system": "b200_sxm"})]
    assert list(set_aside(rows, "tpot")) == [0]
