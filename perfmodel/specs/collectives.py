"""Communication libraries as facts: how long each protocol of an algorithm takes on a machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from pydantic import Field, model_validator

from perfmodel.specs.facts import Capacity, Duration, Fact, Number, Ratio, Spec
from perfmodel.specs.sources import check_sources

__all__ = [
    "ALGORITHMS",
    "FACTS",
    "USUAL",
    "LevelConstants",
    "LibraryFacts",
    "LibraryFile",
    "ProtocolFacts",
    "completed",
]

USUAL = "library "
"""What the sources of facts begin with that a machine takes from the file of libraries."""

Algorithm = Literal[
    "ring",
    "both_ways",
    "hierarchical",
    "overlapping",
    "recursive",
    "tree",
    "in_network",
    "one_shot",
    "two_shot",
    "star",
    "by_level",
    "pairwise",
    "broadcast_tree",
    "neighbour",
]
ALGORITHMS: tuple[str, ...] = get_args(Algorithm)
"""Algorithms of :mod:`perfmodel.network.algorithms` that a library may state protocols for."""


class ProtocolFacts(Spec):
    """One way of running an algorithm; what is left out is neutral. Meanings: ``perfmodel.network.library``."""

    launch: Duration | None = None
    """Fixed cost of a collective."""
    latency: Number | None = None
    """Share of a level's latency that one step takes."""
    rate: Number | None = None
    """Share of the levels' achieved bandwidth."""
    pace: Capacity | None = None
    """Bytes that take a step as long again as its latency, where messages are stored before they are passed on."""
    chunk: Capacity | None = None
    """Largest piece that is stored; more follows in a pipeline."""
    copy_share: Number | None = None
    """Bytes copied inside the device for every byte sent, relative to the links' rate."""
    up_to: Capacity | None = None
    """Largest size the library uses it for."""
    overlapped: bool = False
    """Latency hides behind transfer: the larger of the two counts."""


FACTS = ("launch", "latency", "rate", "pace", "chunk", "copy_share", "up_to")
"""Facts of a protocol."""


class LevelConstants(Spec):
    """What a library makes of a level, where it differs from what the level itself states."""

    latency: Duration | None = None
    efficiency: Ratio | None = None
    crowding: Number | None = None
    """How much longer a stored piece takes over this level than its latency alone tells."""


class LibraryFacts(Spec):
    """Protocols by algorithm, each under the library's own name for it."""

    protocols: dict[Algorithm, dict[str, ProtocolFacts]] = Field(default_factory=dict)
    levels: dict[str, LevelConstants] = Field(default_factory=dict)

    @property
    def facts(self) -> list[Fact]:
        """All that is said of its protocols."""
        protocols = [p for named in self.protocols.values() for p in named.values()]
        return [fact for p in protocols for name in FACTS if (fact := getattr(p, name)) is not None]


class LibraryFile(Spec):
    """Libraries as they run where nothing was measured."""

    sources: dict[str, str]
    usual: dict[str, str] = Field(default_factory=dict)
    """Library by device family, for clusters that name none."""
    libraries: dict[str, LibraryFacts]

    @model_validator(mode="after")
    def _sources_exist(self) -> LibraryFile:
        check_sources(self, self.sources)
        return self

    @model_validator(mode="after")
    def _usual_ones_exist(self) -> LibraryFile:
        for family, name in self.usual.items():
            if name not in self.libraries:
                raise ValueError(f"usual.{family}: no library {name}; there are {', '.join(self.libraries)}")
        return self

    def usual_for(self, family: str | None) -> list[str]:
        """Name of the library that devices of a family usually run; none for families that are not listed."""
        return [self.usual[family]] if family in self.usual else []


def completed(stated: Mapping[str, LibraryFacts], known: LibraryFile) -> tuple[dict[str, LibraryFacts], dict[str, str]]:
    """Fill what a machine leaves open about its libraries, and name the sources of what was filled in.

    A protocol of the library that the machine does not mention is taken whole.
    """
    found: dict[str, LibraryFacts] = {}
    for name, own in stated.items():
        usual = known.libraries.get(name, LibraryFacts())
        protocols = {algorithm: dict(named) for algorithm, named in own.protocols.items()}
        for algorithm, named in usual.protocols.items():
            mine = protocols.setdefault(algorithm, {})
            protocols[algorithm] = {
                title: _filled(mine.get(title, ProtocolFacts()), protocol) for title, protocol in named.items()
            } | {title: protocol for title, protocol in mine.items() if title not in named}
        found[name] = own.model_copy(update={"protocols": protocols})
    sources = {fact.source for library in found.values() for fact in library.facts}
    texts = {f"{USUAL}{key}": text for key, text in known.sources.items()}
    return found, {key: text for key, text in texts.items() if key in sources}


def _filled(own: ProtocolFacts, usual: ProtocolFacts) -> ProtocolFacts:
    """A protocol with the facts it leaves out as the library usually has them."""
    update: dict[str, Fact | bool] = {"overlapped": own.overlapped or usual.overlapped}
    for name in FACTS:
        fact = getattr(usual, name)
        if getattr(own, name) is None and fact is not None:
            update[name] = fact.model_copy(update={"source": f"{USUAL}{fact.source}"})
    return own.model_copy(update=update)
