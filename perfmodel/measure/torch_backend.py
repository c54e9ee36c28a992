"""PyTorch on the processor, or on an accelerator of CUDA or ROCm (which PyTorch calls by the same name)."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any

from perfmodel.errors import SpecError
from perfmodel.measure.backend import Prepared, rotation
from perfmodel.measure.jobs import FORMAT_BYTES, Job, reference_job
from perfmodel.measure.timer import Call, Sample, Stopwatch, host_stopwatch

__all__ = ["TorchBackend"]

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""Number formats as PyTorch calls them."""
LARGEST_ARENA = 4 * 2**30
ALIGNED = 256
"""Bytes between possible starts of operands."""


class TorchBackend:
    """Tensors on one device.

    Parameters
    ----------
    torch : the library.
    device : ``cpu`` or ``cuda``.
    threads, cache, memory : threads, last cache and free memory of the processor [B].
    """

    framework = "torch"

    def __init__(self, torch: Any, device: str, threads: int, cache: float, memory: float) -> None:
        self.torch, self.version, self.device = torch, str(torch.__version__), device
        if device == "cuda":
            if not torch.cuda.is_available():
                raise SpecError("PyTorch finds no accelerator", field="--device", found=device, allowed="cpu")
            properties = torch.cuda.get_device_properties(0)
            self.facts: dict[str, Any] = _facts(properties)
            self.accelerator, self.threads, cache = self.facts["label"], 0, self.facts["cache"]
            memory = float(torch.cuda.mem_get_info()[0])
            self.formats: tuple[str, ...] = ("bf16", "fp16", "fp32")
            self.blas = f"{'HIP' if torch.version.hip else 'CUDA'} {torch.version.hip or torch.version.cuda}"
            self.stopwatch: Stopwatch = device_stopwatch(torch)
        else:
            self.accelerator, self.threads, self.facts = "", threads, {}
            torch.set_num_threads(threads)
            self.formats, self.blas = ("fp32", "bf16"), _blas(torch)
            self.stopwatch = host_stopwatch(threads)
        self.cache, self.room = cache, memory / 2.0
        size = int(min(max(2.0**28, 4.0 * cache), memory / 16.0, LARGEST_ARENA))
        self.arena, self.results = self._bytes(size), self._bytes(size // 2)

    def reference(self, dtype: str) -> Job:
        """Product that tells how steady the clock is."""
        return reference_job(dtype)

    def prepare(self, job: Job) -> Prepared:
        """Put operands into memory and return what to call."""
        if job.operator == "elementwise":
            return self._stream(job)
        return self._gemm(job) if job.operator == "gemm" else self._attention(job)

    def _bytes(self, size: int) -> Any:
        """Memory full of numbers that are finite in every format."""
        return self.torch.full((size,), 0x3C, dtype=self.torch.uint8, device=self.device)

    def _dtype(self, job: Job) -> Any:
        return getattr(self.torch, DTYPES[job.dtype])

    def _tensor(self, job: Job, *shape: int) -> Any:
        return self._bytes(math.prod(shape) * FORMAT_BYTES[job.dtype]).view(self._dtype(job)).view(shape)

    def _rotating(self, job: Job, *shape: int) -> tuple[Callable[[int], Any], bool]:
        """Copy ``i`` of a tensor."""
        size = math.prod(shape) * FORMAT_BYTES[job.dtype]
        step = -(-size // ALIGNED) * ALIGNED
        if step > len(self.arena):
            self.arena = self._bytes(step)
        arena, dtype = self.arena, self._dtype(job)
        copies, resident = rotation(step, len(arena), self.cache)
        tensors = [arena[i * step : i * step + size].view(dtype).view(shape) for i in range(min(copies, 4096))]
        return lambda i: tensors[i % len(tensors)], resident

    def _gemm(self, job: Job) -> Prepared:
        """Weights are stored as ``[n, k]``, as layers keep them."""
        m, n, k = job.size("m"), job.size("n"), job.size("k")
        weight, resident = self._rotating(job, n, k)
        a, out = self._tensor(job, m, k), self._tensor(job, m, n)
        return Prepared(lambda i: self.torch.mm(a, weight(i).t(), out=out), resident, "mm")

    def _attention(self, job: Job) -> Prepared:
        """Scaled dot-product attention; a chunk of a longer sequence is masked by the backend's aligned mask."""
        batch, heads, kv, d = (job.size(name) for name in ("batch", "q_heads", "kv_heads", "head_dim"))
        q_len, kv_len = job.size("q_len"), job.size("kv_len")
        pair, resident = self._rotating(job, 2, batch, kv, kv_len, d)
        q = self._tensor(job, batch, heads, q_len, d)
        options: dict[str, Any] = {"enable_gqa": True} if heads > kv else {}
        if q_len == kv_len:
            options["is_causal"] = True
        elif q_len > 1:
            bias = importlib.import_module("torch.nn.attention.bias")
            options["attn_mask"] = bias.causal_lower_right(q_len, kv_len)
        run = self.torch.nn.functional.scaled_dot_product_attention

        def call(i: int) -> object:
            keys, values = pair(i)
            return run(q, keys, values, **options)

        with self.torch.inference_mode():
            call(0)  # says now whether the library has a kernel for it
        return Prepared(call, resident, "sdpa")

    def _stream(self, job: Job) -> Prepared:
        rows, cols, op = job.size("rows"), job.size("cols"), str(job.sizes["op"])
        read, resident = self._rotating(job, 2 if op == "add" else 1, rows, cols)
        size = rows * cols * FORMAT_BYTES[job.dtype]
        if size > len(self.results):
            self.results = self._bytes(size)
        targets = self.results[: len(self.results) // size * size].view(self._dtype(job)).view(-1, rows, cols)
        scale = self._tensor(job, cols)
        if op == "copy":
            return Prepared(lambda i: targets[i % len(targets)].copy_(read(i)[0]), resident, op)
        if op == "add":
            return Prepared(lambda i: self.torch.add(*read(i), out=targets[i % len(targets)]), resident, op)
        norm = self.torch.nn.functional.rms_norm
        return Prepared(lambda i: norm(read(i)[0], (cols,), scale), resident, op)


def device_stopwatch(torch: Any) -> Stopwatch:
    """Time calls on the accelerator between two events.

    The calls are captured in a graph and replayed, so that launches from the host do not count; where a call cannot
    be captured they do.
    """

    def stopwatch(call: Call, count: int) -> Callable[[], Sample]:
        replay = _captured(torch, call, count) or (lambda: [call(i) for i in range(count)])
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)

        def run() -> Sample:
            start.record()
            replay()
            end.record()
            torch.cuda.synchronize()
            return Sample(start.elapsed_time(end) * 1e-3)

        return run

    return stopwatch


def _captured(torch: Any, call: Call, count: int) -> Callable[[], object] | None:
    """Return the replay of a graph of the calls; ``None`` where the library cannot capture them."""
    try:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            call(0)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for i in range(count):
                call(i)
    except RuntimeError:
        torch.cuda.synchronize()
        return None
    replay: Callable[[], object] = graph.replay
    return replay


def _facts(properties: Any) -> dict[str, Any]:
    """What PyTorch tells about an accelerator; the cache and the clock are younger than the rest."""
    return {
        "label": str(properties.name),
        "units": int(properties.multi_processor_count),
        "memory": float(properties.total_memory),
        "cache": float(getattr(properties, "L2_cache_size", 0) or 2**23),
        "clock": float(getattr(properties, "clock_rate", 0)) * 1e3 or None,
    }


def _blas(torch: Any) -> str:
    found = [name for name, there in (("MKL", torch.backends.mkl), ("oneDNN", torch.backends.mkldnn)) if _has(there)]
    return " and ".join(found) or "unnamed"


def _has(library: Any) -> bool:
    return bool(library.is_available())
