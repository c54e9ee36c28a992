"""What fitted constants belong to: a device, for kernels; a machine with its network, for collectives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from perfmodel.errors import PerfmodelError, UnknownName
from perfmodel.machine.build import build_machine
from perfmodel.machine.engine import Constants, Engine
from perfmodel.machine.measured import cut_down, feed_of
from perfmodel.network.topology import Network
from perfmodel.specs.calibration import CalibrationGroup
from perfmodel.specs.locate import Entry, cluster_names, find_device, find_hardware
from perfmodel.specs.system import System, load_device, load_system

__all__ = ["DEVICES", "MACHINES", "Own", "Place", "Subject", "Unpredictable", "engine_of", "own_file", "place_of"]


class Unpredictable(PerfmodelError):
    """A row that no prediction can be made for; the message is the reason, in a few words."""


class Subject(NamedTuple):
    """How calibration treats what constants belong to.

    Parameters
    ----------
    find : label of a measurement -> name of the specification; raises :class:`Unpredictable`.
    build : name -> what predictions are computed on.
    family : name -> those that share a first fit.
    kind : name -> those whose constants are better than nothing.
    constants : values by name -> what predictions take; values may be arrays of trial points.
    feed : name -> those that run the same kernels, whatever their family.
    cut : (name, name of one of its family) -> whether the matrix units of one are cut to a part of the other's.
    stated : (name, operator, format, names) -> constants that the specification states, for those names it has any.
    """

    find: Callable[[str], str]
    build: Callable[[str], Any]
    family: Callable[[str], str]
    kind: Callable[[str], str]
    constants: Callable[[Mapping[str, Any]], Any]
    feed: Callable[[str], str]
    cut: Callable[[str, str], bool]
    stated: Callable[[str, str, str, tuple[str, ...]], Mapping[str, float]]


class Own(NamedTuple):
    """A file of the user that measurements are of: a device, or a cluster whose collectives were timed."""

    path: Path
    labels: tuple[str, ...]
    family: str
    cluster: bool
    calibration: tuple[CalibrationGroup, ...]


def own_file(name: str | Path) -> Own:
    """What calibration needs to know of a device or cluster file, by its name or path."""
    path = find_hardware(name)
    system = load_system(path)
    cluster, device = system.cluster, system.accelerator
    if cluster.levels:
        labels = (cluster.name, *cluster.aliases, *cluster.measured_as)
        return Own(path, labels, MACHINES.family(str(path)), True, cluster.calibration)
    return Own(path, (device.name, *device.aliases), device.family or "", False, device.calibration)


@lru_cache(maxsize=256)
def _device(label: str) -> str:
    try:
        return find_device(label).stem
    except UnknownName as error:
        raise Unpredictable(f"no specification of the device {label or '(unnamed)'}; --hw takes its file") from error


@lru_cache(maxsize=256)
def engine_of(device: str) -> Engine:
    """Engine of a device by its name; the calibration cost code sees it like any planner does."""
    return build_machine(load_system(device)).main


def _engine_constants(device: str, operator: str, format: str, names: tuple[str, ...]) -> Mapping[str, float]:
    known = engine_of(device).constant(operator, format)
    return {name: getattr(known, name) for name in names}


DEVICES = Subject(
    _device,
    engine_of,
    lru_cache(maxsize=256)(lambda name: load_device(name).family),
    lru_cache(maxsize=256)(lambda name: load_device(name).device_class),
    lambda values: Constants(**dict(values)),
    lru_cache(maxsize=256)(lambda name: feed_of(load_device(name))),
    lru_cache(maxsize=1024)(lambda name, other: cut_down(load_device(name), load_device(other))),
    _engine_constants,
)


class Place(NamedTuple):
    """A machine as timings of collectives see it: its network per library, and the devices of a node."""

    system: System
    per_node: float

    def network(self, library: str) -> Network:
        """Network with that library; with ideal algorithms if nothing is known of it."""
        from perfmodel.network.build import build_network

        known = library if library in self.system.cluster.collectives else None
        return build_network(self.system.cluster, known)


@lru_cache(maxsize=64)
def place_of(name: str) -> Place:
    """Machine of that name."""
    system = load_system(name)
    return Place(system, float(system.cluster.node.accelerator.count))


def _folded(label: str) -> str:
    return " ".join(label.casefold().replace("_", " ").replace("-", " ").split())


@lru_cache(maxsize=1)
def _machines() -> tuple[tuple[Entry, System], ...]:
    """Shipped clusters: those that were timed first, then those with the fewest levels."""
    found = [(entry, load_system(entry.path)) for entry in cluster_names()]

    def order(pair: tuple[Entry, System]) -> tuple[bool, int, str]:
        cluster = pair[1].cluster
        return not cluster.measured_as, len(cluster.levels), pair[0].name

    return tuple(sorted(found, key=order))


@lru_cache(maxsize=256)
def _machine(label: str) -> str:
    """Cluster that a label means: one measured under that name, else the first with devices of that name."""
    wanted = _folded(label)
    for entry, system in _machines():
        if wanted in map(_folded, (entry.name, *entry.aliases, *system.cluster.measured_as)):
            return entry.name
    try:
        device = load_device(find_device(label)).name
    except UnknownName as error:
        raise Unpredictable(f"no specification of the machine {label or '(unnamed)'}") from error
    for entry, system in _machines():
        if system.accelerator.name == device and system.cluster.levels:
            return entry.name
    raise Unpredictable(f"no specification of a machine of {device}")


@lru_cache(maxsize=256)
def _link(name: str) -> str:
    """Class of the links inside a node: their own, or the host's."""
    system = place_of(name).system
    level = next(iter(system.cluster.levels.values()))
    own = level.bandwidth is not None and level.bandwidth.value > 1.2 * _host_link(system)
    return "device links" if own else "host links"


def _host_link(system: System) -> float:
    node, device = system.cluster.node, system.accelerator
    if device.host_link is not None:
        return device.host_link.value
    return node.host.link.value if node.host else 0.0


def _library_constants(name: str, operator: str, format: str, names: tuple[str, ...]) -> Mapping[str, float]:
    del name, operator, format, names
    return {}


MACHINES = Subject(
    _machine,
    place_of,
    lru_cache(maxsize=256)(lambda name: f"{place_of(name).system.accelerator.family}, {_link(name)}"),
    _link,
    dict,
    lambda name: "",
    lambda name, other: False,
    _library_constants,
)
