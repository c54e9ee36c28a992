"""What placement and going on leave of the exchange of tokens."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run
from perfmodel.network.bounds import all_to_all_bound
from perfmodel.network.build import build_network
from perfmodel.network.topology import Group
from perfmodel.specs.system import load_system

__all__ = ["hops", "ways"]

LAYERS, RANKS = 32.0, 4.0


def hops(run: Run, plan: str) -> float:
    """Changes of rank between the expert layers: the share of the bytes that leaves a rank, times layers behind one."""
    network, size = build_network(load_system(str(run.asked().hw)).cluster), 1e12
    links = network.levels[0]
    leaving = float(all_to_all_bound(network, Group((RANKS,)), size)) * links.bandwidth / size
    kept = run.busy(plan, "expert exchange") / run.busy("onwards", "expert exchange")
    return float((LAYERS - 1.0) * leaving * kept)


def ways(run: Run) -> float:
    """Exchange of a pass that goes on over that of one that returns."""
    return run.busy("onwards", "expert exchange") / run.busy("both_ways", "expert exchange")
