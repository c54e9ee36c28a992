"""Which measured kernels a plan runs: those of its framework on its device, else what stands nearest to them.

The tiers, best first: this framework on this device; this device, frameworks pooled; the device's family; its class.
A set of constants is taken whole: its members trade against each other in the fit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from perfmodel.machine.engine import Constants
from perfmodel.specs.calibration import POOLED, CalibrationFile, CalibrationGroup
from perfmodel.specs.hardware import Device
from perfmodel.specs.kernels import KERNEL_CONSTANTS, KernelConstants
from perfmodel.specs.load import parse
from perfmodel.specs.locate import calibration_files
from perfmodel.specs.system import load_device
from perfmodel.specs.yamlfile import read
from perfmodel.units import Seconds

__all__ = ["PLANNED", "REGIMES", "WIDTHS", "PlanConstants", "cut_down", "feed_of", "stated"]

PLANNED: dict[tuple[str, str], tuple[tuple[str, str], ...]] = {
    ("gemm", "any"): (("gemm", "bf16"), ("gemm", "fp16")),
    ("gemm", "fp8"): (("gemm", "fp8"),),
    ("gemm", "fp8_block"): (("gemm", "fp8_block"),),
    ("gemm", "nvfp4"): (("gemm", "nvfp4"),),
    ("gemm", "int8"): (("gemm", "int8"), ("gemm", "w8a8_int8")),
    ("gemm", "int4"): (("gemm", "w4a16"),),
    ("attention", "any"): (("attention", "bf16"),),
    ("attention", "fp8"): (("attention", "fp8"), ("attention", "bf16 kv fp8")),
    ("decode_attention", "any"): (("decode_attention", "bf16"),),
    ("decode_attention", "fp8"): (("decode_attention", "fp8"), ("decode_attention", "bf16 kv fp8")),
    ("latent_attention", "any"): (("mla", "context bf16"),),
    ("latent_attention", "fp8"): (("mla", "context fp8"), ("mla", "context bf16 kv fp8")),
    ("latent_decode", "any"): (("mla", "generation bf16"),),
    ("latent_decode", "fp8"): (("mla", "generation fp8"), ("mla", "generation bf16 kv fp8")),
    ("moe", "any"): (("moe", "bfloat16"), ("moe", "bf16"), ("moe", "fp16"), ("moe", "float16")),
    ("moe", "fp8"): (("moe", "fp8"),),
    ("moe", "fp8_block"): (("moe", "fp8_block"),),
    ("moe", "nvfp4"): (("moe", "nvfp4"),),
    ("moe", "int4"): (("moe", "int4_wo"),),
    ("moe", "mxfp4"): (("moe", "w4a16_mxfp4"),),
}
"""(operator class, format) of a plan's kernels, and what measurements call them, the first that was measured."""
REGIMES: tuple[tuple[str, Seconds], ...] = (
    ("under 12 us", 12e-6),
    ("12 to 40 us", 40e-6),
    ("40 to 200 us", 200e-6),
    ("over 200 us", math.inf),
)
"""Regimes of predicted time, each with its upper end [s]: launch, fill, transition, throughput."""
WIDTHS = {"framework": 0.15, "device": 0.22, "sibling": 0.3}
"""Half-width of the 80 % interval in ln where no residuals were kept, and the least where constants were carried."""
UNLIKE = 1.5
"""Ratio of the rates of one unit above which matrix units are cut."""
FED_BY_REGISTERS = 5.0e12
"""16-bit rate of one unit that registers can feed [FLOP/s]: 2048 FLOP a clock, and no unit of 4096 is slower."""
HOST_BOUND = REGIMES[1][1]
"""Floor of timings launched from the host above which they say nothing of short kernels [s]."""


class _Found(NamedTuple):
    """Groups that predict one operator class and format, with the tier they were found on."""

    tier: str
    groups: tuple[tuple[str, CalibrationGroup], ...]


def _sets(found: _Found) -> list[tuple[tuple[str, CalibrationGroup], ...]]:
    """Groups to average, by kernel: on one device every kernel of the framework stands for itself."""
    if found.tier == "framework":
        return [(member,) for member in found.groups]
    return [found.groups]


class PlanConstants(Mapping[tuple[str, str], Constants]):
    """Constants by (operator class, format); measurements are read when something asks for them.

    Parameters
    ----------
    device : its own ``calibration`` goes before the shipped files.
    written : constants that the device file and its class state.
    kernels : framework whose measured kernels run; none for what the frameworks of a device share.
    stand_in : framework whose kernels stand for those that were not measured on the device.
    backends : frameworks whose kernels run instead, by (operator class, format): libraries that a launch chooses.
    tuned : operator classes whose kernels it chooses among those of every framework measured on the device.
    """

    def __init__(
        self,
        device: Device,
        written: Mapping[tuple[str, str], Constants],
        kernels: str = "",
        stand_in: str = "",
        backends: Mapping[tuple[str, str], str] | None = None,
        tuned: Iterable[str] = (),
    ) -> None:
        self._device, self._written, self._kernels, self._stand_in = device, written, kernels, stand_in
        self._backends, self._tuned = backends or {}, frozenset(tuned)
        self._found: dict[tuple[str, str], Constants | None] = {}

    def __getitem__(self, key: tuple[str, str]) -> Constants:
        if key not in self._found:
            self._found[key] = self._measured(*key) or self._written.get(key)
        found = self._found[key]
        if found is None:
            raise KeyError(key)
        return found

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return (key for key in {**self._written, **PLANNED} if self.get(key) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _measured(self, operator: str, format: str) -> Constants | None:
        """Constants measured nearer than what the device file says."""
        if (operator, format) not in PLANNED:
            return None
        own = _written_by(self._device, operator)
        kernels = self._backends.get((operator, format), self._kernels)
        found = _choose(self._device, PLANNED[operator, format], kernels, self._stand_in, written=format in own)
        if found is None:
            return None
        if operator in self._tuned and found.tier == "framework":
            found = found._replace(groups=(*found.groups, *_of_others(self._device, PLANNED[operator, format], found)))
        facts = {n: v for name in ("any", format) if name in own for n, v in stated(own[name]).items()}
        first, *others = (_constants(operator, found._replace(groups=g), kernels) for g in _sets(found))
        rivals = tuple(replace(c, **facts) for c in others)  # type: ignore[arg-type]
        return replace(first, rivals=rivals, **facts)  # type: ignore[arg-type]


def _written_by(device: Device, operator: str) -> Mapping[str, KernelConstants]:
    kernels: Mapping[str, Mapping[str, KernelConstants]] = {str(k): v for k, v in device.kernels.items()}
    return kernels.get(operator, {})


def _choose(
    device: Device, measured: tuple[tuple[str, str], ...], kernels: str, stand_in: str, *, written: bool
) -> _Found | None:
    """First tier that has groups; ``None`` where the device file's own constants stand nearer."""
    if written and not kernels:
        return None
    own = _own(device)
    mine = _of_framework(own, measured, kernels)
    if mine:
        return _Found("framework", tuple((own.device, group) for group in mine))
    others = _of_framework(own, measured, stand_in)
    if others:
        return _Found("device", ((own.device, others[0]),))
    if written:
        return None
    pooled = _pooled(own, measured)
    if pooled:
        return _Found("device", ((own.device, pooled),))
    kin = _kin(device)
    if measured == PLANNED["gemm", "any"]:
        kin = [g for g in kin if not cut_down(device, load_device(g.device))]
    alike = [(g.device, found[0]) for g in kin if (found := _of_framework(g, measured, kernels))]
    alike = alike or [(g.device, shared) for g in kin if (shared := _pooled(g, measured))]
    return _Found("sibling", tuple(alike)) if alike else None


class _Groups(NamedTuple):
    """Groups of one device by (operator class, format) as measured."""

    device: str
    by_kind: Mapping[tuple[str, str], tuple[CalibrationGroup, ...]]


def _of_framework(own: _Groups, measured: Iterable[tuple[str, str]], kernels: str) -> list[CalibrationGroup]:
    """Groups of the kernels that the framework was measured with, the most usual first.

    None where the usual one was launched from the host, one call at a time, which hides what a small kernel takes.
    Kernels for odd shapes have a qualified name and are left out, and so are those with less than half of the rows of
    the most usual one.
    """
    if not kernels:
        return []
    for kind in measured:
        found = [g for g in own.by_kind.get(kind, ()) if g.variant == kernels or g.variant.startswith(kernels + "/")]
        usual = sorted((g for g in found if " " not in g.variant), key=lambda g: -g.rows)
        if usual and usual[0].constants.get("host_floor", 0.0) <= HOST_BOUND:
            return [g for g in usual if 2 * g.rows >= usual[0].rows]
    return []


def _of_others(
    device: Device, measured: tuple[tuple[str, str], ...], found: _Found
) -> Iterator[tuple[str, CalibrationGroup]]:
    """Usual kernels of the other frameworks that the same people timed on the device."""
    own, taken = _own(device), [group for _, group in found.groups]
    alike = [g for kind in measured for g in own.by_kind.get(kind, ()) if g.origin == taken[0].origin]
    for name in sorted({g.variant.partition("/")[0] for g in alike} - {POOLED}):
        yield from ((own.device, g) for g in _of_framework(own, measured, name) if g in alike and g not in taken)


def _pooled(own: _Groups, measured: Iterable[tuple[str, str]]) -> CalibrationGroup | None:
    groups = (g for kind in measured for g in own.by_kind.get(kind, ()) if g.variant == POOLED)
    return next(groups, None)


def _constants(operator: str, found: _Found, kernels: str) -> Constants:
    """Constants of the groups, geometric means where there are several; artefacts of benchmarks are left out."""
    groups = [group for _, group in found.groups]
    values: dict[str, Any] = {}
    for name in KERNEL_CONSTANTS[operator]:
        known = [g.constants[name] for g in groups if g.constants.get(name, 0.0) > 0.0]
        if known and len(known) == len(groups):
            values[name] = math.exp(math.fsum(map(math.log, known)) / len(known))
    least = 0.0 if found.tier == "framework" else WIDTHS[found.tier]
    regimes = tuple((end, math.expm1(max(least, _half_width(groups, name, found.tier)))) for name, end in REGIMES)
    widths = sorted(width for _, width in regimes)
    rows, devices = sum(g.rows for g in groups), ", ".join(name for name, _ in found.groups)
    pooled = all(g.variant == POOLED for g in groups)
    whose = "all frameworks" if pooled else kernels
    errors = [g.median_error for g in groups if g.median_error is not None]
    error = f", median error {math.fsum(errors) / len(errors):.0%}" if errors else ""
    told = f"{rows} timings of {whose} on {devices}{error}"
    return replace(
        Constants(**values),
        kind="fitted",
        spread=widths[len(widths) // 2],
        regimes=regimes,
        tier=found.tier,
        basis=told,
    )


def _half_width(groups: Iterable[CalibrationGroup], regime: str, tier: str) -> float:
    """Half-width in ln of a regime: that of the residuals of the widest group, else the tier's."""
    ends = [max(map(abs, g.interval[regime])) for g in groups if regime in g.interval]
    return max(ends, default=WIDTHS[tier])


def stated(constants: KernelConstants) -> dict[str, float]:
    """Constants that a file states from anything but a fit to measured kernels."""
    facts = {n: getattr(constants, n) for n in constants.model_fields_set}
    return {n: f.value for n, f in facts.items() if f is not None and f.kind != "fitted"}


def _own(device: Device) -> _Groups:
    """Groups of the device: of its own file, else of the shipped calibration of that name."""
    if device.calibration:
        return _indexed(device.name, device.calibration)
    path = _files().get(device.name)
    return _Groups(device.name, {}) if path is None else _load(path)


def cut_down(device: Device, other: Device) -> bool:
    """Whether the matrix units of one are cut to a part of the rate of the other, as products of one chip are.

    A GeForce that adds in fp32 at half of the rate of its chip is never short of power; the same chip at full rate is.
    """
    ours, theirs = (_unit_rate(d) for d in (device, other))
    return bool(ours and theirs) and max(ours, theirs) > UNLIKE * min(ours, theirs)


def feed_of(device: Device) -> str:
    """How kernels feed the matrix units: from registers, or, where one unit is too fast for that, from shared memory.

    Kernels for the one and for the other (``mma`` against ``wgmma`` and ``tcgen05``) are other programs.
    """
    return "shared memory" if _unit_rate(device) > FED_BY_REGISTERS else "registers"


def _unit_rate(device: Device) -> float:
    """16-bit rate of one compute unit [FLOP/s]; 0 where the file states none."""
    rates = device.peak.matrix
    rate = next((rates[name].value for name in ("bf16", "fp16") if name in rates), 0.0)
    return rate / device.units.value if device.units else 0.0


def _kin(device: Device) -> list[_Groups]:
    """Groups of the other measured devices of the family."""
    names = [name for name, family in _families().items() if family == device.family and name != device.name]
    return [_load(_files()[name]) for name in names] if device.family else []


def _files() -> dict[str, tuple[Path, int]]:
    return {path.stem: (path, path.stat().st_mtime_ns) for path in calibration_files()}


@lru_cache(maxsize=1)
def _heads(files: tuple[tuple[Path, int], ...]) -> dict[str, str]:
    """Family of every calibrated device, from the head of its file."""
    result = {}
    for path, _ in files:
        with path.open(encoding="utf-8") as lines:
            head = [next(lines, "") for _ in range(2)]
        family = next((line.partition(":")[2].strip() for line in head if line.startswith("family:")), "")
        result[path.stem] = family
    return result


def _families() -> dict[str, str]:
    return _heads(tuple(_files().values()))


@lru_cache(maxsize=32)
def _load(file: tuple[Path, int]) -> _Groups:
    found = parse(CalibrationFile, read(file[0]))
    return _indexed(found.device, found.groups)


def _indexed(device: str, groups: Iterable[CalibrationGroup]) -> _Groups:
    kinds: dict[tuple[str, str], tuple[CalibrationGroup, ...]] = {}
    for group in groups:
        kind = (group.operator, group.format)
        kinds[kind] = (*kinds.get(kind, ()), group)
    return _Groups(device, kinds)
