"""Norms, activations and other kernels that stream their operands once."""

from __future__ import annotations

from collections.abc import Mapping

from perfmodel.calibration.model import Columns, Identity, Key, OperatorModel, Parameter, Unpredictable, positive_sizes
from perfmodel.elementwise import smooth_maximum
from perfmodel.machine.engine import Constants, Engine
from perfmodel.machine.kernels import kernel_time
from perfmodel.operators.work import Shape, Work
from perfmodel.units import Seconds

__all__ = ["MODEL"]

_BYTES = {"bf16": 2.0, "fp16": 2.0, "fp32": 4.0}
_POINTWISE = frozenset({"add", "gelu", "copy", "mul", "relu", "silu"})
"""Operations whose rows may be cut anywhere; the others give every row to one unit."""


def _read(row: Mapping[str, str]) -> tuple[Identity, Mapping[str, float]]:
    if row["dtype"] not in _BYTES:
        raise Unpredictable(f"number format {row['dtype']}")
    timed = row.get("timing", "") or row.get("framework", "") or "unnamed"
    sizes = {
        "bytes": positive_sizes(row, ("bytes_read",))["bytes_read"] + max(0.0, float(row["bytes_written"])),
        **positive_sizes(row, ("rows", "cols")),
        "row": 1.0 if row["op"] in _POINTWISE else float(row["cols"]),
    }
    return Identity(row["dtype"], timed, row["op"]), sizes


def _predict(columns: Columns, engine: Engine, constants: Constants, format: str) -> Seconds:
    work = Work(
        operator="elementwise",
        format=format,
        flops=5.0 * columns["rows"] * columns["cols"],
        compulsory_bytes=columns["bytes"],
        reuse_power=0.0,
        shape=Shape(columns["rows"], columns["row"]),
    )
    seconds = kernel_time(work, engine.calibrated("elementwise", format, constants)).seconds
    return smooth_maximum(seconds, constants.host_floor, 6.0)


_PARAMETERS = (
    Parameter("memory_fraction", 0.7, 0.05, 1.1, 0.4),
    Parameter("launch", 3e-6, 0.3e-6, 60e-6, 0.7, "s"),
    Parameter("row_step", 0.1e-6, 0.003e-6, 4e-6, 1.2, "s"),
    Parameter("unit_rows", 1.2, 1.0, 16.0, 0.15),
    Parameter("cache_speed", 2.0, 1.0, 8.0, 0.5),
    Parameter("cache_share", 0.6, 0.1, 2.0, 0.4),
)


def _parameters(key: Key) -> tuple[Parameter, ...]:
    del key
    return _PARAMETERS


MODEL = OperatorModel(
    name="elementwise",
    header=frozenset({"device", "dtype", "op", "rows", "cols", "bytes_read", "bytes_written", "time_us"}),
    read=_read,
    predict=_predict,
    parameters=_parameters,
    subsets={},
    pooled_over="all",
)
