"""Rows of serving tables whose measurement is of something else than the row says, with the physical reason."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from perfmodel.calibration.serving_rows import ServingRow

__all__ = ["cold", "running_share", "set_aside", "speculating"]

Array = NDArray[np.float64]
_RUNNING = 0.6
"""Share of the clients' requests that must run at the same time for a row to tell of that batch."""
_SPECULATING = (0.3, 0.75)
"""Median of measured over predicted time per token of a cohort between which it must have speculated: below, no usual
length of accepted drafts explains it."""
_QUICKER = 0.93
"""Time per token over that of a run of the same shape, below which the one drafted and the other did not."""
_COHORT = 4
"""Rows of a cohort that tell whether it speculates."""
_COLD, _RIGHT = 3.0, 0.2
"""Median of measured over predicted time to the first token of a cohort above which its first requests waited for a
server that was not warm, and how well its times per token must then be predicted."""
COLD = "the server was not warm: first tokens of the cohort come late whatever the load, the others in time"
SPECULATED = "the cohort speculates without saying so: faster than its kernels, and its model has a draft head"
QUEUED = "the server ran fewer requests than the clients had open (Little's law): another batch"


def running_share(row: ServingRow) -> float:
    """Share of the open requests that were being decoded, by Little's law; 1 where a latency is missing."""
    tpot, ttft = row.measured.get("tpot"), row.measured.get("ttft")
    if not tpot or not ttft:
        return 1.0
    return tpot * row.output / (ttft + tpot * row.output)


def set_aside(
    rows: Sequence[ServingRow], metric: str, drafting: Sequence[int] = (), started: Sequence[int] = ()
) -> dict[int, str]:
    """Rows whose measurement is of something else than the row says, by place, with the physical reason.

    Parameters
    ----------
    rows : runs.
    metric : what is compared.
    drafting : places of rows whose cohorts speculate.
    started : places of rows whose servers were not warm.
    """
    found = dict.fromkeys(drafting, SPECULATED) | {i: row.unlike for i, row in enumerate(rows) if row.unlike}
    if metric == "ttft":
        found |= dict.fromkeys(started, COLD)
    if metric != "throughput":
        found |= {i: QUEUED for i, row in enumerate(rows) if row.mode == "closed" and running_share(row) < _RUNNING}
    return found


def _cohorts(rows: Sequence[ServingRow], metrics: Sequence[str]) -> dict[tuple[str, ...], list[int]]:
    """Places of the rows that state some metrics, by cohort."""
    found: dict[tuple[str, ...], list[int]] = {}
    for i, row in enumerate(rows):
        if all(metric in row.measured for metric in metrics):
            found.setdefault(row.cohort, []).append(i)
    return found


def cold(rows: Sequence[ServingRow], tpot: Array, ttft: Array) -> list[int]:
    """Rows of closed loops whose servers were not warm, decided by cohort: tokens come in time, first tokens do not."""
    found = []
    for own in _cohorts(rows, ("tpot", "ttft")).values():
        late = np.median([rows[i].measured["ttft"] / ttft[i] for i in own])
        off = np.median([abs(rows[i].measured["tpot"] / tpot[i] - 1.0) for i in own])
        if rows[own[0]].mode == "closed" and len(own) >= _COHORT and late > _COLD and off < _RIGHT:
            found += own
    return sorted(found)


def _declared(rows: Sequence[ServingRow]) -> set[int]:
    """Rows whose configuration drafts tokens, and the quicker ones of shapes that were run with and without."""
    found = {i for i, row in enumerate(rows) if row.drafting == "yes"}
    twins: dict[tuple[object, ...], list[int]] = {}
    for i, row in enumerate(rows):
        if row.drafting == "quicker" and "tpot" in row.measured:
            key = (row.cohort, row.prompt, row.output, *sorted(row.columns.items()))
            twins.setdefault(key, []).append(i)
    for own in twins.values():
        slowest = max(rows[i].measured["tpot"] for i in own)
        found |= {i for i in own if rows[i].measured["tpot"] < _QUICKER * slowest}
    return found


def speculating(rows: Sequence[ServingRow], tpot: Array) -> list[int]:
    """Rows that draft tokens by their configuration, and those of cohorts that are faster than their kernels allow.

    The latter is decided by cohort, for models with a draft head.
    """
    declared = _declared(rows)
    unsaid = {i for i, row in enumerate(rows) if row.drafts and row.drafting != "no" and i not in declared}
    cohorts = {c: kept for c, own in _cohorts(rows, ("tpot",)).items() if (kept := [i for i in own if i in unsaid])}
    low, high = _SPECULATING
    ratio = {c: np.median([rows[i].measured["tpot"] / tpot[i] for i in own]) for c, own in cohorts.items()}
    found = [own for cohort, own in cohorts.items() if low < ratio[cohort] < high and len(own) >= _COHORT]
    return sorted(declared | {i for own in found for i in own})
