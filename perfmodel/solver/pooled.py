"""Disaggregated serving: the best plan of a prefill pool and of a decode pool, and how many replicas of each.

Each pool is searched on its own; since devices add up and latencies do, the best pair lies on the fronts of latency
against cost of the two, which are tried against each other under the limits of whole requests.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perfmodel.elementwise import Scalar, ceil
from perfmodel.phases.host import decoding_only
from perfmodel.phases.serving import evaluate_passes
from perfmodel.serving.moments import Moments
from perfmodel.serving.open_pools import LOADS, POOLS, Pool, Request, hand_over, pool_replica, prompt_bytes, together
from perfmodel.serving.steady import Replica
from perfmodel.solver.many import evaluate_each
from perfmodel.solver.problems import ServingProblem
from perfmodel.solver.search import Judged
from perfmodel.solver.space import Block, Space
from perfmodel.specs.slo import Slo
from perfmodel.techniques.base import Axis
from perfmodel.techniques.settled import Plan

__all__ = ["Pair", "Pairs", "PoolProblem", "best_pair", "pool_problems", "pool_space"]

MOST_REPLICAS = 16
"""Prefill replicas of one unit of a service whose rate is free."""
FITS = 1.0 + 1e-9
"""Demand / limit up to which a constraint is met [1]."""
NEARLY = 0.97
"""Share of the best rate per device for which the smallest unit is taken."""


@dataclass
class PoolProblem(ServingProblem):
    """Judge replicas of one pool."""

    pool: Pool = "prefill"

    @property
    def peak(self) -> float:
        """Rate that this pool must carry over that of the service [1]."""
        workload = self.situation.workload
        return float(workload.prompt_peak if self.pool == "prefill" else workload.output_peak)

    def replicas(self, replica: Replica) -> Scalar:
        """Replicas that carry this pool's own busiest time."""
        rate = self.situation.workload.rate
        return 1.0 if rate is None else ceil(rate * self.peak / replica.rate)

    def evaluate(self, x: Plan) -> Replica:
        """Full evaluation of one replica plan or a block."""
        framework = decoding_only(self.framework) if self.pool == "decode" else self.framework
        passes = partial(
            evaluate_passes, techniques=self.techniques, situation=self.situation, machine=self.machine,
            network=self.network, framework=framework, memo=self.memo, power=self.objective == "energy",
        )  # fmt: skip
        return pool_replica(self.pool, x, passes, self.machine, framework)

    def judge(self, x: Plan) -> Judged:
        """Score, device count and constraints of a block; seconds are those of the pool's own latency."""
        judged = super().judge(x)
        if self.pool == "decode":
            return judged
        replica = self.evaluate(x)
        return judged._replace(seconds=replica.ttft)


def pool_space(space: Space, pool: Pool) -> Space:
    """The space of a pool: prefill replicas have a load of their own and hold as many prompts as they compute."""
    if pool == "decode":
        return space
    numeric = []
    for axis in space.numeric:
        if axis.columns == ("batch",) and len(axis.values) > 1:
            few = tuple(v for v in axis.values if v[0] <= 32 and v[0] & (v[0] - 1) == 0)
            numeric.append(axis._replace(values=few or axis.values[:1]))
        else:
            numeric.append(axis)
    return Space(space.structural, (*numeric, Axis.of("load", LOADS)))


class Pair(NamedTuple):
    """Two pools that serve together.

    Parameters
    ----------
    plans : of a replica of each pool.
    replicas : of each pool.
    devices : in all.
    rate : requests per second in all.
    moved : hand-over of one prompt [s].
    request : latencies of a request through both.
    ratios : demand / limit of what concerns both.
    score : what is minimised.
    cells, legal : plans of both searches, and those legal among them.
    """

    plans: tuple[Plan, Plan]
    replicas: tuple[int, int]
    devices: int
    rate: float
    moved: float
    request: Request
    ratios: dict[str, float]
    score: float
    cells: int
    legal: int


FIELDS = (
    "rate", "devices", "ttft mean", "ttft variance", "ttft least", "tpot mean", "tpot variance", "tpot least", "gap",
    "bytes", "score", "batch", "pass",
)  # fmt: skip


def _read(problem: PoolProblem, replica: Replica) -> tuple[Scalar, ...]:
    tails = replica.tails
    assert tails is not None  # noqa: S101 - both pools have tails
    score = problem.per_request(replica)
    return (
        replica.rate, replica.devices, *tails.ttft, *tails.tpot, tails.tbt(99.0), prompt_bytes(replica), score,
        replica.settled.batch, replica.pass_seconds,
    )  # fmt: skip


def best_pair(problems: Sequence[PoolProblem], spaces: Sequence[Space]) -> Pair | None:
    """Search both pools and combine them; ``None`` where no pair keeps the limits."""
    return Pairs(problems, spaces).best


class Pairs:
    """Both pools searched, each by itself, and their fronts against each other.

    Parameters
    ----------
    problems : of the prefill pool and of the decode pool.
    spaces : of the same.
    """

    def __init__(self, problems: Sequence[PoolProblem], spaces: Sequence[Space]) -> None:
        self.found = [_fronts(space, problem) for space, problem in zip(spaces, problems, strict=True)]
        self.grid: _Grid | None = None
        if not self.empty:
            self.grid = _Grid(
                problems,
                *(
                    evaluate_each(problem, pool.plans, partial(_read, problem))
                    for problem, pool in zip(problems, self.found, strict=True)
                ),
            )

    @property
    def empty(self) -> list[int]:
        """Pools no replica of which keeps the limits that concern it alone."""
        return [i for i, pool in enumerate(self.found) if not pool.plans]

    @property
    def best(self) -> Pair | None:
        """The legal pair of the least score."""
        return None if self.grid is None else self._pair(self.grid.best())

    @property
    def nearest(self) -> Pair | None:
        """The pair whose worst constraint is least violated."""
        return None if self.grid is None else self._pair(self.grid.nearest())

    def _pair(self, chosen: tuple[int, int] | None) -> Pair | None:
        if chosen is None or self.grid is None:
            return None
        (i, j), (first, second) = chosen, self.found
        plans = first.plans[i], second.plans[j]
        return self.grid.pair(i, j, plans, first.cells + second.cells, first.legal + second.legal)


class _Fronts(NamedTuple):
    """Plans of a pool that no other of as many devices beats in both latency and cost."""

    plans: list[Plan]
    cells: int
    legal: int


def _fronts(space: Space, problem: PoolProblem) -> _Fronts:
    """Judge every plan of a pool: a small machine may have room for the other pool beside few devices only."""
    rows: list[tuple[float, float, float, Plan]] = []
    cells = legal = 0
    for slab in space.slabs():
        cells += slab.cells
        formed = np.ones((1,) * len(slab.shape), dtype=bool)
        for ratio in problem.form(slab.columns()).values():
            formed = formed & (np.asarray(ratio) <= FITS)
        for block in slab.keep(formed).pieces():
            if block.cells:
                judged = problem.judge(block.columns())
                kept = np.ones(block.shape, dtype=bool)
                for ratio in (*judged.budget.values(), *judged.form.values()):
                    kept = kept & (np.asarray(ratio) <= FITS)
                legal += int(kept.sum())
                rows += _front(block, judged, kept)
    best: list[Plan] = []
    for devices in sorted({row[0] for row in rows}):
        least = math.inf
        for _, _, score, plan in sorted((r for r in rows if r[0] == devices), key=lambda r: r[1:3]):
            if score < least:
                least = score
                best.append(plan)
    return _Fronts(best, cells, legal)


def _front(block: Block, judged: Judged, kept: NDArray[np.bool_]) -> list[tuple[float, float, float, Plan]]:
    """(devices, seconds, score, plan) of the front of every device count of a block."""
    flat = np.flatnonzero(kept)
    devices, seconds, score = (
        np.broadcast_to(np.asarray(a, dtype=float), block.shape).ravel()[flat]
        for a in (judged.devices, judged.seconds, judged.score)
    )
    found = []
    for number in np.unique(devices):
        here = np.flatnonzero(devices == number)
        order = here[np.lexsort((score[here], seconds[here]))]
        before = np.concatenate(([np.inf], np.minimum.accumulate(score[order])[:-1]))
        found += [
            (float(number), float(seconds[i]), float(score[i]), block.plan(int(flat[i])))
            for i in order[score[order] < before]
        ]
    return found


class _Grid:
    """Every prefill plan beside every decode plan."""

    def __init__(
        self, problems: Sequence[PoolProblem], prefill: NDArray[np.float64], decode: NDArray[np.float64]
    ) -> None:
        self.problem = problem = problems[1]
        self.peaks = [p.peak for p in problems]
        self.workload = problem.situation.workload
        self.p = {name: prefill[:, i][:, None] for i, name in enumerate(FIELDS)}
        self.d = {name: decode[:, i][None, :] for i, name in enumerate(FIELDS)}
        self.counts = self._counts()
        devices = self.counts[0] * self.p["devices"] + self.counts[1] * self.d["devices"]
        self.devices = devices
        served = [n * pool["rate"] / e for n, pool, e in zip(self.counts, (self.p, self.d), self.peaks, strict=True)]
        able = np.minimum(*served)
        self.rate = able if self.workload.rate is None else np.minimum(able, self.workload.rate)
        ranks = np.minimum(self.p["devices"], self.d["devices"])
        self.transfer = hand_over(problem.network, self.d["bytes"] + 0.0 * devices, ranks, devices)
        self.moved = self.transfer + problem.framework.get("pool_hand_over", 0.0)
        self.request = together(
            Moments(*(self.p[f"ttft {n}"] for n in Moments._fields)),
            Moments(*(self.d[f"tpot {n}"] for n in Moments._fields)),
            self.d["gap"], output=1.0 * self.workload.output, moved=self.moved, turn=self.d["pass"],
            variation=self.workload.length_variation, answers=problem.framework.get("prefill_answers", 0.0),
        )  # fmt: skip
        self.ratios = self._ratios(self.workload.slo)

    def _counts(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Replicas of the two pools: for the wanted rate, or those that waste least."""
        p, d = self.p, self.d
        shape = np.broadcast_shapes(p["rate"].shape, d["rate"].shape)
        if self.workload.rate is not None:
            rates = [pool["rate"] / peak for pool, peak in zip((p, d), self.peaks, strict=True)]
            wanted = (np.ceil(self.workload.rate / r - 1e-9) for r in rates)
            first, second = (np.broadcast_to(w, shape) for w in wanted)
            return first, second
        best, chosen = np.zeros(shape), (np.ones(shape), np.ones(shape))
        for n in range(1, MOST_REPLICAS + 1):
            exact = n * p["rate"] / d["rate"]
            for m in (np.maximum(np.floor(exact), 1.0), np.ceil(exact)):
                devices = n * p["devices"] + m * d["devices"]
                rate = np.minimum(n * p["rate"], m * d["rate"]) / devices
                better = (devices <= self.problem.situation.devices) & (rate * NEARLY > best)
                best = np.where(better, rate, best)
                chosen = (np.where(better, float(n), chosen[0]), np.where(better, m, chosen[1]))
        return chosen

    def _ratios(self, slo: Slo) -> dict[str, NDArray[np.float64]]:
        request, counts = self.request, self.counts
        found: dict[str, Any] = {"machine size": self.devices / self.problem.situation.devices}
        sending = [self.rate * self.peaks[0] / count * self.transfer for count in counts]
        found["hand-over"] = np.maximum(*sending)
        for limit in slo.limits:
            if limit.quantity == "tbt":
                found[limit.name] = request.gap / limit.seconds
                continue
            moments: Moments = getattr(request, limit.quantity)
            value = moments.mean if limit.percentile is None else moments.percentile(limit.percentile)
            found[limit.name] = value / limit.seconds
        most = self.workload.concurrency
        if most is not None:
            found["concurrency"] = counts[1] * self.d["batch"] / most
        return {n: np.broadcast_to(np.asarray(r, dtype=float), self.devices.shape) for n, r in found.items()}

    def _score(self) -> NDArray[np.float64]:
        """What the search minimises, of a pair: devices, energy and time add up."""
        if self.problem.objective in ("throughput", "cost"):
            return np.asarray(self.devices / self.rate * (1.0 + 1e-6 * self.request.tpot.mean))
        if self.problem.objective == "time":
            return np.asarray(self.request.e2e.mean)
        return np.asarray(self.p["score"] + self.d["score"])

    def best(self) -> tuple[int, int] | None:
        """The legal pair of the least score."""
        legal = np.all([r <= 1.0 + 1e-9 for r in self.ratios.values()], axis=0)
        if not legal.any():
            return None
        index = int(np.argmin(np.where(legal, self._score(), np.inf)))
        i, j = np.unravel_index(index, legal.shape)
        return int(i), int(j)

    def nearest(self) -> tuple[int, int]:
        """The pair whose worst ratio is least; of several the cheapest."""
        worst = np.max([np.nan_to_num(r, nan=np.inf) for r in self.ratios.values()], axis=0)
        tied = worst <= worst.min() * (1.0 + 1e-9)
        i, j = np.unravel_index(int(np.argmin(np.where(tied, self._score(), np.inf))), worst.shape)
        return int(i), int(j)

    def pair(self, i: int, j: int, plans: tuple[Plan, Plan], cells: int, legal: int) -> Pair:
        """One pair as plain numbers."""

        def at(array: Any) -> float:
            return float(np.broadcast_to(array, self.devices.shape)[i, j])

        request = self.request
        moments = {n: Moments(*(at(v) for v in getattr(request, n))) for n in ("ttft", "tpot", "e2e")}
        return Pair(
            plans, (round(at(self.counts[0])), round(at(self.counts[1]))), round(at(self.devices)), at(self.rate),
            at(self.moved), Request(**moments, gap=at(request.gap)), {n: at(r) for n, r in self.ratios.items()},
            at(self._score()), cells, legal,
        )  # fmt: skip


def pool_problems(problem: ServingProblem) -> tuple[PoolProblem, PoolProblem]:
    """The problems of the two pools of a service."""
    fields = {n: getattr(problem, n) for n in problem.__dataclass_fields__}
    first, second = (PoolProblem(**{**fields, "pool": pool, "wants_front": True}) for pool in POOLS)
    return first, second
