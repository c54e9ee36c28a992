"""Sublayers of tensor parallelism with their sums behind or beside the product."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from perfmodel.calibration.claims.run import Run
from perfmodel.machine.build import build_machine
from perfmodel.machine.kernels import kernel_time
from perfmodel.network.build import build_network
from perfmodel.network.collectives import all_gather, reduce_scatter
from perfmodel.network.topology import Group
from perfmodel.operators.gemm import gemm
from perfmodel.specs.system import load_system
from perfmodel.techniques.fused_sums import fused_seconds, scatter_traffic

__all__ = ["largest_speedup", "mean_speedup", "traffic_saved"]

MODELS = {
    "Mega-GPT-2": (3072, 16 * 1024),
    "T-NLG": (4256, 8 * 1024),
    "GPT-3": (12288, 2 * 1024),
    "PaLM": (18432, 2 * 1024),
    "MT-NLG": (20480, 2 * 1024),
}
"""Hidden width and tokens in flight."""


class Sublayer(NamedTuple):
    """One product and its all-reduce: times [s] and memory traffic [B], behind and beside."""

    behind: float
    beside: float
    ideal: float
    traffic_behind: float
    traffic_beside: float


def _sublayers(run: Run) -> Iterator[Sublayer]:
    system = load_system(str(run.asked().hw))
    engine, network = build_machine(system).main, build_network(system.cluster)
    for hidden, tokens in MODELS.values():
        for ranks in (8.0, 16.0):
            for inner in (hidden, 4 * hidden):
                work = gemm(float(tokens), float(hidden), inner / ranks, format="fp16")
                kernel, size, group = kernel_time(work, engine), 2.0 * tokens * hidden, Group((ranks,))
                scatter, gather = reduce_scatter(network, group, size), all_gather(network, group, size)
                moved = scatter_traffic(size, ranks, in_memory=True)
                beside = fused_seconds(kernel.compute, kernel.memory, moved / engine.bandwidth, scatter)
                product, copies = work.traffic(engine.cache), 2.0 * size * (ranks - 1.0) / ranks
                yield Sublayer(
                    behind=float(kernel.seconds + scatter + gather),
                    beside=float(max(beside + kernel.overhead, kernel.seconds) + gather),
                    ideal=float(max(kernel.seconds, scatter) + gather),
                    traffic_behind=float(product + scatter_traffic(size, ranks, in_memory=False) + copies),
                    traffic_beside=float(product + moved + copies),
                )


def mean_speedup(run: Run) -> float:
    """Geometric mean over sublayers."""
    ratios = [s.behind / s.beside for s in _sublayers(run)]
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


def largest_speedup(run: Run) -> float:
    """The sublayer that gains most; infinite if one were faster than a free overlap."""
    found = list(_sublayers(run))
    return max(s.behind / s.beside for s in found) if all(s.beside >= s.ideal * (1 - 1e-9) for s in found) else math.inf


def traffic_saved(run: Run) -> float:
    """Share of the memory traffic that is gone, geometric mean of what remains."""
    left = [s.traffic_beside / s.traffic_behind for s in _sublayers(run)]
    return 1.0 - math.exp(sum(map(math.log, left)) / len(left))
