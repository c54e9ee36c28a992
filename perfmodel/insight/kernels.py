"""Which measured kernels a plan stands on: how near they were measured, and how wide their residuals are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from perfmodel.insight.roofline import call_engine, pass_calls
from perfmodel.insight.setting import Setting
from perfmodel.machine.kernels import kernel_constants, kernel_time
from perfmodel.techniques.settled import Plan

__all__ = ["KernelUse", "kernels_in_use", "told"]

GROUPS = {"experts": "experts", "attention": "attention", "elementwise": "memory"}
"""Uncertain quantity that the time of a call scales with; matrix products where nothing is named."""
TIERS = ("framework", "device", "sibling", "class")


class KernelUse(NamedTuple):
    """The kernels of one group in one pass.

    Parameters
    ----------
    group : matrix, experts, attention, memory.
    seconds : time of a pass in them [s].
    spread : relative half-width of the 80 % interval of that time, the residuals taken as common to all calls [1].
    tier : how near the constants of most of the time were measured.
    basis : whose timings.
    """

    group: str
    seconds: float
    spread: float
    tier: str
    basis: str


def kernels_in_use(setting: Setting, x: Plan, phase: str) -> dict[str, KernelUse]:
    """Kernels of a plan's pass by group; ``phase`` is ``training``, ``prefill`` or ``decode``."""
    calls, settled, machine, _ = pass_calls(setting, x, phase)
    found: dict[str, list[KernelUse]] = {}
    for call, count in calls:
        engine = call_engine(call, settled, machine)
        constants = kernel_constants(call.work, engine)
        once = float(kernel_time(call.work, engine).seconds)
        group = GROUPS.get(call.name, "matrix")
        use = KernelUse(group, once * count, constants.spread_at(once), constants.tier, constants.basis)
        found.setdefault(group, []).append(use)
    return {group: _together(uses) for group, uses in found.items()}


def _together(uses: Iterable[KernelUse]) -> KernelUse:
    """Times added up; the half-width their mean, weighted by time; the tier and basis of the longest."""
    uses = list(uses)
    seconds = sum(u.seconds for u in uses)
    by_basis: dict[tuple[str, str], float] = {}
    for use in uses:
        by_basis[use.tier, use.basis] = by_basis.get((use.tier, use.basis), 0.0) + use.seconds
    tier, basis = max(by_basis, key=lambda k: by_basis[k])
    spread = sum(u.spread * u.seconds for u in uses) / seconds if seconds else 0.0
    return KernelUse(uses[0].group, seconds, spread, tier, basis)


def told(uses: Mapping[str, KernelUse], kernels: str) -> str:
    """Say how near the kernels were measured, groups of one tier together."""
    words = {
        "framework": f"as measured under {kernels} on this device",
        "device": "as stated for this device, frameworks pooled",
        "sibling": "as measured on devices of its family",
        "class": "as typical of its class",
    }
    by_tier = {tier: [u.group for u in uses.values() if u.tier == tier] for tier in TIERS}
    return "kernels " + "; ".join(f"{words[t]}: {', '.join(groups)}" for t, groups in by_tier.items() if groups)
