"""Values a thousand times off their class are refused, and facts that contradict each other.

The ranges are data: for every class, wider than all real devices and narrower than a thousand times, so that a
forgotten or doubled prefix is caught. They are no statement about what can be built: a what-if may leave them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise

from perfmodel.errors import nearest
from perfmodel.specs.facts import Fact, FieldError
from perfmodel.specs.hardware import Cluster, Device, Level, Memory, Node
from perfmodel.specs.kernels import KERNEL_CONSTANTS
from perfmodel.specs.yamlfile import Document, Where
from perfmodel.units import parse_quantity

__all__ = ["CLASS_RANGES", "FORMAT_BITS", "LEVEL_RANGES", "check_cluster", "check_device"]

Range = tuple[str, str]

PATTERN = re.compile(r"[1-9]\d*:[1-9]\d*")  # N of M neighbouring weights that sparse matrix units multiply
FORMAT_BITS = {
    "fp64": 64, "fp32": 32, "tf32": 32, "bf16": 16, "fp16": 16, "fp8": 8, "int8": 8, "mxfp8": 8,
    "int32": 32, "int16": 16, "fp6": 6, "mxfp6": 6, "fp4": 4, "mxfp4": 4, "nvfp4": 4, "int4": 4, "int2": 2, "int1": 1,
}  # fmt: skip
"""Number formats and their bits; rates are compared as if they were of 16 bits."""

CLASS_RANGES: dict[str, dict[str, Range]] = {
    "gpu": {  # Jetson to GB300 and what follows; a module of 10 TFLOP/s times 1000 just passes
        "bandwidth": ("20 GB/s", "25 TB/s"), "capacity": ("2 GB", "2 TB"), "matrix": ("8 TFLOP/s", "10 PFLOP/s"),
        "matrix64": ("0.25 TFLOP/s", "400 TFLOP/s"), "vector": ("0.2 TFLOP/s", "400 TFLOP/s"),
        "clock": ("0.3 GHz", "5 GHz"), "power": ("5 W", "4 kW"), "units": ("1", "2000"),
    },
    "cpu": {  # a single-board computer to a two-socket server with HBM; a matrix rate may be that of the vector units
        "bandwidth": ("4 GB/s", "4 TB/s"), "capacity": ("1.2 GB", "24 TB"), "matrix": ("0.12 TFLOP/s", "500 TFLOP/s"),
        "matrix64": ("0.03 TFLOP/s", "100 TFLOP/s"), "vector": ("0.03 TFLOP/s", "100 TFLOP/s"),
        "clock": ("0.5 GHz", "8 GHz"), "power": ("2 W", "1.5 kW"), "units": ("1", "2000"),
    },
    "npu": {  # TPU, Gaudi, Ascend, Trainium; edge modules of a few TOP/s are the low end
        "bandwidth": ("10 GB/s", "15 TB/s"), "capacity": ("1 GB", "1.5 TB"), "matrix": ("1.9 TFLOP/s", "5 PFLOP/s"),
        "matrix64": ("0.05 TFLOP/s", "100 TFLOP/s"), "vector": ("0.05 TFLOP/s", "200 TFLOP/s"),
        "clock": ("0.2 GHz", "5 GHz"), "power": ("2 W", "2.5 kW"), "units": ("1", "2000"),
    },
    "pim": {  # a rank of UPMEM (45 GB/s) to the stacks of a node (tens of TB/s): small modules times 1000 pass
        "bandwidth": ("20 GB/s", "60 TB/s"), "capacity": ("60 MB", "700 GB"), "matrix": ("3 GFLOP/s", "390 TFLOP/s"),
        "matrix64": ("0.3 GFLOP/s", "20 TFLOP/s"), "vector": ("1.3 GFLOP/s", "500 TFLOP/s"),
        "clock": ("50 MHz", "3 GHz"), "power": ("0.2 W", "1 kW"), "units": ("1", "20000"),
    },
    "fpga": {  # units may be DSPs (9,024) or arrays made of them (tens): a count of DSPs over 1000 passes
        "bandwidth": ("5 GB/s", "5 TB/s"), "capacity": ("0.5 GB", "500 GB"), "matrix": ("0.1 TFLOP/s", "300 TFLOP/s"),
        "matrix64": ("0.01 TFLOP/s", "10 TFLOP/s"), "vector": ("0.02 TFLOP/s", "100 TFLOP/s"),
        "clock": ("50 MHz", "2 GHz"), "power": ("2 W", "900 W"), "units": ("1", "20000"),
    },
    "storage": {  # computational storage: the last memory is flash, read at its internal bandwidth
        "bandwidth": ("0.2 GB/s", "500 GB/s"), "capacity": ("100 GB", "200 TB"), "matrix": ("3 GFLOP/s", "60 TFLOP/s"),
        "matrix64": ("0.3 GFLOP/s", "10 TFLOP/s"), "vector": ("1 GFLOP/s", "60 TFLOP/s"),
        "clock": ("50 MHz", "5 GHz"), "power": ("1 W", "800 W"), "units": ("1", "2000"),
    },
    "dataflow": {  # DDR behind a reconfigurable array to a wafer of 900,000 cores: units are not checked in effect,
        # and memories are told apart by their sweep; DDR at 100 GB/s times 1000 still looks like DRAM
        "bandwidth": ("50 GB/s", "50 PB/s"), "capacity": ("100 MB", "4 TB"), "matrix": ("30 TFLOP/s", "60 PFLOP/s"),
        "matrix64": ("0.3 TFLOP/s", "1 PFLOP/s"), "vector": ("0.3 TFLOP/s", "30 PFLOP/s"),
        "clock": ("0.2 GHz", "5 GHz"), "power": ("24 W", "40 kW"), "units": ("1", "2000000"),
    },
}  # fmt: skip
"""What a device of a class may say. ``matrix64`` is for fp64, ``matrix`` for 16 bits (fp8 twice as much, and so on)."""

SWEEP: dict[str, tuple[Range, ...]] = {
    "gpu": (("5 ms", "300 s"),),
    "cpu": (("5 ms", "300 s"),),
    "npu": (("5 ms", "300 s"),),
    "fpga": (("5 ms", "300 s"),),
    "pim": (("0.4 ms", "300 s"),),
    "dataflow": (("0.2 us", "25 us"), ("5 ms", "300 s")),  # SRAM or DRAM; nothing lies between
    "storage": (("10 s", "100000 s"),),
}
"""Time to read a whole last memory once: catches a wrong prefix where the class alone is too wide to."""

NEAR_RANGES: dict[str, Range] = {
    "unit": ("4 KB", "24 MB"),
    "device": ("0.3 MB", "4 TB"),
    "gpu": ("0.3 MB", "4 GB"),  # elsewhere a nearer memory may itself be DRAM: HBM before DDR
    "bandwidth": ("20 GB/s", "2 PB/s"),
}
"""Memories before the last one: capacity of a unit's and of a device's, bandwidth of all units together."""

DEVICE_RANGES: dict[str, tuple[str, Range]] = {
    "host_link": ("B/s", ("1 GB/s", "1.5 TB/s")),
    "hour": ("USD/s", ("0.01 USD/h", "300 USD/h")),
    "purchase": (
        "USD",
        ("40 USD", "9000000 USD"),
    ),  # from a board to a wafer-scale system: small boards times 1000 pass
    "launch": ("s", ("0.03 us", "0.5 ms")),
    "k_step": ("s", ("0.2 ns", "25 us")),
    "prologue": ("s", ("8 ns", "200 us")),
    "kv_step": ("s", ("3 ns", "250 us")),
    "split_launch": ("s", ("8 ns", "1 ms")),
    "quantise_launch": ("s", ("8 ns", "0.5 ms")),
    "corner": ("1", ("1", "12")),
    "ramp": ("s", ("0.1 ns", "1 ms")),
    "row_floor": ("1", ("1", "512")),
    "window_margin": ("1", ("0", "16")),
    "row_cost": ("s", ("0.01 ps", "1 us")),
    "token_cost": ("s", ("0.1 ns", "1 ms")),
    "expert_cost": ("s", ("1 ps", "50 us")),
    "permute_fraction": ("1", ("0.002", "20")),
    "idle_share": ("1", ("0.0005", "5")),
}

BANK_RANGES: dict[str, tuple[str, Range]] = {  # DDR4 to HBM3 and GDDR6: half a nanosecond to tens of nanoseconds
    "channels": ("1", ("1", "10000")), "banks": ("1", ("1", "1024")),
    "row": ("B", ("256 B", "64 KiB")), "burst": ("B", ("4 B", "1 KiB")),
    "precharge": ("s", ("2 ns", "100 ns")), "activate": ("s", ("2 ns", "100 ns")),
    "four_activates": ("s", ("2 ns", "200 ns")), "column": ("s", ("0.3 ns", "60 ns")),
}  # fmt: skip
"""Command timing of memory whose banks compute."""

LEVEL_RANGES: dict[str, dict[str, Range]] = {
    "package": {"bandwidth": ("20 GB/s", "10 TB/s"), "latency": ("20 ns", "300 us")},
    "scaleup": {"bandwidth": ("4 GB/s", "5 TB/s"), "latency": ("20 ns", "300 us")},
    # 1 Gb/s Ethernet to 800 Gb/s, or all interfaces of a server as one: the latter over 1000 would pass as Ethernet
    "nic": {"bandwidth": ("0.1 GB/s", "900 GB/s"), "latency": ("50 ns", "800 us")},
    "fabric": {"bandwidth": ("0.05 GB/s", "900 GB/s"), "latency": ("50 ns", "1 ms")},
    # from a rented line to dedicated wavelengths: bandwidth between regions has no typical value
    "wan": {"bandwidth": ("1 MB/s", "90 GB/s"), "latency": ("50 us", "1 s")},
}
"""Bandwidth per device or interface and direction, and latency of a message, by kind of level."""

CLUSTER_RANGES: dict[str, tuple[str, Range]] = {
    "node.host.memory": ("B", ("6 GB", "100 TB")),
    "node.host.bandwidth": ("B/s", ("4 GB/s", "10 TB/s")),
    "node.host.link": ("B/s", ("1 GB/s", "1.5 TB/s")),
    "node.storage.capacity": ("B", ("50 GB", "1 PB")),
    "node.storage.read": ("B/s", ("0.06 GB/s", "500 GB/s")),
    "node.storage.write": ("B/s", ("0.05 GB/s", "500 GB/s")),
    "node.power_overhead": ("W", ("10 W", "50 kW")),
    "nodes": ("1", ("1", "1000000")),
    "price.device_hour": ("USD/s", ("0.01 USD/h", "300 USD/h")),
    "ownership.lifetime": ("s", ("30 d", "40 years")),
    "ownership.electricity": ("USD/J", ("0.001 USD/kWh", "3 USD/kWh")),
    "carbon": ("1", ("0.001", "2")),
    "pue": ("1", ("1", "3")),
    "reliability.device_mtbf": ("s", ("100 h", "100000000 h")),
    "reliability.node_mtbf": ("s", ("10 h", "100000000 h")),
    "reliability.link_mtbf": ("s", ("100 h", "10000000000 h")),
    "reliability.detection": ("s", ("1 s", "30 d")),
    "reliability.restart": ("s", ("1 s", "30 d")),
    "file_system.write": ("B/s", ("0.01 GB/s", "1000 TB/s")),
    "file_system.read": ("B/s", ("0.01 GB/s", "1000 TB/s")),
}
"""What a cluster may say, by path; a zero of something that may be absent passes."""


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


def _whole(where: Where, fact: Fact) -> None:
    if fact.value != int(fact.value):
        raise FieldError("a whole number is needed", where, found=fact.text)


def _device_checks(device: Device) -> None:
    ranges, what = CLASS_RANGES[device.device_class], f"class {device.device_class}"
    _whole(("units",), device.units)
    _in_range(("units",), device.units, ranges["units"], "1", what)
    _in_range(("clock",), device.clock, ranges["clock"], "Hz", what)
    _peak_checks(device, ranges, what)
    _memory_checks(device, ranges, what)
    _kernel_checks(device)
    _bank_checks(device)
    _in_range(("host_link",), device.host_link, *_limits(DEVICE_RANGES, "host_link"), "a host link")
    if device.power:
        _in_range(("power", "limit"), device.power.limit, ranges["power"], "W", what)
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


def _peak_checks(device: Device, ranges: Mapping[str, Range], what: str) -> None:
    for unit, rates in (("matrix", device.peak.matrix), ("vector", device.peak.vector)):
        for name, rate in rates.items():
            where = ("peak", unit, name)
            _format(where, name)
            if unit == "vector":
                _in_range(where, rate, ranges["vector"], "FLOP/s", f"vector units of {what}")
            elif name == "fp64":
                _in_range(where, rate, ranges["matrix64"], "FLOP/s", f"matrix units of {what}")
            else:
                scale = 16 / FORMAT_BITS[name]
                _in_range(where, rate, ranges["matrix"], "FLOP/s", f"matrix units of {what}", scale)
    for name in device.peak.matrix.keys() & device.peak.vector.keys():
        matrix, vector = device.peak.matrix[name], device.peak.vector[name]
        if matrix.value * 1000 < vector.value:
            message = f"a thousand times below the vector rate of {vector.text}"
            raise FieldError(message, ("peak", "matrix", name), found=matrix.text)
    for i, name in enumerate(device.formats):
        if not PATTERN.fullmatch(name):
            _format(("formats", i), name, also=("N:M for products that skip all but N of M weights",))


def _memory_checks(device: Device, ranges: Mapping[str, Range], what: str) -> None:
    units = device.units.value
    (*_, last), memory = device.memory, list(device.memory.values())[-1]
    each = units if memory.per == "unit" else 1.0
    _in_range(("memory", last, "capacity"), memory.capacity, ranges["capacity"], "B", what, 1 / each)
    _in_range(("memory", last, "bandwidth"), memory.bandwidth, ranges["bandwidth"], "B/s", what, 1 / each)
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
