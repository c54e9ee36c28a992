"""Messages of the largest gradients against dense exchange."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run

__all__ = ["break_even_ranks", "compression", "exchange", "message"]

RATED = 1e9 / 8.0
"""One gigabit per second, as the published network is rated [B/s]."""


PER_NODE = 8.0
"""Ranks of a node: their lists do not cross its link."""
WARM_UP = 0.0037
"""Share of uncompressed steps of the shipped record, which a step of the compressed phase does not contain."""


def _per_byte(run: Run, plan: str) -> float:
    """Seconds of the exchange per byte of uncompressed gradients, on links as fast as rated [s/B]."""
    found = run.estimate(run.asked(plan))
    efficiency = found.system.cluster.levels["pod"].efficiency.value
    share = 1.0 - WARM_UP if plan == "sparse" else 1.0
    return run.busy(plan, "gradient sync") / share * efficiency / (4.0 * found.model.architecture.parameters)


def exchange(run: Run, megabytes: float) -> float:
    """Dense all-reduce of so many megabytes of gradients [s]."""
    return 1e6 * megabytes * _per_byte(run, "dense")


def message(run: Run, matrices: float, vectors: float) -> float:
    """What one rank sends of a model [ms].

    Lists of its matrices, which every rank receives from all other nodes, and its biases and norms whole.
    """
    others = float(run.asked("sparse").devices or 1) - PER_NODE
    lists = 4.0 * matrices * _per_byte(run, "sparse") / others
    return 1e3 * (lists + 4.0 * vectors / RATED)


def compression(run: Run, matrices: float, vectors: float) -> float:
    """Bytes of gradients over bytes of one rank's message."""
    return 4.0 * (matrices + vectors) / (message(run, matrices, vectors) / 1e3 * RATED)


def break_even_ranks(run: Run) -> float:
    """Ranks from which gathering lists takes longer than the dense ring: both go with the bytes that cross a link."""
    ranks = float(run.asked("sparse").devices or 1)
    return ranks * _per_byte(run, "dense") / _per_byte(run, "sparse")
