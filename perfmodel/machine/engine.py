"""An engine: compute units with their memories, as plain numbers. Built from a device specification."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, cast

from perfmodel.elementwise import Scalar
from perfmodel.errors import PerfmodelError
from perfmodel.machine.dram import Dram
from perfmodel.machine.power import Draw
from perfmodel.operators.formats import VARIANTS
from perfmodel.specs.kernels import STANDS_ON
from perfmodel.units import Bytes, BytesPerSecond, FlopsPerSecond, Seconds

__all__ = ["KERNEL_STAND_INS", "SUBSTITUTES", "Constants", "Engine", "KernelTime", "MemoryLevel", "UnsupportedFormat"]

SUBSTITUTES: dict[str, tuple[str, ...]] = {
    "bf16": ("bf16", "fp16", "tf32", "fp32"),
    "fp16": ("fp16", "bf16", "tf32", "fp32"),
    "fp32": ("fp32", "tf32"),
    "fp8": ("fp8",),
    "int8": ("int8",),
    "int4": ("int4",),
    "nvfp4": ("nvfp4", "fp4"),
    "mxfp4": ("mxfp4", "fp4", "nvfp4"),
}
"""Formats an engine may use in place of the wanted one without losing accuracy, best first."""
KERNEL_STAND_INS: dict[str, tuple[str, ...]] = {"fp8_block": ("fp8",), "int4": ("mxfp4",), "mxfp4": ("int4",)}
"""Formats whose kernels stand in for those of another that has no constants of its own."""


class UnsupportedFormat(PerfmodelError):
    """No unit of the engine multiplies in that format or a wider one."""


class MemoryLevel(NamedTuple):
    """One memory of an engine.

    ``bandwidth`` is ``None`` where no figure exists. ``parts`` memories, one per compute unit, make up ``capacity``
    where a unit reaches its own only; a bound applies to ``capacity / parts``.
    """

    name: str
    capacity: Bytes
    bandwidth: BytesPerSecond | None
    parts: Scalar = 1.0


UNIT_READ = 64.0
"""What a compute unit takes from the cache behind it at most, its fill port from Volta to Hopper and on CDNA 2
[B per clock]; recalled, no document read."""
STREAMING_UNITS = 0.2
"""Share of the units that stream the memory where no clock is stated: that of an A100 and an H100 [1]; carried over."""


@dataclass(frozen=True)
class Constants:
    """Calibrated constants of one operator class and format; see ``perfmodel.machine.kernels`` for what they do."""

    compute_fraction: Scalar = 1.0
    memory_fraction: Scalar = 1.0
    launch: Seconds = 0.0
    wave_quantisation: Scalar = 0.0
    k_step: Seconds = 0.0
    prologue: Seconds = 0.0
    kv_step: Seconds = 0.0
    exponential_cost: Scalar = 0.0
    split_launch: Seconds = 2.0e-6
    corner: Scalar = 3.0
    quantise_launch: Seconds = 0.0
    quantise_fraction: Scalar = 0.0
    pack_fraction: Scalar = 0.0
    row_step: Seconds = 0.0
    unit_rows: Scalar = 1.0
    ramp: Seconds = 0.0
    row_floor: Scalar = 0.0
    window_margin: Scalar = 0.0
    masked_share: Scalar = 0.0
    row_cost: Seconds = 0.0
    cache_speed: Scalar = 1.0
    cache_share: Scalar = 1.0
    host_floor: Seconds = 0.0
    tile_overhead: Scalar = 0.0
    token_cost: Seconds = 0.0
    expert_cost: Seconds = 0.0
    permute_fraction: Scalar = 0.0
    idle_share: Scalar = 0.0
    kind: str = "assumed"
    spread: float = 0.5
    """Relative half-width of the 80 % interval of a time predicted with them [1]."""
    regimes: tuple[tuple[Seconds, float], ...] = ()
    """The same by predicted time: (end of the regime, half-width), where residuals tell them apart."""
    rivals: tuple[Constants, ...] = ()
    """Constants of other kernels that the framework may choose for the same work: the fastest runs."""
    tier: str = "class"
    """How near the measurements are: framework, device, sibling, class."""
    basis: str = ""
    """Whose timings, and how many."""

    def spread_at(self, seconds: Seconds) -> float:
        """Relative half-width of the 80 % interval of a time of ``seconds`` [1]."""
        return next((width for end, width in self.regimes if seconds < end), self.spread)


class KernelTime(NamedTuple):
    """Time of one kernel and the parts it is the smooth maximum of [s]."""

    seconds: Seconds
    compute: Seconds
    memory: Seconds
    overhead: Seconds


@dataclass(frozen=True)
class Engine:
    """Compute units with memories nearest first; the last memory holds weights and KV cache.

    Parameters
    ----------
    name : where it stands in the node: ``main``, ``host``, or the name the cluster file gives.
    device : name of the device specification.
    units : independent compute units.
    matrix, vector : dense peak rate by format [FLOP/s].
    memories : nearest first.
    constants : by (operator, format); ``any`` stands for every format without its own.
    formats : weight formats multiplied without a separate unpacking pass.
    runs : operator classes it executes.
    draw : electrical power by what it does.
    clock : share of the clock that a power cap leaves; already in ``matrix`` and ``vector`` [1].
    link : bandwidth of the link to the main engine, ``None`` when it shares that engine's memory [B/s].
    link_latency : time of an empty message over that link, one way [s].
    """

    name: str
    device: str
    units: Scalar
    matrix: Mapping[str, FlopsPerSecond]
    vector: Mapping[str, FlopsPerSecond]
    memories: tuple[MemoryLevel, ...]
    constants: Mapping[tuple[str, str], Constants] = field(default_factory=dict)
    formats: frozenset[str] = frozenset()
    runs: frozenset[str] = frozenset()
    draw: Draw = Draw()
    clock: Scalar = 1.0
    link: BytesPerSecond | None = None
    link_latency: Seconds = 0.0
    tier: str = "hbm"
    """Name of the memory tier its last memory is; two engines that share memory name the same tier."""
    covers: frozenset[str] = frozenset()
    """Operators that the measured attention kernels of its framework do besides."""
    concurrent: bool = True
    """Whether it works while the main engine does; else they take turns."""
    dram: Dram | None = None
    """Command timing of the memory, where its banks compute."""
    sustained: Scalar = 1.0
    """Share of the matrix rate that remains under continuous load."""
    frequency: Scalar = 0.0
    """Clock of the units where it is stated, else 0 [Hz]."""

    @property
    def capacity(self) -> Bytes:
        """Capacity of the last memory [B]."""
        return self.memories[-1].capacity

    @property
    def bandwidth(self) -> BytesPerSecond:
        """Bandwidth of the last memory [B/s]."""
        bandwidth = self.memories[-1].bandwidth
        return 0.0 if bandwidth is None else bandwidth

    @property
    def cache(self) -> Bytes:
        """Capacity of the memory in front of the last one; 1 MiB where none is described [B]."""
        return self.memories[-2].capacity if len(self.memories) > 1 else float(2**20)

    @property
    def streaming_units(self) -> Scalar:
        """Share of the units that it takes to read the last memory at its full rate [1]."""
        read = self.units * UNIT_READ * self.frequency
        return min(self.bandwidth / read, 1.0) if read else STREAMING_UNITS

    def under_load(self) -> Engine:
        """The same engine after minutes of continuous work: matrix rates lowered by its power limit."""
        return replace(self, matrix={name: rate * self.sustained for name, rate in self.matrix.items()}, sustained=1.0)

    def native(self, weight_format: str) -> bool:
        """Whether weights stored in that format are multiplied without a separate unpacking pass."""
        name = VARIANTS.get(weight_format, weight_format)
        return name in self.formats or name in self.matrix

    def multiplies(self, wanted: str) -> bool:
        """Whether it has a unit for the format or one as good, matrix or vector."""
        names = SUBSTITUTES.get(wanted, (wanted,))
        return any(name in self.matrix or name in self.vector for name in names)

    def compute_format(self, wanted: str) -> str:
        """Return the format its matrix (else vector) units use for ``wanted``.

        Raises
        ------
        UnsupportedFormat
            If neither the format nor a wider substitute is described.
        """
        for name in SUBSTITUTES.get(wanted, (wanted,)):
            if name in self.matrix:
                return name
        for name in SUBSTITUTES.get(wanted, (wanted,)):
            if name in self.vector:
                return name
        wider = "bf16" if wanted in ("fp8", "int8", "int4", "nvfp4", "mxfp4", "fp4") else None
        if wider is None:
            known = ", ".join([*self.matrix, *self.vector])
            raise UnsupportedFormat(f"{self.device} has no unit for {wanted}; it has {known}")
        return self.compute_format(wider)

    def peak(self, wanted: str) -> FlopsPerSecond:
        """Dense peak rate of matrix products in ``wanted`` or its substitute [FLOP/s]."""
        name = self.compute_format(wanted)
        return self.matrix[name] if name in self.matrix else self.vector[name]

    def vector_peak(self) -> FlopsPerSecond:
        """Peak rate of the vector units, or of the matrix units where no vector rate is described [FLOP/s]."""
        rates = self.vector or self.matrix
        return rates.get("fp32") or next(iter(rates.values()))

    def calibrated(self, operator: str, wanted: str, constants: Constants) -> Engine:
        """The same engine with other constants of one operator class and format."""
        return replace(self, constants=ChainMap({(operator, wanted): constants}, cast(Any, self.constants)))

    def constant(self, operator: str, wanted: str) -> Constants:
        """Constants of an operator class in a format; else of a format like it, of ``any``, of the class behind it."""
        for name in (wanted, *KERNEL_STAND_INS.get(wanted, ()), "any"):
            found = self.constants.get((operator, name))
            if found is not None:
                return found
        behind = STANDS_ON.get(operator)
        return Constants() if behind is None else self.constant(behind, wanted)
