"""Price and power of two networks, and what an all-to-all pays on the cheaper one."""

from __future__ import annotations

from functools import partial

from perfmodel.calibration.claims.run import Run
from perfmodel.network.build import build_bill
from perfmodel.specs.overrides import override
from perfmodel.specs.system import load_system

__all__ = [
    "cost_one_tier",
    "cost_two_tiers",
    "overhead_a100",
    "overhead_h100",
    "power_one_tier",
    "power_two_tiers",
]


def _overhead(run: Run, device: str) -> float:
    """More time of the expert exchange on rails than on a Clos [%]."""

    def busy(plan: str) -> float:
        return sum(row.busy_seconds for row in run.plan(plan).terms if row.name == "expert exchange")

    return 100.0 * (busy(f"{device}_rail") / busy(f"{device}_clos") - 1.0)


def _saved(run: Run, domain: int, field: str) -> float:
    """Share of the Clos network's price or power that rails over domains of that size save [%]."""
    del run
    bills = []
    for name in ("h100-rail-32k", "h100-clos-32k"):
        bill = build_bill(override(load_system(name), {"levels.node.members": domain}).cluster)
        bills.append(float(getattr(bill, field)))
    return 100.0 * (1.0 - bills[0] / bills[1])


overhead_a100 = partial(_overhead, device="a100")
overhead_h100 = partial(_overhead, device="h100")
cost_one_tier = partial(_saved, domain=8, field="price")
power_one_tier = partial(_saved, domain=8, field="power")
cost_two_tiers = partial(_saved, domain=256, field="price")
power_two_tiers = partial(_saved, domain=256, field="power")
