"""Memory ledger of a serving replica: weights and KV cache wherever a plan keeps them, the rest as engines log it.

That rest: activations of the largest pass, runtime with its communicators, captured graphs, what is left free.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from perfmodel.elementwise import Scalar, ceil, is_nothing, maximum, where
from perfmodel.machine.build import Machine
from perfmodel.operators.formats import storage
from perfmodel.operators.layers import Sizes
from perfmodel.operators.state import ParameterCounts, cache_bytes, widest
from perfmodel.specs.architecture import Architecture, Moe
from perfmodel.techniques.base import Line, Situation
from perfmodel.techniques.record import Layout
from perfmodel.techniques.settled import Settled, groups_sharing, tokens_kept
from perfmodel.units import Bytes

__all__ = ["cached_per_sequence", "layer_bytes", "packed_padding", "pass_activations", "serving_ledger"]


def _component_bytes(sizes: Sizes, counts: ParameterCounts) -> dict[str, Scalar]:
    """Stored bytes per weight of every component."""
    names = {*counts.split, *counts.whole, "experts"}
    return {name: sizes.plain_bytes if name in sizes.unquantised else sizes.weight_bytes for name in names}


def packed_padding(architecture: Architecture, framework: Mapping[str, float]) -> float:
    """Stored weights of experts over those of the checkpoint: kernels for 4-bit weights pad the hidden width [1]."""
    step = framework.get("packed_alignment", 1.0)
    widths = [ffn.latent or ffn.hidden for run in architecture.runs if isinstance(ffn := run.layer.ffn, Moe)]
    if not widths or step == 1.0 or storage(architecture.weight_format).bytes >= 1.0:
        return 1.0
    return float(ceil(widths[0] / step) * step / widths[0])


def layer_bytes(counts: ParameterCounts, sizes: Sizes, padding: float = 1.0) -> tuple[Bytes, Bytes]:
    """Stored weights of an average layer on one rank, and those of its routed experts among them [B]."""
    each = _component_bytes(sizes, counts)
    each["experts"] = each["experts"] * padding
    whole = counts.stored(sizes.weight_split, sizes.expert_split, each)
    experts = counts.experts / (sizes.weight_split * sizes.expert_split) * each["experts"]
    return whole, experts


def _ends(s: Settled, *, first: bool) -> Bytes:
    """Embedding and head of one stage, which keep 16 bits and stay on the device [B]."""
    tied = s.architecture.tied
    head = where(s.stages > 1.0, 0.0, 0.0 if tied else s.head) if first else s.head
    embedding = s.embedding if first else where(s.stages > 1.0, 0.0, s.embedding)
    head = head if first else where(s.stages > 1.0, head, 0.0 if tied else head)
    return (embedding + head) * s.sizes.plain_bytes


def pass_activations(s: Settled, framework: Mapping[str, float]) -> Bytes:
    """Most memory that activations of one pass take on a rank, as engines find it by a trial at their limits [B].

    Either the widest layer of a pass full of tokens, or what sampling holds beside the final hidden state: every logit
    of as many rows as requests may run, sorted with its index.
    """
    tokens, hidden = framework.get("pass_tokens", 0.0), s.architecture.hidden
    stream = tokens * hidden * s.sizes.element_bytes
    layer = 2.0 * stream + 1.5 * tokens * widest(s.architecture) / s.sizes.weight_split * s.sizes.element_bytes
    logits = framework.get("sampled_rows", 0.0) * s.architecture.vocab * framework.get("sampling_bytes", 0.0)
    return maximum(layer, 2.0 * stream + logits)


def _runtime(s: Settled, framework: Mapping[str, float]) -> Bytes:
    """Context and libraries, and communicators where there are several ranks [B]."""
    ranks: Scalar = 1.0
    for dim in s.dims:
        ranks = ranks * dim.degree
    alone = framework.get("runtime_memory", 0.0)
    return alone + where(ranks > 1.0, framework.get("communication_memory", 0.0), 0.0)


def cached_per_sequence(
    situation: Situation, layout: Layout, batch: Scalar, *, kv_split: Scalar, kv_bytes: Bytes
) -> Bytes:
    """Keys and values of a sequence of full length on one rank, a prefix that others share in equal parts [B].

    Where a policy drops tokens, every sequence keeps others, and nothing is shared.
    """
    workload = situation.workload
    context = 1.0 * (workload.prompt + workload.output)
    kept = tokens_kept(layout, context)
    size = partial(cache_bytes, situation.architecture, kv_split=kv_split, kv_bytes=kv_bytes)
    if not workload.shared_prefix:
        return size(kept)
    shared = where(kept < context, 0.0, 1.0 * workload.shared_prefix)
    once = where(kept < context, 0.0, size(1.0 * workload.shared_prefix))
    return size(kept - shared) + once * groups_sharing(workload, batch) / batch


def serving_ledger(
    s: Settled, machine: Machine, extra: Sequence[Line], framework: Mapping[str, float], *, first: bool
) -> tuple[Line, ...]:
    """Lines of one stage: what stays on the device, what lies where another engine runs it, what techniques add.

    Parameters
    ----------
    s : the settled decode pass.
    machine, framework : what it runs on.
    extra : lines of the techniques.
    first : the first stage, or the last.
    """
    main, layout = machine.main, s.layout
    layers = s.first_layers if first else s.last_layers
    cache = s.batch * layers * s.cache_per_sequence
    sets = layers * layout.weights_stored
    moved, routed = sets * s.layer_stored, sets * s.experts_stored
    away, cached = layout.weights_off, layout.cache_off
    lines: list[Line] = []
    for place in layout.placed:
        tier = machine.engine(place.engine).tier
        if place.part == "attention" or tier == main.tier:
            continue
        held = moved if place.part == "layers" else routed
        lines.append(Line("weights", tier, place.share * held))
        away = away + place.share * held / moved
        if place.part == "layers":
            lines.append(Line("KV cache", tier, place.share * cache))
            cached = cached + place.share
    here = moved if is_nothing(away) else moved * (1.0 - away)
    if not is_nothing(layout.experts_off):
        here = here - layout.experts_off * routed
    near = cache if is_nothing(cached) else cache * (1.0 - cached)
    unusable = (1.0 - framework.get("memory_utilisation", 1.0)) * main.capacity
    graphs = framework.get("graph_memory", 0.0)
    beside = machine.engine(layout.attention_engine)
    if beside.tier not in (main.tier, "host"):  # a device of its own, filled by the same software
        lines.append(Line("left free", beside.tier, (1.0 - framework.get("memory_utilisation", 1.0)) * beside.capacity))
    return (
        Line("weights", main.tier, here + _ends(s, first=first)),
        Line("KV cache", machine.engine(layout.attention_engine).tier, near),
        *lines,
        *extra,
        Line("activations", main.tier, pass_activations(s, framework)),
        Line("runtime", main.tier, _runtime(s, framework)),
        Line("graphs", main.tier, graphs),
        Line("left free", main.tier, max(unusable - graphs, 0.0)),
    )
