"""From facts to floats: the engines of a node, its memory tiers, power and price."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from perfmodel.elementwise import Scalar
from perfmodel.errors import SpecError, UnknownName
from perfmodel.machine.dram import Dram
from perfmodel.machine.engine import Constants, Engine, MemoryLevel
from perfmodel.machine.measured import PlanConstants
from perfmodel.machine.power import Draw, clock_under_cap
from perfmodel.machine.price import price_of
from perfmodel.machine.reliability import Failures
from perfmodel.specs.facts import Fact
from perfmodel.specs.hardware import BankTiming, Cluster, Device
from perfmodel.specs.kernels import KernelConstants
from perfmodel.specs.operation import DevicePower, Reliability
from perfmodel.specs.system import System
from perfmodel.units import Bytes, BytesPerSecond, Watts

__all__ = ["Machine", "build_engine", "build_machine"]

_CONSTANTS = tuple(KernelConstants.model_fields)
SPATIAL = frozenset({"fpga", "dataflow"})
"""Classes whose units work on one tile together: chains of DSPs, the cores of a wafer."""
GROUPS = 304.0
"""Most groups that such units form, each with tiles of its own: the units of the largest device measured (MI300X)."""
DEFAULT_SPREAD = {"datasheet": 0.35, "measured": 0.12, "fitted": 0.15, "assumed": 0.5}
"""Relative half-width of the 80 % interval where a constant states none, by kind; wide on purpose."""


@dataclass(frozen=True)
class Machine:
    """Everything about a machine but its network, as plain numbers.

    Parameters
    ----------
    name : of the cluster or device.
    main : the engine that plans count.
    engines : every engine by name, ``main`` and ``host`` included.
    tiers : capacity of every memory tier, per device of the main engine [B].
    devices : main engines in the machine.
    per_node : main engines per node.
    host_link : host to device bandwidth, one direction, per device [B/s].
    storage_read, storage_write : node storage bandwidth per device [B/s].
    behind : memory of the device behind the one that holds weights and cache, ``None`` where there is none.
    file_read, file_write : shared storage: bandwidth of the machine, and of one device [B/s].
    failures : rates and repair times.
    node_power : power of a node beside its main engines, per device: engines beside them at rest included [W].
    provisioned : power that the facility provides for a main engine: its limit, whatever cap is set [W].
    price : per device and second: the rental, else that of owning it, ``None`` where unknown [USD/s].
    family : of the main engine's device.
    """

    name: str
    main: Engine
    engines: Mapping[str, Engine]
    tiers: Mapping[str, Bytes]
    devices: Scalar = 1
    per_node: int = 1
    host_link: BytesPerSecond | None = None
    storage_read: BytesPerSecond | None = None
    storage_write: BytesPerSecond | None = None
    behind: MemoryLevel | None = None
    file_read: tuple[BytesPerSecond, BytesPerSecond] = (float("inf"), float("inf"))
    file_write: tuple[BytesPerSecond, BytesPerSecond] = (float("inf"), float("inf"))
    failures: Failures = Failures()
    node_power: Watts = 0.0
    provisioned: Watts = 0.0
    price: Scalar | None = None
    pue: Scalar = 1.0
    carbon: Scalar | None = None
    facts: Mapping[str, Fact] = field(default_factory=dict)
    family: str = ""

    def under_load(self) -> Machine:
        """The same machine with its main engine under continuous load."""
        main = self.main.under_load()
        return replace(self, main=main, engines={**self.engines, "main": main})

    def engine(self, name: str) -> Engine:
        """Engine by the name the cluster file gives it; ``UnknownName`` if there is none."""
        if name not in self.engines:
            raise UnknownName(
                "engine", name, self.engines, remedy="the cluster file lists engines beside the accelerator"
            )
        return self.engines[name]


def _value(fact: Fact | None) -> float | None:
    return None if fact is None else fact.value


def _merged(device: Device, defaults: Mapping[str, Mapping[str, KernelConstants]]) -> dict[tuple[str, str], Constants]:
    """Constants by (operator, format): the device's own format, its ``any``, then those of its class."""
    merged: dict[tuple[str, str], Constants] = {}
    for operator in {*device.kernels, *defaults}:
        kernels: Mapping[str, Mapping[str, KernelConstants]] = {str(k): v for k, v in device.kernels.items()}
        own, base = kernels.get(operator, {}), defaults.get(operator, {})
        for name in {*own, *base, "any"}:
            layers = [base.get("any"), base.get(name), own.get("any"), own.get(name)]
            tier = "device" if own.get(name) or own.get("any") else "class"
            basis = f"what the file of {device.name} says" if tier == "device" else f"class {device.device_class}"
            merged[operator, name] = replace(
                _constants([layer for layer in layers if layer is not None]), tier=tier, basis=basis
            )
    return merged


def _constants(layers: list[KernelConstants]) -> Constants:
    facts: dict[str, Fact] = {}
    for layer in layers:
        facts.update({n: f for n in _CONSTANTS if (f := getattr(layer, n)) is not None})
    decisive = facts.get("compute_fraction") or facts.get("memory_fraction")
    kind = decisive.kind if decisive else "assumed"
    spread = decisive.spread if decisive and decisive.spread is not None else DEFAULT_SPREAD[kind]
    values: dict[str, Any] = {n: f.value for n, f in facts.items()}
    return Constants(**values, kind=kind, spread=spread)


def build_engine(
    name: str,
    device: Device,
    defaults: Mapping[str, Mapping[str, Mapping[str, KernelConstants]]],
    *,
    count: float = 1.0,
    link: float | None = None,
    tier: str | None = None,
    holding: str | None = None,
    kernels: str = "",
    stand_in: str = "",
    covers: Iterable[str] = (),
    backends: Mapping[tuple[str, str], str] | None = None,
    tuned: Iterable[str] = (),
) -> Engine:
    """Build the engine of ``count`` devices working as one.

    Parameters
    ----------
    name : its name in the node.
    device : specification.
    defaults : kernel constants by device class, operator and format.
    count : devices that act together (sockets, PIM stacks per accelerator).
    link : bandwidth of its link to the main engine [B/s].
    tier : memory tier its last memory is; by default a tier of its own.
    holding : its last memory; what the file lists behind it is left out. By default all.
    kernels : framework whose measured kernels run.
    stand_in : framework whose kernels stand for those that were not measured on the device.
    covers : operators that its attention kernels do besides.
    backends : frameworks whose kernels run instead, by (operator class, format).
    tuned : operators whose kernels it chooses among those of every framework.
    """
    units = device.units.value
    levels = memory_levels(device, count)
    if holding is not None:
        levels = levels[: [level.name for level in levels].index(holding) + 1]
    last = device.memory[levels[-1].name]
    power = device.power
    clock = clock_of(power)
    apart = min(units, GROUPS) if device.device_class in SPATIAL else units
    return Engine(
        name=name,
        device=device.name,
        units=apart * count,
        matrix={f: rate.value * count * clock for f, rate in device.peak.matrix.items()},
        vector={f: rate.value * count * clock for f, rate in device.peak.vector.items()},
        memories=tuple(levels),
        constants=PlanConstants(
            device, _merged(device, defaults.get(device.device_class, {})), kernels, stand_in, backends, tuned
        ),
        formats=frozenset(device.formats),
        runs=frozenset(device.runs),
        covers=frozenset(covers),
        draw=draw_of(power, count),
        clock=clock,
        frequency=0.0 if device.clock is None else device.clock.value * clock,
        sustained=power.sustained.value if power and power.sustained else 1.0,
        dram=_dram(device.banks, count),
        concurrent=device.concurrency == "concurrent",
        link=link,
        tier=last.shares or tier or levels[-1].name,
    )


def memory_levels(device: Device, count: float = 1.0) -> list[MemoryLevel]:
    """Every memory of ``count`` devices that act together, nearest first."""
    levels = []
    for name, memory in device.memory.items():
        per = device.units.value if memory.per == "unit" else 1.0
        bandwidth = None if memory.bandwidth is None else memory.bandwidth.value * per * count
        levels.append(MemoryLevel(name, memory.capacity.value * per * count, bandwidth, per * count))
    return levels


def _dram(banks: BankTiming | None, count: float) -> Dram | None:
    """Command timing of ``count`` devices together."""
    if banks is None:
        return None
    given = {n: getattr(banks, n) for n in Dram._fields if n not in ("channels", "row_buffers")}
    timed = {n: fact.value for n, fact in given.items() if fact is not None}
    return Dram(channels=banks.channels.value * count, row_buffers=banks.row_buffers, **timed)


def clock_of(power: DevicePower | None) -> float:
    """Share of the clock that a power cap leaves to work that would draw the limit [1].

    Raises
    ------
    SpecError
        If the cap leaves nothing to work with.
    """
    if power is None or power.cap is None or power.exponent is None:
        return 1.0
    idle = _value(power.idle) or 0.0
    if power.cap.value <= idle:
        raise SpecError("the cap leaves nothing above the idle power", field="accelerator.power.cap",
                        found=power.cap.text, allowed=f"more than {idle:g} W")  # fmt: skip
    return float(clock_under_cap(power.cap.value, idle, power.limit.value, power.exponent.value))


def draw_of(power: DevicePower | None, count: float = 1.0) -> Draw:
    """What a device draws; under a cap the floor falls with the clock, and nothing exceeds the cap."""
    if power is None:
        return Draw()
    limit, idle = power.limit.value, _value(power.idle) or 0.0
    most = limit if power.cap is None else min(limit, power.cap.value)
    active = max(idle, limit * (_value(power.active_fraction) or 0.0))
    active = idle + (active - idle) * (most - idle) / (limit - idle) if limit > idle else idle
    memory = min(limit * (_value(power.memory_fraction) or 1.0), most)
    network = limit * (_value(power.network_fraction) or 0.0)
    watts = (idle, active, most - active, max(memory - active, 0.0), network, most)
    return Draw(*(w * count for w in watts))


def _beside(system: System) -> dict[str, Engine]:
    """Engines of a node beside its accelerators, and its host, each as the part of one accelerator."""
    node, found = system.cluster.node, {}
    for name, placed in node.engines.items():
        engine = build_engine(
            name,
            system.engines[name],
            system.class_constants,
            count=placed.per_accelerator.value,
            link=_value(placed.link),
            tier=f"{name} memory",
        )
        found[name] = engine if placed.latency is None else replace(engine, link_latency=placed.latency.value)
    if node.host and system.host:
        share, link = node.host.count / node.accelerator.count, node.host.link.value
        host = build_engine("host", system.host, system.class_constants, count=share, link=link, tier="host")
        size, rate = (fact.value / node.accelerator.count for fact in (node.host.memory, node.host.bandwidth))
        draw = Draw() if node.power_overhead else host.draw  # the power of a node beside its devices counts the host
        memories = (*host.memories[:-1], MemoryLevel("host", size, rate))
        found["host"] = replace(host, memories=memories, draw=draw)
    return found


def build_machine(
    system: System,
    kernels: str = "",
    covers: Iterable[str] = (),
    stand_in: str = "",
    backends: Mapping[tuple[str, str], str] | None = None,
    tuned: Iterable[str] = (),
) -> Machine:
    """Build the machine a resolved hardware specification describes.

    Parameters
    ----------
    system : the specification.
    kernels : framework whose measured kernels its main engine runs; none for what frameworks share.
    covers : operators that its attention kernels do besides.
    stand_in : framework whose kernels stand for those of its own that were not measured on the device.
    backends : frameworks whose kernels its main engine runs instead, by (operator class, format).
    tuned : operators whose kernels it chooses among those of every framework.
    """
    node, cluster = system.cluster.node, system.cluster
    per_node = node.accelerator.count
    device = system.accelerator
    main = build_engine(
        "main", device, system.class_constants, holding=device.holding,
        kernels=kernels, stand_in=stand_in, covers=covers, backends=backends, tuned=tuned,
    )  # fmt: skip
    engines = {"main": main}
    behind = next((level for level in memory_levels(device) if level.name == device.behind), None)
    tiers = {level.name: level.capacity for level in (main.memories[-1]._replace(name=main.tier), behind) if level}
    engines |= _beside(system)
    for engine in list(engines.values())[1:]:
        tiers.setdefault(engine.tier, engine.capacity)
    if node.storage:
        tiers["storage"] = node.storage.capacity.value / per_node
    return Machine(
        name=cluster.name,
        family=system.accelerator.family,
        main=main,
        engines=engines,
        tiers=tiers,
        devices=int(cluster.nodes.value * per_node),
        per_node=per_node,
        behind=behind,
        host_link=_value(node.host.link) if node.host else _value(device.host_link),
        storage_read=node.storage.read.value / per_node if node.storage else None,
        storage_write=node.storage.write.value / per_node if node.storage else None,
        file_read=_shared(cluster, "read"),
        file_write=_shared(cluster, "write"),
        failures=_failures(cluster),
        provisioned=system.accelerator.power.limit.value if system.accelerator.power else 0.0,
        node_power=(node.power_overhead.value / per_node if node.power_overhead else 0.0)
        + sum(engine.draw.idle for name, engine in engines.items() if name != "main"),
        price=price_of(system).per_second,
        pue=_value(cluster.pue) or 1.0,
        carbon=_value(cluster.carbon),
    )


def _shared(cluster: Cluster, way: str) -> tuple[float, float]:
    """Shared storage: bandwidth of the machine, and of one device [B/s]."""
    system = cluster.file_system
    if system is None:
        return float("inf"), float("inf")
    rate = float(getattr(system, way).value)
    return (rate, float("inf")) if system.per == "machine" else (float("inf"), rate / cluster.node.accelerator.count)


def _failures(cluster: Cluster) -> Failures:
    """Failure rates from mean times; a machine of one device has no links outside it."""
    known = cluster.reliability or Reliability()
    interfaces, below = 0.0, 1.0
    for level in cluster.levels.values():
        if level.nics is not None:
            interfaces += level.nics.count.value / below
        below *= level.members.value

    def rate(mean: Fact | None) -> float:
        return 1.0 / mean.value if mean is not None and mean.value > 0.0 else 0.0

    return Failures(
        device=rate(known.device_mtbf),
        node=rate(known.node_mtbf),
        links=interfaces * rate(known.link_mtbf),
        detection=_value(known.detection) or 0.0,
        restart=_value(known.restart) or 0.0,
    )
