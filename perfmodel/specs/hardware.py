"""What a user may say about a machine: devices, and clusters of them. Facts only, no formulas.

A *device* file describes one engine; a *cluster* file places devices in nodes and joins nodes by topology levels. A
single device file can be used wherever a cluster is wanted: it is a cluster of one.
"""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field, field_validator, model_validator

from perfmodel.specs.calibration import CalibrationGroup
from perfmodel.specs.collectives import LibraryFacts
from perfmodel.specs.facts import (
    Bandwidth,
    Capacity,
    Count,
    Duration,
    Frequency,
    Number,
    Power,
    Rate,
    Ratio,
    Spec,
)
from perfmodel.specs.kernels import KernelConstants, Operator
from perfmodel.specs.operation import ClusterPrice, DevicePower, DevicePrice, FileSystem, Ownership, Reliability
from perfmodel.specs.sources import check_sources
from perfmodel.specs.switching import Switching

__all__ = [
    "DEVICE_CLASSES",
    "BankTiming",
    "Cluster",
    "Device",
    "EnginePlacement",
    "Host",
    "Level",
    "LinkEdge",
    "Memory",
    "Nics",
    "Node",
    "Software",
    "Storage",
]

DeviceClass = Literal["gpu", "cpu", "npu", "pim", "fpga", "storage", "dataflow"]
DEVICE_CLASSES: tuple[str, ...] = ("gpu", "cpu", "npu", "pim", "fpga", "storage", "dataflow")


ROOMY = 4e9
"""Capacity from which a memory is no cache but a place of its own: the largest last-level caches have 1.2 GB [B]."""


class Memory(Spec):
    """One memory level of a device."""

    capacity: Capacity
    bandwidth: Bandwidth | None = None
    """Read bandwidth of all units together; may be left out on chip."""
    per: Literal["device", "unit"] = "device"
    """Whether capacity and bandwidth are those of the device or of one compute unit."""
    shares: str | None = None
    """This memory IS the named one of the accelerator beside it (processing in memory): no additional capacity."""


class Peak(Spec):
    """Dense peak rates by number format, for the matrix and the vector units."""

    matrix: dict[str, Rate] = Field(default_factory=dict)
    vector: dict[str, Rate] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _some(self) -> Peak:
        if not self.matrix and not self.vector:
            raise ValueError("at least one rate is needed, e.g. matrix: {bf16: …}")
        return self


class BankTiming(Spec):
    """Memory whose banks compute: its channels, rows and command timing, as data sheets of DRAM give them."""

    channels: Count
    banks: Count
    """Banks of a channel that compute at the same time, those of all its ranks."""
    row: Capacity
    """Row of one bank, over all devices of the channel."""
    burst: Capacity
    """What one column command computes in each bank."""
    precharge: Duration
    """tRP."""
    activate: Duration
    """tRCD."""
    four_activates: Duration
    """tFAW: no more than four banks are opened within it."""
    column: Duration
    """From one column command to the next: the burst and tCCD_L."""
    transfer: Capacity | None = None
    """A burst at the pins of the channel; left out: as much as a bank computes with one column."""
    pins: Bandwidth | None = None
    """Bandwidth of the channel at its pins; left out: a burst in the time of a column."""
    command: Duration | None = None
    """From the precharge of one bank to that of the next: tPPD, else a clock; left out: all at once."""
    row_buffers: Literal[1, 2] = 1
    """With two, a row is opened while another is computed."""


class Device(Spec):
    """One engine: peaks, memories nearest first, constants, power, price."""

    name: str
    aliases: tuple[str, ...] = ()
    device_class: DeviceClass = Field(alias="class")
    sources: dict[str, str]
    notes: str = ""
    year: int | None = None
    family: str = ""
    """Devices of one family share kernels: constants of one stand in for another that was not measured."""
    units: Count
    """Independent compute units: SMs, CUs, cores, banks, arrays; for an FPGA or a wafer also DSPs or cores, which then
    work together."""
    clock: Frequency | None = None
    peak: Peak
    memory: dict[str, Memory]
    """Nearest first. The nearest of 4 GB or more holds weights and KV cache, else the last one, as the flash of a drive
    always does. A memory behind it (DDR behind HBM) is a tier of its own, from which plans stream what has no room."""
    formats: tuple[str, ...] = ()
    """Weight formats it multiplies without unpacking them first, beyond those of ``peak`` (e.g. int4, weight only), and
    the patterns N:M of sparse weights whose zeros its matrix units skip."""
    runs: tuple[Operator, ...] = get_args(Operator)
    """Operator classes it can execute."""
    concurrency: Literal["concurrent", "blocked"] = "concurrent"
    """Whether it computes while the accelerator beside it uses their memory: dual row buffers, banks apart. Blocked
    engines and the accelerator take turns."""
    banks: BankTiming | None = None
    """Command timing of a memory whose banks compute; attention on it then takes what the commands take."""
    host_link: Bandwidth | None = None
    """Link to the host memory, one direction."""
    kernels: dict[Operator, dict[str, KernelConstants]] = Field(default_factory=dict)
    """Calibrated constants by operator class, then by number format (or ``any``)."""
    calibration: tuple[CalibrationGroup, ...] = ()
    """Constants fitted to measurements of single frameworks or kernels, as ``perfmodel calibrate`` writes them."""
    power: DevicePower | None = None
    price: DevicePrice | None = None

    @property
    def holding(self) -> str:
        """The memory that holds weights and KV cache where the device is the accelerator."""
        names = list(self.memory)
        if self.device_class == "storage":
            return names[-1]
        return next((n for n in names if self.memory[n].capacity.value * self._per(n) >= ROOMY), names[-1])

    @property
    def behind(self) -> str | None:
        """The memory behind the one that holds weights and KV cache."""
        names = list(self.memory)
        return next(iter(names[names.index(self.holding) + 1 :]), None)

    def _per(self, name: str) -> float:
        return self.units.value if self.memory[name].per == "unit" else 1.0

    @field_validator("memory")
    @classmethod
    def _nonempty(cls, memory: dict[str, Memory]) -> dict[str, Memory]:
        if not memory:
            raise ValueError("at least one memory is needed")
        last = list(memory)[-1]
        if memory[last].bandwidth is None:
            raise ValueError(f"{last} is the last memory and needs a bandwidth")
        return memory

    @model_validator(mode="after")
    def _one_behind(self) -> Device:
        names = list(self.memory)
        place = names.index(self.holding)
        if self.memory[self.holding].bandwidth is None:
            raise ValueError(f"{self.holding} holds weights and cache and needs a bandwidth")
        if len(names) > place + 2:
            raise ValueError(
                f"memory: {', '.join(names[place + 1 :])} lie behind {self.holding}, which holds weights and cache; "
                "one memory may: describe the others as the host memory or storage of a cluster file"
            )
        return self

    @model_validator(mode="after")
    def _sources_exist(self) -> Device:
        check_sources(self, self.sources)
        return self


class Nics(Spec):
    """Network interfaces of a node."""

    count: Count
    bandwidth: Bandwidth
    """Per interface and direction."""
    attached_to: tuple[int, ...] = ()
    """Device index each interface hangs on; the others reach it through a neighbour."""
    message: Duration | None = None
    """Time for which one message of an exchange among all keeps an interface busy beside its bytes; messages of
    devices that share an interface follow each other."""


class LinkEdge(Spec):
    """One bidirectional link of a node's device graph."""

    between: tuple[int, int]
    bandwidth: Bandwidth
    """Per direction."""


class Level(Spec):
    """One topology level: joins ``members`` domains of the level below."""

    members: Count
    kind: Literal["package", "scaleup", "nic", "fabric", "wan"]
    """Class of link; also sets which bandwidths are plausible."""
    bandwidth: Bandwidth | None = None
    """Per device and direction, usable by all devices at the same time. Left out if ``nics`` or ``taper`` give it."""
    nics: Nics | None = None
    """Interfaces that each domain of the level below drives; per device it is their sum divided by its devices."""
    taper: Ratio | None = None
    """Bandwidth per device as a share of that of the level below (when all devices talk at once)."""
    latency: Duration
    """One message between two neighbours of this level."""
    efficiency: Ratio
    """Share of the bandwidth that large collectives reach."""
    graph: tuple[LinkEdge, ...] = ()
    """The device links, where they are unequal. Without ``bandwidth`` it follows from them: that of the best set of
    rings through all devices. With it they say what it was derived from."""
    switching: Switching | None = None
    """The switches; left out: any device reaches any, and what collisions cost is in ``efficiency``."""
    in_network_reduction: Ratio | None = None
    """Share of the bandwidth that all-reduces reach where the switches add; left out: they do not."""

    @model_validator(mode="after")
    def _one_bandwidth(self) -> Level:
        given = [n for n in ("bandwidth", "nics", "taper") if getattr(self, n) is not None]
        if len(given) != 1 and (given or not self.graph):
            raise ValueError(f"exactly one of bandwidth, nics, taper is needed, found {', '.join(given) or 'none'}")
        return self


class Host(Spec):
    """The host processor(s) of a node."""

    device: str
    """Name or path of a device file."""
    count: int = Field(default=1, ge=1)
    memory: Capacity
    """Host memory of the node."""
    bandwidth: Bandwidth
    """Host memory bandwidth of the node, all sockets."""
    link: Bandwidth
    """Host to device link per accelerator, one direction, all links busy."""


class Storage(Spec):
    """Node-local storage."""

    capacity: Capacity
    read: Bandwidth
    write: Bandwidth


class EnginePlacement(Spec):
    """An engine beside each accelerator (a PIM in its memory, an FPGA on a link)."""

    device: str
    per_accelerator: Count
    link: Bandwidth | None = None
    """Link between an accelerator and all its engines of that name, one direction; left out when the engine sits in
    the accelerator's memory."""
    latency: Duration | None = None
    """Time of an empty message over that link, one way."""


class Accelerator(Spec):
    """The devices that plans count."""

    device: str
    """Name or path of a device file."""
    count: int = Field(ge=1)
    """Per node."""


class Node(Spec):
    """One server."""

    accelerator: Accelerator
    host: Host | None = None
    storage: Storage | None = None
    engines: dict[str, EnginePlacement] = Field(default_factory=dict)
    power_overhead: Power | None = None
    """Node power beside the accelerators under load: host, memory, NICs, fans [W]."""


class Software(Spec):
    """Frameworks whose behaviour is assumed on a machine unless the user names another."""

    training: str | None = None
    serving: str | None = None


class Cluster(Spec):
    """Nodes joined by topology levels."""

    name: str
    aliases: tuple[str, ...] = ()
    sources: dict[str, str]
    notes: str = ""
    nodes: Count
    node: Node
    levels: dict[str, Level] = Field(default_factory=dict)
    """Nearest first. The product of ``members`` must cover all devices; the last level may be partly filled."""
    collectives: dict[str, LibraryFacts] = Field(default_factory=dict)
    """Communication libraries that run on this machine; plans use the first. ``like: NAME`` takes those of another
    cluster. Without any, the usual one of the devices; without protocols (``ideal: {}``), ideal algorithms."""
    calibration: tuple[CalibrationGroup, ...] = ()
    """Fits to timings of collectives on this machine, as ``perfmodel calibrate`` writes them."""
    measured_as: tuple[str, ...] = ()
    """What published timings call this machine."""
    software: Software | None = None
    """What usually runs on this machine."""
    price: ClusterPrice | None = None
    ownership: Ownership | None = None
    reliability: Reliability | None = None
    file_system: FileSystem | None = None
    carbon: Number | None = None
    """Carbon intensity of the electricity [kg CO2 per kWh]."""
    pue: Number | None = None
    """Facility power over machine power."""

    @model_validator(mode="after")
    def _sources_exist(self) -> Cluster:
        check_sources(self, self.sources)
        return self

    @model_validator(mode="after")
    def _libraries_know_the_levels(self) -> Cluster:
        for name, library in self.collectives.items():
            for level in library.levels:
                if level not in self.levels:
                    known = ", ".join(self.levels) or "none"
                    raise ValueError(f"collectives.{name}.levels.{level}: no such level; the levels are {known}")
        return self

    @model_validator(mode="after")
    def _levels_cover(self) -> Cluster:
        reach = 1.0
        for level in self.levels.values():
            reach *= level.members.value
        total = self.nodes.value * self.node.accelerator.count
        if reach < total:
            raise ValueError(
                f"levels reach {reach:,.0f} devices but nodes x accelerators are {total:,.0f}; "
                "enlarge `members` of the last level"
            )
        return self
