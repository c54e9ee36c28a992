"""What a machine costs per hour: rental where one is stated, else a purchase written off, with its electricity."""

from __future__ import annotations

from pathlib import Path

import pytest

from perfmodel.machine.price import price_of
from perfmodel.specs.overrides import override
from perfmodel.specs.system import System, load_system

YEAR = 365.25 * 86400.0
NODE = """\
name: bought
sources: {site: "a quotation"}
nodes: {value: 1, kind: datasheet, source: site}
node:
  accelerator: {device: rtx-a6000, count: 4}
  host:
    device: xeon-8480
    count: 2
    memory: {value: 512 GB, kind: datasheet, source: site}
    bandwidth: {value: 600 GB/s, kind: datasheet, source: site}
    link: {value: 25 GB/s, kind: datasheet, source: site}
levels:
  node:
    kind: scaleup
    members: {value: 4, kind: datasheet, source: site}
    bandwidth: {value: 25 GB/s, kind: datasheet, source: site}
    latency: {value: 5 us, kind: assumed, source: site}
    efficiency: {value: 0.8, kind: assumed, source: site}
"""


def cost(system: System) -> float:
    price = price_of(system)
    assert price.basis == "ownership"
    assert price.per_second is not None
    return price.per_second


def test_rental_goes_before_purchase() -> None:
    device = load_system("rtx-4090")
    assert device.accelerator.price is not None
    assert device.accelerator.price.purchase is not None
    assert device.accelerator.price.hour is not None
    assert price_of(device) == (device.accelerator.price.hour.value, "rental")


def test_a_purchase_is_written_off_and_its_power_is_paid_for() -> None:
    system = load_system("rtx-a6000")
    free = override(system, {"ownership.lifetime": "8 years", "ownership.electricity": "0 USD/kWh"})
    assert cost(free) == pytest.approx(4649.0 / (8 * YEAR))
    paid = override(system, {"ownership.lifetime": "8 years", "ownership.electricity": "0.2 USD/kWh"})
    assert (cost(paid) - cost(free)) * 3600.0 == pytest.approx(0.300 * 0.2)  # 300 W
    shorter = override(system, {"ownership.lifetime": "2 years", "ownership.electricity": "0 USD/kWh"})
    assert cost(shorter) == pytest.approx(4 * cost(free))


def test_host_processors_are_shared_by_the_accelerators(tmp_path: Path) -> None:
    path = tmp_path / "bought.yaml"
    path.write_text(NODE, encoding="utf-8")
    system = override(load_system(path), {"ownership.electricity": "0 USD/kWh", "ownership.lifetime": "4 years"})
    assert system.host is not None
    assert system.host.price is not None
    assert system.host.price.purchase is not None
    assert cost(system) == pytest.approx((4649.0 + 2 / 4 * system.host.price.purchase.value) / (4 * YEAR))


def test_nothing_is_made_up() -> None:
    assert price_of(load_system("neupims-npu")) == (None, "unknown")
