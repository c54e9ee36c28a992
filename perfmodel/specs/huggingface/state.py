"""Families with recurrent mixers: Mamba 1 and 2, their hybrids with attention, and gated delta-rule attention."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from perfmodel.specs.architecture import FeedForward, LinearAttention, Mixer, Moe, StateSpace
from perfmodel.specs.huggingface.dense import QWEN_MOE, shared_width
from perfmodel.specs.huggingface.family import Family
from perfmodel.specs.huggingface.fields import Fields
from perfmodel.specs.huggingface.parts import Dense, Gqa, Sparse, layer_types, place

__all__ = ["FAMILIES"]

Kinds = dict[str, Callable[[], Mixer]]


# ---- state spaces ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mamba1:
    """Mamba 1; ``prefix`` and ``normed`` for Jamba's names and its norms of the step size, B and C."""

    state: str = "state_size"
    conv: str = "conv_kernel"
    expand: str = "expand"
    rank: str = "time_step_rank"
    bias: str = "use_bias"
    conv_bias: str = "+use_conv_bias"
    inner: str = "intermediate_size"
    normed: bool = False

    def one(self, f: Fields) -> StateSpace:
        """Return the mixer of one layer."""
        state, conv = f.count(self.state), f.count(self.conv)
        inner = f.count(self.expand) * f.hidden
        if self.inner:
            inner = f.count(self.inner, f.count("d_inner", inner))
        rank = -(-f.hidden // 16) if f.get(self.rank) in ("auto", None) else f.count(self.rank)
        extra = inner * (conv + state + 2) + (inner if f.on(self.conv_bias) else 0)
        extra += 2 * inner + f.hidden if f.on(self.bias) else 0
        extra += rank + 2 * state if self.normed else 0
        return StateSpace(f.hidden, inner, state, conv, dt_rank=rank, extra=extra)

    def __call__(self, f: Fields) -> list[Mixer]:
        """Return one mixer per layer."""
        return [self.one(f)] * f.layers


@dataclass(frozen=True)
class Mamba2:
    """Mamba 2 under the names a family gives its sizes."""

    heads: str = "mamba_n_heads"
    head_dim: str = "mamba_d_head"
    state: str = "mamba_d_state"
    groups: str = "mamba_n_groups"
    conv: str = "mamba_d_conv"
    expand: str = "mamba_expand"
    bias: str = "mamba_proj_bias"
    conv_bias: str = "+mamba_conv_bias"
    free: bool = False
    """Heads times head width need not be ``expand`` times the hidden size."""

    def one(self, f: Fields) -> StateSpace:
        """Return the mixer of one layer."""
        heads, state, groups, conv = (f.count(n) for n in (self.heads, self.state, self.groups, self.conv))
        inner = heads * self.width(f, heads)
        mixer = StateSpace(f.hidden, inner, state, conv, heads=heads, groups=groups)
        channels = mixer.conv_channels
        extra = channels * conv + 3 * heads + inner + (channels if f.on(self.conv_bias) else 0)
        extra += mixer.linears[0].n + f.hidden if f.on(self.bias) else 0
        return replace(mixer, extra=extra)

    def width(self, f: Fields, heads: int) -> int:
        """Width of one head, checked against the expansion."""
        inner = f.count(self.expand, 2) * f.hidden
        width = inner // heads if f.get(self.head_dim) == "auto" else f.count(self.head_dim)
        if not self.free and width * heads != inner:
            raise f.error("times the heads must be the expanded hidden size", self.head_dim, found=f"{width} x {heads}")
        return width

    def __call__(self, f: Fields) -> list[Mixer]:
        """Return one mixer per layer."""
        return [self.one(f)] * f.layers


JAMBA_MAMBA: Final = Mamba1(
    "mamba_d_state",
    "mamba_d_conv",
    "mamba_expand",
    "mamba_dt_rank",
    "mamba_proj_bias",
    "+mamba_conv_bias",
    inner="",
    normed=True,
)
CODESTRAL: Final = Mamba2(
    "num_heads", "head_dim", "state_size", "n_groups", "conv_kernel", "expand", "use_bias", "+use_conv_bias"
)
NEMOTRON_MAMBA: Final = Mamba2(
    "mamba_num_heads",
    "mamba_head_dim",
    "ssm_state_size",
    "n_groups",
    "conv_kernel",
    "expand",
    "use_bias",
    "+use_conv_bias",
    free=True,
)


def _none(f: Fields) -> list[FeedForward | None]:
    return [None] * f.layers


def _mamba(f: Fields) -> None:
    """Fields of the original release that repeat or accompany the converted ones."""
    f.expect("rms_norm", True)
    f.expect("d_inner", f.get("intermediate_size"), f.count("expand") * f.hidden)


# ---- hybrids ---------------------------------------------------------------------------------------------------------

WORDS: Final[Mapping[str, str]] = {"mamba": "linear_attention", "attention": "full_attention"}


def kinds_of_layers(f: Fields) -> None:
    """Spell the kinds of layers as newer releases do."""
    words = f.listed("layer_types")
    if words is not None:
        f.data = {k: v for k, v in f.data.items() if k != "layers_block_type"}
        f.data["layer_types"] = [WORDS.get(w, w) if isinstance(w, str) else w for w in words]


@dataclass(frozen=True)
class Hybrid:
    """Recurrent layers with attention in some of them, as ``layer_types`` (or a field of the family's own) says."""

    recurrent: Mamba1 | Mamba2
    attention: Gqa

    def __call__(self, f: Fields) -> list[Mixer]:
        """Return one mixer per layer."""
        kinds: Kinds = {
            "linear_attention": lambda: self.recurrent.one(f),
            "full_attention": lambda: self.attention.one(f, None),
        }
        return place(layer_types(f, tuple(kinds)), kinds)


def _jamba(f: Fields) -> None:
    period, offset = f.count("attn_layer_period"), f.count("attn_layer_offset", least=0)
    if offset >= period:
        raise f.error(
            "must be smaller than attn_layer_period", "attn_layer_offset", found=offset, allowed=f"< {period}"
        )
    words = ["full_attention" if i % period == offset else "linear_attention" for i in range(f.layers)]
    f.data = {**f.data, "layer_types": words}


def _jamba_sparse(f: Fields) -> list[bool]:
    period, offset = f.count("expert_layer_period"), f.count("expert_layer_offset", least=0)
    if offset >= period:
        raise f.error("must be smaller than expert_layer_period", "expert_layer_offset", found=offset)
    return [i % period == offset and f.count("num_experts") > 1 for i in range(f.layers)]


def _bamba(f: Fields) -> None:
    at = f.indices("attn_layer_indices")
    words = ["full_attention" if i in at else "linear_attention" for i in range(f.layers)]
    f.data = {**{k: v for k, v in f.data.items() if k != "layers_block_type"}, "layer_types": words}


def granite_ffn(f: Fields) -> list[FeedForward]:
    """Granite 4: a shared MLP in every layer, beside experts if there are any."""
    shared = Dense(width="shared_intermediate_size")
    if f.count("num_experts", least=0):
        width = f.count("shared_intermediate_size")
        return Sparse(width="intermediate_size", shared=lambda f: width)(f)
    for name in ("intermediate_size", "num_experts_per_tok"):
        f.optional(name, least=0)
    return shared(f)


# ---- Nemotron-H: one component per layer -----------------------------------------------------------------------------

LETTERS: Final[Mapping[str, str]] = {"M": "linear_attention", "*": "full_attention", "-": "mlp", "E": "moe"}
NEMOTRON_KINDS: Final = tuple(LETTERS.values())


def _nemotron(f: Fields) -> None:
    """Take the kinds of layers from ``hybrid_override_pattern`` or the list, and their number from either."""
    kinds_of_layers(f)
    pattern, words = f.get("hybrid_override_pattern"), f.listed("layer_types")
    if words is None:
        if not isinstance(pattern, str) or not set(pattern) <= set(LETTERS):
            allowed = "one letter per layer out of " + " ".join(LETTERS)
            raise f.error("must spell the layers", "hybrid_override_pattern", found=pattern, allowed=allowed)
        words = [LETTERS[c] for c in pattern]
    f.data = {"num_hidden_layers": len(words), **f.data, "layer_types": words}
    f.expect("num_hidden_layers", len(words))
    f.expect("attention_bias", False)
    f.expect("n_shared_experts", 1)


def nemotron_mixers(f: Fields) -> list[Mixer | None]:
    """Return the mixer of each layer, ``None`` in feed-forward layers."""
    attention = Gqa(bias=False, given_kv=True, given_head=True)
    return place(
        layer_types(f, NEMOTRON_KINDS),
        {
            "linear_attention": lambda: NEMOTRON_MAMBA.one(f),
            "full_attention": lambda: attention.one(f, None),
            "mlp": lambda: None,
            "moe": lambda: None,
        },
    )


def nemotron_ffns(f: Fields) -> list[FeedForward | None]:
    """Return the feed-forward of each layer, ``None`` in mixer layers."""
    kinds = {"linear_attention": lambda: None, "full_attention": lambda: None}
    dense = Dense(gated=False, bias="mlp_bias")
    found: list[FeedForward | None] = place(
        layer_types(f, NEMOTRON_KINDS), {**kinds, "mlp": lambda: dense.one(f), "moe": lambda: _nemotron_moe(f)}
    )
    return found


def _nemotron_moe(f: Fields) -> Moe:
    f.expect("mlp_bias", False)
    shared = Sparse(gated=False, shared=lambda f: f.count("moe_shared_expert_intermediate_size", least=0))
    return replace(shared.one(f), latent=f.optional("moe_latent_size"))


# ---- gated delta rule ------------------------------------------------------------------------------------------------


def delta_rule(f: Fields) -> list[Mixer]:
    """Qwen3-Next and Qwen3.5: linear attention with every ``full_attention_interval``-th layer full and gated."""
    f.expect("attn_output_gate", True)
    full = Gqa(qk_norm="head", given_kv=True, default_head=256, gated=True)
    interval = f.count("full_attention_interval", 4)
    kinds: Kinds = {"linear_attention": lambda: _delta(f), "full_attention": lambda: full.one(f, None)}
    return place(
        layer_types(f, tuple(kinds), lambda i: "linear_attention" if (i + 1) % interval else "full_attention"), kinds
    )


def _delta(f: Fields) -> LinearAttention:
    keys, values = f.count("linear_num_key_heads"), f.count("linear_num_value_heads")
    key_dim, value_dim = f.count("linear_key_head_dim"), f.count("linear_value_head_dim")
    if values % keys:
        raise f.error(
            "must be a multiple of linear_num_key_heads", "linear_num_value_heads", found=f"{values} / {keys}"
        )
    conv = f.count("linear_conv_kernel_dim")
    channels = 2 * keys * key_dim + values * value_dim
    extra = channels * conv + 2 * values + value_dim
    return LinearAttention(f.hidden, keys, values, key_dim, value_dim, conv, extra=extra)


# ---- what a hybrid without one kind of layer may still carry -----------------------------------------------------

ATTENTION: Final = ("num_attention_heads", "num_key_value_heads", "head_dim", "attention_bias")
MAMBA2: Final = ("mamba_n_heads", "mamba_d_head", "mamba_d_state", "mamba_n_groups", "mamba_d_conv", "mamba_expand")
NEMOTRON_IDLE: Final = (
    *ATTENTION,
    "mamba_num_heads",
    "mamba_head_dim",
    "ssm_state_size",
    "n_groups",
    "conv_kernel",
    "expand",
    "use_bias",
    "use_conv_bias",
    "mamba_proj_bias",
    "intermediate_size",
    "mlp_bias",
    "num_experts",
    "num_experts_per_tok",
    "n_shared_experts",
    "moe_intermediate_size",
    "moe_shared_expert_intermediate_size",
    "moe_latent_size",
)
DELTA: Final = (
    *ATTENTION,
    "linear_num_key_heads",
    "linear_num_value_heads",
    "linear_key_head_dim",
    "linear_value_head_dim",
    "linear_conv_kernel_dim",
)

MAMBA: Final = Family(Mamba1(), _none, norms=1, tied=True, prepare=_mamba)

FAMILIES: Final[Mapping[str, Family]] = {
    "mamba": MAMBA,
    "falcon_mamba": MAMBA,
    "mamba2": Family(CODESTRAL, _none, norms=1, prepare=lambda f: f.expect("rms_norm", True)),
    "jamba": Family(
        Hybrid(JAMBA_MAMBA, Gqa(bias=False, given_kv=True)),
        Sparse(width="intermediate_size", where=_jamba_sparse),
        prepare=_jamba,
    ),
    "bamba": Family(
        Hybrid(Mamba2(), Gqa(given_kv=True)), Dense(bias="mlp_bias"), prepare=_bamba, idle=(*ATTENTION, *MAMBA2)
    ),
    "granitemoehybrid": Family(
        Hybrid(Mamba2(), Gqa()), granite_ffn, prepare=kinds_of_layers, idle=(*ATTENTION, *MAMBA2)
    ),
    "nemotron_h": Family(nemotron_mixers, nemotron_ffns, norms=1, prepare=_nemotron, idle=NEMOTRON_IDLE),
    "qwen3_next": Family(delta_rule, QWEN_MOE, idle=DELTA),
    "qwen3_5_text": Family(delta_rule, Dense(), idle=DELTA),
    "qwen3_5_moe_text": Family(delta_rule, Sparse(shared=shared_width, gate=True), idle=(*DELTA, "intermediate_size")),
}
