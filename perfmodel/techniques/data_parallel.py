"""Data parallelism: replicas of the model work on different sequences and agree on the gradient once a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from perfmodel.elementwise import Scalar, maximum
from perfmodel.machine.build import Machine
from perfmodel.network.collectives import all_gather, all_reduce, reduce_scatter
from perfmodel.network.topology import Network
from perfmodel.techniques.base import Axis, Situation, Technique, Term
from perfmodel.techniques.settled import Family, Plan, Settled
from perfmodel.units import Seconds

__all__ = ["TECHNIQUE"]


def axes(situation: Situation) -> tuple[Axis, ...]:
    """Whole nodes in powers of two up to the whole machine; micro-batches of 1 to 8 sequences."""
    return (Axis.of("devices", device_counts(situation)), Axis.of("micro_batch", (1, 2, 4, 8)))


def device_counts(situation: Situation) -> list[int]:
    """Powers of two of nodes, and the largest allowed count."""
    per_node = situation.machine.per_node
    counts = []
    count = per_node
    while count <= situation.devices:
        counts.append(count)
        count *= 2
    if situation.devices < per_node or situation.devices not in counts:
        counts.append(situation.devices)
    return counts


def terms(x: Plan, s: Settled, machine: Machine, net: Network) -> Sequence[Term]:
    """Reduce what each micro-batch has not reduced yet: scatter up to the optimizer's shards, all-reduce beyond.

    Where contributions cannot be added on the way, every rank gathers them all. Steps in which gradients still travel
    as stored have a term of their own. Software that scatters tensor by tensor pays ``gradient_pieces`` collectives per
    layer, other software one; whole gradients are summed in buckets, ``whole_exposed`` says how much less that shows.
    """
    del x, machine
    lane = "main" if s.layout.sync_at_update else "net"
    plain = s.layout.uncompressed_steps
    emitted = []
    for family in s.families:
        gather = s.layout.gradients_gathered
        if plain < 1.0:
            seconds = _exchange(family, s, net, s.gradients_wire, gather=gather)
            emitted.append(Term("gradient sync", "sync", "network", seconds, lane, every=1.0 / (1.0 - plain)))
        if plain > 0.0:
            seconds = _exchange(family, s, net, s.gradients_bytes, gather=False)
            emitted.append(Term("uncompressed gradient sync", "sync", "network", seconds, "net", every=1.0 / plain))
    return emitted


def _exchange(family: Family, s: Settled, net: Network, width: Scalar, *, gather: bool) -> Seconds:
    """Exchange of ``width`` bytes per gradient of a family [s]."""
    g = family.shards(s.layout.gradients_shards)
    size = family.heaviest * width / g
    if gather:
        return all_gather(net, family.among(family.group.size, g), size * family.group.size / g)
    o = maximum(family.shards(s.layout.optimizer_shards), g)
    pieces = (s.framework or {}).get("gradient_pieces", 1.0)
    pieces = pieces * s.first_layers if pieces > 1.0 else 1.0
    scattered = pieces * reduce_scatter(net, family.among(o, g), size / pieces)
    whole = (s.framework or {}).get("whole_exposed", 1.0)
    return scattered + whole * all_reduce(net, family.among(family.group.size, o), size * g / o)


def legal(x: Plan, s: Settled, situation: Situation) -> Mapping[str, Scalar]:
    """Every replica has at least one sequence of the global batch; what does not divide is padded and paid for."""
    if situation.phase != "training":
        return {}
    workload = situation.workload
    return {"global batch": s.split("batch") * x.micro_batch * workload.sequence / workload.global_batch}


TECHNIQUE = Technique(
    name="data_parallel",
    summary="replicas work on different sequences and average gradients",
    source="standard practice; P. Goyal et al., arXiv:1706.02677",
    phases=frozenset({"training"}),
    neutral={"micro_batch": 1},
    axes=axes,
    terms=terms,
    legal=legal,
    always_on=True,
)
