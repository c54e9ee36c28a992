"""Prompts held back so that more join them: how long one waits, and how many are computed together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from perfmodel.elementwise import Scalar, maximum, minimum, where
from perfmodel.techniques.settled import Settled

__all__ = ["ALONE", "Gathering", "bunched", "gathered", "gathering_of"]


class Gathering(NamedTuple):
    r"""How prompts gather.

    The first prompt opens a window of at most N passes, which ends when M prompts are there. With prompts that come at
    random, so many a pass, the window takes T passes, in which J others join, each for half of it on average:

    .. math:: J = \min(\lambda N, M - 1), \qquad T = \min(N, (M - 1) / \lambda), \qquad
        W = T\, \frac{1 + J / 2}{1 + J}

    Parameters
    ----------
    wait : mean wait of a prompt [passes].
    window : from the first prompt to the end of the wait [passes].
    together : prompts that one rank computes together.
    queued : 1 where prompts come at random and queue besides, 0 where what gathers is all that waits.
    """

    wait: Scalar
    window: Scalar
    together: Scalar
    queued: float = 1.0


ALONE = Gathering(0.0, 0.0, 1.0)
"""No prompt waits for another."""


def gathered(passes: Scalar, most: Scalar, rate: Scalar, ranks: Scalar) -> Gathering:
    """Return how prompts gather.

    Parameters
    ----------
    passes : for which a prompt waits at most.
    most : prompts that end the wait.
    rate : prompts that come to all ranks in a pass.
    ranks : that prompts are dealt to.

    Examples
    --------
    >>> gathered(passes=20.0, most=16.0, rate=0.1, ranks=1.0)
    Gathering(wait=13.333333333333334, window=20.0, together=3.0, queued=1.0)
    """
    others = maximum(most - 1.0, 0.0)
    joined = minimum(rate * passes, others)
    window = where(rate * passes > others, others / maximum(rate, 1e-12), passes)
    return Gathering(window * (1.0 + 0.5 * joined) / (1.0 + joined), window, maximum((1.0 + joined) / ranks, 1.0))


def bunched(batch: Scalar, prompts: Scalar) -> Scalar:
    r"""Prompts whose computing a prompt waits for, its own included, where all requests are of equal length.

    Requests whose prompts shared a pass end together, and so do those that follow them; passes fill up to the
    M prompts that they hold, and a full pass waits for the one before it: 2 M among many requests, all B among few.
    The form between agrees with simulated rounds within 15 % (2 to 8 prompts, 8 to 128 requests).

    Examples
    --------
    >>> round(bunched(8.0, 2.0), 2), round(bunched(128.0, 2.0), 2)
    (3.27, 3.94)
    """
    return maximum(minimum(2.0 * prompts * batch / (batch + 0.9 * prompts), batch), 1.0)


def gathering_of(s: Settled, framework: Mapping[str, float]) -> Gathering:
    """How the prompts of a replica gather: until a pass has its tokens, or until every data rank has a prompt."""
    held, balanced = framework.get("held_passes", 0.0), framework.get("balanced_passes", 0.0)
    if framework.get("bunched_prompts", 0.0):
        return Gathering(0.0, 0.0, bunched(s.batch, framework["bunched_prompts"]), 0.0)
    if not held and not balanced:
        return ALONE
    workload, ranks, gained = s.situation.workload, s.split("batch"), s.layout.tokens_per_pass
    rate = ranks * s.batch * gained / (1.0 * workload.output)
    room = framework.get("held_tokens", 0.0) - s.batch * s.layout.verify_tokens
    own = gathered(held, room / (1.0 * workload.prompt), rate / ranks, 1.0)
    if not balanced:
        return own
    every = gathered(where(ranks > 1.0, balanced, 0.0), ranks, rate, ranks)
    return Gathering(*(maximum(a, b) for a, b in zip(own[:3], every[:3], strict=True)))
