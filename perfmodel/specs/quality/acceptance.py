"""Published numbers of tokens that a pass gains by drafts. Outside the table the answer is *unknown*, never a guess."""

from __future__ import annotations

import csv
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from perfmodel.specs.quality import TOLERANCE

__all__ = ["Accepted", "accepted_rows", "published_acceptance"]

USUAL = ("mixed", "chat")
"""Tasks that stand for one that nobody measured, or where none is named."""


class Accepted(NamedTuple):
    """Mean tokens per pass of one published experiment.

    Parameters
    ----------
    drafter : name of the record that drafted, with its argument.
    family, parameters : of the model that verified.
    task : ``mixed``, ``chat``, ``instruct``, ``code``, ``math`` …
    drafted, branching : candidates per pass, and how many may continue one and the same.
    tokens : mean tokens per pass, the model's own included.
    model : as the source names it.
    source : where it was read.
    """

    drafter: str
    family: str
    parameters: int
    task: str
    drafted: int
    branching: int
    tokens: float
    model: str
    source: str


@lru_cache(maxsize=1)
def accepted_rows() -> tuple[Accepted, ...]:
    """Every row of the table."""
    with (Path(__file__).parent / "acceptance.csv").open(encoding="utf-8", newline="") as file:
        return tuple(
            Accepted(
                r["drafter"], r["family"], int(r["parameters"]), r["task"], int(r["drafted"]), int(r["branching"]),
                float(r["tokens"]), r["model"], r["source"],
            )
            for r in csv.DictReader(file)
        )  # fmt: skip


def published_acceptance(drafter: str, family: str, parameters: int, task: str | None = None) -> Accepted | None:
    """Return the row of a drafter for the model of that family and size, or ``None`` where nothing is published.

    The row of the ``task`` if there is one, else that of mixed tasks, of chat, or the first.

    Examples
    --------
    >>> published_acceptance("medusa-1", "llama", 6738415616).tokens
    2.31
    >>> published_acceptance("medusa-1", "gpt2", 124439808) is None
    True
    """
    found: dict[str, Accepted] = {}
    for row in accepted_rows():
        if (row.drafter, row.family) == (drafter, family) and abs(parameters / row.parameters - 1.0) <= TOLERANCE:
            found.setdefault(row.task, row)
    wanted = next((t for t in (task, *USUAL) if t in found), None)
    return next(iter(found.values()), None) if wanted is None else found[wanted]
