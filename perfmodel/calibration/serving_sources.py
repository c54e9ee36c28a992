"""What is known about the sources of serving tables: ``serving_sources.yaml``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

from perfmodel.calibration.model import Unpredictable
from perfmodel.calibration.serving_launches import fits
from perfmodel.errors import PerfmodelError
from perfmodel.specs.architecture import Architecture
from perfmodel.specs.facts import Spec
from perfmodel.specs.load import parse
from perfmodel.specs.locate import find_hardware, find_model
from perfmodel.specs.model import Model, load_model
from perfmodel.specs.yamlfile import read

__all__ = [
    "cache_format",
    "cluster_of",
    "framework_of",
    "harness_of",
    "in_step",
    "lengths_of",
    "model_named",
    "model_of",
    "queued",
    "setting_of",
    "sources",
]

Part = Literal["attention", "router", "shared", "mlp", "experts", "head"]


class MachineEntry(Spec):
    """Cluster that a recorded system stands for; a device file where nothing is known of its nodes."""

    gpu: str
    cluster: str
    devices: int = 0
    """Most devices of one plan; 0 for as many as the cluster has nodes for."""
    source: str = ""
    """Only for rows of this source."""


class ModelEntry(Spec):
    """Model file that a recorded name means, where its own aliases do not say it."""

    name: str
    model: str


class FrameworkEntry(Spec):
    """Framework file that a recorded name means."""

    name: str
    framework: str


class SoftwareEntry(Spec):
    """Framework and format of the cache of tables that do not say so."""

    when: dict[str, str]
    framework: str
    cache: str


class LengthEntry(Spec):
    """Mean tokens of the requests of a benchmark."""

    name: str
    prompt: float
    output: float
    beams: float
    """Sequences that a request decodes at the same time."""
    why: str


class QueueEntry(Spec):
    """Requests of an offline run, all queued at its start."""

    when: dict[str, str]
    requests: float
    why: str


class OfflineEntry(Spec):
    """How a source ran its offline benchmark, where its tables do not say so."""

    when: dict[str, str]
    running: float
    """Most requests that its harness lets an engine admit, over all pipeline stages."""
    attention_data: bool
    """Models with experts: tensor ranks stand for data ranks of attention that share the experts."""
    why: str


class CacheEntry(Spec):
    """Format of the key-value cache."""

    when: dict[str, str]
    format: str
    why: str


class WeightEntry(Spec):
    """Format of the weights, and the components that stay in 16 bits."""

    when: dict[str, str]
    format: str
    keep: tuple[Part, ...]
    why: str


class SpeculationEntry(Spec):
    """How runs speculate that do not say so."""

    drafted: int
    """Tokens drafted per pass and sequence."""
    accepted: float
    """Tokens that a sequence gains per pass."""
    draft_cost: float
    """What drafting adds to a pass, relative."""
    why: str


class FitEntry(Spec):
    """Constants of a framework that closed-loop runs can tell."""

    framework: str
    names: tuple[str, ...]


class Sources(Spec):
    """Contents of ``serving_sources.yaml``."""

    machines: tuple[MachineEntry, ...]
    lengths: tuple[LengthEntry, ...]
    software: tuple[SoftwareEntry, ...]
    models: tuple[ModelEntry, ...]
    frameworks: tuple[FrameworkEntry, ...]
    caches: tuple[CacheEntry, ...]
    weights: tuple[WeightEntry, ...]
    queues: tuple[QueueEntry, ...]
    offline: tuple[OfflineEntry, ...]
    in_step: tuple[dict[str, str], ...]
    """Runs whose requests begin and end together, round by round."""
    drafts: str
    """Models released with a head that drafts tokens."""
    speculation: SpeculationEntry
    fits: tuple[FitEntry, ...]


@lru_cache(maxsize=1)
def sources() -> Sources:
    """What is known about the sources of serving tables."""
    return parse(Sources, read(Path(__file__).with_name("serving_sources.yaml")))


def cluster_of(system: str, devices: int = 2, source: str = "") -> str:
    """Cluster file of a recorded system; a device file where one device is enough.

    Parameters
    ----------
    system : as recorded: what publications call it, a shipped machine, or a file of one's own.
    devices : devices of the plan.
    source : who measured: the same devices may stand in other machines.

    Raises
    ------
    Unpredictable
        If none stands for it.
    """
    if _is_file(system):
        return system
    for entry in sources().machines:
        few = not entry.devices or devices <= entry.devices
        if few and re.search(entry.gpu, system, re.IGNORECASE) and re.search(entry.source, source, re.IGNORECASE):
            return entry.cluster
    try:
        return str(find_hardware(system))
    except PerfmodelError:
        raise Unpredictable(f"no machine is known for {system or 'an unnamed system'}") from None


def framework_of(name: str) -> str:
    """Framework file of a recorded name, or one's own; ``Unpredictable`` if none stands for it."""
    if _is_file(name):
        return name
    for entry in sources().frameworks:
        if re.search(entry.name, name, re.IGNORECASE):
            return entry.framework
    raise Unpredictable(f"no serving framework is called {name or '(unnamed)'}")


def _is_file(name: str) -> bool:
    """Whether a column names a file of the user's own."""
    return name.endswith((".yaml", ".yml", ".json")) and Path(name).is_file()


def cache_format(row: Mapping[str, str]) -> str:
    """Format of the key-value cache of a row."""
    return next(e.format for e in sources().caches if fits(e.when, row))


def lengths_of(model: str) -> LengthEntry:
    """Mean lengths of a benchmark's requests; ``Unpredictable`` where its data set is not known."""
    for entry in sources().lengths:
        if re.search(entry.name, model.replace("_", "."), re.IGNORECASE):
            return entry
    raise Unpredictable(f"the lengths of the requests are not known for {model}")


def in_step(row: Mapping[str, str]) -> bool:
    """Whether all requests of a row begin and end together, round by round."""
    return any(fits(when, row) for when in sources().in_step)


def setting_of(row: Mapping[str, str]) -> tuple[str, str]:
    """Framework and cache format of a row of a table that names neither; ``Unpredictable`` if none is known."""
    for entry in sources().software:
        if fits(entry.when, row):
            return entry.framework, entry.cache
    raise Unpredictable("no software is known for this source")


def queued(row: Mapping[str, str]) -> float | None:
    """Requests of an offline run, ``None`` where the source does not say how many."""
    return next((entry.requests for entry in sources().queues if fits(entry.when, row)), None)


def harness_of(row: Mapping[str, str]) -> OfflineEntry | None:
    """How an offline run was made, ``None`` where nothing is known."""
    return next((entry for entry in sources().offline if fits(entry.when, row)), None)


@lru_cache(maxsize=256)
def model_named(name: str) -> Model:
    """Model file of a recorded name, or one's own; ``Unpredictable`` if there is none."""
    if _is_file(name):
        return load_model(Path(name))
    bare = name.rsplit("/", 1)[-1]
    short = re.sub(r"-(instruct|fp8|fp4|nvfp4)(?=-|$)", "", bare.casefold())
    known = (e.model for e in sources().models if re.search(e.name, short, re.IGNORECASE))
    undated = re.sub(r"-(thinking|chat|hf|it|bf16|2[4-9](0[1-9]|1[0-2]))(?=-|$)", "", short)
    for candidate in (*known, short, bare, undated):
        try:
            return load_model(find_model(candidate))
        except PerfmodelError:
            continue
    raise Unpredictable(f"no model file is called {bare or '(unnamed)'}")


def model_of(row: Mapping[str, str]) -> Architecture:
    """Architecture of a row with its weights in the recorded precision.

    Raises
    ------
    Unpredictable
        If no model file has that name.
    """
    found = model_named(row.get("model", "")).architecture
    entry = next(e for e in sources().weights if fits(e.when, row))
    return replace(found, weight_format=entry.format, unquantised=entry.keep)
