"""Families with compressed keys and values: DeepSeek V2 to V4, Kimi K2, GLM-5."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from perfmodel.specs.architecture import Attention, LatentAttention, Linear
from perfmodel.specs.huggingface.dense import first_dense, shared_experts
from perfmodel.specs.huggingface.family import Family
from perfmodel.specs.huggingface.fields import Fields
from perfmodel.specs.huggingface.parts import Dense, Sparse, place

__all__ = ["FAMILIES"]


def latent(f: Fields) -> list[LatentAttention]:
    """DeepSeek V2 and V3: the same latent attention in every layer."""
    return [_latent(f)] * f.layers


def indexed(f: Fields) -> list[LatentAttention]:
    """DeepSeek V3.2 and GLM-5: an indexer chooses the keys; ``shared`` layers reuse the choice of an earlier one."""
    kinds = {"full": lambda: _latent(f, _index(f)), "shared": lambda: _latent(f, (0, 0, f.count("index_topk")))}
    return place(_index_kinds(f), kinds)


def _index(f: Fields) -> tuple[int, int, int]:
    return f.count("index_n_heads"), f.count("index_head_dim"), f.count("index_topk")


def _index_kinds(f: Fields) -> list[str]:
    words = f.listed("indexer_types", f.layers)
    if words is not None:
        for name in ("index_topk_freq", "index_skip_topk_offset", "index_topk_pattern"):
            f.get(name)
        if not set(words) <= {"full", "shared"}:
            raise f.error("names an unknown kind of layer", "indexer_types", found=words, allowed="full, shared")
        return words
    f.expect("index_topk_pattern")
    every, first = f.count("index_topk_freq", 1), f.count("index_skip_topk_offset", 2, least=0)
    return ["full" if max(i - first + 1, 0) % every == 0 else "shared" for i in range(f.layers)]


def _latent(f: Fields, index: tuple[int, int, int] | None = None) -> LatentAttention:
    f.declared("q_lora_rank")
    rank, kv_rank = f.optional("q_lora_rank"), f.count("kv_lora_rank")
    nope, rope = f.count("qk_nope_head_dim"), f.count("qk_rope_head_dim")
    for name in ("num_key_value_heads", "head_dim"):
        f.optional(name)
    f.expect("qk_head_dim", nope + rope)
    f.expect("layer_types", ["indexed_attention"] * f.layers)
    heads, width, top_k = index or (0, 0, None)
    return LatentAttention(
        f.hidden,
        f.heads,
        rank,
        kv_rank,
        nope,
        rope,
        f.count("v_head_dim"),
        index_heads=heads,
        index_dim=width,
        index_top_k=top_k,
        extra=_latent_extra(f, rank, kv_rank, rope) + 2 * width,
    )


def _latent_extra(f: Fields, rank: int | None, kv_rank: int, rope: int) -> int:
    """Norms of the latents, and biases of the projections into them and out of the heads."""
    biases = (rank or 0) + kv_rank + rope + f.hidden if f.flag("attention_bias") else 0
    return (rank or 0) + kv_rank + biases


# ---- DeepSeek V4 -----------------------------------------------------------------------------------------------------

SLIDING, SPARSE, HEAVY = "sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"


def compressed(f: Fields) -> list[Attention]:
    """DeepSeek V4: one key that is also the value; beyond the window only compressed (and indexed) ones remain."""
    rates = _rates(f)
    made = {rate: _compressed(f, rate) for rate in dict.fromkeys(rates)}
    return [made[rate] for rate in rates]


def _rates(f: Fields) -> list[int]:
    """Return how many tokens one compressed key stands for, 0 for none, of each layer."""
    spare = f.count("num_nextn_predict_layers", 0, least=0)
    ratios = f.listed("compress_ratios", f.layers, spare=spare)
    if ratios is None:
        words = f.listed("layer_types", f.layers, spare=spare)
        if words is None:
            raise f.error("is required for model_type 'deepseek_v4'", "compress_ratios")
        table = {SLIDING: 0, SPARSE: 4, HEAVY: 128, **(f.get("compress_rates") or {})}
        ratios = [table.get(w) for w in words]
    if not set(ratios) <= {0, 4, 128}:
        raise f.error("must be 0, 4 or 128 in every layer", "compress_ratios", found=ratios)
    return ratios


def _compressed(f: Fields, rate: int) -> Attention:
    d, heads, hidden = f.count("head_dim"), f.heads, f.hidden
    f.expect("num_key_value_heads", 1)
    f.expect("compress_rates", {SPARSE: 4, HEAVY: 128})
    f.count("qk_rope_head_dim", 64)
    f.expect("partial_rotary_factor", f.count("qk_rope_head_dim", 64) / d)
    rank, groups, out = f.count("q_lora_rank"), f.count("o_groups"), f.count("o_lora_rank")
    if heads * d % groups:
        raise f.error("must divide heads x head_dim", "o_groups", found=groups)
    more, extra = _compressor(f, rate, d, rank)
    linears = (
        Linear("q down", hidden, rank, "replicated"),
        Linear("q up", rank, heads * d),
        Linear("kv", hidden, d, "replicated"),
        *more,
        Linear("attn out a", heads * d // groups, groups * out),
        Linear("attn out", groups * out, hidden, "row"),
    )
    return Attention(
        hidden,
        heads,
        1,
        d,
        d,
        window=f.count("sliding_window"),
        shared_kv=True,
        extra=rank + d + heads + extra,
        projections=linears,
        compression=rate or None,
        index_top_k=f.count("index_topk") if rate == 4 else None,
    )


def _compressor(f: Fields, rate: int, d: int, rank: int) -> tuple[tuple[Linear, ...], int]:
    """Matrices and further parameters of what makes the compressed keys and, at rate 4, chooses among them."""
    width = 2 * d if rate == 4 else d
    if not rate:
        return (), 0
    pool = (Linear("compress", f.hidden, 2 * width, "replicated"),)
    if rate != 4:
        return pool, rate * width + d
    heads, index, _ = _index(f)
    chooser = (
        Linear("index compress", f.hidden, 4 * index, "replicated"),
        Linear("index q", rank, heads * index, "replicated"),
        Linear("index weights", f.hidden, heads, "replicated"),
    )
    return pool + chooser, rate * width + d + rate * 2 * index + index


def _streams(f: Fields) -> int:
    """Hyper-connections before attention and feed-forward: mixing weights of ``hc_mult`` residual streams."""
    n = f.count("hc_mult")
    return 2 * (n * (n + 2) * (n * f.hidden + 1) + 3)


def _streams_out(f: Fields) -> int:
    n = f.count("hc_mult")
    return n * n * f.hidden + n + 1


def _v4(f: Fields) -> None:
    words = f.listed("mlp_layer_types", f.layers, spare=f.count("num_nextn_predict_layers", 0, least=0)) or []
    if not set(words) <= {"moe", "hash_moe", "sparse"}:
        raise f.error("names an unknown kind of layer", "mlp_layer_types", found=words)
    f.get("expert_dtype")


INDEX: Final = ("index_n_heads", "index_head_dim", "index_topk")
MOE: Final = Sparse(where=first_dense, shared=shared_experts)
V3: Final = Family(latent, MOE)
V32: Final = Family(indexed, MOE)

FAMILIES: Final[Mapping[str, Family]] = {
    "deepseek_v2": Family(latent, replace(MOE, shared_bias="mlp_bias", dense=Dense(bias="mlp_bias"))),
    "deepseek_v3": V3,
    "kimi_k2": V3,
    "glm4_moe_lite": V3,
    "deepseek_v32": V32,
    "glm_moe_dsa": V32,
    "deepseek_v4": Family(
        compressed, Sparse(shared=shared_experts), layer_extra=_streams, outside=_streams_out, prepare=_v4, idle=INDEX
    ),
}
