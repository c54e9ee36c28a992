"""Data parallelism: replicas of the model work on different sequences and agree on the gradient once a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from perfmodel.elementwise import Scalar, maximum
from perfmodel.machine.build import Machine
from perfmodel.network.collectives import all_reduce, reduce_scatter
from perfmodel.network.topology import Network
from perfmodel.techniques.base import Axis, Situation, Technique, Term
from perfmodel.techniques.settled import Plan, Settled

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
    """Reduce what each micro-batch has not reduced yet: scatter up to the optimizer's shards, all-reduce beyond."""
    del x, machine
    emitted = []
    for family in s.families:
        g = family.shards(s.layout.gradients_shards)
        o = maximum(family.shards(s.layout.optimizer_shards), g)
        size = family.heaviest * s.gradients_wire / g
        seconds = reduce_scatter(net, family.among(o, g), size)
        seconds = seconds + all_reduce(net, family.among(family.group.size, o), size * g / o)
        emitted.append(Term("gradient sync", "sync", "network", seconds, "net"))
    return emitted


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
)
