"""Parts of a model on other engines: concurrency, shares of experts, and an accelerator nobody has seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from planning import neutral, setting
from typer.testing import CliRunner

import perfmodel
from perfmodel.cli.main import app
from perfmodel.errors import Conflict, PerfmodelError
from perfmodel.insight.setting import Setting
from perfmodel.machine.engine import Engine
from perfmodel.specs.system import load_system
from perfmodel.techniques.record import Placed, merge_layouts


def duplex(batch: int = 64, engine: Engine | None = None, **columns: Any) -> Any:
    found = setting("mixtral-8x7b", "duplex-4x", "batch", framework="bare")
    if engine is not None:
        found = with_engine(found, engine)
    return found.problem.evaluate(neutral(found, ep=4, batch=batch, **columns))


def logic_pim() -> Engine:
    return setting("mixtral-8x7b", "duplex-4x", "batch", framework="bare").machine.engine("logic-pim")


def with_engine(found: Setting, engine: Engine) -> Setting:
    machine = replace(found.machine, engines={**found.machine.engines, engine.name: engine})
    problem = replace(found.problem, machine=machine, memo=type(found.problem.memo)())
    return replace(found, problem=problem, machine=machine)


def test_two_techniques_may_place_two_parts_but_not_the_same() -> None:
    layout = merge_layouts(
        [("a", {"placed": (Placed("attention", "pim"),)}), ("b", {"placed": (Placed("experts", "x"),)})]
    )
    assert layout.attention_engine == "pim"
    assert layout.on("experts").engine == "x"
    assert layout.on("layers").engine == "main"
    with pytest.raises(Conflict, match="a and b both set attention"):
        merge_layouts(
            [("a", {"placed": (Placed("attention", "pim"),)}), ("b", {"placed": (Placed("attention", "x"),)})]
        )


def test_experts_shared_by_two_engines_end_with_the_later_one() -> None:
    """Some share beats both ends; blocked engines take turns, so sharing never beats the better end."""
    shares = [k / 8 for k in range(9)]

    def seconds(concurrent: bool) -> list[float]:
        engine = replace(logic_pim(), concurrent=concurrent)
        found = []
        for share in shares:
            placed = {"experts_engine": "logic-pim", "experts_share": share} if share else {}
            found.append(float(duplex(batch=256, engine=engine, **placed).pass_seconds))
        return found

    together, turns = seconds(True), seconds(False)
    assert min(together) < min(together[0], together[-1])
    assert min(turns) >= min(turns[0], turns[-1]) * (1.0 - 1e-9)
    assert all(a <= b * (1.0 + 1e-12) for a, b in zip(together, turns, strict=True))


def test_blocked_engines_gain_nothing_from_interleaving() -> None:
    pim = {"attention_engine": "logic-pim"}
    blocked = replace(logic_pim(), concurrent=False)
    once, twice = (float(duplex(engine=blocked, **pim, sub_batches=n).pass_seconds) for n in (1, 2))
    assert twice > once
    one = float(duplex(**pim, sub_batches=1).pass_seconds)
    assert one == pytest.approx(once, rel=1e-12)


@pytest.mark.parametrize(
    "part", [{"attention_engine": "logic-pim"}, {"experts_engine": "logic-pim", "experts_share": 1.0}]
)
def test_a_faster_engine_never_makes_a_plan_slower(part: dict[str, Any]) -> None:
    engine = logic_pim()
    level = engine.memories[-1]._replace(bandwidth=2.0 * engine.bandwidth)
    quicker = replace(engine, memories=(*engine.memories[:-1], level))
    assert duplex(engine=quicker, **part).pass_seconds <= duplex(**part).pass_seconds


def test_no_placement_beats_its_bound() -> None:
    for part in (
        {},
        {"attention_engine": "logic-pim", "sub_batches": 2},
        {"experts_engine": "logic-pim", "experts_share": 0.5},
    ):
        replica = duplex(**part)
        assert replica.decode.bound() <= replica.pass_seconds


def test_an_engine_beside_the_accelerator_is_paid_for() -> None:
    changes = {"accelerator.price.hour": "11.06 USD/h"}
    price, alone = (
        perfmodel.estimate("llama-2-7b", hw, "batch", columns={"batch": 1}, changes=changes).plan.metrics
        for hw in ("lamina-h100-h20", "h100-4x")
    )
    name = "usd_per_million_output_tokens"
    assert price[name] / alone[name] == pytest.approx(20.32 / 11.06, rel=0.02)


STRANGER = """
name: whirligig
aliases: [whirl]
class: npu
sources: {note: "a machine invented for this test"}
units: {value: 12, kind: assumed, source: note}
peak:
  matrix:
    bf16: {value: 90 TFLOP/s, kind: assumed, source: note}
  vector:
    fp32: {value: 4 TFLOP/s, kind: assumed, source: note}
memory:
  pad:
    capacity:  {value: 64 MB, kind: assumed, source: note}
    bandwidth: {value: BANDWIDTH, kind: assumed, source: note}
  stack:
    capacity:  {value: 40 GB, kind: assumed, source: note}
    bandwidth: {value: 700 GB/s, kind: assumed, source: note}
CONCURRENCYhost_link: {value: 16 GB/s, kind: assumed, source: note}
power:
  limit: {value: 90 W, kind: assumed, source: note}
"""
BESIDE = """
name: whirl-box
aliases: []
sources: {note: "a machine invented for this test"}
nodes: {value: 1, kind: assumed, source: note}
node:
  accelerator: {device: rtx-4090, count: 1}
  engines:
    whirl:
      device: ./whirligig.yaml
      per_accelerator: {value: 2, kind: assumed, source: note}
      LINK
"""


def stranger(folder: Path, *, bandwidth: str = "9 TB/s", concurrency: str = "", link: str = "") -> Path:
    device = STRANGER.replace("BANDWIDTH", bandwidth).replace("CONCURRENCY", concurrency)
    (folder / "whirligig.yaml").write_text(device)
    (folder / "box.yaml").write_text(BESIDE.replace("LINK", link))
    return folder / "box.yaml"


def test_an_accelerator_nobody_has_seen_is_planned_from_its_file(tmp_path: Path) -> None:
    stranger(tmp_path)
    alone = perfmodel.plan("llama-2-7b", tmp_path / "whirligig.yaml", "chat").answers[0].best
    assert alone is not None
    assert alone.bound_seconds <= alone.timed_seconds
    faster = perfmodel.plan("llama-2-7b", tmp_path / "whirligig.yaml", "chat", changes={"stack_bandwidth": "x2"})
    assert faster.answers[0].best is not None


def test_the_same_file_beside_a_gpu_takes_its_cache_and_attention(tmp_path: Path) -> None:
    """13B in 24 GB leaves no room for a cache; two strangers with 80 GB beside it do."""
    box = stranger(tmp_path, link="link: {value: 50 GB/s, kind: assumed, source: note}")
    alone = perfmodel.plan("llama-2-7b", "rtx-4090", "rag", workload_changes={"slo.ttft": None, "slo.tpot": None})
    beside = perfmodel.plan("llama-2-7b", box, "rag", workload_changes={"slo.ttft": None, "slo.tpot": None})
    best = beside.answers[0].best
    assert best is not None
    assert best.columns["attention_engine"] == "whirl"
    assert "whirl memory" in best.ledgers[0].totals
    single = alone.answers[0].best
    name = "output_tokens_per_second_per_device"
    assert single is None or best.metrics[name] > single.metrics[name]


def message(path: Path) -> str:
    with pytest.raises(PerfmodelError) as caught:
        load_system(path)
    return str(caught.value)


def test_an_engine_without_a_link_to_the_memory_it_needs_is_one_message(tmp_path: Path) -> None:
    text = message(stranger(tmp_path))
    assert "node.engines.whirl.link" in text
    assert "must be reached" in text


def test_on_chip_memory_slower_than_the_memory_behind_it_is_one_message(tmp_path: Path) -> None:
    stranger(tmp_path, bandwidth="100 GB/s")
    text = message(tmp_path / "whirligig.yaml")
    assert "memory.pad.bandwidth" in text
    assert "slower than stack" in text


def test_an_unknown_concurrency_is_one_message(tmp_path: Path) -> None:
    stranger(tmp_path, concurrency="concurrency: sometimes\n")
    text = message(tmp_path / "whirligig.yaml")
    assert "concurrency" in text
    assert "blocked" in text


def test_a_split_that_leaves_weights_nowhere_is_refused_or_infeasible() -> None:
    run = CliRunner().invoke(
        app, ["estimate", "-m", "llama-2-70b", "--hw", "desktop-4090", "-w", "batch", "--pin", "batch=1", "--pin",
              "offload=streamed", "--pin", "weights_at_host=0.7", "--pin", "weights_at_storage=0.7"],
    )  # fmt: skip
    assert run.exit_code == 0
    assert "weights in one place" in run.output
    assert "Traceback" not in run.output
