"""Plans judged per second on one core, and peak memory, for the training search of Llama-2-70B on all of Frontier.

Method: one process pinned to one thread (``OMP_NUM_THREADS=1``), one warm-up search, the median of five searches in
processor seconds. ``judged`` is the whole job (form, memory and every other mask, counts, best plans per device
count, near misses); ``evaluated`` is the time of the cost model alone over the same mesh. Peak memory is the
process's maximum resident set.

Run with ``python benchmarks/search_speed.py [--axes default|fine|every]``; ``fine`` searches more micro-batches, device
counts and groups; ``every`` is one search each of Llama 405B and of a trillion parameters on all of Frontier and on
16,384 H100, over every technique that changes the numerics.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

from perfmodel.insight.setting import Question, Setting, make_setting
from perfmodel.solver.search import Outcome, _well_formed, search
from perfmodel.specs.framework import load_framework
from perfmodel.specs.locate import find_model
from perfmodel.specs.model import load_model
from perfmodel.specs.system import load_system
from perfmodel.specs.workload import load_workload, revise

FINE = {
    "devices": [8 * n for n in (*(2**i for i in range(14)), 96, 192, 384, 768, 9408)],
    "micro_batch": [1, 2, 4, 8, 16, 32],
    "cp": [1, 2, 4, 8],
    "optimizer_host": [0.0, 0.25, 0.5, 0.75, 1.0],
}


def setting(fine: bool, use: tuple[str, ...] = ()) -> Setting:
    """The search in question."""
    question = Question(pinned=FINE if fine else None, use=use)
    model, system = load_model(find_model("llama70b")), load_system("frontier")
    return make_setting(model, system, load_workload("pretrain"), load_framework("megatron-core"), question)


LOSSY = ("compressed_collectives", "local_steps", "fused_sums", "state_exchange")
LARGEST = [(m, hw, n, sequence) for hw, n in (("frontier", None), ("h100-rail-32k", 16384))
           for m, sequence in (("llama-3.1-405b", 4096), ("megatron-1t", 2048))]  # fmt: skip


def every_technique() -> None:
    """Print the figures of the largest questions, one search each."""
    for name, hw, devices, sequence in LARGEST:
        workload = revise(load_workload("pretrain"), {"sequence": sequence})
        question = Question(devices=devices, use=LOSSY)
        made = make_setting(
            load_model(find_model(name)), load_system(hw), workload, load_framework("megatron-core"), question
        )
        start = time.process_time()
        search(made.space, made.problem)
        seconds = time.process_time() - start
        print(f"{name} on {hw}: {made.space.cells:,} plans, {seconds:.2f} s")


def timed(call: Callable[[], object], runs: int = 5) -> float:
    """Median seconds of a job after one warm-up."""
    call()
    seconds = []
    for _ in range(runs):
        start = time.process_time()
        call()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--axes", choices=("default", "fine", "every"), action="append")
    for axes in parser.parse_args().axes or ("default", "fine"):
        if axes == "every":
            every_technique()
        else:
            measure(axes)


def measure(axes: str) -> None:
    """Print the figures of one space."""
    made = setting(axes == "fine", ("compressed_collectives",) if axes == "fine" else ())
    cells = made.space.cells

    def evaluate() -> None:
        for slab in made.space.slabs():
            kept = slab.keep(_well_formed(made.problem.form(slab.columns()), slab, Outcome()))
            for block in kept.pieces():
                made.problem.judge(block.columns())

    judged = timed(lambda: search(made.space, made.problem))
    evaluated = timed(evaluate)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"plans in the mesh        {cells:>12,}  (axes: {axes})")
    print(f"judged, masks and ranks  {cells / judged / 1e6:>12.1f} million/s  ({judged:.3f} s)")
    print(f"cost model alone         {cells / evaluated / 1e6:>12.1f} million/s  ({evaluated:.3f} s)")
    print(f"peak memory              {peak:>12.0f} MiB")


if __name__ == "__main__":
    main()
