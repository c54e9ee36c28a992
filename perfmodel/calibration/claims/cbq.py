"""Units and bytes of weights and activations in few bits."""

from __future__ import annotations

from perfmodel.api import settings_of
from perfmodel.calibration.claims.run import Run
from perfmodel.operators.layers import layer_calls
from perfmodel.phases.serving import settle_passes
from perfmodel.techniques.settled import Plan, Settled

__all__ = ["prompt_bound", "rate", "stored"]

PLAIN = "cbq-int4-channel"


def _prompt(run: Run, format: str) -> tuple[Settled, float]:
    """The settled prefill pass with a format, and the peak rate of its products [FLOP/s]."""
    asked = run.asked().model_copy(update={"use": (f"packed_weights={format}",)})
    asked = asked.model_copy(update={"columns": {**asked.columns, "packed_weights": format}})
    found = run.estimate(asked)
    setting = settings_of(found.request, found.model, found.system)[0]
    problem = setting.problem
    x = Plan(**found.plan.columns)
    s = settle_passes(x, problem.techniques, problem.situation, problem.network, problem.framework)["prefill"]
    return s, float(setting.machine.main.peak(s.sizes.format))


def rate(run: Run, format: str) -> float:
    """Peak of the products that a plan's matrices run in, over that with 16-bit activations."""
    return _prompt(run, format)[1] / _prompt(run, PLAIN)[1]


def stored(run: Run, format: str) -> float:
    """Bytes per weight over those with 16-bit activations."""
    return float(_prompt(run, format)[0].weights_bytes / _prompt(run, PLAIN)[0].weights_bytes)


def prompt_bound(run: Run, format: str) -> float:
    """Time of all packed products of a prompt at peak with 16-bit activations, over that with a format."""

    def seconds(name: str) -> float:
        s, peak = _prompt(run, name)
        calls = [c for c in layer_calls(s.architecture, s.sizes) if c.work.operator == "gemm"]
        return sum(c.share * float(c.work.flops) for c in calls if c.component not in s.sizes.unquantised) / peak

    return seconds(PLAIN) / seconds(format)
