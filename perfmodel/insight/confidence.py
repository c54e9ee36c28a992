"""How sure: draws of the uncertain constants, shared by all plans, give intervals and the odds that the winner wins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from perfmodel.insight.kernels import KernelUse
from perfmodel.machine.build import DEFAULT_SPREAD
from perfmodel.solver.result import EvaluatedPlan, Interval, TermRow

__all__ = ["Draws", "draw"]

SAMPLES = 2000
NORMAL_80 = 1.2816
"""Standard deviations in the half-width of a normal 80 % interval."""
INDEPENDENT = 0.04
"""Relative half-width of what two plans do not share: repeatability of measured steps; assumed."""
GROUPS = ("matrix", "experts", "attention", "memory", "prefill", "network", "host")


class Draws(NamedTuple):
    """Outcome of the draws for a list of plans, the first being the chosen one."""

    interval: Interval
    win_probability: float | None
    regret: float | None


def _group(row: TermRow) -> str:
    """Uncertain quantity that a term scales with."""
    if row.resource == "network" or "link" in row.resource or row.name in ("stage hand-over",):
        return "network"
    if "host" in row.resource or row.name == "step overhead":
        return "host"
    if row.name in ("attention", "experts"):
        return row.name
    if row.name in ("elementwise", "optimizer", "softmax", "unpack weights", "quantise"):
        return "memory"
    return "matrix"


def _spreads(
    uses: Mapping[str, KernelUse], others: Mapping[str, KernelUse], network_spread: float
) -> NDArray[np.float64]:
    """Relative half-widths by group; a group that no kernel is of has none."""
    by_group = {group: use.spread for group, use in uses.items()}
    total = sum(use.seconds for use in others.values())
    if total:
        by_group["prefill"] = sum(use.spread * use.seconds for use in others.values()) / total
    by_group |= {"network": network_spread, "host": DEFAULT_SPREAD["assumed"]}
    return np.array([by_group.get(g, 0.0) for g in GROUPS])


def draw(
    plans: Sequence[EvaluatedPlan],
    scores: Sequence[float],
    uses: Mapping[str, KernelUse],
    others: Mapping[str, KernelUse] = MappingProxyType({}),
    *,
    network_spread: float,
    seed: int = 0,
) -> Draws:
    """Draw the constants of every group log-normally and rescale the exposed terms of each plan.

    Exposed times are scaled linearly, so hidden communication that would emerge is not seen: a first-order interval.

    Parameters
    ----------
    plans : evaluated plans, the chosen one first.
    scores : what the search minimised, plan by plan; it is taken to scale with the time.
    uses : kernels of the timed pass by group; their residuals are the uncertainty.
    others : kernels of the prefills that delay it, when serving.
    network_spread : relative half-width of the 80 % interval of link efficiencies.
    seed : of the generator; the same question gives the same answer.
    """
    spreads = _spreads(uses, others, network_spread)
    rng = np.random.default_rng(seed)
    factors = np.exp(rng.standard_normal((SAMPLES, len(GROUPS))) * np.log1p(spreads) / NORMAL_80)
    parts = np.array([[sum(r.seconds for r in p.terms if _group(r) == g) / p.gain for g in GROUPS] for p in plans])
    rest = np.array([p.beside for p in plans])
    if others:  # the time beside the timed terms is that of prefills
        parts[:, GROUPS.index("prefill")] += rest
        rest = np.zeros_like(rest)
    own = np.exp(rng.standard_normal((SAMPLES, len(plans))) * np.log1p(INDEPENDENT) / NORMAL_80)
    times = (factors @ parts.T + rest) * own
    ordered = np.sort(times[:, 0])  # by hand: np.quantile would import numpy.ma
    low, middle, high = (float(ordered[int(share * SAMPLES)]) for share in (0.1, 0.5, 0.9))
    scale = plans[0].seconds / middle
    tier = max((u for u in uses.values()), key=lambda u: u.seconds, default=None)
    basis = f"kernels of tier {tier.tier if tier else 'class'}, 80 % half-widths " + ", ".join(
        f"{g} {s:.0%}" for g, s in zip(GROUPS, spreads, strict=True) if s
    )
    interval = Interval(low * scale, high * scale, basis)
    if len(plans) < 2:
        return Draws(interval, None, None)
    cost = times / np.array([p.seconds for p in plans]) * np.array(scores)
    best = cost.min(axis=1)
    return Draws(interval, float(np.mean(cost[:, 0] <= best * (1 + 1e-9))), float(np.mean(cost[:, 0] / best - 1.0)))
