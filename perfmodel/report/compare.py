"""What a what-if changed, in words."""

from __future__ import annotations

from perfmodel.api import Comparison
from perfmodel.specs.overrides import paths
from perfmodel.units import format_seconds

__all__ = ["changed_facts", "changed_seconds"]


def changed_facts(found: Comparison) -> list[str]:
    """Every fact of the machine that differs, before and after."""
    before, after = paths(found.before.system), paths(found.after.system)
    texts = []
    for path in dict.fromkeys((*before, *after)):
        old, new = before.get(path), after.get(path)
        if old != new:
            texts.append(f"{path}: {old.text if old else 'not given'} → {new.text if new else 'not given'}")
    return texts


def changed_seconds(found: Comparison, phase: str) -> list[str]:
    """Terms that differ, largest change first."""
    return [
        f"{name} {format_seconds(before)} → {format_seconds(after)}"
        for where, name, before, after in found.changed_terms
        if where == phase
    ]
