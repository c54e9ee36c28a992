"""A layer timed operator by operator against a layer of the same pass."""

from __future__ import annotations

from pathlib import Path

from perfmodel.calibration.serving_layers import layer_reports

HEADER = "device,num_gpus,tp,phase,d_model,n_heads,batch,seq_len,kv_len,dtype,op,time_us,source"


def row(phase: str, op: str, microseconds: float, *, width: int = 12288) -> str:
    """An operator of GPT-3 on four A100."""
    keys = 3072 if phase == "decode" else 2048
    return f"A100-SXM4-80GB,4,4,{phase},{width},96,8,2048,{keys},fp16,{op},{microseconds},LLMCompass:x"


def test_the_operators_of_a_phase_add_up_to_a_layer(tmp_path: Path) -> None:
    """Sums as published (LLMCompass, figure 5): 66.7 ms for a prefill, 1.11 ms for a decode; totals count once."""
    path = tmp_path / "layer.csv"
    rows = [row("prefill", "all", 60000.0), row("prefill", "sync", 6747.0), row("prefill", "TOTAL(sum)", 66747.0),
            row("decode", "all", 1110.9)]  # fmt: skip
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    found = {r.metric: r for r in layer_reports(path)}
    assert found["ttft"].rows == 2
    assert abs(found["ttft"].mean_error or 1.0) < 0.1
    assert abs(found["tpot"].mean_error or 1.0) < 0.2


def test_layers_of_no_known_model_are_counted(tmp_path: Path) -> None:
    """Their width says so."""
    path = tmp_path / "layer.csv"
    path.write_text("\n".join([HEADER, row("prefill", "all", 1.0, width=1000)]) + "\n")
    (report,) = layer_reports(path)
    assert (report.predicted, sum(report.skipped.values())) == (0, 1)
