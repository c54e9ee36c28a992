"""Requests simulated per second of one core: a synthetic hour with the lengths of a conversation trace, or a trace.

    python benchmarks/simulate_speed.py [TRACE.csv]
    python benchmarks/simulate_speed.py --vidur PYTHON --vidur-home FOLDER [--requests N]

Start-up and tables are counted apart. With ``--vidur`` the same trace also runs through Vidur (microsoft/vidur): PYTHON
is an interpreter that can import it, FOLDER its repository with the profiles. Both simulate Llama 3 8B on one A100 with
chunks of 512 tokens, in processor time; what Vidur spends on training its predictors and on reports is counted apart.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

from perfmodel import services
from perfmodel.serving.arrivals import Synthetic
from perfmodel.specs.trace import read_trace

CASES = (
    ("llama8b", "h100", {}, 1.0),
    ("llama8b", "h100", {}, 2.0),
    ("llama8b", "h100", {}, 4.0),
    ("llama70b", "dgx-h100", {"tp": 8}, 2.0),
)
RATE, PROMPT, OUTPUT = 5.5, 1155, 211
CHUNK, SEQUENCES, LONGEST = 512, 256, 4096

DRIVER = """
import json, sys, time
from vidur.config import SimulationConfig
from vidur.simulator import Simulator
from vidur.utils.random import set_seeds
config = SimulationConfig.create_from_cli_args()
set_seeds(config.seed)
began = time.process_time()
simulator = Simulator(config)
ready = time.process_time()
simulator._write_output = lambda: None
simulator.run()
print("TIMES " + json.dumps([ready - began, time.process_time() - ready]))
"""


def own(trace: str | None) -> None:
    """A table of this simulator alone."""
    heads = (("rate", 6), ("requests", 10), ("iterations", 12), ("tables s", 10), ("run s", 8), ("requests/s", 12))
    print(f"{'model':10}{'scheduler':24}" + "".join(f"{name:>{width}}" for name, width in heads))
    for model, hw, columns, scale in CASES:
        for scheduler in ("vllm", "sglang", "trtllm-no-evict"):
            if trace is not None:
                arrivals = read_trace(trace, rate_scale=scale)
            else:
                arrivals = Synthetic(RATE * scale, PROMPT, OUTPUT, 20_000, variation=1.0, length_variation=1.0)
            m = services.simulate(model, hw, arrivals, columns=columns, scheduler=scheduler).found.metrics
            print(
                f"{model:10}{scheduler:24}{scale:6g}{m['requests']:10,.0f}{m['iterations']:12,.0f}"
                f"{m['prepare_wall_seconds']:10.2f}{m['simulation_wall_seconds']:8.2f}"
                f"{m['simulated_requests_per_second']:12,.0f}"
            )


def _written(path: Path, requests: int, rate: float) -> None:
    """A trace in Vidur's columns, which both read."""
    load = Synthetic(rate, PROMPT, OUTPUT, requests, length_variation=0.8, seed=1)
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["arrived_at", "num_prefill_tokens", "num_decode_tokens"])
        for a in load:
            prompt = min(a.prompt, LONGEST - 1024)
            rows.writerow([f"{a.seconds:.6f}", prompt, min(a.output, LONGEST - prompt - 1)])


def _vidur(python: str, home: Path, trace: Path) -> tuple[float, float]:
    """Seconds of a processor that Vidur takes to get ready, and to simulate."""
    options = {
        "replica_config_device": "a100",
        "replica_config_model_name": "meta-llama/Meta-Llama-3-8B",
        "cluster_config_num_replicas": 1,
        "replica_config_tensor_parallel_size": 1,
        "replica_config_num_pipeline_stages": 1,
        "request_generator_config_type": "trace_replay",
        "trace_request_generator_config_trace_file": trace,
        "trace_request_generator_config_max_tokens": LONGEST,
        "replica_scheduler_config_type": "sarathi",
        "sarathi_scheduler_config_batch_size_cap": SEQUENCES,
        "sarathi_scheduler_config_chunk_size": CHUNK,
        "execution_time_predictor_config_type": "linear_regression",
        "linear_regression_execution_time_predictor_config_prediction_max_batch_size": SEQUENCES,
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    quiet = [
        f"--no-metrics_config_{name}"
        for name in ("write_metrics", "enable_chrome_trace", "save_table_to_wandb", "store_plots")
    ]
    done = subprocess.run(
        [python, "-c", DRIVER, *words, *quiet], cwd=home, env={**os.environ, "WANDB_MODE": "disabled"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    line = next((text for text in done.stdout.splitlines() if text.startswith("TIMES ")), None)
    if line is None:
        raise SystemExit("Vidur did not run:\n" + done.stderr[-2000:])
    ready, ran = json.loads(line.removeprefix("TIMES "))
    return float(ready), float(ran)


def beside_vidur(python: str, home: Path, requests: int) -> None:
    """Both simulators on the same trace, in turn."""
    print(f"{'rate':>6}{'requests':>10}{'Vidur s':>10}{'own s':>10}{'Vidur req/s':>13}{'own req/s':>12}{'ratio':>8}")
    with tempfile.TemporaryDirectory() as folder:
        for rate in (2.0, 4.0):
            trace = Path(folder) / f"trace-{rate:g}.csv"
            _written(trace, requests, rate)
            ready, theirs = _vidur(python, home, trace)
            began = time.process_time()
            found = services.simulate(
                "llama-3-8b", "a100-80gb-sxm", read_trace(trace), max_sequences=SEQUENCES,
                token_budget=CHUNK + SEQUENCES,
            ).found  # fmt: skip
            whole = time.process_time() - began
            mine = found.metrics["simulation_processor_seconds"] or whole
            print(
                f"{rate:6g}{requests:10,}{theirs:10.2f}{mine:10.3f}{requests / theirs:13,.1f}{requests / mine:12,.0f}"
                f"{theirs / mine:8,.0f}   ready after {ready:.1f} s and {whole - mine:.1f} s"
            )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("trace", nargs="?")
    options.add_argument("--vidur", metavar="PYTHON")
    options.add_argument("--vidur-home", metavar="FOLDER", type=Path)
    options.add_argument("--requests", type=int, default=1000)
    asked = options.parse_args()
    if asked.vidur and asked.vidur_home:
        beside_vidur(asked.vidur, asked.vidur_home, asked.requests)
    else:
        own(asked.trace)


if __name__ == "__main__":
    main()
