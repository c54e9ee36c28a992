"""Loading of data: what storage and host cores take to bring the tokens of one step to the devices."""

from __future__ import annotations

from perfmodel.elementwise import Scalar, maximum, minimum
from perfmodel.errors import SpecError
from perfmodel.machine.build import Machine
from perfmodel.specs.workload import TrainingWorkload
from perfmodel.techniques.base import Term

__all__ = ["loading_terms"]


def loading_terms(workload: TrainingWorkload, machine: Machine, devices: Scalar) -> list[Term]:
    """Reading and preparing one step's tokens, pipelined: the slower of both; hidden behind a step where it is ahead.

    Every token is read and prepared once, whoever shares it; all storage and all workers of the job take part.

    Raises
    ------
    SpecError
        If tokens are to come from node storage that the machine does not have.
    """
    asked = workload.data
    if asked is None:
        return []
    tokens = float(workload.global_batch)
    if asked.local and machine.storage_read is None:
        raise SpecError(f"{machine.name} states no storage in its nodes", field="workload.data.local", found="true")
    own = machine.storage_read * devices if asked.local and machine.storage_read else 0.0
    shared = minimum(machine.file_read[0], machine.file_read[1] * devices)
    read = tokens * asked.token_bytes / (own if asked.local else shared)
    cores = machine.engines["host"].units if "host" in machine.engines else float(asked.workers)
    prepared = tokens * asked.token_seconds / (minimum(float(asked.workers), cores) * devices)
    seconds = maximum(read, prepared)
    if asked.ahead:
        return [Term("data loading", "outer", "storage", seconds, "data", every=1.0, window=1.0)]
    return [Term("data loading", "tail", "storage", seconds)]
