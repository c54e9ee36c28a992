"""Requests simulated per second of one core: a synthetic hour with the lengths of a conversation trace, or a trace.

    python benchmarks/simulate_speed.py [TRACE.csv]

Start-up and tables are counted apart. Vidur (microsoft/vidur) simulates 256 requests in 14 to 16 s with start-up, warm.
"""

from __future__ import annotations

import sys

from perfmodel import studies
from perfmodel.serving.arrivals import Synthetic
from perfmodel.specs.trace import read_trace

CASES = (
    ("llama8b", "h100", {}, 1.0),
    ("llama8b", "h100", {}, 2.0),
    ("llama8b", "h100", {}, 4.0),
    ("llama70b", "dgx-h100", {"tp": 8}, 2.0),
)


def main() -> None:
    heads = (("rate", 6), ("requests", 10), ("iterations", 12), ("tables s", 10), ("run s", 8), ("requests/s", 12))
    print(f"{'model':10}{'scheduler':24}" + "".join(f"{name:>{width}}" for name, width in heads))
    for model, hw, columns, scale in CASES:
        for scheduler in ("vllm", "sglang", "trtllm-no-evict"):
            if len(sys.argv) > 1:
                arrivals = read_trace(sys.argv[1], rate_scale=scale)
            else:
                arrivals = Synthetic(5.5 * scale, 1155, 211, 20_000, variation=1.0, length_variation=1.0)
            m = studies.simulate(model, hw, arrivals, columns=columns, scheduler=scheduler).found.metrics
            print(
                f"{model:10}{scheduler:24}{scale:6g}{m['requests']:10,.0f}{m['iterations']:12,.0f}"
                f"{m['prepare_wall_seconds']:10.2f}{m['simulation_wall_seconds']:8.2f}"
                f"{m['simulated_requests_per_second']:12,.0f}"
            )


if __name__ == "__main__":
    main()
