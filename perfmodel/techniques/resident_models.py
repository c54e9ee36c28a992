"""Requests that choose among many models: some lie in device memory, the others are fetched when asked for.

All models are of one size and equally popular, and may have a share of their weights in common; a request finds its
model on the devices with the share of those that lie there. One request is served at a time:
batches of one model are not gathered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from perfmodel.elementwise import Scalar
from perfmodel.machine.build import Machine
from perfmodel.network.topology import Network
from perfmodel.operators.formats import storage
from perfmodel.techniques.base import Axis, Line, Situation, Technique, Term
from perfmodel.techniques.settled import Plan, Settled
from perfmodel.units import Bytes

__all__ = ["TECHNIQUE"]

STEPS = 24


def axes(situation: Situation) -> tuple[Axis, ...]:
    """How many of the workload's models lie on the devices; with a single model there is nothing to choose."""
    models = situation.workload.models
    if models == 1:
        return (Axis.of("resident_models", (1.0,)),)
    architecture, main = situation.architecture, situation.machine.main
    size = architecture.parameters * storage(architecture.weight_format).bytes
    alike = situation.workload.models_alike * size
    room = (situation.devices * main.capacity - alike) // max(size - alike, 1.0)
    most = min(float(models), max(room, 1.0))
    values = sorted({1.0, most, *(float(max(round(most * k / STEPS), 1)) for k in range(1, STEPS))})
    return (Axis.of("resident_models", values),)


def _model(s: Settled) -> Bytes:
    """Weights of one model on one rank: the heaviest stage [B]."""
    ends = s.embedding if s.architecture.tied else s.embedding + s.head
    return s.first_layers * s.layer_stored + ends * s.sizes.plain_bytes


def _own(s: Settled) -> Bytes:
    """Those that no other model has [B]."""
    return (1.0 - s.situation.workload.models_alike) * _model(s)


def terms(x: Plan, s: Settled, machine: Machine, net: Network) -> Sequence[Term]:
    """A prompt whose model is elsewhere waits for it; every rank fetches its share over its own link."""
    del net
    models = s.situation.workload.models
    if models == 1 or s.sizes.decode or machine.host_link is None:
        return []
    missing = 1.0 - x.resident_models / models
    seconds = missing * _own(s) / machine.host_link / s.first_layers
    return [Term("model switch", "layer", "host link up", seconds, core=True, bound=seconds)]


def memory(x: Plan, s: Settled, machine: Machine) -> Sequence[Line]:
    """Models beside the one that runs, and all of them behind the link."""
    models = s.situation.workload.models
    if models == 1:
        return []
    beside = Line("other models", machine.main.tier, (x.resident_models - 1.0) * _own(s))
    everything = _model(s) + (models - 1.0) * _own(s)
    return [beside, Line("all models", "host", everything)] if "host" in machine.tiers else [beside]


def legal(x: Plan, s: Settled, situation: Situation) -> Mapping[str, Scalar]:
    """One request at a time; without memory behind a link every model lies on the devices."""
    models = situation.workload.models
    if models == 1:
        return {}
    reachable = situation.machine.host_link is not None and "host" in situation.machine.tiers
    return {
        "one request of many models": s.batch / 1.0,
        "models within reach": 1.0 if reachable else models / x.resident_models,
    }


def describe(x: Plan) -> str:
    """How many models lie on the devices."""
    return "" if x.resident_models == 1.0 else f"{x.resident_models:g} models on the devices"


TECHNIQUE = Technique(
    name="resident_models",
    summary="many models in the memory behind the devices, some of them on the devices",
    source="R. Prabhakar et al. (SN40L), arXiv:2405.07518; common blocks: B. Hu et al. (BlockLLM), arXiv:2404.18322",
    phases=frozenset({"serving"}),
    neutral={"resident_models": 1.0},
    axes=axes,
    terms=terms,
    memory=memory,
    legal=legal,
    describe=describe,
    always_on=True,
)
