r"""Rows of a table in host memory, gathered over PCI Express: by the processor, or read by the device itself.

A read comes back in pieces of at most one line of the host's cache (64 B), each behind a header; devices read sectors
of 32 B, and what the threads of a warp read together is one request per 128 B that it touches. A row that does not
start at such a border therefore costs more sectors and more headers in every request, unless the threads are shifted so
that all requests but the first and the last start at one.

References
----------
.. [1] S. W. Min et al., "Large graph convolutional network training with GPU-oriented data communication architecture",
   arXiv:2103.03330.
.. [2] S. W. Min et al., "EMOGI", arXiv:2006.06890: 12.2 GB/s aligned and 9.6 GB/s misaligned of 15.75.
"""

from __future__ import annotations

from math import gcd

from perfmodel.elementwise import Scalar, ceil, floor
from perfmodel.units import Bytes

__all__ = ["HEADER", "LINE", "REQUEST", "SECTOR", "copied_bytes", "host_accesses", "row_unit", "rows_read"]

LINE = 64.0
"""Most bytes that a root port returns in one packet: a line of the host's cache [B]."""
HEADER = 20.0
"""Framing, header and check of a packet (PCI Express base specification: 4 + 12 + 4) [B]."""
SECTOR = 32.0
"""Smallest piece that a device reads [B]."""
REQUEST = 128
"""What the threads of a warp read together where each reads four bytes [B]."""


def row_unit(row_bytes: int) -> int:
    """Largest power of two up to a request that divides the places where rows start, packed one behind the other [B].

    Examples
    --------
    >>> row_unit(512), row_unit(600), row_unit(2408)
    (128, 8, 8)
    """
    return gcd(row_bytes, REQUEST)


def _touched(start: Scalar, end: Scalar) -> Bytes:
    """Bytes on the link, headers included, of a read from ``start`` to ``end`` [B]."""
    sectors = ceil(end / SECTOR) - floor(start / SECTOR)
    packets = ceil(end / LINE) - floor(start / LINE)
    return SECTOR * sectors + HEADER * packets


def rows_read(rows: Scalar, row_bytes: Scalar, unit: int = REQUEST, *, aligned: bool = True) -> Bytes:
    """Bytes on the link when a device reads rows in host memory by itself [B].

    Parameters
    ----------
    unit : rows start at multiples of this, each equally often [B]; see :func:`row_unit`.
    aligned : threads are shifted so that requests start at their borders.
    """
    starts = range(0, REQUEST, unit)
    total: Scalar = 0.0
    for start in starts:
        if aligned:
            total = total + _touched(float(start), start + row_bytes)
            continue
        whole = floor(row_bytes / REQUEST)
        rest = row_bytes - whole * REQUEST
        total = total + whole * _touched(float(start), float(start + REQUEST)) + _touched(float(start), start + rest)
    return rows * total / len(starts)


def copied_bytes(volume: Bytes) -> Bytes:
    """Bytes on the link when the copy engine reads a dense buffer in host memory [B]."""
    return volume * (LINE + HEADER) / LINE


def host_accesses(volume: Bytes) -> tuple[Bytes, Bytes]:
    """Traffic of host memory when the processor gathers: rows read and packed, then read by the copy engine [B]."""
    return 2.0 * volume, 1.0 * volume
