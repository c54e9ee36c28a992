"""Families before the Llama line: LayerNorm with biases, a plain four-fold MLP, learned or ALiBi positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from perfmodel.specs.architecture import Attention
from perfmodel.specs.huggingface.family import Family
from perfmodel.specs.huggingface.fields import Fields
from perfmodel.specs.huggingface.parts import Dense, Gqa, Sparse, head_dim

__all__ = ["FAMILIES"]

BIASED: Final = Gqa(bias=True)
UNBIASED: Final = Gqa(bias=False)
MLP: Final = Dense(gated=False, bias=True, four=True)
WIDTH_GIVEN: Final = replace(MLP, four=False)


def positions(f: Fields) -> int:
    """Parameters of a learned position table."""
    return f.count("max_position_embeddings") * f.hidden


# ---- GPT-Neo: layers alternate between full and local attention ------------------------------------------------------


def gpt_neo(f: Fields) -> list[Attention]:
    """``attention_layers`` spells the kinds out; ``attention_types`` repeats groups of them."""
    f.get("attention_types")
    kinds = f.listed("attention_layers", f.layers) or _repeated(f)
    window, d = f.count("window_size", 256), head_dim(f)
    local = Attention(f.hidden, f.heads, f.heads, d, d, window=window, extra=f.hidden)
    return [local if kind == "local" else replace(local, window=None) for kind in kinds]


def _repeated(f: Fields) -> list[str]:
    groups = f.listed("attention_types")
    if groups is None:
        raise f.error("is required for model_type 'gpt_neo'", "attention_types")
    try:
        kinds = [kind for names, times in groups for _ in range(times) for kind in names]
    except (TypeError, ValueError):
        raise f.error("must be a list of [[kinds], times]", "attention_types", found=groups) from None
    if len(kinds) != f.layers or not set(kinds) <= {"global", "local"}:
        raise f.error(f"must spell global or local for each of {f.layers} layers", "attention_types", found=groups)
    return kinds


# ---- multi-query options ---------------------------------------------------------------------------------------------


def gpt_bigcode(f: Fields) -> list[Attention]:
    """One key-value head if ``multi_query``."""
    d, kv = head_dim(f), 1 if f.flag("multi_query", True) else f.heads
    f.expect("num_key_value_heads", kv)
    extra = (f.heads + 2 * kv) * d + f.hidden
    return [Attention(f.hidden, f.heads, kv, d, d, extra=extra)] * f.layers


def falcon(f: Fields) -> list[Attention]:
    """``num_kv_heads`` counts only in the new decoder; before, it is one or all."""
    d, new = head_dim(f), f.flag("new_decoder_architecture")
    kv = f.count("num_key_value_heads", f.heads)
    if not new:
        kv = 1 if f.flag("multi_query", True) else f.heads
    f.flag("multi_query")
    if f.heads % kv:
        raise f.error("must divide the number of query heads", "num_kv_heads", found=f"{f.heads} heads, {kv}")
    extra = (f.heads + 2 * kv) * d + f.hidden if f.flag("bias") else 0
    return [Attention(f.hidden, f.heads, kv, d, d, extra=extra)] * f.layers


def _falcon_norms(f: Fields) -> int:
    new, parallel = f.flag("new_decoder_architecture"), f.flag("parallel_attn", True)
    declared = f.optional("num_ln_in_parallel_attn")
    return 2 if not parallel or (new and declared in (None, 2)) else 1


# ---- blocks of their own ---------------------------------------------------------------------------------------------


def _mpt(f: Fields) -> None:
    attention = f.block("attn_config", required=False)
    attention.expect("attn_type", "multihead_attention")
    attention.expect("qk_ln", False)
    attention.expect("alibi", True)
    f.expect("no_bias", True)
    f.expect("expansion_ratio", 4)
    f.flag("learned_pos_emb")
    f.get("norm_type")


def _dbrx(f: Fields) -> None:
    """Bring the attention and the feed-forward block to the top, where every other family has them."""
    attention, ffn = f.block("attn_config"), f.block("ffn_config")
    ffn.expect("hidden_size", f.hidden)
    flat = {
        "num_key_value_heads": attention.count("kv_n_heads"),
        "intermediate_size": ffn.count("ffn_hidden_size"),
        "num_experts": ffn.count("moe_num_experts"),
        "num_experts_per_tok": ffn.count("moe_top_k"),
    }
    f.data = {**f.data, **flat}


def _opt_final(f: Fields) -> int:
    first, removed = f.flag("do_layer_norm_before", True), f.flag("_remove_final_layer_norm")
    return int(first and not removed)


def _opt_outside(f: Fields) -> int:
    f.expect("enable_bias", True)
    f.expect("layer_norm_elementwise_affine", True)
    width = _opt_width(f)
    projections = 2 * width * f.hidden if width is not None else 0
    return (f.count("max_position_embeddings") + 2) * f.hidden + projections


def _opt_width(f: Fields) -> int | None:
    width = f.optional("word_embed_proj_dim")
    return None if width == f.hidden else width


GPTJ: Final = Family(UNBIASED, MLP, norm="layer", norms=1, parallel=True, head_bias=True)

FAMILIES: Final[Mapping[str, Family]] = {
    "gpt2": Family(BIASED, MLP, norm="layer", tied=True, outside=positions),
    "gpt_bigcode": Family(gpt_bigcode, MLP, norm="layer", tied=True, outside=positions),
    "gpt_neo": Family(gpt_neo, MLP, norm="layer", tied=True, outside=positions),
    "gptj": GPTJ,
    "codegen": GPTJ,
    "gpt_neox": Family(Gqa("+attention_bias"), WIDTH_GIVEN, norm="layer", parallel="+use_parallel_residual"),
    "opt": Family(
        BIASED,
        WIDTH_GIVEN,
        norm="layer",
        final=_opt_final,
        tied=True,
        outside=_opt_outside,
        embedding_dim=_opt_width,
    ),
    "bloom": Family(BIASED, MLP, norm="layer", final=2, tied=True, idle=("apply_residual_connection_post_layernorm",)),
    "mpt": Family(UNBIASED, Dense(gated=False, four=True), tied=True, prepare=_mpt),
    "falcon": Family(
        falcon,
        Dense(gated=False, bias="bias", four=True),
        norm="layer",
        norms=_falcon_norms,
        parallel="+parallel_attn",
        tied=True,
    ),
    "phi": Family(
        Gqa(bias=True, qk_norm="head", qk_norm_if="qk_layernorm", qk_norm_bias=True),
        WIDTH_GIVEN,
        norm="layer",
        norms=1,
        parallel=True,
        head_bias=True,
    ),
    "persimmon": Family(
        Gqa(bias=True, qk_norm="head", qk_norm_if="+qk_layernorm", qk_norm_bias=True), WIDTH_GIVEN, norm="layer"
    ),
    "stablelm": Family(
        Gqa("use_qkv_bias", out_bias=False, qk_norm="full", qk_norm_if="qk_layernorm", given_kv=True),
        Dense(),
        norm="layer",
        norms=lambda f: 1 if f.flag("use_parallel_residual") else 2,
        parallel="use_parallel_residual",
    ),
    "starcoder2": Family(
        Gqa("+use_bias", given_kv=True, window="all"), Dense(gated=False, bias="+use_bias"), norm="layer", tied=True
    ),
    "dbrx": Family(Gqa(bias=False, given_kv=True), Sparse(width="intermediate_size"), prepare=_dbrx),
}
