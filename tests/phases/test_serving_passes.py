"""Passes that hold pieces of prompts beside decodes, and what they do to the requests of a replica."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from perfmodel.calibration.serving import Block, blocks, framework_of
from perfmodel.calibration.serving_rows import ServingRow, read_row
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
