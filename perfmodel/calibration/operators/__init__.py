"""Operator classes whose measurements can be read, one file each."""

from __future__ import annotations

from perfmodel.calibration.model import OperatorModel
from perfmodel.calibration.operators import attention, collective, elementwise, expert_exchange, gemm, mla, moe

__all__ = ["OPERATOR_MODELS", "model_named"]

OPERATOR_MODELS: tuple[OperatorModel, ...] = (
    gemm.MODEL,
    elementwise.MODEL,
    moe.MODEL,
    mla.MODEL,
    attention.DECODE,
    attention.PREFILL,
    attention.PUBLISHED,
    collective.MODEL,
    expert_exchange.MODEL,
)
"""Every operator class of this folder; the first whose columns a file has reads it."""


def model_named(name: str) -> OperatorModel:
    """Return the operator class of that name."""
    return next(model for model in OPERATOR_MODELS if model.name == name)
