"""Decode over contexts on an FPGA, and against a GPU."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run

__all__ = ["linear_law", "winners"]

CASES = ((128, 512), (128, 1024), (128, 1536), (512, 512), (512, 1024), (512, 1536))
"""Prompt and output tokens; the FPGA wins those with 128 prompt tokens (artifact's README)."""


def _per_token(run: Run, plan: str, prompt: int, output: int) -> float:
    asked = run.asked(plan).model_copy(update={"workload_changes": {"prompt": prompt, "output": output}})
    return float(run.evaluate(asked).metrics["tpot_seconds"] or 0.0)


def linear_law(run: Run) -> float:
    """Time per token at the third length over what a line through the first two predicts [1]."""
    context = [prompt + output / 2.0 for prompt, output in CASES[:3]]
    seconds = [_per_token(run, "vhk158", *case) for case in CASES[:3]]
    slope = (seconds[1] - seconds[0]) / (context[1] - context[0])
    return seconds[2] / (seconds[0] + slope * (context[2] - context[0]))


def winners(run: Run) -> float:
    """Cases in which the device wins that won as published."""
    right = 0
    for prompt, output in CASES:
        faster = _per_token(run, "vhk158", prompt, output) < _per_token(run, "a100", prompt, output)
        right += faster == (prompt == 128)
    return float(right)
