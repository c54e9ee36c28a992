"""Pipelines: idle time and micro-batches in flight of 1F1B, plain or interleaved, its order, and every pass in time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from perfmodel.elementwise import Scalar, maximum, minimum, where
from perfmodel.phases.compose import add_up
from perfmodel.techniques.base import Term
from perfmodel.techniques.settled import Settled
from perfmodel.units import Seconds

__all__ = [
    "Order",
    "Pass",
    "in_flight",
    "interleaved_order",
    "one_forward_one_backward",
    "plain_order",
    "simulate",
    "weight_gradients",
]


def one_forward_one_backward(stage: Seconds, every_stage: Seconds, s: Settled) -> Seconds:
    """Idle time of 1F1B, plain or interleaved: the other stages' share of one micro-batch over the chunks per stage.

    Exact for 1F1B with equal stages: ``(p - 1)`` forward and backward passes of one stage.

    References
    ----------
    .. [1] D. Narayanan et al., arXiv:2104.04473, section 2.2.
    """
    return maximum(every_stage - stage, 0.0) / s.layout.virtual_stages


def in_flight(s: Settled) -> tuple[Scalar, Scalar]:
    """Micro-batches whose activations the first and the last stage hold, in units of a whole stage.

    1F1B holds ``p - i`` on stage i; interleaving over v chunks holds ``(2(p - i - 1) + (v - 1)p + 1) / v``.
    """
    p, v = s.stages, s.layout.virtual_stages
    if s.layout.schedule is not None:
        held = minimum(s.layout.schedule.held(p), maximum(s.micro_batches, 1.0))
        return held, held
    first = where(v > 1.0, (2.0 * (p - 1.0) + (v - 1.0) * p + 1.0) / v, p)
    last = where(v > 1.0, ((v - 1.0) * p + 1.0) / v, 1.0)
    most = maximum(s.micro_batches, 1.0)
    return minimum(first, most), minimum(last, most)


def weight_gradients(backward: Sequence[Term], elapsed: Seconds) -> Seconds:
    """Part of a layer's backward pass that no other pass waits for [s]."""
    return minimum(add_up([t.seconds for t in backward if t.of_weights]), elapsed)


class Pass(NamedTuple):
    """One pass of a micro-batch through the part of a stage.

    Parameters
    ----------
    kind : ``F`` forward, ``B`` backward (where weights are apart: of the inputs), ``W`` of the weights.
    micro_batch, chunk : which one, and which part of the stage's layers.
    start, end : when it runs [s].
    """

    kind: str
    micro_batch: int
    chunk: int
    start: Seconds
    end: Seconds


Order = Sequence[tuple[str, int, int]]
"""Passes of a stage in order: (kind, micro-batch, chunk)."""


def plain_order(stages: int, micro_batches: int, stage: int) -> list[tuple[str, int, int]]:
    """1F1B: forward passes until the first gradient is back, then one of each in turn."""
    return _alternate([(j, 0) for j in range(micro_batches)], [(j, 0) for j in range(micro_batches)], stages - stage)


def interleaved_order(stages: int, micro_batches: int, chunks: int, stage: int) -> list[tuple[str, int, int]]:
    """Interleaved 1F1B: micro-batches pass in rounds of ``stages``, chunk after chunk.

    References
    ----------
    .. [1] D. Narayanan et al., arXiv:2104.04473, section 2.2.
    """
    rounds = [range(r, min(r + stages, micro_batches)) for r in range(0, micro_batches, stages)]
    ahead = [(j, c) for r in rounds for c in range(chunks) for j in r]
    back = [(j, c) for r in rounds for c in reversed(range(chunks)) for j in r]
    return _alternate(ahead, back, 2 * (stages - stage - 1) + (chunks - 1) * stages + 1)


def _alternate(
    ahead: Sequence[tuple[int, int]], back: Sequence[tuple[int, int]], warm_up: int
) -> list[tuple[str, int, int]]:
    started = min(warm_up, len(ahead))
    found = [("F", *entry) for entry in ahead[:started]]
    for i, entry in enumerate(back):
        found.append(("B", *entry))
        found += [("F", *f) for f in ahead[started + i : started + i + 1]]
    return found


def simulate(orders: Sequence[Order], seconds: Sequence[Mapping[str, Seconds]], chunks: int = 1) -> list[list[Pass]]:
    """Run every stage's passes in order, each as soon as what it waits for is there.

    Parameters
    ----------
    orders : passes of each stage.
    seconds : for each stage, seconds of a pass through one chunk by kind.
    chunks : parts of a stage; part ``c`` of stage ``i`` is the ``c * stages + i``-th of the model.

    Returns
    -------
    list[list[Pass]]
        Passes of each stage in order of time.

    Raises
    ------
    ValueError
        If the orders wait for each other.
    """
    stages, found = len(orders), [list[Pass]() for _ in orders]
    parts, ends = stages * chunks, dict[tuple[str, int, int], Seconds]()

    def ready(kind: str, micro_batch: int, part: int) -> Seconds | None:
        if kind == "F":
            return ends.get(("F", micro_batch, part - 1)) if part else 0.0
        if kind == "W":
            return ends.get(("B", micro_batch, part))
        before = ("F", micro_batch, part) if part == parts - 1 else ("B", micro_batch, part + 1)
        return ends.get(before)

    moved = True
    while moved:
        moved = False
        for i, order in enumerate(orders):
            while len(found[i]) < len(order):
                kind, micro_batch, chunk = order[len(found[i])]
                part = chunk * stages + i
                since = ready(kind, micro_batch, part)
                if since is None:
                    break
                start = max(since, found[i][-1].end if found[i] else 0.0)
                end = start + seconds[i][kind]
                found[i].append(Pass(kind, micro_batch, chunk, start, end))
                ends[kind, micro_batch, part] = end
                moved = True
    if any(len(passes) < len(order) for passes, order in zip(found, orders, strict=True)):
        raise ValueError("the stages wait for each other")
    return found
