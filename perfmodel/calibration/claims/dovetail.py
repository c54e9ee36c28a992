"""The best tree of drafts with layers on the processor, and with those that the GPU holds."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run
from perfmodel.solver.result import EvaluatedPlan

__all__ = ["device_memory", "gain", "rate"]

TREES = ((4, 1), (4, 10), (8, 10), (16, 10), (25, 10))
"""Drafted tokens and candidates that continue one."""


def _best(run: Run, share: float, memory: str | None = None) -> EvaluatedPlan:
    """The quickest tree with a share of the layers on the processor."""
    changes = {} if memory is None else {"accelerator.memory.gddr.capacity": memory}
    found = []
    for drafted, branching in TREES:
        columns = {
            **run.asked().columns, "layers_share": share, "speculation": "eagle", "drafted": drafted,
            "branching": branching,
        }  # fmt: skip
        found.append(run.evaluate(run.asked().model_copy(update={"columns": columns, "changes": changes})))
    return min(found, key=lambda plan: plan.seconds)


def rate(run: Run, memory: str | None = None) -> float:
    """Tokens per second; with a memory of the GPU, as many layers on it as fit [1/s]."""
    if memory is None:
        return 1.0 / _best(run, 1.0).seconds
    for layers in range(32, -1, -1):
        plan = _best(run, 1.0 - layers / 32.0 or 1e-9, memory)
        if plan.legal:
            return 1.0 / plan.seconds
    return float("nan")


def gain(run: Run) -> float:
    """Rate with drafts over that of the processor alone [1]."""
    return rate(run) * run.plan("alone").seconds


def device_memory(run: Run) -> float:
    """What the plan keeps on the GPU [GB]."""
    return _best(run, 1.0).ledgers[0].totals["gddr"] / 1e9
