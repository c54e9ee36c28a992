"""Four numbers of long contexts: counted by hand, never beaten by the model, monotone."""

from __future__ import annotations

import itertools
import json

import pytest
from typer.testing import CliRunner

import perfmodel
from perfmodel.cli.main import app
from perfmodel.errors import SpecError

CONTEXTS = (4096, 32768, 131072)


def test_counted_by_hand() -> None:
    """2 bytes x 2 x 8 heads x 128 x 60 layers per token; one cache out, another in."""
    one = perfmodel.long_context("yi-34b", "dgx-a100", (50000,), changes={"host_bandwidth": "20 GB/s"}).contexts[0]
    assert one.cache_bytes == 245760 * 50000
    assert one.switch is not None
    assert one.switch.bound == pytest.approx(2 * 245760 * 50000 / 20e9)
    weights = 2.0 * 34388917248 - 2.0 * 64000 * 7168  # the table of embeddings is not read
    assert one.decode.bound == pytest.approx(250 * (weights + 245760 * 50125) / 2039e9, rel=0.01)


def test_no_model_beats_its_bound_and_longer_costs_more() -> None:
    for name, hw, columns in (("llama-3.1-8b", "dgx-h100", {}), ("jamba-1.5-mini", "dgx-h100", {"tp": 2}),
                              ("deepseek-v2-lite", "mi300x-8x", {})):  # fmt: skip
        found = perfmodel.long_context(name, hw, CONTEXTS, columns=columns).contexts
        for one in found:
            assert one.prefill.bound <= one.prefill.modelled
            assert one.decode.bound <= one.decode.modelled
            assert one.concurrency.modelled <= one.concurrency.bound
        for short, long in itertools.pairwise(found):
            assert long.concurrency.bound <= short.concurrency.bound
            assert long.prefill.bound > short.prefill.bound
            assert long.decode.modelled >= short.decode.modelled
            assert long.cache_bytes > short.cache_bytes


def test_two_devices_halve_the_bounds() -> None:
    one, two = (
        perfmodel.long_context("llama-3.1-8b", "dgx-h100", (32768,), columns={"tp": tp}).contexts[0] for tp in (1, 2)
    )
    assert two.decode.bound == pytest.approx(one.decode.bound / 2, rel=0.01)
    assert two.prefill.bound == pytest.approx(one.prefill.bound / 2, rel=0.01)
    assert one.switch is not None
    assert two.switch is not None
    assert two.switch.bound == pytest.approx(one.switch.bound / 2)
    assert two.cache_bytes == one.cache_bytes


def test_policies_make_room() -> None:
    whole, half = (
        perfmodel.long_context("mpt-7b", "dgx-a100", (8192,), use=("kv_policy=keyformer-50",), columns=c).contexts[0]
        for c in ({}, {"kv_policy": "keyformer-50"})
    )
    assert half.cache_bytes == pytest.approx(whole.cache_bytes / 2)
    assert half.concurrency.bound >= 2 * whole.concurrency.bound


def test_one_length_at_least() -> None:
    with pytest.raises(SpecError, match="length"):
        perfmodel.long_context("llama-3.1-8b", "h100-sxm", ())


def test_command() -> None:
    asked = [
        "bounds",
        "long-context",
        "--model",
        "yi-34b",
        "--hw",
        "dgx-a100",
        "--pin",
        "tp=2",
        "--context",
        "4096,50000",
    ]
    shown = CliRunner().invoke(app, asked)
    assert shown.exit_code == 0
    assert "at best" in shown.output
    assert "verdict" in shown.output
    said = json.loads(CliRunner().invoke(app, [*asked, "--json"]).output)
    assert [c["context"] for c in said["contexts"]] == [4096, 50000]
