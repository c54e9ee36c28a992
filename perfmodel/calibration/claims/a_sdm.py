"""Gains of work that is inherited from the step before."""

from __future__ import annotations

from perfmodel.calibration.claims.distrifusion import speedup

__all__ = ["speedup"]
