"""Every technique, one file each; the solver, the command line, reports and documents learn of them from this tuple."""

from __future__ import annotations

from perfmodel.errors import UnknownName
from perfmodel.techniques import (
    batching,
    compressed_collectives,
    context_parallel,
    data_parallel,
    decode_engine,
    expert_parallel,
    head_exchange,
    local_steps,
    optimizer_offload,
    pipeline_parallel,
    recompute,
    sharding,
    state_exchange,
    tensor_parallel,
    weights_int4,
)
from perfmodel.techniques.base import Technique

__all__ = ["TECHNIQUES", "technique_names", "techniques_for"]

TECHNIQUES: tuple[Technique, ...] = (
    data_parallel.TECHNIQUE,
    batching.TECHNIQUE,
    tensor_parallel.TECHNIQUE,
    context_parallel.TECHNIQUE,
    head_exchange.TECHNIQUE,
    state_exchange.TECHNIQUE,
    expert_parallel.TECHNIQUE,
    pipeline_parallel.TECHNIQUE,
    sharding.TECHNIQUE,
    recompute.TECHNIQUE,
    optimizer_offload.TECHNIQUE,
    compressed_collectives.TECHNIQUE,
    local_steps.TECHNIQUE,
    weights_int4.TECHNIQUE,
    decode_engine.TECHNIQUE,
)


def technique_names() -> tuple[str, ...]:
    """Names of all techniques."""
    return tuple(t.name for t in TECHNIQUES)


def techniques_for(phase: str, *, lossy: bool = False, use: tuple[str, ...] = ()) -> tuple[Technique, ...]:
    """Techniques searched for a phase: those that change no numerics, and the others on request.

    Parameters
    ----------
    phase : ``training`` or ``serving``.
    lossy : a quality budget was given, so techniques with a published cost may spend it.
    use : names asked for explicitly.

    Raises
    ------
    UnknownName
        If a name in ``use`` is not a technique.
    """
    for name in use:
        if name not in technique_names():
            raise UnknownName("technique", name, technique_names())
    return tuple(t for t in TECHNIQUES if phase in t.phases and (not t.opt_in or lossy or t.name in use))
