r"""Collectives among p processes that each exchange messages of one size: time :math:`\alpha + n\beta` per message.

``size`` is n: the bytes of the whole vector, which broadcast sends, reductions add, gathers assemble, and of which
every process of an all-to-all holds its own. ``alpha`` is the latency of a message [s], ``beta`` the time per byte of
one link [s/B], ``gamma`` the time to add one byte's worth of numbers [s/B]. A process sends one message and receives
one at a time.

The three parts of a lower bound hold separately, so a bound in seconds is the largest of them; the parts of an
algorithm add up. Recursive doubling and halving are exact for powers of two; otherwise rounds are rounded up.

References
----------
.. [1] E. Chan, M. Heimlich, A. Purkayastha, R. van de Geijn, "Collective communication: theory, practice, and
   experience", Concurrency and Computation 19(13), 2007, doi:10.1002/cpe.1206.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from perfmodel.elementwise import Scalar, ceil, log2, maximum, where
from perfmodel.units import Bytes, Seconds

__all__ = [
    "ALGORITHMS",
    "BOUNDS",
    "Cost",
    "all_reduce_crossover",
    "collective_lower_bound",
    "ring_attention_step",
    "ring_link_latency",
    "rounds",
    "star_data_time",
    "star_link_latency",
    "tensor_parallel_decode_time",
    "token_ring_step",
    "tree_link_latency",
]


class Cost(NamedTuple):
    """What a process spends on messages started, on bytes sent, and on additions [s]."""

    latency: Seconds
    transfer: Seconds
    compute: Seconds = 0.0

    @property
    def seconds(self) -> Seconds:
        """One after the other: the time of an algorithm [s]."""
        return self.latency + self.transfer + self.compute

    @property
    def largest(self) -> Seconds:
        """What alone takes longest: a lower bound where each part is one [s]."""
        return maximum(maximum(self.latency, self.transfer), self.compute)

    def then(self, other: Cost) -> Cost:
        """Both, one after the other."""
        return Cost(self.latency + other.latency, self.transfer + other.transfer, self.compute + other.compute)


def rounds(processes: Scalar) -> Scalar:
    """Rounds in which one message can have reached all: each round at most doubles those who have it.

    Examples
    --------
    >>> rounds(8), rounds(9), rounds(1)
    (3.0, 4.0, 0.0)
    """
    return ceil(log2(processes))


def _others(p: Scalar) -> Scalar:
    """Share of the data that one process does not have at first."""
    return (p - 1.0) / p


def _whole(p: Scalar) -> Scalar:
    return where(p > 1.0, 1.0, 0.0)


def _broadcast_bound(p: Scalar, size: Bytes, alpha: Seconds, beta: Scalar, gamma: Scalar) -> Cost:
    return Cost(rounds(p) * alpha, _whole(p) * size * beta, 0.0 * gamma)


def _reduce_bound(p: Scalar, size: Bytes, alpha: Seconds, beta: Scalar, gamma: Scalar) -> Cost:
    return Cost(rounds(p) * alpha, _whole(p) * size * beta, _others(p) * size * gamma)


def _message(p: Scalar, size: Bytes, alpha: Seconds, beta: Scalar, gamma: Scalar) -> Cost:
    return Cost(_whole(p) * alpha, _whole(p) * size * beta, 0.0 * gamma)


def _share_bound(p: Scalar, size: Bytes, alpha: Seconds, beta: Scalar, gamma: Scalar) -> Cost:
    return Cost(rounds(p) * alpha, _others(p) * size * beta, 0.0 * gamma)


def _reduce_scatter_bound(p: Scalar, size: Bytes, alpha: Seconds, beta: Scalar, gamma: Scalar) -> Cost:
    return Cost(rounds(p) * alpha, _others(p) * size * beta, _others(p) * size * gamma)


def _all_reduce_bound(p: Scalar, size: Bytes, alpha: Seconds, beta: Scalar, gamma: Scalar) -> Cost:
    return Cost(rounds(p) * alpha, 2.0 * _others(p) * size * beta, _others(p) * size * gamma)


Formula = Callable[[Scalar, Bytes, Seconds, Scalar, Scalar], Cost]

BOUNDS: Mapping[str, Formula] = {
    "broadcast": _broadcast_bound,
    "reduce": _reduce_bound,
    "scatter": _share_bound,
    "gather": _share_bound,
    "all-gather": _share_bound,
    "reduce-scatter": _reduce_scatter_bound,
    "all-reduce": _all_reduce_bound,
    "all-to-all": _share_bound,
    "point-to-point": _message,
}
"""Latency, bandwidth and compute lower bounds by collective; reductions without help from the network."""


def _tree(p: Scalar, size: Bytes, alpha: Seconds, beta: Scalar, gamma: Scalar) -> Cost:
    return Cost(rounds(p) * alpha, rounds(p) * size * beta, 0.0 * gamma)


def _tree_reduce(p: Scalar, size: Bytes, alpha: Seconds, beta: Scalar, gamma: Scalar) -> Cost:
    return Cost(rounds(p) * alpha, rounds(p) * size * beta, rounds(p) * size * gamma)


def _tree_scatter(p: Scalar, size: Bytes, alpha: Seconds, beta: Scalar, gamma: Scalar) -> Cost:
    return Cost(rounds(p) * alpha, _others(p) * size * beta, 0.0 * gamma)


def _ring(p: Scalar, size: Bytes, alpha: Seconds, beta: Scalar, gamma: Scalar) -> Cost:
    return Cost((p - 1.0) * alpha, _others(p) * size * beta, 0.0 * gamma)


def _ring_adding(p: Scalar, size: Bytes, alpha: Seconds, beta: Scalar, gamma: Scalar) -> Cost:
    return Cost((p - 1.0) * alpha, _others(p) * size * beta, _others(p) * size * gamma)


def _recursive_adding(p: Scalar, size: Bytes, alpha: Seconds, beta: Scalar, gamma: Scalar) -> Cost:
    return Cost(rounds(p) * alpha, _others(p) * size * beta, _others(p) * size * gamma)


def _bruck(p: Scalar, size: Bytes, alpha: Seconds, beta: Scalar, gamma: Scalar) -> Cost:
    return Cost(rounds(p) * alpha, rounds(p) * size / 2.0 * beta, 0.0 * gamma)


def _sequence(first: Formula, second: Formula) -> Formula:
    def both(p: Scalar, size: Bytes, alpha: Seconds, beta: Scalar, gamma: Scalar) -> Cost:
        return first(p, size, alpha, beta, gamma).then(second(p, size, alpha, beta, gamma))

    return both


ALGORITHMS: Mapping[str, Mapping[str, Formula]] = {
    "broadcast": {"minimum spanning tree": _tree, "scatter and ring all-gather": _sequence(_tree_scatter, _ring)},
    "reduce": {
        "minimum spanning tree": _tree_reduce,
        "ring reduce-scatter and gather": _sequence(_ring_adding, _tree_scatter),
    },
    "scatter": {"minimum spanning tree": _tree_scatter},
    "gather": {"minimum spanning tree": _tree_scatter},
    "all-gather": {"ring": _ring, "recursive doubling": _tree_scatter},
    "reduce-scatter": {"ring": _ring_adding, "recursive halving": _recursive_adding},
    "all-reduce": {
        "ring": _sequence(_ring_adding, _ring),
        "recursive halving and doubling": _sequence(_recursive_adding, _tree_scatter),
        "recursive doubling": _tree_reduce,
    },
    "all-to-all": {"pairwise": _ring, "Bruck": _bruck},
    "point-to-point": {"every process to its successor": _message},
}
"""Costs of known algorithms by collective. A gather of a tree is a scatter run backwards, and so on."""


def collective_lower_bound(
    name: str,
    processes: Scalar,
    size: Bytes,
    alpha: Seconds,
    beta: Scalar,
    gamma: Scalar = 0.0,
    *,
    in_network: bool = False,
) -> Cost:
    """Latency, bandwidth and compute that no algorithm of a collective goes below [s].

    Parameters
    ----------
    name : a key of :data:`BOUNDS`.
    in_network : switches add, so an all-reduce sends the vector once and receives the sum once.

    Examples
    --------
    >>> collective_lower_bound("all-reduce", 8, 1e9, 1e-6, 2.0**-33).transfer * 2**33
    1750000000.0
    >>> collective_lower_bound("all-reduce", 8, 1e9, 1e-6, 2.0**-33, in_network=True).transfer * 2**33
    1000000000.0
    """
    cost = BOUNDS[name](processes, size, alpha, beta, gamma)
    if in_network and name == "all-reduce":
        return Cost(0.0 * cost.latency + alpha, _whole(processes) * size * beta, 0.0 * cost.compute)
    return cost


def all_reduce_crossover(processes: Scalar, alpha: Seconds, beta: Scalar) -> Bytes:
    r"""Size above which a ring all-reduce beats recursive doubling [B].

    .. math:: n\beta\,(\log_2 p - 2(p-1)/p) = \alpha\,(2(p-1) - \log_2 p)

    For p > 4 (at 4 the transfers differ by a half of n, below that a ring sends no less).

    Examples
    --------
    >>> round(all_reduce_crossover(8, 1e-6, 1e-10))
    88000
    """
    p = processes
    return alpha * (2.0 * (p - 1.0) - log2(p)) / (beta * (log2(p) - 2.0 * _others(p)))


def star_link_latency(path: Scalar, latency: Seconds) -> Seconds:
    """Link latency of an all-reduce through one master: all send to it at once, it sends to all.

    Parameters
    ----------
    path : links between two devices.
    latency : of one link [s].

    References
    ----------
    .. [1] Z. Li, W. Feng, M. Guizani, H. Yu, "TPI-LLM", arXiv:2410.00531.

    Examples
    --------
    >>> star_link_latency(4, 1.0), tree_link_latency(2, 4, 1.0), ring_link_latency(8, 4, 1.0)
    (8.0, 16.0, 56.0)
    """
    return 2.0 * path * latency


def tree_link_latency(depth: Scalar, path: Scalar, latency: Seconds) -> Seconds:
    """Link latency of an all-reduce up and down a tree of ``depth`` levels.

    References
    ----------
    .. [1] Z. Li, W. Feng, M. Guizani, H. Yu, "TPI-LLM", arXiv:2410.00531.

    Examples
    --------
    >>> tree_link_latency(2, 4, 1e-3)
    0.016
    """
    return 2.0 * depth * path * latency


def ring_link_latency(processes: Scalar, path: Scalar, latency: Seconds) -> Seconds:
    """Link latency of a ring all-reduce: ``2 (p - 1)`` steps one after the other.

    References
    ----------
    .. [1] Z. Li, W. Feng, M. Guizani, H. Yu, "TPI-LLM", arXiv:2410.00531.

    Examples
    --------
    >>> ring_link_latency(8, 4, 1e-3)
    0.056
    """
    return 2.0 * (processes - 1.0) * path * latency


def star_data_time(size: Bytes, beta: Scalar, hops: Scalar = 2.0) -> Seconds:
    """Data time of a star all-reduce: the vector up and down over ``hops`` links of equal speed each way [s].

    Examples
    --------
    >>> round(star_data_time(4 * 8192, 8 / 300e6) * 1e3, 1)
    3.5
    """
    return 2.0 * hops * size * beta


def tensor_parallel_decode_time(
    layers: Scalar, batch: Scalar, hidden: Scalar, element_bytes: Bytes, ranks: Scalar, beta: Scalar
) -> Seconds:
    r"""Least network time of one token of the whole batch with two all-reduces a layer [s].

    .. math:: 4\,\frac{p-1}{p}\, B D b L \beta

    References
    ----------
    .. [1] K. Zhu et al., "NanoFlow: towards optimal large language model serving throughput", arXiv:2408.12757.

    Examples
    --------
    >>> round(tensor_parallel_decode_time(80, 2048, 8192, 2.0, 8, 1 / 300e9) * 1e3, 1)
    31.3
    """
    return 4.0 * _others(ranks) * batch * hidden * element_bytes * layers * beta


def ring_attention_step(tokens: Scalar, d: Scalar, element_bytes: Bytes) -> Bytes:
    """Bytes of one step of ring attention: keys and values of ``tokens`` go one way.

    References
    ----------
    .. [1] H. Liu, M. Zaharia, P. Abbeel, "Ring attention with blockwise transformers for near-infinite context",
       arXiv:2310.01889.

    Examples
    --------
    >>> ring_attention_step(1024, 128, 2.0)
    524288.0
    """
    return 2.0 * tokens * d * element_bytes


def token_ring_step(tokens: Scalar, d: Scalar, element_bytes: Bytes) -> tuple[Bytes, Bytes]:
    """Bytes of one step when queries go one way and partial outputs with their statistic the other.

    References
    ----------
    .. [1] Z. Wang et al., "TokenRing: an efficient parallelism framework for infinite-context LLMs via bidirectional
       communication", arXiv:2412.20501.

    Examples
    --------
    >>> token_ring_step(1024, 128, 2.0)
    (262144.0, 264192.0)
    """
    return tokens * d * element_bytes, tokens * (d + 1.0) * element_bytes
