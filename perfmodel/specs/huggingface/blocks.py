"""Families that describe every layer by itself: the architectures that a search found (Nemotron-NAS)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from perfmodel.specs.architecture import Attention, Mlp
from perfmodel.specs.huggingface.family import Family
from perfmodel.specs.huggingface.fields import Fields

__all__ = ["FAMILIES"]

MULTIPLE: Final = 256
"""Widths of feed-forward layers are rounded up to it (``modeling_decilm.py`` of the checkpoints)."""
OFF: Final = {
    "attention": ("replace_with_linear", "sparsify", "num_sink_tokens", "window_length", "unshifted_sink",
                  "use_prefill_window_in_sink_attention"),
    "ffn": ("replace_with_linear", "sparsify"),
}  # fmt: skip
"""Choices of the search that no published checkpoint makes and that are not modelled."""
KNOWN: Final = {"attention": "n_heads_in_group", "ffn": "ffn_mult"}


def _blocks(f: Fields, part: str) -> list[Mapping[str, Any] | None]:
    """What ``block_configs`` says of one part of every layer; ``None`` where the layer does without it."""
    found: list[Mapping[str, Any] | None] = []
    for i, block in enumerate(f.listed("block_configs", f.layers) or []):
        where = f"block_configs.{i}.{part}"
        own = block.get(part) if isinstance(block, Mapping) else None
        if not isinstance(own, Mapping):
            raise f.error("is required: what the layer has", where)
        if unknown := own.keys() - {*OFF[part], KNOWN[part], "no_op"}:
            raise f.error("is not understood", f"{where}.{min(unknown)}", found=own[min(unknown)])
        for name in OFF[part]:
            if own.get(name):
                raise f.error("is not supported", f"{where}.{name}", found=own[name], allowed="false or null")
        found.append(None if own.get("no_op") else own)
    if not found:
        raise f.error(f"is required for model_type {f.family!r}", "block_configs")
    return found


def attentions(f: Fields) -> list[Attention | None]:
    """Grouped-query attention whose groups may differ from layer to layer."""
    made: list[Attention | None] = []
    width, rest = divmod(f.hidden, f.heads)
    if rest:
        raise f.error("must divide hidden_size", "num_attention_heads", found=f.heads)
    f.expect("attention_bias", False)
    for i, own in enumerate(_blocks(f, "attention")):
        if own is None:
            made.append(None)
            continue
        group = own.get("n_heads_in_group")
        if isinstance(group, bool) or not isinstance(group, int) or group < 1 or f.heads % group:
            where = f"block_configs.{i}.attention.n_heads_in_group"
            raise f.error("must divide the number of query heads", where, found=group, allowed=f"divisors of {f.heads}")
        made.append(Attention(f.hidden, f.heads, f.heads // group, width, width))
    return made


def ffns(f: Fields) -> list[Mlp | None]:
    """Gated networks of two thirds of ``ffn_mult`` times the hidden width, rounded up."""
    made: list[Mlp | None] = []
    f.expect("mlp_bias", False)
    for i, own in enumerate(_blocks(f, "ffn")):
        if own is None:
            made.append(None)
            continue
        scale = own.get("ffn_mult")
        if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not 0.0 < scale <= 64.0:
            where = f"block_configs.{i}.ffn.ffn_mult"
            raise f.error("must be a multiple of the hidden width", where, found=scale, allowed="above 0, up to 64")
        wanted = int(2.0 * scale * f.hidden / 3.0)
        made.append(Mlp(f.hidden, -(-wanted // MULTIPLE) * MULTIPLE))
    return made


FAMILIES: Final[Mapping[str, Family]] = {
    "nemotron-nas": Family(attentions, ffns, norms="each"),
}
