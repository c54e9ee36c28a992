"""Collectives of a cluster as those of another: ``collectives: {like: dgx-h100}``.

A node of the same kind needs no copy of what was fitted on another: the libraries of that cluster hold here too, and so
do the latency and the efficiency of its levels where a level of the same name leaves them out. What a file states
itself goes first. Facts taken over keep their sources, which are named after the other cluster.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from perfmodel.errors import PerfmodelError, UnknownName
from perfmodel.specs.locate import find_hardware
from perfmodel.specs.yamlfile import Document, read

__all__ = ["likened"]

_LIKE = ("collectives", "like")
_LEVEL_FACTS = ("latency", "efficiency")


def likened(document: Document, seen: tuple[Path, ...] = ()) -> tuple[Document, str]:
    """The cluster file with what it takes over, and the name of the cluster it takes it from (empty: none).

    Raises
    ------
    SpecError
        If the other file cannot be found, states no library, or is like the first one.
    """
    stated = document.data.get("collectives")
    if not isinstance(stated, dict) or "like" not in stated:
        return document, ""
    other, origin = _other(document, stated["like"], (*seen, document.path.resolve()))
    taken, sources = _Taken(origin, other.data.get("sources", {})), dict(document.data.get("sources") or {})
    levels = _mapping(document.data.get("levels"))
    found: dict[str, Any] = {}
    for name, library in stated.items():  # plans use the first, so the order of the file counts
        theirs = other.data["collectives"] if name == "like" else {}
        found |= {n: taken.copy(_here(facts, levels)) for n, facts in theirs.items() if n not in stated}
        found |= {} if name == "like" else {name: library}
    joined = {
        name: _level(level, _mapping(other.data.get("levels")).get(name), taken) for name, level in levels.items()
    }
    data = {**document.data, "collectives": found, "levels": joined, "sources": {**taken.sources, **sources}}
    return replace(document, data=data), origin


def _other(document: Document, name: Any, seen: tuple[Path, ...]) -> tuple[Document, str]:
    """The cluster file that is meant, itself completed; and its name."""
    if not isinstance(name, str):
        raise document.error("the name or path of a cluster is needed", _LIKE, found=name)
    beside = document.path.parent / name
    try:
        path = beside if beside.is_file() else find_hardware(name)
        if path.resolve() in seen:
            raise document.error("a cluster cannot be like itself", _LIKE, found=name)
        other, _ = likened(read(path), seen)
    except UnknownName as error:
        raise document.error(str(error), _LIKE) from error
    if not _mapping(other.data.get("collectives")):
        raise document.error("that file states no communication library", _LIKE, found=name)
    if not isinstance(other.data.get("name"), str) or not isinstance(other.data.get("sources"), dict):
        raise PerfmodelError(f"{path}: a cluster file has a name and sources")
    return other, other.data["name"]


class _Taken:
    """Facts of another file, and the sources that they bring along."""

    def __init__(self, origin: str, texts: Mapping[str, Any]) -> None:
        self.origin, self.texts, self.sources = origin, texts, dict[str, Any]()

    def copy(self, value: Any) -> Any:
        """``value`` with every source named after the file that it comes from."""
        if not isinstance(value, dict):
            return value
        copied = {key: self.copy(inner) for key, inner in value.items()}
        if "value" in value and isinstance(value.get("source"), str):
            key = f"{self.origin} {value['source']}"
            copied["source"] = key
            self.sources[key] = f"{self.texts.get(value['source'], value['source'])}, on {self.origin}"
        return copied


def _here(library: Any, levels: Mapping[str, Any]) -> Any:
    """A library without what it says of levels that this cluster has not."""
    if not isinstance(library, dict) or "levels" not in library:
        return library
    return {**library, "levels": {n: level for n, level in library["levels"].items() if n in levels}}


def _level(own: Any, other: Any, taken: _Taken) -> Any:
    """A level with the latency and the efficiency of the other of that name, where it leaves them out."""
    if not isinstance(own, dict) or not isinstance(other, dict):
        return own
    missing = {name: taken.copy(other[name]) for name in _LEVEL_FACTS if name not in own and name in other}
    return {**own, **missing}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
