"""KV blocks of a replica, counted as engines do: whole blocks per request, prompts' blocks shared through a cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perfmodel.serving.prefix import LruCache, PrefixCache

if TYPE_CHECKING:
    from perfmodel.serving.request import Request

__all__ = ["Pool"]


class Pool:
    """Free blocks, the prefix cache, and when decoding sequences will need their next block.

    All decoding sequences grow together, token by token, so when each begins a new block is known: sequences are
    counted by context modulo block length.

    Parameters
    ----------
    blocks : blocks of the replica.
    block : tokens of a block.
    fixed : requests take all their blocks when admitted.
    state : blocks that a request takes whatever its length (recurrent state, sliding windows).
    cache : prefix cache; ``None`` for one that stays empty.
    hashed : tokens of a block of the prefix hashes, a multiple of ``block``.
    ahead : tokens beyond its context that a request holds place for (drafts that wait to be verified).
    """

    def __init__(
        self, blocks: int, block: int, *, fixed: bool = False, state: int = 0, cache: PrefixCache | None = None,
        hashed: int = 512, ahead: int = 0,
    ) -> None:  # fmt: skip
        self.ahead = ahead
        self.blocks, self.block, self.fixed, self.state, self.hashed = blocks, block, fixed, state, hashed
        self.cache: PrefixCache = LruCache() if cache is None else cache
        self.caching = cache is not None
        self.width = -(-hashed // block)
        self.free = blocks
        self.phases = [0] * block

    @property
    def available(self) -> int:
        """Blocks that are free or can be evicted."""
        return self.free + self.cache.idle * self.width

    @property
    def used(self) -> int:
        """Blocks that requests hold."""
        return self.blocks - self.available

    def holds(self, tokens: int) -> bool:
        """Whether a request of so many tokens fits when it is alone."""
        return -(-(tokens + 2 * self.ahead) // self.block) + self.state <= self.blocks

    def reusable(self, request: Request, target: int) -> int:
        """Tokens of the prompt in the cache; at least one is computed, for it gives the first output token."""
        if not self.caching or not request.prefix:
            return 0
        return self.cache.match(request.prefix[: (target - 1) // self.hashed]) * self.hashed

    def enter(self, request: Request, tokens: int, hit: int, spare: int) -> bool:
        """Take the blocks of ``tokens`` tokens, ``hit`` of them cached, if ``spare`` are left; whether it did."""
        ids = request.prefix[: hit // self.hashed] if hit else ()
        need = -(-(tokens + self.ahead) // self.block) - len(ids) * self.width + self.state
        if need + spare > self.available - (self.cache.idle_among(ids) * self.width if ids else 0):
            return False
        if ids:
            self.cache.take(ids)
        request.shared = list(ids)
        self._take(need)
        request.blocks = need if self.fixed else self.state
        return True

    def computed(self, request: Request) -> None:
        """The prompt's keys and values are there: others may share its whole blocks from now on."""
        if self.caching and request.prefix:
            whole = min(request.prompt // self.hashed, len(request.prefix))
            room = self.available // self.width
            fresh, beside = self.cache.insert(request.prefix[:whole], len(request.shared), room)
            if beside:
                self._take(beside * self.width)
            request.shared += fresh
            if self.fixed:
                request.blocks -= len(fresh) * self.width

    def join(self, request: Request) -> None:
        """A request decodes from now on."""
        self.phases[(request.base + self.ahead) % self.block] += 1

    def leave(self, request: Request, context: int, *, joined: bool) -> None:
        """Give all blocks of a request of so much context back; its shared ones stay in the cache."""
        if joined:
            self.phases[(request.base + self.ahead) % self.block] -= 1
        own = request.blocks
        if not self.fixed:
            own += -(-(context + self.ahead) // self.block) - len(request.shared) * self.width
        self.free += own
        if request.shared:
            self.cache.release(request.shared)
            request.shared = []

    def wanted(self, steps: int, tokens: int = 1) -> int:
        """Blocks that the next ``tokens`` of every decoding sequence begin, ``steps`` of them being there."""
        return 0 if self.fixed else self._growth(steps, tokens)

    def grow(self, steps: int, tokens: int) -> None:
        """Take the blocks that so many tokens of every decoding sequence begin."""
        if not self.fixed:
            self._take(self._growth(steps, tokens))

    def lasting(self, steps: int) -> int:
        """Tokens of every decoding sequence for which the blocks last, at least one."""
        each = 0 if self.fixed else sum(self.phases)
        if not each:
            return 1 << 60
        rounds, left = divmod(self.available, each)
        count = 0
        while count < self.block and (left := left - self.phases[-(steps + count) % self.block]) >= 0:
            count += 1
        return max(rounds * self.block + count, 1)

    def _growth(self, steps: int, tokens: int) -> int:
        if tokens == 1:
            return self.phases[-steps % self.block]
        rounds, rest = divmod(tokens, self.block)
        total = rounds * sum(self.phases) if rounds else 0
        for j in range(rest):
            total += self.phases[-(steps + j) % self.block]
        return total

    def _take(self, blocks: int) -> None:
        if blocks > self.free:
            self.free += self.cache.evict(-(-(blocks - self.free) // self.width)) * self.width
        self.free -= blocks
