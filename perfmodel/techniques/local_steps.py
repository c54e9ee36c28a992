"""Local steps with periodic synchronisation: regions train apart and average every H steps.

One mechanism with knobs: how often (H, or H growing as the learning rate falls), in how many fragments, how many steps
may pass while a fragment travels, in how many bytes, and whether an outer optimizer takes the averaged difference.
DiLoCo, Streaming DiLoCo, eager updates, CO2, the quadratic synchronisation rule and merging once at the end are
settings of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from perfmodel.elementwise import Scalar, ceil, floor, maximum, minimum, where
from perfmodel.machine.build import Machine
from perfmodel.network.collectives import all_gather, all_reduce
from perfmodel.network.topology import Dim, Network
from perfmodel.specs.quality import published_loss, published_rows
from perfmodel.techniques.base import Axis, Line, Situation, Technique, Term
from perfmodel.techniques.settled import Family, Plan, Settled, family_sum
from perfmodel.units import Seconds

__all__ = ["TECHNIQUE", "synchronisations"]

FOREVER = 2.0**40
"""Overlap that means until the next synchronisation, and period that means once, at the end of the run."""
SCHEDULE = tuple(0.5 * (1.0 + math.cos(math.pi * (i + 0.5) / 32.0)) for i in range(32))
"""Learning rate over its peak along a cosine schedule, at 32 midpoints."""
COLUMNS = ("regions", "local_steps", "fragments", "overlap_steps", "outer_wire", "outer_momentum", "period_growth")
STREAMED_OVERLAP, STREAMED_WIRE = 10.0, 0.5
"""Most steps of overlap and fewest bytes per parameter for which losses of streamed averages are published."""


class Method(NamedTuple):
    """A published setting: periods, layers per fragment (0: all), overlap, bytes on the wire, momentum, growth."""

    periods: tuple[float, ...]
    layers: float = 0.0
    overlap: float = 0.0
    wire: float = 4.0
    momentum: float = 1.0
    growth: float = 0.0


METHODS = {
    "DiLoCo (arXiv:2311.08105)": Method((30.0, 100.0, 500.0)),
    "Streaming DiLoCo (arXiv:2501.18512)": Method((30.0, 100.0), layers=3.0, overlap=5.0, wire=0.5),
    "eager updates (arXiv:2502.12996), CO2 (arXiv:2401.16265)": Method((100.0, 500.0), overlap=FOREVER),
    "quadratic rule (arXiv:2310.14423), alpha 0.0175 over peak rate 0.008": Method((4.0,), momentum=0.0, growth=2.19),
    "lo-fi (arXiv:2210.11948)": Method((FOREVER,), wire=2.0, momentum=0.0),
}


def axes(situation: Situation) -> tuple[Axis, ...]:
    """Up to eight regions with each published setting; without being asked for, only those of known loss."""
    most = min(8, situation.devices)
    regions = [2**i for i in range(1, most.bit_length()) if 2**i <= most]
    layers, steps = float(situation.architecture.layers), float(situation.workload.steps)
    settings = [
        (
            min(h, float(ceil(steps))),
            ceil(layers / m.layers) if m.layers else 1.0,
            m.overlap,
            m.wire,
            m.momentum,
            m.growth,
        )
        for m in METHODS.values()
        for h in m.periods
    ]
    if "local_steps" not in situation.excused:
        losses = _losses(situation)
        settings = [knobs for knobs in settings if _loss(losses, *knobs) >= 0.0]
    tuples = [NEUTRAL, *((float(r), *knobs) for r in regions for knobs in settings)]
    return (Axis(COLUMNS, tuple(dict.fromkeys(tuples))),)


NEUTRAL = (1.0, 1.0, 1.0, 0.0, 4.0, 1.0, 0.0)


def dims(x: Plan) -> Sequence[Dim]:
    """Farthest of all, and not synchronous: no gradient or shard crosses it."""
    return (Dim("region", x.regions, frozenset({"batch"}), near=99.0, synchronous=False),)


def _losses(situation: Situation) -> list[tuple[str, float, float]]:
    """Published (kind, local steps, loss) for models of about this size, most steps first."""
    architecture, found = situation.architecture, []
    for variant in sorted({row.variant for row in published_rows() if row.technique == "local_steps"}):
        loss = published_loss("local_steps", variant, architecture.family, architecture.parameters)
        if loss is not None:
            kind, _, steps = variant.rpartition("-h")
            found.append((kind, float(steps), loss.value))
    return sorted(found, key=lambda entry: -entry[1])


def _loss(
    losses: Sequence[tuple[str, float, float]],
    local_steps: Scalar,
    fragments: Scalar,
    overlap: Scalar,
    wire: Scalar,
    momentum: Scalar,
    growth: Scalar,
) -> Scalar:
    """Published loss of a setting: that of as many steps or more, of its kind; NaN where none is published."""
    outer = (momentum > 0.0) & (growth <= 0.0)
    kinds = {
        "diloco": outer & (fragments <= 1.0) & (overlap <= 0.0) & (wire >= 2.0),
        "streaming": outer & (fragments > 1.0) & (overlap <= STREAMED_OVERLAP) & (wire >= STREAMED_WIRE),
        "qsr": (momentum <= 0.0) & (growth > 0.0),
    }
    loss: Scalar = float("nan")
    for kind, steps, value in losses:
        loss = where(kinds[kind] & (local_steps <= steps), value, loss)
    return loss


def layout(x: Plan, situation: Situation) -> Mapping[str, Any]:
    """The published loss of the setting, unknown where none is published."""
    loss = _loss(
        _losses(situation),
        x.local_steps,
        x.fragments,
        x.overlap_steps,
        x.outer_wire,
        x.outer_momentum,
        x.period_growth,
    )
    return {"quality_loss": where(x.regions > 1.0, loss, 0.0)}


def synchronisations(period: Scalar, growth: Scalar) -> Scalar:
    r"""Synchronisations per step, averaged over a cosine schedule of the learning rate.

    .. math:: \overline{1/H},\quad H = \max(H_0, \lfloor (g / (\eta/\eta_{max}))^2 \rfloor)

    Parameters
    ----------
    period : least number of local steps, :math:`H_0`.
    growth : :math:`g = \alpha/\eta_{max}`; 0 keeps the period constant.

    References
    ----------
    .. [1] X. Gu et al., "A Quadratic Synchronization Rule for Distributed Deep Learning", arXiv:2310.14423.
    """
    total: Scalar = 0.0
    for rate in SCHEDULE:
        total = total + 1.0 / maximum(period, floor((growth / rate) ** 2))
    return total / len(SCHEDULE)


def terms(x: Plan, s: Settled, machine: Machine, net: Network) -> Sequence[Term]:
    """Average the parameters' differences between regions, fragment by fragment.

    The ranks of a region that hold the same parameters share the exchange, each with its peers in the other regions,
    and gather the averages among themselves. A fragment may travel while ``overlap_steps`` pass, but not longer than
    until the next one wants the line.
    """
    del machine

    def exchange(f: Family) -> Seconds:
        size = f.heaviest * x.outer_wire / x.fragments
        inside = f.among(f.group.size, f.shards(s.layout.optimizer_shards))
        gathered = all_gather(net, inside, size / f.shards(s.layout.optimizer_shards))
        return all_reduce(net, s.along("region"), size / f.group.size) + where(x.regions > 1.0, gathered, 0.0)

    every = 1.0 / (synchronisations(x.local_steps, x.period_growth) * x.fragments)
    window = minimum(x.overlap_steps, every)
    return [Term("outer sync", "outer", "network", family_sum(s.families, exchange), "wan", every=every, window=window)]


def memory(x: Plan, s: Settled, machine: Machine) -> Sequence[Line]:
    """Anchor weights and outer momentum in fp32, sharded like the optimizer; what travels meanwhile is kept as well."""
    owned = family_sum(s.families, lambda f: f.heaviest / f.shards(s.layout.optimizer_shards))
    travelling = where(x.overlap_steps > 0.0, 4.0 / x.fragments, 0.0)
    return [
        Line(
            "outer optimizer",
            machine.main.tier,
            where(x.regions > 1.0, 8.0 * x.outer_momentum + travelling, 0.0) * owned,
        )
    ]


def legal(x: Plan, s: Settled, situation: Situation) -> Mapping[str, Scalar]:
    """No more fragments than layers, and each is exchanged once a period."""
    del situation
    return {"fragments": maximum(x.fragments / s.layers, where(x.regions > 1.0, x.fragments / x.local_steps, 0.0))}


def undominated(values: tuple[tuple[Any, ...], ...], situation: Situation) -> tuple[tuple[Any, ...], ...]:
    """Settings that no other of as many regions and fragments beats, where the loss of quality does not choose.

    Time falls with rarer exchanges, fewer bytes and more overlap, memory with less momentum and nothing travelling.
    """
    if "local_steps" not in situation.excused:
        return values

    def costs(v: tuple[Any, ...]) -> tuple[float, ...]:
        _, period, fragments, overlap, wire, momentum, growth = v
        travelling = 4.0 / fragments if overlap > 0.0 else 0.0
        return (-period, float(synchronisations(period, growth)), -overlap, wire, 8.0 * momentum + travelling)

    best: dict[tuple[float, float], list[tuple[Any, ...]]] = {}
    for v in values:
        best.setdefault((v[0], v[2]), []).append(v)
    beaten = {
        a
        for alike in best.values()
        for i, a in enumerate(alike)
        for j, b in enumerate(alike)
        if i != j and all(p <= q for p, q in zip(costs(b), costs(a), strict=True)) and (costs(b) != costs(a) or j < i)
    }
    return tuple(v for v in values if v not in beaten)


def describe(x: Plan) -> str:
    """The setting in words; nothing where there is one region."""
    if x.regions <= 1.0:
        return ""
    words = [f"{x.regions:.0f} regions average every {x.local_steps:g} local steps"]
    if x.period_growth > 0.0:
        words.append("more as the learning rate falls")
    if x.fragments > 1.0:
        words.append(f"in {x.fragments:.0f} fragments")
    if x.overlap_steps > 0.0:
        longest = "until the next" if x.overlap_steps >= FOREVER else f"up to {x.overlap_steps:g} steps"
        words.append(f"overlapped {longest}")
    return ", ".join([*words, f"{x.outer_wire:g} B per parameter"])


TECHNIQUE = Technique(
    name="local_steps",
    summary="regions train apart and average every H steps (DiLoCo and its relatives)",
    source="A. Douillard et al., arXiv:2311.08105; " + "; ".join(METHODS),
    phases=frozenset({"training"}),
    neutral=dict(zip(COLUMNS, NEUTRAL, strict=True)),
    axes=axes,
    dims=dims,
    layout=layout,
    terms=terms,
    memory=memory,
    legal=legal,
    opt_in=True,
    describe=describe,
    undominated=undominated,
)
