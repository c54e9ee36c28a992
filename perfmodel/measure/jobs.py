"""What is timed, in which order: a coarse grid of every operator first, so that an interrupted run is still useful."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, product, zip_longest

from perfmodel.errors import UnknownName

__all__ = ["FORMAT_BYTES", "OPERATORS", "Job", "jobs", "reference_job"]

FORMAT_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
"""Number formats that can be timed, and bytes per number [B]."""
OPERATORS = ("gemm", "attention", "decode_attention", "elementwise")
"""Operators that one process can time."""
STREAMS = {"copy": (1, 1), "add": (2, 1), "rmsnorm": (1, 1)}
"""Streaming operations: operands read and written once each."""
HIDDEN = 4096
"""Numbers of a row of a streaming operation."""


@dataclass(frozen=True)
class Job:
    """One operator call to be timed.

    Parameters
    ----------
    operator : operator class.
    dtype : number format.
    sizes : columns of the measurement table that say how large it is.
    flops : operations [FLOP].
    moved : inputs and outputs, each once [B].
    rotated : bytes of the operand that a run of a model reads once per pass: weights, key-value cache, input [B].
    """

    operator: str
    dtype: str
    sizes: dict[str, int | str] = field(hash=False)
    flops: float
    moved: float
    rotated: float

    def size(self, name: str) -> int:
        """One of the sizes as a number."""
        return int(self.sizes[name])


def jobs(operators: Iterable[str], dtypes: Sequence[str], *, large: bool = False, quick: bool = False) -> list[Job]:
    """List what to time, in order of how much it tells.

    Parameters
    ----------
    operators : of :data:`OPERATORS`.
    dtypes : of :data:`FORMAT_BYTES`.
    large : for accelerators: sizes that fill thousands of cores.
    quick : a third of the shapes.
    """
    for name in operators:
        if name not in _MAKERS:
            raise UnknownName("operator", name, _MAKERS, remedy="there are " + ", ".join(OPERATORS))
    lists = [_spread(list(_MAKERS[name](dtype, large))) for name, dtype in product(operators, dtypes)]
    if quick:
        lists = [found[: max(8, len(found) // 3)] for found in lists]
    return _interleaved(lists)


def _spread(items: list[Job]) -> list[Job]:
    """Order a grid coarse to fine: by the bit-reversed position, the van der Corput sequence."""
    width = max(1, (len(items) - 1).bit_length())
    order = sorted(range(1 << width), key=lambda i: int(f"{i:0{width}b}"[::-1], 2))
    return [items[i] for i in order if i < len(items)]


def _interleaved(lists: list[list[Job]]) -> list[Job]:
    """Mix lists so that each is as far along as the others at any time."""
    longest = max((len(found) for found in lists), default=0)
    slots: list[list[list[Job]]] = []
    for found in lists:
        ends = [round(i * len(found) / longest) for i in range(longest + 1)]
        slots.append([found[a:b] for a, b in pairwise(ends)])
    return [job for parts in zip_longest(*slots, fillvalue=[]) for part in parts for job in part]


def _gemm(dtype: str, large: bool) -> Iterator[Job]:
    """Square, wide and deep weights times one row to thousands; further weights times one row only."""
    weights = [(1024, 1024), (4096, 4096), (512, 512), (4096, 1024), (2048, 2048), (1024, 4096), (11008, 2048)]
    rows = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096]
    if large:
        weights += [(8192, 8192), (28672, 8192), (8192, 28672), (1280, 8192)]
        rows += [8192, 16384]
    shapes = [(m, n, k) for n, k in weights for m in rows]
    shapes += [(m, 2048, 2048) for m in (3, 6, 24, 48, 96, 200, 768)]
    shapes += [(1, n, k) for n, k in ((8192, 8192), (32000, 2048), (2048, 8192), (14336, 4096), (256, 4096))]
    for m, n, k in dict.fromkeys(shapes):
        yield gemm_job(m, n, k, dtype)


def gemm_job(m: int, n: int, k: int, dtype: str) -> Job:
    """Matrix product ``C[m, n] = A[m, k] B[k, n]``."""
    b = FORMAT_BYTES[dtype]
    sizes: dict[str, int | str] = {"m": m, "n": n, "k": k}
    return Job("gemm", dtype, sizes, 2.0 * m * n * k, float(b) * (m * k + k * n + m * n), float(b) * k * n)


def reference_job(dtype: str) -> Job:
    """Product of 512 cubed, which fits every second-level cache of two cores: its time is that of the clock."""
    return gemm_job(512, 512, 512, dtype)


def _attention(dtype: str, large: bool) -> Iterator[Job]:
    heads = [(8, 8, 64), (16, 4, 128), (8, 2, 64)]
    lengths = [(128, 128), (512, 512), (1024, 1024), (256, 256), (2048, 2048), (256, 2048), (512, 4096)]
    if large:
        heads = [(32, 32, 128), (32, 8, 128), (16, 16, 64), (8, 1, 128)]
        lengths += [(4096, 4096), (8192, 8192), (2048, 16384)]
    for (q_len, kv_len), (q, kv, d), batch in product(lengths, heads, (1, 4)):
        if batch * q_len <= 2048 or large:
            yield _attention_job("attention", dtype, batch, q, kv, d, q_len, kv_len)


def _decode(dtype: str, large: bool) -> Iterator[Job]:
    heads = [(8, 8, 64), (32, 8, 128), (16, 2, 128)]
    batches, lengths = [1, 4, 16], [256, 1024, 4096, 16384]
    if large:
        batches, lengths = [1, 8, 32, 128], [512, 2048, 8192, 32768]
    for kv_len, (q, kv, d), batch in product(lengths, heads, batches):
        yield _attention_job("decode_attention", dtype, batch, q, kv, d, 1, kv_len)


def _attention_job(operator: str, dtype: str, batch: int, q: int, kv: int, d: int, q_len: int, kv_len: int) -> Job:
    b = float(FORMAT_BYTES[dtype])
    sizes: dict[str, int | str] = {"batch": batch, "q_heads": q, "kv_heads": kv, "head_dim": d}
    sizes |= {"q_len": q_len, "kv_len": kv_len, "causal": 1, "window": 0, "kv_dtype": dtype}
    pairs = q_len * (2 * kv_len - q_len + 1) / 2.0
    cache = 2.0 * b * batch * kv * kv_len * d
    return Job(operator, dtype, sizes, 4.0 * batch * q * d * pairs, cache + 2.0 * b * batch * q * q_len * d, cache)


def _streams(dtype: str, large: bool) -> Iterator[Job]:
    counts = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096] + ([8192, 16384] if large else [])
    b = FORMAT_BYTES[dtype]
    for rows, (op, (reads, writes)) in product(counts, STREAMS.items()):
        one = rows * HIDDEN * b
        sizes: dict[str, int | str] = {"op": op, "rows": rows, "cols": HIDDEN}
        sizes |= {"bytes_read": reads * one, "bytes_written": writes * one}
        yield Job("elementwise", dtype, sizes, 5.0 * rows * HIDDEN, float((reads + writes) * one), float(reads * one))


_MAKERS = {"gemm": _gemm, "attention": _attention, "decode_attention": _decode, "elementwise": _streams}
