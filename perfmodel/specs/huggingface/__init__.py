"""HuggingFace ``config.json`` to :class:`~perfmodel.specs.architecture.Architecture`.

A family is one :class:`~perfmodel.specs.huggingface.family.Family` record: records of switches for attention and
feed-forward, and what else it has. What is not understood is refused by name; nothing is guessed.

Parameters are those of the language model that the published code builds: multi-token-prediction heads and buffers
(such as the score correction of routers) do not count, tied tables count once, quantisation does not change the
number. Vision towers count (``towers``) where the causal model of the family includes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from perfmodel.errors import SpecError, nearest
from perfmodel.specs.architecture import Architecture
from perfmodel.specs.huggingface import blocks, classic, dense, latent, special, state
from perfmodel.specs.huggingface.family import Family, build
from perfmodel.specs.huggingface.fields import Fields, Where
from perfmodel.specs.huggingface.quantisation import stored
from perfmodel.specs.huggingface.towers import (
    Towers,
    gemma4_towers,
    kimi_towers,
    qwen3_vl_towers,
    siglip_towers,
    step_towers,
)

__all__ = ["FAMILIES", "SUPPORTED", "Where", "read_config"]


@dataclass(frozen=True)
class Nested:
    """A configuration that holds the language model in ``text_config``."""

    text: tuple[str, ...]
    tied: bool = False
    towers: Callable[[Fields, int], Towers] | None = None
    """``None``: the family's causal language model is built without its tower."""


FAMILIES: Final[Mapping[str, Family]] = {
    **dense.FAMILIES,
    **classic.FAMILIES,
    **latent.FAMILIES,
    **state.FAMILIES,
    **special.FAMILIES,
    **blocks.FAMILIES,
}

NESTED: Final[Mapping[str, Nested]] = {
    "gemma3": Nested(("gemma3_text",), True, siglip_towers),
    "gemma4": Nested(("gemma4_text",), True, gemma4_towers),
    "qwen3_vl": Nested(("qwen3_vl_text",), False, qwen3_vl_towers),
    "qwen3_vl_moe": Nested(("qwen3_vl_moe_text",), False, qwen3_vl_towers),
    "qwen3_5": Nested(("qwen3_5_text",)),
    "qwen3_5_moe": Nested(("qwen3_5_moe_text",)),
    "llama4": Nested(("llama4_text",)),
    "kimi_k25": Nested(("kimi_k2", "deepseek_v3"), True, kimi_towers),
    "step3p7": Nested(("step3p5",), False, step_towers),
}

SUPPORTED: Final = tuple(sorted({*FAMILIES, *NESTED}))
"""Every ``model_type`` that can be read."""

OTHER_HEADS: Final = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")


def read_config(config: Mapping[str, Any], *, where: Where | str = "", prefix: tuple[str, ...] = ()) -> Architecture:
    """Translate a configuration.

    Parameters
    ----------
    config : the content of a ``config.json``.
    where : file name for error messages, or a function from a field's path to its file and line.
    prefix : path of ``config`` inside its file, put before the field names in error messages.

    Raises
    ------
    SpecError
        Naming the field that is missing, wrong or not understood.

    Examples
    --------
    >>> read_config({
    ...     "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
    ...     "intermediate_size": 11008, "vocab_size": 32000,
    ... }).parameters
    6738415616
    """
    f = Fields(config, "", _locate(where), prefix)
    f.family = _model_type(f)
    _check_head(f)
    nested = NESTED.get(f.family)
    model = _nested(f, nested) if nested else build(f, FAMILIES[f.family])
    inner = f.blocks[0] if nested and f.get("quantization_config") is None and f.blocks else f
    form, kept = stored(inner, model.layers)
    f.finish()
    return replace(model, weight_format=form, unquantised=kept)


def _locate(where: Where | str) -> Where:
    return where if callable(where) else lambda path: (where or None, None)


def _model_type(f: Fields) -> str:
    found = f.get("model_type")
    if found is None and "producer" in f.data and "quantization" in f.data:
        raise f.error(
            "this is a hf_quant_config.json, which describes a quantisation and not a model; give config.json"
        )
    if not isinstance(found, str):
        raise f.error("is required and must be a name", "model_type", found=found)
    if found not in SUPPORTED:
        raise _unsupported(f, found, SUPPORTED)
    return found


def _unsupported(f: Fields, found: object, known: tuple[str, ...]) -> SpecError:
    near = nearest(str(found), known)
    message = "is not supported" + (f"; nearest: {', '.join(near)}" if near else "")
    return f.error(message, "model_type", found=found, allowed=", ".join(known))


def _check_head(f: Fields) -> None:
    for name in f.listed("architectures") or []:
        if isinstance(name, str) and name.endswith(OTHER_HEADS):
            raise f.error("has no language-model head", "architectures", found=name, allowed="a causal language model")


def _nested(f: Fields, nested: Nested) -> Architecture:
    text = f.block("text_config", nested.text[0]) if f.family != "step3p7" or "text_config" in f.data else _flat_step(f)
    found = text.get("model_type")
    if text is not f and found is not None:
        if found not in nested.text:
            raise _unsupported(text, found, nested.text)
        text.family = found
    model = build(text, FAMILIES[nested.text[0]], _tied(f, text, nested))
    towers = nested.towers(f, model.hidden) if nested.towers else ()
    if not nested.towers:
        f.get("vision_config")
    return replace(model, family=f.family, towers=towers, dropout=model.dropout or f.dropout)


def _tied(f: Fields, text: Fields, nested: Nested) -> bool:
    """Whether the head is tied: the outer block decides where it is the model, the text block where that is."""
    first, second = (f, text) if nested.towers else (text, f)
    return first.flag("tie_word_embeddings", second.flag("tie_word_embeddings", nested.tied))


def _flat_step(f: Fields) -> Fields:
    """Step 3.7 exported without ``text_config``: the same fields at the top, the vocabulary padded to 128 rows."""
    f.family = "step3p5"
    f.data = {**f.data, "vocab_size": 128_815 if f.get("vocab_size") == 128_896 else f.get("vocab_size")}
    return f
