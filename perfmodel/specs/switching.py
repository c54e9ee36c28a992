"""The switches of a topology level: how they are joined, how they choose paths, what they cost. Facts only."""

from __future__ import annotations

from typing import Literal

from perfmodel.specs.facts import Count, Power, Purchase, Spec

__all__ = ["ROUTINGS", "Switching"]

ROUTINGS: tuple[str, ...] = ("spray", "split", "single", "ecmp")


class Switching(Spec):
    """Switches that join the domains of a level."""

    topology: Literal["clos", "rail"] = "clos"
    """``clos``: any device reaches any; ``rail``: devices of equal place in their domains are joined, others are
    reached through the level below."""
    routing: Literal["spray", "split", "single", "ecmp"] = "spray"
    """How flows that leave a leaf choose among its paths: packet by packet; on planned paths, cut into the fewest equal
    subflows that fill them evenly, or uncut; or by a hash."""
    paths: Count | None = None
    """Equal paths that leave a leaf."""
    flows: Count | None = None
    """Flows of equal size that leave a leaf at the same time."""
    radix: Count | None = None
    """Ports of a switch."""
    switch_price: Purchase | None = None
    switch_power: Power | None = None
    transceiver_price: Purchase | None = None
    """One end of a link."""
    transceiver_power: Power | None = None
