r"""Attention of one token on units at the banks of DRAM: rows are opened in all banks, then computed by columns.

A row step precharges the banks of a channel one after the other, activates them four at a time, and computes every
column of the open rows:

.. math:: T_{act} = n_{banks} t_{PPD} + t_{RP} + \left(\frac{n_{banks}}{4} - 1\right) t_{FAW} + t_{RCD},\qquad
    T_{col} = t_{burst} + t_{CCD}

Banks are those of all ranks of the channel. Scores take :math:`L d b / (n_{banks} R)` row steps with rows of R bytes,
which keys of other heads share; the output keeps values transposed, so each of the :math:`d / n_{banks}` rows of a bank
is opened for every R bytes of L probabilities. A second row buffer opens the next row while one is computed. Every
query head is a pass of its own: units at the banks keep nothing from one to the next. Channels work on different heads.

The query goes to the buffer of the channel and the output comes from the banks in single precision, a column command
for every burst; scores and probabilities stream over the pins in between.

References
----------
.. [1] M. He et al., "Newton: a DRAM-maker's accelerator-in-memory architecture for machine learning", MICRO 2020.
.. [2] G. Heo et al., "NeuPIMs", ASPLOS 2024, arXiv:2403.00579 (dual row buffers).
"""

from __future__ import annotations

from typing import NamedTuple

from perfmodel.elementwise import Scalar, ceil, maximum, minimum
from perfmodel.units import Bytes, BytesPerSecond, Seconds

__all__ = ["Dram", "bank_attention"]


SUM = 4.0
"""Bytes of a sum, as units accumulate it [B]."""


class Dram(NamedTuple):
    """Timing of a memory whose banks compute.

    Parameters
    ----------
    channels : independent channels.
    banks : banks of a channel that compute at the same time, those of all its ranks.
    row : bytes of a row of one bank, over all devices of the channel [B].
    burst : bytes that one column command computes in each bank [B].
    precharge, activate, four_activates : tRP, tRCD and tFAW [s].
    column : from one column command to the next [s].
    transfer : bytes of a burst at the pins of the channel; what a bank computes with one column, if not given [B].
    pins : bandwidth of the channel; a burst in the time of a column, if not given [B/s].
    command : from a precharge of one bank to that of the next: tPPD, else a clock [s].
    row_buffers : rows that a bank holds open.
    """

    channels: Scalar
    banks: Scalar
    row: Bytes
    burst: Bytes
    precharge: Seconds
    activate: Seconds
    four_activates: Seconds
    column: Seconds
    row_buffers: int = 1
    transfer: Bytes | None = None
    pins: BytesPerSecond | None = None
    command: Seconds = 0.0

    @property
    def opening(self) -> Seconds:
        """Time until all banks of a channel have their next row open [s]."""
        groups = maximum(self.banks / 4.0 - 1.0, 0.0)
        return self.banks * self.command + self.precharge + groups * self.four_activates + self.activate

    @property
    def peak(self) -> BytesPerSecond:
        """Bytes that all banks compute with rows already open [B/s]."""
        return self.channels * self.banks * self.burst / self.column

    def moved(self, vectors: Bytes, streams: Bytes) -> Seconds:
        """Time for what goes to the buffer or comes from the banks: short vectors, and long streams [s]."""
        burst = self.burst if self.transfer is None else self.transfer
        rate = burst / self.column if self.pins is None else self.pins
        return vectors / burst * self.column + streams / rate

    def steps(self, opened: Scalar, columns: Scalar) -> Seconds:
        """Time to open rows so many times and to compute so many columns of them [s]."""
        opening, computing = opened * self.opening, columns * self.column
        if self.row_buffers > 1:
            return maximum(opening, computing) + minimum(self.opening, computing / maximum(opened, 1.0))
        return opening + computing


def bank_attention(dram: Dram, passes: Scalar, keys: Scalar, width: Scalar, element: Bytes = 2.0) -> Seconds:
    """Scores and outputs of ``passes`` (query, head) pairs of a decode step, each over ``keys`` keys [s].

    Parameters
    ----------
    dram : timing.
    passes : queries times heads; channels take whole ones.
    keys : of each.
    width : numbers of a key, and of a value.
    element : bytes of a cached number [B].

    Examples
    --------
    >>> hbm = Dram(1, 32, 1024, 32, 14e-9, 14e-9, 30e-9, 6e-9, transfer=64, pins=32e9)
    >>> round(1e9 * (bank_attention(hbm, 32, 4096, 128) - bank_attention(hbm, 32, 2048, 128)) / 2048)
    219
    """
    scores = keys * width * element
    first = dram.steps(scores / (dram.banks * dram.row), scores / (dram.banks * dram.burst))
    line, outputs = keys * element, maximum(width / dram.banks, 1.0)
    second = dram.steps(outputs * ceil(line / dram.row), outputs * ceil(line / dram.burst))
    operands = dram.moved(width * (element + SUM), 2.0 * keys * element)
    return maximum(ceil(passes / dram.channels), 1.0) * (first + second + operands)
