"""Many plans evaluated at once: what fronts and pools need of each, as arrays instead of one evaluation per plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.elementwise import Scalar
from perfmodel.techniques.settled import Plan

if TYPE_CHECKING:
    from perfmodel.serving.steady import Replica
    from perfmodel.solver.problems import ServingProblem

__all__ = ["evaluate_each"]


def evaluate_each(
    problem: ServingProblem, plans: Sequence[Plan], read: Callable[[Replica], Sequence[Scalar]]
) -> NDArray[np.float64]:
    """Numbers of every plan, one row each; plans with the same structural columns are one evaluation.

    Parameters
    ----------
    problem : what judges them.
    plans : as plain numbers.
    read : picks numbers of an evaluated mesh.
    """
    whole = _structural(problem)
    groups: dict[tuple[tuple[str, Any], ...], list[int]] = {}
    for i, plan in enumerate(plans):
        names = tuple((n, v) for n, v in sorted(vars(plan).items()) if n in whole or isinstance(v, str))
        groups.setdefault(names, []).append(i)
    rows: list[tuple[int, NDArray[np.float64]]] = []
    for names, members in groups.items():
        columns = vars(plans[members[0]]).keys() - dict(names)
        mesh = {n: np.array([float(getattr(plans[i], n)) for i in members]) for n in columns}
        found = read(problem.evaluate(Plan(**mesh, **dict(names))))
        table = np.stack([np.broadcast_to(np.asarray(f, dtype=float), (len(members),)) for f in found], axis=1)
        rows += list(zip(members, table, strict=True))
    return np.array([row for _, row in sorted(rows, key=lambda pair: pair[0])])


def _structural(problem: ServingProblem) -> set[str]:
    """Columns whose values select code paths, and so are those of a whole mesh."""
    axes = (axis for t in problem.techniques for axis in t.axes(problem.situation))
    return {name for axis in axes if axis.structural for name in axis.columns}
