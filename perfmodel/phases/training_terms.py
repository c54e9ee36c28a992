"""Terms of the model itself in a training step: its operators, what recomputation repeats, and the update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from perfmodel.elementwise import is_nothing, minimum
from perfmodel.machine.build import Machine
from perfmodel.machine.kernels import kernel_lower_bound, kernel_time
from perfmodel.operators.backward import backward_of, casts, narrow, unfused
from perfmodel.operators.layers import Call, embedding_calls, head_calls, layer_calls
from perfmodel.operators.streaming import optimizer_update
from perfmodel.phases.compose import HOST, add_up
from perfmodel.phases.emit import Known, call_terms
from perfmodel.phases.software import kernel_factor
from perfmodel.techniques.base import Term
from perfmodel.techniques.settled import Settled, family_sum

__all__ = ["as_libraries_run", "operator_terms", "replays", "update_terms"]


def operator_terms(s: Settled, machine: Machine, known: Known = None) -> list[Term]:
    """Terms of the model itself: a layer forward and backward, embedding, head. Depends on nothing but sizes."""
    architecture, framework = s.architecture, s.framework or {}
    streams = framework.get("elementwise_scale", 1.0)
    forward = [narrow(part) for call in layer_calls(architecture, s.sizes) for part in unfused(call)]
    backward = [narrow(b) for call in forward for b in backward_of(call)]
    forward, backward = (
        [*forward, *(c for call in forward for c in casts(call, backward=False))],
        [*backward, *(c for call in forward for c in casts(call, backward=True))],
    )
    rows = s.sizes.tokens
    head = head_calls(architecture, s.sizes, rows=rows, logit_bytes=framework.get("logit_bytes", 10.0))
    ends = {"embed": embedding_calls(architecture, s.sizes), "head": head}
    factors = kernel_factor(framework, backward=False), kernel_factor(framework, backward=True)
    terms = call_terms(
        forward, "layer_forward", machine, replayed=True, streams=streams, factor=factors[0], known=known
    )
    terms += call_terms(backward, "layer_backward", machine, streams=streams, factor=factors[1], known=known)
    if not is_nothing(framework.get("expert_launch", 0.0)):
        terms += [
            _expert_launches(slot, calls, framework)
            for slot, calls in (("layer_forward", forward), ("layer_backward", backward))
        ]
    launch = framework.get("launch_per_layer", 0.0)
    if not is_nothing(framework.get("launch_tensor", 0.0)):
        further = (minimum(s.sizes.weight_split, float(machine.per_node)) - 1.0) / 7.0
        launch = launch * (1.0 + framework["launch_tensor"] * further * further)
    for slot, scale in (("layer_forward", 1.0), ("layer_backward", framework.get("launch_backward", 1.0))):
        terms.append(Term("host launch", slot, HOST, scale * launch, "launch", prefetch=True, replayed=True))
    for slot, calls in ends.items():
        both: list[Call] = [*calls, *(b for call in calls if call.work.operator == "gemm" for b in backward_of(call))]
        terms += call_terms(both, slot, machine, factor=factors[0], known=known)
    return terms


def _expert_launches(slot: str, calls: Sequence[Call], framework: Mapping[str, float]) -> Term:
    """What every expert of a rank adds to each of its products."""
    products = [c.share * c.work.shape.batch for c in calls if c.component == "experts" and c.work.operator == "gemm"]
    seconds = framework["expert_launch"] * add_up(products)
    return Term("expert launches", slot, "launch", seconds, replayed=slot == "layer_forward")


def as_libraries_run(machine: Machine) -> Machine:
    """The machine under load; its products read operands in their own format, since casts are calls of their own."""
    loaded = machine.under_load()
    main = replace(loaded.main, covers=loaded.main.covers | {"quantise"})
    return replace(loaded, main=main, engines={**loaded.engines, "main": main})


def update_terms(s: Settled, machine: Machine) -> list[Term]:
    """The optimizer step on the device's own share of the state."""
    owned = family_sum(s.families, lambda f: f.heaviest / f.shards(s.layout.optimizer_shards))
    own = (1.0 - s.layout.optimizer_off) * s.layout.backward_passes * owned
    traffic = 2.0 * s.optimizer_bytes + s.gradients_bytes + s.weights_bytes
    work = optimizer_update(own, bytes_per_parameter=traffic)
    kernel = kernel_time(work, machine.main)
    bound = kernel_lower_bound(work, machine.main)
    return [Term("optimizer", "update", machine.main.tier, kernel.seconds, bound=bound, memory=kernel.memory)]


def replays(s: Settled, terms: Sequence[Term]) -> list[Term]:
    """Forward terms that recomputation repeats in the backward pass."""
    replay, core = s.layout.replay, s.layout.replay_core
    return [
        t._replace(
            name=t.name if t.lane != "main" else "recomputation",
            slot="layer_backward",
            seconds=t.seconds * (core if t.core else replay),
            compute=t.compute * (core if t.core else replay),
            memory=t.memory * (core if t.core else replay),
            bound=0.0,
        )
        for t in terms
        if t.slot == "layer_forward" and t.replayed
    ]
