"""Operator classes whose measurements can be read, one file each."""

from __future__ import annotations

from perfmodel.calibration.model import OperatorModel
from perfmodel.calibration.operators import elementwise, gemm, moe

__all__ = ["OPERATOR_MODELS", "model_named"]

OPERATOR_MODELS: tuple[OperatorModel, ...] = (gemm.MODEL, elementwise.MODEL, moe.MODEL)
"""Every operator class of this folder."""


def model_named(name: str) -> OperatorModel:
    """Return the operator class of that name."""
    return next(model for model in OPERATOR_MODELS if model.name == name)
