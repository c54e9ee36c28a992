"""Host time of a pass that no device work hides."""

from __future__ import annotations

from collections.abc import Mapping

from perfmodel.elementwise import Scalar
from perfmodel.units import Seconds

__all__ = ["host_of"]


def host_of(framework: Mapping[str, float], stages: Scalar, sequences: Scalar) -> Seconds:
    """Host time of a decode pass: every micro-batch that fills a pipeline stage is scheduled by itself [s].

    Parameters
    ----------
    framework : constants: ``host_per_iteration`` and ``host_per_sequence`` [s].
    stages : micro-batches of the pass.
    sequences : in all of them.
    """
    return framework.get("host_per_iteration", 0.0) * stages + framework.get("host_per_sequence", 0.0) * sequences
