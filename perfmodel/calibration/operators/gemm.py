"""Matrix products: one row is ``C[m, n] = A[m, k] B[k, n]`` of one library on one device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from perfmodel.calibration.model import (
    Columns,
    Identity,
    Key,
    OperatorModel,
    Parameter,
    Unpredictable,
    on_processor,
    positive_sizes,
)
from perfmodel.elementwise import Scalar, smooth_maximum
from perfmodel.machine.engine import Constants, Engine
from perfmodel.machine.kernels import kernel_time
from perfmodel.operators.formats import STORAGE
from perfmodel.operators.gemm import gemm
from perfmodel.units import Bytes, Seconds

__all__ = ["MODEL"]


class _Format(NamedTuple):
    """What a measured format multiplies in, and bytes per weight, per activation read and per result."""

    compute: str
    weight: float
    activation: float
    result: float = 2.0


_SCALED = {name: _Format(name, STORAGE[name].bytes, STORAGE[name].bytes) for name in ("fp8", "int8", "nvfp4", "mxfp4")}
FORMATS: dict[str, _Format] = {
    "fp32": _Format("fp32", 4.0, 4.0, 4.0),
    "tf32": _Format("tf32", 4.0, 4.0, 4.0),
    "bf16": _Format("bf16", 2.0, 2.0),
    "fp16": _Format("fp16", 2.0, 2.0),
    **_SCALED,
    "fp8_block": _SCALED["fp8"]._replace(weight=1.0 + 4.0 / 128.0**2),
    "w8a8_int8": _SCALED["int8"],
    "w8a16": _Format("fp16", 1.0, 2.0),
    "w4a16": _Format("fp16", STORAGE["int4"].bytes, 2.0),
}
"""Formats as measurements call them."""

_QUANTISED = frozenset({"fp8", "fp8_block", "nvfp4", "mxfp4"})
_READY = "activations quantised before"
"""Mark of timings that leave out the pass over the activations."""
_EAGER = ("pytorch", "cublas")
"""Frameworks timed from the host, one launch at a time."""


def _read(row: Mapping[str, str]) -> tuple[Identity, Mapping[str, float]]:
    if row["dtype"] not in FORMATS:
        raise Unpredictable(f"number format {row['dtype']}")
    sizes = positive_sizes(row, ("m", "n", "k"))
    resident = row.get("weight_fits_l2", "")
    sizes["resident"] = float(resident) if resident else 0.0
    sizes.update(_rotation(row)._asdict())
    kernel = row.get("kernel", "")
    framework = row.get("framework", "") or "unnamed"
    parts = [kernel] if kernel.endswith("Kernel") else []
    if row["dtype"] in _QUANTISED and row.get("includes_act_quant", "") != "1":
        parts.append(_READY)
    return Identity(row["dtype"], framework, "/".join(parts)), sizes


class _Rotation(NamedTuple):
    """Copies of the weights that a benchmark takes in turn, so that they do not stay in the cache.

    Parameters
    ----------
    copies : at most so many.
    until_full : no more than it takes to fill the last-level cache.
    """

    copies: float = 1.0
    until_full: float = 0.0


_ROTATED = {"trtllm": _Rotation(5.0, 1.0), "sglang": _Rotation(6.0), "vllm": _Rotation(6.0)}
"""What the collectors of ai-dynamo/aiconfigurator do, by framework."""


def _rotation(row: Mapping[str, str]) -> _Rotation:
    framework = row.get("framework", "")
    if not row.get("source", "").startswith("aiconfigurator"):
        return _Rotation()
    if framework == "vllm" and row["dtype"] in ("fp8_block", "nvfp4"):
        return _Rotation()
    return _ROTATED.get(framework, _Rotation())


def _footprint(columns: Columns, bytes_: Scalar, weights: Scalar, cache: Bytes) -> Bytes:
    """Bytes that a benchmark touches before it comes back to the same weights [B]."""
    enough = np.minimum(columns["copies"], np.ceil(cache / weights))
    copies = np.where(columns["until_full"] > 0.0, enough, columns["copies"])
    return bytes_ + (copies - 1.0) * weights


def _predict(columns: Columns, engine: Engine, constants: Constants, format: str) -> Seconds:
    f = FORMATS[format]
    work = gemm(
        columns["m"],
        columns["n"],
        columns["k"],
        element_bytes=f.result,
        weight_bytes=f.weight,
        input_bytes=f.activation,
        format=f.compute,
    )
    bytes_ = work.traffic(engine.cache)
    touched = _footprint(columns, bytes_, f.weight * columns["n"] * columns["k"], engine.cache)
    constants = replace(constants, cache_share=constants.cache_share * bytes_ / touched)
    seconds = kernel_time(work, engine.calibrated("gemm", f.compute, constants)).seconds
    return smooth_maximum(seconds, constants.host_floor, 6.0)


_PARAMETERS = (
    Parameter("compute_fraction", 0.72, 0.05, 1.05, 0.3),
    Parameter("memory_fraction", 0.83, 0.1, 1.0, 0.25),
    Parameter("launch", 2.5e-6, 0.3e-6, 40e-6, 0.6, "s"),
    Parameter("wave_quantisation", 0.4, 0.02, 1.0, 0.8),
    Parameter("k_step", 0.08e-6, 0.005e-6, 1e-6, 0.7, "s"),
    Parameter("prologue", 0.9e-6, 0.05e-6, 20e-6, 0.8, "s"),
    Parameter("split_launch", 2.5e-6, 0.2e-6, 200e-6, 1.2, "s"),
    Parameter("corner", 2.5, 1.3, 6.0, 0.4),
)
_QUANTISE = (
    Parameter("quantise_launch", 1.8e-6, 0.1e-6, 40e-6, 0.7, "s"),
    Parameter("quantise_fraction", 0.5, 0.05, 1.2, 0.5),
)
_PACK = Parameter("pack_fraction", 0.5, 0.02, 4.0, 0.8)
_CACHE = Parameter("cache_speed", 1.5, 1.0, 8.0, 0.6, "1", artefact=True)
_HOST = Parameter("host_floor", 10e-6, 1e-7, 1e-3, 2.0, "s", artefact=True)


def _parameters(key: Key) -> tuple[Parameter, ...]:
    found = [*_PARAMETERS, _CACHE]
    if key.format in _QUANTISED and not key.variant.endswith(_READY):
        found += _QUANTISE
    if key.format == "fp8_block" or key.variant.startswith(_EAGER):
        found.append(_HOST)
    if on_processor(key):
        found.append(_PACK)
    return tuple(found)


MODEL = OperatorModel(
    name="gemm",
    header=frozenset({"device", "dtype", "m", "n", "k", "time_us"}),
    read=_read,
    predict=_predict,
    parameters=_parameters,
    one_library=frozenset({"bf16", "fp16"}),
    stand_ins={
        "fp16": ("bf16",),
        "bf16": ("fp16",),
        "fp8_block": ("fp8",),
        "w8a8_int8": ("int8", "fp8"),
        "int8": ("w8a8_int8", "fp8"),
        "mxfp4": ("nvfp4",),
        "w8a16": ("fp16", "bf16"),
        "w4a16": ("w8a16", "fp16", "bf16"),
    },
    subsets={"weights beyond the cache": lambda columns: columns["resident"] == 0.0},
)
