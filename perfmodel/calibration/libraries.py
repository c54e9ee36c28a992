"""Fitted constants of a communication library as facts of a cluster file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from perfmodel.calibration.operators import model_named
from perfmodel.calibration.operators.collective import MODEL as COLLECTIVE
from perfmodel.calibration.operators.collective import level_names
from perfmodel.calibration.subjects import place_of
from perfmodel.specs.calibration import CalibrationGroup
from perfmodel.specs.system import known_libraries

__all__ = ["library_facts", "machine_data", "measured_algorithms"]

_SHARED = ("copy_share",)


def library_facts(group: CalibrationGroup, machine: str, source: str, algorithms: Iterable[str]) -> dict[str, Any]:
    """Section of one library in a cluster file: its protocols, and what it makes of the levels.

    Parameters
    ----------
    group : fit of the library on the machine.
    source : key under which the file names the fit.
    algorithms : those that were measured; the others keep what the library usually takes.
    """
    spread = round(min(group.p90_error or 0.5, 0.9), 3)
    units = {p.name: p.unit for p in model_named(COLLECTIVE.name).parameters(_key(group, machine))}

    def fact(name: str) -> dict[str, Any]:
        text = _written(group.constants[name], units.get(name, "1"))
        return {"value": text, "kind": "fitted", "source": source, "spread": spread}

    protocols: dict[str, dict[str, dict[str, Any]]] = {}
    for algorithm, named in known_libraries().libraries[group.format].protocols.items():
        if algorithm not in algorithms:
            continue
        for title in named:
            found = {n.rpartition(".")[2]: fact(n) for n in group.constants if n.startswith(f"{algorithm}.{title}.")}
            found |= {n: fact(f"{algorithm}.{n}") for n in _SHARED if f"{algorithm}.{n}" in group.constants}
            if found:
                protocols.setdefault(algorithm, {})[title] = found
    levels: dict[str, dict[str, Any]] = {}
    for level, names in level_names(place_of(machine).network(group.format)).items():
        found = {constant: fact(name) for constant, name in names.items() if name in group.constants}
        if found:
            levels[level] = found
    return {"protocols": protocols, "levels": levels}


def _key(group: CalibrationGroup, machine: str) -> Any:
    from perfmodel.calibration.model import Key

    return Key(group.operator, machine, group.format, group.variant, group.origin)


def _written(value: float, unit: str) -> str | float:
    if unit == "s":
        return f"{value * 1e6:.4g} us"
    return f"{value / 1e3:.0f} KB" if unit == "B" else float(f"{value:.4g}")


def measured_algorithms(kinds: Iterable[str]) -> set[str]:
    """Algorithms that timings of these operations say something of."""
    from perfmodel.network.algorithms import OPERATIONS

    names = {"reduce_scatter": "all_gather", "send_recv": "point_to_point"}
    found: set[str] = set()
    for kind in kinds:
        found |= set(OPERATIONS[names.get(kind, kind)])
    return found


def machine_data(data: Mapping[str, Any], name: str, libraries: Mapping[str, Any], told: str) -> dict[str, Any]:
    """Content of a cluster file with these sections in place of its own."""
    names = [n for n in (data["name"], *data.get("aliases", ())) if n != name]
    sources = {**data["sources"], "calibrated": told}
    collectives = {**libraries, **{n: v for n, v in data.get("collectives", {}).items() if n not in libraries}}
    return {**data, "name": name, "aliases": names, "sources": sources, "collectives": collectives}
