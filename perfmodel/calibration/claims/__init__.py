"""Published results as test cases: one YAML file each, run through the public interface.

A claim never carries a factor of its own: what it computes comes from shipped machines, models and frameworks, so every
claim on a machine shares its constants. A claim that does not hold stays here and says so.
"""

from __future__ import annotations

from perfmodel.calibration.claims.claim import Claim, Setting, load_claim
from perfmodel.calibration.claims.run import ClaimResult, claim_ids, run_claims

__all__ = ["Claim", "ClaimResult", "Setting", "claim_ids", "load_claim", "run_claims"]
