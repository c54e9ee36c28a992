"""A family of models: how its fields become layers, norms and tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal

from perfmodel.specs.architecture import Architecture, FeedForward, Layer, Mixer, Run
from perfmodel.specs.huggingface.fields import Fields, Switch

__all__ = ["Family", "build"]

Count = Callable[[Fields], int]
NORM_VECTORS = {"none": 0, "rms": 1, "layer": 2}
"""Parameters of one norm per element: none, a scale, a scale and a shift."""


@dataclass(frozen=True)
class Family:
    """How one ``model_type`` reads its configuration.

    ``mixers`` and ``ffns`` return one component per layer (``None`` where a layer has none). ``norms`` vectors of kind
    ``norm`` stand in each layer (``each``: one in front of every component) and ``final`` after the last. ``tied``
    answers when the file does not say. ``head_bias`` adds a bias to the output head. ``layer_extra`` and ``outside``
    count further parameters of each layer and outside the layers. ``defaults`` are values that published checkpoints of
    the family leave out of their files.
    """

    mixers: Callable[[Fields], Sequence[Mixer | None]]
    ffns: Callable[[Fields], Sequence[FeedForward | None]]
    norm: Literal["none", "rms", "layer"] = "rms"
    norms: int | Count | Literal["each"] = 2
    final: int | Count = 1
    tied: bool = False
    parallel: Switch = False
    head_bias: Switch = False
    layer_extra: Count = lambda f: 0
    outside: Count = lambda f: 0
    embedding_dim: Callable[[Fields], int | None] = lambda f: None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    prepare: Callable[[Fields], None] = lambda f: None
    finish: Callable[[Fields, Architecture], Architecture] = lambda f, model: model
    idle: tuple[str, ...] = ()
    """Fields that may be present without effect: no layer has the component, or the published code ignores them."""


def build(f: Fields, family: Family, tied: bool | None = None) -> Architecture:
    """Build the language model of ``family`` from its fields."""
    f.data = {**family.defaults, **{k: v for k, v in f.data.items() if v is not None or k not in family.defaults}}
    family.prepare(f)
    for name in family.idle:
        f.idle(name)
    vector = NORM_VECTORS[family.norm] * f.hidden
    final, beside = _value(family.final, f), family.layer_extra(f)
    parallel = f.on(family.parallel)
    pairs = list(zip(family.mixers(f), family.ffns(f), strict=True))
    vocab = f.count("vocab_size")
    model = Architecture(
        family=f.family,
        hidden=f.hidden,
        vocab=vocab,
        runs=tuple(
            Run(Layer(*pair, norms=n, extra=n * vector + beside, parallel=parallel), len(list(same)))
            for pair, same in groupby(pairs)
            for n in (_norms(family, f, pair),)
        ),
        tied=f.flag("tie_word_embeddings", family.tied) if tied is None else tied,
        embedding_dim=family.embedding_dim(f),
        extra=final * vector + family.outside(f) + (vocab if f.on(family.head_bias) else 0),
        max_positions=f.optional("max_position_embeddings"),
        dropout=f.dropout,
    )
    return family.finish(f, model)


def _norms(family: Family, f: Fields, pair: tuple[Mixer | None, FeedForward | None]) -> int:
    """Norms of a layer."""
    return sum(part is not None for part in pair) if family.norms == "each" else _value(family.norms, f)


def _value(count: int | Count, f: Fields) -> int:
    return count if isinstance(count, int) else count(f)
