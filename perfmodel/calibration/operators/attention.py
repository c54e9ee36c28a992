"""Fused attention: prefill, where many queries see a triangle or a window of keys, and decode on a long cache.

Number formats are those of the products and of the cache: ``bf16 kv fp8`` keeps the cache in 8 bits. Kernels that read
such a cache may multiply in 8 bits too, so the rate of fp8 is their bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from perfmodel.calibration.model import Columns, Identity, Key, OperatorModel, Parameter, on_processor
from perfmodel.calibration.subjects import Unpredictable
from perfmodel.machine.engine import Constants, Engine
from perfmodel.machine.kernels import kernel_time
from perfmodel.operators.attention import attention, decode_attention
from perfmodel.units import Seconds

__all__ = ["DECODE", "PREFILL", "PUBLISHED", "STAND_INS", "cache_format", "compute_format"]

_NAMES = {
    "bfloat16": "bf16",
    "bf16": "bf16",
    "float16": "bf16",
    "fp16": "bf16",
    "fp16/bf16": "bf16",
    "fp8": "fp8",
    "fp32": "fp32",
}
"""Formats as measurements call them; both 16-bit formats run at one rate through the same kernels."""
_BYTES = {"fp32": 4.0, "bf16": 2.0, "fp8": 1.0}
STAND_INS = {"bf16 kv fp8": ("bf16", "fp8"), "fp8": ("bf16 kv fp8", "bf16"), "bf16": ("bf16 kv fp8",)}
"""Formats whose constants stand in for those of another, best first."""


def cache_format(row: Mapping[str, str]) -> tuple[str, float]:
    """Format of a row, and bytes per element of its cache.

    Raises
    ------
    Unpredictable
        If the format of the products or of the cache is not known.
    """
    dtype, cached = row["dtype"], row.get("kv_dtype", "")
    kept = dtype if cached in ("", "none") else cached
    if dtype not in _NAMES or kept not in _NAMES:
        raise Unpredictable(f"number format {dtype} with a cache in {kept}")
    name, kept = _NAMES[dtype], _NAMES[kept]
    return (name if kept == name else f"{name} kv {kept}"), _BYTES[kept]


def compute_format(format: str) -> str:
    """Fastest format in which kernels may multiply.

    Examples
    --------
    >>> compute_format("bf16 kv fp8"), compute_format("context bf16"), compute_format("fp32")
    ('fp8', 'bf16', 'fp32')
    """
    return next((name for name in ("fp8", "fp32") if name in format), "bf16")


def _sizes(row: Mapping[str, str], names: tuple[str, ...]) -> dict[str, float]:
    sizes = {name: float(row[name]) for name in names}
    if min(sizes.values()) < 1.0 or sizes["kv_len"] < sizes["q_len"]:
        raise Unpredictable("a size is below 1, or there are fewer keys than queries")
    window = float(row.get("window", "") or 0.0)
    sizes["window"] = window if window > 0.0 else sizes["kv_len"] + 1.0
    return sizes


_SIZES = ("batch", "q_heads", "kv_heads", "head_dim", "q_len", "kv_len")


def _read_prefill(row: Mapping[str, str]) -> tuple[Identity, Mapping[str, float]]:
    format, cache_bytes = cache_format(row)
    sizes = _sizes(row, _SIZES)
    sizes["cache_bytes"] = cache_bytes
    sizes["causal"] = 0.0 if row.get("causal", "") == "0" else 1.0
    kernel = row.get("kernel", "")
    if not sizes["causal"]:
        kernel += " encoder"
    if sizes["head_dim"] % 16:
        kernel += " unaligned"  # libraries fall back to other kernels
    return Identity(format, row.get("framework", "") or "unnamed", kernel.strip()), sizes


def _predict_prefill(columns: Columns, engine: Engine, constants: Constants, format: str) -> Seconds:
    used = compute_format(format)
    work = attention(
        columns["batch"],
        columns["q_heads"],
        columns["kv_heads"],
        columns["head_dim"],
        columns["head_dim"],
        columns["q_len"],
        columns["kv_len"],
        causal=bool(np.all(columns["causal"])),  # kernels without a causal mask are groups of their own
        window=columns["window"],
        element_bytes=4.0 if used == "fp32" else 2.0,
        kv_bytes=columns["cache_bytes"],
        format=used,
    )
    return kernel_time(work, engine.calibrated("attention", used, constants)).seconds


_CACHE = (
    Parameter("cache_speed", 2.5, 1.0, 10.0, 0.6, "1", artefact=True),
    Parameter("cache_share", 0.5, 0.05, 2.0, 0.5, "1", artefact=True),
)
_PREFILL = (
    Parameter("compute_fraction", 0.6, 0.02, 1.1, 0.5),
    Parameter("exponential_cost", 0.5, 0.02, 3.0, 0.8),
    Parameter("launch", 6e-6, 0.5e-6, 60e-6, 0.6, "s"),
    Parameter("prologue", 1.5e-6, 0.05e-6, 40e-6, 0.8, "s"),
    Parameter("memory_fraction", 0.7, 0.05, 1.0, 0.5),
    Parameter("corner", 2.5, 1.0, 6.0, 0.4),
    Parameter("ramp", 0.5e-6, 1e-9, 100e-6, 1.6, "s"),
    Parameter("row_floor", 64.0, 4.0, 256.0, 0.8),
    Parameter("window_margin", 1.5, 0.2, 6.0, 0.5),
    *_CACHE,
)
_MASKED = Parameter("masked_share", 0.005, 0.0003, 1.0, 1.5)


_STEPS = Parameter("prologue", 5e-6, 0.05e-6, 190e-6, 1.2, "s")
"""On a processor a tile may be several calls of a library, made from an interpreter."""


def _prefill_parameters(key: Key) -> tuple[Parameter, ...]:
    """Return the constants of prefill; compiler-generated kernels may visit masked blocks too."""
    found = (*_PREFILL, _MASKED) if "triton" in key.variant.lower() else _PREFILL
    return tuple(_STEPS if p.name == "prologue" and on_processor(key) else p for p in found)


PREFILL = OperatorModel(
    name="attention",
    header=frozenset({"device", "dtype", "kv_dtype", "batch", "q_heads", "kv_heads", "head_dim", "q_len", "time_us"}),
    read=_read_prefill,
    predict=_predict_prefill,
    parameters=_prefill_parameters,
    subsets={"sliding windows": lambda columns: columns["window"] < columns["kv_len"]},
    stand_ins=STAND_INS,
)


def _read_published(row: Mapping[str, str]) -> tuple[Identity, Mapping[str, float]]:
    """One row of a publication: self-attention, named by its implementation."""
    if row["pass_"] != "fwd":
        raise Unpredictable("a backward pass")
    if row["impl"] == "standard":
        raise Unpredictable("writes its scores to memory: not a fused kernel")
    same = {"q_heads": "heads", "kv_heads": "heads", "q_len": "seq", "kv_len": "seq"}
    causal = "1" if row["causal"].startswith("1") else "0"
    sizes = {name: row[column] for name, column in same.items()}
    return _read_prefill({**row, **sizes, "causal": causal, "framework": row["impl"]})


PUBLISHED = replace(
    PREFILL,
    header=frozenset({"device", "impl", "dtype", "batch", "heads", "seq", "head_dim", "causal", "pass_", "time_us"}),
    read=_read_published,
)
"""The same constants and formula for tables of publications."""


def _read_decode(row: Mapping[str, str]) -> tuple[Identity, Mapping[str, float]]:
    format, cache_bytes = cache_format(row)
    sizes = _sizes(row, _SIZES)
    sizes["cache_bytes"] = cache_bytes
    resident = row.get("kv_fits_l2", "")
    sizes["resident"] = float(resident) if resident else 0.0
    kernel, group = row.get("kernel", ""), sizes["q_heads"] / sizes["kv_heads"]
    if group == 1.0:
        kernel += " ungrouped"
    elif group > _WIDEST.get(kernel, group):
        kernel += " wide"
    return Identity(format, row.get("framework", "") or "unnamed", kernel.strip()), sizes


_WIDEST = {"torch_flow": 32.0}
"""Query heads per key head that the kernel for groups takes at most; beyond, another kernel runs."""


def _predict_decode(columns: Columns, engine: Engine, constants: Constants, format: str) -> Seconds:
    used = compute_format(format)
    work = decode_attention(
        columns["batch"],
        columns["q_heads"],
        columns["kv_heads"],
        columns["head_dim"],
        columns["head_dim"],
        columns["kv_len"],
        queries=columns["q_len"],
        window=columns["window"],
        kv_bytes=columns["cache_bytes"],
        format=used,
    )
    return kernel_time(work, engine.calibrated("decode_attention", used, constants)).seconds


_DECODE = (
    Parameter("memory_fraction", 0.85, 0.1, 1.0, 0.3),
    Parameter("launch", 5e-6, 0.5e-6, 60e-6, 0.6, "s"),
    Parameter("kv_step", 0.3e-6, 0.01e-6, 5e-6, 0.7, "s"),
    Parameter("prologue", 2e-6, 0.05e-6, 20e-6, 0.8, "s"),
    Parameter("split_launch", 2e-6, 0.1e-6, 40e-6, 1.0, "s"),
    Parameter("row_cost", 0.2e-9, 0.001e-9, 5e-9, 1.0, "s"),
    *_CACHE,
)


_PACK = Parameter("pack_fraction", 0.5, 0.02, 4.0, 0.8)


def _decode_parameters(key: Key) -> tuple[Parameter, ...]:
    """Return the constants of decode; on a processor, groups of heads are products of a library that copies keys."""
    return (*_DECODE, _PACK) if on_processor(key) else _DECODE


DECODE = OperatorModel(
    name="decode_attention",
    header=PREFILL.header | {"kv_fits_l2"},
    read=_read_decode,
    predict=_predict_decode,
    parameters=_decode_parameters,
    subsets={"cache beyond the last-level cache": lambda columns: columns["resident"] == 0.0},
    stand_ins=STAND_INS,
)
