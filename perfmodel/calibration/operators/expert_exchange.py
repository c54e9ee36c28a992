"""Exchange of tokens with their experts: one row is one dispatch or combine of a library among the ranks of a machine.

A mode that sends every copy (low latency) moves ``top_k`` vectors per token; others send a token once to every rank
that holds one of its experts, :math:`R(1-(1-1/R)^k)` vectors of the balanced routing of these timings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from perfmodel.calibration.model import Columns, Identity, Key, OperatorModel, Parameter
from perfmodel.calibration.operators.collective import group_of
from perfmodel.calibration.subjects import MACHINES, Place, Unpredictable
from perfmodel.network.exchange import ExchangeConstants, expert_exchange, vectors_sent
from perfmodel.operators.formats import STORAGE
from perfmodel.units import Seconds

__all__ = ["MODEL"]

_COPIES = "low_latency"
"""Mode that sends a vector per expert, not per rank."""
_STEPS = {"moe_dispatch": "dispatch", "moe_combine": "combine", "moe_combine_low_precision": "combine"}
_PREPARE = "moe_prepare"
_SCALED = 1.0 + 4.0 / 128.0
"""Bytes of a dispatched number in 8 bits with a 32-bit scale for 128 of them."""


def _bytes(kind: str, mode: str) -> float:
    """Bytes of a number on the wire: 8 bits with scales out, 16 bits back, unless the mode says otherwise."""
    if kind == "moe_combine_low_precision":
        return 1.0
    if kind == "moe_combine":
        return 2.0
    named = {"bfloat16": 2.0, "fp8": 1.0, "nvfp4": STORAGE["nvfp4"].bytes}
    return next((width for name, width in named.items() if name in mode), _SCALED)


def _read(row: Mapping[str, str]) -> tuple[Identity, Mapping[str, float]]:
    kind, mode = row["kind"], row["mode"]
    if kind not in _STEPS and kind != _PREPARE:
        raise Unpredictable(f"operation {kind}")
    ranks = float(row["ranks"])
    sizes = {name: float(row[name]) for name in ("hidden", "topk", "experts")}
    sizes |= {"ranks": ranks, "tokens": float(row["tokens_per_rank"])}
    sizes["width"] = 0.0 if kind == _PREPARE else _bytes(kind, mode)
    sizes["copies"] = float(mode == _COPIES)
    step = _STEPS.get(kind, "prepare")
    library = mode if mode.startswith("trtllm") else f"DeepEP {mode}"
    kernel = "low precision" if "low_precision" in kind else ""
    return Identity(f"{step} {_family(mode)}", library, kernel, _format(sizes["width"])), sizes


def _format(width: float) -> str:
    """Number format on the wire."""
    return {0.0: "counts", 1.0: "fp8", 2.0: "bf16"}.get(width, "fp8" if width > 1.0 else "nvfp4")


def _family(mode: str) -> str:
    """Kernels that share constants: of a mode, whatever the number format on the wire."""
    return "_".join(mode.split("_")[:2]) if mode.startswith("trtllm") else mode


def _predict(columns: Columns, place: Place, constants: Mapping[str, Any], format: str) -> Seconds:
    del format
    network = place.network("")
    per_node = np.minimum(columns["ranks"], place.per_node)
    group = group_of(place, network, columns["ranks"], per_node)
    vectors = vectors_sent(columns["topk"], columns["ranks"], columns["copies"])
    exchange = ExchangeConstants(**constants)
    return expert_exchange(
        network, group, exchange, columns["tokens"], columns["experts"], vectors * columns["hidden"] * columns["width"]
    )


_PARAMETERS = (
    Parameter("launch", 12e-6, 1e-6, 400e-6, 0.7, "s"),
    Parameter("per_rank", 0.1e-6, 1e-9, 20e-6, 1.0, "s"),
    Parameter("pipelined", 3e-6, 0.01e-6, 400e-6, 1.0, "s"),
    Parameter("rate", 0.62, 0.03, 1.0, 0.4),
    Parameter("short_rate", 0.2, 0.003, 1.0, 0.8),
    Parameter("per_token", 5e-9, 1e-12, 1e-6, 1.2, "s"),
    Parameter("per_expert", 0.01e-6, 1e-11, 1e-6, 1.0, "s"),
)
_PREPARE_PARAMETERS = tuple(p for p in _PARAMETERS if p.name in ("launch", "per_rank", "per_token", "per_expert"))


def _parameters(key: Key) -> tuple[Parameter, ...]:
    return _PREPARE_PARAMETERS if key.format.startswith("prepare") else _PARAMETERS


MODEL = OperatorModel(
    name="expert_exchange",
    header=frozenset({"system", "kind", "mode", "ranks", "tokens_per_rank", "topk", "experts", "time_us"}),
    read=_read,
    predict=_predict,
    parameters=_parameters,
    subsets={},
    subject=MACHINES,
    label="system",
)
