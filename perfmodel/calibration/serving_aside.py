"""Rows of serving tables whose measurement is of something else than the row says, with the physical reason."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from perfmodel.calibration.serving_rows import ServingRow

__all__ = ["running_share", "set_aside", "speculating"]

Array = NDArray[np.float64]
_RUNNING = 0.6
"""Share of the clients' requests that must run at the same time for a row to tell of that batch."""
_SPECULATING = (0.3, 0.75)
"""Median of measured over predicted time per token of a cohort between which it must have speculated: below, no usual
length of accepted drafts explains it."""
_COHORT = 4
"""Rows of a cohort that tell whether it speculates."""
SPECULATED = "the cohort speculates without saying so: faster than its kernels, and its model has a draft head"
QUEUED = "the server ran fewer requests than the clients had open (Little's law): another batch"


def running_share(row: ServingRow) -> float:
    """Share of the open requests that were being decoded, by Little's law; 1 where a latency is missing."""
    tpot, ttft = row.measured.get("tpot"), row.measured.get("ttft")
    if not tpot or not ttft:
        return 1.0
    return tpot * row.output / (ttft + tpot * row.output)


def set_aside(rows: Sequence[ServingRow], metric: str, drafting: Sequence[int] = ()) -> dict[int, str]:
    """Rows whose measurement is of something else than the row says, by place, with the physical reason.

    Parameters
    ----------
    rows : runs.
    metric : what is compared.
    drafting : places of rows whose cohorts speculate.
    """
    found = dict.fromkeys(drafting, SPECULATED)
    if metric != "throughput":
        found |= {i: QUEUED for i, row in enumerate(rows) if row.mode == "closed" and running_share(row) < _RUNNING}
    return found


def speculating(rows: Sequence[ServingRow], tpot: Array) -> list[int]:
    """Rows of cohorts that are faster than their kernels allow, decided by cohort, for models with a draft head."""
    cohorts: dict[tuple[str, ...], list[int]] = {}
    for i, row in enumerate(rows):
        if "tpot" in row.measured and row.drafts:
            cohorts.setdefault(row.cohort, []).append(i)
    low, high = _SPECULATING
    ratio = {c: np.median([rows[i].measured["tpot"] / tpot[i] for i in own]) for c, own in cohorts.items()}
    found = [own for cohort, own in cohorts.items() if low < ratio[cohort] < high and len(own) >= _COHORT]
    return [i for own in found for i in own]
