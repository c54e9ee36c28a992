"""Numbers on the two directions of a ring."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run
from perfmodel.specs.architecture import Attention
from perfmodel.specs.locate import find_model
from perfmodel.specs.model import load_model
from perfmodel.techniques.context_parallel import one_way_bytes, two_way_bytes

__all__ = ["busier_direction", "ring_numbers"]


def busier_direction(run: Run) -> float:
    """Bytes of the busier direction over those of a ring with one."""
    architecture = load_model(find_model(str(run.asked().model))).architecture
    sizes = (1024.0, 8.0, 1.0, 2.0)
    return float(two_way_bytes(architecture, *sizes) / one_way_bytes(architecture, *sizes))


def ring_numbers(run: Run) -> float:
    """Numbers per head, token and step of a ring."""
    architecture = load_model(find_model(str(run.asked().model))).architecture
    mixer = architecture.runs[0].layer.mixer
    heads = mixer.heads if isinstance(mixer, Attention) else 0
    return float(one_way_bytes(architecture, 1.0, 2.0, 1.0, 1.0) / heads)
