"""A small device and a small cluster, written as a user would write them."""

from __future__ import annotations

from pathlib import Path

from perfmodel.specs.system import System, load_system

DEVICE = """\
name: toy
class: gpu
sources:
  sheet: "a data sheet"
units: {value: 100, kind: datasheet, source: sheet}
clock: {value: 1.5 GHz, kind: datasheet, source: sheet}
peak:
  matrix:
    bf16: {value: 400 TFLOP/s, kind: datasheet, source: sheet}
    fp8: {value: 800 TFLOP/s, kind: datasheet, source: sheet}
  vector:
    fp32: {value: 40 TFLOP/s, kind: datasheet, source: sheet}
memory:
  l1:
    capacity: {value: 128 KiB, kind: datasheet, source: sheet}
    per: unit
  l2:
    capacity: {value: 40 MiB, kind: datasheet, source: sheet}
    bandwidth: {value: 8 TB/s, kind: datasheet, source: sheet}
  hbm:
    capacity: {value: 64 GiB, kind: datasheet, source: sheet}
    bandwidth: {value: 2 TB/s, kind: datasheet, source: sheet}
host_link: {value: 32 GB/s, kind: datasheet, source: sheet}
kernels:
  gemm:
    any:
      compute_fraction: {value: 0.7, kind: fitted, source: sheet, spread: 0.1}
      launch: {value: 3 us, kind: fitted, source: sheet}
power:
  limit: {value: 500 W, kind: datasheet, source: sheet}
price:
  hour: {value: 2 USD/h, kind: assumed, source: sheet}
"""

HOST = """\
name: toy-host
class: cpu
sources: {sheet: "a data sheet"}
units: {value: 64, kind: datasheet, source: sheet}
peak: {vector: {fp32: {value: 4 TFLOP/s, kind: datasheet, source: sheet}}}
memory:
  dram:
    capacity: {value: 512 GB, kind: datasheet, source: sheet}
    bandwidth: {value: 200 GB/s, kind: datasheet, source: sheet}
"""

PIM = """\
name: toy-pim
class: pim
sources: {sheet: "a paper"}
units: {value: 128, kind: datasheet, source: sheet}
peak: {vector: {fp16: {value: 4 TFLOP/s, kind: datasheet, source: sheet}}}
memory:
  banks:
    capacity: {value: 64 GiB, kind: datasheet, source: sheet}
    bandwidth: {value: 8 TB/s, kind: datasheet, source: sheet}
    shares: hbm
runs: [decode_attention]
"""

CLUSTER = """\
name: toys
sources:
  site: "the site's guide"
nodes: {value: 16, kind: datasheet, source: site}
node:
  accelerator: {device: toy.yaml, count: 4}
  host:
    device: toy-host.yaml
    memory: {value: 512 GB, kind: datasheet, source: site}
    bandwidth: {value: 200 GB/s, kind: datasheet, source: site}
    link: {value: 32 GB/s, kind: datasheet, source: site}
  storage:
    capacity: {value: 4 TB, kind: datasheet, source: site}
    read: {value: 8 GB/s, kind: datasheet, source: site}
    write: {value: 4 GB/s, kind: datasheet, source: site}
  engines:
    pim: {device: toy-pim.yaml, per_accelerator: {value: 1, kind: assumed, source: site}}
levels:
  node:
    kind: scaleup
    members: {value: 4, kind: datasheet, source: site}
    bandwidth: {value: 100 GB/s, kind: datasheet, source: site}
    latency: {value: 2 us, kind: assumed, source: site}
    efficiency: {value: 0.8, kind: assumed, source: site}
    graph:
      - {between: [0, 1], bandwidth: {value: 50 GB/s, kind: datasheet, source: site}}
      - {between: [2, 3], bandwidth: {value: 50 GB/s, kind: datasheet, source: site}}
  rail:
    kind: nic
    members: {value: 16, kind: datasheet, source: site}
    nics:
      count: {value: 2, kind: datasheet, source: site}
      bandwidth: {value: 25 GB/s, kind: datasheet, source: site}
      attached_to: [0, 2]
    latency: {value: 5 us, kind: assumed, source: site}
    efficiency: {value: 0.8, kind: assumed, source: site}
"""


def write_all(folder: Path) -> None:
    """Write the cluster and its three devices."""
    for name, text in (("toy", DEVICE), ("toy-host", HOST), ("toy-pim", PIM), ("toys", CLUSTER)):
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")


def toys(folder: Path) -> System:
    """Return the sample cluster, resolved."""
    write_all(folder)
    return load_system(folder / "toys.yaml")
