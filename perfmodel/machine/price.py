"""What a device and its share of the node cost per second: the rental, or what owning it comes to."""

from __future__ import annotations

from typing import Literal, NamedTuple

from perfmodel.specs.hardware import Device
from perfmodel.specs.system import System

__all__ = ["DevicePrice", "price_of"]


class DevicePrice(NamedTuple):
    """Price of an accelerator with its share of the node [USD/s], ``None`` where unknown, and what it is of."""

    per_second: float | None
    basis: Literal["rental", "ownership", "unknown"]


def price_of(system: System) -> DevicePrice:
    """The machine's rental, else that of its devices, else the price of owning them."""
    listed = system.cluster.price.device_hour if system.cluster.price else None
    rented = _rented(system) if listed is None else listed.value
    if rented is not None:
        return DevicePrice(rented, "rental")
    owned = _owned(system)
    return DevicePrice(owned, "unknown" if owned is None else "ownership")


def _engines(system: System) -> list[tuple[float, Device]]:
    """An accelerator and the engines beside it, with how many of each."""
    placed = system.cluster.node.engines
    return [(1.0, system.accelerator), *((e.per_accelerator.value, system.engines[n]) for n, e in placed.items())]


def _rented(system: System) -> float | None:
    """Rental of an accelerator and the engines beside it, as far as they state one."""
    known = [n * d.price.hour.value for n, d in _engines(system) if d.price and d.price.hour]
    return sum(known) if known else None


def _owned(system: System) -> float | None:
    """What the devices that state a price cost, written off evenly, and electricity.

    Electricity is paid for the power limits of devices, the rest of the node and the facility. ``None`` where the
    accelerator states no price: the parts beside it do not tell what the whole costs.
    """
    cluster, terms = system.cluster, system.cluster.ownership
    if not (system.accelerator.price and system.accelerator.price.purchase and terms and terms.lifetime):
        return None
    devices, share = _engines(system), 1.0 / cluster.node.accelerator.count
    rest = cluster.node.power_overhead.value * share if cluster.node.power_overhead else 0.0
    watts = rest + sum(n * d.power.limit.value for n, d in devices if d.power)
    if cluster.node.host and system.host:
        devices.append((cluster.node.host.count * share, system.host))
        watts += devices[-1][0] * system.host.power.limit.value if system.host.power and not rest else 0.0
    bought = sum(n * d.price.purchase.value for n, d in devices if d.price and d.price.purchase)
    tariff = terms.electricity.value if terms.electricity else 0.0
    return bought / terms.lifetime.value + watts * (cluster.pue.value if cluster.pue else 1.0) * tariff
