"""Replays run through the simulator: alone a request is a pass and its decodes; tables find each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from perfmodel.calibration.reports import GroupReport
from perfmodel.calibration.serving_replays import REPLAYED, REPLAYS, replay_reports

REQUESTS = "model,gpu,tp,dp,request,arrival_s,queued_s,first_token_s,last_token_s,prompt_tokens,output_tokens"
SUMMARY = (
    "model,gpu,num_gpus,tp,dp,ep,dtype,framework,requests,max_num_seqs,max_num_batched_tokens,kv_tokens,"
    "ttft_mean_ms,ttft_p50_ms,tpot_mean_ms,e2e_mean_s,output_tok_s,source"
)


def replay(tmp_path: Path, *requests: str, seqs: int = 128) -> dict[tuple[str, str], GroupReport]:
    """Reports by table and metric."""
    paths = (tmp_path / "x_vllm_requests.csv", tmp_path / "x_vllm_summary.csv")
    paths[0].write_text("\n".join([REQUESTS, *requests]) + "\n")
    row = f"Llama-3.1-8B,RTX4090,1,1,1,1,bfloat16,vllm 0.19.0,1,{seqs},2048,41408,100,100,20,2,50,LLMServingSim:x"
    paths[1].write_text(f"{SUMMARY}\n{row}\n")
    headers = (REPLAYED, REPLAYS)
    found = [(h, r) for p, h in zip(paths, headers, strict=True) for r in replay_reports(p, h)]
    return {("requests" if h is REPLAYED else "summary", r.metric): r for h, r in found}


def test_a_lone_request_takes_its_prompt_and_its_decodes(tmp_path: Path) -> None:
    """Output over the rate is the time to the first token and all later ones; both tables tell the same simulation."""
    found = replay(tmp_path, "Llama-3.1-8B,RTX4090,1,1,0,0,0,0.1,2.0,500,100")
    tpot, ttft, rate = (found["requests", m].worst[0].predicted for m in ("tpot", "ttft", "throughput"))
    assert 100.0 / rate == pytest.approx(ttft + 99.0 * tpot)
    assert found["summary", "tpot"].worst[0].predicted == tpot
    assert tpot > 16.06e9 / 1008e9  # the weights, read once per token
    assert found["requests", "tpot"].worst[0].measured == pytest.approx(1.9 / 99.0)


def test_fewer_places_make_requests_wait(tmp_path: Path) -> None:
    """Eight requests at once on two places: the output rate falls and the wait for the first token grows."""
    rows = [f"Llama-3.1-8B,RTX4090,1,1,{i},0,0,0.1,2.0,100,50" for i in range(8)]
    many, few = (replay(tmp_path, *rows, seqs=n) for n in (8, 2))
    for metric, sign in (("throughput", 1), ("ttft", -1)):
        wide, narrow = (r["requests", metric].worst[0].predicted for r in (many, few))
        assert sign * (wide - narrow) > 0


def test_a_replay_on_an_unknown_machine_is_counted(tmp_path: Path) -> None:
    """Every request of it is among the rows that are not predicted."""
    path = tmp_path / "y_requests.csv"
    path.write_text(f"{REQUESTS}\nLlama-3.1-8B,GeForce 256,1,1,0,0,0,0.1,2.0,500,100\n")
    (report, *_) = replay_reports(path, REPLAYED)
    assert (report.predicted, sum(report.skipped.values())) == (0, 1)
