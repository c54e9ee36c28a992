"""Pipeline parallelism: consecutive layers on consecutive ranks, 1F1B or interleaved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perfmodel.elementwise import Scalar, ceil, is_nothing, maximum, where
from perfmodel.machine.build import Machine
from perfmodel.network.collectives import point_to_point
from perfmodel.network.topology import Dim, Network
from perfmodel.techniques.base import Axis, Line, Situation, Technique, Term
from perfmodel.techniques.settled import Plan, Settled

__all__ = ["TECHNIQUE"]


def axes(situation: Situation) -> tuple[Axis, ...]:
    """Stages: powers of two and divisors of the layers; model chunks per stage where they divide evenly."""
    layers = situation.architecture.layers
    most = min(layers, situation.devices, 128)
    stages = sorted({n for n in range(1, most + 1) if n & (n - 1) == 0 or layers % n == 0})
    if situation.phase == "serving":
        return (Axis(("pp", "virtual"), tuple((p, 1) for p in stages if p <= 16)),)
    pairs = [(p, v) for p in stages for v in (1, 2, 4, 8) if v == 1 or (p > 1 and layers % (p * v) == 0)]
    return (Axis(("pp", "virtual"), tuple(pairs), left_out=4 * len(stages) - len(pairs)),)


def dims(x: Plan) -> Sequence[Dim]:
    """The farthest synchronous ranks."""
    return (Dim("stage", x.pp, frozenset({"layers"}), near=4.0),)


def layout(x: Plan, situation: Situation) -> Mapping[str, Any]:
    """Chunks per stage; the phase derives stages from the dims."""
    del situation
    return {"virtual_stages": x.virtual}


def terms(x: Plan, s: Settled, machine: Machine, net: Network) -> Sequence[Term]:
    """Activations forward and gradients backward between neighbours, once per chunk.

    Some software launches the layers of a stage in step with its neighbours: a floor under every layer.
    """
    del machine
    framework, group = s.framework or {}, s.along("stage")
    hop = point_to_point(net, group, s.boundary_bytes)
    exposed, host = framework.get("pipeline_exposed", 1.0), framework.get("hand_over", 0.0)
    crossings = sum(passes for _, passes in s.slots) * x.virtual
    seconds = crossings * (exposed * hop + where(x.pp > 1.0, host, 0.0))
    terms = [Term("stage hand-over", "boundary", "network", seconds)]
    floor = framework.get("pipelined_launch", 0.0)
    if not is_nothing(floor):
        leaves = group.members[0] < group.size
        tensor = s.along("tensor")
        further = framework.get("pipelined_far", 0.0) * (tensor.size / tensor.members[0] - 1.0)
        wait = where(leaves, floor * tensor.size * (1.0 + further) / len(s.slots), 0.0)
        terms += [Term("stage wait", slot, "host cpu", wait, "wait", prefetch=True) for slot, _ in s.slots]
    return terms


def memory(x: Plan, s: Settled, machine: Machine) -> Sequence[Line]:
    """One activation and one gradient on their way in, and one of each on their way out."""
    held = 2.0 * len(s.slots) * s.boundary_bytes
    return [Line("communication buffers", machine.main.tier, where(x.pp > 1.0, held, 0.0))]


def legal(x: Plan, s: Settled, situation: Situation) -> Mapping[str, Scalar]:
    """No empty stage; interleaving cuts equal chunks and passes micro-batches in rounds of ``pp``."""
    layers = situation.architecture.layers
    chunk = layers / (x.pp * x.virtual)
    ratios = {"layers": maximum(1.0 / chunk, where(x.virtual > 1.0, ceil(chunk) / chunk, 1.0))}
    if situation.phase == "training":
        rounds = s.micro_batches / x.pp
        ratios["interleaving"] = where(x.virtual > 1.0, ceil(rounds) / rounds, 1.0)
    return ratios


TECHNIQUE = Technique(
    name="pipeline_parallel",
    summary="consecutive layers on consecutive ranks (1F1B, interleaved)",
    source="D. Narayanan et al., arXiv:2104.04473",
    phases=frozenset({"training", "serving"}),
    neutral={"pp": 1, "virtual": 1},
    axes=axes,
    dims=dims,
    layout=layout,
    terms=terms,
    memory=memory,
    legal=legal,
    telling=("pp",),
)
