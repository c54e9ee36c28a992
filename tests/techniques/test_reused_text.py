"""Reused text: keys and values from a store, passages that attend within themselves."""

from __future__ import annotations

from typing import Any

import pytest
from planning import neutral, setting

from perfmodel.errors import SpecError
from perfmodel.insight.replicas import Options, side_of
from perfmodel.insight.simulation import simulate
from perfmodel.operators.attention import attention_pairs
from perfmodel.operators.layers import layer_calls
from perfmodel.phases.serving import settle_passes
from perfmodel.serving.arrivals import Synthetic
from perfmodel.serving.schedulers import choose_scheduler

LENGTHS = {"prompt": 8192, "output": 64, "reused": 7680, "slo": None}


def served(*, pieces: int = 1, use: tuple[str, ...] = ("kv_store", "block_attention"), **options: Any) -> Any:
    changes = {**LENGTHS, "pieces": pieces, **options.pop("changes", {})}
    return setting("llama-3-8b", "dgx-a100", "rag", use=use, changes=changes, **options)


def prompt_seconds(found: Any, **columns: Any) -> float:
    return float(found.problem.evaluate(neutral(found, batch=1, **columns)).prefill.elapsed())


def test_what_is_fetched_is_not_computed() -> None:
    found = served()
    p = found.problem
    sizes = {}
    for source in ("none", "host"):
        x = neutral(found, batch=1, kv_source=source)
        s = settle_passes(x, p.techniques, p.situation, p.network, p.framework)["prefill"]
        sizes[source] = (s.sizes.queries, s.sizes.context)
    assert sizes == {"none": (8192.0, 8192.0), "host": (512.0, 8192.0)}


def test_transfer_grows_with_bytes_over_bandwidth() -> None:
    """128 KiB per token of Llama 3 8B, and compressed so many times less."""
    found = served(use=("kv_store=plain,cachegen-4.3x",))
    link = found.machine.host_link
    for stream, ratio in (("plain", 1.0), ("cachegen-4.3x", 4.3)):
        replica = found.problem.evaluate(neutral(found, batch=1, kv_source="host", kv_stream=stream))
        busy = sum(r.busy for r in replica.prefill.exposed() if r.name == "keys and values fetched")
        assert busy == pytest.approx(7680 * 131072 / ratio / link, rel=1e-9)


def test_the_crossover_is_where_both_take_the_same_time() -> None:
    """Fetching gets quicker with bandwidth, computing does not; text wins below the crossing, the store above."""
    slow, quick = (served(machine_changes={"file_system.read": f"{n} GB/s"}, use=("kv_store",)) for n in (8, 800))
    for found, wanted in ((slow, "none"), (quick, "files")):
        text, fetched = (prompt_seconds(found, kv_source=s) for s in ("none", "files"))
        assert ("files" if fetched < text else "none") == wanted
    assert prompt_seconds(slow) == prompt_seconds(quick)


def test_each_rank_fetches_its_part() -> None:
    found = served()
    one, four = (
        sum(
            r.busy
            for r in found.problem.evaluate(neutral(found, batch=1, tp=tp, kv_source="host")).prefill.exposed()
            if r.name == "keys and values fetched"
        )
        for tp in (1, 4)
    )
    assert one == pytest.approx(4.0 * four)


def test_a_busy_link_limits_the_rate() -> None:
    """However many requests wait, they leave no faster than the link brings their text."""
    found = served()
    replica = found.problem.evaluate(neutral(found, batch=64, kv_source="host"))
    assert float(replica.rate) * 7680 * 131072 <= found.machine.host_link * 1.02


def test_pieces_in_any_order_are_fetched_only_where_they_stand_apart() -> None:
    found = served(pieces=15)
    together, apart = (
        found.problem.evaluate(neutral(found, batch=1, kv_source="host", block_attention=on)) for on in (0, 1)
    )
    assert together.ratios["pieces in any order"] == 15.0
    assert apart.ratios["pieces in any order"] == 1.0
    assert found.problem.evaluate(neutral(found, batch=1)).ratios.get("pieces in any order", 0.0) <= 1.0


def test_pairs_of_pieces_apart() -> None:
    """Pieces attend within themselves, the rest to everything: counted by hand."""
    found = served(pieces=15)
    p = found.problem
    x = neutral(found, batch=1, block_attention=1)
    s = settle_passes(x, p.techniques, p.situation, p.network, p.framework)["prefill"]
    flops = sum(c.work.flops * c.share for c in layer_calls(s.architecture, s.sizes) if c.work.operator == "attention")
    pairs = 15 * attention_pairs(512, 512) + attention_pairs(512, 8192)
    assert flops == pytest.approx(2.0 * 32 * 256 * pairs)


def test_passages_at_hand_cost_what_the_question_costs() -> None:
    found = served(pieces=15)
    whole, apart, resident, host = (
        prompt_seconds(found, **c)
        for c in (
            {},
            {"block_attention": 1},
            {"block_attention": 1, "kv_source": "hbm"},
            {"block_attention": 1, "kv_source": "host"},
        )
    )
    assert resident < host < apart < whole
    assert resident < 0.12 * whole


def test_a_store_needs_room() -> None:
    found = served(changes={"collection": 10**9})
    ratios = found.problem.evaluate(neutral(found, batch=1, kv_source="hbm")).ratios
    assert ratios["hbm memory"] > 1.0
    assert found.problem.evaluate(neutral(found, batch=1, kv_source="files")).ratios["hbm memory"] < 1.0


def test_without_reused_text_there_is_no_choice() -> None:
    found = setting("llama-3-8b", "dgx-a100", "chat")
    axis = next(a for a in found.space.structural if "kv_source" in a.columns)
    assert axis.values == (("none", "plain"),)


@pytest.mark.parametrize("changes", [{"reused": 8192}, {"reused": 0, "pieces": 3}])
def test_reused_text_is_part_of_the_prompt(changes: dict[str, int]) -> None:
    with pytest.raises(SpecError, match=r"reused|pieces"):
        served(changes=changes)


def test_a_simulated_prompt_of_pieces_takes_what_the_plan_says() -> None:
    found = served(pieces=15, framework="bare", changes={"prompt": 8000, "reused": 7500})
    work = found.problem.situation.workload
    load = Synthetic(1e-3, work.prompt, work.output, 12, variation=0.0)
    options = Options(choose_scheduler("vllm", max_sequences=8, token_budget=work.prompt + 8), prefix_cache=False)
    seen = {}
    for apart in (0, 1):
        x = neutral(found, batch=1, block_attention=apart)
        seen[apart] = simulate(found, x, load, options).latencies["ttft"].mean
        assert seen[apart] == pytest.approx(prompt_seconds(found, block_attention=apart), rel=0.05)
    assert seen[1] < 0.95 * seen[0]


def test_a_simulated_store_is_a_queue_before_the_replica() -> None:
    """Alone a request takes what the plan says; where the link is busy, requests leave no faster than it sends."""
    found = served(pieces=15, framework="bare", changes={"prompt": 8000, "reused": 7500},
                   machine_changes={"node.host.link": "x0.25"})  # fmt: skip
    x = neutral(found, batch=1, block_attention=1, kv_source="host")
    work = found.problem.situation.workload
    options = Options(choose_scheduler("vllm", max_sequences=64, token_budget=work.prompt + 64), prefix_cache=False)
    alone = simulate(found, x, Synthetic(1e-3, work.prompt, work.output, 12, variation=0.0), options)
    plan = prompt_seconds(found, block_attention=1, kv_source="host")
    assert alone.latencies["ttft"].mean == pytest.approx(plan, rel=0.05)
    link = side_of(found, x, options, None).fetch
    assert link is not None
    rate = 1.0 / (link.seconds * 7500)
    many = simulate(found, x, Synthetic(1.5 * rate, work.prompt, work.output, 600), options)
    assert many.metrics["requests_per_second"] == pytest.approx(rate, rel=0.05)
    assert many.stability.stable is False
