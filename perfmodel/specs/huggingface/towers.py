"""Vision towers and their projectors: exact parameter counts of parts that are not costed."""

from __future__ import annotations

from perfmodel.specs.huggingface.fields import Fields

__all__ = ["gemma4_towers", "kimi_towers", "qwen3_vl_towers", "siglip_towers", "step_towers"]

Towers = tuple[tuple[str, int], ...]


def _block(hidden: int, mlp: int) -> int:
    """Return the parameters of a block with biases everywhere and two LayerNorms."""
    return 4 * (hidden * hidden + hidden) + 2 * hidden * mlp + mlp + hidden + 4 * hidden


def _sizes(v: Fields, layers: str = "num_hidden_layers") -> tuple[int, int, int, int]:
    heads = v.heads if layers == "num_hidden_layers" else v.count("num_heads", 1)
    if v.hidden % heads and v.get("head_dim") is None:
        raise v.error("must be a multiple of the number of heads", "hidden_size", found=f"{v.hidden} / {heads} heads")
    return v.hidden, v.count("intermediate_size"), v.count(layers), v.count("patch_size")


def siglip_towers(f: Fields, text: int) -> Towers:
    """Gemma 3: SigLIP and a projection to the language model."""
    v = f.block("vision_config")
    hidden, mlp, layers, patch = _sizes(v)
    channels, image = v.count("num_channels", 3), v.count("image_size")
    tower = (channels * patch * patch + 1 + (image // patch) ** 2) * hidden + layers * _block(hidden, mlp) + 2 * hidden
    if v.flag("vision_use_head", True):
        tower += hidden + _block(hidden, mlp) - 2 * hidden
    return (("vision", tower), ("projector", hidden * text + hidden))


def qwen3_vl_towers(f: Fields, text: int) -> Towers:
    """Qwen3-VL: a tower with a merger of patches at its end and after the deepstack layers."""
    v = f.block("vision_config")
    hidden, mlp, layers, patch = _sizes(v, "depth")
    pixels = v.count("in_channels", 3) * v.count("temporal_patch_size", 2) * patch * patch
    merged = hidden * v.count("spatial_merge_size", 2) ** 2
    merger = merged * merged + merged + (merged + 1) * _same(v, "out_hidden_size", text)
    taps = len(v.indices("deepstack_visual_indexes"))
    tower = (pixels + 1 + v.count("num_position_embeddings")) * hidden + layers * _block(hidden, mlp)
    return (("vision", tower), ("projector", merger + 2 * hidden + taps * (merger + 2 * merged)))


def _same(v: Fields, name: str, value: int) -> int:
    v.expect(name, value)
    return value


def gemma4_towers(f: Fields, text: int) -> Towers:
    """Gemma 4: a gated tower with normalised queries and keys, and a projection."""
    f.expect("audio_config")
    if f.get("vision_config") is None:
        return ()
    v = f.block("vision_config")
    hidden, mlp, layers, patch = _sizes(v)
    heads, d = v.heads, v.count("head_dim")
    for name in GEMMA4_HARMLESS:
        v.get(name)
    width = (2 * heads + 2 * v.count("num_key_value_heads")) * d
    block = hidden * width + 2 * d + 3 * hidden * mlp + 4 * hidden
    tower = (2 * v.count("position_embedding_size") + 3 * patch * patch) * hidden + layers * block
    return (("vision", tower), ("projector", hidden * text))


GEMMA4_HARMLESS = (
    "global_head_dim",
    "use_clipped_linears",
    "standardize",
    "pooling_kernel_size",
    "default_output_length",
    "max_position_embeddings",
)


def kimi_towers(f: Fields, text: int) -> Towers:
    """Kimi K2.5: MoonViT (fields spelt ``vt_...`` in the published file) and a projector of merged patches."""
    v = f.block("vision_config")
    old = v.get("vt_hidden_size") is not None
    hidden, mlp, layers = (
        v.count(("vt_" if old else "") + n) for n in ("hidden_size", "intermediate_size", "num_hidden_layers")
    )
    names = ("init_pos_emb_height", "init_pos_emb_width") if old else ("pos_emb_height", "pos_emb_width")
    rows, columns = (v.count(n, 64) for n in names)
    for name in KIMI_HARMLESS:
        v.get(name)
    v.expect("mm_projector_type", "patchmerger")
    v.expect("text_hidden_size", text)
    a, b = v.listed("merge_kernel_size", 2) or [2, 2]
    pixels = 3 * v.count("patch_size") ** 2
    tower = (pixels + 1 + rows * columns) * hidden + layers * _block(hidden, mlp) + 2 * hidden
    merged = hidden * a * b
    projector = 2 * hidden + merged * merged + merged + (merged + 1) * text
    return (("vision", tower), ("projector", projector))


KIMI_HARMLESS = (
    "num_attention_heads",
    "vt_num_attention_heads",
    "mm_hidden_size",
    "projector_hidden_act",
    "projector_ln_eps",
    "merge_type",
    "pos_emb_type",
    "pos_emb_time",
    "init_pos_emb_time",
    "video_attn_type",
)


def step_towers(f: Fields, text: int) -> Towers:
    """Step 3.7: a tower with layer scales and two strided convolutions; a file without it has the released one."""
    v = f.block("vision_config", required=False)
    hidden, layers = v.count("width", v.count("hidden_size", 1536)), v.count("layers", v.count("num_hidden_layers", 47))
    patch, image = v.count("patch_size", 14), v.count("image_size", 728)
    ratio = v.get("mlp_ratio") or 8960 / 1536
    for name in ("heads", "num_attention_heads", "ls_init_value", "layer_scale_init_value", "intermediate_size"):
        v.get(name)
    pixels = v.count("num_channels", 3) * patch * patch
    tower = (pixels + v.count("max_position_embeddings", (image // patch) ** 2) + 2) * hidden
    tower += layers * (_block(hidden, int(hidden * ratio)) + 2 * hidden)
    tower += 9 * hidden * 2 * hidden + 2 * hidden + 9 * 2 * hidden * 4 * hidden + 4 * hidden
    projector = 4 * hidden * text + (text if f.flag("projector_bias") else 0)
    return (("vision", tower), ("projector", projector))
