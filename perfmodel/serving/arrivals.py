"""Synthetic requests: when they come, how long they are, what prefix they share; the same for the same seed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from perfmodel.errors import SpecError
from perfmodel.specs.trace import Arrival

__all__ = ["Synthetic"]

CHUNK = 4096


@dataclass(frozen=True)
class Synthetic:
    """A renewal process of arrivals with lengths independent of it.

    Parameters
    ----------
    rate : mean arrivals per second; infinite for all at once [1/s].
    prompt, output : mean tokens.
    requests : how many.
    variation : coefficient of variation of the times between arrivals: 1 is a Poisson process, 0 a fixed pace, more
        comes in bursts (gamma distribution).
    length_variation : the same for both lengths, which are lognormal.
    shared_prefix : leading tokens that the requests of a group have in common.
    groups : number of prefixes.
    hashed : tokens of a hash block.
    seed : of the random numbers.
    """

    rate: float
    prompt: int
    output: int
    requests: int
    variation: float = 1.0
    length_variation: float = 0.0
    shared_prefix: int = 0
    groups: int = 1
    hashed: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        checks = (
            ("rate", self.rate > 0, "more than zero"),
            ("requests", self.requests > 0, "one or more"),
            ("variation", 0.0 <= self.variation < 100.0, "0 to 100"),
            ("length_variation", 0.0 <= self.length_variation < 100.0, "0 to 100"),
            ("groups", self.groups >= 1, "one or more"),
            ("seed", self.seed >= 0, "zero or more"),
        )
        for field, right, allowed in checks:
            if not right:
                raise SpecError("not possible", field=field, found=getattr(self, field), allowed=allowed)

    def __iter__(self) -> Iterator[Arrival]:
        """Requests in the order of their times."""
        now, made = 0.0, 0
        while made < self.requests:
            rng = np.random.default_rng([self.seed, made])
            n = min(CHUNK, self.requests - made)
            times = now + np.cumsum(self._gaps(rng, n))
            prompts, outputs = self._lengths(rng, self.prompt, n), self._lengths(rng, self.output, n)
            groups = rng.integers(self.groups, size=n)
            for seconds, prompt, output, group in zip(
                times.tolist(), prompts.tolist(), outputs.tolist(), groups.tolist(), strict=True
            ):
                yield Arrival(seconds, prompt, output, self._prefix(group, prompt))
            now, made = float(times[-1]), made + n

    def _gaps(self, rng: Any, n: int) -> Any:
        if math.isinf(self.rate):
            return np.zeros(n)
        if self.variation == 0.0:
            return np.full(n, 1.0 / self.rate)
        shape = 1.0 / self.variation**2
        return rng.gamma(shape, 1.0 / (shape * self.rate), n)

    def _lengths(self, rng: Any, mean: int, n: int) -> Any:
        if self.length_variation == 0.0:
            return np.full(n, mean)
        sigma = math.sqrt(math.log1p(self.length_variation**2))
        drawn = rng.lognormal(math.log(mean) - 0.5 * sigma * sigma, sigma, n)
        return np.maximum(np.rint(drawn), 1).astype(int)

    def _prefix(self, group: int, prompt: int) -> tuple[int, ...]:
        blocks = min(self.shared_prefix, prompt) // self.hashed
        return tuple(group << 20 | i for i in range(blocks))
