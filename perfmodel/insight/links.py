"""How sure the times of collectives are, and whose they are."""

from __future__ import annotations

from statistics import median

from perfmodel.machine.build import DEFAULT_SPREAD
from perfmodel.specs.collectives import USUAL
from perfmodel.specs.facts import Fact
from perfmodel.specs.system import System

__all__ = ["borrowed_libraries", "network_spread"]


def network_spread(system: System) -> float:
    """Relative half-width of 80 % of collective times: the widest of the levels and of the library that plans use."""
    spreads = [_spread(level.efficiency) for level in system.cluster.levels.values()]
    facts = _library_facts(system)
    return max([*spreads, *([median(map(_spread, facts))] if facts else [])], default=0.0)


def borrowed_libraries(system: System) -> str:
    """Whose collectives stand for those of the machine; empty where it has its own."""
    name, facts = next(iter(system.cluster.collectives), ""), _library_facts(system)
    if system.libraries_of:
        return f"collectives as {name} runs them on {system.libraries_of}"
    if facts and all(fact.source.startswith(USUAL) for fact in facts):
        return f"collectives as {name} runs them on other machines, within {median(map(_spread, facts)):.0%}"
    return ""


def _library_facts(system: System) -> list[Fact]:
    library = next(iter(system.cluster.collectives.values()), None)
    return library.facts if library else []


def _spread(fact: Fact) -> float:
    return fact.spread if fact.spread is not None else DEFAULT_SPREAD[fact.kind]
