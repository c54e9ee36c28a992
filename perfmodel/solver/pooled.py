"""Disaggregated serving: the best plan of a prefill pool and of a decode pool, and how many replicas of each.

Each pool is searched on its own; since devices add up and latencies do, the best pair lies on the fronts of latency
against cost of the two, which are tried against each other under the limits of whole requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perfmodel.elementwise import Scalar
from perfmodel.phases.serving import evaluate_passes
from perfmodel.serving.moments import Moments
from perfmodel.serving.open_pools import LOADS, POOLS, Pool, Request, hand_over, pool_replica, prompt_bytes, together
from perfmodel.serving.steady import Replica
from perfmodel.solver.many import evaluate_each
from perfmodel.solver.problems import ServingProblem
from perfmodel.solver.search import Judged, Outcome, search
from perfmodel.solver.space import Space
from perfmodel.specs.slo import Slo
from perfmodel.techniques.base import Axis
from perfmodel.techniques.settled import Plan

__all__ = ["Pair", "PoolProblem", "best_pair", "pool_problems", "pool_space"]

MOST_REPLICAS = 16
"""Prefill replicas of one unit of a service whose rate is free."""
NEARLY = 0.97
"""Share of the best rate per device for which the smallest unit is taken."""


@dataclass
class PoolProblem(ServingProblem):
    """Judge replicas of one pool."""

    pool: Pool = "prefill"

    def evaluate(self, x: Plan) -> Replica:
        """Full evaluation of one replica plan or a block."""
        passes = partial(
            evaluate_passes, techniques=self.techniques, situation=self.situation, machine=self.machine,
            network=self.network, framework=self.framework, memo=self.memo, power=self.objective == "energy",
        )  # fmt: skip
        return pool_replica(self.pool, x, passes, self.machine, self.framework)

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
    "bytes", "score", "batch",
)  # fmt: skip


def _read(problem: PoolProblem, replica: Replica) -> tuple[Scalar, ...]:
    tails = replica.tails
    assert tails is not None  # noqa: S101 - both pools have tails
    score = problem.per_request(replica)
    return (
        replica.rate, replica.devices, *tails.ttft, *tails.tpot, tails.tbt(99.0), prompt_bytes(replica), score,
        replica.settled.batch,
    )  # fmt: skip


def best_pair(problems: Sequence[PoolProblem], spaces: Sequence[Space]) -> Pair | None:
    """Search both pools and combine them; ``None`` where no pair keeps the limits.

    Parameters
    ----------
    problems : of the prefill pool and of the decode pool.
    spaces : of the same.
    """
    outcomes = [search(space, problem) for space, problem in zip(spaces, problems, strict=True)]
    plans = [_tried(outcome) for outcome in outcomes]
    if not all(plans):
        return None
    tables = [
        evaluate_each(problem, chosen, partial(_read, problem)) for problem, chosen in zip(problems, plans, strict=True)
    ]
    grid = _Grid(problems[1], *tables)
    found = grid.best()
    if found is None:
        return None
    cells, legal = sum(o.cells for o in outcomes), sum(o.legal for o in outcomes)
    i, j = found
    return grid.pair(i, j, (plans[0][i], plans[1][j]), cells, legal)


def _tried(outcome: Outcome) -> list[Plan]:
    """Plans on the front, and the best."""
    seen: dict[tuple[Any, ...], Plan] = {}
    for candidate in (*outcome.front, *outcome.best[:4]):
        seen.setdefault(tuple(sorted(vars(candidate.plan).items())), candidate.plan)
    return list(seen.values())


class _Grid:
    """Every prefill plan beside every decode plan."""

    def __init__(self, problem: PoolProblem, prefill: NDArray[np.float64], decode: NDArray[np.float64]) -> None:
        self.problem = problem
        self.workload = problem.situation.workload
        self.p = {name: prefill[:, i][:, None] for i, name in enumerate(FIELDS)}
        self.d = {name: decode[:, i][None, :] for i, name in enumerate(FIELDS)}
        self.counts = self._counts()
        devices = self.counts[0] * self.p["devices"] + self.counts[1] * self.d["devices"]
        self.devices = devices
        able = np.minimum(self.counts[0] * self.p["rate"], self.counts[1] * self.d["rate"])
        self.rate = able if self.workload.rate is None else np.minimum(able, self.workload.rate)
        ranks = np.minimum(self.p["devices"], self.d["devices"])
        self.transfer = hand_over(problem.network, self.d["bytes"] + 0.0 * devices, ranks, devices)
        self.moved = self.transfer + problem.framework.get("hand_over", 0.0)
        self.request = together(
            Moments(*(self.p[f"ttft {n}"] for n in Moments._fields)),
            Moments(*(self.d[f"tpot {n}"] for n in Moments._fields)),
            self.d["gap"], output=1.0 * self.workload.output, moved=self.moved,
        )  # fmt: skip
        self.ratios = self._ratios(self.workload.slo)

    def _counts(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Replicas of the two pools: for the wanted rate, or those that waste least."""
        p, d = self.p, self.d
        shape = np.broadcast_shapes(p["rate"].shape, d["rate"].shape)
        if self.workload.rate is not None:
            wanted = (np.ceil(self.workload.rate / r - 1e-9) for r in (p["rate"], d["rate"]))
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
        sending = [self.rate / count * self.transfer for count in counts]
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
