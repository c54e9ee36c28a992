"""What an operator must move across every memory of a device, and a collective across every level of a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from perfmodel.errors import SpecError, UnknownName
from perfmodel.insight.problems import Problem
from perfmodel.machine.build import Machine, build_machine
from perfmodel.network import bounds as least_of
from perfmodel.network import collectives as modelled
from perfmodel.network.build import build_network
from perfmodel.network.topology import Dim, Network, group_along
from perfmodel.operators.bounds import collectives as known
from perfmodel.operators.formats import STORAGE, storage
from perfmodel.specs.overrides import override
from perfmodel.specs.system import System, load_system

__all__ = [
    "Boundary",
    "CollectiveBounds",
    "CollectiveRow",
    "OperatorBounds",
    "bounds",
    "bounds_on",
    "collective",
    "collective_bounds",
]

LEAST = 4.0
"""Elements below which a memory is a register, not a place to block for."""


class Boundary(NamedTuple):
    """Traffic into one memory of a device.

    Parameters
    ----------
    memory, source : the memory, and the one behind it.
    capacity : of the memory, all parts together [B].
    parts : separate memories it consists of, one per compute unit.
    lower_bound : no algorithm moves less [B].
    achievable : of the best known loop [B].
    algorithm : that loop.
    gap : achievable over lower bound.
    regime : what binds the bound here.
    intensity : operations per byte of the best known loop [FLOP/B].
    bandwidth : of the source, ``None`` where no figure exists [B/s].
    seconds : achievable traffic at that bandwidth [s].
    algorithms : traffic of every known loop that can run [B].
    """

    memory: str
    source: str
    capacity: float
    parts: float
    lower_bound: float
    achievable: float
    algorithm: str
    gap: float
    regime: str
    intensity: float
    bandwidth: float | None
    seconds: float | None
    algorithms: Mapping[str, float]


@dataclass(frozen=True)
class OperatorBounds:
    """Bounds of one operator on one device.

    Parameters
    ----------
    problem : the operator with its sizes.
    device, format : where, and in which number format.
    element_bytes : bytes of an element [B].
    peak : rate of the units that compute it [FLOP/s].
    compute_seconds : operations at that rate [s].
    boundaries : nearest memory first.
    """

    problem: Problem
    device: str
    format: str
    element_bytes: float
    peak: float
    compute_seconds: float
    boundaries: tuple[Boundary, ...]

    @property
    def roof(self) -> str:
        """What takes longest at its full rate: ``compute`` or the memory that is read."""
        times = {b.source: b.seconds for b in self.boundaries if b.seconds is not None and b.source != "host"}
        slowest = max(times, key=lambda name: times[name], default="compute")
        return slowest if times.get(slowest, 0.0) > self.compute_seconds else "compute"

    @property
    def seconds(self) -> float:
        """Time at the full rate of whatever binds on the device [s]."""
        times = [b.seconds for b in self.boundaries if b.seconds is not None and b.source != "host"]
        return max([self.compute_seconds, *times])


def bounds_on(problem: Problem, machine: Machine, format: str = "bf16") -> OperatorBounds:
    """Apply a problem's formulas at the boundary of every memory of the machine's main engine."""
    engine = machine.main
    element = storage(format).bytes * problem.width
    peak = engine.peak(format) if problem.matrix else engine.vector_peak()
    behind: list[tuple[str, float | None]] = [(m.name, m.bandwidth) for m in engine.memories[1:]]
    if machine.host_link is not None and "host" not in [m.name for m in engine.memories]:
        behind.append(("host", machine.host_link))
    rows = []
    for level, (source, bandwidth) in zip(engine.memories, behind, strict=False):
        fast = level.capacity / level.parts / element
        if fast < LEAST:
            continue
        counts = {name: count(fast) for name, count in problem.algorithms.items()}
        moved = {name: c * element for name, c in counts.items() if c is not None}
        best = min(moved, key=lambda name: moved[name])
        lower = problem.bound(fast, level.parts) * element
        rows.append(
            Boundary(
                memory=level.name,
                source=source,
                capacity=level.capacity,
                parts=level.parts,
                lower_bound=lower,
                achievable=moved[best],
                algorithm=best,
                gap=moved[best] / lower,
                regime=problem.regime(fast, level.parts),
                intensity=problem.flops / moved[best],
                bandwidth=bandwidth,
                seconds=moved[best] / bandwidth if bandwidth else None,
                algorithms=moved,
            )
        )
    return OperatorBounds(problem, engine.device, format, element, peak, problem.flops / peak, tuple(rows))


def bounds(
    problem: Problem, hw: str | Path, *, format: str = "bf16", changes: Mapping[str, Any] | None = None
) -> OperatorBounds:
    """Bound what an operator moves across every memory of a shipped or own machine, with facts changed if asked."""
    _check_format(format)
    return bounds_on(problem, build_machine(_system(hw, changes)), format)


def collective(
    name: str,
    ranks: int,
    size: float,
    hw: str | Path,
    *,
    format: str = "bf16",
    changes: Mapping[str, Any] | None = None,
) -> CollectiveBounds:
    """Bound the time of a collective of ``size`` bytes among the nearest ``ranks`` devices of a machine."""
    _check_format(format)
    system = _system(hw, changes)
    return collective_bounds(name, ranks, size, build_machine(system), build_network(system.cluster), format)


def _check_format(name: str) -> None:
    if name not in STORAGE:
        raise UnknownName("number format", name, STORAGE, remedy="all: " + ", ".join(STORAGE))


def _system(hw: str | Path, changes: Mapping[str, Any] | None) -> System:
    system = load_system(hw)
    return override(system, dict(changes)) if changes else system


class CollectiveRow(NamedTuple):
    """Time of one algorithm, by its parts [s]."""

    algorithm: str
    latency: float
    transfer: float
    compute: float
    seconds: float
    ratio: float


@dataclass(frozen=True)
class CollectiveBounds:
    """Bounds of one collective among ranks of a machine.

    Parameters
    ----------
    collective, ranks, size : which, among how many, over how many bytes.
    levels : name, ranks of the group in one domain, bandwidth and latency of the levels crossed.
    latency, transfer, compute : lower bounds; the largest of them bounds the time [s].
    topology : lower bound from the links of each domain, 0 where none is known [s].
    rows : known algorithms with every message at the slowest level crossed.
    modelled : what the network model takes for it, ``None`` where it has none [s].
    library : communication library of the machine, ``ideal`` where it states none.
    protocols : time by algorithm and protocol of that library, the quickest first [s].
    bottleneck : level whose links take longest.
    """

    collective: str
    ranks: int
    size: float
    levels: tuple[tuple[str, float, float, float], ...]
    latency: float
    transfer: float
    compute: float
    topology: float
    rows: tuple[CollectiveRow, ...]
    modelled: float | None
    library: str = "ideal"
    protocols: Mapping[str, float] = field(default_factory=dict)
    bottleneck: str = ""

    @property
    def bound(self) -> float:
        """No algorithm is faster [s]."""
        return max(self.latency, self.transfer, self.compute, self.topology)


_MODELLED = {
    "all-gather": (modelled.all_gather, least_of.all_gather_bound),
    "reduce-scatter": (modelled.reduce_scatter, least_of.all_gather_bound),
    "all-reduce": (modelled.all_reduce, least_of.all_reduce_bound),
    "all-to-all": (modelled.all_to_all, least_of.all_to_all_bound),
    "broadcast": (modelled.broadcast, least_of.broadcast_bound),
    "point-to-point": (modelled.point_to_point, least_of.neighbour_bound),
}


def collective_bounds(
    name: str, ranks: int, size: float, machine: Machine, network: Network, format: str = "bf16"
) -> CollectiveBounds:
    """Lower bounds and algorithms of a collective among the ``ranks`` nearest devices.

    Bounds take the fastest link and the shortest latency that a rank of the group has; algorithms send every message
    at the rate of the outermost level they cross.
    """
    if ranks < 2:
        raise SpecError("a collective needs at least 2 ranks", field="--ranks", found=ranks)
    if ranks > machine.devices:
        raise SpecError(
            "more ranks than the machine has devices", field="--ranks", found=ranks, allowed=f"2 to {machine.devices}"
        )
    group = group_along(network, (Dim("ranks", float(ranks), frozenset(), 0.0),), frozenset({"ranks"}))
    below = (1.0, *group.members[:-1])
    crossed = [
        (level, members)
        for level, members, inner in zip(network.levels, group.members, below, strict=True)
        if members > inner
    ]
    adding = any(level.in_network_reduction for level, _ in crossed)
    gamma = 1.0 / (machine.main.vector_peak() * storage(format).bytes)
    quick = min(lv.latency for lv, _ in crossed) * float(least_of.least_step(network))
    if least_of.sends_to_all(network):
        quick = quick / known.rounds(float(ranks))
    fast = 1.0 / max(lv.bandwidth for lv, _ in crossed)
    slow_latency, slow = max(lv.latency for lv, _ in crossed), 1.0 / min(lv.bandwidth for lv, _ in crossed)
    least = known.collective_lower_bound(name, float(ranks), size, quick, fast, gamma, in_network=adding)
    model, model_bound = _MODELLED.get(name, (None, None))
    topology = float(model_bound(network, group, size)) if model_bound else 0.0
    bound = max(*least, topology)
    rows = []
    for algorithm, cost_of in known.ALGORITHMS[name].items():
        cost = cost_of(float(ranks), size, slow_latency, slow, gamma)
        rows.append(CollectiveRow(algorithm, *cost, cost.seconds, cost.seconds / bound))
    levels = tuple((lv.name, float(members), float(lv.bandwidth), float(lv.latency)) for lv, members in crossed)
    modelled_seconds = float(model(network, group, size)) if model else None
    operation = {"reduce-scatter": "all_gather"}.get(name, name.replace("-", "_"))
    times = modelled.times_by_protocol(network, group, operation, size) if model else {}
    return CollectiveBounds(
        name,
        ranks,
        size,
        levels,
        *least,
        topology,
        tuple(sorted(rows, key=lambda r: r.seconds)),
        modelled_seconds,
        network.library.name if network.library else "ideal",
        times,
        modelled.narrowest_level(network, group),
    )
