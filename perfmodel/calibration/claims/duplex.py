"""Where two units take the same time for the same work, and decode passes with and without the logic dies."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run
from perfmodel.machine.build import build_engine, build_machine
from perfmodel.machine.engine import Engine
from perfmodel.machine.kernels import kernel_lower_bound
from perfmodel.operators.work import Work
from perfmodel.specs.system import load_device, load_system

__all__ = ["crossover", "gain", "largest_gain"]

BATCHES = (32, 64, 128)
PROMPTS = (512, 2048, 8192)
EXPERTS = tuple(k / 8 for k in range(9))


def _engine(run: Run, name: str) -> Engine:
    """An engine of the machine, or of a device file."""
    machine = build_machine(load_system(str(run.asked().hw)))
    return machine.engines.get(name) or build_engine(name, load_device(name), {})


def crossover(run: Run, slower: str, faster: str) -> float:
    """Operations per byte from which ``faster`` in operations takes less time than ``slower`` does [FLOP/B]."""
    first, second = _engine(run, slower), _engine(run, faster)
    low, high = 0.01, 1000.0
    for _ in range(60):
        middle = (low * high) ** 0.5
        work = Work("decode_attention", "bf16", flops=middle * 1e9, compulsory_bytes=1e9)
        wins = kernel_lower_bound(work, second) < kernel_lower_bound(work, first)
        low, high = (low, middle) if wins else (middle, high)
    return low


def _seconds(run: Run, batch: int, prompt: int, **columns: object) -> float:
    """Decode pass of the quickest way to share four devices [s]."""
    changes = {"prompt": prompt, "output": 512}
    found = []
    for degrees in ({"tp": 4}, {"ep": 4}):
        asked = run.asked().model_copy(
            update={"columns": {**degrees, **columns, "batch": batch}, "workload_changes": changes}
        )
        found.append(float(run.evaluate(asked).metrics["pass_seconds"] or 0.0))
    return min(found)


def gain(run: Run, batch: int, prompt: int) -> float:
    """Decode pass on GPUs alone over the best with attention and a share of the experts on their logic dies [1]."""
    alone = _seconds(run, batch, prompt)
    shared = [
        _seconds(
            run, batch, prompt, attention_engine="logic-pim", sub_batches=1,
            experts_engine="logic-pim" if share else "main", experts_share=share,
        )
        for share in EXPERTS
    ]  # fmt: skip
    return alone / min(shared)


def largest_gain(run: Run) -> float:
    """The largest gain over the batches and lengths of the paper [1]."""
    return max(gain(run, batch, prompt) for batch in BATCHES for prompt in PROMPTS)
