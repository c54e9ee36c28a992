"""What an operator class tells calibration: which rows it reads, how it predicts them, which constants it has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perfmodel.calibration.subjects import DEVICES, Subject, Unpredictable
from perfmodel.specs.system import load_device
from perfmodel.units import Seconds

__all__ = [
    "Array",
    "Columns",
    "Group",
    "Identity",
    "Key",
    "OperatorModel",
    "Parameter",
    "Unpredictable",
    "on_processor",
    "positive_sizes",
]

Array = NDArray[np.float64]
Columns = Mapping[str, Array]
"""Sizes of the rows of a group, one float64 array per name."""


def positive_sizes(row: Mapping[str, str], names: Iterable[str]) -> dict[str, float]:
    """Sizes of a row by name.

    Raises
    ------
    Unpredictable
        If one is below 1.
    ValueError, KeyError
        If one is no number, or missing.
    """
    sizes = {name: float(row[name]) for name in names}
    if not all(size >= 1.0 for size in sizes.values()):
        raise Unpredictable("a size is below 1")
    return sizes


class Identity(NamedTuple):
    """What tells the rows of a file apart beside device, origin and sizes.

    Parameters
    ----------
    format : number format as measured; constants are kept by it.
    framework : who called the kernel.
    kernel : kernel or timing method where a framework has several, else empty.
    dtype : number format to report where constants do not depend on it, else empty.
    """

    format: str
    framework: str
    kernel: str = ""
    dtype: str = ""


class Key(NamedTuple):
    """Whose constants: ``variant`` is the framework and, where it has several, the kernel."""

    operator: str
    device: str
    format: str
    variant: str
    origin: str


def on_processor(key: Key) -> bool:
    """Whether the device is a processor, whose libraries of matrix products differ from those of accelerators."""
    return _class_of(key.device) == "cpu"


@lru_cache(maxsize=256)
def _class_of(device: str) -> str:
    return load_device(device).device_class


class Parameter(NamedTuple):
    """One constant a fit may move.

    Parameters
    ----------
    name : field of :class:`perfmodel.machine.engine.Constants`, or path to a fact of a communication library.
    default : centre of the first prior; where nothing was measured this value is used.
    low, high : physical bounds.
    sigma : standard deviation of the prior in ln; how much devices and frameworks may differ.
    unit : unit of the value.
    artefact : describes the benchmark rather than the machine: never used for another benchmark.
    """

    name: str
    default: float
    low: float
    high: float
    sigma: float
    unit: str = "1"
    artefact: bool = False


@dataclass(frozen=True)
class Group:
    """Rows of one file, device, format, framework and kernel.

    Parameters
    ----------
    key : whose constants predict them.
    file, source, framework, label, dtype : as the file says; ``label`` is its name of the device.
    columns : sizes, one array per name.
    seconds : measured times.
    lines : line of every row in the file.
    """

    key: Key
    file: str
    source: str
    framework: str
    label: str
    dtype: str
    columns: Columns
    seconds: Array
    lines: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.seconds)

    def take(self, chosen: NDArray[np.bool_]) -> Group:
        """Return the group with the chosen rows only."""
        columns = {name: values[chosen] for name, values in self.columns.items()}
        lines = tuple(line for line, wanted in zip(self.lines, chosen, strict=True) if wanted)
        return Group(
            self.key,
            self.file,
            self.source,
            self.framework,
            self.label,
            self.dtype,
            columns,
            self.seconds[chosen],
            lines,
        )


@dataclass(frozen=True)
class OperatorModel:
    """One operator class in calibration.

    Parameters
    ----------
    name : operator class of the constants.
    header : columns by which its files are recognised.
    read : identity and sizes of one row; raises :class:`Unpredictable` with the reason if there is no prediction.
    predict : seconds of all rows on what ``subject`` builds; constants may be arrays with leading axes.
    parameters : what a fit of a group may move.
    subsets : named parts of the rows that are reported on their own.
    pooled_over : devices that share a first fit: those of one ``family``, or ``all`` where kernels differ little.
    one_library : formats whose kernels differ neither by name nor by width: a device of another family takes the middle
        of what the families agree on.
    stand_ins : formats whose constants may stand in for a format that was not measured, best first.
    subject : what constants belong to: a device or a machine.
    label : column that names it.
    check : raises :class:`Unpredictable` where what it belongs to cannot have such sizes.
    """

    name: str
    header: frozenset[str]
    read: Callable[[Mapping[str, str]], tuple[Identity, Mapping[str, float]]]
    predict: Callable[[Columns, Any, Any, str], Seconds]
    parameters: Callable[[Key], tuple[Parameter, ...]]
    subsets: Mapping[str, Callable[[Columns], NDArray[np.bool_]]]
    pooled_over: str = "family"
    one_library: frozenset[str] = frozenset()
    stand_ins: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    subject: Subject = DEVICES
    label: str = "device"
    check: Callable[[str, Mapping[str, float]], None] = lambda name, sizes: None

    def alike(self, device: str, other: str) -> bool:
        """Whether the other device runs the same programs; one library has some for all, streaming is the same."""
        return (
            bool(self.one_library) or self.pooled_over == "all" or self.subject.feed(device) == self.subject.feed(other)
        )

    def matches(self, header: frozenset[str]) -> bool:
        """Whether a file with these columns holds measurements of this class."""
        return self.header <= header
