"""``perfmodel simulate`` as a user runs it."""

from __future__ import annotations

import json

import pytest

from perfmodel.cli.main import run

BASE = ["simulate", "--model", "llama8b", "--hw", "h100"]


def answer(capsys, *more: str) -> dict:
    assert run([*BASE, *more, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_synthetic_load_is_served(capsys) -> None:
    found = answer(capsys, "--rate", "4", "--requests", "400")
    m = found["metrics"]
    assert found["schema"] == "perfmodel.simulation/1"
    assert m["requests"] == 400
    assert found["stability"]["stable"] is True
    assert 0 < found["latencies"]["ttft"]["p50"] <= found["latencies"]["ttft"]["p99"]
    share = m["output_tokens_per_second"] / m["total_tokens_per_second"]
    assert share == pytest.approx(_share(), rel=1e-9)


def _share() -> float:
    """Output over all tokens of the chat workload."""
    from perfmodel.specs.workload import load_workload

    chat = load_workload("chat")
    return chat.output / (chat.output + chat.prompt)


def test_an_idle_replica_answers_as_the_plan_says(capsys) -> None:
    """One request at a time: TPOT is the decode pass of the plan at batch 1, TTFT its prefill and the host."""
    found = answer(capsys, "--rate", "0.01", "--burstiness", "0", "--requests", "20")
    assert run(["estimate", *BASE[1:], "--workload", "chat", "--pin", "batch=1", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)["plan"]["metrics"]
    assert found["latencies"]["tpot"]["mean"] == pytest.approx(plan["tpot_seconds"], rel=0.01)
    assert found["latencies"]["ttft"]["mean"] < plan["ttft_seconds"] * 1.02
    assert found["latencies"]["ttft"]["mean"] + plan["pass_seconds"] > plan["ttft_seconds"]


def test_the_screen_says_whether_the_load_is_carried(capsys) -> None:
    assert run([*BASE, "--rate", "100", "--requests", "1500"]) == 0
    out = capsys.readouterr().out
    assert "Unstable" in out
    assert "requests/s would be stable" in out
    assert all(len(line) <= 100 for line in out.splitlines())


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], "how many requests come per second"),
        (["--rate", "1", "--scheduler", "vlm"], "nearest: vllm"),
        (["--rate", "1", "--router", "random"], "unknown router"),
        (["--rate", "1", "--replicas", "0"], "one or more"),
        (["--rate", "1", "--max-num-batched-tokens", "100"], "leaves no room for prompts"),
        (["--rate", "-1"], "rate"),
        (["--trace", "nowhere.csv"], "No such file"),
        (["--rate", "1", "--workload", "pretrain"], "a serving workload"),
        (["--rate", "1", "--model", "llama70b"], "no room for a KV cache"),
        (["--rate", "1", "--prefill-replicas", "1"], "found '2 devices'; allowed: up to 1"),
        (["--rate", "1", "--hw", "dgx-a100", "--replicas", "99999"], "more devices than the machine has"),
    ],
)
def test_mistakes_are_one_message(capsys, more: list[str], said: str) -> None:
    assert run([*BASE, *more]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert "Traceback" not in captured.err


def test_pools_are_served_and_named(capsys) -> None:
    base = ["simulate", "--model", "llama70b", "--hw", "dgx-h100", "--rate", "6", "--requests", "400"]
    assert run([*base, "--prefill-replicas", "1", "--pin", "prefill.tp=2", "--pin", "decode.tp=4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["prefill_replicas"] == 1
    assert found["metrics"]["hand_over_seconds"] > 0
    assert run([*base, "--pin", "tp=4", "--prefill-replicas", "2"]) == 0
    assert "2 prefill replicas of tp 4 and 1 decode replica of tp 4" in " ".join(capsys.readouterr().out.split())
    assert run([*base, "--pin", "prefill.tp=4"]) == 2
    assert "no pools" in capsys.readouterr().err


@pytest.mark.parametrize("scheduler", ["vllm", "static", "temporal-fusion"])
def test_every_scheduler_finds_room_on_a_device(capsys, scheduler: str) -> None:
    """An engine without a budget of tokens does not set memory aside for a million of them."""
    found = answer(capsys, "--rate", "2", "--requests", "100", "--scheduler", scheduler)
    assert found["metrics"]["requests"] == 100
    assert found["metrics"]["kv_tokens"] > 300_000
