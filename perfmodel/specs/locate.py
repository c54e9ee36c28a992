"""From a name or a path to a file: shipped devices, clusters, models, workloads and frameworks, and the user's own."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import perfmodel
from perfmodel.errors import SpecError, UnknownName

__all__ = [
    "ALIAS_LINES",
    "Entry",
    "calibration_files",
    "class_file",
    "cluster_names",
    "device_names",
    "find_device",
    "find_fleet",
    "find_framework",
    "find_hardware",
    "find_image_model",
    "find_image_workload",
    "find_model",
    "find_workload",
    "framework_names",
    "hardware_names",
    "image_model_names",
    "image_workload_names",
    "library_file",
    "model_names",
    "recipe_file",
    "workload_names",
]

ALIAS_LINES = 15
"""``aliases: [a, b]`` stands on one line among so many first lines, so that finding a name parses no file."""

_ALIASES = re.compile(r"aliases:\s*\[(.*)\]\s*(#.*)?$")
_SUFFIXES = (".yaml", ".yml", ".json")


class Entry(NamedTuple):
    """One shipped file: its name is the stem of its file."""

    name: str
    aliases: tuple[str, ...]
    path: Path


def _package() -> Path:
    return Path(perfmodel.__file__).parent


def _shipped(folder: str) -> Path:
    """Return a data folder: inside the installed package, or beside it in a source checkout."""
    inside = _package() / folder
    return inside if inside.is_dir() else _package().parent / folder


def _device_folder() -> Path:
    return _shipped("hardware_specs") / "devices"


def _cluster_folder() -> Path:
    return _shipped("hardware_specs") / "clusters"


def _workload_folder() -> Path:
    return _package() / "specs" / "workloads"


def _framework_folder() -> Path:
    return _package() / "specs" / "frameworks"


def calibration_files() -> list[Path]:
    """List the shipped calibrations, one file per measured device."""
    return _files(_shipped("hardware_specs") / "calibrations")


def class_file() -> Path:
    """Return the file of default kernel constants per device class."""
    return _shipped("hardware_specs") / "classes.yaml"


def operation_file() -> Path:
    """Return the file of what running a machine is taken to cost."""
    return _shipped("hardware_specs") / "operation.yaml"


def library_file() -> Path:
    """Return the file of communication libraries."""
    return _shipped("hardware_specs") / "libraries.yaml"


def recipe_file() -> Path:
    """Return the file of training recipes."""
    return _package() / "specs" / "recipes.yaml"


def device_names() -> list[Entry]:
    """List the shipped devices."""
    return _entries(_device_folder())


def cluster_names() -> list[Entry]:
    """List the shipped clusters."""
    return _entries(_cluster_folder())


def hardware_names() -> list[Entry]:
    """List the shipped clusters, then the shipped devices."""
    return cluster_names() + device_names()


def model_names() -> list[Entry]:
    """List the shipped models."""
    return _entries(_shipped("models"))


def workload_names() -> list[Entry]:
    """List the shipped workloads."""
    return _entries(_workload_folder())


def framework_names() -> list[Entry]:
    """List the shipped frameworks."""
    return _entries(_framework_folder())


def find_hardware(name: str | Path) -> Path:
    """Return the file of a cluster or device, given its name, an alias or a path."""
    return _find("cluster or device", name, [_cluster_folder(), _device_folder()])


def find_fleet(name: str | Path) -> Path:
    """Return the file of a fleet of unlike groups, given its name, an alias or a path."""
    return _find("fleet", name, [_shipped("hardware_specs") / "fleets"])


def find_device(name: str | Path, base: Path | None = None) -> Path:
    """Return the file of a device; a relative path starts at ``base``, the folder of the file that names it."""
    return _find("device", name, [_device_folder()], base)


def find_model(name: str | Path) -> Path:
    """Return the file of a model: a shipped name, a YAML file, a ``config.json`` or a folder with one."""
    folder = Path(name)
    if _safe(os.path.isdir, folder):
        config = folder / "config.json"
        if _safe(os.path.isfile, config):
            return config
        if not _is_name(name):
            raise SpecError("the folder has no config.json", file=str(folder))
    _other_kind(name, _shipped("models"), _shipped("models") / "diffusion", "makes images: plan and estimate take it")
    return _find("model", name, [_shipped("models")])


def image_model_names() -> list[Entry]:
    """List the shipped diffusion models."""
    return _entries(_shipped("models") / "diffusion")


def image_workload_names() -> list[Entry]:
    """List the shipped workloads of image generation."""
    return _entries(_package() / "specs" / "image_workloads")


def find_image_model(name: str | Path) -> Path:
    """Return the file of a diffusion model, given its name or a path."""
    folder = _shipped("models") / "diffusion"
    _other_kind(name, folder, _shipped("models"), "is a language model, which makes no images")
    return _find("diffusion model", name, [folder])


def _other_kind(name: str | Path, own: Path, other: Path, message: str) -> None:
    """Say so where a name is that of the other kind of model."""
    text = str(name)
    if (
        _is_name(name)
        and not _safe(os.path.lexists, Path(text))
        and not _by_name(text, [own])
        and _by_name(text, [other])
    ):
        known = ", ".join(entry.name for entry in _entries(_shipped("models") / "diffusion"))
        raise SpecError(message, field="model", found=text, allowed=f"for images: {known}")


def find_image_workload(name: str | Path) -> Path:
    """Return the file of a workload of image generation, given its name or a path."""
    return _find("workload of images", name, [_package() / "specs" / "image_workloads"])


def find_workload(name: str | Path) -> Path:
    """Return the file of a workload, given its name or a path."""
    return _find("workload", name, [_workload_folder()])


def find_framework(name: str | Path) -> Path:
    """Return the file of a framework, given its name or a path."""
    return _find("framework", name, [_framework_folder()])


def _find(kind: str, name: str | Path, folders: list[Path], base: Path | None = None) -> Path:
    text = str(name)
    own = (base or Path()) / text
    if text and _safe(os.path.lexists, own) and not _safe(os.path.isdir, own):
        return own
    shipped = _by_name(text, folders)
    if shipped:
        return shipped
    if not _is_name(name):
        return own  # reading it says what is wrong with it
    entries = [e for folder in folders for e in _entries(folder)]
    known = [n for e in entries for n in (e.name, *e.aliases)]
    raise UnknownName(kind, text, known, remedy="or give the path of a YAML file")


def _by_name(text: str, folders: list[Path]) -> Path | None:
    """Look names up first, then aliases; ``frontier.yaml`` means ``frontier``."""
    wanted = _folded(text)
    stem = _folded(Path(text).stem) if wanted.endswith(_SUFFIXES) and Path(text).name == text else wanted
    files = [path for folder in folders for path in _files(folder)]
    for path in files:
        if _folded(path.stem) in (wanted, stem):
            return path
    for path in files:
        if wanted in map(_folded, _aliases(path)):
            return path
    return None


def _is_name(name: str | Path) -> bool:
    """Whether the text can only be meant as a name, not as a path; a model hub's ``owner/model`` is a name."""
    text = str(name)
    if isinstance(name, Path) or text.lower().endswith(_SUFFIXES) or text.startswith((".", "/", "~")):
        return False
    return not _safe(os.path.isdir, Path(text)) or os.sep not in text


def _safe(test: object, path: Path) -> bool:
    """Ask the file system; a name it cannot even represent does not exist."""
    try:
        return bool(test(path))  # type: ignore[operator]
    except (OSError, ValueError):
        return False


def _folded(name: str) -> str:
    return name.casefold().replace("_", "-").replace(" ", "-")


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix == ".yaml" and not p.name.startswith("_"))


def _entries(folder: Path) -> list[Entry]:
    return [Entry(path.stem, _aliases(path), path) for path in _files(folder)]


def _aliases(path: Path) -> tuple[str, ...]:
    """Return the aliases from the head of a shipped file."""
    with path.open(encoding="utf-8") as lines:
        return aliases_in(islice(lines, ALIAS_LINES))


def aliases_in(lines: Iterable[str]) -> tuple[str, ...]:
    """Return the aliases written in ``lines``.

    Examples
    --------
    >>> aliases_in(["name: h100", "aliases: [h100-sxm, 'H100 80GB']  # both in use"])
    ('h100-sxm', 'H100 80GB')
    """
    for line in lines:
        match = _ALIASES.match(line.rstrip())
        if match:
            return tuple(part for part in (p.strip().strip("'\"") for p in match[1].split(",")) if part)
    return ()
