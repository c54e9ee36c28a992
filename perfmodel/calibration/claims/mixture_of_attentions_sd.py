"""Rounds between a client that drafts and a server that verifies."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run

__all__ = ["far", "law", "over_eagle"]

GAIN = 1.25
"""Tokens per pass over those of EAGLE-2 (abstract)."""


def law(run: Run) -> float:
    """Tokens per second of a stream over tau per sum of the terms of a round."""
    plan = run.plan("client")
    drafts = sum(row.seconds for row in plan.terms if row.name.startswith("draft") and row.name != "draft link")
    line = run.exposed("client", "draft link")
    verify = sum(row.seconds for row in plan.terms if not row.name.startswith("draft"))
    return run.metric("client.tokens_per_second_per_user") * (drafts + line + verify) / plan.gain


def far(run: Run, latency: str) -> float:
    """Speed over one call per token, over tau, at a one-way latency of the line."""
    asked = run.asked("client")
    found = run.evaluate(asked.model_copy(update={"changes": {"node.engines.client.latency": latency}}))
    value, unit = latency.split()
    trip = 2.0 * float(value) * {"s": 1.0, "ms": 1e-3}[unit]
    call = trip + run.metric("plain.pass_seconds")
    return call / float(found.metrics["tpot_seconds"] or 0.0) / found.gain


def over_eagle(run: Run) -> float:
    """Speed over EAGLE-2 if it gains so many more tokens."""
    passes = run.metric("alone.pass_seconds") / run.metric("eagle2.pass_seconds")
    return GAIN / passes
