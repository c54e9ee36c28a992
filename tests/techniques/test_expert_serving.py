"""Experts in serving: where tokens go, what computes nothing, who is decoded together, what lies in host memory."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from planning import neutral, setting

from perfmodel.insight.setting import Setting
from perfmodel.operators.layers import Sizes, busy_experts, layer_calls
from perfmodel.serving.steady import Replica
from perfmodel.specs.architecture import Moe
from perfmodel.specs.locate import find_model
from perfmodel.specs.model import load_model
from perfmodel.techniques.settled import Plan

USE = ("expert_affinity", "zero_experts", "expert_batching", "expert_offload")


@lru_cache(maxsize=8)
def serving(model: str = "mixtral-8x22b", machine: str = "dgx-h100", link: str | None = None) -> Setting:
    changes = None if link is None else {"node.host.link": link}
    return setting(model, machine, "batch", use=USE, machine_changes=changes)


def replica(found: Setting, **columns: Any) -> Replica:
    evaluated = found.problem.evaluate(neutral(found, **columns))
    assert isinstance(evaluated, Replica)
    return evaluated


def busy(found: Replica, name: str) -> float:
    return float(sum(row.busy for row in found.decode.exposed() if row.name == name))


def held(found: Replica, tier: str, name: str = "") -> float:
    return sum(float(b.bytes) for b in found.ledgers["first"] if b.tier == tier and (not name or b.name == name))


def moe_of(name: str) -> Moe:
    runs = load_model(find_model(name)).architecture.runs
    return next(r.layer.ffn for r in runs if isinstance(r.layer.ffn, Moe))


def test_tokens_that_go_on_travel_once_and_their_context_everywhere() -> None:
    found = serving()
    both, once = (replica(found, batch=2048.0, ep=8.0, stay_with_experts=v) for v in (0.0, 1.0))
    assert busy(once, "expert exchange") == pytest.approx(0.5 * busy(both, "expert exchange"), rel=1e-12)
    assert busy(once, "context to all ranks") > 0.0
    extra = held(once, "hbm", "context of other ranks")
    assert extra == pytest.approx(7.0 * held(both, "hbm", "KV cache"), rel=1e-12)
    alone = replica(found, batch=64.0, stay_with_experts=1.0)
    assert busy(alone, "context to all ranks") == 0.0
    assert held(alone, "hbm", "context of other ranks") == 0.0


def test_placement_by_affinity_takes_its_share_of_the_exchange() -> None:
    found = serving()
    times = [
        busy(replica(found, batch=4096.0, ep=8.0, stay_with_experts=1.0, expert_affinity=a), "expert exchange")
        for a in (0.0, 0.25, 0.5, 1.0)
    ]
    assert times == sorted(times, reverse=True)
    assert times[2] < 0.75 * times[0]
    ignored = replica(found, batch=4096.0, ep=8.0, expert_affinity=0.5)  # tokens go home anyway
    assert busy(ignored, "expert exchange") == busy(replica(found, batch=4096.0, ep=8.0), "expert exchange")


def test_idle_choices_neither_multiply_nor_travel() -> None:
    architecture = load_model(find_model("mixtral-8x22b")).architecture
    flops = [
        sum(
            float(c.work.flops)
            for c in layer_calls(architecture, Sizes(64.0, 16.0, 16.0, idle_choices=idle))
            if c.component == "experts"
        )
        for idle in (0.0, 0.25, 0.5)
    ]
    assert flops[1] == pytest.approx(0.75 * flops[0], rel=1e-12)
    assert flops[2] == pytest.approx(0.5 * flops[0], rel=1e-12)
    found = serving()
    plain, idle = (replica(found, batch=4096.0, ep=8.0, idle_choices=v) for v in (0.0, 0.25))
    assert busy(idle, "expert exchange") < busy(plain, "expert exchange")
    assert idle.settled.layout.quality_unknown == 1.0


@pytest.mark.parametrize("model", ["mixtral-8x7b", "deepseek-v3"])
def test_tokens_alike_touch_the_experts_of_one(model: str) -> None:
    moe = moe_of(model)

    def chosen(tokens: float, alike: float) -> float:
        return float(busy_experts(moe, Sizes(tokens, 1.0, 1.0, tokens_alike=alike)))

    for tokens in (1.0, 4.0, 64.0):
        counts = [chosen(tokens, alike) for alike in (1.0, 2.0, tokens)]
        assert counts == sorted(counts, reverse=True)
        assert counts[-1] == pytest.approx(moe.top_k)
        assert chosen(tokens, 1e9) == pytest.approx(moe.top_k)  # one token's at least


def test_experts_at_the_host_leave_the_device_byte_by_byte() -> None:
    found = serving()
    here, there = (replica(found, batch=16.0, tp=8.0, experts_at_host=v) for v in (0.0, 0.5))
    moved = held(here, "hbm", "weights") - held(there, "hbm", "weights")
    assert moved == pytest.approx(held(there, "host", "weights"), rel=1e-12)
    experts = load_model(find_model("mixtral-8x22b")).architecture.expert_parameters
    assert moved == pytest.approx(0.5 * experts * 2.0 / 8.0, rel=1e-3)
    assert held(there, "hbm", "experts in flight") > 0.0


def test_fetching_grows_with_the_tokens_up_to_every_expert() -> None:
    found = serving()
    fetched = [
        busy(replica(found, batch=b, tp=8.0, experts_at_host=0.5), "experts fetched on demand") for b in (1, 4, 64, 512)
    ]
    assert fetched == sorted(fetched)
    link = float(found.machine.host_link or 0.0)
    whole = held(replica(found, batch=512.0, tp=8.0, experts_at_host=0.5), "host", "weights")
    assert fetched[-1] == pytest.approx(whole / link, rel=1e-6)
    assert fetched[0] == pytest.approx(whole / link * 2.0 / 8.0, rel=1e-6)  # two of eight


def test_known_ahead_hides_behind_the_layer_before_and_no_more() -> None:
    for link in ("8 GB/s", "64 GB/s", "900 GB/s"):
        found = serving(link=link)
        common = {"batch": 32.0, "tp": 8.0}
        resident = replica(found, **common)
        demand, half, ahead = (
            replica(found, experts_at_host=0.5, experts_foreseen=v, **common) for v in (0.0, 0.5, 1.0)
        )
        load = float(demand.pass_seconds - resident.pass_seconds)
        assert resident.pass_seconds <= ahead.pass_seconds <= half.pass_seconds <= demand.pass_seconds
        assert float(ahead.pass_seconds) >= load  # the link has to carry it all the same
        assert float(demand.pass_seconds) <= 2.0 * float(ahead.pass_seconds) + 1e-12


def test_a_mesh_is_its_plans() -> None:
    found = serving()
    batches = np.array([8.0, 64.0, 512.0])
    columns = {"ep": 8.0, "stay_with_experts": 1.0, "expert_affinity": 0.25, "idle_choices": 0.115,
               "requests_alike": 4.0, "experts_at_host": 0.25, "experts_foreseen": 1.0}  # fmt: skip
    mesh = found.problem.evaluate(Plan(**{**vars(neutral(found, **columns)), "batch": batches}))
    assert isinstance(mesh, Replica)
    for i, batch in enumerate(batches):
        one = replica(found, batch=float(batch), **columns)
        for field in ("pass_seconds", "tpot", "ttft"):
            whole = np.broadcast_to(getattr(mesh, field), batches.shape)
            assert float(whole[i]) == pytest.approx(float(getattr(one, field)), rel=1e-9), field


def test_attention_of_each_rank_and_experts_over_all_are_searched() -> None:
    """Data-parallel attention: the batch is divided, attention replicated, every expert on one rank."""
    found = setting("deepseek-v3", "h200-pod", "batch", devices=32)
    axes = {c: {v[a.columns.index(c)] for v in a.values} for a in found.space.numeric for c in a.columns}
    assert {8, 16, 32} <= axes["ep"]
    spread = replica(found, batch=1024.0, ep=32.0)
    assert float(spread.devices) == 32.0
    assert float(spread.settled.batch) == 32.0
    assert float(spread.settled.sizes.weight_split) == 1.0
    assert float(spread.settled.sizes.expert_split) == 32.0
    mixed = replica(found, batch=1024.0, tp=4.0, ep=8.0)
    assert float(mixed.settled.batch) == 128.0
