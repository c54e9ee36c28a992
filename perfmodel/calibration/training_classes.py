"""Classes of training runs that are judged together: rows of any table, pooled by who ran what on which machine."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from perfmodel.calibration.reports import GroupReport, errors_of
from perfmodel.calibration.training_rows import TrainingRow
from perfmodel.specs.architecture import Moe

__all__ = ["CLASSES", "POOLED", "TrainingClass", "class_reports"]

Array = NDArray[np.float64]
POOLED = "training class"
"""Operator under which pooled rows are reported."""


class TrainingClass(NamedTuple):
    """Rows that are pooled; patterns are regular expressions, case ignored.

    Parameters
    ----------
    title : name in tables.
    file : of the file's name.
    framework, gpu, precision : of the row.
    experts : with routed experts, without, or either.
    metric : ``step_time`` or ``memory``.
    """

    title: str
    file: str = ""
    framework: str = ""
    gpu: str = ""
    precision: str = ""
    experts: bool | None = None
    metric: str = "step_time"

    def holds(self, file: str, row: TrainingRow) -> bool:
        """Whether a row of that file belongs to it."""
        told = ((self.file, file), (self.framework, row.setup.framework), (self.gpu, row.gpu))
        if not all(re.search(p, text, re.IGNORECASE) for p, text in (*told, (self.precision, row.precision))):
            return False
        routed = any(isinstance(run.layer.ffn, Moe) for run in row.setup.architecture.runs)
        return self.experts is None or self.experts == routed


_BRIDGE, _NARROW = "megatron-bridge", "fp8|fp4"
CLASSES: tuple[TrainingClass, ...] = (
    TrainingClass("Megatron-LM, Korthikanti", "korthikanti.*times"),
    TrainingClass("Megatron-LM, Narayanan", "narayanan", "megatron-lm"),
    TrainingClass("llm-foundry, A100", "mpt", "llm-foundry", "A100"),
    TrainingClass("llm-foundry, H100 bf16", "mpt", "llm-foundry", "H100", "bf16"),
    TrainingClass("llm-foundry, H100 fp8", "mpt", "llm-foundry", "H100", "fp8"),
    TrainingClass("MI250X: Megatron-DeepSpeed on ROCm 5", "", "megatron-deepspeed-rocm"),
    TrainingClass("MI250X: GPT-NeoX (FORGE)", "", "gpt-neox-rocm"),
    TrainingClass("MI250X: torchtitan", "", "torchtitan-rocm"),
    TrainingClass("MI250X: Accelerate", "", "accelerate-rocm"),
    TrainingClass("MI250X: Megatron on ROCm 6", "", "megatron-rocm", "MI250"),
    TrainingClass("MI325X and MI355X: Primus", "", "megatron-rocm", "MI3"),
    TrainingClass("DGX Cloud, H100 bf16", "", "nemo-25.04", "H100", "bf16"),
    TrainingClass("DGX Cloud, H100 fp8", "", "nemo-25.04", "H100", "fp8"),
    TrainingClass("DGX Cloud, GB200", "", "nemo-25.04", "GB200"),
    TrainingClass("never fitted: fms-fsdp", "", "fms-fsdp"),
    TrainingClass("never fitted: NeMo 24.07", "", "nemo-24.07"),
    TrainingClass("Megatron-Bridge, dense on H100", "", _BRIDGE, "^H100", experts=False),
    TrainingClass("Megatron-Bridge, dense on Blackwell, fp8 and fp4", "", _BRIDGE, "B[23]00", _NARROW, experts=False),
    TrainingClass("Megatron-Bridge, experts", "", _BRIDGE, experts=True),
    TrainingClass("NeMo AutoModel", "", "nemo-automodel"),
    TrainingClass("torchtitan", "", "torchtitan(-eager|-async)?$"),
    TrainingClass("vTrain, several nodes", "vtrain", "megatron-deepspeed-2022"),
    TrainingClass("vTrain, one node", "vtrain", "megatron-deepspeed$"),
    TrainingClass("BLOOM, A100", "", "megatron-deepspeed-zero", "A100"),
    TrainingClass("memory: playbook", "", "nanotron", metric="memory"),
    TrainingClass("memory: BLOOM, A100", "", "megatron-deepspeed-zero", "A100", metric="memory"),
    TrainingClass("memory: Korthikanti", "korthikanti.*memory", metric="memory"),
)


def class_reports(
    rows: Sequence[tuple[str, TrainingRow]], seconds: Array, memory: Array, classes: Sequence[TrainingClass] = CLASSES
) -> list[GroupReport]:
    """Errors of every class that has rows with a measurement.

    Parameters
    ----------
    rows : (file, row) of all tables.
    seconds, memory : predicted, one entry per row.
    """
    found = []
    for one in classes:
        own = np.array([i for i, (file, row) in enumerate(rows) if one.holds(file, row)], dtype=int)
        what, predicted = ("memory", memory) if one.metric == "memory" else ("step_time", seconds)
        measured = np.array([getattr(rows[i][1], what) or np.nan for i in own])
        known = np.isfinite(measured)
        if not known.any():
            continue
        error = predicted[own][known] / measured[known] - 1.0
        errors = errors_of(error)
        files = " + ".join(dict.fromkeys(rows[i][0] for i in own[known]))
        found.append(
            GroupReport(
                files, POOLED, one.title, "", "", "", one.metric, len(own), int(known.sum()), {},
                errors["median_abs_error"], errors["p90_abs_error"], errors["mean_error"],
                scores={"mean_abs_error": float(np.abs(error).mean()), "largest_error": float(np.abs(error).max())},
            )
        )  # fmt: skip
    return found
