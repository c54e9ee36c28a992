"""NumPy on the processor: matrix products by its BLAS, attention put together from them, streaming by its loops."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.measure.backend import Prepared, rotation
from perfmodel.measure.jobs import Job, reference_job
from perfmodel.measure.timer import host_stopwatch

__all__ = ["NumpyBackend"]

Floats = NDArray[np.float32]

TILE = 128
"""Query rows that attention takes at a time: their scores stay in the cache."""
GRAIN = 2**19
"""Numbers of one thread's share below which streaming operations are not divided among threads."""
BLOCK = 2**16
"""Numbers that a norm of several passes takes at a time: they stay in the second cache."""
ALIGNED = 64
"""Numbers between possible starts of operands: four cache lines."""
_LIMIT = 4 * 2**30


class NumpyBackend:
    """NumPy arrays of 32-bit numbers."""

    framework = "numpy"
    accelerator = ""
    formats: tuple[str, ...] = ("fp32",)

    def __init__(self, threads: int, cache: float, memory: float) -> None:
        self.version, self.threads, self.cache = np.__version__, threads, cache / 4.0
        self.blas = _blas()
        self.stopwatch = host_stopwatch(threads)
        size = int(min(max(2**26, self.cache * 4.0), memory / 16.0, _LIMIT / 4.0))
        self.arena, self.results = filled(size), filled(size // 2)
        self.room = memory / 2.0
        self.team = ThreadPoolExecutor(threads) if threads > 1 else None

    def reference(self, dtype: str) -> Job:
        """Product that tells how steady the clock is."""
        return reference_job(dtype)

    def prepare(self, job: Job) -> Prepared:
        """Put operands into memory and return what to call."""
        return {
            "gemm": self._gemm,
            "attention": self._attention,
            "decode_attention": self._decode,
            "elementwise": self._stream,
        }[job.operator](job)

    def _rotating(self, size: int) -> tuple[Callable[[int], Floats], bool]:
        """Copy ``i`` of an operand of ``size`` numbers."""
        step = -(-size // ALIGNED) * ALIGNED
        if step > len(self.arena):
            self.arena = filled(step)
        arena = self.arena
        copies, resident = rotation(step, len(arena), self.cache)
        return lambda i: arena[i % copies * step : i % copies * step + size], resident

    def _gemm(self, job: Job) -> Prepared:
        """Weights are stored as ``[n, k]``, as layers keep them."""
        m, n, k = job.size("m"), job.size("n"), job.size("k")
        weight, resident = self._rotating(n * k)
        a, c = filled(m * k).reshape(m, k), np.zeros((m, n), np.float32)
        return Prepared(lambda i: np.matmul(a, weight(i).reshape(n, k).T, out=c), resident, "matmul")

    def _cache(self, job: Job) -> tuple[Callable[[int], tuple[Floats, Floats]], bool]:
        """Rotating keys and values, ``[batch, kv_heads, kv_len, head_dim]`` each."""
        shape = (2, *(job.size(name) for name in ("batch", "kv_heads", "kv_len", "head_dim")))
        both, resident = self._rotating(int(np.prod(shape)))

        def pair(i: int) -> tuple[Floats, Floats]:
            keys, values = both(i).reshape(shape)
            return keys, values

        return pair, resident

    def _attention(self, job: Job) -> Prepared:
        """Causal attention of one tile of queries after the other, masked keys beyond the tile left out."""
        batch, heads, kv, d = (job.size(name) for name in ("batch", "q_heads", "kv_heads", "head_dim"))
        q_len, kv_len, group = job.size("q_len"), job.size("kv_len"), heads // kv
        pair, resident = self._cache(job)
        q = filled(batch * heads * q_len * d).reshape(batch, kv, group, q_len, d)
        q *= d**-0.5
        out = np.zeros_like(q)
        hidden = np.triu(np.full((TILE, TILE), -np.inf, np.float32), 1)

        def call(i: int) -> Floats:
            keys, values = pair(i)
            for b in range(batch):
                for h in range(kv):
                    for start in range(0, q_len, TILE):
                        rows = min(TILE, q_len - start)
                        end = kv_len - q_len + start + rows
                        scores = q[b, h, :, start : start + rows] @ keys[b, h, :end].T
                        scores[..., end - rows :] += hidden[:rows, :rows]
                        np.matmul(_softmax(scores), values[b, h, :end], out=out[b, h, :, start : start + rows])
            return out

        return Prepared(call, resident, "blocked")

    def _decode(self, job: Job) -> Prepared:
        """Scores of one query per sequence, softmax, sum of values: three steps, scores in memory between."""
        batch, heads, kv, d = (job.size(name) for name in ("batch", "q_heads", "kv_heads", "head_dim"))
        pair, resident = self._cache(job)
        q = filled(batch * heads * d).reshape(batch, kv, heads // kv, d)
        q *= d**-0.5
        out = np.zeros_like(q)

        def call(i: int) -> Floats:
            keys, values = pair(i)
            return np.matmul(_softmax(q @ keys.swapaxes(-1, -2)), values, out=out)

        return Prepared(call, resident, "unfused")

    def _stream(self, job: Job) -> Prepared:
        rows, cols, op = job.size("rows"), job.size("cols"), str(job.sizes["op"])
        inputs = 2 if op == "add" else 1
        read, resident = self._rotating(inputs * rows * cols)
        if rows * cols > len(self.results):
            self.results = filled(rows * cols)
        outputs, copies = self.results, len(self.results) // (rows * cols)
        step = {"copy": _copy, "add": _add, "rmsnorm": _rmsnorm}[op]

        def call(i: int) -> None:
            x = read(i).reshape(inputs, rows, cols)
            at = i % copies * rows * cols
            self._divided(step, x, outputs[at : at + rows * cols].reshape(rows, cols))

        return Prepared(call, resident, op)

    def _divided(self, step: Callable[[Floats, Floats], None], x: Floats, out: Floats) -> None:
        """Give every thread a share of the rows, where there is enough for each."""
        shares = min(self.threads, out.size // GRAIN, len(out))
        if self.team is None or shares < 2:
            step(x, out)
            return
        ends = [len(out) * i // shares for i in range(shares + 1)]
        parts = pairwise(ends)
        list(self.team.map(lambda ab: step(x[:, ab[0] : ab[1]], out[ab[0] : ab[1]]), parts))


def _copy(x: Floats, out: Floats) -> None:
    np.copyto(out, x[0])


def _add(x: Floats, out: Floats) -> None:
    np.add(x[0], x[1], out=out)


def _rmsnorm(x: Floats, out: Floats) -> None:
    """Three passes over blocks of rows that stay in the cache."""
    rows = max(1, BLOCK // out.shape[1])
    for start in range(0, len(out), rows):
        part, target = x[0, start : start + rows], out[start : start + rows]
        mean = np.einsum("ij,ij->i", part, part) / np.float32(part.shape[1])
        np.multiply(part, (1.0 / np.sqrt(mean + np.float32(1e-6)))[:, None], out=target)
        np.multiply(target, part[0], out=target)


def _softmax(scores: Floats) -> Floats:
    scores -= scores.max(-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(-1, keepdims=True)
    return scores


def filled(size: int) -> Floats:
    """Numbers between 0 and 1; random ones repeated, which takes a tenth of the time of drawing all."""
    block = np.random.default_rng(0).random(min(size, 2**18), np.float32)
    result = np.empty(size, np.float32)
    for start in range(0, size, len(block)):
        part = result[start : start + len(block)]
        part[:] = block[: len(part)]
    return result


def _blas() -> str:
    """Name and version of the BLAS that NumPy was built with."""
    try:
        config: Any = np.show_config(mode="dicts")
        found = config["Build Dependencies"]["blas"]
        return f"{found.get('name', '')} {found.get('version', '')}".strip() or "unnamed"
    except (TypeError, KeyError, AttributeError):
        return "unnamed"
