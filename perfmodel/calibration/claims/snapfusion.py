"""Gains of fewer steps."""

from __future__ import annotations

from perfmodel.calibration.claims.distrifusion import speedup

__all__ = ["speedup"]
