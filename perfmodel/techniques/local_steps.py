"""Local steps with periodic synchronisation (DiLoCo): regions train apart and average every H steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perfmodel.elementwise import Scalar, maximum, where
from perfmodel.machine.build import Machine
from perfmodel.network.collectives import all_gather, all_reduce
from perfmodel.network.topology import Dim, Network
from perfmodel.specs.quality import published_rows
from perfmodel.techniques.base import Axis, Line, Situation, Technique, Term
from perfmodel.techniques.settled import Family, Plan, Settled, family_sum

__all__ = ["TECHNIQUE"]

OUTER_BYTES = 4.0
"""Bytes per parameter of the averaged difference on the wire (fp32)."""


def axes(situation: Situation) -> tuple[Axis, ...]:
    """Up to eight regions; 30, 100 or 500 steps between averages."""
    most = min(8, situation.devices)
    regions = [2**i for i in range(1, most.bit_length()) if 2**i <= most]
    pairs = [(1.0, 1.0), *((float(r), float(h)) for r in regions for h in (30, 100, 500))]
    return (Axis(("regions", "local_steps"), tuple(pairs)),)


def dims(x: Plan) -> Sequence[Dim]:
    """Farthest of all, and not synchronous: no gradient or shard crosses it."""
    return (Dim("region", x.regions, frozenset({"batch"}), near=99.0, synchronous=False),)


def _losses(situation: Situation) -> dict[float, float]:
    """Published loss by number of local steps for models of about this size."""
    from perfmodel.specs.quality import published_loss

    found = {}
    for variant in {row.variant for row in published_rows() if row.technique == "local_steps"}:
        architecture = situation.architecture
        loss = published_loss("local_steps", variant, architecture.family, architecture.parameters)
        if loss is not None:
            found[float(variant.rpartition("-h")[2])] = loss.value
    return found


def layout(x: Plan, situation: Situation) -> Mapping[str, Any]:
    """The published loss for that many steps, unknown where none is published."""
    loss: Scalar = float("nan")
    for steps, value in _losses(situation).items():
        loss = where(x.local_steps <= steps, value, loss)
    return {"quality_loss": where(x.regions > 1.0, loss, 0.0)}


def terms(x: Plan, s: Settled, machine: Machine, net: Network) -> Sequence[Term]:
    """Average the parameters' differences between regions every H steps.

    The ranks of a region that hold the same parameters share the exchange, each with its peers in the other regions,
    and gather the averages among themselves.
    """
    del machine

    def exchange(f: Family) -> Scalar:
        size = f.heaviest * OUTER_BYTES
        inside = f.among(f.group.size, f.shards(s.layout.optimizer_shards))
        gathered = all_gather(net, inside, size / f.shards(s.layout.optimizer_shards))
        return all_reduce(net, s.along("region"), size / f.group.size) + where(x.regions > 1.0, gathered, 0.0)

    seconds = family_sum(s.families, exchange)
    return [Term("outer sync", "outer", "network", seconds, "wan", every=maximum(x.local_steps, 1.0))]


def memory(x: Plan, s: Settled, machine: Machine) -> Sequence[Line]:
    """Anchor weights and outer momentum in fp32, sharded like the optimizer."""
    owned = family_sum(s.families, lambda f: f.heaviest / f.shards(s.layout.optimizer_shards))
    return [Line("outer optimizer", machine.main.tier, where(x.regions > 1.0, 8.0, 0.0) * owned)]


TECHNIQUE = Technique(
    name="local_steps",
    summary="regions train apart and average every H steps (DiLoCo)",
    source="A. Douillard et al., arXiv:2311.08105, arXiv:2501.18512",
    phases=frozenset({"training"}),
    neutral={"regions": 1.0, "local_steps": 1.0},
    axes=axes,
    dims=dims,
    layout=layout,
    terms=terms,
    memory=memory,
    opt_in=True,
)
