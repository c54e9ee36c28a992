"""Writing what was fitted: calibration files of many devices, and a device file with constants of its own."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from perfmodel.calibration.fit import fit_groups
from perfmodel.calibration.libraries import library_facts, machine_data, measured_algorithms
from perfmodel.calibration.model import Group, Key
from perfmodel.calibration.operators import model_named
from perfmodel.calibration.operators.collective import kinds_in
from perfmodel.calibration.rows import read_tables
from perfmodel.calibration.store import Fitted, shipped
from perfmodel.calibration.subjects import own_file
from perfmodel.errors import SpecError
from perfmodel.specs.calibration import POOLED, CalibrationGroup
from perfmodel.specs.kernels import KERNEL_CONSTANTS
from perfmodel.specs.yamlfile import read

__all__ = ["calibrate", "calibrate_all", "calibration_text", "device_text", "measured_groups", "write_calibrations"]

FOLDS = 3
ENOUGH = 5
"""Groups with fewer rows are not kept: their device's or siblings' constants predict them as well."""
ORIGINS = {
    "aiconfigurator": "ai-dynamo/aiconfigurator performance database (Apache-2.0)",
    "vidur": "microsoft/vidur profiles (MIT)",
    "LLMCompass": "PrincetonUniversity/LLMCompass measurements (BSD-3-Clause)",
    "LLMServingSim": "casys-kaist/LLMServingSim vLLM profiles (MIT)",
    "apex_plus": "microsoft/apex_plus cuBLAS timings (MIT)",
}
"""What the short names of origins stand for."""


def measured_groups(paths: Iterable[str | Path], own: str | Path | None = None) -> list[Group]:
    """All rows of measurement files that can be predicted.

    Raises
    ------
    SpecError
        If there is none.
    """
    tables = read_tables(paths, own=own)
    groups = [group for table in tables for group in table.groups]
    if not groups:
        reasons = sorted({r for t in tables for counts in t.skipped.values() for r in counts})
        told = "; ".join(reasons) or "no operator class reads the columns of these files"
        raise SpecError(f"no row can be used: {told}", file=", ".join(t.file for t in tables))
    return groups


def calibrate(paths: Iterable[str | Path], base: str | Path, name: str, *, date: str = "") -> tuple[str, list[Fitted]]:
    """Fit measurements of one device or machine; return the text of its file with the constants, and the fits.

    Parameters
    ----------
    paths : measurement files; rows of other devices than ``base`` are left out.
    base : device file; for timings of collectives the cluster file.
    name : name of the new device or cluster.
    date : day of the fit.
    """
    own = own_file(base)
    groups = [g for g in measured_groups(paths, own.path) if g.key.device == str(own.path)]
    if not groups:
        what, column = ("machine", "system") if own.cluster else ("device", "device")
        known = f"in the column {column}: {', '.join(own.labels)}"
        raise SpecError(f"no measured row is of this {what}", file=str(own.path), allowed=known)
    fits = fit_groups(groups, date=date, folds=FOLDS, known=shipped())
    data = dict(read(own.path).data)
    return cluster_text(data, name, fits, groups) if own.cluster else device_text(data, name, fits), fits


def cluster_text(data: dict[str, Any], name: str, fits: Iterable[Fitted], measured: Iterable[Group]) -> str:
    """YAML of a cluster file whose communication libraries are those of the fits, in front of its own.

    Parameters
    ----------
    data : content of the cluster file it starts from.
    name : name of the new cluster.
    fits : groups of that machine; pooled ones become the constants that plans use.
    measured : rows they were fitted to; algorithms that no row says anything of keep the usual constants.
    """
    fits, measured = list(fits), list(measured)
    libraries = {}
    for fit in fits:
        if fit.group.variant == POOLED and fit.group.operator == "collective":
            kinds = {k for g in measured if g.key.format == fit.group.format for k in kinds_in(g.columns)}
            algorithms = measured_algorithms(kinds)
            libraries[fit.group.format] = library_facts(fit.group, fit.device, "calibrated", algorithms)
    data = machine_data(data, name, libraries, _told(f.group for f in fits))
    return _yaml({**data, "calibration": [_plain(f.group) for f in fits]})


def calibrate_all(paths: Iterable[str | Path], folder: Path, *, date: str = "") -> list[Fitted]:
    """Fit the measurements of all devices and write one calibration file per device into ``folder``."""
    if not folder.is_dir():
        raise SpecError("without --hw the output must be a folder that exists", field="--output", found=str(folder))
    fits = fit_groups(measured_groups(paths), date=date, folds=FOLDS)
    write_calibrations(folder, fits)
    return fits


def device_text(data: dict[str, Any], name: str, fits: Iterable[Fitted]) -> str:
    """YAML of a device file with fitted constants in place of its own.

    Parameters
    ----------
    data : content of the device file it starts from.
    name : name of the new device.
    fits : groups of that device; pooled ones become the constants that plans use.
    """
    fits = list(fits)
    groups = [f.group for f in fits]
    names = [n for n in (data["name"], *data.get("aliases", ())) if n != name]
    data = {**data, "name": name, "aliases": names, "sources": {**data["sources"], "calibrated": _told(groups)}}
    kernels = {operator: dict(formats) for operator, formats in data.get("kernels", {}).items()}
    for fit in fits:
        if fit.group.variant == POOLED and fit.group.operator in KERNEL_CONSTANTS:
            measured = {g.format for g in groups if g.operator == fit.group.operator}
            kernels.setdefault(fit.group.operator, {}).update(_facts(fit, measured))
    data["kernels"] = kernels
    data["calibration"] = [_plain(g) for g in groups]
    return _yaml(data)


def _told(groups: Iterable[CalibrationGroup]) -> str:
    origins = sorted({g.origin for g in groups if g.origin})
    return "fit to measurements: " + (", ".join(origins) or "of the user")


def _facts(fit: Fitted, measured: Collection[str]) -> dict[str, Any]:
    """Facts of a pooled group, under the format that plans look up."""
    group = fit.group
    allowed = KERNEL_CONSTANTS[group.operator]
    key = Key(group.operator, fit.device, group.format, group.variant, group.origin)
    units = {p.name: p.unit for p in model_named(group.operator).parameters(key)}
    facts = {
        name: _fact(value, units.get(name, "1"), group) for name, value in group.constants.items() if name in allowed
    }
    wanted = planned_format(group.format, measured)
    return {wanted: facts} if wanted else {}


def planned_format(format: str, measured: Collection[str]) -> str | None:
    """Format under which plans look up constants measured in ``format``, given all formats measured of an operator.

    The widest use, ``any``, goes to 16 bits, or to 32 where nothing narrower was measured; variants get none.

    Examples
    --------
    >>> planned_format("bf16", ["bf16", "fp32"]), planned_format("fp32", ["bf16", "fp32"])
    ('any', 'fp32')
    >>> planned_format("fp32", ["fp32"])
    'any'
    >>> planned_format("fp8", ["bf16", "fp8"]), planned_format("w4a16", ["bf16", "w4a16"])
    ('fp8', None)
    """
    if format == next((name for name in ("bf16", "fp16", "fp32") if name in measured), None):
        return "any"
    return format if format in ("fp32", "fp8", "nvfp4", "int8") else None


def _fact(value: float, unit: str, group: CalibrationGroup) -> dict[str, Any]:
    text = f"{value * 1e6:.4g} us" if unit == "s" else float(f"{value:.4g}")
    spread = max(abs(e) for ends in group.interval.values() for e in ends) if group.interval else group.p90_error
    return {"value": text, "kind": "fitted", "source": "calibrated", "spread": round(min(spread or 0.5, 0.9), 3)}


def write_calibrations(folder: Path, fits: Iterable[Fitted]) -> list[Path]:
    """Write one calibration file per device into ``folder`` and return their paths."""
    by_device: dict[str, list[CalibrationGroup]] = {}
    families: dict[str, str] = {}
    for fit in fits:
        if fit.group.rows >= ENOUGH:
            by_device.setdefault(fit.device, []).append(fit.group)
            families[fit.device] = fit.family
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for device, groups in sorted(by_device.items()):
        path = folder / f"{device}.yaml"
        path.write_text(calibration_text(device, groups, families[device]), encoding="utf-8")
        written.append(path)
    return written


def calibration_text(device: str, groups: Iterable[CalibrationGroup], family: str) -> str:
    """YAML of the calibration file of a device or a machine."""
    ordered = sorted(groups, key=lambda g: (g.operator, g.format, g.variant != POOLED, g.variant, g.origin))
    told = {name: ORIGINS.get(name, name) for name in sorted({g.origin for g in ordered if g.origin})}
    head = {"device": device, "family": family, "sources": told}
    return _yaml({**head, "groups": [_plain(g) for g in ordered]})


def _plain(group: CalibrationGroup) -> dict[str, Any]:
    data = group.model_dump(exclude_defaults=True)
    if "interval" in data:
        data["interval"] = {name: list(ends) for name, ends in data["interval"].items()}
    if "undetermined" in data:
        data["undetermined"] = list(data["undetermined"])
    return data


class _Block(dict[str, Any]):
    """A mapping written one key per line."""


def _yaml(data: Mapping[str, Any]) -> str:
    """YAML with small mappings on one line, as people write these files."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Leaves no references to shared values."""

        def ignore_aliases(self, data: Any) -> bool:
            del data
            return True

    Dumper.add_representer(
        _Block, lambda dumper, value: dumper.represent_mapping("tag:yaml.org,2002:map", value, flow_style=False)
    )
    shown = {**data, "sources": _Block(data["sources"])}
    return yaml.dump(shown, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=2000, default_flow_style=None)
