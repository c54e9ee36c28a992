"""A model as the cost model sees it: runs of layers made of matrices and cores.

Parameters, weight bytes, sharding and GEMMs are readings of one list, the :class:`Linear` matrices of a component, so
they cannot disagree. What has parameters but costs no GEMM (biases, norms, sinks) is an exact count beside (``extra``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

__all__ = [
    "Architecture",
    "Attention",
    "FeedForward",
    "LatentAttention",
    "Layer",
    "Linear",
    "LinearAttention",
    "Mixer",
    "Mlp",
    "Moe",
    "Run",
    "StateSpace",
]

Shard = Literal["column", "row", "replicated"]


class Linear(NamedTuple):
    """One weight matrix of ``k`` inputs and ``n`` outputs, without its bias.

    ``shard``: tensor parallelism cuts it by ``column`` (outputs), by ``row`` (inputs) or not. It ``joins`` so many.
    """

    name: str
    k: int
    n: int
    shard: Shard = "column"
    joins: int = 1

    @property
    def parameters(self) -> int:
        """Number of weights, ``k * n``."""
        return self.k * self.n


def _total(linears: tuple[Linear, ...]) -> int:
    return sum(x.parameters for x in linears)


@dataclass(frozen=True)
class Attention:
    """Softmax attention with ``kv_heads`` shared by groups of query heads (MHA, GQA, MQA).

    ``window`` limits a query to the latest tokens; ``None`` is full attention. ``gated`` doubles the query projection
    (an output gate). ``extra`` counts parameters outside the matrices: biases, query/key norms, sinks.
    """

    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    window: int | None = None
    gated: bool = False
    causal: bool = True
    kv_from_earlier: bool = False
    """This layer has no keys and values of its own: it reads those of an earlier layer."""
    shared_kv: bool = False
    """Values are the keys: no value projection."""
    extra: int = 0
    projections: tuple[Linear, ...] | None = None
    """All matrices, where they are not the plain query, key, value and output projections."""
    compression: int | None = None
    """Beyond the window one compressed key stands for this many tokens (DeepSeek V4)."""
    index_top_k: int | None = None
    """An indexer picks this many of the compressed keys per query."""

    @property
    def linears(self) -> tuple[Linear, ...]:
        """Query, key, value and output projections."""
        if self.projections is not None:
            return self.projections
        q = self.heads * self.head_dim * (2 if self.gated else 1)
        out = Linear("attn out", self.heads * self.value_dim, self.hidden, "row")
        if self.kv_from_earlier:
            return (Linear("q", self.hidden, q), out)
        kv = self.kv_heads * (self.head_dim + (0 if self.shared_kv else self.value_dim))
        return (Linear("qkv", self.hidden, q + kv, joins=2 if self.shared_kv else 3), out)

    @property
    def parameters(self) -> int:
        """Exact number of parameters."""
        return _total(self.linears) + self.extra


@dataclass(frozen=True)
class LatentAttention:
    """Multi-head latent attention (DeepSeek-V2): keys and values live in a compressed latent of ``kv_lora_rank``.

    ``q_lora_rank`` ``None`` means a direct query projection. With ``index_heads`` a small indexer picks
    ``index_top_k`` keys per query (DeepSeek sparse attention); without them but with ``index_top_k`` the layer uses
    the choice of an earlier one (GLM-5.2).
    """

    hidden: int
    heads: int
    q_lora_rank: int | None
    kv_lora_rank: int
    nope_dim: int
    rope_dim: int
    value_dim: int
    index_heads: int = 0
    index_dim: int = 0
    index_top_k: int | None = None
    extra: int = 0

    @property
    def linears(self) -> tuple[Linear, ...]:
        """Down- and up-projections; the down-projections are replicated under tensor parallelism."""
        width = self.heads * (self.nope_dim + self.rope_dim)
        query: tuple[Linear, ...] = (Linear("q", self.hidden, width),)
        if self.q_lora_rank is not None:
            query = (
                Linear("q down", self.hidden, self.q_lora_rank, "replicated"),
                Linear("q up", self.q_lora_rank, width),
            )
        linears = (
            *query,
            Linear("kv down", self.hidden, self.kv_lora_rank + self.rope_dim, "replicated"),
            Linear("kv up", self.kv_lora_rank, self.heads * (self.nope_dim + self.value_dim)),
            Linear("attn out", self.heads * self.value_dim, self.hidden, "row"),
        )
        if self.index_heads:
            source = self.q_lora_rank if self.q_lora_rank is not None else self.hidden
            linears = (
                *linears,
                Linear("index q", source, self.index_heads * self.index_dim, "replicated"),
                Linear("index k", self.hidden, self.index_dim, "replicated"),
                Linear("index weights", self.hidden, self.index_heads, "replicated"),
            )
        return linears

    @property
    def parameters(self) -> int:
        """Exact number of parameters."""
        return _total(self.linears) + self.extra


@dataclass(frozen=True)
class StateSpace:
    """Selective state space (Mamba 1 and 2): ``inner`` channels, ``state`` numbers per channel, a short convolution.

    ``heads`` is 0 for Mamba 1 (per-channel decay through ``dt_rank``), else the Mamba 2 head count with ``groups`` of
    B and C.
    """

    hidden: int
    inner: int
    state: int
    conv: int
    heads: int = 0
    groups: int = 1
    dt_rank: int = 0
    extra: int = 0

    @property
    def conv_channels(self) -> int:
        """Channels that pass the convolution."""
        return self.inner if self.heads == 0 else self.inner + 2 * self.groups * self.state

    @property
    def linears(self) -> tuple[Linear, ...]:
        """In- and out-projection, and for Mamba 1 the projections of B, C and the step size."""
        if self.heads == 0:
            return (
                Linear("ssm in", self.hidden, 2 * self.inner),
                Linear("ssm x", self.inner, self.dt_rank + 2 * self.state, "row"),
                Linear("ssm dt", self.dt_rank, self.inner),
                Linear("ssm out", self.inner, self.hidden, "row"),
            )
        return (
            Linear("ssm in", self.hidden, 2 * self.inner + 2 * self.groups * self.state + self.heads),
            Linear("ssm out", self.inner, self.hidden, "row"),
        )

    @property
    def parameters(self) -> int:
        """Exact number of parameters; ``extra`` holds convolution, decay, skip, biases and norms."""
        return _total(self.linears) + self.extra


@dataclass(frozen=True)
class LinearAttention:
    """Gated delta-rule linear attention (Qwen3-Next): a ``key_dim`` x ``value_dim`` state per value head."""

    hidden: int
    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    conv: int
    extra: int = 0

    @property
    def linears(self) -> tuple[Linear, ...]:
        """Query, key, value and gate projections, the two per-head gates, and the output projection."""
        keys, values = self.key_heads * self.key_dim, self.value_heads * self.value_dim
        return (
            Linear("linear attn in", self.hidden, 2 * keys + 2 * values),
            Linear("linear attn gates", self.hidden, 2 * self.value_heads),
            Linear("linear attn out", values, self.hidden, "row"),
        )

    @property
    def parameters(self) -> int:
        """Exact number of parameters; ``extra`` holds convolution, decay, biases and norms."""
        return _total(self.linears) + self.extra


@dataclass(frozen=True)
class Mlp:
    """Feed-forward network; ``gated`` (SwiGLU, GeGLU) has three matrices, plain has two."""

    hidden: int
    width: int
    gated: bool = True
    extra: int = 0

    @property
    def linears(self) -> tuple[Linear, ...]:
        """Up (and gate) and down projections."""
        return (
            Linear("mlp up", self.hidden, self.width * (1 + self.gated), joins=1 + self.gated),
            Linear("mlp down", self.width, self.hidden, "row"),
        )

    @property
    def parameters(self) -> int:
        """Exact number of parameters."""
        return _total(self.linears) + self.extra


@dataclass(frozen=True)
class Moe:
    """Mixture of experts: ``top_k`` of ``experts`` per token, and shared experts of total width ``shared_width``.

    ``latent`` is the width the routed experts work in when it is not ``hidden``. ``expert_extra`` counts parameters
    per expert outside its matrices (biases); ``extra`` those outside the experts (router bias, shared gate).
    """

    hidden: int
    experts: int
    top_k: int
    width: int
    gated: bool = True
    shared_width: int = 0
    latent: int | None = None
    expert_extra: int = 0
    extra: int = 0

    @property
    def expert_linears(self) -> tuple[Linear, ...]:
        """Matrices of ONE routed expert."""
        d = self.latent or self.hidden
        return (
            Linear("expert up", d, self.width * (1 + self.gated), joins=1 + self.gated),
            Linear("expert down", self.width, d, "row"),
        )

    @property
    def linears(self) -> tuple[Linear, ...]:
        """Matrices every token passes: router, shared experts, latent projections."""
        linears: tuple[Linear, ...] = (Linear("router", self.hidden, self.experts, "replicated"),)
        if self.latent:
            linears += (
                Linear("latent down", self.hidden, self.latent, "replicated"),
                Linear("latent up", self.latent, self.hidden, "replicated"),
            )
        if self.shared_width:
            linears += (
                Linear("shared up", self.hidden, self.shared_width * (1 + self.gated), joins=1 + self.gated),
                Linear("shared down", self.shared_width, self.hidden, "row"),
            )
        return linears

    @property
    def expert_parameters(self) -> int:
        """Exact parameters of all routed experts."""
        return self.experts * (_total(self.expert_linears) + self.expert_extra)

    @property
    def parameters(self) -> int:
        """Exact number of parameters."""
        return _total(self.linears) + self.expert_parameters + self.extra


Mixer = Attention | LatentAttention | StateSpace | LinearAttention
FeedForward = Mlp | Moe


@dataclass(frozen=True)
class Layer:
    """One residual layer: a mixer, a feed-forward, or both.

    ``norms`` counts normalisations of the hidden vector; ``extra`` their parameters (and any per-layer scalars).
    ``parallel`` layers feed mixer and feed-forward from the same input and sum them once (GPT-NeoX, Falcon).
    """

    mixer: Mixer | None
    ffn: FeedForward | None
    norms: int = 2
    extra: int = 0
    parallel: bool = False

    @property
    def parameters(self) -> int:
        """Exact number of parameters."""
        parts = (p.parameters for p in (self.mixer, self.ffn) if p is not None)
        return sum(parts) + self.extra


class Run(NamedTuple):
    """``count`` identical consecutive layers."""

    layer: Layer
    count: int  # type: ignore[assignment]  # tuple.count is never wanted here


@dataclass(frozen=True)
class Architecture:
    """A decoder-only language model (optionally with towers, e.g. vision, that are counted but not costed).

    Parameters
    ----------
    family : the HuggingFace ``model_type`` it was read from.
    hidden : width of the residual stream.
    vocab : rows of the embedding table as stored.
    runs : the layers in order, identical neighbours merged.
    tied : the output head is the embedding table.
    embedding_dim : width of the embedding table if it is not ``hidden`` (then it is projected).
    extra : parameters outside layers and matrices: positions, final norm, embedding norm, head bias, ...
    towers : (name, parameters) of parts outside the decoder.
    max_positions : longest context the configuration declares.
    weight_format : format of the stored matrices (``bf16``, ``fp8``, ``nvfp4``, ``mxfp4``, ``int4`` ...).
    unquantised : which components stay in 16 bits when ``weight_format`` is narrower.
    prompt_layers : lowest layers that all tokens of a prompt pass, its last token alone the others; ``None`` for all.
    prompt_passes : times that a prompt passes the layers (layers that read keys of one above).
    """

    family: str
    hidden: int
    vocab: int
    runs: tuple[Run, ...]
    tied: bool = False
    embedding_dim: int | None = None
    extra: int = 0
    towers: tuple[tuple[str, int], ...] = ()
    max_positions: int | None = None
    dropout: bool = False
    weight_format: str = "bf16"
    unquantised: tuple[Literal["attention", "router", "shared", "mlp", "experts", "head"], ...] = ()
    prompt_layers: int | None = None
    prompt_passes: int = 1

    @cached_property
    def layers(self) -> int:
        """Number of layers."""
        return sum(run.count for run in self.runs)

    @property
    def embedding_parameters(self) -> int:
        """Parameters of the input embedding table."""
        return self.vocab * (self.embedding_dim or self.hidden)

    @property
    def head_parameters(self) -> int:
        """Parameters of a separate output head (0 when tied)."""
        return 0 if self.tied else self.embedding_parameters

    @property
    def layer_parameters(self) -> int:
        """Parameters of all layers."""
        return sum(run.count * run.layer.parameters for run in self.runs)

    @property
    def parameters(self) -> int:
        """Exact number of parameters; tied tables are counted once."""
        towers = sum(n for _, n in self.towers)
        return self.embedding_parameters + self.head_parameters + self.layer_parameters + self.extra + towers

    @property
    def expert_parameters(self) -> int:
        """Parameters of all routed experts."""
        moes = ((run.count, run.layer.ffn) for run in self.runs)
        return sum(count * ffn.expert_parameters for count, ffn in moes if isinstance(ffn, Moe))

    @property
    def active_parameters(self) -> int:
        """Parameters one token passes: routed experts count ``top_k / experts``; towers do not count."""
        moes = [(run.count, run.layer.ffn) for run in self.runs if isinstance(run.layer.ffn, Moe)]
        idle = sum(n * m.expert_parameters * (m.experts - m.top_k) // m.experts for n, m in moes)
        return self.parameters - sum(n for _, n in self.towers) - idle
