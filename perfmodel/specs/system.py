"""A machine with everything it refers to: cluster, devices, and the constants of device classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from perfmodel.errors import UnknownName
from perfmodel.specs.collectives import LibraryFacts, LibraryFile, completed
from perfmodel.specs.facts import Spec, fact
from perfmodel.specs.hardware import Accelerator, Cluster, Device, DeviceClass, Node
from perfmodel.specs.kernels import KernelConstants, Operator
from perfmodel.specs.like import likened
from perfmodel.specs.load import parse
from perfmodel.specs.locate import class_file, find_device, find_hardware, library_file
from perfmodel.specs.operation import (
    ClusterPrice,
    completed_power,
    filled,
    operation_defaults,
    sources_used,
)
from perfmodel.specs.plausible import check_cluster, check_device
from perfmodel.specs.sources import check_sources
from perfmodel.specs.yamlfile import Document, read

__all__ = ["ClassFile", "System", "known_libraries", "load_device", "load_system"]

Constants = Mapping[str, Mapping[Any, Mapping[str, KernelConstants]]]
"""Kernel constants by device class, operator class and number format."""


class ClassDefaults(Spec):
    """What a device class assumes where its device files are silent."""

    kernels: dict[Operator, dict[str, KernelConstants]] = Field(default_factory=dict)


class ClassFile(Spec):
    """Kernel constants of every device class."""

    sources: dict[str, str]
    classes: dict[DeviceClass, ClassDefaults]

    @model_validator(mode="after")
    def _sources_exist(self) -> ClassFile:
        check_sources(self, self.sources)
        return self


@dataclass(frozen=True)
class System:
    """A cluster and the devices it names, resolved.

    Parameters
    ----------
    cluster : the cluster; one node with one device where only a device was given.
    accelerator : the device that plans count.
    host : the host processor, if the cluster has one.
    engines : engines beside each accelerator, by the cluster's names for them.
    class_constants : default kernel constants by device class, operator class and number format.
    files : the files it was read from.
    libraries_of : cluster whose communication libraries stand for its own; empty if none do.
    """

    cluster: Cluster
    accelerator: Device
    host: Device | None
    engines: Mapping[str, Device]
    class_constants: Constants
    files: tuple[Path, ...] = ()
    libraries_of: str = ""

    @property
    def name(self) -> str:
        """Name of the cluster or of the single device."""
        return self.cluster.name


def load_system(name: str | Path) -> System:
    """Return the machine of that name, alias or path.

    Raises
    ------
    PerfmodelError
        If there is none, or one of its files cannot be used.
    """
    document = read(find_hardware(name))
    if _is_device(document):
        device = _device(document)
        return _operated(System(_cluster_of_one(device), device, None, {}, _class_constants(), (document.path,)))
    document, origin = likened(document)
    return _operated(replace(_resolved(parse(Cluster, document), document), libraries_of=origin))


def _operated(system: System) -> System:
    """The machine with what its files leave out about failures, ownership, shared storage and power."""
    defaults, device, cluster = operation_defaults(), system.accelerator, system.cluster
    if device.power is not None:
        power = completed_power(device.power, defaults)
        sources = {**device.sources, **sources_used(defaults, power)}
        device = device.model_copy(update={"power": power, "sources": sources})
    reliability = filled(cluster.reliability, defaults.reliability)
    ownership = filled(cluster.ownership, defaults.ownership)
    storage = cluster.file_system or defaults.file_system
    sources = {**cluster.sources, **sources_used(defaults, reliability, ownership, storage)}
    found = {"reliability": reliability, "ownership": ownership, "file_system": storage, "sources": sources}
    return replace(system, accelerator=device, cluster=cluster.model_copy(update=found))


def load_device(name: str | Path, base: Path | None = None) -> Device:
    """Return the device of that name, alias or path (relative to ``base``)."""
    return _device(read(find_device(name, base)))


def _is_device(document: Document) -> bool:
    """Tell the two kinds of hardware file apart by their keys."""
    device = {"peak", "memory"} & document.data.keys()
    cluster = {"node", "nodes"} & document.data.keys()
    if not device and not cluster and "groups" in document.data:
        raise document.error("a fleet of unlike groups", allowed="perfmodel fleet plans it; here a device or a cluster")
    if not device and not cluster:
        raise document.error(
            "neither a device nor a cluster",
            found=", ".join(list(document.data)[:6]),
            allowed="a device file has `class`, `units`, `peak`, `memory`; a cluster file `nodes`, `node`, `levels`",
        )
    return len(device) >= len(cluster)


def _device(document: Document) -> Device:
    if not _is_device(document):
        raise document.error("a device file is needed here, and this is a cluster file")
    device = parse(Device, document)
    check_device(device, document)
    return device


def _resolved(cluster: Cluster, document: Document) -> System:
    node, files = cluster.node, [document.path]

    def device(reference: str, *where: str) -> Device:
        try:
            path = find_device(reference, document.path.parent)
        except UnknownName as error:
            raise document.error(str(error), ("node", *where, "device")) from error
        files.append(path)
        return _device(read(path))

    accelerator = device(node.accelerator.device, "accelerator")
    host = device(node.host.device, "host") if node.host else None
    engines = {name: device(e.device, "engines", name) for name, e in node.engines.items()}
    check_cluster(cluster, document, accelerator, engines)
    return System(_with_libraries(cluster, accelerator), accelerator, host, engines, _class_constants(), tuple(files))


def _with_libraries(cluster: Cluster, accelerator: Device) -> Cluster:
    """The cluster with everything its libraries do; with the usual one of its devices if it names none."""
    known = known_libraries()
    stated = cluster.collectives or {n: LibraryFacts() for n in known.usual_for(accelerator.family) if cluster.levels}
    if not stated:
        return cluster
    libraries, sources = completed(stated, known)
    return cluster.model_copy(update={"collectives": libraries, "sources": {**cluster.sources, **sources}})


def _cluster_of_one(device: Device) -> Cluster:
    hour = device.price.hour if device.price else None
    return Cluster(
        name=device.name,
        sources={**device.sources, "single": "a device file stands for a machine of one device"},
        nodes=fact(1.0, "1", source="single"),
        node=Node(accelerator=Accelerator(device=device.name, count=1)),
        price=ClusterPrice(device_hour=hour) if hour else None,
    )


def known_libraries() -> LibraryFile:
    """Communication libraries as they run where nothing was measured."""
    path = library_file()
    return _read_libraries(path, path.stat().st_mtime_ns if path.is_file() else 0)


@lru_cache(maxsize=4)
def _read_libraries(path: Path, changed: int) -> LibraryFile:
    """Read the library file once per state of it."""
    del changed
    return parse(LibraryFile, read(path))


def _class_constants() -> Constants:
    path = class_file()
    return _read_classes(path, path.stat().st_mtime_ns if path.is_file() else 0)


@lru_cache(maxsize=4)
def _read_classes(path: Path, changed: int) -> Constants:
    """Read the class file once per state of it; what it returns is never changed."""
    return {name: defaults.kernels for name, defaults in parse(ClassFile, read(path)).classes.items()}
