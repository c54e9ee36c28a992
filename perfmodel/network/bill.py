"""What the switches of a level cost: tiers, switches and transceivers of a folded Clos, or of one Clos per rail.

References
----------
.. [1] M. Al-Fares et al., "A scalable, commodity data center network architecture", SIGCOMM 2008.
.. [2] W. Wang et al., arXiv:2307.12169 (networks without connections between rails).
"""

from __future__ import annotations

from typing import NamedTuple

from perfmodel.elementwise import Scalar, where
from perfmodel.units import Dollars, Watts

__all__ = ["Bill", "clos_parts", "network_bill"]


class Bill(NamedTuple):
    """Price [USD] and power [W] of a network."""

    price: Dollars
    power: Watts


def clos_parts(ports: Scalar, radix: Scalar) -> tuple[Scalar, Scalar]:
    """Switches and links of a full-bandwidth Clos that joins ``ports``, with as few tiers as its switches allow.

    One tier up to ``radix`` ports, two up to ``radix**2 / 2``, three up to ``radix**3 / 4``: 1, 3 and 5 switch ports
    per port, 1, 2 and 3 links. Switches are counted in shares: a network shares its last ones.
    """
    one, two = ports <= radix, ports <= radix**2 / 2.0
    per_port = where(one, 1.0, where(two, 3.0, 5.0))
    links = where(one, 1.0, where(two, 2.0, 3.0))
    return per_port * ports / radix, links * ports


def network_bill(ports: Scalar, rails: Scalar, radix: Scalar, switch: Bill, transceiver: Bill) -> Bill:
    """Price and power of ``rails`` separate networks that join ``ports`` in all; two transceivers per link."""
    switches, links = clos_parts(ports / rails, radix)
    counts = (rails * switches, 2.0 * rails * links)
    return Bill(*(counts[0] * s + counts[1] * t for s, t in zip(switch, transceiver, strict=True)))
