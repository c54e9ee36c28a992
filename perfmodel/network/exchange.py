r"""Exchange of tokens with the ranks that hold their experts: level by level, or by kernels made for it.

Level by level, ranks first exchange inside the node what is meant for the same place of any node, then among the ranks
of equal place: the bytes between nodes are those of the direct exchange, in fewer and longer messages. Or a token
crosses to a node once, however many of its experts lie there, and is handed on inside it.

Kernels made for it (DeepEP, TensorRT-LLM):

.. math:: t = t_0 + t_r (R-1) + t_t T + t_e E + \min\left(\frac{W V}{r_s},\; t_p + \frac{W V}{r}\right)

with the bytes V that a rank sends to others and the transfer per byte W of a pairwise exchange (see
:mod:`perfmodel.network.algorithms`): tokens T cost address work, experts E a counter each.
"""

from __future__ import annotations

from typing import NamedTuple

from perfmodel.elementwise import Scalar, maximum, minimum, where
from perfmodel.network.algorithms import pairwise
from perfmodel.network.bounds import all_to_all_bound
from perfmodel.network.collectives import all_to_all
from perfmodel.network.topology import Group, Network, one_level
from perfmodel.units import Bytes, Seconds

__all__ = [
    "ExchangeConstants",
    "exchange_by_level",
    "exchange_once",
    "expert_exchange",
    "levels_crossed",
    "vectors_sent",
]


def levels_crossed(group: Group) -> Scalar:
    """Levels that a group crosses: steps of an exchange level by level [1]."""
    crossed: Scalar = 0.0
    below: Scalar = 1.0
    for members in group.members:
        crossed, below = crossed + where(members > below, 1.0, 0.0), members
    return crossed


def exchange_by_level(network: Network, group: Group, size: Bytes) -> Seconds:
    r"""All-to-all as one exchange per level, each a call of the library among one rank of every domain [s].

    Each step moves :math:`V (n_l - 1)/n_l` per rank in messages of :math:`V/n_l`, one step after the other; all of them
    take no less than what leaves a domain needs on its links.

    References
    ----------
    .. [1] X. Nie et al., "HetuMoE", arXiv:2203.14685; C. Hwang et al., "Tutel", arXiv:2206.03382 (two steps).
    """
    seconds: Seconds = 0.0
    for level in range(len(group.members)):
        seconds = seconds + all_to_all(network, one_level(group, level), size)
    return maximum(seconds, all_to_all_bound(network, group, size))


def exchange_once(network: Network, group: Group, vector: Bytes, top_k: Scalar) -> Seconds:
    r"""Exchange in which a vector crosses to every domain that holds any of its experts once, level by level [s].

    Over level l, :math:`N_l = n/m_{l-1}` domains are told apart, of which ``top_k`` experts touch
    :math:`N_l(1-(1-1/N_l)^k)`; sums on the way back travel the same way.

    Parameters
    ----------
    vector : bytes of one vector of every token of a rank together [B].

    References
    ----------
    .. [1] DeepSeek-AI, arXiv:2412.19437, section 3.2.2; W. Lin et al. (HierMoE), arXiv:2508.09591.
    """
    seconds: Seconds = 0.0
    below: Scalar = 1.0
    for level, members in enumerate(group.members):
        vectors = vectors_sent(top_k, group.size / below)
        seconds = seconds + all_to_all(network, one_level(group, level), vector * vectors)
        below = members
    return seconds


class ExchangeConstants(NamedTuple):
    """Constants of one kernel.

    Parameters
    ----------
    launch, per_rank, per_token, per_expert : fixed cost, and cost per peer, token and expert [s].
    pipelined : further fixed cost of the way that reaches the full ``rate`` [s].
    rate, short_rate : share of the links' full bandwidth for large and for small exchanges [1].
    """

    launch: Seconds = 0.0
    per_rank: Seconds = 0.0
    pipelined: Seconds = 0.0
    rate: Scalar = 1.0
    short_rate: Scalar = 1.0
    per_token: Seconds = 0.0
    per_expert: Seconds = 0.0


def vectors_sent(top_k: Scalar, ranks: Scalar, copies: Scalar = 0.0) -> Scalar:
    """Vectors a token becomes: one per expert (``copies`` 1), or one per rank that holds any of them (0).

    Experts are spread evenly, so each of ``top_k`` lies on any rank with equal chance.

    Examples
    --------
    >>> vectors_sent(8, 8, 1.0), round(vectors_sent(8, 8), 2)
    (8.0, 5.25)
    """
    distinct = ranks * (1.0 - (1.0 - 1.0 / ranks) ** top_k)
    return where(copies > 0.5, top_k * 1.0, distinct)


def expert_exchange(
    network: Network, group: Group, constants: ExchangeConstants, tokens: Scalar, experts: Scalar, token_bytes: Bytes
) -> Seconds:
    """Time to send the vectors of ``tokens`` per rank, ``token_bytes`` each token in all, to the ranks of a group [s].

    Parameters
    ----------
    experts : in the layer, over all ranks.
    token_bytes : of all vectors that a token becomes, those that stay included [B].
    """
    c = constants
    full = network._replace(levels=tuple(level._replace(efficiency=1.0) for level in network.levels))
    path = pairwise(full, group)
    moved = tokens * token_bytes * path.transfer
    fixed = c.launch + c.per_rank * (group.size - 1.0) + c.per_token * tokens + c.per_expert * experts
    return path.active * (fixed + minimum(moved / c.short_rate, c.pipelined + moved / c.rate))
