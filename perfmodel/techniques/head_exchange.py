"""Sequence parallelism by exchange (Ulysses): tokens are traded for heads in front of attention, and back behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from perfmodel.elementwise import Scalar, ceil, maximum
from perfmodel.machine.build import Machine
from perfmodel.network.collectives import all_to_all
from perfmodel.network.topology import Dim, Network
from perfmodel.operators.state import crossing_elements
from perfmodel.specs.architecture import Attention
from perfmodel.techniques.base import Axis, Situation, Technique, Term
from perfmodel.techniques.settled import Plan, Settled

__all__ = ["TECHNIQUE"]

LEAST_SEQUENCE = 16384
"""Shortest sequence for which the exchange is searched; shorter ones fit a rank."""


def axes(situation: Situation) -> tuple[Axis, ...]:
    """Powers of two up to the fewest heads of a layer, within two nodes."""
    long = situation.workload.sequence >= LEAST_SEQUENCE
    most = min(_heads(situation), 2 * situation.machine.per_node, situation.devices) if long else 1
    return (Axis.of("ulysses", [2**i for i in range(most.bit_length()) if 2**i <= most]),)


def _heads(situation: Situation) -> int:
    mixers = (run.layer.mixer for run in situation.architecture.runs)
    counts = [m.value_heads if hasattr(m, "value_heads") else getattr(m, "heads", 0) for m in mixers if m is not None]
    return min((n for n in counts if n), default=1)


def dims(x: Plan) -> Sequence[Dim]:
    """Next to the tensor ranks, nearer than a ring: an exchange needs the most bandwidth."""
    return (Dim("ulysses", x.ulysses, frozenset({"tokens"}), near=0.5),)


def terms(x: Plan, s: Settled, machine: Machine, net: Network) -> Sequence[Term]:
    """Queries, keys and values out, outputs back; backward the same for their gradients.

    Key-value heads fewer than the ranks are sent to several of them.
    """
    del machine
    queries, keys = crossing_elements(s.architecture)
    fewest = min((run.layer.mixer.kv_heads for run in s.architecture.runs if isinstance(run.layer.mixer, Attention)),
                 default=1)  # fmt: skip
    split = s.sizes.weight_split
    copies = maximum(x.ulysses * split / fewest, 1.0) if keys else 1.0
    moved = s.sizes.tokens * (queries + keys * copies) / split * s.sizes.element_bytes
    seconds = all_to_all(net, s.along("ulysses"), moved)
    return [Term("head exchange", slot, "network", seconds, replayed=True) for slot, _ in s.slots]


def legal(x: Plan, s: Settled, situation: Situation) -> Mapping[str, Scalar]:
    """Every rank of both kinds attends with the same number of heads, and holds the same number of tokens."""
    heads = _heads(situation)
    ranks = x.ulysses * s.sizes.weight_split
    tokens = situation.workload.sequence / x.ulysses
    return {"head exchange": maximum(ceil(heads / ranks) * ranks / heads, ceil(tokens) / tokens)}


TECHNIQUE = Technique(
    name="head_exchange",
    summary="ranks share the tokens of a sequence and trade them for heads around attention",
    source="S. A. Jacobs et al. (DeepSpeed-Ulysses), arXiv:2309.14509",
    phases=frozenset({"training"}),
    neutral={"ulysses": 1},
    axes=axes,
    dims=dims,
    terms=terms,
    legal=legal,
    telling=("ulysses",),
)
