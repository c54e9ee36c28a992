"""What is known about the sources of training tables: ``training_sources.yaml``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import Field

from perfmodel.calibration.subjects import Unpredictable
from perfmodel.specs.facts import Spec
from perfmodel.specs.load import parse
from perfmodel.specs.yamlfile import read

__all__ = ["Entry", "FitEntry", "entry_of", "sources"]


class Entry(Spec):
    """Software and machine of a source, and what it leaves unsaid."""

    when: dict[str, str]
    framework: str
    release: str | None = None
    """Release of the software, `YY.MM`, where the source names none that could be read."""
    cluster: str | None = None
    assume: dict[str, str | int | float] = Field(default_factory=dict)
    selective: Literal["core", "operators"] = "core"
    """What the source calls selective recomputation."""
    memory_of: Literal["fullest", "first", "tensors"] = "fullest"
    """What the source prints: memory of the fullest stage, that of rank 0, or states and activations alone."""
    fit: bool = True
    """Whether its rows may calibrate the framework: not where another machine, or another program, stands behind it."""
    why: str = ""


class MachineEntry(Spec):
    """Cluster that a name of a device stands for where the source has no machine of its own."""

    gpu: str
    memory: str = ""
    """Pattern of its stated capacity [GB]."""
    cluster: str


class ModelEntry(Spec):
    """Model that a name in a table means."""

    name: str
    model: str


class FitEntry(Spec):
    """Constants of a framework that its runs can tell."""

    framework: str
    times: tuple[str, ...] = ()
    """Without any, the constants of ``like`` are carried over as they are."""
    memory: tuple[str, ...] = ()
    like: str | None = None
    """Framework whose fitted constants are taken over first."""
    sweep: bool = False
    """The runs are a blind sweep: those whose memory is all but full, or in a mode that no column records, are left out
    of the fit (never of a validation)."""


class Sources(Spec):
    """Contents of ``training_sources.yaml``."""

    entries: tuple[Entry, ...]
    machines: tuple[MachineEntry, ...]
    models: tuple[ModelEntry, ...]
    fits: tuple[FitEntry, ...]


@lru_cache(maxsize=1)
def sources() -> Sources:
    """What is known about the sources of training tables."""
    return parse(Sources, read(Path(__file__).with_name("training_sources.yaml")))


def entry_of(row: Mapping[str, str]) -> Entry:
    """Return the first entry whose patterns the row fits."""
    for entry in sources().entries:
        if all(re.search(p, row.get(c, ""), re.IGNORECASE) for c, p in entry.when.items()):
            return entry
    raise Unpredictable("no software is known for this source")
