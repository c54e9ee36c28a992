"""A model as operator calls: the layers of an architecture, cut by the sizes that parallelism left on one rank."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from perfmodel.elementwise import Scalar, is_nothing, maximum, minimum
from perfmodel.operators import attention as attn
from perfmodel.operators import streaming
from perfmodel.operators.formats import storage
from perfmodel.operators.gemm import gemm
from perfmodel.operators.moe import expected_loads, moe
from perfmodel.operators.sizes import Sizes
from perfmodel.operators.work import Work
from perfmodel.specs.architecture import (
    Architecture,
    Attention,
    LatentAttention,
    Layer,
    Linear,
    LinearAttention,
    Mlp,
    Moe,
    Run,
    StateSpace,
)

__all__ = [
    "DECODE_OPERATORS",
    "SAMPLED_LOGIT_BYTES",
    "Call",
    "Sizes",
    "active_experts",
    "busy_experts",
    "embedding_calls",
    "head_calls",
    "layer_calls",
    "product_call",
    "row_products",
]


DECODE_OPERATORS = frozenset({"decode_attention", "latent_decode"})
"""Operator classes of attention to a long cache: what an engine beside the accelerator may take over."""

SAMPLED_LOGIT_BYTES = 8.0
"""Traffic of softmax and sampling per logit: 16-bit write, fp32 read and write; assumed [B]."""


class Call(NamedTuple):
    """One operator of an average layer.

    Parameters
    ----------
    name : what tables and bars call it.
    work : sizes counted for one rank.
    share : share of the layers that contain it; an average layer pays ``share`` times its time.
    region : ``attention core`` for what selective recomputation replays, else ``layer``.
    component : which part of the model it belongs to.
    part : what measured attention kernels may do besides, and then is not counted again: ``rotary``.
    """

    name: str
    work: Work
    share: float
    region: str = "layer"
    component: str = "mlp"
    part: str = ""
    of_weights: bool = False
    """A weight gradient: no other pass waits for it."""
    beside: bool = False
    """On a second stream of the device: nothing of the layer waits for it unless it takes longest."""


def layer_calls(architecture: Architecture, sizes: Sizes) -> list[Call]:
    """Operator calls of the forward pass of an average layer: each kind of layer weighted by its share."""
    calls: list[Call] = []
    for run in _kinds(architecture):
        share = run.count / architecture.layers
        calls += [call._replace(share=share * call.share) for call in _layer(run.layer, architecture.hidden, sizes)]
    return calls


def _kinds(architecture: Architecture) -> list[Run]:
    """Distinct layers with their total counts."""
    counts: dict[Layer, int] = {}
    for run in architecture.runs:
        counts[run.layer] = counts.get(run.layer, 0) + run.count
    return [Run(layer, count) for layer, count in counts.items()]


def _layer(layer: Layer, hidden: int, s: Sizes) -> list[Call]:
    calls: list[Call] = []
    mixer, ffn = layer.mixer, layer.ffn
    if isinstance(mixer, Attention):
        calls += _attention(mixer, s)
    elif isinstance(mixer, LatentAttention):
        calls += _latent(mixer, s)
    elif isinstance(mixer, StateSpace):
        calls += _state_space(mixer, s)
    elif isinstance(mixer, LinearAttention):
        calls += _linear_attention(mixer, s)
    if isinstance(ffn, Mlp):
        calls += _mlp(ffn, s)
    elif isinstance(ffn, Moe):
        calls += _moe(ffn, s)
    tokens = s.tokens / s.sequence_split
    residuals = 1 if layer.parallel else sum(p is not None for p in (mixer, ffn))
    fused = min(layer.norms, residuals) if s.fused_residual else 0
    kinds = (
        (streaming.add_norm, fused),
        (streaming.norm, layer.norms - fused),
        (streaming.residual, residuals - fused),
    )
    calls += [_stream(f(tokens, hidden, element_bytes=s.element_bytes)) for f, count in kinds for _ in range(count)]
    return calls


def _stream(work: Work, region: str = "layer") -> Call:
    """One bar for all streaming operators; the work tells them apart."""
    return Call("elementwise", work, 1.0, region, "elementwise")


def product_call(linear: Linear, tokens: Scalar, s: Sizes, component: str, name: str = "matrix multiply") -> Call:
    """GEMM of one matrix on one rank, cut by columns, rows or not at all."""
    weight_bytes, format, kernels = s.stored(component)
    n = linear.n / s.weight_split if linear.shard == "column" else linear.n
    k = linear.k / s.weight_split if linear.shard == "row" else linear.k
    read = minimum(s.element_bytes, storage(format).bytes)
    work = gemm(tokens, n, k, element_bytes=s.element_bytes, weight_bytes=weight_bytes, input_bytes=read, format=format)
    if component != "head":
        work = work._replace(compulsory_bytes=work.compulsory_bytes - (1.0 - s.read) * weight_bytes * n * k)
    if component not in s.unquantised:
        work = work._replace(flops=work.flops * s.computed, shape=work.shape._replace(k=k * s.computed))
    return Call(name, work._replace(kernels=kernels), 1.0, component=component)


def row_products(architecture: Architecture, s: Sizes) -> list[Call]:
    """Products of an average layer that leave partial sums on the ranks that share their rows."""
    calls: list[Call] = []
    for run in _kinds(architecture):
        share = run.count / architecture.layers
        for part in (run.layer.mixer, run.layer.ffn):
            linears = () if part is None else part.linears
            calls += [product_call(m, s.tokens, s, "mlp")._replace(share=share) for m in linears if m.shard == "row"]
    return calls


def _products(linears: tuple[Linear, ...], s: Sizes, component: str) -> list[Call]:
    return [product_call(linear, s.tokens, s, component) for linear in linears]


def _attention(a: Attention, s: Sizes) -> list[Call]:
    q_heads = a.heads / s.weight_split
    kv_heads = maximum(a.kv_heads / s.weight_split, 1.0)
    width = q_heads * a.head_dim + kv_heads * a.head_dim
    calls = [*_products(a.linears, s, "attention"), _stream(streaming.rotary(s.tokens, width))._replace(part="rotary")]
    for share, one in _packed(s):
        core = _core(q_heads, kv_heads, a.head_dim, a.value_dim, keys_seen(a, one.context), one, causal=a.causal)
        calls.append(core._replace(share=share))
    if a.window is None and a.index_top_k is None:
        calls += _common(q_heads, kv_heads, a.head_dim, a.value_dim, s)
    if a.window is None and a.index_top_k is None:
        calls += _comparison(q_heads, kv_heads, a.head_dim, s)
    if s.materialise and not s.decode:
        extra = attn.materialised_attention(s.sequences, q_heads, s.queries, s.context)
        written = streaming.elementwise(extra / 2.0, reads=1.0, writes=0.0, flops_per_element=2.0)
        calls.append(_stream(written, "attention core"))
    return calls


def _packed(s: Sizes) -> list[tuple[float, Sizes]]:
    """(share, pass): as if all sequences were of one length, for every class packed together; pieces, then the rest."""
    if not is_nothing(s.pieces):
        rest = replace(s, queries=s.queries - s.pieces * s.piece, pieces=0.0)
        within = replace(s, sequences=s.sequences * s.pieces, queries=s.piece, context=s.piece, unread=0.0, pieces=0.0)
        return [(1.0, within), (1.0, rest)]
    if s.decode or not s.documents:
        return [(1.0, s)]
    packs, found = s.sequences * s.context, []
    for length, share in s.documents:
        own = replace(s, sequences=packs / length, queries=length / s.context_split, context=length)
        found.append((share, own))
    return found


def keys_seen(a: Attention, context: Scalar) -> Scalar | None:
    """Keys that one query reads at most: its window plus the compressed or chosen older ones; ``None`` for all."""
    if a.window is None and a.index_top_k is None:
        return None
    seen: Scalar = 0.0 if a.window is None else float(a.window)
    if a.compression is not None:
        older = context / a.compression
        seen = seen + (older if a.index_top_k is None else minimum(older, float(a.index_top_k)))
    elif a.index_top_k is not None:
        seen = seen + float(a.index_top_k)
    return seen


def _common(q_heads: Scalar, kv_heads: Scalar, head_dim: int, value_dim: int, s: Sizes) -> list[Call]:
    """Queries of a whole group against the keys that it has in common, read once, and partial results joined.

    References
    ----------
    .. [1] J. Juravsky et al. (Hydragen), arXiv:2402.05099; Z. Ye et al., "Cascade inference", FlashInfer, 2024.
    """
    if is_nothing(s.common):
        return []
    together = s.sequences * s.queries / s.groups
    work = attn.attention(
        s.groups, q_heads, kv_heads, head_dim, value_dim, together, s.common, causal=False, kv_bytes=s.kv_bytes,
        format=s.cache_format,
    )  # fmt: skip
    joined = streaming.elementwise(s.tokens * q_heads * value_dim, reads=2.0, writes=1.0, flops_per_element=3.0)
    return [
        Call("attention", work, 1.0, "attention core", "attention core"),
        _stream(joined, "attention core")._replace(part="joining partial results"),
    ]


def _comparison(q_heads: Scalar, kv_heads: Scalar, head_dim: int, s: Sizes) -> list[Call]:
    """Queries against the keys that stand for clusters of keys; values are not read."""
    if isinstance(s.compared, float) and s.compared == 0.0:
        return []
    shared = {"kv_bytes": s.kv_bytes, "format": s.cache_format}
    if s.decode:
        work = attn.decode_attention(
            s.sequences, q_heads, kv_heads, head_dim, 0, s.compared, queries=s.queries, **shared
        )  # fmt: skip
    else:
        work = attn.attention(
            s.sequences, q_heads, kv_heads, head_dim, 0, s.queries, s.compared, causal=False, **shared
        )  # fmt: skip
    return [Call("cluster look-up", work, 1.0, "attention core", "attention core")]


def _core(
    q_heads: Scalar,
    kv_heads: Scalar,
    head_dim: int,
    value_dim: int,
    window: Scalar | None,
    s: Sizes,
    *,
    causal: bool = True,
) -> Call:
    context = s.context - s.unread - s.common if window is None else s.context
    if s.decode:
        read = q_heads if s.ungrouped else kv_heads
        work = attn.decode_attention(
            s.sequences, q_heads, read, head_dim, value_dim, context,
            queries=s.queries, window=window, kv_bytes=s.kv_bytes, format=s.cache_format,
        )  # fmt: skip
        return Call("attention", work, 1.0, "attention core", "attention core")
    # Context parallelism keeps 1/context_split of the queries of a causal triangle, balanced between ranks.
    work = attn.attention(
        s.sequences, q_heads, kv_heads, head_dim, value_dim, s.queries * s.context_split, context,
        causal=causal and not s.materialise, window=window, kv_bytes=s.kv_bytes, format=s.cache_format,
    )  # fmt: skip
    share = 1.0 / s.context_split
    shape = work.shape._replace(m=work.shape.m * share)
    work = work._replace(
        flops=work.flops * share,
        compulsory_bytes=work.compulsory_bytes * share,
        reuse=work.reuse * share,
        bound=work.bound * share,
        shape=shape,
    )
    return Call("attention", work, 1.0, "attention core", "attention core")


def _latent(a: LatentAttention, s: Sizes) -> list[Call]:
    """Unabsorbed in prefill (per-head keys and values), absorbed in decode (one latent for all heads)."""
    heads = a.heads / s.weight_split
    calls = _products(_joined(a.linears) if s.fused_latents else a.linears, s, "attention")
    calls.append(_stream(streaming.rotary(s.tokens, heads * a.rope_dim))._replace(part="rotary"))
    if s.decode:
        seen = s.context if a.index_top_k is None else minimum(s.context, a.index_top_k)
        work = attn.decode_attention(
            s.sequences, heads, 1.0, a.kv_lora_rank + a.rope_dim, a.kv_lora_rank, seen,
            queries=s.queries, kv_bytes=s.kv_bytes, latent=True, format=s.cache_format,
        )._replace(operator="latent_decode")  # fmt: skip
        calls.append(Call("attention", work, 1.0, "attention core", "attention core"))
    else:
        for share, one in _packed(s):
            core = _core(heads, heads, a.nope_dim + a.rope_dim, a.value_dim, a.index_top_k, one)
            calls.append(core._replace(work=core.work._replace(operator="latent_attention"), share=share))
    if a.index_heads:
        keys = attn.attention_pairs(s.queries, s.context) * s.sequences
        index = gemm(s.tokens, keys / s.tokens, a.index_dim, batch=a.index_heads, element_bytes=1.0, weight_bytes=0.0)
        calls.append(Call("attention", index, 1.0, "attention core", "attention core"))
    return calls


def _joined(linears: tuple[Linear, ...]) -> tuple[Linear, ...]:
    """Matrices with the projections onto the latents of queries and of keys as one."""
    down = [m for m in linears if m.name in ("q down", "kv down")]
    if len(down) < 2:
        return linears
    both = down[0]._replace(n=sum(m.n for m in down), joins=sum(m.joins for m in down))
    return (both, *(m for m in linears if m not in down))


def _state_space(a: StateSpace, s: Sizes) -> list[Call]:
    inner = a.inner / s.weight_split
    channels = a.conv_channels / s.weight_split
    streams = s.element_bytes * (3.0 * inner + 2.0 * a.groups * a.state)
    scan = streaming.selective_scan(s.sequences, s.tokens, inner, a.state, stream_bytes=streams, carry=s.decode)
    return [
        *_products(a.linears, s, "attention"),
        _stream(streaming.conv(s.tokens, channels, taps=a.conv, element_bytes=s.element_bytes)),
        Call("state space", scan, 1.0, component="state space"),
        _stream(streaming.activation(s.tokens, inner, gated=True, element_bytes=s.element_bytes)),
    ]


def _linear_attention(a: LinearAttention, s: Sizes) -> list[Call]:
    values = a.value_heads * a.value_dim / s.weight_split
    keys = a.key_heads * a.key_dim / s.weight_split
    streams = s.element_bytes * (2.0 * keys + 3.0 * values)
    scan = streaming.selective_scan(s.sequences, s.tokens, values, a.key_dim, stream_bytes=streams, carry=s.decode)
    return [
        *_products(a.linears, s, "attention"),
        _stream(streaming.conv(s.tokens, 2.0 * keys + values, taps=a.conv, element_bytes=s.element_bytes)),
        Call("state space", scan, 1.0, component="state space"),
        _stream(streaming.activation(s.tokens, values, gated=True, element_bytes=s.element_bytes)),
    ]


def _mlp(f: Mlp, s: Sizes) -> list[Call]:
    passing = replace(s, sequences=s.sequences * s.through_mlp)
    act = streaming.activation(passing.tokens, f.width / s.weight_split, gated=f.gated, element_bytes=s.element_bytes)
    return [*_products(f.linears, passing, "mlp"), _stream(act)]


def active_experts(experts: Scalar, top_k: Scalar, tokens: Scalar) -> Scalar:
    r"""Expected number of experts that at least one of ``tokens`` chooses: :math:`E(1-(1-k/E)^T)`.

    Examples
    --------
    >>> active_experts(8, 2, 1)
    2.0
    """
    return experts * (1.0 - (1.0 - top_k / experts) ** tokens)


def busy_experts(f: Moe, s: Sizes) -> Scalar:
    """Experts of one rank that at least one token of the pass chooses, at least one where any token arrives."""
    everywhere, ranks = s.tokens * s.expert_split, s.expert_split * s.expert_tensor
    top_k = f.top_k * (1.0 - s.idle_choices)
    arriving = s.tokens * top_k / s.expert_tensor * s.imbalance
    independent = maximum(everywhere / s.tokens_alike, minimum(everywhere, 1.0))
    return maximum(active_experts(f.experts, top_k, independent * s.imbalance) / ranks, minimum(arriving, 1.0))


def _moe(f: Moe, s: Sizes) -> list[Call]:
    """Router and shared experts on this rank's tokens; routed experts on the tokens that all expert ranks send here.

    The fused layer holds both grouped products, the activation between them, and what sorts and adds up the rows.
    """
    calls = []
    beside = s.shared_beside and s.decode
    for linear in f.linears:
        component = "router" if linear.name == "router" else "shared"
        calls.append(product_call(linear, s.tokens, s, component)._replace(beside=component == "shared" and beside))
    everywhere, ranks = s.tokens * s.expert_split, s.expert_split * s.expert_tensor
    top_k = f.top_k * (1.0 - s.idle_choices)
    presented = everywhere * (1.0 - (1.0 - 1.0 / ranks) ** top_k)  # those with an expert on this rank
    arriving = s.tokens * top_k / s.expert_tensor * s.imbalance
    busy = busy_experts(f, s)
    width = f.width * s.expert_tensor / s.weight_split
    weight_bytes, format, kernels = s.stored("experts")
    work = moe(
        presented, f.latent or f.hidden, width, expected_loads(arriving, busy),
        experts=f.experts / ranks, gated=float(f.gated), top_k=top_k, element_bytes=s.element_bytes,
        weight_bytes=weight_bytes, input_bytes=minimum(s.element_bytes, storage(format).bytes), format=format,
    )  # fmt: skip
    calls.append(Call("experts", work._replace(kernels=kernels), 1.0, component="experts"))
    if f.shared_width:
        shared = streaming.activation(s.tokens, f.shared_width / s.weight_split, gated=f.gated)
        calls.append(_stream(shared)._replace(beside=beside))
    return calls


def embedding_calls(architecture: Architecture, s: Sizes) -> list[Call]:
    """Table lookup on the first stage."""
    return [_stream(streaming.embedding(s.tokens / s.sequence_split, architecture.hidden))]


def head_calls(architecture: Architecture, s: Sizes, *, rows: Scalar, logit_bytes: Scalar) -> list[Call]:
    """Final norm, output head and softmax on the last stage, for ``rows`` positions."""
    linear = Linear("head", architecture.hidden, architecture.vocab)
    norm = streaming.norm(s.tokens / s.sequence_split, architecture.hidden, element_bytes=s.element_bytes)
    loss = streaming.cross_entropy(rows, architecture.vocab / s.weight_split, logit_bytes=logit_bytes)
    head = product_call(linear, rows, s, "head", "output head")
    return [_stream(norm), head, _stream(loss)]
