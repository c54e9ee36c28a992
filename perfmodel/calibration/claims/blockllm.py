"""Memory of many models on a device, some of whose weights are the same."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run

__all__ = ["memory"]


def memory(run: Run, alike: float) -> float:
    """Weights of all tenants over those of one."""
    asked = run.claim.common
    changes = {**asked.workload_changes, "models_alike": alike}
    (ledger,) = run.evaluate(asked.model_copy(update={"workload_changes": changes})).ledgers
    held = {line.name: float(line.bytes) for line in ledger.lines}
    return (held["weights"] + held.get("other models", 0.0)) / held["weights"]
