"""Values a thousand times off their class are refused, and facts that contradict each other."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise

from perfmodel.errors import nearest
from perfmodel.specs.facts import Fact, FieldError
from perfmodel.specs.hardware import Cluster, Device, Level, Memory, Node
from perfmodel.specs.kernels import KERNEL_CONSTANTS
from perfmodel.specs.ranges import (
    BANK_RANGES,
    CLASS_RANGES,
    CLUSTER_RANGES,
    DEVICE_RANGES,
    FORMAT_BITS,
    LEVEL_RANGES,
    NEAR_RANGES,
    SWEEP,
    Range,
)
from perfmodel.specs.yamlfile import Document, Where
from perfmodel.units import parse_quantity

__all__ = ["check_cluster", "check_device"]

PATTERN = re.compile(r"[1-9]\d*:[1-9]\d*")  # N of M neighbouring weights that sparse matrix units multiply


def check_device(device: Device, document: Document) -> None:
    """Raise ``SpecError`` for the first value of ``device`` that cannot be true."""
    try:
        _device_checks(device)
    except FieldError as error:
        raise document.error(str(error), error.where, found=error.found, allowed=error.allowed) from None


def check_cluster(cluster: Cluster, document: Document, accelerator: Device, engines: Mapping[str, Device]) -> None:
    """Raise ``SpecError`` for the first value of ``cluster`` that cannot be true, given the devices it names."""
    try:
        _cluster_checks(cluster, accelerator, engines)
    except FieldError as error:
        raise document.error(str(error), error.where, found=error.found, allowed=error.allowed) from None


def _in_range(where: Where, fact: Fact | None, limits: Range, dimension: str, what: str, scale: float = 1.0) -> None:
    """Refuse a fact outside ``limits`` x ``scale``."""
    if fact is None:
        return
    low, high = (parse_quantity(text, dimension) * scale for text in limits)
    if not low <= fact.value <= high:
        times = "" if scale == 1.0 else f" times {scale:g}"
        message = f"implausible for {what}; check prefix and unit"
        raise FieldError(message, where, found=fact.text, allowed=f"{limits[0]} to {limits[1]}{times}")


def _in_class(
    device: Device, where: Where, fact: Fact | None, name: str, dimension: str, part: str = "", scale: float = 1.0
) -> None:
    """Refuse a fact outside the range of the device's class, and name the classes that would take it."""
    what = f"{part}class {device.device_class}"
    try:
        _in_range(where, fact, CLASS_RANGES[device.device_class][name], dimension, what, scale)
    except FieldError as error:
        others = [c for c, ranges in CLASS_RANGES.items() if fact and _lies_in(fact, ranges[name], dimension, scale)]
        if not others:
            raise
        message = f"{error}, or the class: {' or '.join(others)} would take it"
        raise FieldError(message, where, found=error.found, allowed=error.allowed) from None


def _lies_in(fact: Fact, limits: Range, dimension: str, scale: float) -> bool:
    low, high = (parse_quantity(text, dimension) * scale for text in limits)
    return low <= fact.value <= high


def _whole(where: Where, fact: Fact) -> None:
    if fact.value != int(fact.value):
        raise FieldError("a whole number is needed", where, found=fact.text)


def _device_checks(device: Device) -> None:
    _whole(("units",), device.units)
    _in_class(device, ("units",), device.units, "units", "1")
    _in_class(device, ("clock",), device.clock, "clock", "Hz")
    _peak_checks(device)
    _memory_checks(device)
    _kernel_checks(device)
    _bank_checks(device)
    _in_range(("host_link",), device.host_link, *_limits(DEVICE_RANGES, "host_link"), "a host link")
    if device.power:
        _in_class(device, ("power", "limit"), device.power.limit, "power", "W")
        idle = device.power.idle
        if idle and idle.value > device.power.limit.value:
            raise FieldError("more than the limit", ("power", "idle"), found=idle.text)
    if device.price:
        _in_range(("price", "hour"), device.price.hour, *_limits(DEVICE_RANGES, "hour"), "a device")
        _in_range(("price", "purchase"), device.price.purchase, *_limits(DEVICE_RANGES, "purchase"), "a device")


def _bank_checks(device: Device) -> None:
    """Timing within what DRAM has, and banks that compute no faster than the memory they lie in is said to be."""
    banks = device.banks
    if banks is None:
        return
    for name, (dimension, limits) in BANK_RANGES.items():
        _in_range(("banks", name), getattr(banks, name), limits, dimension, "banks that compute")
    if banks.burst.value > banks.row.value:
        raise FieldError(f"larger than a row of {banks.row.text}", ("banks", "burst"), found=banks.burst.text)
    computed = banks.channels.value * banks.banks.value * banks.burst.value / banks.column.value
    (*_, last) = device.memory.items()
    stated = last[1].bandwidth
    if stated is not None and computed > 1.01 * stated.value:
        message = f"all banks would compute {computed / 1e9:,.4g} GB/s, more than {last[0]} is said to have"
        raise FieldError(message, ("banks", "column"), found=banks.column.text, allowed=f"up to {stated.text}")


def _limits(table: Mapping[str, tuple[str, Range]], name: str) -> tuple[Range, str]:
    dimension, limits = table[name]
    return limits, dimension


def _format(where: Where, name: str, *, also: tuple[str, ...] = ()) -> None:
    if name not in FORMAT_BITS and name not in also:
        near = nearest(name, FORMAT_BITS)
        hint = f"; did you mean `{near[0]}`?" if near else ""
        raise FieldError(f"unknown number format `{name}`{hint}", where, allowed=", ".join((*FORMAT_BITS, *also)))


def _peak_checks(device: Device) -> None:
    for unit, rates in (("matrix", device.peak.matrix), ("vector", device.peak.vector)):
        for name, rate in rates.items():
            where = ("peak", unit, name)
            _format(where, name)
            if unit == "vector":
                _in_class(device, where, rate, "vector", "FLOP/s", "vector units of ")
            elif name == "fp64":
                _in_class(device, where, rate, "matrix64", "FLOP/s", "matrix units of ")
            else:
                _in_class(device, where, rate, "matrix", "FLOP/s", "matrix units of ", 16 / FORMAT_BITS[name])
    for name in device.peak.matrix.keys() & device.peak.vector.keys():
        matrix, vector = device.peak.matrix[name], device.peak.vector[name]
        if matrix.value * 1000 < vector.value:
            message = f"a thousand times below the vector rate of {vector.text}"
            raise FieldError(message, ("peak", "matrix", name), found=matrix.text)
    for i, name in enumerate(device.formats):
        if not PATTERN.fullmatch(name):
            _format(("formats", i), name, also=("N:M for products that skip all but N of M weights",))


def _memory_checks(device: Device) -> None:
    units = device.units.value
    (*_, last), memory = device.memory, list(device.memory.values())[-1]
    each = units if memory.per == "unit" else 1.0
    _in_class(device, ("memory", last, "capacity"), memory.capacity, "capacity", "B", scale=1 / each)
    _in_class(device, ("memory", last, "bandwidth"), memory.bandwidth, "bandwidth", "B/s", scale=1 / each)
    _sweep(("memory", last, "bandwidth"), memory, SWEEP[device.device_class])
    for name in list(device.memory)[:-1]:
        _near_memory(("memory", name), device.memory[name], device)
    for (near, a), (far, b) in pairwise(device.memory.items()):
        if a.bandwidth and b.bandwidth and _total(a, a.bandwidth, units) < _total(b, b.bandwidth, units):
            message = f"slower than {far} ({b.bandwidth.text}), which lies farther; list memories nearest first"
            raise FieldError(message, ("memory", near, "bandwidth"), found=a.bandwidth.text)
        # Twice: private caches in sum may exceed the shared one (Xeon 8480: 112 MB of L2, 105 MB of L3).
        slack = 2.0 if device.device_class == "cpu" and a.per == b.per else 1.0
        if a.capacity.value > slack * b.capacity.value:
            message = f"larger than {far} ({b.capacity.text}), which lies farther; list memories nearest first"
            raise FieldError(message, ("memory", near, "capacity"), found=a.capacity.text)


def _near_memory(where: Where, memory: Memory, device: Device) -> None:
    kind = "unit" if memory.per == "unit" else "gpu" if device.device_class == "gpu" else "device"
    _in_range((*where, "capacity"), memory.capacity, NEAR_RANGES[kind], "B", f"a nearer memory of a {kind}")
    each = device.units.value if memory.per == "unit" else 1.0
    _in_range((*where, "bandwidth"), memory.bandwidth, NEAR_RANGES["bandwidth"], "B/s", "a nearer memory", 1 / each)


def _total(memory: Memory, fact: Fact, units: float) -> float:
    return fact.value * (units if memory.per == "unit" else 1.0)


def _sweep(where: Where, memory: Memory, ranges: tuple[Range, ...]) -> None:
    if memory.bandwidth is None:
        return
    seconds = memory.capacity.value / memory.bandwidth.value
    if not any(parse_quantity(low, "s") <= seconds <= parse_quantity(high, "s") for low, high in ranges):
        message = f"implausible: reading {memory.capacity.text} once would take {seconds:.2g} s; check both prefixes"
        allowed = " or ".join(f"{low} to {high}" for low, high in ranges)
        raise FieldError(message, where, found=memory.bandwidth.text, allowed=allowed)


def _kernel_checks(device: Device) -> None:
    for operator, formats in device.kernels.items():
        for name, constants in formats.items():
            _format(("kernels", operator, name), name, also=("any", "fp8_block"))
            for constant in constants.model_fields_set:
                where, fact = ("kernels", operator, name, constant), getattr(constants, constant)
                if constant not in KERNEL_CONSTANTS[operator]:
                    message = f"{operator} kernels have no `{constant}`"
                    raise FieldError(message, where, allowed=", ".join(KERNEL_CONSTANTS[operator]))
                if constant in DEVICE_RANGES and fact is not None and fact.value:
                    _in_range(where, fact, *_limits(DEVICE_RANGES, constant), f"a {operator} kernel")


def _cluster_checks(cluster: Cluster, accelerator: Device, engines: Mapping[str, Device]) -> None:
    for path, (dimension, limits) in CLUSTER_RANGES.items():
        where = tuple(path.split("."))
        fact = _fact_at(cluster, where)
        if fact is not None and fact.value:
            _in_range(where, fact, limits, dimension, "a cluster")
    _whole(("nodes",), cluster.nodes)
    _engine_checks(cluster.node, accelerator, engines)
    reach = 1.0
    for i, (name, level) in enumerate(cluster.levels.items()):
        reach *= level.members.value
        _level_checks(("levels", name), level, first=i == 0)
        _interfaces(("levels", name), level, cluster.node.accelerator.count)
        _graph_checks(("levels", name, "graph"), level, reach)


def _fact_at(cluster: Cluster, where: Where) -> Fact | None:
    value: object = cluster
    for step in where:
        value = getattr(value, str(step), None)
    return value if isinstance(value, Fact) else None


MOST_LINKED = 8
"""Devices of a graph of links from which a bandwidth is derived."""


def _level_checks(where: Where, level: Level, *, first: bool) -> None:
    ranges, what = LEVEL_RANGES[level.kind], f"a level of kind {level.kind}"
    _whole((*where, "members"), level.members)
    _in_range((*where, "members"), level.members, ("1", "1000000"), "1", what)
    _in_range((*where, "bandwidth"), level.bandwidth, ranges["bandwidth"], "B/s", what)
    _in_range((*where, "latency"), level.latency, ranges["latency"], "s", what)
    if level.taper and first:
        raise FieldError("a taper needs a level below; give the bandwidth", (*where, "taper"), found=level.taper.text)
    if level.nics:
        _whole((*where, "nics", "count"), level.nics.count)
        _in_range((*where, "nics", "count"), level.nics.count, ("1", "1000"), "1", what)
        _in_range((*where, "nics", "bandwidth"), level.nics.bandwidth, ranges["bandwidth"], "B/s", what)
        if level.nics.message is not None:
            _in_range((*where, "nics", "message"), level.nics.message, ("1 ns", "10 ms"), "s", what)


def _interfaces(where: Where, level: Level, devices: int) -> None:
    if level.nics is None:
        return
    steps = (*where, "nics", "attached_to")
    for i, index in enumerate(level.nics.attached_to):
        if not 0 <= index < devices:
            raise FieldError("no such device in the node", (*steps, i), found=index, allowed=f"0 to {devices - 1}")
    if len(level.nics.attached_to) > level.nics.count.value:
        message = f"more entries than the {level.nics.count.text} interfaces"
        raise FieldError(message, steps, found=len(level.nics.attached_to))


def _graph_checks(where: Where, level: Level, reach: float) -> None:
    if level.graph and not (level.bandwidth or level.nics or level.taper):
        joined = {end for edge in level.graph for end in edge.between}
        if not 2 <= len(joined) == reach <= MOST_LINKED:
            message = f"a bandwidth follows from links that join all of {reach:.0f} devices, {MOST_LINKED} at most"
            raise FieldError(message, where, found=f"{len(joined)} devices", allowed="or give the bandwidth")
    seen: set[frozenset[int]] = set()
    for i, edge in enumerate(level.graph):
        steps, ends = (*where, i, "between"), list(edge.between)
        if edge.between[0] == edge.between[1]:
            raise FieldError("a link joins two different devices", steps, found=ends)
        if not all(0 <= end < reach for end in ends):
            raise FieldError("no such device at this level", steps, found=ends, allowed=f"0 to {reach - 1:.0f}")
        if frozenset(ends) in seen:
            raise FieldError("the link stands twice; give it once with the sum", steps, found=ends)
        seen.add(frozenset(ends))
        ranges = LEVEL_RANGES[level.kind]["bandwidth"]
        _in_range((*where, i, "bandwidth"), edge.bandwidth, ranges, "B/s", f"a link of kind {level.kind}")


FAR = 1e-3
"""One-way latency from which an engine beside an accelerator is reached over a network [s]."""


def _engine_checks(node: Node, accelerator: Device, engines: Mapping[str, Device]) -> None:
    for name, placed in node.engines.items():
        where = ("node", "engines", name)
        far = placed.latency is not None and placed.latency.value >= FAR
        what = "a network to an engine" if far else "a link to an engine"
        _in_range((*where, "link"), placed.link, ("0.1 MB/s" if far else "0.5 GB/s", "10 TB/s"), "B/s", what)
        shared = [m.shares for m in engines[name].memory.values() if m.shares]
        if not shared and placed.link is None:
            message = f"`link` is missing: {engines[name].name} has a memory of its own and must be reached"
            raise FieldError(message, (*where, "link"))
        for memory in shared:
            if memory not in accelerator.memory:
                message = f"{engines[name].name} shares a memory that {accelerator.name} does not have"
                raise FieldError(message, (*where, "device"), found=memory, allowed=", ".join(accelerator.memory))
