"""What experts that compute nothing save."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run
from perfmodel.operators.layers import Sizes, layer_calls
from perfmodel.specs.locate import find_model
from perfmodel.specs.model import load_model

__all__ = ["exchange", "operations", "throughput"]


def operations(run: Run, idle: float) -> float:
    """Operations of the routed experts without such experts over those with a share of the choices on them."""
    architecture = load_model(find_model(str(run.asked().model))).architecture

    def flops(share: float) -> float:
        sizes = Sizes(sequences=1.0, queries=4096.0, context=4096.0, idle_choices=share)
        return sum(float(c.work.flops) for c in layer_calls(architecture, sizes) if c.component == "experts")

    return flops(0.0) / flops(idle)


def throughput(run: Run, plan: str) -> float:
    """Tokens per second through the experts of a plan over those where every choice computes."""
    return run.busy("all", "experts") / run.busy(plan, "experts")


def exchange(run: Run) -> float:
    """Time of the exchange, all over fewer."""
    return run.busy("all", "expert exchange") / run.busy("fewer", "expert exchange")
