"""Configurations are read exactly, or refused by the name of the field."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import time
from pathlib import Path
from typing import Any

import pytest

from perfmodel.errors import SpecError
from perfmodel.specs.architecture import Attention, LatentAttention, LinearAttention, Mlp, Moe, StateSpace
from perfmodel.specs.huggingface import FAMILIES, SUPPORTED, read_config
from perfmodel.specs.locate import find_model
from perfmodel.specs.model import load_model

REFERENCE = Path(__file__).parents[1] / "reference" / "parameter_counts.csv"
ROWS = list(csv.DictReader(REFERENCE.read_text().splitlines()))

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "vocab_size": 100,
}
MIXTRAL = {**LLAMA, "model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2}
DEEPSEEK: dict[str, Any] = {
    **LLAMA,
    "model_type": "deepseek_v3",
    "num_key_value_heads": 4,
    "q_lora_rank": 24,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
}
GEMMA3 = {
    **LLAMA,
    "model_type": "gemma3_text",
    "num_hidden_layers": 8,
    "head_dim": 16,
    "sliding_window": 32,
}


def without(config: dict[str, Any], *names: str) -> dict[str, Any]:
    return {k: v for k, v in config.items() if k not in names}


# ---- counts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", ROWS, ids=[f"{r['model_type']}-{i}" for i, r in enumerate(ROWS)])
def test_parameters_are_exact(row: dict[str, str]) -> None:
    assert read_config(json.loads(row["config"])).parameters == int(row["parameters"])


def test_every_family_has_a_reference_count() -> None:
    others = {"Yi", "baichuan", "internlm2", "kimi_k2", "llama4", "qwen3_5", "step3p5"}
    others |= {"nemotron-nas", "qwen3_vl_text", "qwen3_vl_moe_text", "lckv-llama"}
    assert set(SUPPORTED) - {r["model_type"] for r in ROWS} <= others


def test_a_hand_count() -> None:
    attention = 64 * (64 + 2 * 32) + 64 * 64
    layer = attention + 3 * 64 * 96 + 2 * 64
    assert read_config(LLAMA).parameters == 2 * 100 * 64 + 3 * layer + 64
    assert read_config({**LLAMA, "tie_word_embeddings": True}).parameters == 100 * 64 + 3 * layer + 64


def test_active_parameters_leave_out_idle_experts() -> None:
    arch = read_config(MIXTRAL)
    assert arch.parameters - arch.active_parameters == 3 * 2 * (3 * 64 * 96)


def test_parts_are_readings_of_one_list() -> None:
    for row in ROWS:
        arch = read_config(json.loads(row["config"]))
        layers = arch.parameters - arch.embedding_parameters - arch.head_parameters - arch.extra
        assert layers - sum(n for _, n in arch.towers) == arch.layer_parameters
        assert 0 < arch.active_parameters <= arch.parameters


def test_reading_is_fast() -> None:
    config = {**DEEPSEEK, "num_hidden_layers": 128}
    read_config(config)
    start = time.perf_counter()
    for _ in range(20):
        read_config(config)
    assert (time.perf_counter() - start) / 20 < 0.002


# ---- structure -------------------------------------------------------------------------------------------------------


def layers_of(config: dict[str, Any]) -> list[Any]:
    return [run.layer for run in read_config(config).runs for _ in range(run.count)]


def test_identical_neighbours_are_one_run() -> None:
    assert [run.count for run in read_config(LLAMA).runs] == [3]
    assert [run.count for run in read_config(DEEPSEEK).runs] == [1, 2]


def test_windows_follow_the_pattern() -> None:
    windows = [layer.mixer.window for layer in layers_of(GEMMA3)]
    assert windows == [32] * 5 + [None] + [32] * 2


def test_layer_types_override_the_pattern() -> None:
    kinds = ["full_attention", "sliding_attention"] * 4
    windows = [layer.mixer.window for layer in layers_of({**GEMMA3, "layer_types": kinds})]
    assert windows == [None, 32] * 4


def test_a_window_that_is_switched_off_is_no_window() -> None:
    qwen = {**LLAMA, "model_type": "qwen2", "sliding_window": 32, "use_sliding_window": False}
    assert {layer.mixer.window for layer in layers_of(qwen)} == {None}


def test_components_have_their_kind() -> None:
    kinds = {type(layer.mixer) for row in ROWS for layer in layers_of(json.loads(row["config"]))}
    assert {Attention, LatentAttention, StateSpace, LinearAttention, type(None)} == kinds
    ffns = {type(layer.ffn) for row in ROWS for layer in layers_of(json.loads(row["config"]))}
    assert {Mlp, Moe, type(None)} == ffns


def test_latent_attention_keeps_its_ranks() -> None:
    mixer = layers_of(DEEPSEEK)[0].mixer
    assert (mixer.kv_lora_rank, mixer.rope_dim, mixer.q_lora_rank) == (16, 4, 24)
    direct = layers_of({**DEEPSEEK, "q_lora_rank": None})[0].mixer
    assert direct.linears[0][:4] == ("q", 64, 4 * 12, "column")


def test_dropout_is_known() -> None:
    assert not read_config({**LLAMA, "attention_dropout": 0.0}).dropout
    assert read_config({**LLAMA, "attention_dropout": 0.1}).dropout


def test_old_and_new_names_agree() -> None:
    new = {"model_type": "gpt2", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    old = {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4}
    rest = {"vocab_size": 100, "n_positions": 32}
    assert read_config({**new, **rest}) == read_config({**old, **rest})


# ---- refusals --------------------------------------------------------------------------------------------------------

REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("unknown type", {**LLAMA, "model_type": "lama"}, "model_type"),
    ("no type", without(LLAMA, "model_type"), "model_type"),
    ("type is a number", {**LLAMA, "model_type": 3}, "model_type"),
    ("unknown field", {**LLAMA, "hyper_width": 3}, "hyper_width"),
    ("experts in a dense family", {**LLAMA, "num_local_experts": 8}, "num_local_experts"),
    ("field of another family", {**LLAMA, "kv_lora_rank": 512}, "kv_lora_rank"),
    ("no width", without(LLAMA, "intermediate_size"), "intermediate_size"),
    ("no hidden size", without(LLAMA, "hidden_size"), "hidden_size"),
    ("no layers", without(LLAMA, "num_hidden_layers"), "num_hidden_layers"),
    ("no heads", without(LLAMA, "num_attention_heads"), "num_attention_heads"),
    ("no vocabulary", without(LLAMA, "vocab_size"), "vocab_size"),
    ("null width", {**LLAMA, "intermediate_size": None}, "intermediate_size"),
    ("kv heads matter", without({**LLAMA, "model_type": "mistral"}, "num_key_value_heads"), "num_key_value_heads"),
    ("zero layers", {**LLAMA, "num_hidden_layers": 0}, "num_hidden_layers"),
    ("negative width", {**LLAMA, "intermediate_size": -96}, "intermediate_size"),
    ("fraction", {**LLAMA, "hidden_size": 64.5}, "hidden_size"),
    ("not a number", {**LLAMA, "hidden_size": math.nan}, "hidden_size"),
    ("infinite", {**LLAMA, "vocab_size": math.inf}, "vocab_size"),
    ("text", {**LLAMA, "hidden_size": "64"}, "hidden_size"),
    ("yes is no number", {**LLAMA, "num_hidden_layers": True}, "num_hidden_layers"),
    ("absurd", {**LLAMA, "hidden_size": 10**12}, "hidden_size"),
    ("heads do not divide", {**LLAMA, "num_attention_heads": 5, "num_key_value_heads": 5}, "hidden_size"),
    ("kv heads do not divide", {**LLAMA, "num_key_value_heads": 3}, "num_key_value_heads"),
    ("number for a flag", {**LLAMA, "attention_bias": 1}, "attention_bias"),
    ("names disagree", {**LLAMA, "n_layer": 5}, "n_layer"),
    ("encoder", {**LLAMA, "is_encoder_decoder": True}, "is_encoder_decoder"),
    ("classifier", {**LLAMA, "architectures": ["LlamaForSequenceClassification"]}, "architectures"),
    ("more active than there are", {**MIXTRAL, "num_experts_per_tok": 5}, "num_experts_per_tok"),
    ("no experts", without(MIXTRAL, "num_local_experts"), "num_experts"),
    ("query rank not said", without(DEEPSEEK, "q_lora_rank"), "q_lora_rank"),
    ("too few layer types", {**GEMMA3, "layer_types": ["full_attention"]}, "layer_types"),
    ("strange layer type", {**GEMMA3, "layer_types": ["linear_attention"] * 8}, "layer_types"),
    ("window not said", without(GEMMA3, "sliding_window"), "sliding_window"),
    ("nested width", {"model_type": "gemma3", "text_config": {**GEMMA3, "hidden_size": 0}}, "text_config.hidden_size"),
    ("nested type", {"model_type": "gemma3", "text_config": LLAMA}, "text_config.model_type"),
    ("no text model", {"model_type": "gemma3"}, "text_config"),
    (
        "unknown quantisation",
        {**LLAMA, "quantization_config": {"quant_method": "magic"}},
        "quantization_config.quant_method",
    ),
    (
        "strange bits",
        {**LLAMA, "quantization_config": {"quant_method": "gptq", "bits": 5}},
        "quantization_config.bits",
    ),
]


@pytest.mark.parametrize(("config", "field"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_refused_by_name(config: dict[str, Any], field: str) -> None:
    with pytest.raises(SpecError) as caught:
        read_config(config)
    assert caught.value.field == field


def test_unknown_type_offers_near_ones() -> None:
    with pytest.raises(SpecError, match=r"nearest: .*llama") as caught:
        read_config({**LLAMA, "model_type": "lama"}, where="x.json")
    assert caught.value.file == "x.json"
    assert "llama" in (caught.value.allowed or "")


def test_a_quantisation_file_is_not_a_model() -> None:
    with pytest.raises(SpecError, match="hf_quant_config"):
        read_config({"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8"}})


def test_harmless_fields_change_nothing() -> None:
    extra = {
        "bos_token_id": 1,
        "rope_theta": 1e6,
        "rope_scaling": {"factor": 8.0},
        "initializer_range": 0.02,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.0",
        "use_cache": True,
        "attention_dropout": 0.0,
        "num_nextn_predict_layers": 1,
        "auto_map": {"AutoModel": "x.y"},
        "something_absent": None,
    }
    assert read_config({**LLAMA, **extra}) == read_config(LLAMA)


@pytest.mark.parametrize("row", ROWS[::5], ids=lambda r: str(r["model_type"]))
@pytest.mark.parametrize("value", [0, -1, 1.5, math.nan, "x", [], {}, 10**30], ids=str)
def test_a_broken_field_never_crashes(row: dict[str, str], value: object) -> None:
    config = json.loads(row["config"])
    for name in config:
        with contextlib.suppress(SpecError):
            read_config({**config, name: value})


# ---- quantisation ----------------------------------------------------------------------------------------------------

WEIGHTS = {"type": "float", "num_bits": 8}
STORED: list[tuple[dict[str, Any], str]] = [
    ({"quant_method": "fp8"}, "fp8"),
    ({"quant_method": "fbgemm_fp8"}, "fp8"),
    ({"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": WEIGHTS}}}, "fp8"),
    (
        {
            "quant_method": "compressed-tensors",
            "config_groups": {"group_0": {"weights": {"type": "int", "num_bits": 4}}},
        },
        "int4",
    ),
    ({"quant_method": "gptq", "bits": 4}, "int4"),
    ({"quant_method": "awq", "w_bit": 4}, "int4"),
    ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "nvfp4"),
    ({"quant_algo": "FP8"}, "fp8"),
    ({"quant_method": "mxfp4"}, "mxfp4"),
]


@pytest.mark.parametrize(("quantisation", "expected"), STORED, ids=[s[1] + str(i) for i, s in enumerate(STORED)])
def test_stored_format(quantisation: dict[str, Any], expected: str) -> None:
    arch = read_config({**MIXTRAL, "quantization_config": quantisation})
    assert arch.weight_format == expected
    assert arch.parameters == read_config(MIXTRAL).parameters
    assert "head" in arch.unquantised


@pytest.mark.parametrize(
    ("excluded", "part"),
    [
        ("model.layers.*.self_attn", "attention"),
        ("re:.*self_attn.*", "attention"),
        ("re:.*shared_experts.*", "shared"),
        ("model.layers.1.self_attn.q_proj", "attention"),
        (r"re:.*mlp\.(gate|up|gate_up|down)_proj.*", "mlp"),
    ],
)
def test_excluded_modules_stay_wide(excluded: str, part: str) -> None:
    quantisation = {"quant_method": "fp8", "modules_to_not_convert": [excluded]}
    assert part in read_config({**LLAMA, "quantization_config": quantisation}).unquantised


def test_norms_are_not_mistaken_for_attention() -> None:
    quantisation = {"quant_method": "fp8", "modules_to_not_convert": ["model.layers.1.self_attn.kv_a_layernorm"]}
    assert "attention" not in read_config({**LLAMA, "quantization_config": quantisation}).unquantised


def test_families_are_listed_once() -> None:
    assert len(SUPPORTED) == len(set(SUPPORTED)) >= len(FAMILIES)


# ---- layers described one by one -------------------------------------------------------------------------------------

SEARCHED: dict[str, Any] = {
    "model_type": "nemotron-nas",
    "hidden_size": 768,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": None,
    "intermediate_size": None,
    "vocab_size": 100,
    "tie_word_embeddings": False,
    "block_configs": [
        {"attention": {"n_heads_in_group": 4, "no_op": False}, "ffn": {"ffn_mult": 1.0, "no_op": False}},
        {"attention": {"n_heads_in_group": None, "no_op": True}, "ffn": {"ffn_mult": 0.6, "no_op": False}},
        {"attention": {"n_heads_in_group": 8, "no_op": False}, "ffn": {"ffn_mult": None, "no_op": True}},
    ],
}


def test_searched_layers_have_what_they_name_and_one_norm_in_front_of_each() -> None:
    model = read_config(SEARCHED)
    first, second, third = (run.layer for run in model.runs)
    assert isinstance(first.mixer, Attention)
    assert isinstance(third.mixer, Attention)
    assert (first.mixer.kv_heads, second.mixer, third.mixer.kv_heads, third.ffn) == (2, None, 1, None)
    assert isinstance(first.ffn, Mlp)
    assert isinstance(second.ffn, Mlp)
    assert (first.ffn.width, second.ffn.width) == (512, 512)  # 512 and 307, rounded up to 256
    attention = (2 * 768 + 2 * 192) * 768 + (2 * 768 + 2 * 96) * 768
    assert model.parameters == 2 * 100 * 768 + attention + 2 * 3 * 768 * 512 + 5 * 768


def test_published_searched_model_is_exact() -> None:
    """49,867,145,216 parameters: the number on the model's page."""
    assert load_model(find_model("nemotron-super-49b")).architecture.parameters == 49_867_145_216


@pytest.mark.parametrize(
    ("part", "change", "field"),
    [
        ("attention", {"n_heads_in_group": 3}, "block_configs.0.attention.n_heads_in_group"),
        ("attention", {"window_length": 128, "n_heads_in_group": 4}, "block_configs.0.attention.window_length"),
        ("ffn", {"ffn_mult": -1}, "block_configs.0.ffn.ffn_mult"),
        ("ffn", {"ffn_mult": 1, "surprise": True}, "block_configs.0.ffn.surprise"),
    ],
)
def test_searched_layers_that_are_not_understood(part: str, change: dict[str, Any], field: str) -> None:
    blocks = [{**SEARCHED["block_configs"][0], part: change}, *SEARCHED["block_configs"][1:]]
    with pytest.raises(SpecError) as error:
        read_config({**SEARCHED, "block_configs": blocks})
    assert error.value.field == field
