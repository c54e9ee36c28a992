"""Families whose layers differ in more than a window: Gemma 4, MiMo V2, Step 3, Llama with shared keys and values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from perfmodel.errors import SpecError
from perfmodel.specs.architecture import Architecture, Attention, FeedForward, Linear, Mlp, Moe
from perfmodel.specs.huggingface.dense import LLAMA, PLAIN, first_dense
from perfmodel.specs.huggingface.family import Family
from perfmodel.specs.huggingface.fields import Fields
from perfmodel.specs.huggingface.parts import Sparse, head_dim, key_value_heads, layer_types, place
from perfmodel.specs.sharing import map_of, share_keys

__all__ = ["FAMILIES"]

SLIDING, FULL = "sliding_attention", "full_attention"


# ---- Gemma 4 ---------------------------------------------------------------------------------------------------------


def _gemma4_types(f: Fields) -> list[str]:
    types = layer_types(f, (SLIDING, FULL), lambda i: SLIDING if (i + 1) % 6 else FULL)
    return [*types[:-1], FULL]


def gemma4(f: Fields) -> list[Attention]:
    """Full-attention layers have wider heads and may share keys with values; the last layers reuse earlier keys."""
    shared = f.count("num_kv_shared_layers", 0, least=0)
    if shared >= f.layers:
        raise f.error("must be fewer than the layers", "num_kv_shared_layers", found=shared)
    own = f.layers - shared
    types = [(t, i >= own) for i, t in enumerate(_gemma4_types(f))]
    made = {key: _gemma4_layer(f, *key) for key in dict.fromkeys(types)}
    return [made[key] for key in types]


def _gemma4_layer(f: Fields, kind: str, reuses: bool) -> Attention:
    local = kind == SLIDING
    d, wide = f.count("head_dim", 256), f.count("global_head_dim", 512)
    kv, few = f.count("num_key_value_heads"), f.optional("num_global_key_value_heads")
    same = f.flag("attention_k_eq_v")
    f.expect("attention_bias", False)
    if not local:
        d, kv = wide, few if few is not None and same else kv
    if f.heads % kv:
        raise f.error("must divide the number of query heads", "num_key_value_heads", found=f"{f.heads} heads, {kv}")
    return Attention(
        f.hidden,
        f.heads,
        kv,
        d,
        d,
        window=f.count("sliding_window") if local else None,
        kv_from_earlier=reuses,
        shared_kv=same and not local,
        extra=d if reuses else 2 * d,
    )


def _gemma4(f: Fields) -> None:
    """Newer files spell the sizes of full-attention layers per layer; they must be the same for all."""
    given = f.get("per_layer_config")
    if not given:
        return
    full = {str(i) for i, t in enumerate(_gemma4_types(f)) if t == FULL}
    if not isinstance(given, Mapping) or {str(k) for k in given} != full:
        raise f.error("must have one entry per full_attention layer", "per_layer_config", found=given)
    sizes = next(iter(given.values()))
    if any(v != sizes for v in given.values()) or not set(sizes) <= {"head_dim", "num_key_value_heads"}:
        raise f.error(
            "must give every full_attention layer the same head_dim and num_key_value_heads", "per_layer_config"
        )
    names = {"head_dim": "global_head_dim", "num_key_value_heads": "num_global_key_value_heads"}
    f.data = {**f.data, **{names[k]: v for k, v in sizes.items()}}


def gemma4_ffn(f: Fields) -> list[FeedForward]:
    """Return an MLP per layer (wider where keys are reused, if so declared), with experts beside it in MoE models."""
    shared, double = f.count("num_kv_shared_layers", 0, least=0), f.flag("use_double_wide_mlp")
    mlp = Mlp(f.hidden, f.count("intermediate_size"))
    if not f.flag("enable_moe_block"):
        for name in ("num_experts", "num_experts_per_tok", "moe_intermediate_size"):
            f.optional(name, least=0)
        wide = replace(mlp, width=2 * mlp.width)
        return [wide if double and i >= f.layers - shared else mlp for i in range(f.layers)]
    if double and shared:
        raise f.error("together with experts is not understood", "use_double_wide_mlp", found=True)
    return [_gemma4_moe(f, mlp.width)] * f.layers


def _gemma4_moe(f: Fields, width: int) -> Moe:
    """Experts, the MLP as shared expert; besides, a router scale, one scale per expert and three more norms."""
    moe = Sparse(shared=lambda f: width).one(f)
    return replace(moe, extra=4 * f.hidden + moe.experts)


def _per_layer(f: Fields) -> int:
    """Per-layer embeddings: gate, projection back, and a norm in every layer."""
    width = f.count("hidden_size_per_layer_input", least=0)
    return 2 * f.hidden * width + f.hidden if width else 0


def _per_layer_tables(f: Fields) -> int:
    """Per-layer embeddings: the table, the projection of the common embedding, its norm."""
    width = f.count("hidden_size_per_layer_input", least=0)
    rows = f.count("vocab_size_per_layer_input", f.count("vocab_size"))
    return f.layers * width * (rows + f.hidden) + width if width else 0


# ---- MiMo V2 ---------------------------------------------------------------------------------------------------------


def mimo(f: Fields) -> list[Attention]:
    """Windowed layers have key-value heads of their own and a sink per head."""
    kinds = {FULL: lambda: _mimo_full(f), SLIDING: lambda: _mimo_local(f)}
    types = layer_types(f, (FULL, SLIDING), lambda i: FULL if i == 0 or (i + 1) % 6 == 0 else SLIDING)
    return place(types, kinds)


def _mimo(f: Fields) -> None:
    pattern = f.listed("hybrid_layer_pattern", f.layers)
    if pattern is not None and f.get("layer_types") is None:
        f.data = {**f.data, "layer_types": [SLIDING if p else FULL for p in pattern]}
    if f.get("moe_layer_freq") is None and f.get("mlp_layer_types") is None:
        f.data = {**f.data, "first_k_dense_replace": 1}
    f.expect("add_full_attention_sink_bias", False)
    f.expect("add_swa_attention_sink_bias", True)
    f.expect("attention_chunk_size", f.get("sliding_window"))
    f.expect("n_shared_experts", 0)


def _mimo_full(f: Fields) -> Attention:
    d, value = f.count("head_dim", 192), f.count("v_head_dim", 128)
    kv = key_value_heads(f, given=True)
    bias = f.heads * d + kv * (d + value) if f.flag("attention_bias") else 0
    return Attention(f.hidden, f.heads, kv, d, value, extra=bias)


def _mimo_local(f: Fields) -> Attention:
    full = _mimo_full(f)
    f.expect("attention_bias", False)
    f.expect("swa_num_attention_heads", full.heads)
    f.expect("swa_head_dim", full.head_dim)
    f.expect("swa_v_head_dim", full.value_dim)
    window = f.count("sliding_window_size", f.count("sliding_window"))
    kv = f.count("swa_num_key_value_heads", 2 * full.kv_heads)
    return replace(full, kv_heads=kv, window=window, extra=f.heads)


# ---- Step 3 ----------------------------------------------------------------------------------------------------------


def step(f: Fields) -> list[Attention]:
    """Per-head norms and a gate per head; windowed layers may have another number of heads."""
    kinds = {FULL: lambda: _step_layer(f, f.heads, None), SLIDING: lambda: _step_local(f)}
    return place(layer_types(f, (FULL, SLIDING), lambda i: FULL), kinds)


def _step_local(f: Fields) -> Attention:
    other = f.block("attention_other_setting", required=False)
    heads = f.count("num_sliding_attention_heads", other.count("num_attention_heads", f.heads))
    for name in ("num_attention_groups", "head_dim", "attention_type", "true_head_dim"):
        other.get(name)
    return _step_layer(f, heads, f.count("sliding_window"))


def _step_layer(f: Fields, heads: int, window: int | None) -> Attention:
    f.expect("attention_bias", False)
    d, kv = head_dim(f, default=128), key_value_heads(f, given=True)
    linears = (
        Linear("qkv", f.hidden, (heads + 2 * kv) * d),
        Linear("head gate", f.hidden, heads),
        Linear("attn out", heads * d, f.hidden, "row"),
    )
    return Attention(f.hidden, heads, kv, d, d, window=window, extra=2 * d, projections=linears)


def step_sparse(f: Fields) -> list[bool]:
    """Which layers have experts: one word per layer, a list of numbers, or all but the first."""
    if f.get("mlp_layer_types") is not None:
        return first_dense(f)
    listed = f.get("moe_layers_enum")
    if isinstance(listed, str):
        listed = [int(x) for x in listed.split(",") if x.strip().isdecimal()]
    if listed is not None:
        return [i in set(listed) for i in range(f.layers)]
    first = f.count("first_k_dense_replace", 3, least=0)
    return [i >= first for i in range(f.layers)]


def _step_shared(f: Fields) -> int:
    return f.count("share_expert_dim", f.optional("share_expert_dims"))


def _step(f: Fields) -> None:
    f.flag("use_moe_router_bias")
    f.flag("use_moe")
    f.expect("n_shared_experts", 1)
    f.expect("mlp_bias", False)
    f.expect("use_head_wise_attn_gate", True)


# ---- Layer-condensed cache: Llama whose layers name the layer they read ----------------------------------------------


def _lckv(f: Fields) -> None:
    """Take ``layer_types``, here one string, from the fields that Llama reads."""
    f.data = {("layer_sources" if k == "layer_types" else k): v for k, v in f.data.items()}
    f.idle("backward_passes")


def _lckv_shared(f: Fields, model: Architecture) -> Architecture:
    """Share keys and values as ``layer_types`` says; prompts pass ``forward_passes`` times if a source lies above."""
    text, passes = f.get("layer_sources"), f.count("forward_passes", 7)
    if text is None:
        return model
    try:
        kv_map = map_of(str(text), model.layers)
    except SpecError as error:
        raise f.error(str(error.message), "layer_types", found=text) from None
    return share_keys(model, kv_map._replace(passes=passes if kv_map.passes > 1 else 1))


FAMILIES: Final[Mapping[str, Family]] = {
    "lckv-llama": Family(LLAMA, PLAIN, prepare=_lckv, finish=_lckv_shared),
    "gemma4_text": Family(
        gemma4, gemma4_ffn, norms=4, tied=True, layer_extra=_per_layer, outside=_per_layer_tables, prepare=_gemma4
    ),
    "mimo_v2_flash": Family(mimo, Sparse(where=first_dense), prepare=_mimo),
    "step3p5": Family(step, Sparse(where=step_sparse, shared=_step_shared), prepare=_step),
}
