"""The composition rules against small event simulations, and the account of exposed time."""

from __future__ import annotations

import heapq
import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from planning import setting, well_formed_plans

from perfmodel.phases.compose import Beside, Idle, Longest, Serial, Slot, Times
from perfmodel.phases.pipeline import in_flight, one_forward_one_backward
from perfmodel.phases.training import step_tree
from perfmodel.techniques.base import Term


def term(
    seconds: float, lane: str = "main", *, resource: str | None = None, prefetch: bool = False, name: str = "t"
) -> Term:
    return Term(name, "slot", resource or lane, seconds, lane, prefetch)


def total(node) -> float:
    return sum(row.exposed for row in node.exposed())


# --- one slot -----------------------------------------------------------------------------------------------------


def test_one_lane_is_a_sum() -> None:
    slot = Slot((term(1.0), term(2.0)))
    assert slot.elapsed() == 3.0
    assert Slot(()).elapsed() == 0.0
    assert Slot((term(1.0),), items=4.0).elapsed() == 4.0


def test_a_lane_that_cannot_run_ahead_is_serial() -> None:
    assert Slot((term(1.0), term(5.0, "net"))).elapsed() == 6.0


def test_a_prefetching_lane_leaves_its_excess() -> None:
    assert Slot((term(3.0), term(2.0, "net", prefetch=True))).elapsed() == 3.0
    late = Slot((term(3.0, name="math"), term(5.0, "net", prefetch=True, name="gather")))
    assert late.elapsed() == 5.0
    assert {r.name: r.exposed for r in late.exposed()} == {"math": 3.0, "gather": 2.0}


def test_lanes_on_one_resource_take_turns() -> None:
    shared = Slot((term(3.0, "a", resource="memory", prefetch=True), term(4.0, "b", resource="memory", prefetch=True)))
    assert shared.elapsed() == 7.0


def test_hidden_communication_slows_the_main_lane() -> None:
    terms = (term(3.0), term(2.0, "net", resource="network", prefetch=True), term(2.5, "launch", prefetch=True))
    slot = Slot(terms, interference=0.25)
    assert slot.elapsed() == 3.0 + 0.25 * 2.0  # the launch is no communication
    assert total(slot) == pytest.approx(slot.elapsed(), rel=1e-15)


def prefetch_simulation(compute: float, gather: float, layers: int) -> float:
    """Gathers on a network lane, each at most one layer ahead of the layer that needs it."""
    gathered, done = 0.0, 0.0
    started = [0.0] * (layers + 1)
    for i in range(layers):
        gathered = max(gathered, started[i - 1] if i > 0 else 0.0) + gather
        started[i] = max(done, gathered)
        done = started[i] + compute
    return done


@pytest.mark.parametrize(("compute", "gather"), [(1.0, 0.3), (1.0, 0.95), (1.0, 1.0), (0.5, 1.0), (0.1, 1.0)])
def test_prefetch_of_one_layer(compute: float, gather: float) -> None:
    layers = 80
    slot = Slot((term(compute), term(gather, "net", prefetch=True)))
    assert layers * slot.elapsed() == pytest.approx(prefetch_simulation(compute, gather, layers), rel=0.013)


def interleave_simulation(main: float, other: float, items: int, layers: int) -> float:
    """Sub-batches alternate between two engines, layer by layer; each engine serves one at a time, first come."""
    free = [0.0, 0.0]
    waiting = [(0.0, i, 0) for i in range(items)]
    heapq.heapify(waiting)
    end = 0.0
    while waiting:
        ready, item, step = heapq.heappop(waiting)
        engine = step % 2
        start = max(ready, free[engine])
        free[engine] = start + (main, other)[engine]
        end = max(end, free[engine])
        if step + 1 < 2 * layers:
            heapq.heappush(waiting, (free[engine], item, step + 1))
    return end


@pytest.mark.parametrize("items", [1, 2])
@pytest.mark.parametrize(("main", "other"), [(1.0, 1.0), (1.0, 0.4), (0.3, 1.0), (1.0, 0.05)])
def test_sub_batches_on_two_engines(main: float, other: float, items: int) -> None:
    layers = 120
    slot = Slot((term(main), term(other, "pim")), items=float(items))
    simulated = interleave_simulation(main, other, items, layers)
    assert layers * slot.elapsed() == pytest.approx(simulated, rel=0.01)


# --- pipelines ----------------------------------------------------------------------------------------------------


def pipeline_simulation(p: int, m: int, forward: float, backward: float, v: int = 1) -> tuple[float, list[int]]:
    """1F1B over ``p`` stages of ``v`` chunks in Megatron's order: its end, and the most each stage holds."""

    def order(stage: int) -> list[tuple[str, int, int]]:
        if v == 1:
            warm = min(p - stage - 1, m)
            forwards = [("F", i, 0) for i in range(m)]
            backwards = [("B", i, 0) for i in range(m)]
        else:
            warm = min(2 * (p - stage - 1) + (v - 1) * p, m * v)
            chunked = [(g * p + i, c) for g in range(m // p) for c in range(v) for i in range(p)]
            forwards = [("F", i, c) for i, c in chunked]
            backwards = [("B", i, v - 1 - c) for i, c in chunked]
        sequence = forwards[:warm]
        for f, b in itertools.zip_longest(forwards[warm:], backwards[: len(forwards) - warm]):
            sequence += [x for x in (f, b) if x]
        return sequence + backwards[len(forwards) - warm :]

    orders = [order(s) for s in range(p)]
    done: dict[tuple[str, int, int], float] = {}
    clock, at, held, most = [0.0] * p, [0] * p, [0] * p, [0] * p
    remaining = sum(map(len, orders))
    while remaining:
        for s in range(p):
            if at[s] == len(orders[s]):
                continue
            kind, micro, chunk = orders[s][at[s]]
            virtual = chunk * p + s
            if kind == "F":
                needs = ("F", micro, virtual - 1) if virtual else None
            else:
                needs = ("B", micro, virtual + 1) if virtual < p * v - 1 else ("F", micro, virtual)
            if needs is not None and needs not in done:
                continue
            ready = done[needs] if needs else 0.0
            clock[s] = max(clock[s], ready) + (forward if kind == "F" else backward) / v
            done[kind, micro, virtual] = clock[s]
            held[s] += 1 if kind == "F" else -1
            most[s] = max(most[s], held[s])
            at[s] += 1
            remaining -= 1
    return max(clock), most


def settled(p: int, m: int, v: int = 1, layers: int | None = None) -> SimpleNamespace:
    layout = SimpleNamespace(virtual_stages=float(v), schedule=None, forward_passes=1.0, backward_passes=1.0)
    count = layers or p * v
    return SimpleNamespace(
        layout=layout, stages=float(p), micro_batches=float(m), layers=count, framework={},
        first_layers=float(-(-count // p)), last_layers=float(count // p),
    )  # fmt: skip


def step(p: int, m: int, forward: float, backward: float, v: int = 1) -> float:
    s = settled(p, m, v)
    layers = [
        Term("f", "layer_forward", "compute", forward / v),
        Term("b", "layer_backward", "compute", backward / v),
    ]
    return float(step_tree(s, layers).elapsed())


@pytest.mark.parametrize(("p", "m"), [(1, 4), (2, 2), (2, 7), (4, 4), (4, 16), (8, 8), (8, 40), (5, 3)])
def test_one_forward_one_backward_is_exact(p: int, m: int) -> None:
    simulated, held = pipeline_simulation(p, m, 1.0, 2.0)
    assert step(p, m, 1.0, 2.0) == pytest.approx(simulated, rel=1e-12)
    assert held[0] == in_flight(settled(p, m))[0]
    assert held[-1] == in_flight(settled(p, m))[1]


@pytest.mark.parametrize(("p", "m", "v"), [(2, 4, 2), (4, 8, 2), (4, 16, 4), (8, 32, 2), (8, 16, 3)])
def test_interleaving_divides_the_bubble(p: int, m: int, v: int) -> None:
    """(p - 1)/v of a micro-batch idle, and (2(p - 1) + (v - 1)p + 1)/v micro-batches held by the first stage."""
    simulated, held = pipeline_simulation(p, m, 1.0, 1.0, v)
    modelled = step(p, m, 1.0, 1.0, v)
    assert modelled == pytest.approx(m * 2.0 + (p - 1) / v * 2.0)
    assert simulated == pytest.approx(modelled, rel=1e-12)
    assert held[0] / v == pytest.approx(in_flight(settled(p, m, v))[0])


def test_a_bubble_is_what_the_other_stages_take() -> None:
    s = settled(4, 10)
    assert one_forward_one_backward(1.0, 4.0, s) == 3.0
    assert one_forward_one_backward(2.0, 1.5, s) == 0.0


def test_sync_hides_behind_the_last_backward_pass() -> None:
    sync = (term(5.0, "net", name="sync"),)
    assert Beside(3.0, sync).elapsed() == 2.0
    assert Beside(9.0, sync).elapsed() == 0.0
    assert Beside(9.0, sync, hidden_share=0.6).elapsed() == pytest.approx(2.0)  # what the software leaves exposed
    assert total(Beside(3.0, sync)) == 2.0


# --- the account --------------------------------------------------------------------------------------------------


def random_node(rng: np.random.Generator, depth: int):
    if depth == 0 or rng.random() < 0.3:
        lanes = ("main", "net", "host", "pim")
        terms = tuple(
            term(
                float(rng.exponential()),
                lanes[int(rng.integers(4))],
                resource=str(rng.choice(["compute", "network", "memory"])),
                prefetch=bool(rng.integers(2)),
                name=str(i),
            )
            for i in range(int(rng.integers(0, 6)))
        )
        return Slot(terms, items=float(rng.integers(1, 4)), interference=float(rng.choice([0.0, 0.3])))
    children = tuple(random_node(rng, depth - 1) for _ in range(int(rng.integers(1, 4))))
    choice = int(rng.integers(4))
    if choice == 0:
        return Serial(children)
    if choice == 1:
        return Times(float(rng.integers(0, 9)), children[0])
    if choice == 2:
        return Longest((*children, random_node(rng, depth - 1)))
    window = float(rng.exponential(3.0))
    return Serial((*children, Beside(window, (term(1.0), term(2.0)), float(rng.uniform(-0.3, 1.0))), Idle("idle", 0.1)))


def test_exposed_rows_of_any_tree_sum_to_its_time() -> None:
    rng = np.random.default_rng(31)
    for _ in range(500):
        node = random_node(rng, 3)
        assert total(node) == pytest.approx(node.elapsed(), rel=1e-12, abs=1e-15)
        assert all(row.exposed >= -1e-15 for row in node.exposed())


TRAINING = [("llama-2-70b", "frontier", 512), ("mixtral-8x7b", "dgx-h100", 256), ("gpt-3-175b", "dgx-a100", 512)]


@pytest.mark.parametrize(("name", "machine", "devices"), TRAINING)
def test_exposed_rows_of_training_plans_sum_to_the_step(name: str, machine: str, devices: int) -> None:
    found = setting(name, machine, "pretrain", devices=devices, changes={"sequence": 2048})
    rng = np.random.default_rng(32)
    for x in well_formed_plans(found, rng, 80):
        step_ = found.problem.evaluate(x)
        assert total(step_.tree) == pytest.approx(step_.seconds, rel=1e-12)


SERVING = [("llama-3.1-70b", "h200-8x"), ("deepseek-v3", "dgx-h100"), ("llama-2-7b", "npu-pim")]


@pytest.mark.parametrize(("name", "machine"), SERVING)
def test_exposed_rows_of_serving_plans_sum_to_the_pass(name: str, machine: str) -> None:
    found = setting(name, machine, "chat")
    rng = np.random.default_rng(33)
    for x in well_formed_plans(found, rng, 60):
        replica = found.problem.evaluate(x)
        assert total(replica.decode) == pytest.approx(replica.pass_seconds, rel=1e-12)
        assert total(replica.prefill) == pytest.approx(replica.prefill.elapsed(), rel=1e-12)
