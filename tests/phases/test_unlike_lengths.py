"""Prompts of unlike length: moments against drawn lengths, powers between their limits, and the simulator."""

from __future__ import annotations

import numpy as np
import pytest

from perfmodel import services
from perfmodel.machine.build import build_machine
from perfmodel.phases.unlike_lengths import UnlikeLengths, length_moment, length_power
from perfmodel.serving.arrivals import Synthetic
from tests.planning import model, neutral, setting, system


@pytest.mark.parametrize("variation", [0.3, 1.0])
@pytest.mark.parametrize("longest", [float("inf"), 3.0])
def test_moments_are_those_of_drawn_lengths(variation: float, longest: float) -> None:
    sigma = np.sqrt(np.log1p(variation**2))
    drawn = np.random.default_rng(1).lognormal(-0.5 * sigma**2, sigma, 2_000_000)
    kept = drawn[drawn <= longest] / drawn[drawn <= longest].mean()
    for power in (1.0, 1.4, 2.0):
        assert length_moment(power, variation, longest) == pytest.approx((kept**power).mean(), rel=0.02)
    if longest < 10.0:
        share, power = 0.3, 1.7
        cost = (1.0 - share) * kept + share * kept**power / (kept**power).mean()
        found = UnlikeLengths(variation, power, longest).cost_variation(share)
        assert found == pytest.approx(cost.std(), rel=0.03)
    assert UnlikeLengths(variation, 1.0, longest).cost_variation(0.5) == pytest.approx(kept.std(), rel=0.03)


def test_equal_lengths_cost_what_the_mean_costs() -> None:
    same = UnlikeLengths(0.0, 2.0, float("inf"))
    assert same.core == 1.0
    assert same.cost_variation(0.4) == pytest.approx(0.0, abs=1e-7)


def test_attention_grows_with_the_square_of_long_prompts_only() -> None:
    engine = build_machine(system("h100-sxm")).main
    dense = [length_power(model("llama-3.1-8b").architecture, n, engine, "bf16") for n in (128.0, 2048.0, 32768.0)]
    assert dense == sorted(dense)
    assert dense[0] < 1.4
    assert 1.9 < dense[2] <= 2.0
    windowed = length_power(model("mistral-7b").architecture, 32768.0, engine, "bf16")
    assert 0.9 < windowed < 1.3
    assert length_power(model("codestral-mamba-7b").architecture, 4096.0, engine, "bf16") == 1.0


@pytest.mark.parametrize(("name", "prompt", "rate"), [("llama-3.1-8b", 6000, 2.4), ("llama-3.1-8b", 20000, 0.45)])
def test_long_unlike_prompts_take_as_long_as_simulated(name: str, prompt: int, rate: float) -> None:
    """Counting attention at the mean length alone is a tenth to a third too quick; so is a token that sees the mean
    batch, and no prompt that came while its request waited for the first one."""
    asked = {"prompt": prompt, "output": 300, "length_variation": 0.7, "rate": f"{rate} requests/s"}
    found = setting(name, "dgx-h100", "chat", changes=asked)
    batches = np.geomspace(0.3, 100.0, 200)
    rates = np.asarray(found.problem.evaluate(neutral(found, batch=batches)).rate)
    x = neutral(found, batch=float(np.interp(rate, rates, batches)))
    load = Synthetic(rate, prompt, 300, 4000, length_variation=0.7)
    run = services.simulate(name, "dgx-h100", load, max_sequences=200, prefix_cache=False).found
    ttft, tpot = found.problem.evaluate(x).tails.ttft, found.problem.evaluate(x).tails.tpot
    assert tpot.mean == pytest.approx(run.latencies["tpot"].mean, rel=0.08)
    assert ttft.mean == pytest.approx(run.latencies["ttft"].mean, rel=0.12)
    assert ttft.percentile(90) == pytest.approx(run.latencies["ttft"].p90, rel=0.15)
