"""A model as the cost model sees it: runs of layers made of matrices and cores.

Parameters, weight bytes, sharding and GEMMs are readings of one list, the :class:`Linear` matrices of a component, so
they cannot disagree. What has parameters but costs no GEMM (biases, norms, sinks) is an exact count beside (``extra``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from perfmodel.specs.mixers import Attention, LatentAttention, Linear, LinearAttention, StateSpace, total

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
        return total(self.linears) + self.extra


@dataclass(frozen=True)
class Moe:
    """Mixture of experts: ``top_k`` of ``experts`` per token, and shared experts of total width ``shared_width``.

    ``latent`` is the width the routed experts work in when it is not ``hidden``. ``expert_extra`` counts parameters
    per expert outside its matrices (biases); ``extra`` those outside the experts (router bias, shared gate). A router
    that limits groups chooses among the experts of ``groups_kept`` of ``groups`` only.
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
    groups: int = 1
    groups_kept: int = 1

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
        return self.experts * (total(self.expert_linears) + self.expert_extra)

    @property
    def parameters(self) -> int:
        """Exact number of parameters."""
        return total(self.linears) + self.expert_parameters + self.extra


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
