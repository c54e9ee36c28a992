"""A fleet: groups of unlike nodes joined by links. Each group is a cluster file or a device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from perfmodel.errors import SpecError
from perfmodel.specs.facts import Bandwidth, Count, Duration, Ratio, Spec
from perfmodel.specs.load import parse
from perfmodel.specs.locate import find_fleet
from perfmodel.specs.overrides import override
from perfmodel.specs.sources import check_sources
from perfmodel.specs.system import System, load_system
from perfmodel.specs.yamlfile import read

__all__ = ["Fleet", "FleetGroup", "FleetLink", "Joined", "load_fleet"]


class FleetGroup(Spec):
    """Nodes of one kind."""

    cluster: str
    """Name or path of a cluster or device file."""
    nodes: Count | None = None
    """Nodes of that cluster; all of them where left out."""


class FleetLink(Spec):
    """What joins any two groups."""

    kind: Literal["nic", "fabric", "wan"] = "fabric"
    bandwidth: Bandwidth
    """Per node and direction, usable by all nodes at the same time."""
    latency: Duration
    """One message from group to group."""
    efficiency: Ratio
    """Share of the bandwidth that large transfers reach."""


class Fleet(Spec):
    """Groups of nodes and the link between them."""

    name: str
    aliases: tuple[str, ...] = ()
    sources: dict[str, str]
    notes: str = ""
    groups: dict[str, FleetGroup] = Field(min_length=1)
    link: FleetLink

    @model_validator(mode="after")
    def _sources_exist(self) -> Fleet:
        check_sources(self, self.sources)
        return self


@dataclass(frozen=True)
class Joined:
    """A fleet with the machine of every group."""

    fleet: Fleet
    systems: Mapping[str, System]


def load_fleet(name: str | Path) -> Joined:
    """Return the fleet of that name, alias or path.

    Raises
    ------
    PerfmodelError
        If there is none, or a file cannot be used, or a group is a single device that is asked for several nodes.
    """
    document = read(find_fleet(name))
    if "groups" not in document.data:
        raise SpecError("not a fleet: it has no `groups`", file=str(document.path),
                        allowed="a cluster or device goes to `perfmodel plan`")  # fmt: skip
    fleet = parse(Fleet, document)
    systems = {}
    for key, group in fleet.groups.items():
        beside = document.path.parent / group.cluster
        system = load_system(beside if beside.is_file() else group.cluster)
        systems[key] = override(system, {"nodes": group.nodes.value}) if group.nodes else system
    return Joined(fleet, systems)
