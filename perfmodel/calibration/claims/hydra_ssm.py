"""Selective scans over texts of several lengths."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run
from perfmodel.machine.kernels import kernel_time
from perfmodel.operators.layers import Sizes, layer_calls
from perfmodel.operators.work import Work
from perfmodel.specs.locate import find_model
from perfmodel.specs.model import load_model

__all__ = ["longer"]


def _scan(run: Run, tokens: float) -> Work:
    architecture = load_model(find_model(str(run.claim.common.model))).architecture
    calls = layer_calls(architecture, Sizes(sequences=1.0, queries=tokens, context=tokens))
    return next(c.work for c in calls if c.component == "state space")


def longer(run: Run, tokens: float) -> float:
    """Time of a scan of twice as many tokens over one of ``tokens``."""
    engine = run.engine(str(run.claim.common.hw))
    once, twice = (float(kernel_time(_scan(run, n * tokens), engine).seconds) for n in (1.0, 2.0))
    return twice / once
