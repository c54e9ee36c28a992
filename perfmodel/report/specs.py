"""What is shipped and what a file says, as data; :mod:`perfmodel.report.spec_lines` prints it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from perfmodel.errors import SpecError, UnknownName
from perfmodel.network.build import build_bill
from perfmodel.operators.state import cache_bytes
from perfmodel.report.images import diffusion_spec as _diffusion
from perfmodel.report.images import workload_spec as _images
from perfmodel.report.jsonable import plain
from perfmodel.report.listing import ENTRIES, technique_entries
from perfmodel.specs.calibration import CalibrationFile
from perfmodel.specs.collectives import LibraryFile
from perfmodel.specs.fleet import load_fleet
from perfmodel.specs.framework import load_framework
from perfmodel.specs.load import parse
from perfmodel.specs.model import Model, load_model
from perfmodel.specs.operation import Operation
from perfmodel.specs.overrides import dimensions, paths
from perfmodel.specs.system import ClassFile, System, load_system
from perfmodel.specs.workload import RecipeFile, load_workload
from perfmodel.specs.yamlfile import read
from perfmodel.units import format_count

__all__ = ["KV_CONTEXT", "SPEC", "checked", "described", "files_in"]

SPEC = "perfmodel.spec/1"
KV_CONTEXT = 4096
"""Tokens of context for which a model's cache per token is stated."""


def described(name: str, kind: str | None = None) -> dict[str, Any]:
    """Everything about one name or file.

    Raises
    ------
    UnknownName
        If nothing is called that; with the nearest names of every kind.
    SpecError
        If it means several things, or a file cannot be used.
    """
    path = Path(name)
    if os.path.lexists(path) and (not path.is_dir() or (path / "config.json").is_file()):
        return _of_file(path / "config.json" if path.is_dir() else path)
    shipped = Path(name).stem if name.endswith((".yaml", ".yml")) and path.name == name else name
    meanings = [k for k in ([kind] if kind else [*ENTRIES, "techniques"]) if _means(k, shipped)]
    if len(meanings) > 1:
        several = " and ".join(f"--kind {m}" for m in meanings)
        raise SpecError(f"{name} means several things; choose one of {several}")
    if meanings:
        return _describe(meanings[0], shipped)
    if path.suffix in (".yaml", ".yml", ".json") or os.sep in name:
        return _of_file(path)
    known = [n for k in ENTRIES for e in ENTRIES[k]() for n in (e.name, *e.aliases)]
    known += [t["name"] for t in technique_entries()]
    raise UnknownName("specification", name, known, remedy="perfmodel specs list shows all")


def _means(kind: str, name: str) -> bool:
    folded = _folded(name)
    if kind == "techniques":
        return any(_folded(t["name"]) == folded for t in technique_entries())
    return any(folded in map(_folded, (e.name, *e.aliases)) for e in ENTRIES[kind]())


def _folded(name: str) -> str:
    return name.casefold().replace("_", "-").replace(" ", "-")


def _describe(kind: str, name: str) -> dict[str, Any]:
    if kind == "techniques":
        return {"kind": "technique", **next(t for t in technique_entries() if _folded(t["name"]) == _folded(name))}
    entry = next(e for e in ENTRIES[kind]() if _folded(name) in map(_folded, (e.name, *e.aliases)))
    return _READERS[kind](entry.path)


def _of_file(path: Path) -> dict[str, Any]:
    return _READERS[_kind(path)](path)


def _kind(path: Path) -> str:
    """Tell the kinds of file apart by their keys."""
    data = read(path).data
    keys = data.keys()
    if "_class_name" in keys or "_class_name" in (data.get("config") or {}):
        return "diffusion"
    if {"config", "model_type", "architectures"} & keys or path.suffix.lower() == ".json":
        return "models"
    for kind, wanted in (
        ("clusters", {"peak", "memory", "node", "nodes", "levels"}),
        ("classes", {"classes"}),
        ("fleets", {"link"}),
        ("libraries", {"libraries"}),
        ("operation", {"reliability", "file_system"}),
        ("calibrations", {"groups"}),
        ("recipes", {"recipes"}),
        ("frameworks", {"facts", "version"}),
    ):
        if wanted & keys:
            return kind
    if {"kind", "sequence", "prompt", "output", "global_batch"} & keys:
        return "images" if data.get("kind") == "image" else "workloads"
    raise SpecError(
        "no kind of specification has these fields",
        file=str(path),
        found=", ".join(map(str, list(keys)[:6])) or "nothing",
        allowed="a model, device, cluster, workload or framework",
    )


def _model(path: Path) -> dict[str, Any]:
    model: Model = load_model(path)
    a = model.architecture
    return {
        "kind": "model",
        "name": model.name,
        "aliases": list(model.aliases),
        "source": model.source,
        "file": str(path),
        "parameters": model.parameters,
        "active_parameters": model.active_parameters,
        "expert_parameters": a.expert_parameters,
        "embedding_parameters": a.embedding_parameters,
        "head_parameters": a.head_parameters,
        "family": a.family,
        "layers": a.layers,
        "hidden": a.hidden,
        "vocab": a.vocab,
        "tied": a.tied,
        "max_positions": a.max_positions,
        "weight_format": a.weight_format,
        "towers": {name: count for name, count in a.towers},
        "kv_bytes_per_token": _cache(model),
        "kv_context": KV_CONTEXT,
        "runs": [
            {
                "count": run.count,
                "mixer": None if run.layer.mixer is None else _part(run.layer.mixer),
                "ffn": None if run.layer.ffn is None else _part(run.layer.ffn),
                "parallel": run.layer.parallel,
            }
            for run in a.runs
        ],
    }


def _cache(model: Model) -> float:
    """KV cache of the whole model in 16 bits per token of a context of :data:`KV_CONTEXT` [B]."""
    a = model.architecture
    return a.layers * float(cache_bytes(a, float(KV_CONTEXT), kv_split=1.0, kv_bytes=2.0)) / KV_CONTEXT


def _part(part: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {k: v for k, v in plain(part).items() if v not in (None, False) and k != "projections"}
    return {"type": type(part).__name__, **fields, "parameters": part.parameters}


def _hardware(path: Path) -> dict[str, Any]:
    system: System = load_system(path)
    units, cluster = dimensions(system), system.cluster
    sources = {**cluster.sources, **system.accelerator.sources, **(system.host.sources if system.host else {})}
    nodes, per_node = round(cluster.nodes.value), cluster.node.accelerator.count
    bill = build_bill(cluster)
    return {
        "kind": "hardware",
        "name": system.name,
        "aliases": list(cluster.aliases or system.accelerator.aliases),
        "notes": cluster.notes,
        "files": [str(f) for f in system.files],
        "accelerator": system.accelerator.name,
        "device_class": system.accelerator.device_class,
        "host": system.host.name if system.host else None,
        "engines": {name: device.name for name, device in system.engines.items()},
        "nodes": nodes,
        "devices_per_node": per_node,
        "devices": nodes * per_node,
        **({"network_price_usd": bill.price, "network_power_watts": bill.power} if bill else {}),
        "facts": {
            where: {
                "value": f.value,
                "unit": units.get(where, "1"),
                "text": f.text,
                "kind": f.kind,
                "source": _source(system, where, sources, f.source),
                "note": f.note,
                "spread": f.spread,
            }
            for where, f in paths(system).items()
        },
    }


def _source(system: System, path: str, sources: Mapping[str, str], key: str) -> str:
    head, _, rest = path.partition(".")
    owner = {"accelerator": system.accelerator, "host": system.host}.get(head)
    if head == "engines":
        owner = system.engines.get(rest.partition(".")[0])
    own: Mapping[str, str] = owner.sources if owner is not None else system.cluster.sources
    return own.get(key, sources.get(key, key))


def _workload(path: Path) -> dict[str, Any]:
    workload = load_workload(path)
    data: dict[str, Any] = plain(workload)
    phase = data.pop("kind")
    if not data["name"]:
        data["name"] = path.stem
    return {"kind": "workload", "phase": phase, **data, "file": str(path)}


def _framework(path: Path) -> dict[str, Any]:
    framework = load_framework(path)
    facts: dict[str, Any] = {}
    for name in type(framework.facts).model_fields:
        f = getattr(framework.facts, name)
        source = framework.sources.get(f.source, f.source)
        facts[name] = {"value": f.value, "text": f.text, "kind": f.kind, "source": source, "note": f.note}
    return {
        "kind": "framework",
        "phase": framework.kind,
        "name": framework.name,
        "aliases": list(framework.aliases),
        "version": framework.version,
        "notes": framework.notes,
        "file": str(path),
        "facts": facts,
    }


def _fleet(path: Path) -> dict[str, Any]:
    joined = load_fleet(path)
    found = {"kind": "fleet", "name": joined.fleet.name, "aliases": list(joined.fleet.aliases), "file": str(path)}
    groups = {n: f"{s.cluster.nodes.value:g} × {s.cluster.node.accelerator.count} {s.accelerator.name}"
              for n, s in joined.systems.items()}  # fmt: skip
    return {**found, "notes": joined.fleet.notes, "groups": groups, "link": plain(joined.fleet.link)}


def _operation(path: Path) -> dict[str, Any]:
    found = parse(Operation, read(path))
    facts = {n: plain(getattr(found, n)) for n in ("reliability", "ownership", "file_system", "power")}
    return {"kind": "operation", "name": path.stem, "file": str(path), **facts}


def _classes(path: Path) -> dict[str, Any]:
    found = parse(ClassFile, read(path))
    return {"kind": "device classes", "name": path.stem, "file": str(path), "classes": plain(found.classes)}


def _libraries(path: Path) -> dict[str, Any]:
    found = parse(LibraryFile, read(path))
    return {
        "kind": "communication libraries",
        "name": path.stem,
        "file": str(path),
        "libraries": plain(found.libraries),
    }


def _calibration(path: Path) -> dict[str, Any]:
    found = parse(CalibrationFile, read(path))
    load_system(found.device)
    return {"kind": "calibration", "name": path.stem, "file": str(path), "groups": plain(found.groups)}


def _recipes(path: Path) -> dict[str, Any]:
    found = parse(RecipeFile, read(path))
    return {"kind": "recipes", "name": path.stem, "file": str(path), "recipes": plain(found.recipes)}


_READERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "models": _model,
    "clusters": _hardware,
    "devices": _hardware,
    "workloads": _workload,
    "diffusion": _diffusion,
    "images": _images,
    "frameworks": _framework,
    "classes": _classes,
    "libraries": _libraries,
    "operation": _operation,
    "fleets": _fleet,
    "calibrations": _calibration,
    "recipes": _recipes,
}


def files_in(given: Iterable[Path]) -> list[Path]:
    """Files as given, folders as the specifications in them.

    Raises
    ------
    SpecError
        If a path does not exist or a folder holds no specification.
    """
    found: list[Path] = []
    for path in given:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix in (".yaml", ".yml", ".json") and p.is_file())
            if not inside:
                raise SpecError("no YAML or JSON file in this folder", file=str(path))
            found += inside
        else:
            found.append(path)
    return found


def checked(path: Path) -> str:
    """Read a file completely and say in a few words what it is.

    Raises
    ------
    PerfmodelError
        If it cannot be used.
    """
    found = _of_file(path)
    kind = found["kind"]
    if kind == "model":
        return f"model {found['name']}, {format_count(found['parameters'], 4)} parameters"
    if kind == "hardware":
        return f"hardware {found['name']}, {found['devices']:,} × {found['accelerator']}, {len(found['facts'])} facts"
    return f"{kind} {found['name']}"
