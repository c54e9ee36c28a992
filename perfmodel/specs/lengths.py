"""How long sequences of a training batch are: a histogram, or a log-normal tail cut at the longest."""

from __future__ import annotations

from math import exp
from statistics import NormalDist
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from perfmodel.specs.facts import Spec

__all__ = ["QUANTILES", "Document", "Lengths", "long_tail_lengths", "pieces"]

CLASSES = 6
"""Lengths that attention tells apart."""
QUANTILES = 256
"""Points at which a log-normal distribution is taken."""

Document = tuple[float, float]
"""Length of a class of sequences [token], and its share of the tokens [1]."""


def _shares(data: Any) -> Any:
    if not isinstance(data, dict) or not data:
        raise ValueError("write shares of the sequences by length, such as {2048: 0.9, 65536: 0.1}")
    found: dict[int, float] = {}
    for length, share in data.items():
        text = str(length).replace("_", "")
        if not text.isdigit() or int(text) < 1:
            raise ValueError(f"a length is a whole number of tokens, not {length!r}")
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0.0 < share <= 1.0:
            raise ValueError(f"the share of {length} is a number above 0, up to 1")
        found[int(text)] = float(share)
    if abs(sum(found.values()) - 1.0) > 1e-6:
        raise ValueError(f"the shares add up to {sum(found.values()):g}, not 1")
    return found


class Lengths(Spec):
    """Lengths of the sequences of a batch: ``shares`` by length, or ``median`` and ``sigma`` of a log-normal."""

    shares: Annotated[dict[int, float], BeforeValidator(_shares)] | None = None
    """Share of the sequences, not of the tokens, by length in tokens."""
    median: float | None = Field(None, gt=0)
    """Median length [token]."""
    sigma: float | None = Field(None, gt=0, le=4)
    """Standard deviation of the logarithm of the length [1]."""

    @model_validator(mode="after")
    def _one_way(self) -> Lengths:
        tail = self.median is not None and self.sigma is not None
        if (self.shares is None) == (not tail) or (self.median is None) != (self.sigma is None):
            raise ValueError("write either `shares`, or `median` and `sigma`")
        return self

    def sample(self, count: int, longest: int) -> list[int]:
        """``count`` lengths at the quantiles of the distribution, none above ``longest`` [token]."""
        if self.median is not None and self.sigma is not None:
            return long_tail_lengths(count, median=self.median, sigma=self.sigma, longest=longest)
        shares = sorted((self.shares or {}).items())
        found: list[int] = []
        reached = 0.0
        for length, share in shares:
            reached += share
            found += [min(length, longest)] * (round(reached * count) - len(found))
        return found

    def documents(self, longest: int) -> tuple[Document, ...]:
        """A few classes of like lengths that keep the tokens and their (query, key) pairs."""
        return pieces(self.sample(QUANTILES, longest))


def pieces(lengths: list[int]) -> tuple[Document, ...]:
    """Classes of like lengths with equal parts of the pairs: each as long as makes its tokens attend to as many keys.

    Examples
    --------
    >>> pieces([100] * 98 + [700, 700])
    ((100.0, 0.875), (700.0, 0.125))
    """
    total, pairs = float(sum(lengths)), float(sum(n * n for n in lengths))
    classes: list[list[int]] = [[] for _ in range(CLASSES)]
    done = 0.0
    for n in sorted(lengths):
        classes[min(int(CLASSES * done / pairs), CLASSES - 1)].append(n)
        done += n * n
    found: dict[float, float] = {}
    for c in classes:
        if c:
            length = sum(n * n for n in c) / sum(c)
            found[length] = found.get(length, 0.0) + sum(c) / total
    return tuple(found.items())


def long_tail_lengths(count: int, *, median: float, sigma: float, longest: int) -> list[int]:
    """Log-normal lengths at the quantiles of their distribution, none longer than the longest [token].

    Examples
    --------
    >>> long_tail_lengths(4, median=1000, sigma=1.0, longest=65536)
    [317, 727, 1375, 3159]
    """
    normal = NormalDist()
    quantiles = (normal.inv_cdf((i + 0.5) / count) for i in range(count))
    return [max(1, min(longest, round(median * exp(sigma * z)))) for z in quantiles]
