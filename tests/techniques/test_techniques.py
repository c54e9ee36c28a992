"""What every technique must hold, and what each one claims: neutral values, order, ownership, memory, bytes moved."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from planning import neutral, setting, well_formed_plans

from perfmodel.errors import Conflict
from perfmodel.insight.setting import Setting
from perfmodel.network.library import Library, Protocol
from perfmodel.phases.training import Step
from perfmodel.serving.steady import Replica
from perfmodel.specs.compressors import compressors
from perfmodel.techniques import TECHNIQUES
from perfmodel.techniques.base import Line, Technique
from perfmodel.techniques.local_steps import synchronisations
from perfmodel.techniques.record import Layout, merge_layouts
from perfmodel.techniques.settled import Plan
from perfmodel.techniques.sharding import ALL, describe

OPTIONAL = [t for t in TECHNIQUES if t.name not in ("data_parallel", "batching")]
"""The columns of the others size the plan itself; they have no off."""

TRAINING = [("llama-2-70b", "frontier", 256), ("mixtral-8x7b", "dgx-h100", 128)]
SERVING = [("llama-2-13b", "npu-pim"), ("mixtral-8x22b", "dgx-h100")]


def training(name: str = "llama-2-13b", machine: str = "frontier", devices: int = 64, **options: Any) -> Setting:
    return setting(name, machine, "pretrain", devices=devices, **options)


def all_training(name: str, machine: str, devices: int) -> Setting:
    return training(name, machine, devices, use=NUMERICS_AND_OFFLOAD)


def scalar_training(name: str, machine: str, devices: int) -> Setting:
    """Scalars instead of gradients leave nothing to compress."""
    return training(name, machine, devices, use=("local_steps", "zero_infinity", "zeroth_order"))


EXPERTS = ("expert_affinity", "zero_experts", "expert_batching", "expert_offload", "adaptive_modules")


def all_serving(name: str, machine: str) -> Setting:
    use = ("packed_weights", "kv_policy", "speculation=eagle", *EXPERTS)
    return setting(name, machine, "chat", use=use, changes={"shared_prefix": 512, "acceptance": 0.7})


UPDATE_TERMS = (
    "host optimizer",
    "gradients to host",
    "weights from host",
    "optimizer state to device",
    "optimizer state to host",
    "update of fetched state",
)

NUMERICS_AND_OFFLOAD = ("local_steps", "compressed_collectives", "zero_infinity", "interleaved_update")


def totals(lines: Sequence[Line]) -> dict[str, float]:
    found: dict[str, float] = {}
    for line in lines:
        found[line.tier] = found.get(line.tier, 0.0) + float(line.bytes)
    return {tier: size for tier, size in found.items() if size}


def outcome(evaluated: Step | Replica) -> dict[str, Any]:
    """Every number that a plan is judged by."""
    if isinstance(evaluated, Step):
        times = {"seconds": evaluated.seconds, "compute": evaluated.tree.use().compute}
    else:
        names = ("pass_seconds", "tpot", "ttft", "rate", "devices")
        times = {n: getattr(evaluated, n) for n in names}
    memory = {f"{s} {t}": b for s, lines in evaluated.ledgers.items() for t, b in totals(lines).items()}
    return {**times, **memory, **evaluated.ratios}


def plans_of(found: Setting, count: int, seed: int = 51) -> list[Plan]:
    return list(well_formed_plans(found, np.random.default_rng(seed), count))


def assert_same(one: Mapping[str, Any], other: Mapping[str, Any], *, rel: float = 1e-12) -> None:
    for name in {*one, *other}:
        assert float(one[name]) == pytest.approx(float(other[name]), rel=rel, nan_ok=True), name


# --- what holds for all -------------------------------------------------------------------------------------------


def everyone(found: Setting) -> Any:
    """The problem with no technique left out where it is switched off."""
    return replace(found.problem, techniques=[t._replace(always_on=True) for t in found.problem.techniques])


def without(found: Setting, technique: Technique) -> Any:
    rest = [t for t in found.problem.techniques if t.name != technique.name]
    return replace(found.problem, techniques=rest)


def cases() -> list[Any]:
    trained = [
        (t, scalar_training if t.name == "zeroth_order" else all_training, c)
        for t in OPTIONAL
        if "training" in t.phases
        for c in TRAINING
    ]
    served = [(t, all_serving, c) for t in OPTIONAL if "serving" in t.phases for c in SERVING]
    return [pytest.param(t, make, c, id=f"{t.name}-{c[0]}-{make.__name__}") for t, make, c in (*trained, *served)]


@pytest.mark.parametrize(("technique", "make", "case"), cases())
def test_neutral_is_absent(technique: Technique, make: Any, case: tuple[Any, ...]) -> None:
    """Time, memory of every tier and every ratio, on random plans of the others."""
    found = make(*case)
    rng = np.random.default_rng(52)
    absent = without(found, technique)
    for x in itertools.islice(well_formed_plans(found, rng, 12), 12):
        off = Plan(**{**vars(x), **technique.neutral})
        with_neutral = outcome(everyone(found).evaluate(off))
        rest = Plan(**{n: v for n, v in vars(off).items() if n not in technique.neutral})
        gone = outcome(absent.evaluate(rest))
        own = set(with_neutral) - set(gone)
        assert all(float(with_neutral[n]) <= 1.0 + 1e-12 for n in own), own
        shared = {n: v for n, v in with_neutral.items() if n not in own}
        assert_same({n: v for n, v in shared.items() if n in gone}, gone)


QUESTIONS: list[tuple[str, str, str, dict[str, Any]]] = [
    ("llama-2-7b", "sn40l-node", "chat", {"models": 150}),
    ("llama-2-70b", "desktop-4090", "batch", {}),
    ("llama-2-7b", "dgx-h100", "chat", {"reused": 512, "pieces": 4, "rate": "2 requests/s"}),
    ("mixtral-8x7b", "duplex-4x", "batch", {"expert_variation": 0.3}),
    ("llama-2-13b", "frontier", "pretrain", {}),
    ("llama-2-13b", "dgx-a100", "pretrain", {"features.rows_per_token": 2, "features.row_bytes": "400 B"}),
]
"""Workloads in which a technique might act although it is switched off."""


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda q: f"{q[1]}-{q[2]}")
def test_what_is_left_out_of_a_plan_changes_nothing(question: tuple[str, str, str, dict[str, Any]]) -> None:
    name, machine, workload, changes = question
    found = setting(name, machine, workload, changes=changes, devices=None)
    for x in plans_of(found, 8, seed=57):
        with_all, acting = outcome(everyone(found).evaluate(x)), outcome(found.problem.evaluate(x))
        assert all(float(with_all.pop(n)) <= 1.0 for n in set(with_all) - set(acting))
        assert_same(acting, with_all)


@pytest.mark.parametrize(("make", "case"), [(all_training, c) for c in TRAINING] + [(all_serving, c) for c in SERVING])
def test_order_does_not_matter(make: Any, case: tuple[Any, ...]) -> None:
    found = make(*case)
    rng = np.random.default_rng(53)
    for x in plans_of(found, 6):
        wanted = outcome(found.problem.evaluate(x))
        for _ in range(4):
            shuffled = [found.problem.techniques[int(i)] for i in rng.permutation(len(found.problem.techniques))]
            assert_same(outcome(replace(found.problem, techniques=shuffled).evaluate(x)), wanted)


def test_two_owners_are_both_named() -> None:
    with pytest.raises(Conflict, match="one and two both set weights bytes"):
        merge_layouts([("two", {"weights_bytes": 1.0}), ("one", {"weights_bytes": 0.5})])


def test_a_field_no_rule_knows_is_an_error() -> None:
    with pytest.raises(KeyError, match="typo"):
        merge_layouts([("one", {"typo": 1.0})])


def test_merging_commutes() -> None:
    rng = np.random.default_rng(54)
    declared = [
        (f"t{i}", {"weights_shards": 2.0, "optimizer_off": 0.1 * i, "replay": 0.2 * i, "kept": 1.0 / (i + 1)})
        for i in range(4)
    ]
    wanted = merge_layouts(declared)
    assert (wanted.weights_shards, wanted.replay, wanted.kept) == (16.0, pytest.approx(0.6), 0.25)
    for _ in range(5):
        shuffled = [declared[int(i)] for i in rng.permutation(4)]
        assert merge_layouts(shuffled) == wanted
    assert merge_layouts([]) == Layout()


def test_plans_never_beat_their_bound() -> None:
    from perfmodel.solver.evaluate import evaluate_plan

    for make, options in ((all_training, TRAINING), (all_serving, SERVING)):
        for case in options:
            found = make(*case)
            for x in plans_of(found, 40, seed=55):
                plan = evaluate_plan(found.problem, x)
                assert plan.bound_seconds <= plan.timed_seconds * (1 + 1e-9), vars(x)


# --- sharding -----------------------------------------------------------------------------------------------------


def lines_of(step: Any, stage: str = "first") -> dict[str, float]:
    return {line.name: float(line.bytes) for line in step.ledgers[stage]}


def zero(w: float, g: float, o: float, secondary: float | None = None) -> dict[str, float]:
    return {"weights_group": w, "secondary_group": secondary or w, "gradients_group": g, "optimizer_group": o}


@pytest.mark.parametrize(
    ("groups", "weights", "gradients", "optimizer"),
    [((1, 1, 1), 1, 1, 1), ((1, 1, ALL), 1, 1, 64), ((1, ALL, ALL), 1, 64, 64), ((ALL, ALL, ALL), 64, 64, 64),
     ((2, 8, ALL), 2, 8, 64), ((8, 8, ALL), 8, 8, 64)],
)  # fmt: skip
def test_memory_of_sharded_states(groups: tuple[float, ...], weights: int, gradients: int, optimizer: int) -> None:
    """Rajbhandari et al., arXiv:1910.02054, figure 1: (2 + 2 + K) bytes per parameter, each state over its group."""
    found = training(changes={"recipe": "bf16-grads"})
    lines = lines_of(found.problem.evaluate(neutral(found, **zero(*groups))))
    parameters = found.problem.situation.architecture.parameters
    assert lines["weights"] == pytest.approx(2.0 * parameters / weights)
    assert lines["gradients"] == pytest.approx(2.0 * parameters / gradients)
    assert lines["optimizer"] == pytest.approx(12.0 * parameters / optimizer)
    held = [dim.degree for dim in found.problem.evaluate(neutral(found)).settled.dims if dim.name == "data"]
    assert held == [64.0]


def test_a_second_copy_inside_the_node_is_paid_for() -> None:
    found = training()
    plain = lines_of(found.problem.evaluate(neutral(found, **zero(ALL, ALL, ALL))))
    copied = lines_of(found.problem.evaluate(neutral(found, **zero(ALL, ALL, ALL, secondary=8.0))))
    parameters = found.problem.situation.architecture.parameters
    assert plain["secondary weights"] == 0.0
    assert copied["secondary weights"] == pytest.approx(2.0 * parameters / 8.0)


def term_seconds(step: Any) -> dict[str, float]:
    found: dict[str, float] = {}
    for row in step.tree.exposed():
        found[row.name] = found.get(row.name, 0.0) + row.busy
    return found


def test_sharding_moves_the_bytes_it_says() -> None:
    """ZeRO-3 gathers twice and scatters once per micro-batch; ZeRO-1 gathers once a step; nothing is left to sync."""
    found = training()
    one, three = (
        term_seconds(found.problem.evaluate(neutral(found, **zero(*g)))) for g in ((1, 1, ALL), (ALL, ALL, ALL))
    )
    assert one.get("weight gather", 0.0) == 0.0
    assert one["updated weights"] > 0.0
    assert one["gradient sync"] > 0.0
    assert three["weight gather"] > 0.0
    assert three["gradient scatter"] > 0.0
    assert three.get("updated weights", 0.0) == 0.0
    assert three.get("gradient sync", 0.0) == 0.0


def test_near_groups_gather_faster_than_far_ones() -> None:
    found = training()
    gather = [
        term_seconds(found.problem.evaluate(neutral(found, **zero(w, max(w, 8.0), ALL))))["weight gather"]
        for w in (2.0, 8.0, ALL)
    ]
    assert gather[0] < gather[1] < gather[2]


def test_expert_states_shard_over_their_own_replicas() -> None:
    """Tensor and expert ranks hold other experts: of 64 ranks with tp 2 and ep 4, eight hold the same ones."""
    found = training("mixtral-8x7b", "dgx-h100", 64, changes={"recipe": "bf16-grads"})
    x = neutral(found, tp=2, ep=4, **zero(1, 1, ALL))
    step = found.problem.evaluate(x)
    dense, experts = step.settled.families
    assert (dense.group.size, experts.group.size) == (32.0, 8.0)
    architecture = found.problem.situation.architecture
    whole = architecture.expert_parameters
    assert experts.first == pytest.approx(whole / 8)
    assert experts.first * 64 / experts.group.size == pytest.approx(whole)  # every expert somewhere, no more no less
    lines = lines_of(step)
    assert lines["optimizer"] == pytest.approx(12.0 * (dense.first / 32.0 + experts.first / 8.0))


@pytest.mark.parametrize(
    ("tp", "pp", "ep", "cp"), [(1, 1, 1, 1), (2, 1, 4, 1), (4, 2, 2, 1), (2, 4, 1, 2), (1, 8, 8, 1)]
)
def test_states_of_all_ranks_are_the_whole(tp: int, pp: int, ep: int, cp: int) -> None:
    """Fully sharded states over every rank hold each parameter once (norms and router are copied by tensor ranks)."""
    found = training("mixtral-8x7b", "dgx-h100", 64, changes={"recipe": "bf16-grads"})
    step = found.problem.evaluate(neutral(found, tp=tp, pp=pp, ep=ep, cp=cp, **zero(ALL, ALL, ALL)))
    architecture, s = found.problem.situation.architecture, step.settled
    per_stage = 64 / pp
    layers = sum(f.layer / f.group.size for f in s.families) * per_stage * architecture.layers
    ends = (s.embedding + s.head) / s.families[0].group.size * per_stage
    copied = (tp - 1) * (sum(s.counts.whole.values()) * architecture.layers + architecture.extra)
    assert layers + ends == pytest.approx(architecture.parameters + copied, rel=1e-9)


def grouped(weights: float, secondary: float, gradients: float, optimizer: float) -> Plan:
    return Plan(weights_group=weights, secondary_group=secondary, gradients_group=gradients, optimizer_group=optimizer)


@pytest.mark.parametrize(
    ("groups", "name"),
    [((1, 1, 1, 1), "no sharding"), ((1, 1, 1, ALL), "ZeRO-1"), ((1, 1, ALL, ALL), "ZeRO-2"),
     ((ALL, ALL, ALL, ALL), "ZeRO-3"), ((1, 1, 1, 8), "ZeRO-1 over 8")],
)  # fmt: skip
def test_groups_have_names(groups: tuple[float, ...], name: str) -> None:
    assert describe(grouped(*groups)) == name


def test_three_levels_have_three_sizes_in_their_name() -> None:
    text = describe(grouped(2, 2, 8, ALL))
    assert all(part in text for part in ("weights over 2", "gradients over 8", "optimizer over all"))


# --- others -------------------------------------------------------------------------------------------------------


def test_recomputation_trades_memory_for_time() -> None:
    found = training(changes={"fused_attention": False, "sequence": 2048})
    steps = [found.problem.evaluate(neutral(found, tp=8, recompute=r)) for r in (0, 1, 2)]
    activations = [lines_of(s)["activations"] for s in steps]
    assert activations[0] > activations[1] > activations[2]
    assert steps[0].seconds < steps[1].seconds < steps[2].seconds
    kept = steps[0].settled.kept
    tokens, layers = steps[0].settled.sizes.tokens, steps[0].settled.layers
    assert activations[2] == pytest.approx(kept.boundary * tokens * layers)
    assert activations[0] - activations[1] == pytest.approx(kept.scores * tokens * layers)


def test_full_recomputation_repeats_one_forward_pass() -> None:
    found = training(framework="megatron-lm")
    plain, full = (found.problem.evaluate(neutral(found, tp=8, recompute=r)) for r in (0, 2))
    forward = sum(t.seconds for t in plain.terms if t.slot == "layer_forward" and t.lane == "main")
    passes = plain.settled.micro_batches * plain.settled.layers
    assert full.seconds - plain.seconds == pytest.approx(forward * passes, rel=2e-3)


def test_with_fused_kernels_selective_recomputation_is_free() -> None:
    found = training()
    plain, selective = (found.problem.evaluate(neutral(found, tp=8, recompute=r)) for r in (0, 1))
    assert selective.seconds == pytest.approx(plain.seconds, rel=1e-12)


def test_offload_moves_exactly_the_optimizer() -> None:
    found = training()
    columns = zero(1, 1, ALL)
    kept, moved = (found.problem.evaluate(neutral(found, tp=2, optimizer_host=h, **columns)) for h in (0, 1))
    here, there = lines_of(kept), lines_of(moved)
    assert there["optimizer"] == 0.0
    assert there["offloaded optimizer"] == pytest.approx(here["optimizer"])
    assert "offloaded optimizer" not in here
    terms = term_seconds(moved)
    link = found.machine.host_link
    owned = here["optimizer"] / found.workload.recipe.optimizer_bytes
    assert terms["gradients to host"] == pytest.approx(owned * found.workload.recipe.gradients / link)
    assert terms["weights from host"] == pytest.approx(owned * found.workload.recipe.weights / link)
    assert terms["host optimizer"] > 0.0


def test_half_an_offload_runs_beside_the_device() -> None:
    found = training()
    times = [
        found.problem.evaluate(neutral(found, tp=2, optimizer_host=h, **zero(1, 1, ALL))).seconds for h in (0, 0.5, 1)
    ]
    assert times[0] < times[1] < times[2]


OFFLOAD = ("zero_infinity", "interleaved_update")


def tiers_of(step: Any, *names: str) -> float:
    """Bytes of the lines whose name ends in one of ``names``, over all tiers."""
    return sum(float(line.bytes) for line in step.ledgers["first"] if line.name.endswith(names))


@pytest.mark.parametrize("stored", [0, 1, 2])
def test_states_beyond_the_device_keep_every_byte(stored: int) -> None:
    found = training(use=OFFLOAD)
    columns = zero(ALL, ALL, ALL)
    here, away = (
        found.problem.evaluate(
            neutral(found, recompute=2, optimizer_host=on, weights_host=on, activations_host=on,
                    on_storage=stored * on, **columns)
        )
        for on in (0, 1)
    )  # fmt: skip
    for state in ("weights", "gradients", "optimizer", "activations"):
        assert tiers_of(away, state) == pytest.approx(tiers_of(here, state))
    assert away.seconds > here.seconds
    storage = {line.name for line in away.ledgers["first"] if line.tier == "storage" and line.bytes > 0.0}
    assert len(storage) == (0, 1, 3)[stored]


def test_streamed_weights_wait_for_the_link_only() -> None:
    """Each rank fetches its shard twice per micro-batch: the time goes with bytes over bandwidth and shards."""
    found = training(use=OFFLOAD)
    busy = {}
    for group in (8.0, ALL):
        x = neutral(found, optimizer_host=1, weights_host=1, recompute=2, **zero(group, group, ALL))
        step = found.problem.evaluate(x)
        busy[group] = term_seconds(step)["weights to device"]
        parameters = found.problem.situation.architecture.parameters
        shards = min(group, 64.0)
        moved = 2.0 * parameters / shards * 2.0 * float(step.settled.micro_batches)
        assert busy[group] == pytest.approx(moved / found.machine.host_link, rel=0.02)


def test_weights_leave_the_device_after_the_optimizer() -> None:
    found = training(use=OFFLOAD)
    assert found.problem.form(neutral(found, weights_host=1))["optimizer off the device"] > 1.0
    assert found.problem.form(neutral(found, weights_host=1, optimizer_host=1))["optimizer off the device"] <= 1.0
    assert found.problem.form(neutral(found, on_storage=1))["optimizer off the device"] > 1.0


def test_interleaving_never_loses_and_fades_with_the_link() -> None:
    """Both processors at work beat one; over a link of no bandwidth, or beside an endless host, nothing is gained."""

    def gain(**changes: str) -> float:
        found = training(use=OFFLOAD, machine_changes=changes)
        alone, shared = (
            found.problem.evaluate(neutral(found, optimizer_host=1, interleaved=i, **zero(1, 1, ALL))) for i in (0, 1)
        )
        update = [sum(r.exposed for r in s.tree.exposed() if r.name in UPDATE_TERMS) for s in (alone, shared)]
        return update[0] / update[1]

    links = [gain(**{"node.host.link": f"{b} GB/s"}) for b in (0.01, 5, 25, 60)]
    assert links == sorted(links)
    assert 1.0 <= links[0] < 1.01 < links[-1] <= 2.0 + 1e-9
    assert gain(**{"node.host.bandwidth": "100 TB/s"}) == pytest.approx(1.0, abs=0.01)


def test_context_ranks_share_work_and_memory() -> None:
    found = training(changes={"sequence": 16384, "global_batch": 16384 * 64})
    alone, shared = (found.problem.evaluate(neutral(found, tp=2, cp=c)) for c in (1, 4))
    assert shared.settled.sizes.tokens * 4 == alone.settled.sizes.tokens
    assert lines_of(shared)["activations"] * 4 == pytest.approx(lines_of(alone)["activations"])
    assert lines_of(shared)["weights"] == lines_of(alone)["weights"]
    assert shared.settled.families[0].group == alone.settled.families[0].group  # context ranks agree on gradients
    flops = [
        sum(t.bound for t in s.terms if t.slot == "layer_forward" and t.core) * s.settled.micro_batches
        for s in (alone, shared)
    ]
    assert flops[1] == pytest.approx(flops[0], rel=0.01)  # a quarter of each sequence, four times the sequences


def test_regions_that_drift_share_no_gradient() -> None:
    found = training("llama-2-7b", "frontier", 128, use=("local_steps",))
    together = found.problem.evaluate(neutral(found))
    apart = found.problem.evaluate(neutral(found, regions=4, local_steps=100))
    assert together.settled.families[0].group.size == 128
    assert apart.settled.families[0].group.size == 32
    assert apart.settled.micro_batches == together.settled.micro_batches
    slots = {t.slot for t in apart.terms if t.name == "outer sync"}
    assert slots == {"outer"}
    rows = {r.name: r.busy for r in apart.tree.exposed()}
    often = found.problem.evaluate(neutral(found, regions=4, local_steps=50))
    twice = {r.name: r.busy for r in often.tree.exposed()}
    assert twice["outer sync"] == pytest.approx(2 * rows["outer sync"])
    assert lines_of(apart)["outer optimizer"] == pytest.approx(8.0 * apart.settled.families[0].first)


def test_without_a_backward_pass_only_the_weights_remain() -> None:
    found = training(use=("zeroth_order",), framework="megatron-lm")
    plain, bare = (found.problem.evaluate(neutral(found, tp=2, zeroth_order=z)) for z in (0, 1))
    here, there = lines_of(plain), lines_of(bare)
    assert there["weights"] == here["weights"]
    assert there["gradients"] == there["optimizer"] == there["activations"] == 0.0
    forward = [sum(r.busy for r in s.tree.exposed() if r.name == "matrix multiply") for s in (plain, bare)]
    assert forward[1] == pytest.approx(forward[0] * 2.0 / 3.0, rel=0.1)
    assert term_seconds(bare)["gradient sync"] < 1e-2 * term_seconds(plain)["gradient sync"]


FAR = {"levels.wan.latency": "0 s", "levels.pod.latency": "0 s", "levels.node.latency": "0 s"}


def outer(line: str = "1 Gb/s", **columns: float) -> tuple[float, float, float]:
    """Busy and exposed seconds per step of averaging between two regions, and the step without it."""
    changes = {**FAR, "levels.wan.nics.bandwidth": line}
    found = setting("llama-3-8b", "two-regions", "pretrain", devices=256, use=("local_steps",), machine_changes=changes)
    step = on_rings(found).problem.evaluate(neutral(found, regions=2, **columns))
    busy, exposed = (
        sum(getattr(r, which) for r in step.tree.exposed() if r.name == "outer sync") for which in ("busy", "exposed")
    )
    return busy, exposed, step.seconds - exposed


def test_fragments_move_the_same_bytes() -> None:
    whole, parts = (outer(local_steps=100, fragments=p) for p in (1, 8))
    assert parts[0] == pytest.approx(whole[0])
    assert outer(local_steps=100, fragments=8, outer_wire=0.5)[0] == pytest.approx(whole[0] / 8.0)


def test_an_exchange_hides_behind_its_steps_and_no_longer_than_its_period() -> None:
    busy, blocking, step = outer(local_steps=100)
    assert blocking == pytest.approx(busy)
    assert outer(local_steps=100, overlap_steps=2)[1] == pytest.approx(max(busy - 2 * step / 100, 0.0))
    waits = [outer(local_steps=100, overlap_steps=t)[1] for t in (0, 1, 2, 5, 100, 2.0**40)]
    assert waits == sorted(waits, reverse=True)
    assert waits[-1] == waits[-2] == pytest.approx(max(busy - step, 0.0))
    slow = outer("1 Mb/s", local_steps=100, overlap_steps=2.0**40)
    assert slow[1] == pytest.approx(slow[0] - slow[2])  # the line is never idle, and still too slow


def test_merging_once_costs_one_exchange_a_run() -> None:
    once, often = (outer(local_steps=h) for h in (2.0**40, 100.0))
    assert once[0] * 2.0**40 == pytest.approx(often[0] * 100.0)
    assert once[1] < 1e-6 * once[2]


def test_the_quadratic_rule_averages_less_often_as_the_rate_falls() -> None:
    """Cosine schedule: the mean of 1/H is at most 1/H0, and near 3/8 of the squared peak rate over alpha."""
    assert synchronisations(4.0, 0.0) == 0.25
    shares = [synchronisations(4.0, g) for g in (0.0, 1.0, 2.19, 4.0)]
    assert shares == sorted(shares, reverse=True)
    assert synchronisations(1.0, 20.0) == pytest.approx(0.375 / 400.0, rel=0.01)
    busy = [outer(local_steps=4, period_growth=g, outer_momentum=0)[0] for g in (0.0, 2.19)]
    assert busy[1] / busy[0] == pytest.approx(shares[2] / shares[0])


def test_quantised_wires_shrink_traffic_not_storage() -> None:
    quiet = {f"levels.{name}.latency": "0 s" for name in ("package", "node", "switch", "group")}
    found = on_rings(training(use=("compressed_collectives",), machine_changes=quiet))
    columns = zero(ALL, ALL, ALL)
    plain, packed = (found.problem.evaluate(neutral(found, compressor=c, **columns)) for c in ("none", "zeropp"))
    assert lines_of(plain)["weights"] == lines_of(packed)["weights"]
    before, after = term_seconds(plain), term_seconds(packed)
    assert after["weight gather"] == pytest.approx(before["weight gather"] / 2.0, rel=0.15)
    assert (
        before["gradient scatter"] / 8.0 < after["gradient scatter"] < before["gradient scatter"] / 6.0
    )  # latency stays


def on_rings(found: Setting) -> Setting:
    """The same setting with rings that cost no launch, so that times are in proportion to bytes."""
    rings = Library("rings", {"ring": (Protocol(),)})
    network = found.problem.network._replace(library=rings)
    return replace(found, network=network, problem=replace(found.problem, network=network))


def sync_seconds(machine: str = "dgx-a100", ranks: int = 64, **columns: Any) -> dict[str, float]:
    """Busy seconds of the exchange of gradients, with links that cost no latency."""
    quiet = {"levels.node.latency": "0 s", "levels.pod.latency": "0 s"}
    found = setting(
        "llama-3-8b", machine, "pretrain", devices=ranks, use=("compressed_collectives",), machine_changes=quiet
    )
    rows = term_seconds(on_rings(found).problem.evaluate(neutral(found, **columns)))
    return {"sync": rows["gradient sync"], "plain": rows.get("uncompressed gradient sync", 0.0)}


def test_signs_of_the_momentum_cost_a_32nd_after_the_warm_up() -> None:
    plain, signs = (sync_seconds(compressor=c) for c in ("none", "onebit-adam"))
    assert signs["plain"] == pytest.approx(0.15 * plain["sync"])
    assert signs["sync"] == pytest.approx(0.85 * plain["sync"] / 32.0)


def test_sparse_lists_lose_to_the_ring_beyond_a_number_of_ranks() -> None:
    """Every rank gathers P lists of 6 B x 0.1 %, the ring moves twice 4 B: they meet near P = 1,333."""
    found = {p: (sync_seconds(ranks=p), sync_seconds(ranks=p, compressor="dgc")) for p in (64, 512)}
    for ranks, (dense, sparse) in found.items():
        late = sparse["sync"] / (1.0 - 0.0037)
        assert late / dense["sync"] == pytest.approx(ranks * 0.006 / 8.0, rel=1e-6)


@pytest.mark.parametrize("name", sorted(compressors()))
def test_every_compressor_sends_less_than_the_gradients(name: str) -> None:
    """Among 64 ranks; and what it sends costs work to prepare."""
    plain, packed = (sync_seconds(compressor=c) for c in ("none", name))
    assert packed["sync"] + packed["plain"] < plain["sync"]
    record = compressors()[name]
    assert record.value("gradient_traffic") > (record.gradients_wire or 0.0)


def test_what_was_not_sent_is_kept_and_whole_gradients_stay_whole() -> None:
    found = training(use=("compressed_collectives",))
    x = neutral(found, compressor="onebit-adam")
    step = found.problem.evaluate(x)
    family = step.settled.families[0]
    assert lines_of(step)["error feedback"] == pytest.approx(family.first * 4.0 * (1.0 + 1.0 / 64.0))
    assert found.problem.form(x)["whole gradient"] <= 1.0
    sharded = neutral(found, compressor="onebit-adam", **zero(ALL, ALL, ALL))
    assert found.problem.form(sharded)["whole gradient"] > 1.0


def test_compressors_of_unknown_cost_are_offered_by_name_only() -> None:
    def offered(**options: Any) -> set[str]:
        found = training(**options)
        return {v for a in found.space.structural for (v,) in a.values if a.columns == ("compressor",)}

    assert offered(loss=0.5) == {"none"}
    assert {"zeropp", "dgc"} < offered(use=("compressed_collectives",))


# --- serving ------------------------------------------------------------------------------------------------------


def test_four_bit_weights_are_stored_in_four_bits() -> None:
    """0.5 B and 20 bits per group of 128; embedding, head and norms keep 16 bits."""
    found = setting("llama-2-13b", "h200-8x", "chat", use=("packed_weights",))
    plain, packed = (
        found.problem.evaluate(neutral(found, tp=1, batch=8, packed_weights=w)) for w in ("none", "awq-int4-g128")
    )
    architecture = found.problem.situation.architecture
    matrices = sum(plain.settled.counts.split.values()) * architecture.layers
    saved = matrices * (2.0 - (0.5 + 2.5 / 128.0))
    assert lines_of(plain)["weights"] - lines_of(packed)["weights"] == pytest.approx(saved)
    assert packed.pass_seconds < plain.pass_seconds
    assert packed.settled.layout.quality_accepted > 0.0


def pim(**columns: Any) -> tuple[Setting, Any]:
    found = setting("llama-2-13b", "npu-pim", "chat")
    return found, found.problem.evaluate(neutral(found, tp=4, batch=64, **columns))


def test_an_engine_that_shares_memory_keeps_the_cache_in_it() -> None:
    found, plain = pim()
    _, beside = pim(attention_engine="pim", sub_batches=1)
    cache = [next(line for line in r.ledgers["first"] if line.name == "KV cache") for r in (plain, beside)]
    assert cache[0] == cache[1]
    assert found.machine.engine("pim").link is None
    assert not [r for r in beside.decode.exposed() if r.name == "to attention engine"]
    attention = {r.resource.split()[0] for r in beside.decode.exposed() if r.name == "attention"}
    assert attention == {"pim"}


def test_sub_batches_interleave_two_engines() -> None:
    """Two halves of the batch: each layer takes the longer of the two engines, not their sum."""
    _, whole = pim(attention_engine="pim", sub_batches=1)
    _, halves = pim(attention_engine="pim", sub_batches=2)
    assert whole.settled.sizes.sequences == 2 * halves.settled.sizes.sequences
    busy = {"main": 0.0, "pim": 0.0}
    for row in halves.decode.exposed():
        if row.resource != "host cpu":
            busy["pim" if row.resource.startswith("pim") else "main"] += row.busy
    host = sum(r.busy for r in halves.decode.exposed() if r.name == "host per pass")
    assert halves.pass_seconds < host + sum(busy.values())
    assert halves.pass_seconds >= host + max(busy.values()) * 0.95


def test_an_engine_of_its_own_is_reached_over_its_link() -> None:
    found = setting("llama-2-13b", "npu-pim", "chat")
    engine = found.machine.engine("pim")
    linked = replace(engine, link=50e9, tier="pim memory")
    machine = replace(
        found.machine,
        engines={**found.machine.engines, "pim": linked},
        tiers={**found.machine.tiers, "pim memory": engine.capacity},
    )
    problem = replace(found.problem, machine=machine, memo=type(found.problem.memo)())
    x = neutral(found, tp=4, batch=64, attention_engine="pim")
    replica = problem.evaluate(x)
    assert next(line.tier for line in replica.ledgers["first"] if line.name == "KV cache") == "pim memory"
    moved = [r for r in replica.decode.exposed() if r.name == "to attention engine"]
    architecture = found.problem.situation.architecture
    mixer = architecture.runs[0].layer.mixer
    numbers = 64 * (mixer.heads + mixer.kv_heads) * 2 * mixer.head_dim / 4
    assert sum(r.busy for r in moved) == pytest.approx(numbers * 2.0 / 50e9 * architecture.layers)


def test_expert_ranks_of_a_replica_hold_each_expert_once() -> None:
    found = setting("mixtral-8x22b", "dgx-h100", "chat")
    one, eight = (lines_of(found.problem.evaluate(neutral(found, tp=1, batch=64, ep=e)))["weights"] for e in (1, 8))
    experts = 2.0 * found.problem.situation.architecture.expert_parameters
    assert one - eight == pytest.approx(experts * 7 / 8)


def test_more_requests_together_are_more_efficient_and_slower() -> None:
    found = setting("llama-3.1-70b", "h200-8x", "chat")
    replicas = [found.problem.evaluate(neutral(found, tp=8, batch=b)) for b in (1, 4, 16, 64, 256)]
    rates = [r.rate for r in replicas]
    times = [r.tpot for r in replicas]
    assert rates == sorted(rates)
    assert times == sorted(times)


def test_a_situation_is_all_that_axes_see() -> None:
    """Axes are proposed without a plan, and their first value is the neutral one."""
    for make, options in ((all_training, TRAINING), (all_serving, SERVING)):
        for case in options:
            found = make(*case)
            for technique in found.problem.techniques:
                for axis in technique.axes(found.problem.situation):
                    assert len(set(axis.values)) == len(axis.values)
                    for column, value in zip(axis.columns, axis.values[0], strict=True):
                        if column in technique.neutral and technique in OPTIONAL:
                            assert value == technique.neutral[column], (technique.name, column)
