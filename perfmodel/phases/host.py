"""Host time of a pass: what no device work hides, and what a process of its own spends beside the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perfmodel.elementwise import where
from perfmodel.operators.layers import layer_calls
from perfmodel.operators.sums import sums_per_layer
from perfmodel.techniques.base import Term
from perfmodel.techniques.settled import Settled
from perfmodel.units import Seconds

__all__ = ["decoding_only", "host_of", "launches", "sending_of"]


def decoding_only(framework: Mapping[str, Any]) -> dict[str, Any]:
    """Constants of a worker to which finished prompts are handed: it prepares a pass beside the one before.

    What an iteration waits for elsewhere is the look at new prompts; published decode workers show none of it.
    """
    return {**framework, "host_per_iteration": 0.0}


def host_of(framework: Mapping[str, float], s: Settled) -> Seconds:
    """Host time of a decode pass: every micro-batch that fills a pipeline stage is scheduled by itself [s].

    Parameters
    ----------
    framework : constants: ``host_per_iteration``, ``host_per_sequence``, and ``host_per_check`` of every sequence whose
        drafts are checked [s].
    s : the settled pass.
    """
    checked = where(s.layout.verify_tokens > 1.0, framework.get("host_per_check", 0.0), 0.0)
    each = framework.get("host_per_sequence", 0.0) + checked
    return framework.get("host_per_iteration", 0.0) * s.stages + each * s.batch


def sending_of(framework: Mapping[str, float], s: Settled) -> Seconds:
    """Time in which the process that answers clients sends one token of every sequence, beside the device [s].

    Parameters
    ----------
    framework : constants: ``host_per_piece`` [s], and ``piece_tokens`` that it sends together.
    s : the settled decode pass; the process answers for all ranks that share the batch.
    """
    sequences = s.batch * s.split("batch")
    return framework.get("host_per_piece", 0.0) * sequences / framework.get("piece_tokens", 1.0)


def launches(s: Settled, framework: Mapping[str, float]) -> Term:
    """Least time of the logical operations of a layer, sums among tensor ranks included, beside what they launch."""
    calls = layer_calls(s.architecture, s.sizes)
    operations = sum(c.share for c in calls if c.component != "elementwise") + 2.0
    operations = operations + where(
        s.sizes.weight_split > 1.0, sums_per_layer(s.architecture, framework.get("sums_apart", 0.0)), 0.0
    )
    repeated = 1.0 if s.sizes.decode else framework.get("prompt_launches", 1.0)
    launch = framework.get("launch_per_operation", 0.0) * operations * repeated
    return Term("host launch", "layer", "host cpu", launch, "launch", prefetch=True)
