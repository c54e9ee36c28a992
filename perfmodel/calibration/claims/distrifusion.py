"""Gains of ranks that share an image, and what of their exchange shows."""

from __future__ import annotations

import perfmodel
from perfmodel.calibration.claims.run import Run
from perfmodel.solver.result import EvaluatedPlan

__all__ = ["shown", "speedup"]


def images(run: Run, plan: str) -> EvaluatedPlan:
    """A plan of the claim, evaluated by the public function."""
    asked = run.asked(plan)
    found = perfmodel.image_estimate(
        str(asked.model), str(asked.hw), str(asked.workload), columns=asked.columns, use=asked.use,
        workload_changes=asked.workload_changes,
    )  # fmt: skip
    return found.plan


def speedup(run: Run, plan: str, against: str = "one") -> float:
    """Latency of another plan, one device by default, over that of a plan."""
    return images(run, against).seconds / images(run, plan).seconds


def shown(run: Run, plan: str) -> float:
    """Share of the latency by which the exchange of patches lengthens it [1]."""
    found = images(run, plan)
    return sum(r.seconds for r in found.terms if r.name == "exchange of patches") / found.seconds
