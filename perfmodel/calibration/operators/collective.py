"""Collectives: one row is one operation of a communication library among some ranks of a machine.

Constants belong to a machine and a library: latency and efficiency of the levels, and the protocols of every algorithm.
All operations of a library share them, so an all-gather says something of an all-reduce. A constant is named by its
place: ``level.node.latency``, ``efficiency.node``, ``ring.LL.launch``, ``ring.copy_share``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from perfmodel.calibration.model import Array, Columns, Identity, Key, OperatorModel, Parameter
from perfmodel.calibration.subjects import MACHINES, Place, Unpredictable, place_of
from perfmodel.elementwise import smooth_maximum
from perfmodel.network import collectives
from perfmodel.network.build import library_of
from perfmodel.network.library import Library, Protocol
from perfmodel.network.topology import Group, Network, NetworkLevel
from perfmodel.specs.system import known_libraries
from perfmodel.units import Seconds

__all__ = ["MODEL", "OPERATIONS", "group_of", "kinds_in", "level_names", "library_named", "with_constants"]

OPERATIONS: dict[str, Callable[[Network, Group, Any], Seconds]] = {
    "all_gather": collectives.all_gather,
    "reduce_scatter": collectives.reduce_scatter,
    "all_reduce": collectives.all_reduce,
    "all_to_all": collectives.all_to_all,
    "send_recv": collectives.point_to_point,
    "broadcast": collectives.broadcast,
}
_KINDS = tuple(OPERATIONS)
_WRAPPED = ("via MPICH", "torch.distributed", "DeepSpeed")
"""Callers that add a fixed cost to every operation."""
_EAGER = "eager"
_FABRIC = ("nic", "fabric", "wan")


def library_named(backend: str) -> str:
    """Library that a row's backend is, by the names of ``hardware_specs/libraries.yaml``.

    Examples
    --------
    >>> library_named("vLLM_custom_graph"), library_named("RCCL 2.20.5 via MPICH CCL backend"), library_named("NCCL")
    ('custom', 'rccl', 'nccl')
    """
    name = backend.casefold()
    if "custom" in name or name.startswith("trtllm"):
        return "custom"
    if "rccl" in name:
        return "rccl"
    if "gloo" in name:
        return "gloo"
    return "cray-mpich" if "mpich" in name else "nccl"


def _read(row: Mapping[str, str]) -> tuple[Identity, Mapping[str, float]]:
    kind, backend = row["kind"], row["backend"]
    if kind not in OPERATIONS:
        raise Unpredictable(f"operation {kind}")
    if "ANOMALOUS" in row.get("note", ""):
        raise Unpredictable("published as a performance bug")
    ranks, per_node = float(row["ranks"]), float(row["ranks_per_node"])
    if ranks < 2:
        raise Unpredictable("fewer than two ranks")
    sizes = {"ranks": ranks, "per_node": min(per_node, ranks), "bytes": float(row["bytes"])}
    sizes["kind"] = float(_KINDS.index(kind))
    return Identity(library_named(backend), backend, dtype=row.get("dtype", "") or "unstated"), sizes


def _check(name: str, sizes: Mapping[str, float]) -> None:
    place = place_of(name)
    if sizes["per_node"] > place.per_node:
        raise Unpredictable(f"more ranks in a node than a node of {name} has")
    reach = place.network("").levels[-1].reach
    if sizes["ranks"] > reach / place.per_node * sizes["per_node"]:
        raise Unpredictable(f"the network between nodes of {name} is not stated")


def group_of(place: Place, network: Network, ranks: Array, per_node: Array) -> Group:
    """Group of the nearest ranks, ``per_node`` of them in every node."""
    members = []
    for level in network.levels:
        inside = level.reach <= place.per_node
        reach = level.reach if inside else level.reach / place.per_node * per_node
        members.append(np.minimum(ranks, np.minimum(reach, per_node) if inside else reach))
    return Group(tuple(members))


def with_constants(network: Network, name: str, constants: Mapping[str, Any]) -> Network:
    """The network with a library's usual protocols and the given constants in place of its own."""
    levels = tuple(_level(network, i, constants) for i in range(len(network.levels)))
    usual = library_of(name, known_libraries().libraries[name])
    protocols = {
        algorithm: tuple(_protocol(algorithm, p, constants) for p in found)
        for algorithm, found in usual.protocols.items()
        if algorithm != "in_network" or _adding(network)
    }
    return network._replace(levels=levels, library=Library(name, protocols))


def _adding(network: Network) -> bool:
    return any(level.in_network_reduction for level in network.levels)


def _named(network: Network, index: int) -> tuple[str, str]:
    """Names of the latency and the efficiency of a level; a package shares both with the node around it."""
    level = network.levels[index]
    outer = network.levels[index + 1] if level.kind == "package" and index + 1 < len(network.levels) else level
    efficiency = "efficiency.network" if level.kind in _FABRIC else f"efficiency.{outer.name}"
    return f"level.{outer.name}.latency", efficiency


def level_names(network: Network) -> dict[str, dict[str, str]]:
    """Names of the constants of every level."""
    found = {}
    for index, level in enumerate(network.levels):
        latency, efficiency = _named(network, index)
        found[level.name] = {
            "latency": latency,
            "efficiency": efficiency,
            "crowding": f"level.{level.name}.crowding",
        }
    return found


def _level(network: Network, index: int, constants: Mapping[str, Any]) -> NetworkLevel:
    level, (latency, efficiency) = network.levels[index], _named(network, index)
    return level._replace(
        latency=constants.get(latency, level.latency),
        efficiency=constants.get(efficiency, level.efficiency),
        crowding=constants.get(f"level.{level.name}.crowding", level.crowding),
    )


def _protocol(algorithm: str, protocol: Protocol, constants: Mapping[str, Any]) -> Protocol:
    where = f"{algorithm}.{protocol.name}"
    found = {f: constants[f"{where}.{f}"] for f in _FIELDS if f"{where}.{f}" in constants}
    shared = f"{algorithm}.copy_share"
    return protocol._replace(**found, **({"copy_share": constants[shared]} if shared in constants else {}))


def _predict(columns: Columns, place: Place, constants: Mapping[str, Any], format: str) -> Seconds:
    network = with_constants(place.network(format), format, constants)
    depth = max((np.ndim(v) for v in constants.values()), default=0)
    trials = max((np.shape(v)[0] for v in constants.values() if np.ndim(v)), default=1)
    rows = len(columns["bytes"])
    seconds = np.empty((trials, rows) if depth else (rows,))
    for code in np.unique(columns["kind"]):
        here = columns["kind"] == code
        group = group_of(place, network, columns["ranks"][here], columns["per_node"][here])
        seconds[..., here] = OPERATIONS[_KINDS[int(code)]](network, group, columns["bytes"][here])
    seconds = seconds + constants.get("overhead", 0.0)
    return smooth_maximum(seconds, constants["host_floor"], 6.0) if "host_floor" in constants else seconds


_FIELDS: dict[str, tuple[float, float, float, str]] = {
    "launch": (0.3e-6, 2e-3, 0.7, "s"),
    "latency": (0.005, 300.0, 0.8, "1"),
    "rate": (0.002, 1.0, 0.5, "1"),
    "pace": (1e3, 1e9, 1.0, "B"),
    "chunk": (1e3, 1e9, 1.0, "B"),
}
"""Bounds, prior spread in ln, and unit of the constants of a protocol."""
_LATENCY = {"device links": 1e-6, "host links": 1.8e-6}
_HOST_LINKS = (0.5, 0.2, 0.06)
"""Share of a host link that peers reach on one switch, in one socket, and between sockets."""


def _parameters(key: Key) -> tuple[Parameter, ...]:
    found = list(_machine_parameters(key.device, key.format))
    if any(mark in key.variant for mark in _WRAPPED):
        found.append(Parameter("overhead", 10e-6, 0.1e-6, 1e-3, 1.0, "s", artefact=True))
    if _EAGER in key.variant:
        found.append(Parameter("host_floor", 25e-6, 1e-6, 2e-3, 1.0, "s", artefact=True))
    return tuple(found)


@lru_cache(maxsize=64)
def _machine_parameters(machine: str, library: str) -> tuple[Parameter, ...]:
    network, link = place_of(machine).network(library), MACHINES.kind(machine)
    usual_library = library_of(library, known_libraries().libraries[library])
    stores = any(p.pace != float("inf") for protocols in usual_library.protocols.values() for p in protocols)
    found: dict[str, Parameter] = {}
    for index, level in enumerate(network.levels):
        latency, efficiency = _named(network, index)
        far = level.kind in _FABRIC
        found[latency] = Parameter(latency, 8e-6 if far else _LATENCY[link], 0.02e-6, 1e-3, 0.8, "s")
        if far and stores:
            name = f"level.{level.name}.crowding"
            found[name] = Parameter(name, 1.0, 0.02, 50.0, 0.8)
        if efficiency not in found:
            found[efficiency] = _efficiency(efficiency, far, link, index)
    between_nodes = any(level.kind in _FABRIC for level in network.levels)
    for algorithm, protocols in usual_library.protocols.items():
        if (algorithm == "in_network" and not _adding(network)) or (algorithm == "tree" and not between_nodes):
            continue
        found.update((p.name, p) for p in _protocol_parameters(algorithm, protocols))
    return tuple(found.values())


def _efficiency(name: str, far: bool, link: str, index: int) -> Parameter:
    """Share of the bandwidth that a library reaches; what crosses a host's sockets is known to a factor only."""
    if far:
        return Parameter(name, 0.7, 0.02, 1.0, 0.3)
    if link == "device links":
        return Parameter(name, 0.76, 0.02, 1.0, 0.3)
    return Parameter(name, _HOST_LINKS[min(index, 2)], 0.002, 1.0, 0.3 if index == 0 else 1.2)


def _protocol_parameters(algorithm: str, protocols: tuple[Protocol, ...]) -> list[Parameter]:
    """One per constant that the library states; what is neutral stays so."""
    neutral, found = Protocol(), []
    for protocol in protocols:
        for name, (low, high, sigma, unit) in _FIELDS.items():
            value = getattr(protocol, name)
            if value != getattr(neutral, name):
                found.append(Parameter(f"{algorithm}.{protocol.name}.{name}", value, low, high, sigma, unit))
    if protocols[0].copy_share:
        found.append(Parameter(f"{algorithm}.copy_share", protocols[0].copy_share, 0.001, 10.0, 0.7))
    return found


def kinds_in(columns: Columns) -> set[str]:
    """Operations that rows are of."""
    return {_KINDS[int(code)] for code in np.unique(columns["kind"])}


def _kind(name: str) -> Callable[[Columns], Any]:
    return lambda columns: columns["kind"] == float(_KINDS.index(name))


MODEL = OperatorModel(
    name="collective",
    header=frozenset({"system", "kind", "ranks", "ranks_per_node", "bytes", "backend", "time_us"}),
    read=_read,
    predict=_predict,
    parameters=_parameters,
    subsets={name.replace("_", "-"): _kind(name) for name in _KINDS},
    subject=MACHINES,
    label="system",
    check=_check,
)
