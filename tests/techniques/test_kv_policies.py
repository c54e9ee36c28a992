"""Fewer keys and values: what stays, what is read, and that plans and simulated iterations agree on it."""

from __future__ import annotations

from typing import Any

import pytest
from planning import neutral, setting

from perfmodel.errors import SpecError, UnknownName
from perfmodel.phases.iteration import Iteration
from perfmodel.specs.kv_policies import Clusters, KvPolicy, kv_policies
from perfmodel.techniques.record import Layout
from perfmodel.techniques.settled import tokens_kept

KEPT = {"keyformer-90": 0.9, "keyformer-70": 0.7, "keyformer-50": 0.5}


def served(*policies: str, **changes: Any) -> Any:
    use = ("kv_policy=" + ",".join(policies),) if policies else ("kv_policy",)
    lengths = {"prompt": 6144, "output": 512, **changes}
    return setting("llama-3-8b", "a100-80gb-sxm", "batch", use=use, changes=lengths)


def lines(replica: Any) -> dict[str, float]:
    return {line.name: float(line.bytes) for line in replica.ledgers["first"]}


def test_the_cache_shrinks_linearly_with_the_share_that_stays() -> None:
    found = served(*KEPT)
    whole = lines(found.problem.evaluate(neutral(found, batch=8)))["KV cache"]
    for name, share in KEPT.items():
        kept = lines(found.problem.evaluate(neutral(found, batch=8, kv_policy=name)))
        assert kept["KV cache"] == pytest.approx(share * whole, rel=1e-12)


def test_keeping_everything_is_no_policy() -> None:
    for context in (1.0, 777.0, 1e6):
        assert tokens_kept(Layout(), context) == context
        assert tokens_kept(Layout(kv_kept=1.0, kv_budget=context), context) == context


def test_fewer_tokens_are_never_slower_and_less_memory() -> None:
    found = served("keyformer-90", "keyformer-70", "keyformer-50", "h2o-2048", "h2o-128")
    times = [
        float(found.problem.evaluate(neutral(found, batch=16, kv_policy=p)).pass_seconds)
        for p in ("none", *KEPT, "h2o-2048", "h2o-128")
    ]
    assert times == sorted(times, reverse=True)


def test_a_budget_does_not_grow_with_the_text() -> None:
    short, long = served("snapkv-2048"), served("snapkv-2048", prompt=12288)
    sizes = [lines(f.problem.evaluate(neutral(f, batch=4, kv_policy="snapkv-2048")))["KV cache"] for f in (short, long)]
    assert sizes[0] == sizes[1]


def test_a_prompt_is_whole_until_it_has_been_read() -> None:
    """Eviction comes after the prompt, so its pass takes as long as before, but for the scores."""
    found = served("snapkv-2048", "keyformer-50")
    whole = found.problem.evaluate(neutral(found, batch=4))
    for policy in ("snapkv-2048", "keyformer-50"):
        cut = found.problem.evaluate(neutral(found, batch=4, kv_policy=policy))
        scores = sum(r.exposed for r in cut.prefill.exposed() if r.name == "token scores")
        assert (scores > 0.0) == (policy == "keyformer-50")
        assert float(cut.prefill.elapsed()) - scores == pytest.approx(float(whole.prefill.elapsed()), rel=1e-9)


@pytest.mark.parametrize("policy", ["keyformer-50", "h2o-2048", "squeezed-8x"])
def test_simulated_iterations_read_what_plans_read(policy: str) -> None:
    found = served(policy, shared_prefix=4096)
    x = neutral(found, batch=8, kv_policy=policy)
    p = found.problem
    model = Iteration(x, p.techniques, p.situation, p.machine, p.network, p.framework)
    planned = p.evaluate(x).pass_seconds
    assert float(model.decode(8.0, 6144 + 256.0)) == pytest.approx(float(planned), rel=1e-12)


def test_only_the_fixed_context_is_read_in_part() -> None:
    """Keys and values read fall by the share of the fixed context that is passed over; what is stored does not."""
    found = served("squeezed-10", shared_prefix=4096)
    plain, some = (found.problem.evaluate(neutral(found, batch=8, kv_policy=p)) for p in ("none", "squeezed-10"))
    assert lines(some)["KV cache"] == lines(plain)["KV cache"]
    assert float(some.settled.sizes.unread) == pytest.approx(0.9 * 4096)
    assert float(some.settled.sizes.compared) == pytest.approx(4096 / 20)
    assert some.pass_seconds < plain.pass_seconds
    assert some.prefill.elapsed() < plain.prefill.elapsed()


def test_without_a_fixed_context_there_is_nothing_to_look_up() -> None:
    with pytest.raises(SpecError, match="shared_prefix"):
        served("squeezed-10")


def test_an_unknown_policy_is_refused_by_name() -> None:
    with pytest.raises(UnknownName, match="keyformer-50"):
        served("keyformer-5")


def test_policies_are_proposed_only_at_a_published_price() -> None:
    found = setting("llama-3-8b", "a100-80gb-sxm", "batch", loss=0.02)
    axis = next(a for a in found.space.structural if a.columns == ("kv_policy",))
    proposed = {v[0] for v in axis.values}
    assert {"none", "pyramidkv-2048"} <= proposed
    assert not proposed & {"keyformer-90", "snapkv-128"}  # unknown for this model; far beyond the budget
    ratios = {
        p: found.problem.judge(neutral(found, batch=8, kv_policy=p)).budget.get("quality", 0.0)
        for p in ("none", "pyramidkv-2048", "snapkv-128", "keyformer-90")
    }
    assert float(ratios["pyramidkv-2048"]) <= 1.0 < float(ratios["snapkv-128"])
    assert not float(ratios["keyformer-90"]) <= 1.0  # nobody published it for this model


def test_records_say_something() -> None:
    with pytest.raises(ValueError, match="kept"):
        KvPolicy(title="nothing", source="x")
    two = KvPolicy(title="two", read=0.1, levels=(Clusters(tokens=100), Clusters(tokens=20, compared=0.5)), source="x")
    assert (two.clusters, two.compared) == (pytest.approx(0.06), pytest.approx(0.035))
    assert all(p.kept < 1.0 or p.budget or p.levels for p in kv_policies().values())
