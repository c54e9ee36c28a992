"""How far a technique pays: the value of a column, such as the batch, from which a plan is quicker without it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from perfmodel.insight.setting import Setting
from perfmodel.solver.problems import ServingProblem
from perfmodel.techniques.base import Technique
from perfmodel.techniques.settled import Plan

__all__ = ["Turning", "turning_points"]


class Turning(NamedTuple):
    """Where a technique in use stops paying, everything else of the plan staying.

    Parameters
    ----------
    technique, column : which technique, as which column grows.
    now, gain : the plan's value, and how many times the tokens per second of a decode pass the technique makes there.
    until : largest value tried up to which it pays; ``None`` where it pays at every one.
    loss_at, loss : the next value tried, and what is left of the speed there; ``None`` where it pays at every one.
    """

    technique: str
    column: str
    now: float
    gain: float
    until: float | None
    loss_at: float | None
    loss: float | None


def turning_points(setting: Setting, x: Plan) -> tuple[Turning, ...]:
    """Every technique of a serving plan that says with which column its gain vanishes."""
    problem = setting.problem
    if not isinstance(problem, ServingProblem):
        return ()
    active = [t for t in problem.techniques if t.pays_within is not None and _in_use(t, x)]
    return tuple(_turning(problem, t, x) for t in active)


def _in_use(technique: Technique, x: Plan) -> bool:
    return any(getattr(x, n) != v for n, v in technique.neutral.items())


def _turning(problem: ServingProblem, technique: Technique, x: Plan) -> Turning:
    column = str(technique.pays_within)
    axes = (axis for t in problem.techniques for axis in t.axes(problem.situation) if column in axis.columns)
    axis = next(axes)
    now = float(getattr(x, column))
    tried = sorted({float(v[axis.columns.index(column)]) for v in axis.values} | {now})
    ratio = dict(zip(tried, _gains(problem, technique, x, column, tried), strict=True))
    until, lost = None, None
    for value in tried:
        if ratio[value] <= 1.0:
            lost = value
            break
        until = value
    if lost is None:
        return Turning(technique.name, column, now, ratio[now], None, None, None)
    return Turning(technique.name, column, now, ratio[now], until or 0.0, lost, ratio[lost])


def _gains(problem: ServingProblem, technique: Technique, x: Plan, column: str, values: list[float]) -> list[float]:
    """Tokens per second of a decode pass with the technique over those without it."""
    speeds = []
    for changes in ({}, dict(technique.neutral)):
        replica = problem.evaluate(Plan(**{**vars(x), **changes, column: np.array(values)}))
        speed = replica.settled.layout.tokens_per_pass / replica.pass_seconds
        speeds.append(np.broadcast_to(np.asarray(speed, dtype=float), (len(values),)))
    return [float(v) for v in speeds[0] / speeds[1]]
