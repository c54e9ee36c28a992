"""The assignment of bits to layers: feasible, monotone, and the best there is."""

from __future__ import annotations

from itertools import pairwise, product

from perfmodel.calibration.claims.run import Run
from perfmodel.operators.assignment import assign
from perfmodel.operators.mixture import mixture
from perfmodel.specs.locate import find_model
from perfmodel.specs.model import load_model
from perfmodel.specs.number_formats import Mix

__all__ = ["against_all", "emptiest", "fullest", "rises"]

FORMATS = ("gptq-int2-g128", "gptq-int3-g128", "gptq-int4-g128")
BUDGETS = tuple(2.2 + i * 0.125 for i in range(16))
SENSITIVITY = (9.0, 4.0, 2.0, 1.0, 1.0, 1.5, 3.0, 6.0)
"""A made-up profile for the comparison with every assignment: ends of a model are more sensitive than its middle."""


def _found(run: Run) -> list[tuple[float, float, float]]:
    """(budget, bits, loss) of every budget on Llama 2 7B."""
    del run
    architecture = load_model(find_model("llama-2-7b")).architecture
    mixed = [mixture(Mix(formats=FORMATS, bits=b), architecture) for b in BUDGETS]
    return [
        (b, 8.0 * m.bytes, float("nan") if m.loss is None else m.loss.value)
        for b, m in zip(BUDGETS, mixed, strict=True)
    ]


def fullest(run: Run) -> float:
    """Largest share of its budget that an assignment uses."""
    return max(bits / budget for budget, bits, _ in _found(run))


def emptiest(run: Run) -> float:
    """Smallest share of its budget that an assignment uses."""
    return min(bits / budget for budget, bits, _ in _found(run))


def rises(run: Run) -> float:
    """Steps to a larger budget after which the loss is larger."""
    losses = [loss for _, _, loss in _found(run)]
    return float(sum(after > before + 1e-12 for before, after in pairwise(losses)))


def against_all(run: Run) -> float:
    """Loss of the assignment over the least of all 6,561 of eight layers in three formats."""
    del run
    widths, whole = (2.0, 3.0, 4.0), (16.0, 4.0, 1.0)
    losses = [[s * v for v in whole] for s in SENSITIVITY]
    weights = [1.0 + 0.25 * (i % 3) for i in range(len(SENSITIVITY))]
    budget = 3.1 * sum(weights)
    found = assign(weights, widths, losses, budget)
    every = (
        sum(losses[i][c] for i, c in enumerate(choice))
        for choice in product(range(3), repeat=len(weights))
        if sum(w * widths[c] for w, c in zip(weights, choice, strict=True)) <= budget
    )
    return float("nan") if found is None else found.loss / min(every)
