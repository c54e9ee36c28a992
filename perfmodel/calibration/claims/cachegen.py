"""The bandwidth at which fetching keys and values takes as long as computing them."""

from __future__ import annotations

from typing import Any

from perfmodel.calibration.claims.run import Run

__all__ = ["chosen", "crossover"]


def _prompt(run: Run, plan: str, bandwidth: float) -> float:
    """Time of a prompt with so much bandwidth to shared storage per node [s]."""
    found = run.evaluate(run.asked(plan), changes=_changed(bandwidth))
    return sum(row.seconds for row in (found.extra_terms or {})["prefill"])


def _changed(bandwidth: float) -> dict[str, Any]:
    return {"file_system.read": f"{bandwidth!r} B/s"}


def _meeting(run: Run, plan: str) -> tuple[float, float]:
    """Bandwidth of the node where both ways take the same time [B/s], and that time [s]."""
    text = _prompt(run, "text", 1e9)
    low, high = 1e7, 1e13
    for _ in range(60):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if _prompt(run, plan, middle) > text else (low, middle)
    return high, text


def crossover(run: Run, plan: str, rate: float) -> float:
    """Bandwidth per device at which both ways take the same time, were the products done at ``rate`` [GB/s]."""
    found = run.estimate(run.asked("text"))
    bandwidth, _ = _meeting(run, plan)
    devices = found.system.cluster.node.accelerator.count
    saved = _prompt(run, "text", 1e9) - _prompt(run, "resident", 1e9)
    reached = 2.0 * found.model.parameters * found.asked.reused / saved  # type: ignore[union-attr]
    return bandwidth / devices * rate / reached / 1e9


def chosen(run: Run, plan: str) -> float:
    """1 where the fastest plan computes a tenth below the crossover and fetches a tenth above."""
    asked = run.asked("text")
    bandwidth, _ = _meeting(run, plan)
    stream = run.asked(plan).columns["kv_stream"]
    found = []
    for factor in (0.9, 1.1):
        times = {p: _prompt(run, p, bandwidth * factor) for p in ("text", plan)}
        one = {"changes": _changed(bandwidth * factor), "columns": {"batch": 1, "tp": 1, "pp": 1}}
        pins = {"kv_source": ("none", "files"), "kv_stream": ("plain", stream)}
        best = run.solve(asked.model_copy(update=one), **pins)
        picked = "none" if best is None else str(best.columns["kv_source"])
        found.append(picked == ("files" if times[plan] < times["text"] else "none"))
    return float(all(found))
