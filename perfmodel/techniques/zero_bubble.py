"""Zero-bubble pipelines: weight gradients, which no other pass waits for, fill the bubbles.

The backward pass comes in two parts: of the inputs, for which the previous stage waits, and of the weights. ``zb-h1``
keeps as many micro-batches as 1F1B does on its first stage; ``zb-h2`` keeps twice as many and its stages go
through the optimizer step one after another, checking afterwards what a barrier would check before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perfmodel.elementwise import Scalar, maximum
from perfmodel.techniques.base import Axis, Situation, Technique
from perfmodel.techniques.record import Schedule
from perfmodel.techniques.settled import Plan, Settled
from perfmodel.units import Seconds

__all__ = ["SCHEDULES", "TECHNIQUE", "bubble_h1", "bubble_h2"]

PLAIN = "1f1b"


def bubble_h1(forward: Seconds, inputs: Seconds, weights: Seconds) -> Seconds:
    r"""Idle time of ZB-H1 per further stage: :math:`\max(F + B - W,\ F,\ B)` [s].

    The paper has :math:`F + B - W`, for passes of about one length. However long the weights take, the last stage
    waits :math:`F` per stage for its first micro-batch, and the first one :math:`B` per stage for its first gradient.

    References
    ----------
    .. [1] P. Qi et al., "Zero Bubble Pipeline Parallelism", arXiv:2401.10241, table 2.
    """
    return maximum(maximum(forward + inputs - weights, forward), inputs)


def bubble_h2(forward: Seconds, inputs: Seconds, weights: Seconds) -> Seconds:
    r"""Idle time of ZB-H2 per further stage: :math:`\max(F + B - 2W,\ B - F,\ 0)` [s].

    The paper has :math:`F + B - 2W`, for passes of about one length; where inputs take longer than the forward
    pass, the first stage runs out of forward passes before the first gradient is back.

    References
    ----------
    .. [1] P. Qi et al., "Zero Bubble Pipeline Parallelism", arXiv:2401.10241, table 2.
    """
    return maximum(maximum(forward + inputs - 2.0 * weights, inputs - forward), 0.0)


def _passes(micro_batches: int, warm_up: int, delay: int) -> list[tuple[str, int]]:
    """Forward passes first, then one of the inputs and one forward in turn; weights follow ``delay`` later."""
    started = min(warm_up, micro_batches)
    found = [("F", j) for j in range(started)]
    for j in range(micro_batches):
        found.append(("B", j))
        if j >= delay:
            found.append(("W", j - delay))
        if started < micro_batches:
            found.append(("F", started))
            started += 1
    return [*found, *(("W", j) for j in range(max(micro_batches - delay, 0), micro_batches))]


def order_h1(stages: int, micro_batches: int, stage: int) -> list[tuple[str, int]]:
    """As 1F1B; stage ``i`` does its weights ``i`` micro-batches later, so that all stages keep equally many."""
    return _passes(micro_batches, stages - stage, stage)


def order_h2(stages: int, micro_batches: int, stage: int) -> list[tuple[str, int]]:
    """Nearly twice the forward passes before the first gradient, and weights twice as late."""
    return _passes(micro_batches, 2 * (stages - stage) - 1, 2 * stage)


def held_h1(stages: Scalar) -> Scalar:
    """Micro-batches kept by every stage: as by the first one of 1F1B."""
    return stages


def held_h2(stages: Scalar) -> Scalar:
    """Micro-batches kept by every stage."""
    return 2.0 * stages - 1.0


SCHEDULES = {
    "zb-h1": Schedule(bubble_h1, held_h1, order_h1),
    "zb-h2": Schedule(bubble_h2, held_h2, order_h2, staggered=True),
}


def axes(situation: Situation) -> tuple[Axis, ...]:
    """1F1B and both schedules."""
    del situation
    return (Axis.of("schedule", [PLAIN, *SCHEDULES], structural=True),)


def layout(x: Plan, situation: Situation) -> Mapping[str, Any]:
    """The schedule, where it is not 1F1B."""
    del situation
    return {} if x.schedule == PLAIN else {"schedule": SCHEDULES[x.schedule]}


def legal(x: Plan, s: Settled, situation: Situation) -> Mapping[str, Scalar]:
    """Two stages or more, not cut in chunks, and enough micro-batches to fill them."""
    del situation
    if x.schedule == PLAIN:
        return {}
    filled = SCHEDULES[x.schedule].held(s.stages) / s.micro_batches
    return {"zero bubble": maximum(maximum(2.0 / s.stages, s.layout.virtual_stages), filled)}


TECHNIQUE = Technique(
    name="zero_bubble",
    summary="weight gradients fill the bubbles of the pipeline (ZB-H1, ZB-H2)",
    source="P. Qi et al., arXiv:2401.10241",
    phases=frozenset({"training"}),
    neutral={"schedule": PLAIN},
    axes=axes,
    layout=layout,
    legal=legal,
    by_name=True,
)
