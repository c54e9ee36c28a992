"""What a model keeps: parameters per rank, activations for the backward pass, KV cache and recurrent state."""

from __future__ import annotations

from typing import NamedTuple

from perfmodel.elementwise import Scalar, maximum, minimum
from perfmodel.specs.architecture import (
    Architecture,
    Attention,
    LatentAttention,
    Layer,
    LinearAttention,
    Mlp,
    Moe,
    StateSpace,
)
from perfmodel.units import Bytes

__all__ = [
    "Kept",
    "ParameterCounts",
    "activations_kept",
    "cache_bytes",
    "crossing_elements",
    "key_value_bytes",
    "layer_parameters",
    "recurrent_bytes",
    "widest",
]


class ParameterCounts(NamedTuple):
    """Parameters of an average layer before sharding, by component and by how they are cut.

    ``split`` are divided by tensor parallelism, ``whole`` are not, ``experts`` are divided by tensor and expert
    parallelism.
    """

    split: dict[str, float]
    whole: dict[str, float]
    experts: float

    def dense(self, weight_split: Scalar) -> Scalar:
        """Parameters outside routed experts on one rank of ``weight_split``."""
        return sum(self.split.values()) / weight_split + sum(self.whole.values())

    def stored(self, weight_split: Scalar, expert_split: Scalar, bytes_of: dict[str, Scalar]) -> Bytes:
        """Stored bytes per layer on one rank, ``bytes_of`` giving the bytes per weight of each component [B]."""
        total: Scalar = 0.0
        for name, count in self.split.items():
            total = total + count * bytes_of[name] / weight_split
        for name, count in self.whole.items():
            total = total + count * bytes_of[name]
        return total + self.experts * bytes_of["experts"] / (weight_split * expert_split)


def layer_parameters(architecture: Architecture) -> ParameterCounts:
    """Parameters of an average layer; their sum times the number of layers is exact."""
    split: dict[str, float] = {}
    whole: dict[str, float] = {}
    experts = 0.0
    for run in architecture.runs:
        share = run.count / architecture.layers
        layer = run.layer
        extra = float(layer.extra)
        for part in (layer.mixer, layer.ffn):
            if part is None:
                continue
            component = "attention" if part is layer.mixer else "mlp" if isinstance(part, Mlp) else "shared"
            for linear in part.linears:
                name = "router" if linear.name == "router" else component
                table = whole if linear.shard == "replicated" else split
                table[name] = table.get(name, 0.0) + share * linear.parameters
            extra += part.extra
            if isinstance(part, Moe):
                experts += share * part.expert_parameters
        whole["norms"] = whole.get("norms", 0.0) + share * extra
    return ParameterCounts(split, whole, experts)


class Kept(NamedTuple):
    """Activations of an average layer kept for the backward pass, per token of one rank [B].

    Parameters
    ----------
    boundary : the layer's input, all that full recomputation keeps.
    inner : everything else but the scores.
    scores : per token, what materialised attention keeps (scores, probabilities, mask); 0 with fused kernels.
    """

    boundary: Bytes
    inner: Bytes
    scores: Bytes


def activations_kept(
    architecture: Architecture,
    *,
    weight_split: Scalar,
    sequence_split: Scalar,
    context: Scalar,
    materialise: bool = False,
    element_bytes: Scalar = 2.0,
    imbalance: Scalar = 1.0,
) -> Kept:
    r"""Bytes per token that a layer keeps for its backward pass; routed copies ``imbalance`` times as many as the mean.

    For a GPT layer with dropout, without sequence parallelism, this is :math:`h(10 + 24/t)` per token plus
    :math:`5as/t` for materialised scores.

    References
    ----------
    .. [1] V. Korthikanti et al., "Reducing activation recomputation in large transformer models",
       arXiv:2205.05198, eq. 1-2.
    """
    hidden = architecture.hidden
    inner: Scalar = 0.0
    scores: Scalar = 0.0
    for run in architecture.runs:
        share = run.count / architecture.layers
        cut, streamed, core = _layer_kept(run.layer, hidden, imbalance, dropout=architecture.dropout)
        inner = inner + share * element_bytes * (cut / weight_split + streamed / sequence_split)
        if materialise and isinstance(run.layer.mixer, Attention):
            scores = scores + share * core * run.layer.mixer.heads * context / weight_split
    boundary = element_bytes * hidden / sequence_split
    return Kept(boundary, inner - boundary, scores)


def _layer_kept(layer: Layer, hidden: int, imbalance: Scalar, *, dropout: bool) -> tuple[Scalar, float, float]:
    """Elements per token that a layer keeps: (cut by tensor parallelism, between matrices, bytes per score)."""
    cut: Scalar = 0.0
    streamed = 0.0
    for part in (layer.mixer, layer.ffn):
        if part is None:
            continue
        cut = cut + _part_kept(part, imbalance)
        # norm input, product input and, with dropout, a one-byte mask; a parallel layer shares the norm input
        shared = layer.parallel and part is layer.ffn
        streamed += (1.0 if shared else 2.0) * hidden + (0.5 * hidden if dropout else 0.0)
    return cut, streamed, 5.0 if dropout else 4.0


def widest(architecture: Architecture) -> float:
    """Widest output of a matrix of any layer, per token: the gradient that is alive while a layer runs backward."""
    outputs = [0.0]
    for run in architecture.runs:
        for part in (run.layer.mixer, run.layer.ffn):
            if part is not None:
                outputs += [float(linear.n) for linear in part.linears]
            if isinstance(part, Moe):
                outputs += [float(part.top_k * linear.n) for linear in part.expert_linears]
    return max(outputs)


def _part_kept(
    part: Attention | LatentAttention | StateSpace | LinearAttention | Mlp | Moe, imbalance: Scalar
) -> Scalar:
    """Elements per token kept inside one component."""
    if isinstance(part, Attention):
        kv = 0 if part.kv_from_earlier else part.kv_heads * (part.head_dim + part.value_dim)
        return part.heads * (part.head_dim + part.value_dim) + kv
    if isinstance(part, LatentAttention):
        per_head = 2 * (part.nope_dim + part.rope_dim) + 2 * part.value_dim
        return part.heads * per_head + part.kv_lora_rank + part.rope_dim + (part.q_lora_rank or 0)
    if isinstance(part, StateSpace):
        return 3.0 * part.inner + part.conv_channels
    if isinstance(part, LinearAttention):
        return 2.0 * part.key_heads * part.key_dim + 4.0 * part.value_heads * part.value_dim
    if isinstance(part, Mlp):
        return part.width * (3.0 if part.gated else 2.0)
    routed = part.top_k * (part.width * (3.0 if part.gated else 2.0) + 2.0 * (part.latent or part.hidden))
    return routed * imbalance + part.shared_width * (3.0 if part.gated else 2.0)


def cache_bytes(architecture: Architecture, context: Scalar, *, kv_split: Scalar, kv_bytes: Scalar) -> Bytes:
    """KV cache and recurrent state of one sequence of ``context`` tokens in an average layer on one rank [B].

    Key-value heads are divided among ``kv_split`` ranks and replicated beyond their number; a latent cache (MLA) is not
    divided; sliding windows cap the length; recurrent states do not grow.
    """
    keys = key_value_bytes(architecture, context, kv_split=kv_split, kv_bytes=kv_bytes)
    return keys + recurrent_bytes(architecture, kv_split=kv_split)


def key_value_bytes(
    architecture: Architecture, context: Scalar, *, kv_split: Scalar, kv_bytes: Scalar, reach: Scalar = 1.0
) -> Bytes:
    """Keys and values of ``context`` tokens of one sequence in an average layer on one rank [B].

    ``reach`` pieces of ``context`` tokens each are asked for together: a sliding window caps their sum, not the piece.
    """
    total: Scalar = 0.0
    for run in architecture.runs:
        mixer, share = run.layer.mixer, run.count / architecture.layers
        if isinstance(mixer, Attention) and not mixer.kv_from_earlier:
            whole = reach * context
            seen = whole if mixer.window is None else minimum(whole, mixer.window)
            if mixer.compression is not None:
                seen = seen + whole / mixer.compression
            heads = maximum(mixer.kv_heads / kv_split, 1.0)
            width = mixer.head_dim + (0 if mixer.shared_kv else mixer.value_dim)
            total = total + share * seen * heads * width * kv_bytes
        elif isinstance(mixer, LatentAttention):
            numbers = (mixer.kv_lora_rank + mixer.rope_dim) * kv_bytes + mixer.index_dim * 1.0
            total = total + share * reach * context * numbers
    return total


def recurrent_bytes(architecture: Architecture, *, kv_split: Scalar, state_bytes: Bytes = 4.0) -> Bytes:
    """State of one sequence in an average layer on one rank: state spaces and linear attention [B]."""
    total: Scalar = 0.0
    for run in architecture.runs:
        mixer, share = run.layer.mixer, run.count / architecture.layers
        if isinstance(mixer, StateSpace):
            state = mixer.inner * mixer.state * state_bytes + mixer.conv_channels * mixer.conv * 2.0
            total = total + share * state / kv_split
        elif isinstance(mixer, LinearAttention):
            total = total + share * mixer.value_heads * mixer.value_dim * mixer.key_dim * state_bytes / kv_split
    return total


def crossing_elements(
    architecture: Architecture, *, attention: bool = True, recurrent: bool = True
) -> tuple[float, float]:
    """Numbers per token and average layer that enter and leave the mixers' cores: (with query heads, with key heads).

    What an exchange of tokens for heads moves: queries and outputs, keys and values of all heads.

    Parameters
    ----------
    architecture : the model.
    attention, recurrent : whether layers with attention, and those with a recurrent state, count.
    """
    queries = keys = 0.0
    for run in architecture.runs:
        mixer, share = run.layer.mixer, run.count / architecture.layers
        if not (recurrent if isinstance(mixer, (StateSpace, LinearAttention)) else attention):
            continue
        if isinstance(mixer, Attention):
            queries += share * mixer.heads * (mixer.head_dim + mixer.value_dim)
            keys += share * mixer.kv_heads * (mixer.head_dim + mixer.value_dim)
        elif isinstance(mixer, LatentAttention):
            both = mixer.nope_dim + mixer.rope_dim + mixer.value_dim
            queries += share * 2.0 * mixer.heads * both
        elif isinstance(mixer, LinearAttention):
            queries += share * 2.0 * (mixer.key_heads * mixer.key_dim + mixer.value_heads * mixer.value_dim)
        elif isinstance(mixer, StateSpace):
            queries += share * 2.0 * mixer.inner
    return queries, keys
