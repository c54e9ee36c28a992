"""What a library must offer to be timed."""

from __future__ import annotations

import importlib
from typing import NamedTuple, Protocol

from perfmodel.errors import SpecError, UnknownName
from perfmodel.measure.jobs import Job
from perfmodel.measure.timer import Call, Stopwatch

__all__ = ["BACKENDS", "Backend", "Prepared", "open_backend"]

BACKENDS = ("numpy", "torch")


class Prepared(NamedTuple):
    """A job with its operands in memory.

    Parameters
    ----------
    call : makes it once, with the next copy of its rotating operand.
    resident : whether the rotating operand fits the cache, so that later calls find it there.
    kernel : what the library runs, in a word.
    """

    call: Call
    resident: bool
    kernel: str


class Backend(Protocol):
    """A library on a device.

    Parameters
    ----------
    framework, version : library.
    blas : library of matrix products below it, with its version.
    threads : threads it uses; 0 on accelerators.
    accelerator : name of the accelerator, empty for the processor.
    formats : number formats it can time, the usual one first.
    room : bytes that operands may take [B].
    stopwatch : times calls on this device.
    """

    framework: str
    version: str
    blas: str
    threads: int
    accelerator: str
    formats: tuple[str, ...]
    room: float
    stopwatch: Stopwatch

    def reference(self, dtype: str) -> Job:
        """Return a call of a millisecond or so that tells how steady the machine is."""
        ...

    def prepare(self, job: Job) -> Prepared:
        """Put operands into memory and return what to call."""
        ...


def rotation(size: int, arena: int, cache: float) -> tuple[int, bool]:
    """Copies of an operand of ``size`` numbers that an arena holds, and whether all of them fit the cache.

    Examples
    --------
    >>> rotation(100, 1000, 300), rotation(100, 150, 300)
    ((10, False), (1, True))
    """
    copies = max(1, arena // size)
    return copies, copies * size < 2.0 * cache


def open_backend(name: str, *, device: str, threads: int, cache: float, memory: float) -> Backend:
    """Load a library.

    Parameters
    ----------
    name : of :data:`BACKENDS`.
    device : ``cpu`` or ``cuda`` (ROCm devices are called so too).
    threads : threads on the processor.
    cache : capacity of the last cache of the processor [B].
    memory : free memory [B].

    Raises
    ------
    SpecError
        If the library is not installed, or has no such device.
    """
    if name == "numpy":
        if device != "cpu":
            raise SpecError("numpy runs on the processor only", field="--device", found=device, allowed="cpu")
        from perfmodel.measure.numpy_backend import NumpyBackend

        return NumpyBackend(threads, cache, memory)
    if name == "torch":
        try:
            torch = importlib.import_module("torch")
        except ImportError as error:
            remedy = "pip install 'perfmodel[torch]', or --backend numpy"
            raise SpecError(f"PyTorch cannot be imported ({error}); {remedy}", field="--backend", found=name) from None
        from perfmodel.measure.torch_backend import TorchBackend

        return TorchBackend(torch, device, threads, cache, memory)
    raise UnknownName("backend", name, BACKENDS, remedy="there are " + ", ".join(BACKENDS))
