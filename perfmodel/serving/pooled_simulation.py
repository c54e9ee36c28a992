"""Replicas that only prefill, replicas that only decode, and caches on their way between them, request by request.

A prompt is computed by a replica of the first pool, its cache crosses the link, and a replica of the second pool takes
the request up as soon as it has room; the first token is that of its first decode iteration, which computes the last
token of the prompt again, as vLLM's connectors do, or that of the prefill where an engine takes it from there. Sender
and receiver move one cache at a time; blocks of the sender are free once the cache has left. A request that the decode
pool preempts computes everything again there.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import inf
from typing import Any

from perfmodel.serving.replica import Replica
from perfmodel.serving.request import DONE, Request
from perfmodel.serving.simulation import Run, route

__all__ = ["Decoder", "PooledRun", "PrefillReplica", "Transfer"]


@dataclass(frozen=True)
class Transfer:
    """Time of a hand-over, linear between prompts of so many tokens.

    Parameters
    ----------
    tokens : knots, ascending.
    seconds : for which both ends are busy, at the knots [s].
    between : what a router takes beside that [s].
    """

    tokens: tuple[float, ...]
    seconds: tuple[float, ...]
    between: float = 0.0

    @classmethod
    def of(cls, seconds: Callable[[float], float], longest: float, between: float = 0.0) -> Transfer:
        """Tabulate a function of the tokens up to the longest prompt, two knots per doubling."""
        tokens = [1.0]
        while tokens[-1] < longest:
            tokens.append(min(tokens[-1] * 2.0**0.5, longest))
        return cls(tuple(tokens), tuple(seconds(n) for n in tokens), between)

    def __call__(self, tokens: float) -> float:
        """Seconds that one prompt's cache takes."""
        if len(self.tokens) < 2:
            return self.seconds[0]
        i = min(max(bisect_right(self.tokens, tokens) - 1, 0), len(self.tokens) - 2)
        low, high = self.tokens[i : i + 2]
        return self.seconds[i] + (self.seconds[i + 1] - self.seconds[i]) * (tokens - low) / (high - low)


class PrefillReplica(Replica):
    """Computes prompts and sends their caches one after the other, each held until it has left."""

    def __init__(self, *args: Any, transfer: Transfer, **more: Any) -> None:
        super().__init__(*args, **more)
        self.transfer = transfer
        self.link_free = self.link_busy = 0.0
        self.sending: list[tuple[float, int, Request, int]] = []
        """(when it has left [s], number, request, tokens) of caches that are on their way."""
        self.computed: list[tuple[float, int, Request, float]] = []
        """(when computed [s], number, request, when its cache has left [s]) of requests nobody has taken up yet."""

    def _through(self, request: Request, context: int) -> None:
        request.state = DONE
        seconds = self.transfer(request.prompt)
        self.link_free = max(self.link_free, self.time) + seconds
        self.link_busy += seconds
        heappush(self.sending, (self.link_free, request.number, request, context))
        self.computed.append((self.time, request.number, request, self.link_free))
        self._forget()

    def _make_room(self) -> bool:
        while self.sending and self.sending[0][0] <= self.time:
            _, _, request, context = heappop(self.sending)
            self.pool.leave(request, context, joined=False)
        return False

    def _stuck(self) -> None:
        """Every block belongs to a cache that is being sent: wait for the next one to have left."""
        if not self.sending:
            super()._stuck()
        self.time = max(self.time, self.sending[0][0])


@dataclass
class Decoder:
    """A decode replica and what is on its way to it.

    Parameters
    ----------
    replica : whose iterations hold no prompts, but of those it preempted.
    coming : (when the cache is here [s], request), in the order of the times.
    link_free : when it can take the next cache [s].
    """

    replica: Replica
    coming: deque[tuple[float, Request]] = field(default_factory=deque)
    link_free: float = 0.0

    @property
    def outstanding(self) -> int:
        """Requests here or on their way."""
        return self.replica.outstanding + len(self.coming)

    def advance(self, until: float) -> None:
        """Take up what comes before ``until`` and run every iteration that starts before it [s]."""
        while self.coming and self.coming[0][0] <= until:
            ready, request = self.coming.popleft()
            self.replica.advance(ready)
            self.replica.enqueue(request, ready)
        self.replica.advance(until)


@dataclass
class PooledRun(Run):
    """State of a simulation of two pools; ``replicas`` are those that prefill, ``totals`` count what decode answers.

    Parameters
    ----------
    decoders : replicas of the decode pool.
    computed : requests whose prompt is computed, by the time of that, until a decoder is chosen.
    answers : prefill gives the first token of a request.
    moved : from the end of a prefill until the cache is at its decoder, all requests together [s].
    handed_over : requests that were.
    """

    decoders: list[Decoder] = field(default_factory=list)
    computed: list[tuple[float, int, Request, float]] = field(default_factory=list)
    answers: bool = False
    moved: float = 0.0
    handed_over: int = 0

    @property
    def prefill(self) -> Sequence[PrefillReplica]:
        """Replicas of the prefill pool."""
        return self.replicas  # type: ignore[return-value]

    @property
    def everyone(self) -> list[Replica]:
        """Replicas of both pools."""
        return [*self.replicas, *(d.replica for d in self.decoders)]

    def holds(self, request: Request) -> bool:
        """Whether a request fits where it is alone."""
        total = request.prompt + request.output
        fits = self.decoders[0].replica.pool.holds(total - 1) and self.replicas[0].pool.holds(request.prompt)
        return total <= self.longest and fits

    def take(self, request: Request) -> None:
        """Both pools reach the time of a request, and a prefill replica takes it."""
        now = request.arrival
        self._reach(now)
        here = sum(r.outstanding for r in self.replicas) + sum(d.outstanding for d in self.decoders)
        self.outstanding.append(here + len(self.computed))
        prompt = Request(request.number, now, request.prompt, 1, request.prefix)
        prompt.then = request
        route(self.replicas, self.router, prompt).enqueue(prompt)

    def finish(self) -> None:
        """Let the replicas answer what they have."""
        self._reach(inf)

    def _reach(self, now: float) -> None:
        """Both pools run until then; what the first completes before it is handed over in the order of its times."""
        for replica in self.prefill:
            replica.advance(now)
            for entry in replica.computed:
                heappush(self.computed, entry)
            replica.computed.clear()
        while self.computed and self.computed[0][0] <= now:
            done, number, prompt, left = heappop(self.computed)
            assert prompt.then is not None  # noqa: S101 - set where it was taken
            self._hand_over(prompt.then, number, done, left)
        for decoder in self.decoders:
            decoder.advance(now)

    def _hand_over(self, request: Request, number: int, done: float, left: float) -> None:
        """Choose a decoder for a computed prompt and let the cache come to it."""
        if self.answers:
            request.first = request.latest = done
            request.made = 1
            if request.output == 1:
                self.totals.finish(request, done)
                return
        if self.router == "round-robin" or len(self.decoders) == 1:
            chosen = self.decoders[number % len(self.decoders)]
        else:
            for decoder in self.decoders:
                decoder.advance(done)
            chosen = min(self.decoders, key=lambda d: (d.outstanding, d.replica.queued_tokens))
        transfer = self.prefill[0].transfer
        chosen.link_free = max(left, chosen.link_free + transfer(request.prompt))
        ready = chosen.link_free + transfer.between
        request.computed = request.prompt - 1 + request.made
        self.moved += ready - done
        self.handed_over += 1
        chosen.coming.append((ready, request))
