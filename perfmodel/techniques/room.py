"""Whether a model has room on the devices of a machine: what decides if techniques propose memory beyond them."""

from __future__ import annotations

from perfmodel.operators.formats import storage
from perfmodel.operators.state import cache_bytes
from perfmodel.techniques.base import Situation

__all__ = ["lacks_room"]

USABLE = 0.9
"""Share of the memory that serving engines give to weights and cache: vLLM's and SGLang's usual setting [1]."""


def lacks_room(situation: Situation) -> bool:
    """Whether weights as stored and the cache of one sequence exceed what all devices considered have for them."""
    architecture, workload, main = situation.architecture, situation.workload, situation.machine.main
    weights = architecture.parameters * storage(architecture.weight_format).bytes
    context = 1.0 * (workload.prompt + workload.output)
    cache = architecture.layers * cache_bytes(
        architecture, context, kv_split=1.0, kv_bytes=storage(workload.kv_format).bytes
    )
    return bool(weights + cache > USABLE * main.capacity * situation.devices)
