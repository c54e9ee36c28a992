"""A replica before which a store stands: keys and values of reused text come over a link, one prompt after another."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

from perfmodel.serving.replica import Replica
from perfmodel.serving.request import Request

__all__ = ["Fetch", "FetchingReplica"]


class Fetch(NamedTuple):
    """What comes from a store.

    Parameters
    ----------
    share : of every prompt [1].
    seconds : of the link, per token [s].
    unpack : of the device, per token [s].
    """

    share: float
    seconds: float
    unpack: float


class FetchingReplica(Replica):
    """Requests wait for their part of the store before they wait for the replica; preempted ones compute everything."""

    def __init__(self, *args: Any, fetch: Fetch, **more: Any) -> None:
        super().__init__(*args, **more)
        self.fetch = fetch
        self.link_free = 0.0
        self.coming: deque[tuple[float, Request]] = deque()

    @property
    def outstanding(self) -> int:
        """Requests here, or whose keys and values are on their way."""
        return super().outstanding + len(self.coming)

    def enqueue(self, request: Request, at: float | None = None) -> None:
        """Send for the keys and values of a request."""
        request.fetched = min(int(self.fetch.share * request.prompt), request.prompt - 1)
        begin = max(self.link_free, request.arrival if at is None else at)
        self.link_free = begin + self.fetch.seconds * request.fetched
        self.coming.append((self.link_free, request))

    def advance(self, until: float) -> None:
        """Take up what has come before ``until`` and run every iteration that starts before it [s]."""
        while self.coming and self.coming[0][0] <= until:
            ready, request = self.coming.popleft()
            super().advance(ready)
            super().enqueue(request, ready)
        super().advance(until)

    def _mixed(self, chunks: list[tuple[Request, int]], limit: str) -> None:
        """One iteration with prompts, what came with the new ones unpacked before it."""
        new = sum(r.fetched for r, _ in chunks if r.computed == r.fetched)
        self.time += self.fetch.unpack * new
        super()._mixed(chunks, limit)
