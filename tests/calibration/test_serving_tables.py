"""Submissions whose layout is searched, capped devices, equal requests in step, caches read per query head."""

from __future__ import annotations

from dataclasses import replace

import pytest

from perfmodel.calibration.model import Unpredictable
from perfmodel.calibration.serving import blocks, predict, stated_constants
from perfmodel.calibration.serving_rows import ServingRow
from perfmodel.calibration.serving_tables import offline_row, phases_row, static_row, submission_row
from perfmodel.operators.attention import decode_attention
from perfmodel.operators.layers import Sizes, layer_calls
from perfmodel.operators.sums import sums_per_layer
from perfmodel.specs.locate import find_model
from perfmodel.specs.model import load_model


def submission(**changes: object) -> ServingRow:
    """Llama 2 70B offline on eight H200."""
    usual = {
        "model": "llama2-70b-99", "accelerator": "NVIDIA H200-SXM-141GB", "num_gpus": 8, "scenario": "Offline",
        "output_tok_s": 35000, "framework": "TensorRT 10.8, CUDA 12.8", "dtype": "fp8",
        "source": "mlcommons/inference_results_v5.1:closed",
    }  # fmt: skip
    return submission_row(2, {k: str(v) for k, v in {**usual, **changes}.items()})


def rate(row: ServingRow) -> float:
    """Predicted output tokens per second."""
    return float(predict(blocks([row])).throughput[0])


def test_a_submitted_system_is_its_best_layout() -> None:
    """No slower than any one layout of the same devices; published at 35,000 tokens/s (MLPerf Inference v5.1)."""
    best = rate(submission())
    for tp in (1.0, 2.0, 4.0, 8.0):
        one = submission()
        fixed = replace(
            one, mode="offline", columns={"tp": tp, "ep": 1.0, "expert_tensor": 1.0, "pp": 1.0, "batch": 1.0}
        )
        assert best >= 8.0 / tp * rate(fixed) * (1.0 - 1e-9)
    assert best == pytest.approx(35000.0, rel=0.15)


def test_systems_of_several_nodes_are_more_replicas() -> None:
    """Requests that are all there do not know of other nodes."""
    assert rate(submission(num_gpus=32)) == pytest.approx(4.0 * rate(submission()), rel=1e-6)


OFFLINE = {
    "model": "Qwen3-235B-A22B", "gpu": "H200-SXM-141GB", "num_gpus": "8", "tp": "8", "pp": "1", "attn_dp": "1",
    "dtype": "fp8", "isl": "128", "osl": "4096", "output_tok_s": "26852", "framework": "TensorRT-LLM v1.0 docs",
    "source": "NVIDIA/TensorRT-LLM@a:docs/source/performance/perf-overview.md",
}  # fmt: skip


def test_offline_runs_are_set_up_as_their_source_says() -> None:
    """Experts under attention data ranks, 1,500 requests in all (perf-overview.md); published at 26,852 tokens/s."""
    found = offline_row(2, OFFLINE)
    assert (found.columns["tp"], found.columns["ep"], found.requests) == (1.0, 8.0, 1500.0)
    assert offline_row(2, {**OFFLINE, "model": "Llama 3.3 70B"}).columns["tp"] == 8.0
    assert rate(found) == pytest.approx(26852, rel=0.3)


def test_tokens_travel_to_narrow_experts_in_their_format() -> None:
    """Four RTX PRO 6000 behind PCI Express, experts in nvfp4: less on the way there; published at 35,715."""
    narrow = {**OFFLINE, "model": "Qwen3-30B-A3B", "gpu": "RTX-PRO-6000-SE", "num_gpus": "4", "tp": "4",
              "dtype": "nvfp4", "osl": "2048", "output_tok_s": "35715"}  # fmt: skip
    assert rate(offline_row(2, narrow)) == pytest.approx(35715, rel=0.2)
    for row, gain in ((narrow, 1.05), ({**OFFLINE, "gpu": "H200-SXM-141GB"}, 1.0)):
        found = blocks([offline_row(2, row)])
        wide = predict(found, lambda b: {**stated_constants(b), "exchange_quantised": 0.0}).throughput
        assert predict(found).throughput >= gain * wide
    assert predict(found).throughput == pytest.approx(wide)


def test_the_last_wave_of_a_run_is_slower_per_request() -> None:
    """Requests that fill one batch and one more that begins after it."""
    held = rate(replace(offline_row(2, OFFLINE), requests=1500.0))
    assert rate(replace(offline_row(2, OFFLINE), requests=100.0)) < held
    endless = replace(offline_row(2, OFFLINE), requests=None)
    assert rate(replace(endless, requests=1e6)) == pytest.approx(rate(endless), rel=0.01)


def test_requests_under_latency_limits_are_no_offline_rate() -> None:
    """And a data set that is not known has no lengths."""
    with pytest.raises(Unpredictable, match="latency"):
        submission(scenario="Server")
    with pytest.raises(Unpredictable, match="lengths"):
        submission(model="resnet50")


def test_a_cap_slows_prompts_and_not_tokens() -> None:
    """At half of the power: prompts slower, 1.3 times at most, tokens as before (Splitwise, arXiv:2311.18677)."""
    given = {"model": "llama2-70b", "tp": "2", "isl": "2048", "batch": "1", "osl": "128", "ttft_ms": "300",
             "tpot_ms": "37", "dtype": "fp16(assumed)", "source": "splitwise-sim:x"}  # fmt: skip
    free, capped = (
        predict(blocks([phases_row(2, {**given, "gpu": f"H100-SXM5-80GB{cap}"})])) for cap in ("", " (power capped)")
    )
    assert 1.1 < capped.ttft[0] / free.ttft[0] < 1.35
    assert capped.tpot[0] / free.tpot[0] == pytest.approx(1.0, abs=0.02)


def test_short_prompts_wait_for_launches() -> None:
    """Llama 2 70B on eight H100: 128 tokens in 58 ms, no less than 256 (splitwise-sim); tokens take half of it."""
    usual = {
        "model": "llama2-70b",
        "gpu": "H100-SXM5-80GB",
        "num_gpus": "8",
        "tp": "8",
        "dtype": "fp16(assumed)",
        "osl": "128",
    }
    runs = [phases_row(2, {**usual, "batch": "1", "isl": isl, "ttft_ms": "58.2", "tpot_ms": "30",
                           "source": "splitwise-sim"}) for isl in ("128", "256")]  # fmt: skip
    made = predict(blocks(runs))
    assert made.ttft == pytest.approx(58.2e-3, rel=0.15)
    assert made.tpot == pytest.approx(30e-3, rel=0.1)
    assert made.ttft[1] == pytest.approx(made.ttft[0], rel=0.02)


def test_parts_of_a_parallel_layer_were_added_up_one_by_one() -> None:
    """Falcon 180B on eight A100, 2,048 tokens: 509 ms under TensorRT-LLM 0.5, which added up twice."""
    falcon = {"model": "Falcon 180B", "gpu": "A100 80GB", "num_gpus": "8", "tp": "8", "dtype": "fp16", "batch": "1",
              "isl": "2048", "osl": "1", "unit": "ms", "ttft_ms": "509", "source": "TensorRT-LLM@a:b"}  # fmt: skip
    before, after = (static_row(2, {**falcon, "framework": f"TensorRT-LLM v{v}"}) for v in ("0.5", "0.6.1"))
    assert dict(before.setup.launch.settings) == {"sums_apart": 1.0}
    twice, once = (float(predict(blocks([row])).ttft[0]) for row in (before, after))
    assert twice == pytest.approx(0.509, rel=0.1)
    assert once < 0.95 * twice
    architecture = before.setup.architecture
    assert (sums_per_layer(architecture), sums_per_layer(architecture, 1.0)) == (1.0, 2.0)


def test_equal_requests_in_step_wait_for_half_a_round_of_prompts() -> None:
    """Their tokens wait for half of the prompts that those of spread requests wait for, their first tokens for more."""
    row = replace(
        submission(), mode="closed", columns={**submission().columns, "tp": 2.0, "batch": 32.0, "devices": 2.0}
    )
    spread, step = (predict(blocks([replace(row, in_step=s)])) for s in (False, True))
    assert step.tpot[0] < spread.tpot[0]
    assert step.ttft[0] > spread.ttft[0]


def test_old_kernels_read_the_cache_for_every_query_head() -> None:
    """Eight query heads share a key-value head of Llama 2 70B: eight times the cache, which long contexts pay for."""
    llama = load_model(find_model("llama-2-70b")).architecture
    sizes = Sizes(sequences=64.0, queries=1.0, context=3072.0, weight_split=2.0, decode=True)
    own, again = (
        next(c.work for c in layer_calls(llama, replace(sizes, ungrouped=u)) if c.work.operator == "decode_attention")
        for u in (False, True)
    )
    expected = decode_attention(64.0, 32.0, 32.0, 128, 128, 3072.0)
    assert again.compulsory_bytes == expected.compulsory_bytes
    assert again.compulsory_bytes / own.compulsory_bytes == pytest.approx(8.0, rel=0.01)
    row = static_row(2, {"model": "LLaMA 70B", "gpu": "H100-SXM5-80GB", "tp": "2", "num_gpus": "2", "isl": "2048",
                         "osl": "2048", "batch": "64", "dtype": "fp8", "framework": "TensorRT-LLM v0.6.1",
                         "output_tok_s": "547", "unit": "per GPU", "source": "NVIDIA/TensorRT-LLM:x"})  # fmt: skip
    assert rate(row) == pytest.approx(1094.0, rel=0.25)
