"""Serving runs predicted with framework constants that have not seen their model and device, or their device."""

from __future__ import annotations

from collections.abc import Sequence
from zlib import crc32

import numpy as np

from perfmodel.calibration.serving import Block, Constants, Prediction, blocks, predict, stated_constants
from perfmodel.calibration.serving_fit import chosen, fit_constants, rows_to_fit
from perfmodel.calibration.serving_rows import ServingRow
from perfmodel.calibration.serving_sources import sources
from perfmodel.specs.system import load_system

__all__ = ["HeldOut"]

FOLDS = 4
MOST = 400
"""Rows of one fit: constants are few, and what thinning them out moves is far below their spread."""


class HeldOut:
    """Constants fitted without what a row tells of itself.

    Parameters
    ----------
    rows : all runs that fits may see, of every table at hand.
    kind : ``rows`` leaves out a quarter of all pairs of model and device at a time, ``device`` one device.
    """

    def __init__(self, rows: Sequence[ServingRow], kind: str) -> None:
        self.kind = kind
        self.names = {entry.framework: entry.names for entry in sources().fits}
        self.rows = {name: rows_to_fit([r for r in rows if r.setup.framework == name]) for name in self.names}
        self.fits: dict[tuple[str, str], dict[str, float]] = {}

    def key(self, row: ServingRow) -> str:
        """What is left out with a row."""
        device = load_system(row.setup.cluster).accelerator.name
        pair = f"{row.setup.architecture.family} {row.cohort[2].casefold()} {device}"
        return device if self.kind == "device" else str(crc32(pair.encode()) % FOLDS)

    def _values(self, framework: str, key: str) -> dict[str, float]:
        """Constants of a framework fitted without the rows of one key."""
        if (framework, key) not in self.fits:
            others = [row for row in self.rows.get(framework, []) if self.key(row) != key]
            thin = others[:: -(-len(others) // MOST) or 1]
            fitted = fit_constants(thin, self.names[framework]).values if thin else {}
            self.fits[framework, key] = fitted
        return self.fits[framework, key]

    def predict(self, rows: Sequence[ServingRow]) -> Prediction:
        """Predict every row with the constants that have not seen it; software without a fit keeps what it states."""
        parts: dict[tuple[str, str], list[int]] = {}
        for i, row in enumerate(rows):
            parts.setdefault((row.setup.framework, self.key(row)), []).append(i)
        found = Prediction(*(np.empty(len(rows)) for _ in Prediction._fields))
        for (framework, key), members in parts.items():
            values = self._values(framework, key) if framework in self.names else {}

            def constants(block: Block, values: dict[str, float] = values) -> Constants:
                return {**stated_constants(block), **chosen(values, block)}

            made = predict(blocks([rows[i] for i in members]), constants)
            for whole, part in zip(found, made, strict=True):
                whole[members] = part
        return found
