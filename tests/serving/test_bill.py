"""Who pays for a device: tokens read and tokens made, by the time of their passes."""

from __future__ import annotations

import pytest

import perfmodel


def estimated(batch: int, **changes: int) -> dict[str, float]:
    asked = {"prompt": 2048, "output": 128, **changes}
    found = perfmodel.estimate(
        "llama8b", "h100", "chat", columns={"batch": batch}, workload_changes=asked, framework="bare"
    )
    return {n: v for n, v in found.plan.metrics.items() if v is not None}


@pytest.mark.parametrize("batch", [1, 2, 16, 128])
def test_prompts_pay_for_the_time_of_their_prefills_alone_or_among_others(batch: int) -> None:
    """The share of prompts is that of a prefill in the time a request takes of a device: a check from outside."""
    m = estimated(batch)
    one = estimated(1)
    prefill = one["ttft_seconds"] - 0.5 * one["tpot_seconds"]  # bare software; half a pass of waiting
    expected = m["requests_per_second"] * prefill
    assert m["prefill_share"] == pytest.approx(expected, rel=0.2)
    paid = 2048 * m["usd_per_million_input_tokens"] + 128 * m["usd_per_million_generated_tokens"]
    assert paid == pytest.approx(128 * m["usd_per_million_output_tokens"])


def test_longer_prompts_cost_more_even_without_others() -> None:
    few, many = estimated(1, prompt=256), estimated(1, prompt=4096)
    assert 0.0 < few["prefill_share"] < many["prefill_share"] < 1.0
    assert few["stall_share"] == many["stall_share"] == 0.0
