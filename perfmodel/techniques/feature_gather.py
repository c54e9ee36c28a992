"""Rows of a table in host memory that a step needs: gathered by the processor, or read by the devices themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perfmodel.elementwise import Scalar, maximum
from perfmodel.errors import SpecError
from perfmodel.machine.build import Machine
from perfmodel.machine.kernels import kernel_time
from perfmodel.network.topology import Network
from perfmodel.operators import streaming
from perfmodel.operators.gather import copied_bytes, host_accesses, row_unit, rows_read
from perfmodel.techniques.base import Axis, Line, Situation, Technique, Term
from perfmodel.techniques.settled import Plan, Settled
from perfmodel.units import Bytes, Seconds

__all__ = ["TECHNIQUE", "gathered_by_device", "gathered_by_host"]

HOST, SHIFTED, PLAIN = "host", "zero-copy", "zero-copy-unaligned"


def _streamed(machine: Machine, moved: Bytes) -> Seconds:
    """Time of the host's memory for a device's share of the traffic [s]."""
    work = streaming.elementwise(moved / 4.0, reads=1.0, writes=0.0, flops_per_element=0.0, element_bytes=4.0)
    return kernel_time(work, machine.engine("host")).seconds


def gathered_by_host(machine: Machine, rows: Scalar, row_bytes: Scalar) -> Seconds:
    """The processor packs rows, the copy engine fetches them; for every device of the node at once [s]."""
    packed, fetched = host_accesses(rows * row_bytes)
    copy = copied_bytes(rows * row_bytes) / _link(machine)
    return _streamed(machine, packed) + maximum(copy, _streamed(machine, fetched))


def gathered_by_device(machine: Machine, rows: Scalar, row_bytes: float, *, aligned: bool) -> Seconds:
    """Threads of the device read the rows where they lie [s]."""
    wire = rows_read(rows, row_bytes, row_unit(int(row_bytes)), aligned=aligned)
    return maximum(wire / _link(machine), _streamed(machine, rows * row_bytes))


def _link(machine: Machine) -> float:
    return float(machine.host_link or float("inf"))


def axes(situation: Situation) -> tuple[Axis, ...]:
    """By the host, by the device with and without shifted threads; in front of a step, or beside the one before."""
    wanted = situation.workload.features is not None
    if wanted and ("host" not in situation.machine.engines or situation.machine.host_link is None):
        raise SpecError(f"{situation.machine.name} states no host with a link", field="workload.features")
    return (
        Axis.of("feature_path", [HOST, SHIFTED, PLAIN] if wanted else [HOST], structural=True),
        Axis.of("features_ahead", [0.0, 1.0] if wanted else [0.0], structural=True),
    )


def undominated(values: tuple[tuple[Any, ...], ...], situation: Situation) -> tuple[tuple[Any, ...], ...]:
    """Shifted threads never read more; nothing else differs."""
    del situation
    return tuple(v for v in values if v != (PLAIN,)) if (SHIFTED,) in values else values


def _rows(s: Settled) -> Scalar:
    """Rows that a micro-batch of a device needs."""
    features = s.situation.workload.features
    return s.sizes.tokens * (features.rows_per_token if features is not None else 0.0)


def terms(x: Plan, s: Settled, machine: Machine, net: Network) -> Sequence[Term]:
    """Gathering what the micro-batches of a step need."""
    del net
    features = s.situation.workload.features
    if features is None:
        return []
    rows, width = _rows(s) * s.micro_batches, features.row_bytes
    if x.feature_path == HOST:
        seconds, resource = gathered_by_host(machine, rows, width), "host"
    else:
        seconds = gathered_by_device(machine, rows, width, aligned=x.feature_path == SHIFTED)
        resource = "host link down"
    if x.features_ahead:
        return [Term("feature gather", "outer", resource, seconds, "features", every=1.0, window=1.0)]
    return [Term("feature gather", "tail", resource, seconds)]


def memory(x: Plan, s: Settled, machine: Machine) -> Sequence[Line]:
    """Rows of a micro-batch on the device, of two where the next are fetched beside it; the table in host memory."""
    features = s.situation.workload.features
    if features is None:
        return []
    buffers = 1.0 + x.features_ahead
    table = features.table_rows * features.row_bytes / machine.per_node
    return [
        Line("features", machine.main.tier, buffers * _rows(s) * features.row_bytes),
        Line("feature table", "host", 1.0 * table),
    ]


def layout(x: Plan, situation: Situation) -> Mapping[str, Any]:
    """Nothing of the model's own states changes."""
    del x, situation
    return {}


def describe(x: Plan) -> str:
    """Who gathers."""
    words = {SHIFTED: "features read by the device", PLAIN: "features read by the device, unaligned"}
    ahead = ["ahead"] if x.features_ahead else []
    return ", ".join([*([words[x.feature_path]] if x.feature_path in words else []), *ahead])


TECHNIQUE = Technique(
    name="feature_gather",
    summary="rows of a table in host memory are read by the devices instead of gathered by the host",
    source="S. W. Min et al., arXiv:2103.03330",
    phases=frozenset({"training"}),
    neutral={"feature_path": HOST, "features_ahead": 0.0},
    axes=axes,
    layout=layout,
    terms=terms,
    memory=memory,
    describe=describe,
    undominated=undominated,
    always_on=True,
)
