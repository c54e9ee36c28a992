"""Replays of request traces through a real engine, simulated iteration by iteration by the code of ``simulate``."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from perfmodel.calibration.model import Unpredictable
from perfmodel.calibration.reports import GroupReport, Worst, errors_of
from perfmodel.calibration.serving_rows import MILLI, number, origin_of
from perfmodel.calibration.serving_sources import cluster_of, framework_of, model_named
from perfmodel.insight.setting import Question, Setting, make_setting
from perfmodel.insight.simulation import Options, Simulated, simulate
from perfmodel.serving.schedulers import choose_scheduler, usual_scheduler
from perfmodel.solver.problems import ServingProblem
from perfmodel.specs.architecture import Moe
from perfmodel.specs.framework import load_framework
from perfmodel.specs.system import load_system
from perfmodel.specs.trace import Arrival
from perfmodel.specs.workload import load_workload
from perfmodel.techniques.settled import Plan

__all__ = ["REPLAYED", "REPLAYS", "replay_reports"]

REPLAYS = frozenset({"max_num_seqs", "max_num_batched_tokens", "ttft_mean_ms", "tpot_mean_ms", "e2e_mean_s", "dp"})
"""Columns by which a table of replays, one per row, is recognised."""
REPLAYED = frozenset({"queued_s", "first_token_s", "last_token_s", "prompt_tokens", "output_tokens", "dp"})
"""Columns by which a table of replayed requests is recognised."""
_NUMBERS = ("queued_s", "first_token_s", "last_token_s", "prompt_tokens", "output_tokens")
SATURATED = 1.0
"""Median time to the first token above which requests queued for a place [s]."""
Row = Mapping[str, str]
Key = tuple[str, ...]


class _Means(NamedTuple):
    """Means over the requests [s], and output tokens per second."""

    tpot: float
    ttft: float
    throughput: float
    e2e: float


class _Replay(NamedTuple):
    """One replay: its rows, what was measured, whether it queued, what the simulation says; or why there is none."""

    lines: tuple[int, ...]
    row: Row
    measured: _Means
    saturated: bool
    simulated: _Means | str


def _key(row: Row) -> Key:
    return tuple(row.get(name, "") for name in ("model", "gpu", "tp", "dp"))


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    with path.open(newline="", encoding="utf-8-sig") as lines:
        return [(i, {n: v or "" for n, v in r.items() if n}) for i, r in enumerate(csv.DictReader(lines), start=2)]


def _beside(path: Path, ending: str, header: frozenset[str]) -> list[tuple[int, dict[str, str]]]:
    """Rows of the table that belongs to this one, by its name; none where there is no such table."""
    other = path.with_name(path.name.rpartition("_")[0] + f"_{ending}{path.suffix}")
    rows = _rows(other) if other.exists() else []
    return rows if rows and header <= set(rows[0][1]) else []


@lru_cache(maxsize=4)
def _requests(path: Path) -> dict[Key, list[tuple[int, dict[str, str]]]]:
    found: dict[Key, list[tuple[int, dict[str, str]]]] = {}
    for line, row in _rows(path):
        if all(number(row, name) or row.get(name, "").strip().startswith("0") for name in _NUMBERS):
            found.setdefault(_key(row), []).append((line, row))
    return {k: sorted(rows, key=lambda r: float(r[1]["queued_s"])) for k, rows in found.items()}


def _setting(row: Row) -> tuple[Setting, Plan, int]:
    """Model, machine and engine of a replay, its plan, and its replicas.

    Latencies were taken from where the engine queues a request: what clients spend before is left out.
    """
    model = model_named(row.get("model", ""))
    tp, data = max(1.0, number(row, "tp")), max(1.0, number(row, "dp"))
    experts = any(isinstance(run.layer.ffn, Moe) for run in model.architecture.runs)
    system = load_system(cluster_of(row.get("gpu", ""), int(tp * data), row.get("source", "LLMServingSim")))
    framework = load_framework(framework_of(row.get("framework", "") or "vllm"))
    setting = make_setting(model, system, load_workload("chat"), framework, Question())
    problem = setting.problem
    assert isinstance(problem, ServingProblem)  # noqa: S101 - narrows the type: the workload serves
    inside = {**problem.framework, "first_token": 0.0, "first_token_experts": 0.0}
    setting = replace(setting, problem=replace(problem, framework=inside))
    columns = {n: v for t in problem.techniques for n, v in t.neutral.items()}
    columns = {n: float(v) if isinstance(v, (int, float)) else v for n, v in columns.items()}
    shared = data if experts else 1.0
    return setting, Plan(**{**columns, "tp": tp, "ep": shared}), int(data / shared)


def _simulated(row: Row, requests: Sequence[tuple[int, Row]]) -> _Means | str:
    """Means of the simulated replay, or why it cannot be simulated."""
    try:
        setting, x, replicas = _setting(row)
    except Unpredictable as reason:
        return str(reason)
    ranks = int(x.ep)
    rules = choose_scheduler(
        usual_scheduler(setting.framework.name),
        max_sequences=int(number(row, "max_num_seqs") or 256) * ranks,
        token_budget=int(number(row, "max_num_batched_tokens") or 2048) * ranks,
    )
    arrivals = [Arrival(float(r["queued_s"]), int(r["prompt_tokens"]), int(r["output_tokens"])) for _, r in requests]
    options = Options(rules, replicas, prefix_cache=False, kv_tokens=number(row, "kv_tokens") or None)
    return _means(simulate(setting, x, arrivals, options))


def _means(found: Simulated) -> _Means:
    means = {n: s.mean for n, s in found.latencies.items()}
    rate = found.metrics["output_tokens_per_second"] or 0.0
    return _Means(means["tpot"], means["ttft"], rate, means["e2e"])


def _of_requests(requests: Sequence[tuple[int, Row]]) -> tuple[_Means, bool]:
    """Means of replayed requests, and whether they queued for a place."""
    queued, first, last, output = (
        np.array([float(r[name]) for _, r in requests])
        for name in ("queued_s", "first_token_s", "last_token_s", "output_tokens")
    )
    several = output > 1.0
    tpot = float(np.mean((last - first)[several] / (output[several] - 1.0)))
    span = float(last.max() - queued.min())
    means = _Means(tpot, float(np.mean(first - queued)), float(output.sum()) / span, float(np.mean(last - queued)))
    return means, float(np.median(first - queued)) > SATURATED


def _summary(row: Row) -> tuple[_Means, bool]:
    """Means as published, and whether requests queued."""
    tpot, ttft = number(row, "tpot_mean_ms") * MILLI, number(row, "ttft_mean_ms") * MILLI
    means = _Means(tpot, ttft, number(row, "output_tok_s"), number(row, "e2e_mean_s"))
    return means, number(row, "ttft_p50_ms") * MILLI > SATURATED


def _replays(path: Path, header: frozenset[str]) -> Iterator[_Replay]:
    if header >= REPLAYED:
        settings = {_key(row): row for _, row in _beside(path, "summary", REPLAYS)}
        for key, requests in _requests(path).items():
            row = {**requests[0][1], **settings.get(key, {})}
            lines = tuple(line for line, _ in requests)
            yield _Replay(lines, row, *_of_requests(requests), _simulated(row, requests))
        return
    beside = path.with_name(path.name.rpartition("_")[0] + f"_requests{path.suffix}")
    known = _requests(beside) if beside.exists() else {}
    for line, row in _rows(path):
        own = known.get(_key(row), [])
        made = _simulated(row, own) if own else "the requests of the replay are not beside it"
        yield _Replay((line,), row, *_summary(row), made)


def replay_reports(path: Path, header: frozenset[str]) -> list[GroupReport]:
    """Errors of the means of every replay: times per token, to the first token, end to end; output rate.

    Parameters
    ----------
    path : table of replays (``*_summary.csv``) or of their requests (``*_requests.csv``), the other one beside it.
    header : its columns.
    """
    groups: dict[tuple[str, str, str, str], list[_Replay]] = {}
    for replay in _replays(path, header):
        row = replay.row
        framework = row.get("framework") or "vllm"
        key = (origin_of(row), framework, row.get("gpu", ""), row.get("dtype") or "bfloat16")
        groups.setdefault(key, []).append(replay)
    return [_report(str(path), key, own, m) for key, own in groups.items() for m in ("tpot", "ttft", "throughput")]


def _errors(replays: Sequence[_Replay], metric: str) -> dict[str, float]:
    made = [(r.simulated, r.measured) for r in replays if isinstance(r.simulated, _Means)]
    errors = [getattr(s, metric) / getattr(m, metric) - 1.0 for s, m in made if getattr(m, metric) > 0.0]
    if not errors:
        return {}
    return {"rows": float(len(errors)), **errors_of(np.array(errors))}


def _report(file: str, key: tuple[str, str, str, str], replays: Sequence[_Replay], metric: str) -> GroupReport:
    done = [r for r in replays if isinstance(r.simulated, _Means)]
    skipped: dict[str, int] = {}
    for replay in replays:
        if isinstance(replay.simulated, str):
            skipped[replay.simulated] = skipped.get(replay.simulated, 0) + len(replay.lines)
    head = (file, "serving", *key, metric, sum(len(r.lines) for r in replays), sum(len(r.lines) for r in done), skipped)
    if not done:
        return GroupReport(*head)
    found = _errors(done, metric)
    if not found:
        return GroupReport(*head[:-2], 0, {**skipped, f"no {metric} is stated": len(done)})
    parts = {"all rows": found}
    if metric == "ttft":
        kinds = {"saturated": True, "unsaturated": False}
        chosen = {name: [r for r in done if r.saturated == kind] for name, kind in kinds.items()}
        parts |= {name: _errors(own, metric) for name, own in chosen.items() if own}
    if metric == "tpot":
        parts["end to end"] = _errors(done, "e2e")
    parts = {name: part for name, part in parts.items() if part}
    return GroupReport(
        *head,
        median_abs_error=found["median_abs_error"],
        p90_abs_error=found["p90_abs_error"],
        mean_error=found["mean_error"],
        tier="simulated",
        subsets=parts,
        worst=tuple(
            Worst(r.lines[0], getattr(r.measured, metric), getattr(r.simulated, metric), {"requests": len(r.lines)})
            for r in done[:3]
        ),
    )
