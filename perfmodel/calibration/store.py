"""Which constants predict a group of rows: the most specific fit there is, else what siblings agree on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from statistics import median
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

TIERS = ("fitted", "device", "sibling", "family", "library", "foreign", "class")
"""Where constants come from, best first: this framework on this device; this device; this framework on devices of the
family; the family; what families agree on of one library; all measured devices of the class; what the device file and
its class state."""

_CARRIED: Mapping[str, Mapping[str, float]] = {
    "device": {},
    "sibling": {"gemm": 0.15, "attention": 0.18, "decode_attention": 0.14, "mla": 0.17, "moe": 0.18},
    "family": {"gemm": 0.22},
    "library": {"gemm": 0.24},
    "foreign": {
        "gemm": 0.61,
        "attention": 0.37,
        "decode_attention": 0.40,
        "mla": 0.49,
        "moe": 0.50,
        "elementwise": 0.48,
    },
    "class": {},
}
"""Half-width of the 80 % interval in ln of constants that were carried over, by tier and operator class: the 80th
percentile of the errors of ``perfmodel validate --held-out device`` (2026-11-23)."""
_ELSEWHERE = {
    "fitted": 0.15,
    "device": 0.22,
    "sibling": 0.22,
    "family": 0.35,
    "library": 0.24,
    "foreign": 0.37,
    "class": 0.6,
}
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
                ours = [p for p in parameters if not p.artefact]
                values = _mean(ours, groups)
                values.update(self._artefacts(model, key, parameters, groups if tier in ("fitted", "sibling") else []))
                if tier in ("library", "foreign") and model.subject is DEVICES:
                    values.update(_stated(key, values))
                return Chosen(values, tier, _intervals(model.name, groups, tier))
        ours = [p for p in parameters if not p.artefact]
        stated = model.subject.stated(key.device, model.name, key.format, tuple(p.name for p in ours))
        values = {p.name: stated.get(p.name, p.default) for p in ours}
        return Chosen(values, "class", _intervals(model.name, [], "class"))

    def _artefacts(
        self, model: OperatorModel, key: Key, parameters: Iterable[Parameter], groups: Sequence[CalibrationGroup]
    ) -> dict[str, float]:
        """What belongs to the benchmark of a framework: the same on devices that share nothing else."""
        wanted = [p for p in parameters if p.artefact]
        same = [
            f
            for f in self._index.get((key.operator, key.format), [])
            if f.group.variant.split("/")[0] == key.variant.split("/")[0] and f.group.origin == key.origin
        ]
        alike = [f for f in same if model.alike(key.device, f.device)]
        found = groups or [f.group for f in alike or same]
        if found:
            return _mean(wanted, found)
        return {p.name: p.default for p in wanted if p.unit == "s"}  # a launch from a host costs, on whatever host

    def _tiers(self, model: OperatorModel, key: Key) -> Iterator[tuple[str, list[CalibrationGroup]]]:
        """Groups to average, from the most specific; other formats stand in before other families do.

        Devices whose matrix units are fed alike come before the others: they run the same programs. The kernel of the
        same name on other families comes before other kernels of the family: what a kernel does with tiles, masks and
        splits says more than whose chip it runs on. Names of callers of one library say nothing.
        """
        keys = [key, *(key._replace(format=f) for f in model.stand_ins.get(key.format, ()))]
        near = [self._near(model, k) for k in keys]
        *closest, family = near[0]
        yield from closest
        if key.format not in model.one_library:
            yield "foreign", [g for g in self._everywhere(model, key, True) if g.variant == key.variant]
        yield family
        for tiers in near[1:]:
            yield from (("family", groups) for _, groups in tiers)
        if key.format in model.one_library:
            yield "library", self._by_family(model, keys)
        for alike in (True, False):
            for k in keys:
                everywhere = self._everywhere(model, k, alike)
                yield "foreign", [g for g in everywhere if g.variant == key.variant]
                yield "foreign", [g for g in everywhere if g.variant == POOLED] or everywhere

    def _by_family(self, model: OperatorModel, keys: Sequence[Key]) -> list[CalibrationGroup]:
        """One set: the middle of what the families of the class have, formats of one library taken together.

        A family whose timings hold launches from a host, or whose memory is slow, is one vote and no more.
        """
        kind = model.subject.kind
        families: dict[str, list[CalibrationGroup]] = {}
        for key in keys:
            for fit in self._index.get((key.operator, key.format), []):
                if fit.group.variant == POOLED and kind(fit.device) == kind(key.device):
                    families.setdefault(fit.family or fit.device, []).append(fit.group)
        if not families:
            return []
        names = sorted({name for groups in families.values() for g in groups for name in g.constants})
        wanted = [Parameter(name, 0.0, 0.0, 0.0, 1.0) for name in names]
        votes = [_mean(wanted, groups) for groups in families.values()]
        middle = {name: median(v[name] for v in votes if v[name] > 0.0) for name in names}
        rows = sum(g.rows for groups in families.values() for g in groups)
        return [CalibrationGroup(operator=model.name, format=keys[0].format, rows=rows, constants=middle)]

    def _everywhere(self, model: OperatorModel, key: Key, alike: bool) -> list[CalibrationGroup]:
        """Groups of all devices of the class of this one, or of those whose matrix units are fed in the same way."""
        subject = model.subject
        found = [
            f
            for f in self._index.get((key.operator, key.format), [])
            if subject.kind(f.device) == subject.kind(key.device)
        ]
        return [f.group for f in found if not alike or model.alike(f.device, key.device)]

    def _near(self, model: OperatorModel, key: Key) -> list[tuple[str, list[CalibrationGroup]]]:
        """Groups of the device and of its family, by tier."""
        family = model.subject.family(key.device)
        found = self._index.get((key.operator, key.format), [])
        own = [f.group for f in found if f.device == key.device]
        cut = model.subject.cut if key.format in model.one_library else lambda name, other: False
        kin = [f.group for f in found if family and f.family == family and not cut(key.device, f.device)]
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
