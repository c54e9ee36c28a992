"""Gains of blocks that are computed now and then."""

from __future__ import annotations

from perfmodel.calibration.claims.distrifusion import speedup

__all__ = ["speedup"]
