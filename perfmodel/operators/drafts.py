"""Drafted tokens: which candidates a pass verifies, and how many tokens it gains by them."""

from __future__ import annotations

from functools import lru_cache
from heapq import heappop, heappush
from typing import NamedTuple

__all__ = ["Tree", "chain_tokens", "draft_tree", "first_acceptance", "hit"]

STEPS = 60
"""Halvings of the interval in which an acceptance is sought."""


class Tree(NamedTuple):
    """Drafted candidates by how far they lie behind the last token.

    Parameters
    ----------
    widths : candidates at every position.
    parents : candidates of the position before (the last token at the first one) that they continue.
    tokens : expected tokens that a pass gains, the one that the model adds itself included.
    """

    widths: tuple[int, ...]
    parents: tuple[int, ...]
    tokens: float

    @property
    def nodes(self) -> int:
        """Candidates in all."""
        return sum(self.widths)


def hit(acceptance: float, breadth: float, candidates: int) -> float:
    r"""Probability that one of the best ``candidates`` of a position is accepted: :math:`1 - (1 - a)^{c^b}`.

    With ``breadth`` b = 1 every further candidate is as good as the best, with 0 it is worth nothing.

    Examples
    --------
    >>> hit(0.6, 0.5, 1), round(hit(0.6, 0.5, 4), 3), hit(0.0, 0.5, 4)
    (0.6, 0.84, 0.0)
    """
    return 1.0 - (1.0 - acceptance) ** float(candidates) ** breadth if candidates else 0.0


def chain_tokens(acceptance: float, length: int) -> float:
    r"""Tokens per pass of a chain where every position is accepted alike: :math:`(1 - a^{k+1}) / (1 - a)`.

    Examples
    --------
    >>> chain_tokens(0.5, 2), chain_tokens(1.0, 4)
    (1.75, 5.0)

    References
    ----------
    .. [1] Y. Leviathan et al., "Fast inference from transformers via speculative decoding", arXiv:2211.17192, eq. 1.
    """
    return float(sum(acceptance**i for i in range(length + 1)))


@lru_cache(maxsize=4096)
def draft_tree(acceptances: tuple[float, ...], breadth: float, nodes: int, branching: int) -> Tree:
    r"""Return the ``nodes`` candidates that are most likely accepted, and what they gain.

    .. math:: \tau = 1 + \sum_{v} \prod_{u \preceq v} p_u

    over candidates v and their ancestors u, each accepted with :math:`p_u` if its parent was. Candidates are taken in
    the order of that product, which is the best tree of any size since a child is never likelier than its parent.

    Parameters
    ----------
    acceptances : probability that the best candidate is accepted, position by position; no position lies beyond.
    breadth : power with which further candidates lower the rejections, see :func:`hit`.
    nodes : candidates at most.
    branching : candidates that continue one and the same; 1 is a chain.

    Examples
    --------
    >>> draft_tree((0.5, 0.5), 1.0, 3, 1)
    Tree(widths=(1, 1), parents=(1, 1), tokens=1.75)
    >>> draft_tree((0.5, 0.5), 1.0, 3, 2)
    Tree(widths=(2, 1), parents=(1, 1), tokens=2.0)

    References
    ----------
    .. [1] T. Cai et al. (Medusa), arXiv:2401.10774, section 2.3.3: the tree built node by node from head accuracies.
    """
    widths, parents, tokens = [0] * len(acceptances), [0] * len(acceptances), 1.0
    waiting: list[tuple[float, int, int, float]] = []

    def offer(position: int, rank: int, before: float) -> None:
        a = acceptances[position]
        likely = before * (hit(a, breadth, rank) - hit(a, breadth, rank - 1))
        heappush(waiting, (-likely, position, rank, before))

    if acceptances:
        offer(0, 1, 1.0)
    while waiting and sum(widths) < nodes:
        negative, position, rank, before = heappop(waiting)
        tokens -= negative
        widths[position] += 1
        parents[position] += rank == 1
        if rank < branching:
            offer(position, rank + 1, before)
        if position + 1 < len(acceptances):
            offer(position + 1, 1, -negative)
    used = sum(w > 0 for w in widths)
    return Tree(tuple(widths[:used]), tuple(parents[:used]), tokens)


@lru_cache(maxsize=1024)
def first_acceptance(tokens: float, fade: float, breadth: float, nodes: int, depth: int, branching: int) -> float:
    """Acceptance at the first position with which a published tree gains its published number of tokens.

    Parameters
    ----------
    tokens : mean tokens per pass, the model's own included.
    fade : acceptance of a position over that of the one before it [1].
    breadth, nodes, branching : as in :func:`draft_tree`.
    depth : positions drafted.

    Examples
    --------
    >>> round(first_acceptance(1.75, 1.0, 0.0, 2, 2, 1), 6)
    0.5
    """
    low, high = 0.0, 1.0
    for _ in range(STEPS):
        middle = 0.5 * (low + high)
        found = draft_tree(tuple(middle * fade**i for i in range(depth)), breadth, nodes, branching).tokens
        low, high = (middle, high) if found < tokens else (low, middle)
    return 0.5 * (low + high)
