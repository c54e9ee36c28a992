"""Drafted tokens: acceptance of chains and trees, what drafting and verifying cost, and where it stops paying."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from planning import neutral, setting, system

import perfmodel
from perfmodel.errors import SpecError, UnknownName
from perfmodel.insight.setting import Setting
from perfmodel.insight.simulation import Options, simulate
from perfmodel.insight.turning import turning_points
from perfmodel.operators.drafting import drafting
from perfmodel.operators.drafts import chain_tokens, draft_tree, first_acceptance
from perfmodel.serving.schedulers import choose_scheduler
from perfmodel.serving.steady import Replica
from perfmodel.specs.drafters import drafter, drafters
from perfmodel.specs.quality.acceptance import accepted_rows
from perfmodel.specs.trace import Arrival
from perfmodel.techniques.settled import Plan

NAMES = tuple(n for n in drafters() if n != "draft-model")
LONE = {"slo": None, "prompt": 256, "output": 512}


@lru_cache(maxsize=64)
def serving(
    names: str = "medusa-1", model: str = "llama-3.1-8b", machine: str = "h100-sxm", framework: str = "vllm",
    acceptance: float | None = 0.7, prompt: int = 256,
) -> Setting:  # fmt: skip
    changes: dict[str, Any] = {**LONE, "prompt": prompt}
    if acceptance is not None:
        changes["acceptance"] = acceptance
    return setting(model, machine, "chat", use=(f"speculation={names}",), changes=changes, framework=framework)


def replica(found: Setting, **columns: Any) -> Replica:
    evaluated = found.problem.evaluate(neutral(found, **columns))
    assert isinstance(evaluated, Replica)
    return evaluated


def speedup(found: Setting, name: str, batch: float = 1.0, **columns: Any) -> float:
    """Tokens per second of decode passes over those without drafts."""
    drafted = replica(found, speculation=name, batch=batch, **columns)
    plain = replica(found, batch=batch)
    gain = drafted.settled.layout.tokens_per_pass
    return float(gain * plain.pass_seconds / drafted.pass_seconds)


# --- acceptance ---------------------------------------------------------------------------------------------------


def test_a_tree_with_one_branch_is_a_chain() -> None:
    for a in (0.0, 0.3, 0.8, 1.0):
        for k in (1, 2, 5, 8):
            tree = draft_tree((a,) * k, 0.5, k, 1)
            assert tree.widths == tree.parents == (1,) * k
            assert tree.tokens == pytest.approx(chain_tokens(a, k), rel=1e-12)


def test_tokens_grow_with_acceptance_candidates_and_depth() -> None:
    rng = np.random.default_rng(1)
    for _ in range(40):
        a = tuple(np.sort(rng.uniform(0.0, 1.0, 5))[::-1])
        nodes, branching, b = int(rng.integers(1, 60)), int(rng.integers(1, 10)), float(rng.uniform(0.0, 1.0))
        here = draft_tree(a, b, nodes, branching).tokens
        better = tuple(x + 0.5 * (1.0 - x) for x in a)
        # further candidates of a position are worth less where the first is better, the positions behind it more
        assert draft_tree(better, 0.0, nodes, 1).tokens >= draft_tree(a, 0.0, nodes, 1).tokens
        assert draft_tree(a, b, nodes + 1, branching).tokens >= here
        assert draft_tree(a, b, nodes, branching + 1).tokens >= here - 1e-12
        assert draft_tree(a[:3], b, nodes, branching).tokens <= here + 1e-12
        assert 1.0 <= here <= len(a) + 1.0


def test_the_tree_is_the_best_of_its_size() -> None:
    """Against every chain-like and bushy tree of a few nodes, by brute force over widths of a two-position tree."""
    a, b = (0.6, 0.5), 0.7

    def hit(x: float, c: int) -> float:
        return 1.0 - (1.0 - x) ** (c**b) if c else 0.0

    for nodes in range(1, 7):
        best = 0.0
        for first in range(1, nodes + 1):
            left = nodes - first
            ways: list[list[int]] = [[]]
            for _ in range(first):
                ways = [[*w, c] for w in ways for c in range(left - sum(w) + 1)]
            for w in ways:
                if sum(w) == left:
                    parts = [hit(a[0], i + 1) - hit(a[0], i) for i in range(first)]
                    best = max(best, 1.0 + sum(p * (1.0 + hit(a[1], c)) for p, c in zip(parts, w, strict=True)))
        assert draft_tree(a, b, nodes, 10).tokens == pytest.approx(best, rel=1e-12)


def test_published_tokens_come_back_from_their_own_shape() -> None:
    for row in accepted_rows():
        record = drafter(row.drafter)
        fade, breadth = record.fade.value, record.breadth.value
        first = first_acceptance(row.tokens, fade, breadth, row.drafted, record.depth, row.branching)
        tree = draft_tree(tuple(first * fade**i for i in range(record.depth)), breadth, row.drafted, row.branching)
        assert tree.tokens == pytest.approx(row.tokens, rel=1e-6), row
        assert 0.0 < first < 1.0
        assert tree.nodes == row.drafted, row


MEDUSA_HEADS = {
    "7b": ((0.5604, 0.3164, 0.2010, 0.1474), 2.55),
    "13b": ((0.5939, 0.3397, 0.2161, 0.1500), 2.61),
    "33b": ((0.6046, 0.3558, 0.2246, 0.1596), 2.53),
}
"""Top-1 accuracies of the first four heads on Vicuna (FasterDecoding/Medusa assets/medusa_acc.csv), and tokens per pass
measured on MT-bench (ReDrafter, arXiv:2403.09919, secondary summary)."""


@pytest.mark.parametrize("size", MEDUSA_HEADS)
def test_measured_heads_predict_measured_tokens(size: str) -> None:
    """The 63 candidates of Medusa's own tree, from the accuracy of its heads alone."""
    accuracies, tokens = MEDUSA_HEADS[size]
    assert draft_tree(accuracies, drafter("medusa-1").breadth.value, 63, 10).tokens == pytest.approx(tokens, rel=0.08)


CHAINS = {"eagle": (2.10, 2.29, 2.39, 2.43, 2.45, 2.47), "eagle3": (2.36, 2.79, 3.08, 3.32, 3.46, 3.54)}
"""Tokens per pass with 2 to 7 drafted on Llama 3.1 8B, MT-bench (vllm-project/vllm issue 20780)."""


@pytest.mark.parametrize("name", CHAINS)
def test_shorter_chains_follow_from_the_longest(name: str) -> None:
    for k, tokens in enumerate(CHAINS[name], 2):
        plan = replica(serving(name, acceptance=None), speculation=name, drafted=k, branching=1)
        assert float(plan.settled.layout.tokens_per_pass) == pytest.approx(tokens, rel=0.015)


# --- time ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_never_faster_than_the_tokens_gained(name: str) -> None:
    found = serving(name)
    for batch in (1.0, 8.0, 64.0, 512.0):
        drafted = replica(found, speculation=name, batch=batch)
        assert speedup(found, name, batch) < float(drafted.settled.layout.tokens_per_pass)
        assert drafted.pass_seconds > replica(found, batch=batch).pass_seconds


@pytest.mark.parametrize("name", NAMES)
def test_nothing_accepted_never_helps(name: str) -> None:
    found = serving(name, acceptance=0.0)
    for batch in (1.0, 16.0, 256.0):
        assert replica(found, speculation=name, batch=batch).settled.layout.tokens_per_pass == 1.0
        assert speedup(found, name, batch) < 1.0


@pytest.mark.parametrize("name", NAMES)
def test_everything_accepted_gains_the_whole_chain(name: str) -> None:
    found = serving(name, acceptance=1.0)
    for k in (1, 2, 4):
        layout = replica(found, speculation=name, drafted=k, branching=1).settled.layout
        assert layout.tokens_per_pass == pytest.approx(k + 1.0)
        assert layout.verify_tokens == k + 1.0


@pytest.mark.parametrize("name", ["medusa-1", "eagle", "prompt-lookup"])
def test_large_batches_leave_nothing(name: str) -> None:
    """Products of many rows take time in proportion to them: every verified token costs what it would cost alone."""
    found = serving(name, framework="bare")
    gains = [speedup(found, name, batch) for batch in (1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 8192.0)]
    assert gains[0] > 1.5
    assert gains[-1] < 1.0
    layout = replica(found, speculation=name).settled.layout
    assert gains[-1] >= 0.8 * float(layout.tokens_per_pass / layout.verify_tokens)


def test_experts_touched_grow_with_verified_tokens() -> None:
    """A dense model reads its weights once for one token or four, a sparse one reads further experts."""
    changes = {**LONE, "acceptance": 0.8}
    ratios = []
    for model in ("qwen3-8b", "qwen3-30b-a3b"):
        found = setting(model, "h200", "chat", use=("speculation=prompt-lookup",), changes=changes, framework="bare")
        verify = replica(found, speculation="prompt-lookup", drafted=4)
        ratios.append(float(verify.pass_seconds / replica(found).pass_seconds))
    assert ratios[0] < 1.15
    assert ratios[1] > 1.5


PUBLISHED = {
    ("eagle", "llama-3.1-8b", 2): 1.618, ("eagle", "llama-3.1-8b", 4): 1.578, ("eagle", "llama-3.1-8b", 7): 1.360,
    ("eagle3", "qwen3-4b", 2): 1.65, ("eagle3", "qwen3-8b", 2): 1.70, ("eagle3", "qwen3-14b", 2): 1.56,
    ("mtp", "deepseek-v3", 1): 1.63, ("eagle3", "qwen3-32b", 2): 1.71, ("eagle3", "qwen3-30b-a3b", 2): 1.37,
}  # fmt: skip
"""Speed of one stream under vLLM over the same without drafts (vllm-project/vllm issue 20780 on an H100;
Tencent/AngelSlim README on an H20, mean over four tasks, whose memory an H200 at 4 TB/s stands in for;
vllm-project/vllm PR 12755: DeepSeek R1 on eight GPUs at one request per second)."""


@pytest.mark.parametrize("case", PUBLISHED, ids=str)
def test_published_speedups(case: tuple[str, str, int]) -> None:
    name, model, drafted = case
    machine, changes = {"llama": ("h100-sxm", None), "deeps": ("h200-8x", None)}.get(
        model[:5], ("h200", {"hbm_bandwidth": "4 TB/s"})
    )
    found = setting(
        model, system(machine), "chat", use=(f"speculation={name}",), changes=LONE, machine_changes=changes
    )  # fmt: skip
    ranks = {"tp": 8.0, "expert_tensor": 2.0**40} if machine == "h200-8x" else {}
    drafted_plan = replica(found, speculation=name, drafted=drafted, branching=1, **ranks)
    gain = drafted_plan.settled.layout.tokens_per_pass * replica(found, **ranks).pass_seconds
    assert float(gain / drafted_plan.pass_seconds) == pytest.approx(PUBLISHED[case], rel=0.06)


def test_a_mesh_is_its_plans() -> None:
    found = serving("eagle,medusa-1,hydra-plus,mtp,early-exit")
    batches = np.array([1.0, 7.0, 64.0, 1000.0])
    for name in ("eagle", "medusa-1", "hydra-plus", "mtp", "early-exit"):
        for tp in (1.0, 4.0):
            mesh = found.problem.evaluate(
                Plan(**{**vars(neutral(found, speculation=name)), "batch": batches, "tp": np.array([tp])})
            )
            assert isinstance(mesh, Replica)
            for i, batch in enumerate(batches):
                one = replica(found, speculation=name, batch=float(batch), tp=tp)
                for field in ("pass_seconds", "tpot", "ttft"):
                    whole = np.broadcast_to(getattr(mesh, field), batches.shape)
                    assert float(whole[i]) == pytest.approx(float(getattr(one, field)), rel=1e-9), field


# --- memory and prompts -------------------------------------------------------------------------------------------


def test_heads_and_layers_weigh_what_they_hold() -> None:
    target = serving().model.architecture
    h, v = target.hidden, target.vocab
    layer = target.layer_parameters / target.layers
    medusa = drafting(drafter("medusa-1"), target, 4)
    assert medusa.weights(1.0, 1.0) == pytest.approx(2.0 * 4 * (h * h + h * v))
    hydra = drafting(drafter("hydra"), target, 4)
    assert hydra.weights(1.0, 1.0) == pytest.approx(2.0 * (2 * (2 + 3 + 4 + 5) * h * h + 4 * h * v))
    eagle = drafting(drafter("eagle"), target, 5)
    assert eagle.weights(1.0, 1.0) == pytest.approx(2.0 * (layer + 2 * h * h), rel=1e-3)
    assert eagle.weights(4.0, 1.0) == pytest.approx(eagle.weights(1.0, 1.0) / 4.0, rel=1e-3)
    assert drafting(drafter("early-exit"), target, 4).weights(1.0, 1.0) == 0.0


def test_a_model_that_drafts_is_stored_and_reads_the_prompt() -> None:
    name = "draft-model:llama-3.2-1b"
    found = serving(name, prompt=4096)
    plain, drafted = replica(found, batch=8.0), replica(found, speculation=name, batch=8.0)
    lines = {line.name: float(line.bytes) for line in drafted.ledgers["first"]}
    assert lines["draft weights"] == pytest.approx(2.0 * 1235814400, rel=1e-3)
    assert lines["draft KV cache"] == pytest.approx(8 * (4096 + 512) * 16 * 2 * 8 * 64 * 2.0)
    share = float(drafted.prefill.elapsed() / plain.prefill.elapsed()) - 1.0
    assert 0.05 < share < 0.5  # a 1B model beside an 8B model
    heads = serving("medusa-1", prompt=4096)
    assert replica(heads, speculation="medusa-1").prefill.elapsed() == replica(heads).prefill.elapsed()


def test_rejected_tokens_of_recurrent_models_cost_states() -> None:
    found = setting("codestral-mamba-7b", "h100-sxm", "chat", use=("speculation=prompt-lookup,medusa-1",),
                    changes={**LONE, "acceptance": 0.7})  # fmt: skip
    assert {v[2] for a in found.space.structural for v in a.values if v[0] == "medusa-1"} == {1}
    few, many = (replica(found, speculation="prompt-lookup", drafted=n) for n in (1, 8))
    held = [sum(float(b.bytes) for b in r.ledgers["first"] if b.name == "tokens to verify") for r in (few, many)]
    assert held[1] == pytest.approx(8 * held[0])
    assert held[0] > 0.0


def test_drafting_elsewhere_pays_the_line_and_frees_the_device() -> None:
    name = "mixture-of-attentions"
    near = serving(name, model="vicuna-7b", machine="client-server", framework="bare")
    here, there = (replica(near, speculation=name, draft_engine=e) for e in ("main", "client"))
    held = [{(b.name, b.tier): float(b.bytes) for b in r.ledgers["first"]} for r in (here, there)]
    assert ("draft weights", "hbm") in held[0]
    assert ("draft weights", "client memory") in held[1]
    trip = float(there.pass_seconds - here.pass_seconds)
    line = 0.05 + 61 * (4096 * 2 + 2 * 4) / 12.5e6  # a round trip, and the features of all verified tokens
    assert line < trip < line + 0.01  # and a device with half the bandwidth
    assert here.settled.layout == there.settled.layout


def test_simulated_drafts_answer_at_the_speed_of_the_plan() -> None:
    """Requests one after another: the time per token is that of the plan, prompts and queues apart."""
    found = serving("eagle", acceptance=None)
    x = neutral(found, speculation="eagle", drafted=3, branching=1, batch=1.0)
    arrivals = [Arrival(20.0 * i, 256, 513, ()) for i in range(20)]
    options = Options(choose_scheduler("vllm", max_sequences=8, token_budget=2048))
    told = simulate(found, x, arrivals, options, longest=4096)
    plan = found.problem.evaluate(x)
    assert isinstance(plan, Replica)
    assert told.latencies["tpot"].mean == pytest.approx(float(plan.tpot), rel=0.02)
    plain = simulate(found, neutral(found, batch=1.0), arrivals, options, longest=4096)
    gain = plain.latencies["tpot"].mean / told.latencies["tpot"].mean
    assert gain == pytest.approx(speedup(found, "eagle", drafted=3, branching=1), rel=0.02)


# --- asking -------------------------------------------------------------------------------------------------------


def test_unknown_acceptance_is_not_chosen() -> None:
    named = "speculation=medusa-1"
    with pytest.raises(SpecError, match="nobody published") as caught:
        setting("mistral-7b", "h100-sxm", "chat", use=(named,))
    assert "acceptance=" in str(caught.value)
    free = setting("mistral-7b", "h100-sxm", "chat", use=("speculation",))
    assert {v[0] for a in free.space.structural if "speculation" in a.columns for v in a.values} == {"none"}
    known = setting("llama-3.1-8b", "h100-sxm", "chat", use=("speculation",))
    names = {v[0] for a in known.space.structural if "speculation" in a.columns for v in a.values}
    assert names == {"none", "eagle", "eagle3"}
    with pytest.raises(UnknownName, match="medusa-1"):
        setting("llama-3.1-8b", "h100-sxm", "chat", use=("speculation=medusa",))


def test_tasks_are_accepted_as_published_for_them() -> None:
    gains = {}
    for task in ("code", "chat", "poems"):
        found = setting("llama-2-13b", "h100-sxm", "chat", use=("speculation=eagle",), changes={**LONE, "task": task})
        gains[task] = float(replica(found, speculation="eagle", drafted=25).settled.layout.tokens_per_pass)
    assert gains["code"] == pytest.approx(4.52, rel=1e-6)
    assert gains["chat"] == gains["poems"] == pytest.approx(3.64, rel=1e-6)


def test_quality_is_unknown_where_the_distribution_changes() -> None:
    found = serving("medusa-2,medusa-1")
    assert replica(found, speculation="medusa-1").settled.layout.quality_unknown == 0.0
    assert replica(found, speculation="medusa-2").settled.layout.quality_unknown == 1.0


def test_a_plan_says_what_it_assumes_and_how_far_it_pays() -> None:
    answers = perfmodel.plan(
        "llama-3.1-8b", "h100-sxm", "chat", use=("speculation=eagle3",), objective="time", workload_changes=LONE
    )
    best = answers.answers[0].best
    assert best is not None
    assert best.columns["speculation"] == "eagle3"
    assert best.gain > 1.5
    said = " ".join(text for text, _ in answers.answers[0].assumptions)
    assert "3.54 with 7 published for Llama 3.1 8B Instruct" in said
    assert "it pays up to batch" in said


def test_a_plan_without_drafts_says_why() -> None:
    unknown = perfmodel.plan("mistral-7b", "h100-sxm", "chat", use=("speculation",), workload_changes=LONE)
    assert "nobody published" in " ".join(text for text, _ in unknown.answers[0].assumptions)
    useless = perfmodel.plan("mistral-7b", "h100-sxm", "chat", use=("speculation=eagle",),
                             workload_changes={**LONE, "acceptance": 0.0})  # fmt: skip
    assert useless.answers[0].best is not None
    assert useless.answers[0].best.columns["speculation"] == "none"
    assert "no drafts that were searched pay" in " ".join(text for text, _ in useless.answers[0].assumptions)
    unasked = perfmodel.plan("mistral-7b", "h100-sxm", "chat", workload_changes=LONE)
    assert "draft" not in " ".join(text for text, _ in unasked.answers[0].assumptions)


def test_the_turning_point_is_where_the_gain_ends() -> None:
    found = serving("eagle", framework="bare", prompt=64)
    x = neutral(found, speculation="eagle", drafted=25)
    (point,) = turning_points(found, x)
    assert point.until is not None
    assert point.loss_at is not None
    assert speedup(found, "eagle", point.until, drafted=25) > 1.0
    assert speedup(found, "eagle", point.loss_at, drafted=25) <= 1.0
    assert turning_points(found, neutral(found)) == ()


def test_problem_without_the_technique_is_the_neutral_plan() -> None:
    found = serving("eagle")
    absent = replace(found.problem, techniques=[t for t in found.problem.techniques if t.name != "speculation"])
    for batch in (1.0, 33.0):
        x = neutral(found, batch=batch)
        rest = Plan(**{n: v for n, v in vars(x).items() if n not in ("speculation", "drafted", "branching")})
        on, off = found.problem.evaluate(x), absent.evaluate(rest)
        assert isinstance(on, Replica)
        assert isinstance(off, Replica)
        assert (on.pass_seconds, on.tpot, on.ttft) == (off.pass_seconds, off.tpot, off.ttft)
