"""One request on its way through a simulation."""

from __future__ import annotations

__all__ = ["DECODING", "DONE", "PREFILLING", "WAITING", "Request"]

WAITING, PREFILLING, DECODING, DONE = range(4)


class Request:
    """One request on its way.

    Parameters
    ----------
    number : its place in the trace.
    arrival : when it came [s].
    prompt, output : tokens.
    prefix : hashes of the leading blocks of the prompt.
    """

    __slots__ = (
        "arrival", "base", "blocks", "computed", "ends", "fetched", "first", "latest", "made", "number", "output",
        "prefix", "prompt", "shared", "state", "then",
    )  # fmt: skip

    def __init__(self, number: int, arrival: float, prompt: int, output: int, prefix: tuple[int, ...] = ()) -> None:
        self.number, self.arrival, self.prompt, self.output = number, arrival, prompt, output
        self.prefix = prefix
        self.state = WAITING
        self.made = 0
        """Tokens produced before this admission."""
        self.computed = 0
        """Tokens whose keys and values are there; of a waiting request those that came along with it."""
        self.fetched = 0
        """Tokens whose keys and values a store sends."""
        self.base = 0
        """Context minus the replica's count of decoded tokens of a sequence."""
        self.ends = 0
        """Count of decoded tokens of a sequence at which it is complete."""
        self.blocks = 0
        """Blocks of its own that do not grow: all of them where the whole request is reserved, else its state."""
        self.shared: list[int] = []
        """Hash blocks of the prefix cache that it holds."""
        self.first = -1.0
        self.latest = -1.0
        """When the latest token came, if it was then preempted [s]."""
        self.then: Request | None = None
        """What another replica makes of the prompt once it is computed here."""
