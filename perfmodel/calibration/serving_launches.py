"""How servers of published runs were launched: ``serving_launches.yaml``, by the public scripts of the benchmarks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field, model_validator

from perfmodel.specs.facts import Spec
from perfmodel.specs.framework import ServingConstants
from perfmodel.specs.load import parse
from perfmodel.specs.sources import check_sources
from perfmodel.specs.yamlfile import read

__all__ = ["Drafting", "Launch", "drafting_of", "fits", "launch_of", "ranks_of", "unlike_of"]

Drafting = Literal["", "no", "yes", "quicker"]
Ranks = Literal["", "expert ranks", "data ranks"]


class _Entry(Spec):
    """What is known of the launch of some runs."""

    when: dict[str, str]
    """Regular expressions on columns of the row."""
    source: str
    note: str = ""


class _LaunchEntry(_Entry):
    settings: dict[str, float] = Field(default_factory=dict)
    """Constants of the framework that the launch chooses, in base units."""
    kernels: dict[str, str] = Field(default_factory=dict)
    """Framework whose measured kernels run, by operator class and format."""

    @model_validator(mode="after")
    def _known(self) -> _LaunchEntry:
        unknown = set(self.settings) - set(ServingConstants.model_fields)
        if unknown:
            raise ValueError(f"no serving framework has the constant {sorted(unknown)[0]}")
        return self


class _DraftingEntry(_Entry):
    drafts: Drafting = "yes"
    """Where both kinds were run, the ``quicker`` of two runs of the same shape drafts."""


class _UnlikeEntry(_Entry):
    why: str
    """Physical reason for which the run tells nothing of the engine."""


class _RanksEntry(_Entry):
    ranks: Ranks
    """What tensor ranks are besides: ``expert ranks``, to which whole experts are dealt, or ``data ranks``, too, each
    with the attention of its own requests."""


class _Launches(Spec):
    """Contents of ``serving_launches.yaml``."""

    sources: dict[str, str]
    launches: tuple[_LaunchEntry, ...]
    drafting: tuple[_DraftingEntry, ...]
    unlike: tuple[_UnlikeEntry, ...]
    ranks: tuple[_RanksEntry, ...] = ()

    @model_validator(mode="after")
    def _sources_exist(self) -> _Launches:
        check_sources(self, self.sources)
        return self


class Launch(NamedTuple):
    """What the launch of a run chose.

    Parameters
    ----------
    settings : constants of the framework, in base units.
    kernels : framework whose measured kernels run, by (operator class, format).
    """

    settings: tuple[tuple[str, float], ...] = ()
    kernels: tuple[tuple[tuple[str, str], str], ...] = ()


@lru_cache(maxsize=1)
def _launches() -> _Launches:
    return parse(_Launches, read(Path(__file__).with_name("serving_launches.yaml")))


def fits(when: Mapping[str, str], row: Mapping[str, str]) -> bool:
    """Whether every pattern is found in its column."""
    return all(re.search(p, row.get(c, ""), re.IGNORECASE) for c, p in when.items())


def launch_of(row: Mapping[str, str]) -> Launch:
    """What the public scripts say of the launch of a row; for every setting the first entry decides."""
    settings: dict[str, float] = {}
    kernels: dict[tuple[str, str], str] = {}
    for entry in _launches().launches:
        if fits(entry.when, row):
            settings = {**entry.settings, **settings}
            named = {(k.partition(" ")[0], k.partition(" ")[2]): v for k, v in entry.kernels.items()}
            kernels = {**named, **kernels}
    return Launch(tuple(sorted(settings.items())), tuple(sorted(kernels.items())))


def drafting_of(row: Mapping[str, str]) -> Drafting:
    """Whether a row drafts tokens, as its configuration says, or does so if a slower run of its shape is there."""
    return next((entry.drafts for entry in _launches().drafting if fits(entry.when, row)), "")


def unlike_of(row: Mapping[str, str]) -> str:
    """Why the kernels of a run are known not to be the usual ones; empty where nothing is known."""
    return next((entry.why for entry in _launches().unlike if fits(entry.when, row)), "")


def ranks_of(row: Mapping[str, str]) -> Ranks:
    """What the tensor ranks of a row are besides, where its table records tensor ranks alone."""
    return next((entry.ranks for entry in _launches().ranks if fits(entry.when, row)), "")
