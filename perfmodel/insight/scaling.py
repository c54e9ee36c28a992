"""A scaling study: the best plan of every device count, what it takes, costs and how well it uses the machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from perfmodel.errors import SpecError
from perfmodel.insight.setting import Setting
from perfmodel.solver.evaluate import evaluate_plan
from perfmodel.solver.result import EvaluatedPlan
from perfmodel.solver.search import search

__all__ = ["STEPS", "Scaling", "Size", "device_counts", "scaling"]

STEPS = {"doubling": 1, "quarters": 4, "nodes": 0}
"""Ways to choose sizes: sizes per doubling of the nodes; 0 is every number of nodes."""


class Size(NamedTuple):
    """The best plan on so many devices; speed per device relative to the size with most of it [1]."""

    devices: int
    plan: EvaluatedPlan
    efficiency: float


@dataclass(frozen=True)
class Scaling:
    """What a study found.

    Parameters
    ----------
    sizes : those that have a legal plan, fewest devices first.
    without : sizes that have none.
    judged : plans judged for all of them.
    seconds : wall time of the study [s].
    """

    sizes: tuple[Size, ...]
    without: tuple[int, ...]
    judged: int
    seconds: float


def device_counts(per_node: int, least: int, most: int, step: str) -> tuple[int, ...]:
    """Whole nodes from ``least`` to ``most`` devices: doublings, four to a doubling, or every number of nodes."""
    first, last = -(-least // per_node), most // per_node
    if STEPS[step] == 0:
        return tuple(per_node * n for n in range(first, last + 1))
    octave = range(first, 2 * first, max(first // STEPS[step], 1)) if STEPS[step] > 1 else (first,)
    counts = {n << k for k in range(last.bit_length()) for n in octave if n << k <= last} | {last}
    return tuple(per_node * n for n in sorted(counts) if n >= first)


def scaling(setting: Setting, counts: Iterable[int], *, progress: Callable[[int], None] | None = None) -> Scaling:
    """Search all sizes at once and evaluate the best plan of each.

    Parameters
    ----------
    setting : a training question whose device count is free.
    counts : device counts.

    Raises
    ------
    SpecError
        If the question is about serving, or a size is beyond the machine.
    """
    started = time.perf_counter()
    counts = tuple(sorted(set(counts)))
    if setting.phase != "training":
        raise SpecError("a scaling study is about training", field="workload", found=setting.workload.name)
    if not counts or counts[0] < 1 or counts[-1] > setting.machine.devices:
        raise SpecError("not a size of this machine", field="devices", found=counts[-1] if counts else "none",
                        allowed=f"1 to {setting.machine.devices}")  # fmt: skip
    axes = tuple(
        axis._replace(values=tuple((float(n),) for n in counts)) if axis.columns == ("devices",) else axis
        for axis in setting.space.numeric
    )
    outcome = search(setting.space._replace(numeric=axes), setting.problem, progress=progress)
    best = {n: found[0] for n, found in outcome.by_devices.items()}
    most = max((1.0 / (n * c.seconds) for n, c in best.items()), default=1.0)
    sizes = tuple(
        Size(n, evaluate_plan(setting.problem, best[n].plan), 1.0 / (n * best[n].seconds) / most) for n in sorted(best)
    )
    without = tuple(n for n in counts if n not in best)
    return Scaling(sizes, without, outcome.cells, time.perf_counter() - started)
