"""Which constants predict a group of rows: the most specific fit there is, else what siblings agree on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from perfmodel.calibration.model import Key, OperatorModel, Parameter
from perfmodel.calibration.subjects import DEVICES, own_file
from perfmodel.errors import SpecError
from perfmodel.machine.engine import Constants
from perfmodel.machine.measured import REGIMES
from perfmodel.specs.calibration import POOLED, CalibrationFile, CalibrationGroup
from perfmodel.specs.load import parse
from perfmodel.specs.locate import calibration_files
from perfmodel.specs.system import load_device
from perfmodel.specs.yamlfile import read

__all__ = [
    "REGIMES",
    "TIERS",
    "Chosen",
    "Fitted",
    "Store",
    "constants_of",
    "regime",
    "shipped",
    "store_of",
]

TIERS = ("fitted", "device", "sibling", "family", "foreign", "class")
"""Where constants come from, best first: this framework on this device; this device; this framework on devices of the
family; the family; all measured devices of the class; what the device file and its class state."""

_CARRIED: Mapping[str, Mapping[str, float]] = {
    "device": {},
    "sibling": {"gemm": 0.17, "attention": 0.17, "decode_attention": 0.15, "mla": 0.16, "moe": 0.18},
    "family": {},
    "foreign": {"attention": 0.40, "decode_attention": 0.42, "mla": 0.61, "moe": 0.62, "elementwise": 0.53},
    "class": {},
}
"""Half-width of the 80 % interval in ln of constants that were carried over, by tier and operator class: the 80th
percentile of the errors of ``perfmodel validate --held-out device`` (2026-11-23)."""
_ELSEWHERE = {"fitted": 0.15, "device": 0.22, "sibling": 0.22, "family": 0.35, "foreign": 0.37, "class": 0.6}
"""The same where no class of its own was measured, by tier."""


class Fitted(NamedTuple):
    """One fitted group with the device it belongs to."""

    device: str
    family: str
    group: CalibrationGroup


class Chosen(NamedTuple):
    """Constants for a key, and how far they were carried."""

    values: Mapping[str, float]
    tier: str
    interval: Mapping[str, tuple[float, float]]


def regime(seconds: float) -> str:
    """Name of the regime of a predicted time.

    Examples
    --------
    >>> regime(5e-6)
    'under 12 us'
    """
    return next(name for name, end in REGIMES if seconds < end)


def constants_of(values: Mapping[str, float]) -> Constants:
    """Constants with the given values, everything else neutral."""
    given: dict[str, Any] = dict(values)
    return Constants(**given)


@dataclass(frozen=True)
class Store:
    """Fitted groups of many devices."""

    fits: tuple[Fitted, ...]

    @cached_property
    def _index(self) -> dict[tuple[str, str], list[Fitted]]:
        index: dict[tuple[str, str], list[Fitted]] = {}
        for fit in self.fits:
            index.setdefault((fit.group.operator, fit.group.format), []).append(fit)
        return index

    def without(self, device: str) -> Store:
        """The same without what was measured on ``device``: how well constants carry over."""
        return Store(tuple(f for f in self.fits if f.device != device))

    def choose(self, model: OperatorModel, key: Key) -> Chosen:
        """Constants for a key by the first tier that has any."""
        parameters = model.parameters(key)
        for tier, groups in self._tiers(model, key):
            if groups:
                values = _mean([p for p in parameters if not p.artefact], groups)
                values.update(self._artefacts(key, parameters, groups if tier in ("fitted", "sibling") else []))
                if tier == "foreign" and model.subject is DEVICES:
                    values.update(_stated(key, values))
                return Chosen(values, tier, _intervals(model.name, groups, tier))
        ours = [p for p in parameters if not p.artefact]
        stated = model.subject.stated(key.device, model.name, key.format, tuple(p.name for p in ours))
        values = {p.name: stated.get(p.name, p.default) for p in ours}
        return Chosen(values, "class", _intervals(model.name, [], "class"))

    def _artefacts(
        self, key: Key, parameters: Iterable[Parameter], groups: Sequence[CalibrationGroup]
    ) -> dict[str, float]:
        """What belongs to the benchmark of a framework: the same on devices that share nothing else."""
        wanted = [p for p in parameters if p.artefact]
        found = groups or [
            f.group
            for f in self._index.get((key.operator, key.format), [])
            if f.group.variant.split("/")[0] == key.variant.split("/")[0] and f.group.origin == key.origin
        ]
        return _mean(wanted, found) if wanted and found else {}

    def _tiers(self, model: OperatorModel, key: Key) -> Iterator[tuple[str, list[CalibrationGroup]]]:
        """Groups to average, from the most specific; other formats stand in before other families do.

        The kernel of the same name on other families comes before other kernels of the family: what a kernel does
        with tiles, masks and splits says more than whose chip it runs on.
        """
        keys = [key, *(key._replace(format=f) for f in model.stand_ins.get(key.format, ()))]
        near = [self._near(model, k) for k in keys]
        *closest, family = near[0]
        yield from closest
        yield "foreign", [g for g in self._everywhere(model, key) if g.variant == key.variant]
        yield family
        for tiers in near[1:]:
            yield from (("family", groups) for _, groups in tiers)
        for k in keys:
            everywhere = self._everywhere(model, k)
            yield "foreign", [g for g in everywhere if g.variant == key.variant]
            yield "foreign", [g for g in everywhere if g.variant == POOLED] or everywhere

    def _everywhere(self, model: OperatorModel, key: Key) -> list[CalibrationGroup]:
        """Groups of all devices of the class of this one."""
        kind_of = model.subject.kind
        kind = kind_of(key.device)
        return [f.group for f in self._index.get((key.operator, key.format), []) if kind_of(f.device) == kind]

    def _near(self, model: OperatorModel, key: Key) -> list[tuple[str, list[CalibrationGroup]]]:
        """Groups of the device and of its family, by tier."""
        family = model.subject.family(key.device)
        found = self._index.get((key.operator, key.format), [])
        own = [f.group for f in found if f.device == key.device]
        kin = [f.group for f in found if family and f.family == family]
        same = [g for g in kin if g.variant == key.variant]
        return [
            ("fitted", [g for g in own if g.variant == key.variant and g.origin == key.origin]),
            ("device", [g for g in own if g.variant == key.variant]),
            ("device", [g for g in own if g.variant == POOLED] or own),
            ("sibling", [g for g in same if g.origin == key.origin] or same),
            ("family", [g for g in kin if g.variant == POOLED] or kin),
        ]


def _mean(parameters: Iterable[Parameter], groups: Sequence[CalibrationGroup]) -> dict[str, float]:
    """Geometric mean of every constant over the groups that have it."""
    values = {}
    for p in parameters:
        known = [g.constants[p.name] for g in groups if g.constants.get(p.name, 0.0) > 0.0]
        values[p.name] = math.exp(math.fsum(map(math.log, known)) / len(known)) if known else p.default
    return values


def _stated(key: Key, wanted: Iterable[str]) -> dict[str, float]:
    """Constants that the device file itself states for 16 bits or for the format, those of other fits aside."""
    kernels: Mapping[str, Mapping[str, Any]] = {str(k): v for k, v in load_device(key.device).kernels.items()}
    formats = kernels.get(key.operator, {})
    stated = [formats[name] for name in ("any", key.format) if name in formats]
    facts = [(name, getattr(layer, name, None)) for layer in stated for name in wanted]
    return {name: fact.value for name, fact in facts if fact is not None and fact.kind != "fitted"}


def _intervals(operator: str, groups: Sequence[CalibrationGroup], tier: str) -> dict[str, tuple[float, float]]:
    """80 % interval in ln by regime: that of the fit; of carried constants that of devices held out of the fit."""
    width = _CARRIED.get(tier, {}).get(operator, _ELSEWHERE[tier])
    result = {}
    for name, _ in REGIMES:
        known = [g.interval[name] for g in groups if name in g.interval] if tier in ("fitted", "device") else []
        low = math.fsum(k[0] for k in known) / len(known) if known else -width
        high = math.fsum(k[1] for k in known) / len(known) if known else width
        if tier == "device":
            low, high = min(low, -width), max(high, width)
        result[name] = (low, high)
    return result


def store_of(device: str | Path) -> Store:
    """Fitted groups that a device or cluster file holds, in front of the shipped ones of others."""
    file = own_file(device)
    own = tuple(Fitted(str(file.path), file.family, group) for group in file.calibration)
    if not own:
        raise SpecError("the file holds no `calibration`; write one with `perfmodel calibrate`", file=str(device))
    return Store(own + shipped().fits)


def shipped() -> Store:
    """All shipped calibrations."""
    return _read(tuple((path, path.stat().st_mtime_ns) for path in calibration_files()))


@lru_cache(maxsize=2)
def _read(files: tuple[tuple[Path, int], ...]) -> Store:
    fits = []
    for path, _ in files:
        found = parse(CalibrationFile, read(path))
        fits += [Fitted(found.device, found.family, group) for group in found.groups]
    return Store(tuple(fits))
