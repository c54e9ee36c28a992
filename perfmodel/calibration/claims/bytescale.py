"""A batch with a tail of very long sequences on rings of several sizes."""

from __future__ import annotations

import perfmodel
from perfmodel.calibration.claims.run import Run, arguments, columns
from perfmodel.specs.lengths import long_tail_lengths

__all__ = ["equal_lengths", "long_tail"]

LONGEST = 2048 * 1024


def _ratio(run: Run, lengths: list[int]) -> float:
    asked = run.asked()
    found = perfmodel.assign_sequences(
        lengths=lengths, devices=asked.devices or 0, column="cp", columns=columns(asked), **arguments(asked)
    )
    return float(found.static[min(found.static)].seconds / found.adaptive.seconds)


def long_tail(run: Run) -> float:
    """Time on the narrowest rings that hold the longest sequence over that on rings of their own."""
    return _ratio(run, long_tail_lengths(8192, median=1100.0, sigma=1.6, longest=LONGEST))


def equal_lengths(run: Run) -> float:
    """The same where every sequence is the longest."""
    return _ratio(run, [LONGEST] * 64)
