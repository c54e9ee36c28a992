"""What the software between model and machine costs: host time, exposed communication, memory of its own.

These numbers are fits to published measurements of one software generation: no physics, each with its spread.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import model_validator

from perfmodel.specs.facts import Capacity, Count, Duration, Number, Ratio, Share, Spec, fact
from perfmodel.specs.hardware import check_sources
from perfmodel.specs.load import parse_kind
from perfmodel.specs.locate import find_framework
from perfmodel.specs.yamlfile import read

__all__ = [
    "Framework",
    "ServingConstants",
    "ServingFramework",
    "TrainingConstants",
    "TrainingFramework",
    "load_framework",
]


class TrainingConstants(Spec):
    """Constants of a training framework."""

    launch_per_layer: Duration
    """Host time to launch one layer's forward pass; backward and recomputation cost as much each [s]."""
    elementwise_scale: Number
    """Memory traffic of norms, activations and residuals over that of fused kernels [1]."""
    tensor_exposed: Number
    """Share of tensor-parallel communication that computation does not hide [1]."""
    gradient_exposed: Number
    """Share of gradient communication that the backward pass does not hide [1]."""
    overlap_interference: Share
    """Share of hidden communication that still costs computing time: it takes compute units and bandwidth [1]."""
    pipeline_exposed: Number
    """Share of the transfers between pipeline stages that computation does not hide [1]."""
    step_overhead: Duration
    """Time per optimizer step for data loading, logging and synchronisation [s]."""
    runtime_memory: Capacity
    """Device memory for context, communication buffers and library workspaces [B]."""
    logit_bytes: Capacity
    """Memory and traffic of the loss per logit, all copies together [B]."""
    fragmentation: Share
    """Share of the device memory that the allocator cannot use [1]."""
    gather_exposed: Share = fact(0.0, "0")
    """Share of gathering weights and scattering gradients that waits for no computation beside it: 1 where it is never
    hidden [1]."""
    gathers_per_layer: Count = fact(1.0, "1")
    """Collectives in which the weights of one layer are gathered: 1, or one per matrix [1]."""
    collective_share: Ratio = fact(1.0, "1")
    """Share of the bandwidth of collectives run alone that they reach inside a training job [1]."""
    ring_only: Share = fact(0.0, "0")
    """1 where the communication library gathers and scatters along rings only [1]."""


class ServingConstants(Spec):
    """Constants of a serving framework."""

    host_per_iteration: Duration
    """Host time per pass that the device waits for [s]."""
    host_per_sequence: Duration
    """Host time per sequence and pass: sampling, block tables, detokenising [s]."""
    launch_per_operation: Duration
    """Least time of one logical operation of a layer, replayed from a graph [s]."""
    request_overhead: Duration
    """Host time per request: tokenising, admission, first launch [s]."""
    runtime_memory: Capacity
    """Device memory for context, communication buffers, graphs and activations of a pass [B]."""
    memory_utilisation: Ratio
    """Share of the device memory that the engine may use [1]."""


class _Described(Spec):
    """What both kinds of framework say about themselves."""

    name: str
    aliases: tuple[str, ...] = ()
    version: str
    kernels: str = ""
    """Name under which its kernels were measured; without one, plans use what the frameworks of a device share."""
    sources: dict[str, str]
    notes: str = ""

    @model_validator(mode="after")
    def _sources_exist(self) -> _Described:
        check_sources(self, self.sources)
        return self


class TrainingFramework(_Described):
    """A training framework."""

    kind: Literal["training"]
    facts: TrainingConstants


class ServingFramework(_Described):
    """A serving framework."""

    kind: Literal["serving"]
    facts: ServingConstants


Framework = TrainingFramework | ServingFramework
KINDS: dict[str, type[TrainingFramework] | type[ServingFramework]] = {
    "training": TrainingFramework,
    "serving": ServingFramework,
}


def load_framework(name: str | Path) -> Framework:
    """Return the framework of that name or path."""
    return parse_kind(KINDS, read(find_framework(name)))
