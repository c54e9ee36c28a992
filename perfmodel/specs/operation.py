"""What running a machine costs: electrical power, price, failures, and the storage that checkpoints go to. Facts only.

What a file leaves out comes from ``hardware_specs/operation.yaml``, fact by fact, with its kind and source.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Literal, TypeVar

from perfmodel.specs.facts import Bandwidth, Duration, EnergyPrice, Fact, Number, Power, Price, Purchase, Ratio, Spec
from perfmodel.specs.load import parse
from perfmodel.specs.locate import operation_file
from perfmodel.specs.yamlfile import read

__all__ = [
    "ClusterPrice",
    "DevicePower",
    "DevicePrice",
    "FileSystem",
    "Operation",
    "Ownership",
    "PowerShares",
    "Reliability",
    "completed_power",
    "filled",
    "operation_defaults",
    "sources_used",
]


class DevicePower(Spec):
    """Electrical power of one device. What is drawn in use is a share of ``limit``."""

    limit: Power
    """Board or package power limit [W]."""
    cap: Power | None = None
    """A limit set below that of the board: clocks fall until the draw fits [W]."""
    idle: Power | None = None
    sustained: Ratio | None = None
    """Share of the matrix rate of short benchmarks that remains in hours of training, under the power limit [1]."""
    active_fraction: Ratio | None = None
    """Drawn while a job runs, whatever it does: clocks up, kernels waiting for communication [share of limit]."""
    memory_fraction: Ratio | None = None
    """Drawn while the last memory streams at the bandwidth that kernels reach [share of limit]."""
    network_fraction: Ratio | None = None
    """Drawn by links at full rate, on top of ``active_fraction`` [share of limit]."""
    exponent: Number | None = None
    """Power above idle grows with the clock to this power [1]."""


POWER_FACTS = ("active_fraction", "memory_fraction", "network_fraction", "exponent")


class DevicePrice(Spec):
    """What a device costs."""

    hour: Price | None = None
    """Rental per device and hour."""
    purchase: Purchase | None = None
    """Where no rental is stated, the price is that of owning it (``ownership`` of the machine)."""


class ClusterPrice(Spec):
    """What the machine costs."""

    device_hour: Price | None = None
    """Per accelerator and hour."""


class Ownership(Spec):
    """What turns a purchase into a price per hour, where devices state no rental."""

    lifetime: Duration | None = None
    """Time over which it is written off, in a straight line [s]."""
    electricity: EnergyPrice | None = None
    """Paid for the power limit of devices, the rest of the node and the facility around it [USD/J]."""


class Reliability(Spec):
    """How often parts interrupt a job, and how long the job then stands. Means of exponential times."""

    device_mtbf: Duration | None = None
    """Time between interruptions by one accelerator, its memory and its links inside the node [s]."""
    node_mtbf: Duration | None = None
    """Time between interruptions by the rest of one node: host, storage, system software, maintenance [s]."""
    link_mtbf: Duration | None = None
    """Time between interruptions by one network interface with its cable and switch port [s]."""
    detection: Duration | None = None
    """From the failure until the job is stopped and the fault is found [s]."""
    restart: Duration | None = None
    """From then until the job runs on other nodes; reading the checkpoint comes on top [s]."""


class FileSystem(Spec):
    """Shared storage, where checkpoints outlive a node."""

    write: Bandwidth
    read: Bandwidth
    per: Literal["machine", "node"] = "machine"
    """Whether the bandwidths are those of the machine, shared by all jobs, or the share of one node."""


class PowerShares(Spec):
    """Shares of the power limit of a device that its file says nothing about."""

    idle: Ratio
    active_fraction: Ratio
    memory_fraction: Ratio
    network_fraction: Ratio
    exponent: Number


class Operation(Spec):
    """The file of what machines are taken to cost to run where their own files are silent."""

    sources: dict[str, str]
    reliability: Reliability
    file_system: FileSystem
    power: PowerShares
    ownership: Ownership


def operation_defaults() -> Operation:
    """Return the shipped defaults."""
    path = operation_file()
    return _read_operation(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _read_operation(path: Path, changed: int) -> Operation:
    del changed
    return parse(Operation, read(path))


Part = TypeVar("Part", bound=Spec)


def completed(spec: Part, defaults: Mapping[str, Fact | None]) -> Part:
    """Fill facts that ``spec`` leaves out; their sources stay keys of the file of defaults."""
    missing = {n: f for n, f in defaults.items() if f is not None and getattr(spec, n) is None}
    return spec.model_copy(update=missing) if missing else spec


def sources_used(defaults: Operation, *parts: Spec | None) -> dict[str, str]:
    """Sources of the file of defaults that facts of ``parts`` name."""
    facts = [getattr(part, n) for part in parts if part is not None for n in type(part).model_fields]
    named = {f.source for f in facts if isinstance(f, Fact)}
    return {key: text for key, text in defaults.sources.items() if key in named}


def completed_power(power: DevicePower, defaults: Operation) -> DevicePower:
    """Fill what a device does not say about its draw."""
    shares = defaults.power
    known: dict[str, Fact | None] = {n: getattr(shares, n) for n in POWER_FACTS}
    watts = shares.idle.value * power.limit.value
    known["idle"] = shares.idle.model_copy(update={"value": watts, "text": f"{watts:g} W"})
    return completed(power, known)


def filled(known: Part | None, default: Part) -> Part:
    """What a machine says, each fact that it leaves out as in ``default``."""
    return default if known is None else completed(known, {n: getattr(default, n) for n in type(default).model_fields})
