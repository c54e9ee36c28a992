"""What a machine may plausibly say: for every class, wider than all real devices and narrower than a thousand times.

A forgotten or doubled prefix falls outside. The ranges are no statement about what can be built: a what-if may leave
them.
"""

from __future__ import annotations

__all__ = [
    "BANK_RANGES",
    "CLASS_RANGES",
    "CLUSTER_RANGES",
    "DEVICE_RANGES",
    "FORMAT_BITS",
    "LEVEL_RANGES",
    "NEAR_RANGES",
    "SWEEP",
    "Range",
]

Range = tuple[str, str]

FORMAT_BITS = {
    "fp64": 64, "fp32": 32, "tf32": 32, "bf16": 16, "fp16": 16, "fp8": 8, "int8": 8, "mxfp8": 8,
    "int32": 32, "int16": 16, "fp6": 6, "mxfp6": 6, "fp4": 4, "mxfp4": 4, "nvfp4": 4, "int4": 4, "int2": 2, "int1": 1,
}  # fmt: skip
"""Number formats and their bits; rates are compared as if they were of 16 bits."""

CLASS_RANGES: dict[str, dict[str, Range]] = {
    "gpu": {  # Jetson to GB300 and what follows; a module of 10 TFLOP/s times 1000 just passes
        "bandwidth": ("20 GB/s", "25 TB/s"), "capacity": ("2 GB", "2 TB"), "matrix": ("8 TFLOP/s", "10 PFLOP/s"),
        "matrix64": ("0.25 TFLOP/s", "400 TFLOP/s"), "vector": ("0.2 TFLOP/s", "400 TFLOP/s"),
        "clock": ("0.3 GHz", "5 GHz"), "power": ("5 W", "4 kW"), "units": ("1", "2000"),
    },
    "cpu": {  # a single-board computer to a two-socket server with HBM; a matrix rate may be that of the vector units
        "bandwidth": ("4 GB/s", "4 TB/s"), "capacity": ("1.2 GB", "24 TB"), "matrix": ("0.12 TFLOP/s", "500 TFLOP/s"),
        "matrix64": ("0.03 TFLOP/s", "100 TFLOP/s"), "vector": ("0.03 TFLOP/s", "100 TFLOP/s"),
        "clock": ("0.5 GHz", "150 GHz"), "power": ("2 W", "1.5 kW"), "units": ("1", "2000"),
    },
    "npu": {  # TPU, Gaudi, Ascend, Trainium; edge modules of a few TOP/s are the low end
        "bandwidth": ("10 GB/s", "15 TB/s"), "capacity": ("1 GB", "1.5 TB"), "matrix": ("1.9 TFLOP/s", "5 PFLOP/s"),
        "matrix64": ("0.05 TFLOP/s", "100 TFLOP/s"), "vector": ("0.05 TFLOP/s", "200 TFLOP/s"),
        "clock": ("0.2 GHz", "5 GHz"), "power": ("2 W", "2.5 kW"), "units": ("1", "2000"),
    },
    "pim": {  # a rank of UPMEM (45 GB/s) to the stacks of a node (tens of TB/s): small modules times 1000 pass
        "bandwidth": ("20 GB/s", "60 TB/s"), "capacity": ("60 MB", "700 GB"), "matrix": ("3 GFLOP/s", "390 TFLOP/s"),
        "matrix64": ("0.3 GFLOP/s", "20 TFLOP/s"), "vector": ("1.3 GFLOP/s", "500 TFLOP/s"),
        "clock": ("50 MHz", "3 GHz"), "power": ("0.2 W", "1 kW"), "units": ("1", "20000"),
    },
    "fpga": {  # units may be DSPs (9,024) or arrays made of them (tens): a count of DSPs over 1000 passes
        "bandwidth": ("5 GB/s", "5 TB/s"), "capacity": ("0.5 GB", "500 GB"), "matrix": ("0.1 TFLOP/s", "300 TFLOP/s"),
        "matrix64": ("0.01 TFLOP/s", "10 TFLOP/s"), "vector": ("0.02 TFLOP/s", "100 TFLOP/s"),
        "clock": ("50 MHz", "2 GHz"), "power": ("2 W", "900 W"), "units": ("1", "20000"),
    },
    "storage": {  # computational storage: the last memory is flash, read at its internal bandwidth
        "bandwidth": ("0.2 GB/s", "500 GB/s"), "capacity": ("100 GB", "200 TB"), "matrix": ("3 GFLOP/s", "60 TFLOP/s"),
        "matrix64": ("0.3 GFLOP/s", "10 TFLOP/s"), "vector": ("1 GFLOP/s", "60 TFLOP/s"),
        "clock": ("50 MHz", "5 GHz"), "power": ("1 W", "800 W"), "units": ("1", "2000"),
    },
    "dataflow": {  # DDR behind a reconfigurable array to a wafer of 900,000 cores: units are not checked in effect,
        # and memories are told apart by their sweep; DDR at 100 GB/s times 1000 still looks like DRAM. Superconducting
        # logic runs at tens of GHz, a wafer multiplies sparse matrices at 125 PFLOP/s
        "bandwidth": ("50 GB/s", "50 PB/s"), "capacity": ("100 MB", "4 TB"), "matrix": ("30 TFLOP/s", "150 PFLOP/s"),
        "matrix64": ("0.3 TFLOP/s", "1 PFLOP/s"), "vector": ("0.3 TFLOP/s", "30 PFLOP/s"),
        "clock": ("0.2 GHz", "150 GHz"), "power": ("24 W", "40 kW"), "units": ("1", "2000000"),
    },
}  # fmt: skip
"""What a device of a class may say. ``matrix64`` is for fp64, ``matrix`` for 16 bits (fp8 twice as much, and so on)."""

SWEEP: dict[str, tuple[Range, ...]] = {
    "gpu": (("5 ms", "300 s"),),
    "cpu": (("5 ms", "300 s"),),
    "npu": (("5 ms", "300 s"),),
    "fpga": (("5 ms", "300 s"),),
    "pim": (("0.4 ms", "300 s"),),
    "dataflow": (("0.2 us", "25 us"), ("5 ms", "300 s")),  # SRAM or DRAM; nothing lies between
    "storage": (("10 s", "100000 s"),),
}
"""Time to read a whole last memory once: catches a wrong prefix where the class alone is too wide to."""

NEAR_RANGES: dict[str, Range] = {
    "unit": ("4 KB", "24 MB"),
    "device": ("64 KB", "4 TB"),
    "gpu": ("0.3 MB", "4 GB"),  # elsewhere a nearer memory may itself be DRAM: HBM before DDR
    "bandwidth": ("20 GB/s", "2 PB/s"),
}
"""Memories before the last one: capacity of a unit's and of a device's, bandwidth of all units together."""

DEVICE_RANGES: dict[str, tuple[str, Range]] = {
    "host_link": ("B/s", ("1 GB/s", "1.5 TB/s")),
    "hour": ("USD/s", ("0.01 USD/h", "300 USD/h")),
    "purchase": (
        "USD",
        ("40 USD", "9000000 USD"),
    ),  # from a board to a wafer-scale system: small boards times 1000 pass
    "launch": ("s", ("0.03 us", "0.5 ms")),
    "k_step": ("s", ("0.2 ns", "25 us")),
    "prologue": ("s", ("8 ns", "200 us")),
    "kv_step": ("s", ("3 ns", "250 us")),
    "split_launch": ("s", ("8 ns", "1 ms")),
    "quantise_launch": ("s", ("8 ns", "0.5 ms")),
    "corner": ("1", ("1", "12")),
    "ramp": ("s", ("0.1 ns", "1 ms")),
    "row_floor": ("1", ("1", "512")),
    "window_margin": ("1", ("0", "16")),
    "row_cost": ("s", ("0.01 ps", "1 us")),
    "token_cost": ("s", ("0.1 ns", "1 ms")),
    "expert_cost": ("s", ("1 ps", "50 us")),
    "permute_fraction": ("1", ("0.002", "20")),
    "idle_share": ("1", ("0.0005", "5")),
}

BANK_RANGES: dict[str, tuple[str, Range]] = {  # DDR4 to HBM3 and GDDR6: half a nanosecond to tens of nanoseconds
    "channels": ("1", ("1", "10000")), "banks": ("1", ("1", "1024")),
    "row": ("B", ("256 B", "64 KiB")), "burst": ("B", ("4 B", "1 KiB")),
    "precharge": ("s", ("2 ns", "100 ns")), "activate": ("s", ("2 ns", "100 ns")),
    "four_activates": ("s", ("2 ns", "200 ns")), "column": ("s", ("0.3 ns", "60 ns")),
    "transfer": ("B", ("4 B", "1 KiB")), "pins": ("B/s", ("1 GB/s", "500 GB/s")),
    "command": ("s", ("0.1 ns", "10 ns")),
}  # fmt: skip
"""Command timing of memory whose banks compute."""

LEVEL_RANGES: dict[str, dict[str, Range]] = {
    "package": {"bandwidth": ("20 GB/s", "10 TB/s"), "latency": ("20 ns", "300 us")},
    "scaleup": {"bandwidth": ("4 GB/s", "5 TB/s"), "latency": ("20 ns", "300 us")},
    # 1 Gb/s Ethernet to 800 Gb/s, or all interfaces of a server as one: the latter over 1000 would pass as Ethernet
    "nic": {"bandwidth": ("0.1 GB/s", "900 GB/s"), "latency": ("50 ns", "800 us")},
    "fabric": {"bandwidth": ("0.05 GB/s", "900 GB/s"), "latency": ("50 ns", "1 ms")},
    # from a rented line to dedicated wavelengths: bandwidth between regions has no typical value
    "wan": {"bandwidth": ("1 MB/s", "90 GB/s"), "latency": ("50 us", "1 s")},
}
"""Bandwidth per device or interface and direction, and latency of a message, by kind of level."""

CLUSTER_RANGES: dict[str, tuple[str, Range]] = {
    "node.host.memory": ("B", ("6 GB", "100 TB")),
    "node.host.bandwidth": ("B/s", ("4 GB/s", "10 TB/s")),
    "node.host.link": ("B/s", ("1 GB/s", "1.5 TB/s")),
    "node.storage.capacity": ("B", ("50 GB", "1 PB")),
    "node.storage.read": ("B/s", ("0.06 GB/s", "500 GB/s")),
    "node.storage.write": ("B/s", ("0.05 GB/s", "500 GB/s")),
    "node.power_overhead": ("W", ("10 W", "50 kW")),
    "nodes": ("1", ("1", "1000000")),
    "price.device_hour": ("USD/s", ("0.01 USD/h", "300 USD/h")),
    "ownership.lifetime": ("s", ("30 d", "40 years")),
    "ownership.electricity": ("USD/J", ("0.001 USD/kWh", "3 USD/kWh")),
    "carbon": ("1", ("0.001", "2")),
    "pue": ("1", ("1", "3")),
    "reliability.device_mtbf": ("s", ("100 h", "100000000 h")),
    "reliability.node_mtbf": ("s", ("10 h", "100000000 h")),
    "reliability.link_mtbf": ("s", ("100 h", "10000000000 h")),
    "reliability.detection": ("s", ("1 s", "30 d")),
    "reliability.restart": ("s", ("1 s", "30 d")),
    "file_system.write": ("B/s", ("0.01 GB/s", "1000 TB/s")),
    "file_system.read": ("B/s", ("0.01 GB/s", "1000 TB/s")),
}
"""What a cluster may say, by path; a zero of something that may be absent passes."""
