"""Rows of a table in host memory, gathered by the processor and read by the devices."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run
from perfmodel.machine.build import Machine, build_machine
from perfmodel.operators.gather import host_accesses, row_unit, rows_read
from perfmodel.specs.overrides import override
from perfmodel.specs.system import load_system
from perfmodel.techniques.feature_gather import gathered_by_device, gathered_by_host

__all__ = ["gain", "host_traffic", "misaligned"]

ROWS = 1e6


def _machine(run: Run, bandwidth: float) -> Machine:
    return build_machine(override(load_system(str(run.asked().hw)), {"node.host.bandwidth": f"x{bandwidth:g}"}))


def gain(run: Run, row_bytes: int, bandwidth: float = 1.0) -> float:
    """Time by the host over time by the device, with ``bandwidth`` times that of the host memory."""
    machine = _machine(run, bandwidth)
    device = gathered_by_device(machine, ROWS, float(row_bytes), aligned=True)
    return float(gathered_by_host(machine, ROWS, float(row_bytes)) / device)


def misaligned(run: Run, row_bytes: int) -> float:
    """Bytes on the link where threads read from the start of a row over those where they are shifted."""
    del run
    unit = row_unit(row_bytes)
    apart = rows_read(ROWS, float(row_bytes), unit, aligned=False)
    return float(apart / rows_read(ROWS, float(row_bytes), unit, aligned=True))


def host_traffic(run: Run) -> float:
    """Accesses of the host's memory over the bytes that are needed."""
    del run
    return float(sum(host_accesses(1.0)))
