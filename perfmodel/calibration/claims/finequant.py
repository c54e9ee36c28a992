"""Gain of four-bit weights at equal batch, and with the batch that memory allows."""

from __future__ import annotations

from perfmodel.calibration.claims.claim import Asked
from perfmodel.calibration.claims.run import Run

__all__ = ["full_gain", "gain", "room", "stored"]

CAPACITY = 80e9
"""Memory of one device as the acceptance counts it [B]."""
RATE = "output_tokens_per_second_per_device"


def _weights(run: Run, plan: str) -> float:
    return sum(line.bytes for line in run.plan(plan).ledgers[0].lines if line.name == "weights")


def stored(run: Run) -> float:
    """Weights of a device in 16 bits over those in 4."""
    return _weights(run, "fp16_1") / _weights(run, "int4_1")


def room(run: Run) -> float:
    """Memory beside the weights with 4 bits over that with 16."""
    return (CAPACITY - _weights(run, "int4_1")) / (CAPACITY - _weights(run, "fp16_1"))


def gain(run: Run, batch: int) -> float:
    """Decode passes per second with 4 bits over those with 16, at one batch."""
    return run.metric(f"fp16_{batch}.pass_seconds") / run.metric(f"int4_{batch}.pass_seconds")


def full_gain(run: Run) -> float:
    """Best output rate with 4 bits at the batch that memory allows, over that with 16 bits at its own."""

    def best(asked: Asked) -> float:
        free = asked.model_copy(update={"columns": {n: v for n, v in asked.columns.items() if n != "batch"}})
        found = run.solve(free)
        return float("nan") if found is None else float(found.metrics[RATE] or 0.0)

    return best(run.asked("int4_1")) / best(run.asked("fp16_1"))
