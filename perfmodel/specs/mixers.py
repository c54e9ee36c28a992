"""Matrices, and what lets tokens look at each other: attention, latent attention, state spaces, linear attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

__all__ = ["Attention", "LatentAttention", "Linear", "LinearAttention", "StateSpace", "total"]

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


def total(linears: tuple[Linear, ...]) -> int:
    """Parameters of matrices together."""
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
        return total(self.linears) + self.extra


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
        return total(self.linears) + self.extra


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
        return total(self.linears) + self.extra


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
        return total(self.linears) + self.extra
