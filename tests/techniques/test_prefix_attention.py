"""A prefix in common: held once per group, read once per group, and never less than what must be read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from planning import model, neutral, setting

from perfmodel.operators.bounds.decode import decode_shared_prefix
from perfmodel.operators.layers import layer_calls
from perfmodel.phases.serving import settle_passes

LLAMA = "llama-3.1-8b"
PREFIX, OWN, OUTPUT = 4096, 512, 256


def served(name: str = LLAMA, **changes: object):
    asked = {"prompt": PREFIX + OWN, "output": OUTPUT, "shared_prefix": PREFIX, **changes}
    return setting(name, "h100", "batch", changes=asked)


def sizes(found, **columns: object):
    problem = found.problem
    passes = settle_passes(
        neutral(found, **columns), problem.techniques, problem.situation, problem.network, problem.framework
    )
    return passes["decode"].sizes


def cores(name: str, s) -> list:
    return [c for c in layer_calls(model(name).architecture, s) if c.region == "attention core"]


def cache(found, **columns: object) -> float:
    lines = found.problem.evaluate(neutral(found, **columns)).ledgers["first"]
    return sum(float(line.bytes) for line in lines if line.name == "KV cache")


@pytest.mark.parametrize("shared_by", [None, 4, 16, 64])
def test_a_group_reads_its_prefix_once_and_multiplies_as_much(shared_by: int | None) -> None:
    batch = 64
    s = sizes(served(shared_by=shared_by), batch=batch, prefix_together=1)
    groups = 1 if shared_by is None else batch / shared_by
    assert (s.common, s.groups) == (PREFIX, groups)
    apart = replace(s, common=0.0)
    together, alone = (cores(LLAMA, one) for one in (s, apart))
    matrix = [c.work for c in together if c.work.operator != "elementwise"]
    assert sum(w.flops for w in matrix) == pytest.approx(sum(c.work.flops for c in alone))
    mixer = model(LLAMA).architecture.runs[0].layer.mixer
    own = batch * (s.context - PREFIX) / groups
    bound = 2.0 * groups * decode_shared_prefix(PREFIX, own, mixer.kv_heads, mixer.head_dim)
    queries = 2.0 * 2.0 * 2.0 * batch * mixer.heads * mixer.head_dim  # Q and O of both parts, 2 bytes each
    assert bound < sum(w.compulsory_bytes for w in matrix) <= (bound + 1.5 * queries) * (1.0 + 1e-9)


def test_a_prefix_is_held_once_whatever_the_kernels_read() -> None:
    found, nothing = served(), served(shared_prefix=0)
    one = cache(nothing, batch=1)
    share = PREFIX / (PREFIX + OWN + OUTPUT)
    assert cache(found, batch=1) == pytest.approx(one)
    assert cache(found, batch=50) == pytest.approx(one * (share + 50 * (1.0 - share)))
    assert cache(found, batch=50, prefix_together=1) == cache(found, batch=50)
    assert cache(served(shared_by=10), batch=50) == pytest.approx(one * (5 * share + 50 * (1.0 - share)))
    assert cache(served(shared_by=1), batch=50) == pytest.approx(cache(nothing, batch=50))
    batches = np.array([1.0, 50.0])
    lines = found.problem.evaluate(neutral(found, batch=batches)).ledgers["first"]
    held = next(line.bytes for line in lines if line.name == "KV cache")
    assert held == pytest.approx([cache(found, batch=1), cache(found, batch=50)])


def test_passes_are_shorter_the_more_share_and_a_lone_request_gains_nothing() -> None:
    def seconds(shared_by: int | None, together: int, batch: int = 64) -> float:
        found = served(shared_by=shared_by)
        return float(found.problem.evaluate(neutral(found, batch=batch, prefix_together=together)).pass_seconds)

    found = [seconds(n, 1) for n in (None, 16, 4)]
    assert found == sorted(found)
    assert found[0] < 0.7 * seconds(None, 0)
    assert seconds(None, 1, batch=1) >= 0.99 * seconds(None, 0, batch=1)


def test_what_a_sequence_chooses_for_itself_is_not_read_together() -> None:
    found = setting(LLAMA, "h100", "batch", use=("kv_policy",),
                    changes={"prompt": PREFIX + OWN, "output": OUTPUT, "shared_prefix": PREFIX})  # fmt: skip
    (policy,) = (t for t in found.problem.techniques if t.name == "kv_policy")
    lossy = [v[0] for axis in policy.axes(found.problem.situation) for v in axis.values if v[0] != "none"]
    assert lossy
    for name in lossy:
        x = neutral(found, batch=8, prefix_together=1, kv_policy=name)
        assert float(found.problem.form(x)["prefix read together"]) > 1.0
