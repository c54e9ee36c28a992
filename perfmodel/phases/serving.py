"""One serving replica: a decode pass, a prefill pass, and the memory ledger."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from perfmodel.elementwise import Scalar, is_nothing, maximum, minimum, where
from perfmodel.machine.build import Machine
from perfmodel.machine.engine import KERNEL_STAND_INS, Engine
from perfmodel.network.topology import Dim, Network
from perfmodel.operators.distinct import collapse
from perfmodel.operators.formats import STORAGE, storage
from perfmodel.operators.layers import SAMPLED_LOGIT_BYTES, Call, Sizes, embedding_calls, head_calls, layer_calls
from perfmodel.operators.state import layer_parameters
from perfmodel.phases.chunks import Chunks, chunks_of, mixed_sizes, pieces_of, prompts_gathered, prompts_held
from perfmodel.phases.compose import Longest, Node, Serial, Slot, Times, add_up
from perfmodel.phases.emit import Known, call_terms, divided, gathered, uncovered
from perfmodel.phases.host import host_of, launches, sending_of
from perfmodel.phases.judge import legality, memory_ratios
from perfmodel.phases.ledger import cached_per_sequence, layer_bytes, packed_padding, serving_ledger
from perfmodel.phases.memo import Memo
from perfmodel.phases.settle import chance_imbalance, declare, devices_of, expert_imbalance, families_of, stage_layers
from perfmodel.phases.side_by_side import overlapped
from perfmodel.phases.software import IN_PASSES, small_passes
from perfmodel.specs.sharing import leading_layers, share_keys
from perfmodel.specs.subnets import reduced
from perfmodel.techniques.base import Line, Situation, Technique, Term
from perfmodel.techniques.record import Layout
from perfmodel.techniques.settled import Plan, Settled, groups_sharing, read_in_part, split_by, tokens_kept
from perfmodel.units import Seconds

__all__ = [
    "Passes",
    "check_passes",
    "evaluate_passes",
    "mixes_tokens",
    "pass_sizes",
    "pass_terms",
    "pass_tree",
    "settle_pass",
    "settle_passes",
    "weight_format",
]

UNQUANTISED = frozenset({"router", "head", "embedding", "norms"})
"""Components that weight formats leave in 16 bits."""


@dataclass(frozen=True)
class Passes:
    """The two passes of one replica, before any load; every number may be an array over the mesh.

    Parameters
    ----------
    settled : record and derivations of the decode pass.
    decode, prefill : composition of one decode pass of the whole batch, and of the prefill of one prompt.
    pass_seconds, prefill_seconds : their elapsed times [s].
    chunks : prefills as passes hold them.
    devices : devices of the replica.
    ledgers : memory lines of the first and the last stage.
    ratios : demand / limit of every constraint but latency.
    prompt_compute : for which one prompt keeps the compute units of a stage busy [s].
    """

    settled: Settled
    decode: Node
    prefill: Node
    pass_seconds: Seconds
    prefill_seconds: Seconds
    chunks: Chunks
    devices: Scalar
    ledgers: Mapping[str, tuple[Line, ...]]
    ratios: Mapping[str, Scalar]
    prompt_compute: Seconds = 0.0


def weight_format(situation: Situation, layout: Layout) -> str:
    """Storage format of the weights: a technique's, else the checkpoint's where the engine can use it, else bf16."""
    if layout.weights_format is not None:
        return layout.weights_format
    stored, main = situation.architecture.weight_format, situation.machine.main
    packed = storage(stored).bytes < 1.0 and main.native("int4")
    return stored if main.native(stored) or packed or storage(stored).bytes >= 2.0 else "bf16"


def _kernels(stored: str, compute: str, main: Engine) -> str:
    """Format whose kernels multiply stored weights: those for 4-bit weights where the products stay in 16 bits."""
    if storage(stored).bytes < 1.0 and compute == "bf16":
        own = stored if stored in KERNEL_STAND_INS else "int4"
        return own if main.native("int4") else compute
    return stored if stored in STORAGE else compute


def pass_sizes(
    situation: Situation, dims: tuple[Dim, ...], layout: Layout, *, sequences: Scalar, queries: Scalar, context: Scalar,
    decode: bool,
) -> Sizes:  # fmt: skip
    """Sizes of one pass on one rank, in the formats of the checkpoint or of a technique."""
    name = weight_format(situation, layout)
    main, workload = situation.machine.main, situation.workload
    compute = next((f for f in storage(name).compute if f in main.matrix), "bf16")
    kept = frozenset(situation.architecture.unquantised) if layout.weights_format is None else frozenset()
    narrow = storage(workload.kv_format).bytes < 2.0 and main.native("fp8")
    cached = tokens_kept(layout, context) if decode else context
    fixed = minimum(maximum(cached - queries, 0.0), 1.0 * workload.shared_prefix)
    unread, compared = read_in_part(layout, fixed)
    whole = minimum(layout.expert_tensor, split_by(dims, "weights"))
    ranks = split_by(dims, "experts") * whole
    cache_format = layout.attention_format or ("fp8" if narrow else "bf16")
    return Sizes(
        sequences=sequences,
        queries=queries,
        context=cached,
        unread=unread,
        common=fixed * layout.prefix_together if decode and workload.shared_prefix else 0.0,
        groups=groups_sharing(workload, sequences),
        compared=compared,
        weight_split=split_by(dims, "weights"),
        expert_split=split_by(dims, "experts"),
        expert_tensor=whole,
        imbalance=expert_imbalance(situation.architecture, workload.expert_variation, ranks)
        * chance_imbalance(situation.architecture, sequences * queries * split_by(dims, "experts"), ranks),
        through_mlp=layout.through_mlp,
        idle_choices=layout.idle_choices,
        tokens_alike=layout.tokens_alike,
        weight_bytes=storage(name).bytes if layout.weights_bytes is None else layout.weights_bytes,
        computed=layout.weights_computed,
        read=layout.weights_read,
        kv_bytes=storage(workload.kv_format).bytes if layout.kv_bytes is None else layout.kv_bytes,
        unquantised=UNQUANTISED | kept,
        format=compute,
        kernels=_kernels(name, compute, main),
        cache_format=cache_format,
        decode=decode,
        fused_residual="residual" in main.covers,
        fused_latents="latents" in main.covers,
        shared_beside="shared" in main.covers,
        ungrouped="ungrouped" in main.covers,
    )


def settle_pass(
    situation: Situation,
    network: Network,
    framework: Mapping[str, float],
    dims: tuple[Dim, ...],
    layout: Layout,
    sizes: Sizes,
    batch: Scalar,
) -> Settled:
    """Everything a technique may read of one pass."""
    architecture, workload = situation.architecture, situation.workload
    if layout.shape is not None:
        architecture = reduced(architecture, *layout.shape)
    if layout.kv_map is not None:
        architecture = share_keys(architecture, layout.kv_map)
    if not sizes.decode:
        architecture = leading_layers(architecture)
    situation = situation._replace(architecture=architecture)
    stages = split_by(dims, "layers")
    counts = layer_parameters(architecture)
    first, last = stage_layers(architecture.layers, stages)
    stored, experts = layer_bytes(counts, sizes, packed_padding(architecture, framework))
    families, embedding, head = families_of(architecture, counts, dims, network, (first, last), stages)
    kv_split = split_by(dims, "kv")
    return Settled(
        situation=situation,
        network=network,
        layout=layout,
        dims=dims,
        sizes=sizes,
        counts=counts,
        families=families,
        layers=architecture.layers,
        stages=stages,
        first_layers=first,
        last_layers=last,
        micro_batches=stages,
        weights_bytes=sizes.weight_bytes,
        gradients_bytes=0.0,
        optimizer_bytes=0.0,
        weights_wire=sizes.weight_bytes,
        gradients_wire=0.0,
        boundary_bytes=sizes.tokens * architecture.hidden * sizes.element_bytes,
        slots=(("layer", 1.0),),
        framework=framework,
        batch=batch,
        context=1.0 * (workload.prompt + workload.output),
        cache_per_sequence=cached_per_sequence(situation, layout, batch, kv_split=kv_split, kv_bytes=sizes.kv_bytes),
        embedding=embedding,
        head=head,
        layer_stored=stored,
        experts_stored=experts,
    )


def pass_terms(
    s: Settled, machine: Machine, framework: Mapping[str, float], *, rows: Scalar | None = None, mixers: bool = True,
    on: str = "main", known: Known = None,
) -> list[Term]:  # fmt: skip
    """Terms of the model in one pass.

    Parameters
    ----------
    s, machine, framework : the settled pass, and what it runs on.
    rows : tokens whose logits are needed; by default one of every sequence, and all that a decode pass verifies.
    mixers : with what looks at other tokens (attention cores, recurrent scans), or only with the rest of the layers.
    on : engine that runs whole layers, cores and experts included; then of these alone.
    known : kernel times of work that other passes and plans share.
    """
    if on != "main":
        elsewhere = call_terms(layer_calls(s.architecture, s.sizes), "layer", machine, on=on, known=known)
        return [term._replace(name=f"{term.name} on {on}") for term in elsewhere]
    calls = uncovered(layer_calls(s.architecture, s.sizes), machine, s.layout.attention_engine)
    sampled = rows if rows is not None else s.sizes.tokens if s.sizes.decode else s.sizes.sequences
    head = head_calls(s.architecture, s.sizes, rows=sampled, logit_bytes=SAMPLED_LOGIT_BYTES)
    streams = framework.get("elementwise_scale", 1.0)
    kept = calls if mixers else [c for c in calls if not mixes_tokens(c)]
    kept = kept + small_passes(s.architecture, s.sizes, framework)
    placed = [p for p in s.layout.placed if p.part == "attention" or s.sizes.decode]
    terms = call_terms(kept, "layer", machine, streams=streams, placed=placed, known=known)
    terms += call_terms(embedding_calls(s.architecture, s.sizes), "embed", machine, known=known)
    terms += call_terms(head, "head", machine, known=known)
    terms.append(launches(s, framework))
    return terms


def mixes_tokens(call: Call) -> bool:
    """Whether an operator looks at other tokens of the sequence than the one it computes."""
    return call.region == "attention core" or call.component == "state space"


def pass_tree(s: Settled, terms: Sequence[Term], host: Seconds, *, latency: bool, sending: Seconds = 0.0) -> Node:
    """A pass through all stages: for a batch cut into one part per stage, or one prompt's latency.

    The device waits for ``host``; what a process of its own spends ``sending`` the tokens of a pass goes on beside it.
    """
    by_slot: dict[str, list[Term]] = {}
    for term in terms:
        by_slot.setdefault(term.slot, []).append(term)

    def slot(name: str, items: Scalar = 1.0) -> Slot:
        return Slot(tuple(by_slot.get(name, ())), items=items)

    layer = slot("layer", s.layout.sub_batches if s.sizes.decode else 1.0)
    if s.layout.side_by_side and not latency:
        layer = overlapped(by_slot.get("layer", ()), s.layout.side_by_side, s.situation.machine.main)
    embed, head, boundary = slot("embed"), slot("head"), slot("boundary")
    if latency:
        hops = Times(where(s.stages > 1.0, s.stages, 0.0), boundary)
        layers = Times(float(s.layers * s.architecture.prompt_passes), layer)
        return Serial((slot("fetch"), layers, embed, head, hops))
    single = where(s.stages > 1.0, 0.0, 1.0)
    first = Serial((Times(s.first_layers, layer), embed, Times(single, head)))
    last = Serial((Times(where(s.stages > 1.0, s.last_layers, 0.0), layer), Times(1.0 - single, head)))
    around = Times(s.stages, Serial((Longest((first, last)), boundary)))
    computed = Serial((around, Slot((Term("host per pass", "host", "host cpu", host),))))
    if is_nothing(sending):
        return computed
    return Longest((computed, Slot((Term("sending tokens", "host", "host cpu", sending),))))


@dataclass(frozen=True)
class _Pass:
    """A pass before its terms: decode of the whole batch, prefill of one prompt, or a piece of one beside decodes."""

    name: str
    settled: Settled


def _settled_passes(
    x: Plan, techniques: Sequence[Technique], situation: Situation, network: Network, framework: Mapping[str, float]
) -> Iterator[_Pass]:
    """Settle the passes of a replica plan one by one, the decode pass first."""
    workload = situation.workload
    dims, layout, _ = declare(techniques, x, situation)
    per_rank = x.batch / split_by(dims, "batch")
    parts = split_by(dims, "layers") * layout.sub_batches
    decode = pass_sizes(
        situation, dims, layout, sequences=per_rank / parts, queries=layout.verify_tokens,
        context=workload.prompt + workload.output * _half_grown(workload.length_variation), decode=True,
    )  # fmt: skip
    settle = partial(settle_pass, situation, network, framework, dims, layout)
    yield _Pass("decode", settle(decode, per_rank))
    gathered = prompts_gathered(per_rank, workload, layout, framework)
    prefill = pass_sizes(
        situation, dims, layout, sequences=gathered,
        queries=workload.prompt - workload.shared_prefix - layout.kv_fetched * workload.reused,
        context=1.0 * workload.prompt, decode=False,
    )  # fmt: skip
    if layout.pieces_apart and not layout.kv_fetched:
        prefill = replace(prefill, pieces=1.0 * workload.pieces, piece=workload.reused / workload.pieces)
    beside = framework.get("mixed_batches", 1.0) * per_rank / split_by(dims, "layers") * layout.verify_tokens
    count = pieces_of(prefill.queries, framework, layout.chunk_tokens)
    held = prompts_held(per_rank, workload, layout, framework) * gathered
    parts = layout.side_by_side or 1.0
    mixed = mixed_sizes(prefill, count, beside, crowded=workload.random_arrivals, held=held, parts=parts)
    passes = {"prefill": prefill, **mixed}
    yield from (_Pass(name, settle(sizes, per_rank)) for name, sizes in passes.items())


def _half_grown(variation: Scalar) -> Scalar:
    """Output tokens that a request in flight has, over the mean output: long requests are met more often."""
    return 0.5 * (1.0 + variation * variation)


def settle_passes(
    x: Plan, techniques: Sequence[Technique], situation: Situation, network: Network, framework: Mapping[str, float]
) -> dict[str, Settled]:
    """Sizes and groups of the ``decode`` and the ``prefill`` pass of a replica plan, without their terms."""
    return {p.name: p.settled for p in _settled_passes(x, techniques, situation, network, framework)}


def _legal(x: Plan, s: Settled, techniques: Sequence[Technique], situation: Situation) -> dict[str, Scalar]:
    """Demand / limit of every count and divisibility."""
    counts = {
        "batch": s.stages * s.layout.sub_batches / s.batch,
        "device count": devices_of(s.dims) / situation.devices,
    }
    return legality(x, s, techniques, situation, counts)


def check_passes(
    x: Plan, techniques: Sequence[Technique], situation: Situation, network: Network, framework: Mapping[str, float]
) -> dict[str, Scalar]:
    """How well formed a replica plan is."""
    decode = next(_settled_passes(x, techniques, situation, network, framework)).settled
    return _legal(x, decode, techniques, situation)


def _model_terms(
    part: _Pass, machine: Machine, framework: Mapping[str, float], memo: Memo[list[Term]], *, power: bool, bounds: bool
) -> list[Term]:
    """Terms of the model in one pass, remembered by its sizes."""
    s = part.settled
    small, expand = collapse(s.sizes)
    rows = 1.0 if part.name in ("mixed", "crowded") else None
    parts = tuple(p for p in s.layout.placed if p.part != "layers" and s.sizes.decode)  # prompts run on the device
    key = (part.name, parts, s.layout.kv_map, s.layout.shape, *(framework.get(n, 0.0) for n in IN_PASSES), small)

    def on(engine: str) -> list[Term]:
        found = partial(pass_terms, replace(s, sizes=small), machine, framework, rows=rows, on=engine, known=memo.known)
        own = memo.get((engine, *key), found)
        busy = power or part.name == "prefill" or bool(s.layout.side_by_side)
        return gathered(own, expand, power=busy, bounds=bounds) if expand else list(own)

    return divided(s, on)


def evaluate_passes(
    x: Plan,
    techniques: Sequence[Technique],
    situation: Situation,
    machine: Machine,
    network: Network,
    framework: Mapping[str, float],
    memo: Memo[list[Term]] | None = None,
    *,
    power: bool = False,
    bounds: bool = False,
    sent: bool = True,
) -> Passes:
    """Evaluate the passes of one replica plan, or of a whole mesh of plans at once.

    The batch ``x.batch`` is that of the whole replica; ``power`` follows how busy compute units and memory are,
    ``bounds`` keeps the lower bounds of the passes of a mesh, and with ``sent`` a decode pass lasts no less than its
    tokens take to be sent.
    """
    memo = memo or Memo()
    terms: dict[str, list[Term]] = {}
    settled: dict[str, Settled] = {}
    for part in _settled_passes(x, techniques, situation, network, framework):
        s = settled[part.name] = part.settled
        own = _model_terms(part, machine, framework, memo, power=power, bounds=bounds)
        terms[part.name] = own + [t for technique in techniques for t in technique.terms(x, s, machine, network)]
    s = settled["decode"]
    lines = [line for technique in techniques for line in technique.memory(x, s, machine)]
    host = host_of(framework, s)
    sending = sending_of(framework, s) * s.layout.tokens_per_pass if sent else 0.0
    decode = pass_tree(s, terms["decode"], host, latency=False, sending=sending)
    prefill = pass_tree(settled["prefill"], terms["prefill"], 0.0, latency=True)
    ledgers = {
        stage: serving_ledger(s, machine, lines, framework, first=stage == "first") for stage in ("first", "last")
    }
    ratios = {**_legal(x, s, techniques, situation), **memory_ratios(ledgers, machine)}
    chunks = chunks_of(terms, settled, framework, host)
    units = _busy_units(settled["prefill"], terms["prefill"])
    return Passes(
        s, decode, prefill, decode.elapsed(), prefill.elapsed(), chunks, devices_of(s.dims), ledgers, ratios, units
    )


def _busy_units(s: Settled, terms: Sequence[Term]) -> Seconds:
    """For how long one prompt keeps the compute units of the fullest stage busy [s]."""
    layer = add_up([t.compute for t in terms if t.slot == "layer"])
    return minimum(1.0 * s.first_layers, 1.0 * s.layers) * s.architecture.prompt_passes * layer / s.sizes.sequences
