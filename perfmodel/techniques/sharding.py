"""ZeRO and hierarchical sharding: weights, gradients and optimizer state each over its own group of replicas.

One mechanism for ZeRO-1, 2, 3, for a secondary copy of the weights inside a node (ZeRO++ hpZ) and for partitioning on
three levels of bandwidth: the group sizes say which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perfmodel.elementwise import Scalar, ceil, is_nothing, maximum, where
from perfmodel.machine.build import Machine
from perfmodel.network.collectives import all_gather, gather_lines, gather_time
from perfmodel.network.topology import Network
from perfmodel.techniques.base import Axis, Line, Situation, Technique, Term
from perfmodel.techniques.settled import Plan, Settled

__all__ = ["ALL", "TECHNIQUE", "describe"]

ALL = 2.0**40
"""Group size that means every replica."""


def axes(situation: Situation) -> tuple[Axis, ...]:
    """Group sizes (weights, secondary weights, gradients, optimizer), each nearer state within the farther."""
    del situation
    near = (2.0, 8.0)
    zero = [(1.0, 1.0, 1.0, 1.0), (1.0, 1.0, 1.0, ALL), (1.0, 1.0, ALL, ALL), (ALL, ALL, ALL, ALL)]
    node = [(1.0, 1.0, 1.0, n) for n in near]
    levels = [(w, w, g, ALL) for w in (1.0, *near) for g in near if w <= g]
    copies = [(ALL, n, ALL, ALL) for n in near] + [(n, n, ALL, ALL) for n in near] + [(8.0, 2.0, 8.0, ALL)]
    columns = ("weights_group", "secondary_group", "gradients_group", "optimizer_group")
    tuples = tuple(dict.fromkeys(zero + node + levels + copies))
    return (Axis(columns, tuples, left_out=4**4 - len(tuples)),)


def layout(x: Plan, situation: Situation) -> Mapping[str, Any]:
    """Groups of the three states."""
    del situation
    return {
        "weights_shards": x.weights_group,
        "gradients_shards": x.gradients_group,
        "optimizer_shards": x.optimizer_group,
    }


def terms(x: Plan, s: Settled, machine: Machine, net: Network) -> Sequence[Term]:
    """Gathers before each layer of each pass, a scatter of its gradients, and updated weights after the step.

    A layer is gathered in ``gathers_per_layer`` collectives; ``gather_exposed`` of gathers and scatters is not hidden.
    """
    del machine
    emitted = []
    framework = s.framework or {}
    late = framework.get("update_exposed", 1.0)
    pieces, exposed = framework.get("gathers_per_layer", 1.0), framework.get("gather_exposed", 0.0)

    def travel(name: str, slot: str, seconds: Scalar) -> list[Term]:
        """The part that hides behind computation, and the part that does not."""
        beside = Term(name, slot, "network", (1.0 - exposed) * seconds, "net", prefetch=True)
        return [beside] if is_nothing(exposed) else [beside, Term(name, slot, "network", exposed * seconds)]

    def gather(lines: tuple[Any, ...], parameters: Scalar, pieces: float = 1.0) -> Scalar:
        """So many parameters, piece by piece, and the scales of each piece where it is quantised."""
        part, scales = parameters / pieces, s.layout.scales_wire
        seconds = gather_time(lines, part * s.weights_wire)
        if not (isinstance(scales, float) and scales == 0.0):
            seconds = seconds + where(scales > 0.0, gather_time(lines, part * scales), 0.0)
        return pieces * seconds

    for f in s.families:
        weights, optimizer = f.shards(x.weights_group), f.shards(x.optimizer_group)
        primary = gather_lines(net, f.among(weights))
        secondary = gather_lines(net, f.among(f.shards(x.secondary_group)))
        gradients = gather_lines(net, f.among(f.shards(x.gradients_group)))
        parts = framework.get("gradient_pieces", 1.0)
        parts = parts * s.first_layers if parts > 1.0 else 1.0
        tail = parts * all_gather(net, f.among(optimizer, weights), f.heaviest / weights * s.weights_bytes / parts)
        emitted += travel("weight gather", "layer_forward", gather(primary, f.layer, pieces))
        emitted += travel("weight gather", "layer_backward", gather(secondary, f.layer, pieces))
        emitted += travel("gradient scatter", "layer_backward", gather_time(gradients, f.layer * s.gradients_wire))
        emitted.append(Term("updated weights", "tail", "network", late * tail))
        if f.name == "dense":  # embedding and head belong to the dense family
            for slot, table in (("embed", s.embedding), ("head", s.head)):
                emitted += travel("weight gather", slot, gather(primary, table))
                emitted += travel("gradient scatter", slot, gather_time(gradients, table * s.gradients_wire))
            emitted += travel("weight gather", "head", gather(secondary, s.head))
    return emitted


def memory(x: Plan, s: Settled, machine: Machine) -> Sequence[Line]:
    """Two gathered layers in flight, and the secondary copy where it is narrower than the primary."""
    tier = machine.main.tier
    window: Scalar = 0.0
    copy: Scalar = 0.0
    for f in s.families:
        weights, secondary = f.shards(x.weights_group), f.shards(x.secondary_group)
        window = window + where(weights > 1.0, 2.0 * f.layer * s.weights_bytes, 0.0)
        copy = copy + where(secondary < weights, f.heaviest * s.weights_bytes / secondary, 0.0)
    return [Line("gathered layers", tier, window), Line("secondary weights", tier, copy)]


def legal(x: Plan, s: Settled, situation: Situation) -> Mapping[str, Scalar]:
    """Groups divide the replicas and are no larger; the optimizer is sharded at least as far as the rest."""
    del situation
    group = s.families[0].group.size
    worst: Scalar = 1.0
    for size in (x.weights_group, x.secondary_group, x.gradients_group, x.optimizer_group):
        parts = maximum(group / size, 1e-9)
        worst = maximum(worst, where(size >= ALL, where(group > 1.0, 1.0, 2.0), ceil(parts) / parts))
    order = maximum(x.weights_group, x.gradients_group) / x.optimizer_group
    return {"sharding groups": maximum(worst, order)}


def describe(x: Plan) -> str:
    """Name of the groups in the field's terms."""
    weights, secondary, gradients, optimizer = (
        x.weights_group,
        x.secondary_group,
        x.gradients_group,
        x.optimizer_group,
    )
    names = {
        (False, False, False): "no sharding",
        (False, False, True): "ZeRO-1",
        (False, True, True): "ZeRO-2",
        (True, True, True): "ZeRO-3",
    }
    name = names.get((weights > 1, gradients > 1, optimizer > 1), "sharding")
    sizes = {n: s for n, s in (("weights", weights), ("gradients", gradients), ("optimizer", optimizer)) if s > 1}
    if len(set(sizes.values())) > 1:
        name = "sharded " + ", ".join(f"{n} over {'all' if s >= ALL else f'{s:.0f}'}" for n, s in sizes.items())
    elif sizes and optimizer < ALL:
        name += f" over {optimizer:.0f}"
    if secondary < weights:
        name += f", second copy over {secondary:.0f}"
    return name


TECHNIQUE = Technique(
    name="sharding",
    summary="ZeRO 1-3 and hierarchical partitioning: each state over its own group of replicas",
    source="S. Rajbhandari et al., arXiv:1910.02054; G. Wang et al. (ZeRO++), arXiv:2306.10209; arXiv:2501.04266",
    phases=frozenset({"training"}),
    neutral={"weights_group": 1, "secondary_group": 1, "gradients_group": 1, "optimizer_group": 1},
    axes=axes,
    layout=layout,
    terms=terms,
    memory=memory,
    legal=legal,
    describe=describe,
)
