"""Host time of a pass: what no device work hides, and what a process of its own spends beside the device."""

from __future__ import annotations

from collections.abc import Mapping

from perfmodel.elementwise import Scalar
from perfmodel.techniques.settled import Settled
from perfmodel.units import Seconds

__all__ = ["host_of", "sending_of"]


def host_of(framework: Mapping[str, float], stages: Scalar, sequences: Scalar) -> Seconds:
    """Host time of a decode pass: every micro-batch that fills a pipeline stage is scheduled by itself [s].

    Parameters
    ----------
    framework : constants: ``host_per_iteration`` and ``host_per_sequence`` [s].
    stages : micro-batches of the pass.
    sequences : in all of them.
    """
    return framework.get("host_per_iteration", 0.0) * stages + framework.get("host_per_sequence", 0.0) * sequences


def sending_of(framework: Mapping[str, float], s: Settled) -> Seconds:
    """Time in which the process that answers clients sends the tokens of a decode pass, beside the device [s].

    Parameters
    ----------
    framework : constants: ``host_per_piece`` [s], and ``piece_tokens`` that it sends together.
    s : the settled pass.
    """
    tokens = s.batch * s.layout.tokens_per_pass
    return framework.get("host_per_piece", 0.0) * tokens / framework.get("piece_tokens", 1.0)
