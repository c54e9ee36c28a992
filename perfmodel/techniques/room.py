"""Whether a model has room on the devices of a machine: what decides if techniques propose memory beyond them."""

from __future__ import annotations

from perfmodel.operators.formats import storage
from perfmodel.operators.state import cache_bytes
from perfmodel.techniques.base import Situation

__all__ = ["lacks_room"]


def lacks_room(situation: Situation) -> bool:
    """Whether the weights as stored, with the cache of one sequence, exceed the memory of all devices considered."""
    architecture, workload, main = situation.architecture, situation.workload, situation.machine.main
    weights = architecture.parameters * storage(architecture.weight_format).bytes
    context = 1.0 * (workload.prompt + workload.output)
    cache = architecture.layers * cache_bytes(
        architecture, context, kv_split=1.0, kv_bytes=storage(workload.kv_format).bytes
    )
    return bool(weights + cache > main.capacity * situation.devices)
