"""Fused mixture-of-experts layers: one row is one layer of a model on one rank, after the router's product."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from perfmodel.calibration.model import Columns, Identity, Key, OperatorModel, Parameter, Unpredictable, positive_sizes
from perfmodel.machine.engine import Constants, Engine
from perfmodel.machine.kernels import kernel_time
from perfmodel.operators.formats import STORAGE
from perfmodel.operators.moe import HEIGHTS, Loads, moe, sampled_group_limited_loads, sampled_loads
from perfmodel.units import Seconds

__all__ = ["MODEL"]


class _Format(NamedTuple):
    """What a measured format multiplies in, and bytes per weight and per activation read."""

    compute: str
    weight: float
    activation: float


_FP4 = STORAGE["mxfp4"].bytes
FORMATS: dict[str, _Format] = {
    "bf16": _Format("bf16", 2.0, 2.0),
    "bfloat16": _Format("bf16", 2.0, 2.0),
    "float16": _Format("fp16", 2.0, 2.0),
    "fp16": _Format("fp16", 2.0, 2.0),
    "fp8": _Format("fp8", 1.0, 1.0),
    "fp8_block": _Format("fp8", 1.0 + 4.0 / 128.0**2, 1.0 + 4.0 / 128.0),
    "nvfp4": _Format("nvfp4", STORAGE["nvfp4"].bytes, STORAGE["nvfp4"].bytes),
    "int4_wo": _Format("bf16", 0.5 + 2.0 / 32.0, 2.0),
    "w4a16_mxfp4": _Format("bf16", _FP4, 2.0),
    "w4a8_mxfp4_mxfp8": _Format("fp8", _FP4, 1.0 + 1.0 / 32.0),
    "w4afp8": _Format("fp8", 0.5 + 2.0 / 128.0, 1.0),
}
"""Formats as measurements call them."""


def _read(row: Mapping[str, str]) -> tuple[Identity, Mapping[str, float]]:
    format = row["dtype"]
    if format not in FORMATS:
        raise Unpredictable(f"number format {format}")
    names = ("tokens", "hidden", "inter", "topk", "experts", "tp", "ep")
    tokens, hidden, inter, top_k, experts, tp, ep = map(int, positive_sizes(row, names).values())
    if top_k > experts:
        raise Unpredictable("more experts per token than there are")
    framework, kernel = row.get("framework", "") or "unnamed", row.get("kernel", "")
    if experts % ep:
        raise Unpredictable("experts do not divide over the ranks")
    skew = _skew(row.get("distribution", ""))
    if skew and (hidden, inter, top_k, experts) in _GROUP_LIMITED:
        loads = sampled_group_limited_loads(tokens, top_k, experts, skew, ep, 8, 4)
    else:
        loads = sampled_loads(tokens, top_k, experts, skew, ep)
    sizes = {
        "tokens": float(tokens),
        "hidden": float(hidden),
        "width": inter / tp,
        "experts": experts / ep,
        "top_k": float(top_k),
        "gated": 0.0 if _two_matrices(kernel, hidden, inter, top_k, experts) else 1.0,
        "rows": loads.rows,
        "active": loads.active,
        **{f"tiles_{height:.0f}": count for height, count in zip(HEIGHTS, loads.tiles, strict=True)},
    }
    return Identity(format, framework, _kernel(framework, kernel)), sizes


def _skew(distribution: str) -> float:
    if distribution == "balanced":
        return 0.0
    head, _, power = distribution.rpartition("_")
    if head != "power_law":
        raise Unpredictable(f"routing {distribution or '(unnamed)'}")
    return float(power)


_GROUP_LIMITED = {(7168, 2048, 8, 256)}
"""Models whose routers keep 4 of 8 groups of experts: (hidden, inner width, experts per token, experts)."""
_NEMOTRON = {(2688, 1856, 6, 128)}


def _two_matrices(kernel: str, hidden: int, inter: int, top_k: int, experts: int) -> bool:
    """Whether experts have no gate: kernels that say so, and the shapes of models with squared rectifiers."""
    if "nongated" in kernel:
        return True
    if kernel == "vllm_fused_moe":  # calls the kernel of gated experts whatever the model
        return False
    return (hidden, inter, top_k, experts) in _NEMOTRON or (top_k, experts) == (22, 512)


_LIBRARIES = ("marlin", "trtllm", "cutlass", "triton")


def _kernel(framework: str, kernel: str) -> str:
    """Library of a kernel name."""
    name = kernel.removeprefix(framework).lower()
    if "nongated" in name:
        return "cutlass"
    return next((library for library in _LIBRARIES if library in name), "")


def _predict(columns: Columns, engine: Engine, constants: Constants, format: str) -> Seconds:
    f = FORMATS[format]
    tiles = tuple(columns[f"tiles_{height:.0f}"] for height in HEIGHTS)
    work = moe(
        columns["tokens"],
        columns["hidden"],
        columns["width"],
        Loads(columns["rows"], columns["active"], tiles),
        experts=columns["experts"],
        gated=columns["gated"],
        top_k=columns["top_k"],
        weight_bytes=f.weight,
        input_bytes=f.activation,
        format=f.compute,
    )
    return kernel_time(work, engine.calibrated("moe", f.compute, constants)).seconds


_PARAMETERS = (
    Parameter("compute_fraction", 0.5, 0.03, 1.05, 0.4),
    Parameter("memory_fraction", 0.8, 0.1, 1.0, 0.25),
    Parameter("launch", 18e-6, 1e-6, 300e-6, 0.6, "s"),
    Parameter("prologue", 1.5e-6, 0.05e-6, 20e-6, 0.8, "s"),
    Parameter("k_step", 0.08e-6, 0.005e-6, 1e-6, 0.7, "s"),
    Parameter("corner", 2.5, 1.1, 6.0, 0.4),
    Parameter("token_cost", 0.2e-6, 0.005e-6, 20e-6, 1.0, "s"),
    Parameter("expert_cost", 10e-9, 0.1e-9, 1e-6, 1.2, "s"),
    Parameter("permute_fraction", 0.5, 0.02, 3.0, 0.7),
    Parameter("idle_share", 0.2, 0.005, 1.5, 1.2),
    Parameter("cache_speed", 2.0, 1.0, 8.0, 0.5, "1", artefact=True),
    Parameter("cache_share", 0.6, 0.1, 2.0, 0.4, "1", artefact=True),
)


def _parameters(key: Key) -> tuple[Parameter, ...]:
    del key
    return _PARAMETERS


MODEL = OperatorModel(
    name="moe",
    header=frozenset({"device", "dtype", "tokens", "hidden", "inter", "topk", "experts", "tp", "ep", "time_us"}),
    read=_read,
    predict=_predict,
    parameters=_parameters,
    subsets={},
)
