"""Memory that vLLM logs at start: every line is the plan's, and what does not add up is set aside."""

from __future__ import annotations

from pathlib import Path

from perfmodel.calibration.reports import GroupReport
from perfmodel.calibration.serving_memory import OTHER_SHARE, ledger_reports

HEADER = (
    "model,tp,gpu_memory_utilization,max_model_len,weights_gib,activation_peak_gib,non_torch_gib,cuda_graph_gib,"
    "kv_cache_gib,outcome,gpu,gpu_memory_gib,engine,source"
)
LLAMA = 'Llama-3.1-8B,1,0.9,16000,14.99,4.76,0.13,-0.45,51.38,fits,H100,79.18,"vLLM",llm-d planner (Apache-2.0)'


def reports(tmp_path: Path, *rows: str) -> dict[str, GroupReport]:
    """Reports of a table by line of the ledger."""
    path = tmp_path / "memory.csv"
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    return {r.dtype: r for r in ledger_reports(path)}


def test_every_logged_line_of_published_rows_is_the_plans(tmp_path: Path) -> None:
    """Rows as published (llm-d planner, vLLM on one H100): one device, two devices, packed experts."""
    rows = (
        LLAMA,
        "Qwen3-32B,2,0.9,16000,30.59,5.64,0.54,-0.33,34.49,fits,H100,79.18,same,same",
        "gpt-oss-20b,1,0.9,16000,13.47,7.38,0.13,0.39,50.28,fits,H100,79.18,same,same",
    )
    found = reports(tmp_path, *rows)
    assert set(found) == {"weights", "activations", "runtime", "KV capacity"}
    for report in found.values():
        assert (report.metric, report.predicted) == ("memory", 3)
        assert report.p90_abs_error < 0.05


def test_an_engine_without_room_for_a_request_is_told(tmp_path: Path) -> None:
    """Qwen3 32B in 16 bits starts on one H100 with 16,000 tokens, and not with 32,000."""
    fits = "Qwen3-32B,1,0.9,16000,61.03,5.64,0.14,-0.88,4.45,fits,H100,79.18,vLLM,llm-d"
    full = "Qwen3-32B,1,0.9,32000,61.03,,,,,no room for KV cache at this length,H100,79.18,vLLM,llm-d"
    room = reports(tmp_path, fits, full)["KV capacity"]
    assert room.scores["starting_or_not_told_right"] == 1.0


def test_lines_that_do_not_add_up_are_set_aside_but_counted(tmp_path: Path) -> None:
    """A capacity that the recorded share of the memory cannot hold beside the other lines tells of another share."""
    room = reports(tmp_path, LLAMA, LLAMA.replace(",51.38,", ",55.34,"))["KV capacity"]
    assert room.skipped == {OTHER_SHARE: 1}
    assert room.subsets["all rows"]["rows"] == 2
