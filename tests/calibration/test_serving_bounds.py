"""No predicted run betters what must be read and computed; measured runs that do are counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perfmodel.calibration.serving import blocks, predict
from perfmodel.calibration.serving_rows import ServingRow, read_row
from perfmodel.calibration.serving_validate import serving_reports
from tests.calibration.test_serving_rows import DENSE, EXPERTS, row, table

MODELS = (DENSE, EXPERTS, "meta-llama/Llama-3.1-8B", "openai/gpt-oss-120b", "Qwen/Qwen3-235B-A22B")
SYSTEMS = ("h100_sxm", "h200_sxm", "b200_sxm", "a100_sxm", "l40s")


def drawn(setups: int, each: int) -> list[ServingRow]:
    """Runs of models, machines, formats, layouts, loads and lengths drawn at random."""
    rng, rows = np.random.default_rng(7), []
    for _ in range(setups):
        framework, system = str(rng.choice(("vllm", "sglang", "trtllm"))), str(rng.choice(SYSTEMS))
        what = {"model": str(rng.choice(MODELS)), "precision": str(rng.choice(("", "fp8"))), "system": system}
        for _ in range(each):
            tp, many = 2 ** int(rng.integers(0, 4)), 2 ** int(rng.integers(0, 10))
            layout = {"tp_size": tp, "moe_tp_size": tp, "concurrency": many, "batch_size": many, "id": "x"}
            lengths = {"isl": int(2 ** rng.uniform(2, 15)), "osl": int(2 ** rng.uniform(2, 12))}
            rows.append(read_row(2, row(**layout, **lengths, **what, framework=framework)))
    return rows


def test_no_run_is_predicted_below_its_bound() -> None:
    """Under software that costs nothing, where only kernels and collectives are left."""
    made = predict(blocks(drawn(8, 25)), lambda block: {})
    assert (made.tpot_bound > 0.0).all()
    assert (made.tpot >= made.tpot_bound).all()
    assert (made.ttft >= made.ttft_bound).all()
    assert (made.throughput <= made.throughput_bound).all()


@pytest.mark.parametrize("batch", [1, 64])
def test_the_bound_of_a_decode_pass_holds_weights_and_cache(batch: int) -> None:
    """Llama 3.1 70B in fp8 on two H200: 69.5 GB of layers and head, 320 KiB of cache per token, 4.8 TB/s each."""
    made = predict(blocks([read_row(2, row(concurrency=batch, batch_size=batch))]))
    moved = 69.5e9 + batch * (1024 + 512) * 2 * 2 * 8 * 128 * 80
    assert moved / (2 * 4.8e12) < float(made.tpot_bound[0]) < 1.25 * moved / (2 * 4.8e12)


def test_a_measurement_below_the_bound_is_counted(tmp_path: Path) -> None:
    """A token of a 70B model in 1 ms on two H200 was drafted, or is no token of that model."""
    fast = row(tpot_ms=1.0)
    found = {r.metric: r for r in serving_reports([table(tmp_path / "t.csv", row(), fast)])}["tpot"]
    assert (found.below_bound, found.measured_below_bound) == (0, 1)
