"""Fields that say nothing about the shape of the matrices, so they may be present with any value.

A field is here only if no supported family changes its parameters, its matrices or its attention pattern with it. (A
family that does read one of them is free to.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["EXPECTED", "HARMLESS", "HARMLESS_ENDS", "HARMLESS_STARTS"]

_NAMES: Final = """
    model_type architectures auto_map transformers_version torch_dtype dtype _name_or_path name_or_path _commit_hash
    attn_implementation _attn_implementation _attn_implementation_autoset _flash_attn_2_enabled
    _experts_implementation use_flash_attention use_flash_attn flash_attn fp16 fp32 bf16 use_bfloat16 torchscript
    tf_legacy_loss init_device device_map framework license tags version seed revision

    use_cache cache_implementation return_dict output_attentions output_hidden_states output_router_logits
    output_scores return_dict_in_generate chunk_size_feed_forward is_decoder tie_encoder_decoder finetuning_task
    problem_type id2label label2id num_labels tokenizer_class prefix task_specific_params remove_invalid_values
    pruned_heads gradient_checkpointing summary_type summary_use_proj summary_activation summary_proj_to_labels
    keys_to_ignore_at_inference

    max_length min_length max_new_tokens do_sample early_stopping num_beams num_beam_groups diversity_penalty
    temperature top_k top_p typical_p repetition_penalty length_penalty no_repeat_ngram_size
    encoder_no_repeat_ngram_size exponential_decay_length_penalty num_return_sequences num_logits_to_keep
    suppress_tokens begin_suppress_tokens bad_words_ids forced_eos_token forced_bos_token ignore_index eos_token
    bos_token pad_token

    hidden_act hidden_activation activation_function activation mlp_hidden_act mamba_hidden_act ffn_act_fn
    swiglu_limit swiglu_limits swiglu_limits_shared swiglu_alpha initializer_range initializer_factor init_std
    init_method init_config emb_init_std embedding_initializer_range rms_norm_eps layer_norm_eps layer_norm_epsilon
    layernorm_epsilon norm_eps norm_epsilon mixer_rms_eps hc_eps layer_norm_rms_eps embedding_fraction
    rescale_prenorm_residual residual_in_fp32 attention_softmax_in_fp32 scale_attention_softmax_in_fp32 softmax_scale
    reorder_and_upcast_attn mixed_precision fused_add_norm

    partial_rotary_factor partial_rotary_factors rotary_pct rotary_dim rotary_emb_base rotary_base rotary_emb_fraction
    rotary no_rope_layers no_rope_layer_interval swa_rope_theta compress_rope_theta original_max_position_embeddings
    initial_context_length max_sequence_length seq_length n_ctx alibi_bias_max offset_alibi use_dynamic_ntk
    use_logn_attn position_embedding_type yarn_scaling indexer_rope_interleave floor_scale mrope_section alibi
    relative_attention

    query_pre_attn_scalar attn_logit_softcapping final_logit_softcapping attn_scale attn_temperature_tuning
    logit_scale attention_multiplier embedding_multiplier logits_scaling residual_multiplier attention_value_scale
    scale_attn_weights scale_attn_by_inverse_layer_idx clip_qkv attn_uses_sequence_id attn_impl
    attention_key_multiplier

    aux_loss_alpha seq_aux router_aux_loss_coef router_z_loss_coef router_jitter_noise input_jitter_noise
    z_loss_coefficient norm_topk_prob norm_expert_weight routed_scaling_factor moe_router_scaling_factor scoring_func
    topk_method n_group topk_group num_expert_group moe_norm_min moe_jitter_eps moe_loss_weight
    moe_normalize_expert_weights ep_size moe_router_dtype moe_shared_expert_overlap moe_aux_loss_coef expert_capacity
    moe_implementation router_logits_dtype use_grouped_topk moe_renormalize moe_router_activation_func

    pretraining_tp slow_but_exact skip_bias_add skip_bias_add_qkv masked_softmax_fusion bias_dropout_fusion unk_init
    hidden_dropout_prob dropout use_mamba_kernels use_mambapy use_associative_scan use_mem_eff_path chunk_size
    mamba_chunk_size mamba_ssm_dtype mamba_ssm_cache_dtype pad_vocab_size_multiple ssm_cfg attn_cfg attn_layer_idx
    hc_sinkhorn_iters num_hash_layers verbose param_init_fn inference_tp

    num_nextn_predict_layers num_mtp_layers num_mtp_modules use_mtp mtp_transformer_layers mtp_num_hidden_layers
    mtp_use_dedicated_embeddings mtp_layers_block_type mtp_layer_types mtp_mlp_layer_types
    index_share_for_mtp_iteration

    image_size video_size placeholder image_placeholder video_placeholder use_unified_vision_chunk
    vision_soft_tokens_per_image mm_tokens_per_image projection_layer_norm_eps

    apply_residual_connection_post_layernorm tokenizer_name sliding_window_size inference_runner max_batch_size
    pad_key_length pre_allocate_kv_cache validate_runner_input calc_logits_for_entire_prompt attn_rotary_emb use_mrope
    moe_capacity moe_gate moe_use_aux_free moe_use_hard_gate pool_max_length model_max_length
    for_llm_compressor unsloth_fixed unsloth_version embd_layer sample_packing use_fused_rms_norm
    use_fused_rope norm_topk_probability moe_layer_use_mlp is_long_context_trained attention_probs_dropout_prob
    moe_dropout_prob fuse_rms_norm fuse_rope use_rmsnorm rms_norm_use_fused
    sequence_parallel tensor_parallel_degree freq_allocation use_recompute
"""

HARMLESS: Final = frozenset(_NAMES.split())

HARMLESS_STARTS: Final = ("rope_", "mtp_", "time_step_", "mamba_dt_")
HARMLESS_ENDS: Final = (
    "_token_id",
    "_token_ids",
    "_token_index",
    "_dropout",
    "_pdrop",
    "_pdropout",
    "layerdrop",
)

EXPECTED: Final[Mapping[str, tuple[object, ...]]] = {
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (),
    "tie_word_embeddings": (True, False),
    "use_sliding_window": (False,),
    "use_bidirectional_attention": (False, "vision"),
    "is_causal": (True,),
    "prefix_lm": (False,),
    "attention_bias": (False,),
    "qkv_bias": (False,),
    "mlp_bias": (False,),
    "attention_output_gate": (False,),
    "sliding_window": (0,),
    "per_layer_config": ({},),
    "mamba_inner_layernorms": (True,),
    "normalization_function": ("rmsnorm",),
    "ff_factor": (4,),
}
"""Fields that a family which does not read them accepts only with these values."""
