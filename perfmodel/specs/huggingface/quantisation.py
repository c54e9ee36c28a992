"""How a checkpoint stores its weights: ``quantization_config`` to a format and the parts that stay in 16 bits."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any, Final, Literal

from perfmodel.specs.huggingface.fields import Fields

__all__ = ["Part", "stored"]

Part = Literal["attention", "router", "shared", "mlp", "experts", "head"]
PARTS: Final[Mapping[Part, tuple[str, ...]]] = {
    "attention": ("self_attn.q_proj", "self_attn.q_b_proj", "self_attn.o_proj", "mixer.q_proj"),
    "shared": ("mlp.shared_experts.up_proj", "mlp.shared_expert.up_proj", "mixer.shared_experts.up_proj"),
    "mlp": ("mlp.up_proj", "mlp.down_proj", "feed_forward.up_proj"),
    "experts": ("mlp.experts.0.up_proj", "mlp.experts", "block_sparse_moe.experts.0.w1", "mixer.experts.0.up_proj"),
}
"""Names that the matrices of a part have in checkpoints."""
STEMS: Final = (
    "model.layers.{}.",
    "model.language_model.layers.{}.",
    "language_model.model.layers.{}.",
    "backbone.layers.{}.",
)
EXCLUDED: Final = ("modules_to_not_convert", "ignore", "ignored_layers", "exclude_modules")
MODELOPT: Final[Mapping[str, str]] = {
    "FP8": "fp8",
    "FP8_PER_CHANNEL_PER_TOKEN": "fp8",
    "FP8_PB_WO": "fp8",
    "NVFP4": "nvfp4",
    "NVFP4_AWQ": "nvfp4",
    "W4A16_AWQ": "int4",
    "W4A8_AWQ": "int4",
    "INT4_AWQ": "int4",
    "W8A8_SQ_PER_CHANNEL": "int8",
}


def stored(f: Fields, layers: int) -> tuple[str, tuple[Part, ...]]:
    """Return the weight format and the parts that are not in it."""
    if f.get("quantization_config") is None:
        return "bf16", ()
    q = f.block("quantization_config")
    q.seen.update(q.data)
    method: object = q.get("quant_method") or ("modelopt" if q.get("quant_algo") else None)
    if not isinstance(method, str) or method not in METHODS:
        raise q.error("is not supported", "quant_method", found=method, allowed=", ".join(METHODS))
    fmt = METHODS[method](q)
    if f.get("expert_dtype") == "fp4":
        fmt = "mxfp4"
    return fmt, _kept(q, layers)


def _bits(q: Fields) -> str:
    name = "bits" if "bits" in q.data else "w_bit"
    bits = q.count(name)
    if bits not in (2, 3, 4, 8):
        raise q.error("is not supported", name, found=bits, allowed="2, 3, 4, 8")
    return f"int{bits}"


def _modelopt(q: Fields) -> str:
    algorithm = str(q.get("quant_algo"))
    if algorithm not in MODELOPT:
        raise q.error("is not supported", "quant_algo", found=algorithm, allowed=", ".join(MODELOPT))
    return MODELOPT[algorithm]


def _compressed(q: Fields) -> str:
    groups = q.get("config_groups")
    weights = [g["weights"] for g in groups.values() if g.get("weights")] if isinstance(groups, Mapping) else []
    kinds = {(w.get("type", "int"), w.get("num_bits")) for w in weights}
    if len(kinds) != 1:
        raise q.error("must give one number format for the weights", "config_groups", found=sorted(map(str, kinds)))
    kind, bits = kinds.pop()
    formats = {("float", 8): "fp8", ("float", 4): _four_bits(q, weights), ("int", 4): "int4", ("int", 8): "int8"}
    if (kind, bits) not in formats:
        raise q.error("is not supported", "config_groups", found=f"{kind}{bits}")
    return formats[kind, bits]


def _four_bits(q: Fields, weights: list[Any]) -> str:
    return "mxfp4" if "mxfp4" in str(q.get("format")) or weights[0].get("group_size") == 32 else "nvfp4"


METHODS: Final[Mapping[str, Callable[[Fields], str]]] = {
    "fp8": lambda q: "fp8_block" if q.get("weight_block_size") else "fp8",
    "fbgemm_fp8": lambda q: "fp8",
    "compressed-tensors": _compressed,
    "modelopt": _modelopt,
    "modelopt_fp4": lambda q: "nvfp4",
    "nvfp4": lambda q: "nvfp4",
    "mxfp4": lambda q: "mxfp4",
    "gptq": _bits,
    "awq": _bits,
}


def _kept(q: Fields, layers: int) -> tuple[Part, ...]:
    patterns = [p for name in EXCLUDED for p in (q.listed(name) or []) if isinstance(p, str)]
    plain = {p for p in patterns if not p.startswith("re:") and "*" not in p}
    wide = [p for p in patterns if p not in plain]
    middle = [stem.format(layers // 2) for stem in STEMS]
    kept: list[Part] = ["router"]
    for part, names in PARTS.items():
        paths = [stem + name for stem in middle for name in names]
        if any(not plain.isdisjoint(_inside(path)) or any(_matches(p, path) for p in wide) for path in paths):
            kept.append(part)
    if not q.get("lm_head"):
        kept.append("head")
    return tuple(kept)


def _matches(pattern: str, name: str) -> bool:
    """Whether an exclusion covers a matrix: a regular expression (``re:``) or a wildcard."""
    if pattern.startswith("re:"):
        try:
            return re.match(pattern[3:], name) is not None
        except re.error:
            return False
    return fnmatchcase(name, pattern) or fnmatchcase(name, pattern + ".*")


def _inside(path: str) -> list[str]:
    """Every name that the path contains: single steps and runs of steps."""
    steps = path.split(".")
    return [".".join(steps[i:j]) for i in range(len(steps)) for j in range(i + 1, len(steps) + 1)]
