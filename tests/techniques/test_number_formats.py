"""Formats of weights and of the cache in plans: bytes, time, legality, quality; mixtures and reduced shapes."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import perfmodel
from perfmodel.errors import SpecError, UnknownName
from perfmodel.operators.assignment import assign
from perfmodel.operators.formats import layer_weights
from perfmodel.operators.mixture import mixture
from perfmodel.specs.number_formats import Mix
from tests.planning import model, neutral, setting

MINE = """
sources: {me: "measured at home"}
formats:
  mine:
    title: "my own"
    bits: 5
    group: 64
    scale: 16
    products: [bf16]
    source: me
    unpack: {value: 2, kind: assumed, source: me}
"""


def evaluated(of: str, machine: str, use: tuple[str, ...], **columns: Any) -> Any:
    found = setting(of, machine, "chat", use=use, framework="bare", changes={"slo": None})
    return found.problem.evaluate(neutral(found, **columns))


def line(replica: Any, name: str) -> float:
    return float(sum(x.bytes for x in replica.ledgers["first"] if x.name == name))


@pytest.mark.parametrize("machine", ["h100-sxm", "a100-80gb-sxm", "rtx-4090"])
def test_fewer_bits_are_never_slower_where_memory_binds(machine: str) -> None:
    """Decode of one sequence on engines with kernels for packed weights."""
    order = ("int8-channel", "awq-int4-g128", "awq-int3-g128")
    use = ("packed_weights=" + ",".join(order),)
    times = [float(evaluated("llama-2-7b", machine, use, batch=1, packed_weights=w).pass_seconds)
             for w in ("none", *order)]  # fmt: skip
    assert times == sorted(times, reverse=True)


@pytest.mark.parametrize("machine", ["h100-sxm", "a100-80gb-sxm"])
def test_a_smaller_cache_holds_more_and_is_read_faster(machine: str) -> None:
    order = ("int8", "int4-g32", "bfp4-b64")
    use = ("packed_cache=" + ",".join(order),)
    plain, *packed = (evaluated("llama-2-7b", machine, use, batch=32, packed_cache=c) for c in ("none", *order))
    for name, bits, replica in zip(order, (8.0, 4.5, 4.125), packed, strict=True):
        assert line(replica, "KV cache") == pytest.approx(line(plain, "KV cache") * bits / 16.0, rel=1e-9), name
        assert line(replica, "weights") == line(plain, "weights")
        assert 1.0 < float(plain.pass_seconds / replica.pass_seconds) < 16.0 / bits


def test_weights_and_cache_compose() -> None:
    """Each saves what it saves alone; losses add up."""
    use = ("packed_weights=awq-int4-g128", "packed_cache=int8-g32")
    both = evaluated("llama-3-8b", "h100-sxm", use, batch=16, packed_weights="awq-int4-g128", packed_cache="int8-g32")
    weights = evaluated("llama-3-8b", "h100-sxm", use, batch=16, packed_weights="awq-int4-g128")
    cache = evaluated("llama-3-8b", "h100-sxm", use, batch=16, packed_cache="int8-g32")
    assert line(both, "weights") == line(weights, "weights")
    assert line(both, "KV cache") == line(cache, "KV cache")
    accepted = [float(r.settled.layout.quality_accepted) for r in (both, weights, cache)]
    assert accepted[0] == pytest.approx(accepted[1] + accepted[2])
    assert both.pass_seconds < min(weights.pass_seconds, cache.pass_seconds)


def test_narrow_activations_speed_up_prompts_and_leave_decode_to_the_bytes() -> None:
    """Eight-bit products double the rate of a prompt's matrices at most; the weights are as large as before."""
    use = ("packed_weights=cbq-int4-channel,cbq-w4a8,cbq-w4a4",)
    wide, eight, four = (
        evaluated("llama-2-7b", "a100-80gb-sxm", use, batch=1, packed_weights=w)
        for w in ("cbq-int4-channel", "cbq-w4a8", "cbq-w4a4")
    )
    prompts = [float(r.prefill.elapsed()) for r in (wide, eight, four)]
    assert prompts[0] > prompts[1] > prompts[2]
    assert prompts[0] / prompts[1] < 2.0
    assert line(wide, "weights") == line(eight, "weights") == line(four, "weights")


def test_two_of_four_halves_the_products_where_the_units_skip(tmp_path: Path) -> None:
    """Without such units the bytes shrink and the products stay."""
    use = ("packed_weights=sparse-2-4",)
    s = evaluated("llama-2-7b", "h100-sxm", use, batch=8, packed_weights="sparse-2-4").settled
    skips = setting("llama-2-7b", "h100-sxm", "chat").machine.main.formats
    assert float(s.sizes.computed) == (0.5 if "2:4" in skips else 1.0)
    assert float(s.weights_bytes) == pytest.approx(9.0 / 8.0)


def test_mesh_and_single_plan_agree() -> None:
    """Every format, as a slab over batches and as one plan."""
    names = "awq-int4-g128,qoq-w4a8-g128,vptq-v8-k65536,sparse-2-4,mix-awq-3.6"
    use = ("packed_weights=" + names, "packed_cache=kivi-int4", "subnet=foldgpt-12-pairs")
    found = setting("llama-2-7b", "a100-8x", "chat", use=use)
    batches = np.array([1.0, 7.0, 64.0])
    for w, c, n in product((*names.split(","), "none"), ("none", "kivi-int4"), ("none", "foldgpt-12-pairs")):
        x = neutral(found, tp=2, packed_weights=w, packed_cache=c, subnet=n)
        x.batch = batches
        mesh = found.problem.evaluate(x)
        for i, batch in enumerate(batches):
            one = found.problem.evaluate(neutral(found, tp=2, batch=batch, packed_weights=w, packed_cache=c, subnet=n))
            assert float(np.broadcast_to(mesh.pass_seconds, 3)[i]) == pytest.approx(float(one.pass_seconds), rel=1e-12)
            assert float(np.broadcast_to(mesh.ttft, 3)[i]) == pytest.approx(float(one.ttft), rel=1e-12)


def test_codebooks_are_held_by_every_tensor_rank() -> None:
    use = ("packed_weights=vptq-v8-k65536",)
    found = setting("llama-2-7b", "a100-8x", "chat", use=use)
    one, four = (found.problem.evaluate(neutral(found, tp=tp, packed_weights="vptq-v8-k65536")) for tp in (1, 4))
    books = 32 * 7 * 65536 * 8 * 2.0
    assert line(one, "codebooks") == 0.0
    assert line(four, "codebooks") == pytest.approx(books * 3.0 / 4.0)


# --- layer by layer ---------------------------------------------------------------------------------------------------


def test_the_assignment_is_the_best_of_all() -> None:
    rng = np.random.default_rng(8)
    for _ in range(20):
        weights, widths = rng.uniform(1.0, 3.0, 6).tolist(), [0.25, 0.375, 0.5]
        losses = np.sort(rng.uniform(0.0, 1.0, (6, 3)))[:, ::-1].tolist()
        budget = float(rng.uniform(0.26, 0.5)) * sum(weights)
        found = assign(weights, widths, losses, budget)
        every = [
            sum(losses[i][c] for i, c in enumerate(choice))
            for choice in product(range(3), repeat=6)
            if sum(w * widths[c] for w, c in zip(weights, choice, strict=True)) <= budget
        ]
        assert found is not None
        assert found.loss == pytest.approx(min(every))
        assert found.bytes <= budget * (1.0 + 1e-9)
    assert assign([1.0], [0.5], [[0.0]], 0.4) is None


def test_sensitive_layers_keep_their_bits() -> None:
    architecture = model("llama-2-7b").architecture
    profile = tuple(10.0 if i in (0, 1, 31) else 1.0 for i in range(32))
    formats = ("gptq-int3-g128", "gptq-int4-g128")
    found = mixture(Mix(formats=formats, bits=3.3, sensitivity=profile), architecture)
    assert [found.formats[i] for i in (0, 1, 31)] == ["gptq-int4-g128"] * 3
    assert 8.0 * found.bytes <= 3.3
    flat = mixture(Mix(formats=formats, bits=3.3), architecture)
    assert found.loss is not None
    assert flat.loss is not None
    assert found.loss.value < flat.loss.value
    assert sum(layer_weights(architecture)) == pytest.approx(32 * (4 * 4096**2 + 3 * 4096 * 11008))


def test_a_budget_below_the_smallest_format_is_one_message() -> None:
    architecture = model("llama-2-7b").architecture
    with pytest.raises(SpecError, match=r"below the smallest.*allowed: 3\.148 or more"):
        mixture(Mix(formats=("awq-int3-g128", "awq-int4-g128"), bits=3.0), architecture)
    with pytest.raises(SpecError, match="one number per layer"):
        mixture(Mix(formats=("awq-int3-g128", "awq-int4-g128"), bits=3.6, sensitivity=(1.0,)), architecture)


# --- what a user gets wrong -------------------------------------------------------------------------------------------


def test_a_format_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(MINE)
    answer = perfmodel.plan("llama-2-7b", "rtx-4090", "chat", use=(f"packed_weights={path}",)).answers[0]
    assert answer.best is not None
    assert answer.best.columns["packed_weights"] == str(path)
    assert answer.best.quality is None  # nobody published it, and the plan says so
    assert "my own" in answer.best.summary[-1] or any("my own" in word for word in answer.best.summary)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (("bits: 5", "bitss: 5"), r"mine\.yaml:6: formats\.mine\.bitss: unknown key `bitss`; did you mean `bits`"),
        (("[bf16]", "[bf17]"), r"products\.0: not one of the choices; did you mean `bf16`"),
        (("source: me\n    unpack", "source: you\n    unpack"), r"mine\.yaml:\d+: formats\.mine\.source.*found 'you'"),
        (("bits: 5", "bits: -5"), "out of range"),
        (("    group: 64", "    density: 0.5"), "belong together"),
        (("  mine:", "  mine: {}\n  other:"), "missing"),
    ],
)
def test_a_malformed_format_is_one_message(tmp_path: Path, wrong: tuple[str, str], message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(MINE.replace(*wrong))
    with pytest.raises(SpecError, match=message):
        perfmodel.plan("llama-2-7b", "rtx-4090", "chat", use=(f"packed_weights={path}",))


@pytest.mark.parametrize(
    ("use", "near"), [("packed_weights=awq-int4", "awq-int4-g128"), ("packed_cache=bfp8", "bfp8-b32")]
)
def test_unknown_formats_name_the_nearest(use: str, near: str) -> None:
    with pytest.raises(UnknownName, match=near):
        perfmodel.plan("llama-2-7b", "rtx-4090", "chat", use=(use,))


def test_a_format_that_no_unit_multiplies_is_an_answer(tmp_path: Path) -> None:
    """It names the constraint, and what the plan would give."""
    path = tmp_path / "mine.yaml"
    path.write_text(MINE.replace("[bf16]", "[nvfp4]"))
    answer = perfmodel.plan(
        "llama-2-7b", "a100-80gb-sxm", "chat", use=(f"packed_weights={path}",), pin={"packed_weights": str(path)}
    ).answers[0]
    assert answer.best is None
    assert answer.rejected[0].constraint == "number format"
    free = perfmodel.plan("llama-2-7b", "a100-80gb-sxm", "chat", use=(f"packed_weights={path}",)).answers[0]
    assert free.best is not None
    assert free.best.columns["packed_weights"] == "none"


def test_a_budget_that_nothing_meets_says_what_would() -> None:
    """70B in 24 GiB: 16 bits do not fit, and the smallest published loss with which a plan fits is offered."""
    ask = {"model": "llama-2-70b", "hw": "rtx-4090", "workload": "chat", "workload_changes": {"slo": None}}
    answer = perfmodel.plan(**ask, max_quality_loss=0.01).answers[0]
    assert answer.best is None
    offered = [text for text in answer.possible_with if "--max-quality-loss" in text]
    assert len(offered) == 1
    needed = float(offered[0].split("--max-quality-loss ")[1].split()[0])
    plan = perfmodel.plan(**ask, max_quality_loss=needed).answers[0].best
    assert plan is not None
    assert plan.quality is not None
    assert plan.quality <= needed
    assert perfmodel.plan(**ask, max_quality_loss=needed - 2e-3).answers[0].best is None
