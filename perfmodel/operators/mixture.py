"""Formats mixed layer by layer: which layer has which, what the model then holds, and what it loses."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from perfmodel.errors import SpecError
from perfmodel.operators.assignment import assign
from perfmodel.operators.formats import layer_weights, mean_matrix, mean_row, stored_bytes
from perfmodel.specs.architecture import Architecture
from perfmodel.specs.number_formats import Mix, weight_format
from perfmodel.specs.quality.formats import format_loss
from perfmodel.specs.quality.loss import Loss

__all__ = ["Mixture", "mixture"]


class Mixture(NamedTuple):
    """The best choice of formats for a model.

    Parameters
    ----------
    bytes : per weight, mean over the layers [B].
    formats : of every layer, bottom first.
    loss : sum of what the layers contribute; ``None`` where the loss of one of the formats is not known.
    """

    bytes: float
    formats: tuple[str, ...]
    loss: Loss | None


@lru_cache(maxsize=256)
def mixture(mix: Mix, architecture: Architecture) -> Mixture:
    """Choose the format of every layer: least loss, no more bytes than the budget.

    A layer contributes to the loss of a format in proportion to its sensitivity. Where the loss of a format is not
    published for the model, layers are chosen by the error of rounding, which falls fourfold with every bit, and the
    loss is unknown.

    Raises
    ------
    SpecError
        If the budget is below the smallest format, or the sensitivities are not one per layer.
    """
    weights = layer_weights(architecture)
    records = [weight_format(name) for name in mix.formats]
    row, matrix = mean_row(architecture), mean_matrix(architecture)
    widths = [float(stored_bytes(r, row, matrix)) for r in records]
    if mix.sensitivity and len(mix.sensitivity) != len(weights):
        raise SpecError("one number per layer is needed", field="mix.sensitivity", found=len(mix.sensitivity),
                        allowed=f"{len(weights)} layers of this model")  # fmt: skip
    shares = [s / sum(mix.sensitivity or weights) for s in mix.sensitivity or weights]
    known = [format_loss(r.quality, 8.0 * w, architecture) for r, w in zip(records, widths, strict=True)]
    told = [loss for loss in known if loss is not None]
    whole = [loss.value for loss in told] if len(told) == len(known) else [4.0**-r.number_bits for r in records]
    found = assign(weights, widths, [[s * v for v in whole] for s in shares], mix.bits / 8.0 * sum(weights))
    if found is None:
        raise SpecError("the budget is below the smallest of the formats", field="mix.bits", found=mix.bits,
                        allowed=f"{8.0 * min(widths):.4g} or more for this model")  # fmt: skip
    names = tuple(mix.formats[c] for c in found.choices)
    used = [loss for loss, name in zip(told, mix.formats, strict=False) if name in names]
    return Mixture(found.bytes / sum(weights), names, _loss(found.loss, used) if len(told) == len(known) else None)


def _loss(value: float, used: list[Loss]) -> Loss:
    source = "; ".join(dict.fromkeys(loss.source for loss in used))
    return Loss(value, used[0].metric, f"losses of layers added; {source}", used[0].models)
