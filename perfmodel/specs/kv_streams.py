"""How keys and values travel from a store, as records: size and work to unpack."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from perfmodel.errors import UnknownName
from perfmodel.specs.facts import Number, Spec
from perfmodel.specs.load import parse
from perfmodel.specs.sources import check_sources
from perfmodel.specs.yamlfile import read

__all__ = ["KvStream", "kv_stream", "kv_streams"]


class KvStream(Spec):
    """One form; the head of ``kv_streams.yaml`` says what each line means."""

    title: str
    ratio: Annotated[float, Field(ge=1)]
    exact: bool = False
    """What arrives is what was sent."""
    unpack: Number
    source: str


class _File(Spec):
    """The shipped forms."""

    sources: dict[str, str]
    streams: dict[str, KvStream]

    @model_validator(mode="after")
    def _sources_exist(self) -> _File:
        check_sources(self, self.sources)
        for name, record in self.streams.items():
            if record.source not in self.sources:
                raise ValueError(f"`{name}` names a source that is not listed: {record.source}")
        return self


@lru_cache(maxsize=1)
def kv_streams() -> dict[str, KvStream]:
    """Every shipped form by name."""
    return parse(_File, read(Path(__file__).parent / "kv_streams.yaml")).streams


def kv_stream(name: str) -> KvStream:
    """Return the form of that name.

    Raises
    ------
    UnknownName
        If there is none.
    """
    found = kv_streams()
    if name not in found:
        raise UnknownName("stream of keys and values", name, found, remedy="there are " + ", ".join(found))
    return found[name]
