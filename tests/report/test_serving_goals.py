"""Goals of serving: one row per goal that has groups, held against what was not set aside, with all rows beside."""

from __future__ import annotations

from typing import Any

from perfmodel.report.serving_goals import SERVING_GOALS, serving_goal_table


def group(median: float, *, rows: int = 20, framework: str = "vllm", metric: str = "tpot") -> dict[str, Any]:
    """Report of a group as validation gives it."""
    errors = {"median_abs_error": median, "p90_abs_error": 2.0 * median, "mean_error": 0.01}
    whole = {"rows": rows + 5, **{n: 3.0 * v for n, v in errors.items()}}
    return {
        "operator": "serving", "source": "aiconfigurator", "framework": framework, "metric": metric, "dtype": "fp8",
        "predicted": rows, "subsets": {"all rows": whole}, **errors,
    }  # fmt: skip


def test_groups_count_by_framework_and_level() -> None:
    """One within the aim, one within the least, one in neither, one too small to tell."""
    table = serving_goal_table([group(0.05), group(0.09), group(0.2), group(0.01, rows=4)])
    assert len(table) == 5
    cells = [cell.strip() for cell in table[-1].strip("|").split("|")]
    assert cells[0] == "vLLM, time per token"
    assert cells[3:] == ["9 / 18 %", "27 / 54 %", "2/3", "1/3"]


def test_kinds_of_deployments_are_not_pooled() -> None:
    """A disaggregated deployment counts for its own goal only, and a bias beyond the least fails a group."""
    table = serving_goal_table([group(0.05, framework="vllm, disaggregated")])
    assert [row.split("|")[1].strip() for row in table[4:]] == ["disaggregated, time per token"]
    skewed = {**group(0.05), "mean_error": -0.09}
    assert serving_goal_table([skewed])[-1].endswith("| 0/1 | 1/1 |")


def test_every_goal_aims_higher_than_it_must() -> None:
    """Aims are no looser than what is least."""
    for goal in SERVING_GOALS:
        assert goal.aim.median < goal.must.median
