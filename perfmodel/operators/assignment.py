"""Bits chosen layer by layer: the least loss that fits a budget of bytes, exactly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Assignment", "assign"]


class Assignment(NamedTuple):
    """A choice for every layer.

    Parameters
    ----------
    choices : index of the chosen format of every layer.
    bytes : of all layers together [B].
    loss : sum over the layers [1].
    """

    choices: tuple[int, ...]
    bytes: float
    loss: float


def assign(
    weights: Sequence[float], widths: Sequence[float], losses: Sequence[Sequence[float]], budget: float
) -> Assignment | None:
    r"""Minimise :math:`\sum_l \ell_{l, c_l}` subject to :math:`\sum_l P_l b_{c_l} \le M`, exactly.

    Parameters
    ----------
    weights : parameters :math:`P_l` of every layer.
    widths : bytes :math:`b_c` per weight of every format.
    losses : loss :math:`\ell_{l, c}` of every layer in every format.
    budget : bytes M of all layers.

    Returns
    -------
    Assignment or None
        ``None`` where even the smallest format everywhere exceeds the budget.

    Notes
    -----
    Layer by layer only those partial choices are kept that no other beats in both bytes and loss [1]_. Layers of one
    size make many choices equally large, so that few remain: at most as many as sums of widths.

    References
    ----------
    .. [1] G. Nemhauser, Z. Ullmann, "Discrete dynamic programming and capital allocation", Management Science 15,
       1969.
    .. [2] C. Yi et al., "One QuantLLM for ALL", arXiv:2405.20202.

    Examples
    --------
    >>> assign([1.0, 1.0], [0.25, 0.5], [[4.0, 1.0], [2.0, 1.0]], 0.75)
    Assignment(choices=(1, 0), bytes=0.75, loss=3.0)
    """
    least = min(widths)
    after = [0.0]
    for w in reversed(weights):
        after.append(after[-1] + least * w)
    states: list[Assignment] = [Assignment((), 0.0, 0.0)]
    slack = budget * (1.0 + 1e-12)
    for i, weight in enumerate(weights):
        rest = after[len(weights) - 1 - i]
        grown = [
            Assignment((*s.choices, c), s.bytes + weight * width, s.loss + losses[i][c])
            for s in states
            for c, width in enumerate(widths)
            if s.bytes + weight * width + rest <= slack
        ]
        states = _undominated(grown)
    return min(states, key=lambda s: (s.loss, s.bytes)) if states else None


def _undominated(states: list[Assignment]) -> list[Assignment]:
    """Those that none beats in bytes and loss, smallest first."""
    kept: list[Assignment] = []
    for state in sorted(states, key=lambda s: (s.bytes, s.loss)):
        if not kept or state.loss < kept[-1].loss - 1e-15:
            kept.append(state)
    return kept
