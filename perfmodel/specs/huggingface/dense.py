"""Families of the Llama line: grouped-query attention and a gated MLP or a mixture of experts, pre-normalised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from perfmodel.specs.huggingface.family import Family
from perfmodel.specs.huggingface.fields import Fields
from perfmodel.specs.huggingface.parts import Dense, Gqa, Sparse

__all__ = ["FAMILIES", "QWEN_MOE", "first_dense", "shared_experts", "shared_width"]


# ---- which layers are sparse, and what is shared ---------------------------------------------------------------------


def first_dense(f: Fields) -> list[bool]:
    """DeepSeek: the first layers are dense, then every ``moe_layer_freq``-th is sparse; or one word per layer."""
    words = f.listed("mlp_layer_types", f.layers)
    if words is not None:
        f.count("first_k_dense_replace", 0, least=0)
        f.get("moe_layer_freq")
        return [_sparse(f, word) for word in words]
    if isinstance(f.get("moe_layer_freq"), list):
        return [bool(x) for x in f.listed("moe_layer_freq", f.layers) or []]
    first, step = f.count("first_k_dense_replace", least=0), f.count("moe_layer_freq", 1)
    return [i >= first and i % step == 0 for i in range(f.layers)]


def _sparse(f: Fields, word: object) -> bool:
    if word not in ("sparse", "dense"):
        raise f.error("names an unknown kind of layer", "mlp_layer_types", found=word, allowed="sparse, dense")
    return word == "sparse"


def every_step(f: Fields) -> list[bool]:
    """Qwen: every ``decoder_sparse_step``-th layer unless ``mlp_only_layers`` names it."""
    step, only = f.count("decoder_sparse_step", 1), f.indices("mlp_only_layers")
    return [i not in only and (i + 1) % step == 0 for i in range(f.layers)]


def llama4_layers(f: Fields) -> list[bool]:
    """Llama 4: the layers of ``moe_layers``, else every ``interleave_moe_layer_step``-th."""
    step, listed = f.count("interleave_moe_layer_step", 1, least=0), f.get("moe_layers")
    if listed is not None:
        return [i in f.indices("moe_layers") for i in range(f.layers)]
    return [bool(step) and (i + 1) % step == 0 for i in range(f.layers)]


def ernie_layers(f: Fields) -> list[bool]:
    """ERNIE 4.5: every ``moe_layer_interval``-th layer between a first and a last."""
    first, last = f.count("moe_layer_start_index", least=0), f.count("moe_layer_end_index", -1, least=-1)
    step = f.count("moe_layer_interval", 1)
    last = f.layers - 1 if last == -1 else last
    return [(i + 1) % step == 0 and first <= i <= last for i in range(f.layers)]


def shared_experts(f: Fields) -> int:
    """``n_shared_experts`` of the routed experts' width."""
    f.declared("n_shared_experts")
    return (f.optional("n_shared_experts", least=0) or 0) * f.count("moe_intermediate_size")


def _ernie_shared(f: Fields) -> int:
    return (f.optional("moe_num_shared_experts", least=0) or 0) * f.count("moe_intermediate_size")


def shared_width(f: Fields) -> int:
    """Width of the one shared expert."""
    return f.count("shared_expert_intermediate_size", least=0)


# ---- prepared records ------------------------------------------------------------------------------------------------

LLAMA: Final = Gqa()
PUBLISHED_KV: Final = Gqa(given_kv=True)
QWEN3: Final = Gqa(qk_norm="head", given_kv=True, default_head=128, window="late")
GLM4: Final = Gqa(bias="+attention_bias", out_bias=False, given_kv=True, default_head=128)
GEMMA: Final = Gqa(given_kv=True, default_head=256)
OLMO2: Final = Gqa(qk_norm="full")
PLAIN: Final = Dense(bias="mlp_bias")
GATED: Final = Dense()
EXPERTS: Final = Sparse(width="intermediate_size")
QWEN_MOE: Final = Sparse(where=every_step, shared=shared_width, gate=True)
DEEPSEEK_MOE: Final = Sparse(where=first_dense, shared=shared_experts)


def _minimax(f: Fields) -> None:
    f.expect("use_qk_norm", True)
    f.expect("qk_norm_type", "per_layer")
    f.expect("shared_intermediate_size", 0)
    f.flag("use_routing_bias")
    f.expect("attn_type_list", [1] * f.layers)


def _llama4(f: Fields) -> None:
    """Three layers of four attend inside chunks (those with rotary positions), the fourth to everything."""
    f.flag("use_qk_norm")
    layers, rope = f.layers, f.listed("no_rope_layers")
    interval = f.count("no_rope_layer_interval", 4)
    chunked = rope if rope else [(i + 1) % interval != 0 for i in range(layers)]
    if f.get("layer_types") is None:
        words = ["chunked_attention" if c else "full_attention" for c in chunked]
        f.data = {**f.data, "layer_types": words}
    if f.optional("attention_chunk_size") is None:
        raise f.error("is required: some layers are chunked_attention", "attention_chunk_size")


def _square(f: Fields) -> None:
    """Require heads that span the hidden size: the published output projection is square."""
    if f.count("head_dim", 128) * f.heads != f.hidden:
        raise f.error("times the heads must be the hidden size", "head_dim", found=f.get("head_dim"))


LLAMA_FAMILY: Final = Family(LLAMA, PLAIN)
GEMMA_FAMILY: Final = Family(GEMMA, GATED, tied=True)
COHERE: Final = Family(LLAMA, GATED, norms=1, parallel=True, tied=True)

FAMILIES: Final[Mapping[str, Family]] = {
    "llama": LLAMA_FAMILY,
    "Yi": LLAMA_FAMILY,
    "arcee": Family(LLAMA, Dense(gated=False, bias="mlp_bias")),
    "baichuan": Family(Gqa(bias=False), GATED),
    "internlm2": Family(Gqa(bias="bias", given_kv=True), GATED),
    "helium": Family(Gqa(out_bias=False, given_kv=True, default_head=128), PLAIN, prepare=_square),
    "granite": LLAMA_FAMILY,
    "smollm3": Family(Gqa(given_kv=True, window="late"), PLAIN, tied=True),
    "seed_oss": Family(Gqa("+attention_bias", "attention_out_bias", given_kv=True, default_head=128), PLAIN),
    "nemotron": Family(LLAMA, Dense(gated=False, bias="mlp_bias"), norm="layer"),
    "apertus": Family(Gqa(qk_norm="head"), Dense(gated=False, scalars=2)),
    "exaone4": Family(Gqa(bias=False, qk_norm="head", given_kv=True, window="every 4"), GATED),
    "mistral": Family(Gqa(bias=False, given_kv=True, window="all"), GATED),
    "ministral": Family(Gqa(bias=False, given_kv=True, window="all"), GATED),
    "ministral3": Family(Gqa(bias=False, given_kv=True, default_head=128, window="all"), GATED),
    "mixtral": Family(Gqa(bias=False, given_kv=True, window="all"), EXPERTS),
    "qwen2": Family(Gqa(bias=True, out_bias=False, given_kv=True, window="late"), GATED, idle=("attention_bias",)),
    "qwen2_moe": Family(Gqa("+qkv_bias", out_bias=False, given_kv=True, window="early"), QWEN_MOE),
    "qwen3": Family(QWEN3, GATED),
    "qwen3_moe": Family(
        replace(QWEN3, default_head=None),
        Sparse(where=every_step),
        prepare=lambda f: f.expect("use_qk_norm", True),
        idle=("shared_expert_intermediate_size",),
    ),
    "qwen3_vl_text": Family(QWEN3, GATED),
    "qwen3_vl_moe_text": Family(QWEN3, Sparse(where=every_step)),
    "gemma": GEMMA_FAMILY,
    "gemma2": Family(replace(GEMMA, window="every 2"), GATED, norms=4, tied=True),
    "gemma3_text": Family(
        replace(GEMMA, qk_norm="head", window="every 6"),
        GATED,
        norms=4,
        tied=True,
        defaults={"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 262208},
    ),
    "phi3": Family(Gqa(window="all"), GATED),
    "phimoe": Family(Gqa(given_kv=True, window="all"), EXPERTS, norm="layer", head_bias="lm_head_bias"),
    "olmo": Family(LLAMA, GATED, norm="none"),
    "olmo2": Family(OLMO2, GATED),
    "olmo3": Family(replace(OLMO2, window="every 4"), GATED),
    "olmoe": Family(OLMO2, EXPERTS),
    "cohere": replace(COHERE, mixers=Gqa(qk_norm="full", qk_norm_if="use_qk_norm")),
    "cohere2": replace(COHERE, mixers=Gqa(window="every 4")),
    "granitemoe": Family(LLAMA, EXPERTS),
    "granitemoeshared": Family(
        LLAMA, replace(EXPERTS, shared=lambda f: f.count("shared_intermediate_size", 0, least=0))
    ),
    "glm": Family(GLM4, GATED),
    "glm4": Family(GLM4, GATED, norms=4),
    "glm4_moe": Family(Gqa(out_bias=False, qk_norm="head", qk_norm_if="use_qk_norm", given_kv=True), DEEPSEEK_MOE),
    "dots1": Family(Gqa(qk_norm="head", window="late"), DEEPSEEK_MOE),
    "ernie4_5": Family(Gqa(bias="use_bias", given_kv=True, default_head=128), Dense(bias="use_bias"), tied=True),
    "ernie4_5_moe": Family(
        Gqa(bias=False, given_kv=True),
        Sparse(where=ernie_layers, shared=_ernie_shared, router_bias=True),
        tied=True,
        prepare=lambda f: f.expect("use_bias", False),
    ),
    "gpt_oss": Family(
        Gqa("+attention_bias", given_kv=True, default_head=64, window="every 2", sinks=True),
        Sparse(width="intermediate_size", router_bias=True, expert_bias=True),
    ),
    "minimax_m2": Family(Gqa(bias=False, qk_norm="full", given_kv=True, default_head=128), EXPERTS, prepare=_minimax),
    "llama4_text": Family(
        Gqa(given_kv=True, default_head=128, window="all"),
        Sparse(
            width="intermediate_size",
            where=llama4_layers,
            shared=lambda f: f.count("intermediate_size"),
            dense=Dense(width="intermediate_size_mlp"),
        ),
        prepare=_llama4,
    ),
}
