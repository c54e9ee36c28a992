"""Partial sums of tensor parallelism that travel while the product that makes them still runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from perfmodel.elementwise import Scalar, maximum, minimum
from perfmodel.machine.build import Machine
from perfmodel.machine.engine import KernelTime
from perfmodel.machine.kernels import kernel_time
from perfmodel.operators.distinct import collapse
from perfmodel.operators.layers import row_products
from perfmodel.techniques.base import Axis, Situation, Technique
from perfmodel.techniques.settled import Plan, Settled
from perfmodel.units import Bytes, Seconds

__all__ = ["TECHNIQUE", "chunked", "fused", "fused_seconds", "scatter_traffic"]

CHUNKS = 4.0
"""Pieces into which a product is cut where software overlaps it; assumed."""


def scatter_traffic(size: Bytes, ranks: Scalar, *, in_memory: bool) -> Bytes:
    r"""Bytes that a ring reduce-scatter of ``size`` bytes moves through the memory of one rank [B].

    A step takes a piece in, reads it and its own, and sends the sum; the first piece is only read, the last sum stored:
    :math:`(3n-1)/n` of the size. Where memory adds what arrives, n - 1 pieces are updated in place and n - 2 of them
    read again to be sent on; the first is stored at the neighbour by the product itself, so not here:
    :math:`(2n-4)/n` beyond what the product stores anyway. Reads fall from :math:`(2n-1)/n` to :math:`(n-2)/n`, 2.5
    and 2.2 times among 8 and 16 ranks (published: 2.4 on average).
    """
    return size * (2.0 * ranks - 4.0 if in_memory else 3.0 * ranks - 1.0) / ranks


def fused_seconds(compute: Seconds, memory: Seconds, extra: Seconds, scatter: Seconds) -> Seconds:
    """A product whose sums leave as they are made: the longest of its compute, all its traffic, and the links [s].

    Parameters
    ----------
    compute, memory : of the product alone.
    extra : memory time of what the collective moves.
    scatter : reduce-scatter on the links.

    References
    ----------
    .. [1] S. Pati et al., "T3: transparent tracking and triggering for fine-grained overlap of compute and
       collectives", arXiv:2401.16677.
    """
    return maximum(maximum(compute, memory + extra), scatter)


def _products(s: Settled, machine: Machine) -> list[tuple[float, KernelTime]]:
    """Products of an average layer that leave partial sums, as often as they occur; equal sizes are timed once."""
    sizes, expand = collapse(s.sizes)
    found = []
    for call in row_products(s.architecture, sizes):
        kernel = kernel_time(call.work, machine.main)
        found.append((call.share, KernelTime(*map(expand, kernel)) if expand else kernel))
    return found


def fused(s: Settled, machine: Machine, size: Bytes, scatter: Seconds, gather: Seconds) -> Seconds:
    """Seconds of an average sum that hide: the reduce-scatter beside its product, less what the product loses."""
    del gather
    products = _products(s, machine)
    if not products:
        return 0.0
    whole = sum(share for share, _ in products)
    extra = scatter_traffic(size, s.degree("tensor"), in_memory=True) / machine.main.bandwidth
    hidden: Scalar = 0.0
    for share, kernel in products:
        together = fused_seconds(kernel.compute, kernel.memory, extra, scatter) + kernel.overhead
        hidden = hidden + share / whole * (kernel.seconds + scatter - maximum(together, kernel.seconds))
    return minimum(maximum(hidden, 0.0), scatter)


def chunked(s: Settled, machine: Machine, size: Bytes, scatter: Seconds, gather: Seconds) -> Seconds:
    """Both halves cut in pieces beside pieces of the products before and behind: all but the first piece can hide."""
    del size
    products = _products(s, machine)
    beside: Scalar = 0.0
    for share, kernel in products:
        beside = beside + share * kernel.seconds
    beside = beside / max(sum(share for share, _ in products), 1.0)
    piece = 1.0 - 1.0 / CHUNKS
    return piece * (minimum(scatter, beside) + minimum(gather, beside))


def either(s: Settled, machine: Machine, size: Bytes, scatter: Seconds, gather: Seconds) -> Seconds:
    """Whichever of both hides more."""
    return maximum(*(way(s, machine, size, scatter, gather) for way in (fused, chunked)))


AFTER, EITHER = "after", "either"
WAYS: dict[str, Callable[..., Seconds]] = {"fused": fused, "chunked": chunked, EITHER: either}


def axes(situation: Situation) -> tuple[Axis, ...]:
    """After the product, out of it, beside its pieces, or by whichever of both hides more."""
    del situation
    return (Axis.of("sums", [AFTER, *WAYS], structural=True),)


def layout(x: Plan, situation: Situation) -> Mapping[str, Any]:
    """The function that says how much hides."""
    del situation
    return {} if x.sums == AFTER else {"sums_hidden": WAYS[x.sums]}


def undominated(values: tuple[tuple[Any, ...], ...], situation: Situation) -> tuple[tuple[Any, ...], ...]:
    """Sums beside their product never take longer than behind it, nor the better of both ways; nothing else differs."""
    del situation
    return ((EITHER,),) if (EITHER,) in values else tuple(v for v in values if v != (AFTER,)) or values


def describe(x: Plan) -> str:
    """How the sums of tensor ranks travel."""
    words = {"fused": "fused with", "chunked": "beside chunks of", EITHER: "fused with or beside chunks of"}
    return "" if x.sums == AFTER else f"tensor sums {words[x.sums]} their products"


TECHNIQUE = Technique(
    name="fused_sums",
    summary="partial sums of tensor parallelism travel beside the product that makes them",
    source="S. Pati et al. (T3), arXiv:2401.16677; chunked: S. Wang et al., ASPLOS 2023",
    phases=frozenset({"training", "serving"}),
    neutral={"sums": AFTER},
    axes=axes,
    layout=layout,
    by_name=True,
    describe=describe,
    undominated=undominated,
)
