"""Weights and reductions of a model with a part of its layers."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run

__all__ = ["layer_weights", "reductions"]


def layer_weights(run: Run, plan: str, of: str) -> float:
    """Stored weights of the layers of one plan over those of another; embedding and head apart."""

    def held(name: str) -> float:
        found = run.estimate(run.asked(name))
        lines = found.plan.ledgers[0].lines
        architecture = found.model.architecture
        ends = architecture.embedding_parameters + architecture.head_parameters + architecture.extra
        return sum(line.bytes for line in lines if line.name == "weights") - 2.0 * ends

    return held(plan) / held(of)


def reductions(run: Run, plan: str, of: str) -> float:
    """Seconds of a pass on the network, one plan over another."""

    def network(name: str) -> float:
        return sum(row.busy_seconds for row in run.plan(name).terms if row.resource == "network")

    return network(plan) / network(of)
