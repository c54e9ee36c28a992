"""All requests queued at the start: how many an engine decodes together."""

from __future__ import annotations

from collections.abc import Mapping

from perfmodel.elementwise import Scalar, floor, maximum, minimum, where
from perfmodel.machine.build import Machine
from perfmodel.phases.compose import add_up
from perfmodel.serving.steady import Replica

__all__ = ["MEAN_FILL", "most_batch", "waves_of"]

MEAN_FILL = 0.55
"""Share of the output that requests of a full engine hold in the cache on average, those just admitted included [1]."""


def most_batch(replica: Replica, machine: Machine, constants: Mapping[str, Scalar]) -> Scalar:
    """Requests that fit beside the weights of a replica, up to what the engine admits.

    Parameters
    ----------
    replica : evaluated at any batch.
    machine : whose memory holds weights and cache.
    constants : ``most_running``, requests that one engine admits; ``cache_fill``, share of their output held for each.
    """
    s, workload = replica.settled, replica.settled.situation.workload
    ranks = s.split("batch")
    fill = constants.get("cache_fill", MEAN_FILL)
    share = (workload.prompt + fill * workload.output) / (1.0 * (workload.prompt + workload.output))
    lines = [line for line in replica.ledgers["first"] if line.tier == machine.main.tier]
    cache = add_up([line.bytes for line in lines if line.name == "KV cache"]) / s.batch * share
    free = machine.main.capacity - add_up([line.bytes for line in lines if line.name != "KV cache"])
    return ranks * maximum(minimum(floor(free / cache), constants.get("most_running", 2048.0)), 1.0)


def waves_of(requests: Scalar, most: Scalar) -> tuple[Scalar, Scalar, Scalar]:
    """Batches in which equal requests pass, all queued at the start: as many as fit, how often, and the rest.

    They begin together and so they end together: the last of them leave the engine part empty.

    Parameters
    ----------
    requests : of the whole run; infinite for a run so long that its end does not count.
    most : requests that the engine holds.

    Examples
    --------
    >>> waves_of(3000.0, 1300.0)
    (1300.0, 2.0, 400.0)
    """
    held = minimum(most, requests)
    endless = requests > 2.0**40
    waves = where(endless, 1.0, floor(minimum(requests, 2.0**40) / held))
    return held, waves, where(endless, 0.0, minimum(requests, 2.0**40) - waves * held)
