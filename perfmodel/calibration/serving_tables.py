"""Serving tables beside closed-loop sweeps: static batches, phases timed one by one, most output tokens offline."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from perfmodel.calibration.model import Unpredictable
from perfmodel.calibration.rows import header_of
from perfmodel.calibration.serving_launches import launch_of
from perfmodel.calibration.serving_rows import HEADER, MILLI, ServingRow, Setup, number, origin_of, read_row
from perfmodel.calibration.serving_sources import cluster_of, harness_of, lengths_of, model_of, queued, setting_of
from perfmodel.specs.architecture import Moe

__all__ = ["READERS", "offline_row", "phases_row", "published_row", "reader_of", "static_row", "submission_row"]

Row = Mapping[str, str]


PRECISIONS = {"nvfp4": "fp4", "fp16": "bf16", "uint4": "int4", "w4a16": "int4-all"}
"""What tables call formats, where it is not what checkpoints are called."""


def _row(line: int, row: Row, mode: str, columns: Mapping[str, float], measured: Mapping[str, float]) -> ServingRow:
    """A row of a table that names its columns ``model``, ``gpu``, ``dtype``, ``isl`` and ``osl``."""
    prompt, output = number(row, "isl"), number(row, "osl")
    if prompt < 1 or output < 1 or not measured:
        raise Unpredictable("the lengths or the measurement are not stated")
    precision = re.sub(r"\(.*", "", row.get("dtype", ""))
    precision = PRECISIONS.get(precision.lower(), precision.lower())
    named = {**row, "precision": precision, "system": row.get("gpu", "")}
    software, kv_format = setting_of(named)
    devices = int(columns.get("devices", columns["tp"] * columns["ep"] * columns["pp"]))
    return ServingRow(
        line=line,
        origin=origin_of(row),
        framework=row.get("framework", "") or software,
        device=row.get("gpu", ""),
        dtype=row.get("dtype", ""),
        cohort=(software, row.get("framework", ""), row.get("model", ""), precision, row.get("gpu", ""), ""),
        setup=Setup(
            model_of(named), cluster_of(row.get("gpu", ""), devices), software, kv_format, launch=launch_of(named)
        ),
        prompt=prompt,
        output=output,
        columns=columns,
        measured=measured,
        mode=mode,
    )


def _plan(row: Row, batch: float) -> dict[str, float]:
    tp, pp = max(1.0, number(row, "tp")), max(1.0, number(row, "pp"))
    return {"tp": tp, "ep": 1.0, "expert_tensor": 1.0, "pp": pp, "batch": batch}


HALF = 0.5
"""Share of the power limit under the cap of published phases: P. Patel et al. (Splitwise), arXiv:2311.18677, cap its
token machines at half of 700 W [1]."""


def phases_row(line: int, row: Row) -> ServingRow:
    """Prefill and decode of a static batch, timed apart."""
    measured = {"tpot": number(row, "tpot_ms") * MILLI, "ttft": number(row, "ttft_ms") * MILLI}
    measured = {name: value for name, value in measured.items() if value > 0.0}
    found = _row(line, row, "static", _plan(row, number(row, "batch") or 1.0), measured)
    cap = HALF if "capped" in row.get("gpu", "") else 1.0
    return replace(found, setup=found.setup._replace(cap=cap))


def static_row(line: int, row: Row) -> ServingRow:
    """Output rate of a static batch, or the first token of a single prompt."""
    plan = _plan(row, number(row, "batch") or 1.0)
    devices = 1.0 if row.get("unit") == "total" else max(1.0, number(row, "num_gpus"))
    rate, first = number(row, "output_tok_s") * devices, number(row, "ttft_ms") * MILLI
    return _row(line, row, "static", plan, {"ttft": first} if first else {"throughput": rate} if rate else {})


def offline_row(line: int, row: Row) -> ServingRow:
    """Most output tokens per second when every request is queued at the start."""
    plan, rate, known = _plan(row, 0.0), number(row, "output_tok_s"), harness_of(row)
    data = max(1.0, number(row, "attn_dp"))
    found = _row(line, row, "offline", plan, {"throughput": rate} if rate else {})
    moe = any(isinstance(r.layer.ffn, Moe) for r in found.setup.architecture.runs)
    if data > 1.0 and not moe:
        raise Unpredictable("attention data ranks of a model without experts are replicas")
    if data == 1.0 and moe and known and known.attention_data:
        data = plan["tp"]
    columns = {**plan, "tp": plan["tp"] if data == 1.0 else 1.0, "ep": data, "batch": data * plan["pp"]}
    return replace(found, columns=columns, requests=queued(row), running=known.running if known else None)


def submission_row(line: int, row: Row) -> ServingRow:
    """Most output tokens per second of a submitted system, whose layout is not published: the best that fits.

    Beams of a request share its prompt, in computing as in the cache: each counts as a sequence with its part of it.
    """
    if row.get("scenario") != "Offline":
        raise Unpredictable("requests under latency limits: the rate at which they came is not output alone")
    name, accelerator = row.get("model", ""), row.get("accelerator", "")
    if "(x" in accelerator:
        raise Unpredictable("two kinds of accelerators in one system")
    lengths = lengths_of(name)
    label = re.match(r"[A-Za-z]+( ?LLMBoost)?", row.get("framework", "") or "unstated")
    precision = row.get("dtype", "") or ("fp4" if re.search("b200|b300", accelerator, re.IGNORECASE) else "fp8")
    short = re.sub(r"-(99|99\.9)$", "", name).replace("_", ".")
    said = {"gpu": accelerator, "dtype": precision, "framework": label[0] if label else "unstated", "model": short}
    named = {**row, **said, "isl": str(lengths.prompt / lengths.beams), "osl": str(lengths.output)}
    devices, rate = max(1.0, number(row, "num_gpus")), number(row, "output_tok_s")
    plan = {"tp": 1.0, "ep": 1.0, "expert_tensor": 1.0, "pp": 1.0, "batch": 1.0}
    columns = {**plan, "devices": devices, "beams": lengths.beams}
    return _row(line, named, "best", columns, {"throughput": rate} if rate else {})


def published_row(line: int, row: Row) -> ServingRow:
    """Rows of vendors' pages: static batches, offline runs, time per token of one sequence."""
    plan, mode = _plan(row, number(row, "batch_or_concurrency") or 1.0), row.get("mode", "")
    tpot, rate = number(row, "tpot_ms") * MILLI, number(row, "throughput_tok_s")
    if "unspecified" in row.get("throughput_kind", ""):
        raise Unpredictable("whether prompts count in the rate is not stated")
    if tpot:
        alone = {**row, "isl": row.get("isl") or SHORT[0], "osl": row.get("osl") or SHORT[1]}
        return _row(line, alone, "static", plan, {"tpot": tpot})
    known = harness_of(row) if "offline" in mode else None
    found = _row(line, row, "offline" if "offline" in mode else "static", plan, {"throughput": rate} if rate else {})
    return replace(found, requests=queued(row), running=known.running) if known else found


SHORT = ("4", "200")
"""Tokens of prompt and answer where only the time of a token is stated: the setting of that benchmark."""
READERS: tuple[tuple[frozenset[str], Callable[[int, Row], ServingRow]], ...] = (
    (frozenset({"ttft_ms", "tpot_ms", "n_repeats", "batch", "isl", "osl"}), phases_row),
    (frozenset({"output_tok_s", "ttft_ms", "unit", "batch", "isl", "osl"}), static_row),
    (frozenset({"output_tok_s", "parallel", "attn_dp", "isl", "osl"}), offline_row),
    (frozenset({"output_tok_s", "scenario", "submitter", "accelerator", "num_gpus"}), submission_row),
    (frozenset({"throughput_tok_s", "throughput_kind", "tpot_ms", "batch_or_concurrency"}), published_row),
)
"""Readers by the columns that tell their tables."""


def reader_of(path: Path) -> Callable[[int, Row], ServingRow]:
    """Return what reads the rows of a serving table."""
    header = header_of(path)
    return read_row if header >= HEADER else next(read for columns, read in READERS if header >= columns)
