"""What a what-if changed, in words."""

from __future__ import annotations

from perfmodel.api import Comparison
from perfmodel.report.words import quantity
from perfmodel.specs.overrides import dimensions, paths
from perfmodel.units import format_seconds

__all__ = ["changed_facts", "changed_seconds"]


VISIBLE = 0.005
"""Relative change of a term that is worth a word."""


def changed_facts(found: Comparison) -> list[str]:
    """Every fact of the machine that differs, before and after."""
    before, after = paths(found.before.system), paths(found.after.system)
    units = dimensions(found.after.system)
    texts = []
    for path in dict.fromkeys((*before, *after)):
        old, new = before.get(path), after.get(path)
        if old != new:
            unit = units.get(path, "1")
            said = [quantity(f.value, unit) if f else "not given" for f in (old, new)]
            texts.append(f"{path}: {said[0]} → {said[1]}")
    return texts


def changed_seconds(found: Comparison, phase: str) -> list[str]:
    """Terms that differ, largest change first."""
    return [
        f"{name} {format_seconds(before)} → {format_seconds(after)}"
        for where, name, before, after in found.changed_terms
        if where == phase and abs(after - before) > VISIBLE * max(before, after)
    ]
