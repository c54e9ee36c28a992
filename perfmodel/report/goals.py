"""Accuracy that predictions are built for, and how many groups of measurements reach it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

__all__ = ["GOALS", "SCORES", "Goal", "Level", "goal_table", "told", "within"]

Report = Mapping[str, Any]
FEWEST = 10
"""Rows of a group, or of a part of it, that say something about a 90th percentile."""


class Level(NamedTuple):
    """Largest errors: median and 90th percentile of their size, size of their mean; ``None`` asks nothing."""

    median: float
    p90: float | None = None
    bias: float | None = None


class Goal(NamedTuple):
    """What the groups of one class of measurements should reach on rows that no fit has seen.

    Parameters
    ----------
    title : name in tables.
    operator : operator class of the groups.
    format : what their number format begins with.
    part : subset of their rows; all of them if empty.
    metric : what is compared; anything if empty.
    framework, device, source : regular expressions, case ignored, that the group's must match.
    fewest : rows of a group, or of a part of it, that it takes.
    must, aim : least accuracy, and the accuracy that the model is built for.
    """

    title: str
    operator: str
    must: Level
    aim: Level
    format: str = ""
    part: str = ""
    framework: str = ""
    device: str = ""
    source: str = ""
    metric: str = ""
    fewest: int = FEWEST

    def holds(self, r: Report) -> bool:
        """Whether a group is one of those that it speaks of."""
        fields = ((self.framework, r["framework"]), (self.device, r["device"]), (self.source, r["source"]))
        own = r["operator"] == self.operator and r["dtype"].startswith(self.format)
        own = own and self.metric in ("", r["metric"])
        return own and all(re.search(pattern, text, re.IGNORECASE) for pattern, text in fields)


def _run(title: str, must: tuple[float, float], aim: tuple[float, float], part: str = "") -> Goal:
    """Goal of a class of training runs, which are pooled, or of a part of the playbook's sweep; errors in percent."""
    least, best = (Level(*(x / 100.0 for x in pair)) for pair in (must, aim))
    if part:
        return Goal(title, "training", least, best, part=part, framework="nanotron", metric="step_time")
    return Goal(title, "training class", least, best, source=f"^{re.escape(title)}$", fewest=1)


_CACHED = "cache beyond the last-level cache"
GOALS: tuple[Goal, ...] = (
    Goal("matrix products", "gemm", Level(0.08, 0.30, 0.05), Level(0.055, 0.20, 0.02)),
    Goal(
        "matrix products, weights beyond the cache",
        "gemm",
        Level(0.06, 0.18, 0.03),
        Level(0.04, 0.12, 0.015),
        part="weights beyond the cache",
    ),
    Goal("attention, prefill", "attention", Level(0.12, 0.45, 0.08), Level(0.08, 0.30, 0.03)),
    Goal("attention, decode", "decode_attention", Level(0.10, 0.32, 0.05), Level(0.065, 0.22, 0.02)),
    Goal(
        "attention, decode beyond the cache",
        "decode_attention",
        Level(0.08, 0.32, 0.05),
        Level(0.05, 0.18, 0.02),
        part=_CACHED,
    ),
    Goal("latent attention, context", "mla", Level(0.08, 0.28), Level(0.05, 0.17), format="context"),
    Goal("latent attention, generation", "mla", Level(0.10, 0.45), Level(0.06, 0.28), format="generation"),
    Goal("fused experts", "moe", Level(0.15, 0.50, 0.06), Level(0.09, 0.30, 0.03)),
    Goal("norms, elementwise", "elementwise", Level(0.15, 0.70), Level(0.08, 0.40)),
    Goal(
        "all-reduce on Frontier",
        "collective",
        Level(0.12, 0.40),
        Level(0.07, 0.25),
        device="Frontier",
        format="int32",
    ),
    Goal("NCCL", "collective", Level(0.08, 0.25), Level(0.05, 0.15), framework="^NCCL$"),
    Goal(
        "custom all-reduce on NVLink",
        "collective",
        Level(0.12, 0.45),
        Level(0.07, 0.25),
        framework="custom|TRTLLM",
        device="A100|H[12]00|B[23]00",
    ),
    Goal("exchange between experts", "expert_exchange", Level(0.09, 0.35), Level(0.06, 0.22)),
    _run("Megatron-LM, Korthikanti", (4, 9), (3, 6.5)),
    _run("Megatron-LM, Narayanan", (4, 7), (2.5, 5)),
    _run("llm-foundry, A100", (3, 11), (2, 8)),
    _run("llm-foundry, H100 bf16", (2.5, 7), (2, 5)),
    _run("llm-foundry, H100 fp8", (12, 18), (8, 15)),
    _run("MI250X: Megatron-DeepSpeed on ROCm 5", (8, 20), (5, 12)),
    _run("MI250X: GPT-NeoX (FORGE)", (8, 20), (5, 12)),
    _run("MI250X: torchtitan", (8, 20), (5, 12)),
    _run("MI250X: Accelerate", (8, 20), (5, 12)),
    _run("MI250X: Megatron on ROCm 6", (8, 20), (5, 12)),
    _run("DGX Cloud, H100 bf16", (3, 13), (2, 5)),
    _run("DGX Cloud, H100 fp8", (3, 13), (2, 5)),
    _run("DGX Cloud, GB200", (10, 14), (4, 10)),
    _run("never fitted: fms-fsdp", (10, 20), (5, 12)),
    _run("never fitted: NeMo 24.07", (10, 20), (5, 12)),
    _run("Megatron-Bridge, dense on H100", (4, 8), (3, 6)),
    _run("Megatron-Bridge, dense on Blackwell, fp8 and fp4", (10, 21), (7, 15)),
    _run("Megatron-Bridge, experts", (18, 45), (12, 30)),
    _run("torchtitan", (15, 28), (6, 15)),
    _run("vTrain, several nodes", (7, 20), (4, 15)),
    _run("vTrain, one node", (5, 17), (3, 10)),
    _run("BLOOM, A100", (8, 15), (4.5, 12)),
    _run("playbook A", (5, 20), (4, 12), "A: no pipeline, tp up to 8, below 512"),
    _run("playbook A2", (12, 55), (8, 30), "A2: no pipeline, tp above 8, below 512"),
    _run("playbook B", (13, 80), (10, 70), "B: pipeline, below 512"),
    _run("playbook, core", (9, 22), (5, 15), "core: tp up to 8, published MFU from 15 %"),
    _run("memory: playbook", (7.5, 25), (4, 13)),
    _run("memory: BLOOM, A100", (8, 11), (3.5, 10)),
    _run("memory: Korthikanti", (5, 5), (2, 2)),
)
"""Goals on rows held out of the fit, one group per source, framework, device and format; set from what fits of few
constants reached on held-out rows, and from the scatter of one shape between twin devices (4 to 6 % in the median)."""


def _parts(goal: Goal, reports: Iterable[Report]) -> Iterator[tuple[Report, Report]]:
    """Groups of a goal with the errors of the part that it looks at."""
    for r in reports:
        if not goal.holds(r):
            continue
        part = r["subsets"].get(goal.part) if goal.part else r
        if part and part.get("predicted", part["rows"]) >= goal.fewest and part["median_abs_error"] is not None:
            yield r, part


def within(part: Report, level: Level) -> bool:
    """Whether errors are no larger than a level asks."""
    sizes = (part["median_abs_error"], part["p90_abs_error"], abs(part["mean_error"]))
    return all(limit is None or size <= limit for size, limit in zip(sizes, level, strict=True))


def told(level: Level | Sequence[float | None]) -> str:
    """Errors in words, in percent."""
    return " / ".join("-" if x is None else f"{100.0 * x:.3g}" for x in level) + " %"


class Score(NamedTuple):
    """A figure of merit other than an error: the least, and the one aimed at."""

    title: str
    metric: str
    name: str
    must: float
    aim: float
    higher: bool = True


SCORES: tuple[Score, ...] = (
    Score("order of plans of one model and device count (Kendall's tau)", "ranking", "kendall_tau", 0.70, 0.78),
    Score(
        "best of the five predicted best over the measured best", "ranking", "best_of_top_5_worst", 0.17, 0.10, False
    ),
    Score("memory tells what fails from what runs (ROC AUC)", "completed", "roc_auc", 0.96, 0.98),
)


def _score_lines(reports: Sequence[Report]) -> list[str]:
    """Markdown table of the figures of merit of the playbook's sweep."""
    rows = []
    for score in SCORES:
        own = (r["scores"] for r in reports if r["metric"] == score.metric and r["framework"].startswith("nanotron"))
        value = next((s[score.name] for s in own if score.name in s), None)
        if value is not None:
            better = [value >= x if score.higher else value <= x for x in (score.must, score.aim)]
            verdicts = ["yes" if b else "no" for b in better]
            cells = (score.title, f"{score.must:g}", f"{score.aim:g}", f"{value:.3g}", *verdicts)
            rows.append("| " + " | ".join(cells) + " |")
    head = ("playbook", "least", "aim", "reached", "least reached", "aim reached")
    return ["", "| " + " | ".join(head) + " |", "|" + "---|" * len(head), *rows] if rows else []


def goal_table(reports: Sequence[Report]) -> list[str]:
    """Markdown table of goals: median / 90th percentile / mean error of the median group, and groups within."""
    rows = []
    for goal in GOALS:
        found = list(_parts(goal, reports))
        if not found:
            continue
        sizes = zip(*((p["median_abs_error"], p["p90_abs_error"], abs(p["mean_error"])) for _, p in found), strict=True)
        middle = [float(f"{median(size):.3g}") for size in sizes]
        must, aim = (sum(within(p, level) for _, p in found) for level in (goal.must, goal.aim))
        count = sum(r["predicted"] for r, _ in found)
        known = [r for r, _ in found if r["inside"] is not None]
        inside = f"{sum(r['inside'] * r['predicted'] for r in known) / count:.0%}" if known else "-"
        cells = (goal.title, told(goal.must), told(goal.aim), told(middle), f"{must}/{len(found)}")
        rows.append("| " + " | ".join((*cells, f"{aim}/{len(found)}", inside)) + " |")
    if not rows:
        return []
    head = ("class", "least", "aim", "median group", "groups within least", "within aim", "inside 80 % interval")
    note = (
        f"Median / 90th percentile / size of the mean error; groups and parts of {FEWEST} rows or more. "
        "Training runs of a class are pooled."
    )
    return [note, "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head), *rows, *_score_lines(reports)]
