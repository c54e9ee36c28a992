"""Passes that hold pieces of prompts beside decodes, and what they do to the requests of a replica."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from planning import setting

from perfmodel.calibration.serving import Block, blocks, framework_of, speculated
from perfmodel.calibration.serving_rows import ServingRow, read_row
from perfmodel.calibration.serving_sources import model_of
from perfmodel.insight.planner import answer
from perfmodel.operators.layers import Sizes, layer_calls
from perfmodel.serving.steady import closed_loop

ROW = {
    "framework": "vllm", "model": "meta-llama/Llama-3.1-70B", "system": "h200_sxm", "precision": "fp8", "mode": "agg",
    "isl": "4096", "osl": "512", "tp_size": "4", "concurrency": "32", "ttft_ms": "900", "tpot_ms": "20",
}  # fmt: skip


def block(**changes: str) -> Block:
    """One run as plans see it."""
    row: ServingRow = read_row(2, {**ROW, **changes})
    return blocks([row])[0]


def stall(constants: dict[str, float], **changes: str) -> float:
    """What a prompt adds to the passes of the others, as time per token over that of the decode pass."""
    replica: Any = block(**changes).evaluate({**framework_of("vllm").constants, **constants})
    return float((replica.tpot - replica.pass_seconds)[0])


def test_a_prompt_beside_decodes_stalls_them_less_than_in_a_pass_of_its_own() -> None:
    """Weights are read once for both, so short prompts ride along; long ones are bound by arithmetic either way."""
    short, long = ({"isl": n, "concurrency": "8"} for n in ("64", "16384"))
    gain = {n: stall({"mixed_batches": 0.0}, **c) / stall({}, **c) for n, c in (("short", short), ("long", long))}
    assert gain["short"] > 1.2
    assert 0.95 < gain["long"] < gain["short"]


def test_small_pieces_ride_along_and_arrive_later() -> None:
    """Passes of decodes leave arithmetic idle, which small pieces use [1]; the prompt then takes as many passes.

    References
    ----------
    .. [1] A. Agrawal et al., "SARATHI: efficient LLM inference by piggybacking decodes", arXiv:2308.16369.
    """
    assert stall({"chunk_tokens": 64.0}) < stall({"chunk_tokens": 1024.0})
    constants = framework_of("vllm").constants
    large, small = (float(block().evaluate({**constants, "chunk_tokens": n}).ttft[0]) for n in (1024.0, 64.0))
    assert small > 1.5 * large


def test_kernels_that_fuse_take_less() -> None:
    """Adding the residual in the norm saves a pass over it, quantising in the kernel in front saves a launch."""
    fused = block()
    main = replace(fused.machine.main, covers=frozenset())
    plain = replace(fused, machine=replace(fused.machine, main=main, engines={**fused.machine.engines, "main": main}))
    plain = replace(plain, situation=fused.situation._replace(machine=plain.machine))
    constants = framework_of("vllm").constants
    assert fused.evaluate(constants).pass_seconds < plain.evaluate(constants).pass_seconds


def test_requests_that_arrive_together_wait_for_half_of_the_prompts() -> None:
    """The mean first token of a burst grows with the batch; in steady state it grows only with the queue."""
    few, many = (closed_loop(0.01, 0.1, batch=n, output=1000) for n in (8, 16))
    assert many.burst == pytest.approx(few.burst * 17 / 9)
    assert few.ttft < many.ttft < many.burst
    assert closed_loop(0.01, 0.1, batch=8, output=1000, polling=20).ttft > few.ttft


def sglang(launch: dict[str, float], **changes: str) -> Any:
    """A replica of DeepSeek under SGLang with some constants changed."""
    given = {"framework": "sglang", "model": "deepseek-ai/DeepSeek-V3", "tp_size": "8", "moe_tp_size": "8"}
    return block(**{**given, **changes}).evaluate({**framework_of("sglang").constants, **launch})


def test_prompts_gather_while_the_engine_does_not_look() -> None:
    """Several prompts in one pass cost the others less than one by one, and each of them comes later."""
    often, seldom = (sglang({"polling": n}, isl="256", concurrency="64") for n in (1.0, 30.0))
    assert seldom.tpot < often.tpot
    assert seldom.ttft > often.ttft
    whole = sglang({"polling": 30.0, "chunk_tokens": 256.0}, isl="256", concurrency="64")
    assert whole.tpot == pytest.approx(often.tpot)


def test_tokens_come_no_faster_than_they_are_sent() -> None:
    """One process answers all clients, beside the device: it limits many short streams, unless it sends in pieces.

    While prompts keep the device busy it catches up, so the limit is one on the mean.
    """
    free, slow = (sglang({"host_per_piece": t}, concurrency="256") for t in (0.0, 1e-3))
    assert slow.tpot == pytest.approx(0.256)
    assert slow.pass_seconds == free.pass_seconds < free.tpot < 0.256
    assert sglang({"host_per_piece": 1e-3, "piece_tokens": 50.0}, concurrency="256").tpot == free.tpot
    ranks = {"tp_size": "1", "attention_dp_size": "8", "moe_tp_size": "1", "moe_ep_size": "8"}
    assert sglang({"host_per_piece": 1e-3}, concurrency="256", **ranks).tpot == pytest.approx(0.256)


def test_checking_drafts_costs_every_sequence_where_it_is_not_hidden() -> None:
    """Only passes that check drafts pay, so they gain less the more sequences there are."""
    plain = read_row(2, {**ROW, "framework": "sglang"})
    constants = framework_of("sglang").constants
    for row, each in ((plain, 0.0), (speculated(plain), 1e-3)):
        free, paid = (blocks([row])[0].evaluate({**constants, "host_per_check": t}).pass_seconds for t in (0.0, 1e-3))
        assert float((paid - free)[0]) == pytest.approx(32.0 * each)


def test_shared_experts_beside_routed_ones_cost_a_decode_pass_nothing() -> None:
    """Two small products wait for memory while the routed experts read theirs; a model without any gains nothing."""
    given = {"framework": "sglang", "tp_size": "8", "moe_tp_size": "8", "concurrency": "4"}
    constants = framework_of("sglang").constants
    gained = {}
    for model in ("deepseek-ai/DeepSeek-V3", "Qwen/Qwen3-235B-A22B"):
        beside = block(**{**given, "model": model})
        main = replace(beside.machine.main, covers=beside.machine.main.covers - {"shared"})
        machine = replace(beside.machine, main=main, engines={**beside.machine.engines, "main": main})
        plain = replace(beside, machine=machine, situation=beside.situation._replace(machine=machine))
        gained[model] = float((plain.evaluate(constants).pass_seconds - beside.evaluate(constants).pass_seconds)[0])
    assert gained["deepseek-ai/DeepSeek-V3"] > 0.5e-3
    assert gained["Qwen/Qwen3-235B-A22B"] == 0.0


def test_small_kernels_add_up_by_layer() -> None:
    """A kernel for every layer with experts adds its launch to every such layer, and nothing to models without any."""
    base, more = (sglang({"expert_passes": n}, concurrency="4").pass_seconds for n in (0.0, 10.0))
    assert 10 * 58 * 1e-6 < more - base < 10 * 58 * 6e-6
    dense = {"model": "meta-llama/Llama-3.1-70B", "tp_size": "4"}
    assert sglang({"expert_passes": 10.0}, **dense).pass_seconds == sglang({}, **dense).pass_seconds


def test_projections_onto_latents_in_one_product() -> None:
    """The same weights and arithmetic in one kernel less per layer."""
    architecture = model_of({**ROW, "model": "deepseek-ai/DeepSeek-V3"})
    sizes = Sizes(sequences=4.0, queries=1.0, context=4096.0, decode=True)
    calls = {f: layer_calls(architecture, replace(sizes, fused_latents=f)) for f in (False, True)}
    counted = {f: sum(c.share for c in own if c.work.operator == "gemm") for f, own in calls.items()}
    flops = {f: sum(c.share * c.work.flops for c in own) for f, own in calls.items()}
    assert counted[False] - counted[True] == pytest.approx(1.0)
    assert flops[True] == pytest.approx(flops[False])


@pytest.mark.parametrize("machine", ["h100-sxm", "npu-pim", "edge-8x"])
@pytest.mark.parametrize(("prompt", "output"), [(4096, 1), (128, 2)])
def test_no_loop_multiplies_faster_than_its_devices(machine: str, prompt: int, output: int) -> None:
    """Prompts of short answers hide under decode passes and each other only as far as units are idle."""
    found = setting("llama-2-13b", machine, "batch", changes={"prompt": prompt, "output": output})
    best = answer(found).best
    assert best is not None
    rate = float(best.metrics["output_tokens_per_second_per_device"] or 0.0) / output
    flops = rate * (prompt + output) * 2.0 * found.model.architecture.parameters
    assert flops <= found.machine.main.peak("bf16")
