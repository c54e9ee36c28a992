"""Kernels that exchange tokens with their experts, as measured on a machine or on others of its family."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from perfmodel.network.exchange import ExchangeConstants
from perfmodel.specs.calibration import POOLED, CalibrationFile, CalibrationGroup
from perfmodel.specs.load import parse
from perfmodel.specs.locate import calibration_files
from perfmodel.specs.yamlfile import read

__all__ = ["ExchangeKernel", "measured_exchanges"]

_OPERATOR = "expert_exchange"
_COPIES = "low_latency"
"""Kernel that sends a vector per expert, not per rank."""


class ExchangeKernel(NamedTuple):
    """One kernel: constants of both directions, and of what comes before them.

    Parameters
    ----------
    dispatch, combine : to the experts, and back.
    prepare : counts that travel first, where the kernel needs a call of its own for them.
    copies : 1 if a token becomes a vector per expert, 0 if one per rank that holds any of its experts.
    """

    dispatch: ExchangeConstants
    combine: ExchangeConstants
    prepare: ExchangeConstants | None = None
    copies: float = 0.0


def measured_exchanges(machine: str, family: str) -> Mapping[str, ExchangeKernel]:
    """Kernels by name: those measured on the machine, else the geometric means of those of its family.

    Parameters
    ----------
    machine : name of the cluster.
    family : of its devices; empty for none.
    """
    files = {path.stem: (path, path.stat().st_mtime_ns) for path in calibration_files()}
    own = _kernels_of(files[machine]) if machine in files else {}
    if own or not family:
        return own
    kin = [
        found for file in files.values() if _family(file) == f"{family}, device links" and (found := _kernels_of(file))
    ]
    return {name: _mean([k[name] for k in kin if name in k]) for name in sorted({n for k in kin for n in k})}


@lru_cache(maxsize=64)
def _family(file: tuple[Path, int]) -> str:
    """Family that the head of a calibration names."""
    with file[0].open(encoding="utf-8") as lines:
        head = [next(lines, "") for _ in range(2)]
    return next((line.partition(":")[2].strip() for line in head if line.startswith("family:")), "")


@lru_cache(maxsize=16)
def _kernels_of(file: tuple[Path, int]) -> Mapping[str, ExchangeKernel]:
    """Kernels of one calibration that were timed in both directions."""
    steps: dict[str, dict[str, CalibrationGroup]] = {}
    for group in parse(CalibrationFile, read(file[0])).groups:
        if group.operator == _OPERATOR and group.variant == POOLED:
            step, _, name = group.format.partition(" ")
            steps.setdefault(name, {})[step] = group
    return {
        _named(name): _kernel(name, found) for name, found in steps.items() if {"dispatch", "combine"} <= set(found)
    }


def _named(mode: str) -> str:
    """Name of a kernel in plans: ``deepep-normal``, ``deepep-low-latency``, ``trtllm-two-sided``."""
    words = {"trtllm_NVLinkOneSided": "trtllm-one-sided", "trtllm_NVLinkTwoSided": "trtllm-two-sided"}
    return words.get(mode, f"deepep-{mode}".replace("_", "-"))


def _kernel(name: str, steps: Mapping[str, CalibrationGroup]) -> ExchangeKernel:
    constants = {step: _constants(group) for step, group in steps.items()}
    return ExchangeKernel(
        constants["dispatch"], constants["combine"], constants.get("prepare"), 1.0 if name == _COPIES else 0.0
    )


def _constants(group: CalibrationGroup) -> ExchangeConstants:
    return ExchangeConstants(**{n: v for n, v in group.constants.items() if n in ExchangeConstants._fields})


def _mean(kernels: Iterable[ExchangeKernel]) -> ExchangeKernel:
    """Geometric means of the constants of the same kernel on several machines."""
    found = list(kernels)

    def middle(sets: list[ExchangeConstants]) -> ExchangeConstants:
        return ExchangeConstants(
            *(math.exp(math.fsum(map(math.log, values)) / len(values)) if min(values) > 0.0 else 0.0
              for values in zip(*sets, strict=True))
        )  # fmt: skip

    prepared = [k.prepare for k in found if k.prepare is not None]
    return ExchangeKernel(
        middle([k.dispatch for k in found]),
        middle([k.combine for k in found]),
        middle(prepared) if len(prepared) == len(found) else None,
        found[0].copies,
    )
