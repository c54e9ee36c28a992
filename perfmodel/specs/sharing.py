"""Layers that read the keys and values of another layer: maps of layer to source, by pattern or written out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

from perfmodel.errors import SpecError
from perfmodel.specs.architecture import Architecture, Attention, Layer, Run

__all__ = ["PATTERNS", "KvMap", "attention_layers", "leading_layers", "map_of", "share_keys"]

PATTERNS = ("cla-2", "cla-3", "cla-4", "yoco", "lckv")
"""Published patterns: pairs, triples and fours that read the lowest of them; two halves; all but the ends one layer."""
PASSES = 7
"""Times that a prompt passes where layers read from above: forward passes of the published configuration [1]."""


class KvMap(NamedTuple):
    """Where every attention layer has its keys and values from.

    Parameters
    ----------
    sources : for each attention layer, bottom first, the layer whose keys and values it reads; its own index, its own.
    passes : times that a prompt passes the layers: more than one where a layer reads from one above.
    ends_early : tokens of a prompt but its last need no layer above the highest source.
    """

    sources: tuple[int, ...]
    passes: int = 1
    ends_early: bool = False

    @property
    def stored(self) -> int:
        """Layers that have keys and values of their own."""
        return len(set(self.sources))


def attention_layers(architecture: Architecture) -> int:
    """Layers with keys and values per head."""
    return sum(run.count for run in architecture.runs if isinstance(run.layer.mixer, Attention))


def map_of(text: str, layers: int) -> KvMap:
    """Read the name of a pattern, or the source of every layer as ``0_0_2_2`` or, with repetitions, ``0_20x20_21``.

    Parameters
    ----------
    text : pattern or map.
    layers : attention layers of the model.

    Raises
    ------
    SpecError
        If it is neither, has another number of layers, or a source reads from elsewhere itself.

    References
    ----------
    .. [1] Y. Wu et al., "A systematic study of cross-layer KV sharing", arXiv:2410.14442, and its published code.

    Examples
    --------
    >>> map_of("lckv", 22).sources == map_of("0_20x20_21", 22).sources
    True
    >>> map_of("cla-2", 22).stored
    11
    """
    if text in PATTERNS:
        sources = _pattern(text, layers)
    else:
        sources = _written(text)
        if len(sources) != layers:
            raise _wrong(f"has {len(sources)} layers where the model has {layers} with attention", text)
    for reader, source in enumerate(sources):
        if not 0 <= source < layers or sources[source] != source:
            raise _wrong(f"layer {reader} reads layer {source}, which has no keys of its own", text)
    above = any(source > reader for reader, source in enumerate(sources))
    return KvMap(sources, PASSES if above else 1, ends_early=text == "yoco")


def _wrong(message: str, text: str) -> SpecError:
    allowed = ", ".join(PATTERNS) + ", or a map as 0_0_2_2"
    return SpecError(message, field="cross_layer_kv", found=text, allowed=allowed)


def _pattern(name: str, layers: int) -> tuple[int, ...]:
    kind, _, size = name.partition("-")
    if kind == "cla":
        return tuple(i - i % int(size) for i in range(layers))
    if kind == "yoco":
        half = layers // 2 - 1
        return tuple(0 if i < half else half for i in range(layers))
    return tuple(i if i in (0, layers - 1) else layers - 2 for i in range(layers))


def _written(text: str) -> tuple[int, ...]:
    found: list[int] = []
    for part in text.split("_"):
        source, _, times = part.partition("x")
        if not (source.isdigit() and (times.isdigit() or "x" not in part)):
            raise _wrong("is no map of layers", text)
        found += [int(source)] * (int(times) if times else 1)
    return tuple(found)


@lru_cache(maxsize=64)
def share_keys(architecture: Architecture, kv_map: KvMap) -> Architecture:
    """Return the model whose attention layers read keys and values as the map says.

    A layer that reads another's has no key and value projections. Layers without attention are left as they are.
    """
    sources = iter(enumerate(kv_map.sources))
    layers: list[Layer] = []
    highest = 0
    for run in architecture.runs:
        for _ in range(run.count):
            layer = run.layer
            if isinstance(layer.mixer, Attention):
                reader, source = next(sources)
                highest = len(layers) if source == reader else highest
                layer = replace(layer, mixer=replace(layer.mixer, kv_from_earlier=source != reader))
            layers.append(layer)
    ends = highest + 1 if kv_map.ends_early else None
    return replace(architecture, runs=_runs(layers), prompt_layers=ends, prompt_passes=kv_map.passes)


def _runs(layers: Sequence[Layer]) -> tuple[Run, ...]:
    return tuple(Run(layer, len(list(same))) for layer, same in groupby(layers))


@lru_cache(maxsize=64)
def leading_layers(architecture: Architecture) -> Architecture:
    """Return the layers that every token of a prompt passes: all, or those up to ``prompt_layers``.

    The last token's way through the others rides in the decode pass that follows.
    """
    if architecture.prompt_layers is None:
        return architecture
    layers = [run.layer for run in architecture.runs for _ in range(run.count)]
    return replace(architecture, runs=_runs(layers[: architecture.prompt_layers]))
