"""One demonstration of each kind of machine and technique, asked as a user would."""

from __future__ import annotations

from typing import Any

import pytest

import perfmodel
from perfmodel.solver.result import Answer, EvaluatedPlan


def ask(**question: Any) -> Answer:
    return perfmodel.plan(**question).answers[0]


def best(**question: Any) -> EvaluatedPlan:
    found = ask(**question).best
    assert found is not None
    return found


# --- an FPGA card -------------------------------------------------------------------------------------------------


def test_fpga_decode_of_narrow_weights_is_bound_by_memory() -> None:
    """16-bit weights of a 7B model do not fit 8 GiB; with a quality budget they do, and decode waits for memory."""
    question = {"model": "llama2-7b", "hw": "alveo-u280", "workload": "chat", "workload_changes": {"slo": None}}
    assert best(**question).columns["offload"] != "none", "most of them lie in the DDR behind the HBM"
    plan = best(**question, max_quality_loss=0.05, pin={"batch": 1})
    assert plan.columns["packed_weights"] != "none"
    assert plan.quality is not None
    assert 0.0 < plan.quality <= 0.05
    assert plan.quality == pytest.approx(sum(s.loss.value for s in plan.losses if s.loss is not None), rel=1e-9)
    assert plan.bottleneck == "hbm"
    four = best(**question, use=("packed_weights=awq-int4-g128",), pin={"batch": 1})
    assert four.columns["packed_weights"] == "awq-int4-g128"
    assert [s.loss.value for s in four.losses if s.loss is not None] == pytest.approx([0.13 / 5.47], rel=1e-3)
    assert four.bottleneck == "hbm"


def test_fpga_too_slow_for_chat_says_by_how_much() -> None:
    answer = ask(model="llama2-7b", hw="alveo-u280", workload="chat", max_quality_loss=0.05)
    assert answer.best is None
    assert answer.rejected
    assert answer.rejected[0].ratio > 1.0
    assert answer.rejected[0].remedy


# --- processing in memory -----------------------------------------------------------------------------------------


def test_decode_attention_moves_to_the_memory_when_that_is_faster() -> None:
    question = {"model": "llama2-7b", "hw": "npu-pim", "workload": "chat"}
    free = best(**question)
    kept = best(**question, pin={"attention_engine": "main"})
    assert free.columns["attention_engine"] == "pim"
    rate = "output_tokens_per_second_per_device"
    assert float(free.metrics[rate] or 0) > float(kept.metrics[rate] or 0)


# --- regions ------------------------------------------------------------------------------------------------------


def test_local_steps_win_between_regions() -> None:
    question = {"model": "llama-3-8b", "hw": "two-regions", "workload": "pretrain", "devices": 256}
    synchronous = best(**question)
    local = best(**question, use=("local_steps",))
    assert local.columns["regions"] >= 2
    assert local.columns["local_steps"] >= 30
    assert local.seconds < 0.7 * synchronous.seconds
    assert local.quality is None  # nothing is published for this model, and the plan says so


def test_one_byte_per_replica_crosses_a_slow_line() -> None:
    """Without gradients to exchange or to keep, a rented line between regions does not matter."""
    question = {"model": "opt-1.3b", "hw": "two-regions", "workload": "finetune", "devices": 256,
                "changes": {"levels.wan.nics.bandwidth": "100 Mb/s"},
                "workload_changes": {"sequence": 2048}}  # fmt: skip
    assert best(**question, use=("zeroth_order",)).columns["zeroth_order"] == 1
    assert best(**question, use=("zeroth_order",)).seconds < 0.1 * best(**question).seconds


def test_states_beyond_the_device_make_a_plan() -> None:
    """175B on one node of 16 small devices: 2.9 TB of states fit its host and storage only."""
    question = {"model": "gpt-3-175b", "hw": "dgx-2", "workload": "finetune", "devices": 16,
                "workload_changes": {"sequence": 2048, "recipe": "bf16-grads"}}  # fmt: skip
    assert ask(**question).best is None
    plan = best(**question, use=("zero_infinity",))
    assert plan.columns["weights_host"] == 1
    assert plan.columns["on_storage"] >= 1
    assert plan.quality == 0.0


def test_unknown_quality_is_never_chosen_on_a_budget() -> None:
    """Neither local steps nor quantised collectives are published for an 8B Llama, nor 4-bit weights for GPT-NeoX."""
    training = best(model="llama-3-8b", hw="two-regions", workload="pretrain", devices=256, max_quality_loss=0.5)
    assert training.columns["regions"] == 1
    assert training.columns["compressor"] == "none"
    serving = best(model="gpt-neox-20b", hw="a100-8x", workload="chat", max_quality_loss=0.9)
    assert serving.columns["packed_weights"] == "none"


def test_published_quality_may_be_spent() -> None:
    """Averaging every 100 steps is published for about 4B parameters; 200 times as many plans need not be unknown."""
    plan = best(model="qwen3-4b", hw="two-regions", workload="pretrain", devices=256, max_quality_loss=0.01)
    assert plan.columns["regions"] >= 2
    assert plan.quality is not None
    assert 0.0 < plan.quality <= 0.01


# --- four-bit weights ---------------------------------------------------------------------------------------------


def test_four_bit_weights_need_a_budget_that_covers_their_cost() -> None:
    question = {"model": "llama-2-70b", "hw": "a100-8x", "workload": "chat"}
    assert best(**question).quality == 0.0
    assert best(**question, max_quality_loss=0.01).columns["packed_weights"] == "none"
    spent = best(**question, max_quality_loss=0.03, pin={"packed_weights": ["none", "awq-int4-g128"]})
    assert spent.columns["packed_weights"] == "awq-int4-g128"
    assert spent.quality == pytest.approx(0.0271, abs=1e-4)
    loss = spent.losses[0].loss
    assert loss is not None
    assert loss.models == ("Llama-2-70B",)
    assert loss.source


def test_a_larger_budget_never_buys_a_worse_plan() -> None:
    """The space only grows with the budget, and what a plan spends stays within it."""
    question = {"model": "llama-2-70b", "hw": "a100-8x", "workload": "chat"}
    rates = []
    for budget in (0.005, 0.015, 0.03, 0.05, 0.15):
        plan = best(**question, max_quality_loss=budget)
        assert plan.quality is not None
        assert plan.quality <= budget
        rates.append(plan.metrics["output_tokens_per_second_per_device"] or 0.0)
    assert rates == sorted(rates)
    assert rates[-1] > 1.3 * rates[0]


# --- host memory --------------------------------------------------------------------------------------------------


def test_optimizer_moves_to_the_host_when_memory_is_short() -> None:
    question = {"model": "llama70b", "hw": "frontier", "workload": "finetune"}
    short = best(**question, devices=16)
    assert short.columns["optimizer_host"] == 1
    assert any(line.tier == "host" for line in short.ledgers[0].lines)
    assert ask(**question, devices=16, pin={"optimizer_host": 0}).best is None
    assert best(**question, devices=128).columns["optimizer_host"] == 0


# --- a library that only has rings ----------------------------------------------------------------------------------


def test_rings_and_exposed_gathers_slow_sharded_training() -> None:
    asked = {
        "model": "gpt-neox-20b",
        "hw": "frontier",
        "workload": "pretrain",
        "devices": 384,
        "columns": dict.fromkeys(("weights_group", "secondary_group", "gradients_group", "optimizer_group"), 2.0**40),
        "workload_changes": {"sequence": 2048, "global_batch": 786432},
    }
    hidden = perfmodel.estimate(**asked, framework="megatron-core").plan
    exposed = perfmodel.estimate(**asked, framework="deepspeed-zero-rccl").plan
    assert exposed.seconds > 1.5 * hidden.seconds
    gathers = {row.name: row for row in exposed.terms}["weight gather"]
    assert gathers.seconds == pytest.approx(gathers.busy_seconds)
