"""Accuracy that predictions of serving are built for, by source and framework, and how many groups reach it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from perfmodel.report.goals import Level, told, within

__all__ = ["SERVING_GOALS", "ServingGoal", "serving_goal_table"]

Report = Mapping[str, Any]
FEWEST = 10
"""Rows of a group that say something about a 90th percentile, where a goal asks for one."""
ALL = "all rows"


class ServingGoal(NamedTuple):
    """What the groups of one framework, or of one kind of table, should reach.

    Parameters
    ----------
    title : name in the table.
    metric : ``tpot``, ``ttft``, ``throughput`` or ``memory``.
    source, framework, line : what theirs begins with; the line of the memory ledger stands where others have a format.
    must, aim : least accuracy, and the accuracy that the model is built for.
    part : subset of their rows; those that were not set aside if empty.
    """

    title: str
    metric: str
    source: str
    framework: str
    must: Level
    aim: Level
    part: str = ""
    line: str = ""


def _closed(framework: str, title: str) -> tuple[ServingGoal, ...]:
    """Goals of closed-loop runs of one framework."""
    name, source = f"{framework}$", "aiconfigurator"
    narrow = (Level(0.22, 0.65), Level(0.15, 0.45)) if framework != "sglang" else (Level(0.35, 0.9), Level(0.25, 0.6))
    wide = (Level(0.35, 0.9), Level(0.25, 0.6))
    return (
        ServingGoal(f"{title}, time per token", "tpot", source, name, Level(0.10, 0.28, 0.08), Level(0.07, 0.20)),
        ServingGoal(f"{title}, throughput", "throughput", source, name, Level(0.10, 0.32, 0.08), Level(0.07, 0.22)),
        ServingGoal(f"{title}, first token, dense models", "ttft", source, name, *narrow, part="dense"),
        ServingGoal(f"{title}, first token, experts", "ttft", source, name, *wide, part="experts"),
    )


SERVING_GOALS: tuple[ServingGoal, ...] = (
    *_closed("vllm", "vLLM"),
    *_closed("trtllm", "TensorRT-LLM"),
    *_closed("sglang", "SGLang"),
    ServingGoal("disaggregated, time per token", "tpot", "aiconfigurator", ".*, disaggregated",
                Level(0.18, 0.45), Level(0.12, 0.30)),
    ServingGoal("disaggregated, first token", "ttft", "aiconfigurator", ".*, disaggregated",
                Level(0.55, 1.50), Level(0.35, 0.80)),
    ServingGoal("speculating cohorts, time per token", "tpot", "aiconfigurator", ".*, speculating",
                Level(0.15, 0.40), Level(0.10, 0.30)),
    ServingGoal("TensorRT-LLM, most throughput", "throughput", "NVIDIA", "TensorRT-LLM v1",
                Level(0.20, 0.50), Level(0.13, 0.35)),
    ServingGoal("TensorRT-LLM of 2023, static batch", "throughput", "NVIDIA", "TensorRT-LLM v0",
                Level(0.08, 0.35), Level(0.05, 0.20)),
    ServingGoal("TensorRT-LLM of 2023, first token", "ttft", "NVIDIA", "TensorRT-LLM v0",
                Level(0.13, 0.25), Level(0.10, 0.20)),
    ServingGoal("Splitwise, time per token", "tpot", "splitwise", "", Level(0.08, 0.16), Level(0.05, 0.12)),
    ServingGoal("Splitwise, first token", "ttft", "splitwise", "", Level(0.10, 0.28), Level(0.07, 0.20)),
    ServingGoal("vLLM replays, mean time per token", "tpot", "LLMServingSim", "", Level(0.10), Level(0.05)),
    ServingGoal("vLLM replays, mean end to end", "tpot", "LLMServingSim", "", Level(0.10), Level(0.05), "end to end"),
    ServingGoal("vLLM replays, output over makespan", "throughput", "LLMServingSim", "", Level(0.10), Level(0.05)),
    ServingGoal("vLLM replays, mean first token, saturated", "ttft", "LLMServingSim", "",
                Level(0.12), Level(0.07), "saturated"),
    ServingGoal("vLLM replays, mean first token, unsaturated", "ttft", "LLMServingSim", "",
                Level(0.50), Level(0.25), "unsaturated"),
    ServingGoal("MLPerf offline, best layout", "throughput", "mlcommons", "", Level(0.13, 0.33), Level(0.08, 0.25)),
    ServingGoal("memory of vLLM, weights", "memory", "", "vllm", Level(0.05), Level(0.02), line="weights"),
    ServingGoal("memory of vLLM, runtime", "memory", "", "vllm", Level(0.05), Level(0.02), line="runtime"),
    ServingGoal("memory of vLLM, KV capacity", "memory", "", "vllm", Level(0.08), Level(0.04), line="KV capacity"),
)  # fmt: skip
"""Goals, set from what a prototype with thirty constants reached on rows held out of its fit. Rows set aside have a
physical reason in the report; the figure with all rows stands beside."""


def _parts(goal: ServingGoal, reports: Sequence[Report]) -> Iterator[tuple[Report, Report]]:
    """Errors that a goal looks at, and those with all rows, group by group."""
    for r in reports:
        if r["operator"] != "serving" or r["metric"] != goal.metric or r["median_abs_error"] is None:
            continue
        if not (re.match(goal.source, r["source"]) and re.match(goal.framework, r["framework"])):
            continue
        if goal.line and r["dtype"] != goal.line:
            continue
        part = r["subsets"].get(goal.part) if goal.part else r
        if part is None or (goal.must.p90 is not None and part.get("predicted", part.get("rows", 0)) < FEWEST):
            continue
        yield part, r["subsets"].get(ALL, r)


def serving_goal_table(reports: Sequence[Report]) -> list[str]:
    """Markdown table of goals: median / 90th percentile of the median group, also with all rows, and groups within."""
    rows = []
    for goal in SERVING_GOALS:
        found = list(_parts(goal, reports))
        if not found:
            continue
        middle, whole = (
            [float(f"{median(p[name] for p in own):.3g}") for name in ("median_abs_error", "p90_abs_error")]
            for own in ([p for p, _ in found], [w for _, w in found])
        )
        must, aim = (sum(within(p, level) for p, _ in found) for level in (goal.must, goal.aim))
        cells = (goal.title, told(goal.must), told(goal.aim), told(middle), told(whole))
        rows.append("| " + " | ".join((*cells, f"{must}/{len(found)}", f"{aim}/{len(found)}")) + " |")
    if not rows:
        return []
    head = ("serving", "least", "aim", "median group", "with all rows", "groups within least", "within aim")
    words = (
        f"Serving: median / 90th percentile / mean; groups of {FEWEST} rows or more where a percentile is asked for."
    )
    return [words, "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head), *rows]
