"""Serving tables beside closed-loop sweeps: static batches, phases timed one by one, most output tokens offline."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from perfmodel.calibration.model import Unpredictable
from perfmodel.calibration.serving_rows import MILLI, ServingRow, Setup, number, origin_of
from perfmodel.calibration.serving_sources import cluster_of, model_of, setting_of
from perfmodel.specs.architecture import Moe

__all__ = ["READERS", "offline_row", "phases_row", "static_row"]

Row = Mapping[str, str]


def _row(line: int, row: Row, mode: str, columns: Mapping[str, float], measured: Mapping[str, float]) -> ServingRow:
    """A row of a table that names its columns ``model``, ``gpu``, ``dtype``, ``isl`` and ``osl``."""
    prompt, output = number(row, "isl"), number(row, "osl")
    if prompt < 1 or output < 1 or not measured:
        raise Unpredictable("the lengths or the measurement are not stated")
    precision = re.sub(r"\(.*", "", row.get("dtype", ""))
    precision = {"nvfp4": "fp4", "fp16": "bf16"}.get(precision, precision)
    named = {**row, "precision": precision, "system": row.get("gpu", "")}
    software, kv_format = setting_of(named)
    devices = int(columns["tp"] * columns["ep"] * columns["pp"])
    return ServingRow(
        line=line,
        origin=origin_of(row),
        framework=row.get("framework", "") or software,
        device=row.get("gpu", ""),
        dtype=row.get("dtype", ""),
        cohort=(software, row.get("framework", ""), row.get("model", ""), precision, row.get("gpu", ""), ""),
        setup=Setup(model_of(named), cluster_of(row.get("gpu", ""), devices), software, kv_format),
        prompt=prompt,
        output=output,
        columns=columns,
        measured=measured,
        mode=mode,
    )


def _plan(row: Row, batch: float) -> dict[str, float]:
    tp, pp = max(1.0, number(row, "tp")), max(1.0, number(row, "pp"))
    return {"tp": tp, "ep": 1.0, "expert_tensor": 1.0, "pp": pp, "batch": batch}


def phases_row(line: int, row: Row) -> ServingRow:
    """Prefill and decode of a static batch, timed apart."""
    if "capped" in row.get("gpu", ""):
        raise Unpredictable("the power cap is not stated")
    measured = {"tpot": number(row, "tpot_ms") * MILLI, "ttft": number(row, "ttft_ms") * MILLI}
    measured = {name: value for name, value in measured.items() if value > 0.0}
    return _row(line, row, "static", _plan(row, number(row, "batch") or 1.0), measured)


def static_row(line: int, row: Row) -> ServingRow:
    """Output rate of a static batch, or the first token of a single prompt."""
    plan = _plan(row, number(row, "batch") or 1.0)
    devices = 1.0 if row.get("unit") == "total" else max(1.0, number(row, "num_gpus"))
    rate, first = number(row, "output_tok_s") * devices, number(row, "ttft_ms") * MILLI
    return _row(line, row, "static", plan, {"ttft": first} if first else {"throughput": rate} if rate else {})


def offline_row(line: int, row: Row) -> ServingRow:
    """Most output tokens per second when every request is queued at the start."""
    plan, rate = _plan(row, 0.0), number(row, "output_tok_s")
    data = max(1.0, number(row, "attn_dp"))
    found = _row(line, row, "offline", {**plan, "tp": plan["tp"] if data == 1.0 else 1.0, "ep": data, "batch": data},
                 {"throughput": rate} if rate else {})  # fmt: skip
    if data > 1.0 and not any(isinstance(r.layer.ffn, Moe) for r in found.setup.architecture.runs):
        raise Unpredictable("attention data ranks of a model without experts are replicas")
    return found


READERS: tuple[tuple[frozenset[str], Callable[[int, Row], ServingRow]], ...] = (
    (frozenset({"ttft_ms", "tpot_ms", "n_repeats", "batch", "isl", "osl"}), phases_row),
    (frozenset({"output_tok_s", "ttft_ms", "unit", "batch", "isl", "osl"}), static_row),
    (frozenset({"output_tok_s", "parallel", "attn_dp", "isl", "osl"}), offline_row),
)
"""Readers by the columns that tell their tables."""
