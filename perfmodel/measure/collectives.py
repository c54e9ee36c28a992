"""Collectives between processes, by PyTorch: Gloo on processors, NCCL or RCCL on accelerators.

Rank 0 decides what is timed and keeps the table; the others follow its orders, which it sends before every sample.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

from perfmodel.errors import SpecError
from perfmodel.measure.backend import Prepared
from perfmodel.measure.jobs import Job
from perfmodel.measure.timer import Call, Sample, Stopwatch

__all__ = ["CollectiveBackend", "World", "collective_jobs", "follow", "gathered", "world_of"]

KINDS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast")
SIZES = tuple(2**e for e in range(10, 31, 2))
"""Bytes of the larger buffer of a rank."""
ELEMENT = 4
"""Bytes per number: fp32, which every library adds up."""
STOP = -1


class World(NamedTuple):
    """Processes that take part: rank of this one, number, number per node, and whether a launcher started them."""

    rank: int
    ranks: int
    per_node: int
    launched: bool


def world_of(ranks: int) -> World | None:
    """Processes to time: those of ``torchrun`` if it started this one, else as many as asked; ``None`` for one.

    Raises
    ------
    SpecError
        If fewer than two are asked for, or not as many as the launcher started.
    """
    said = os.environ.get("WORLD_SIZE", "")
    if said.isdigit() and "RANK" in os.environ and int(said) > 1:
        if ranks not in (0, int(said)):
            raise SpecError("the launcher started another number", field="--ranks", found=ranks, allowed=said)
        per_node = int(os.environ.get("LOCAL_WORLD_SIZE", said))
        return World(int(os.environ["RANK"]), int(said), per_node, launched=True)
    if ranks == 0:
        return None
    if not 2 <= ranks <= 1024:
        raise SpecError("collectives need two ranks or more", field="--ranks", found=ranks, allowed="2 to 1024")
    return World(0, ranks, ranks, launched=False)


def collective_jobs(world: World, library: str, system: str) -> list[Job]:
    """List what to time: every kind at every size, small and large sizes mixed."""
    order = sorted(range(len(SIZES)), key=lambda i: f"{i:04b}"[::-1])
    found = []
    for size, kind in product((SIZES[i] for i in order), KINDS):
        sizes: dict[str, int | str] = {"system": system, "kind": kind, "ranks": world.ranks}
        sizes |= {"ranks_per_node": world.per_node, "bytes": size, "backend": library}
        found.append(Job("collective", "fp32", sizes, 0.0, 2.0 * size * world.ranks, float(size)))
    return found


class CollectiveBackend:
    """The library as rank 0 sees it."""

    formats: tuple[str, ...] = ("fp32",)
    accelerator = ""
    blas = ""

    def __init__(self, torch: Any, world: World, library: str, threads: int, memory: float) -> None:
        self.torch, self.world, self.framework, self.threads = torch, world, library, threads
        self.version = str(torch.__version__)
        self.room = memory / 2.0
        self.stopwatch: Stopwatch = self._stopwatch

    def reference(self, dtype: str) -> Job:
        """All-reduce that tells how steady the machine is."""
        del dtype
        return Job("collective", "fp32", {"kind": "all_reduce", "bytes": 2**16}, 0.0, 2.0**17, 2.0**16)

    def prepare(self, job: Job) -> Prepared:
        """Buffers of rank 0; the others make theirs when they are told."""
        kind, size = str(job.sizes["kind"]), job.size("bytes")
        call = operation(self.torch, kind, size, self.world)
        self._order(kind, size, 1)
        call(0)  # says on every rank whether the library has the operation
        return Prepared(_Operation(kind, size, call), False, kind)

    def _stopwatch(self, call: Call, count: int) -> Callable[[], Sample]:
        if not isinstance(call, _Operation):
            raise TypeError("not a collective")

        def run() -> Sample:
            self._order(call.kind, call.size, count)
            started = time.perf_counter()
            for i in range(count):
                call.call(i)
            _finished(self.torch)
            return Sample(time.perf_counter() - started)

        return run

    def _order(self, kind: str, size: int, count: int) -> None:
        """Tell the others what comes, and start together."""
        _send(self.torch, (KINDS.index(kind), size, count))

    def close(self) -> None:
        """Let the others go."""
        _send(self.torch, (STOP, 0, 0))


@dataclass(frozen=True)
class _Operation:
    """A collective that can be called, with what the other ranks must know of it."""

    kind: str
    size: int
    call: Call

    def __call__(self, i: int) -> object:
        return self.call(i)


def operation(torch: Any, kind: str, size: int, world: World) -> Call:
    """Collective of ``kind`` whose larger buffer per rank has about ``size`` bytes; operands stay where they are."""
    ranks, dist = world.ranks, torch.distributed
    share = max(1, size // ELEMENT // ranks)
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    whole = torch.zeros(share * ranks if kind not in ("all_reduce", "broadcast") else size // ELEMENT, device=device)
    part, other = torch.zeros(share, device=device), torch.zeros_like(whole)
    gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
    scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
    calls: dict[str, Callable[[], object]] = {
        "all_reduce": lambda: dist.all_reduce(whole),
        "all_gather": lambda: gather(whole, part),
        "reduce_scatter": lambda: scatter(part, whole),
        "all_to_all": lambda: dist.all_to_all_single(other, whole),
        "broadcast": lambda: dist.broadcast(whole, 0),
    }
    call = calls[kind]
    return lambda i: call()


def follow(torch: Any, world: World) -> None:
    """Do what rank 0 orders until it says stop; an operation the library lacks fails on every rank alike."""
    known: tuple[object, Call] | None = None
    while True:
        kind, size, count = _receive(torch)
        if kind == STOP:
            return
        try:
            if known is None or known[0] != (kind, size):
                known = (kind, size), operation(torch, KINDS[kind], size, world)
            for i in range(count):
                known[1](i)
            _finished(torch)
        except (RuntimeError, ValueError, NotImplementedError):
            known = None


def _send(torch: Any, order: tuple[int, int, int]) -> None:
    torch.distributed.broadcast(_tensor(torch, order), 0)
    torch.distributed.barrier()


def _receive(torch: Any) -> tuple[int, int, int]:
    order = _tensor(torch, (0, 0, 0))
    torch.distributed.broadcast(order, 0)
    torch.distributed.barrier()
    kind, size, count = (int(v) for v in order.tolist())
    return kind, size, count


def _tensor(torch: Any, values: tuple[int, int, int]) -> Any:
    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    return torch.tensor(values, dtype=torch.int64, device=device)


def _finished(torch: Any) -> None:
    if torch.distributed.get_backend() == "nccl":
        torch.cuda.synchronize()


def _join(torch: Any, world: World, library: str, address: str) -> None:
    if library == "nccl":
        torch.cuda.set_device(world.rank % world.per_node)
    where = {} if world.launched else {"init_method": address, "rank": world.rank, "world_size": world.ranks}
    torch.distributed.init_process_group(library, **where)


def _other_rank(world: World, library: str, threads: int, address: str) -> None:
    """What a process of ``--ranks`` does; an interrupt ends it without a word, as rank 0 speaks."""
    try:
        torch = importlib.import_module("torch")
        torch.set_num_threads(threads)
        _join(torch, world, library, address)
        follow(torch, world)
        torch.distributed.destroy_process_group()
    except (KeyboardInterrupt, RuntimeError):
        os._exit(1)


@contextmanager
def gathered(world: World, library: str, threads: int) -> Iterator[Any]:
    """PyTorch with all processes joined; those that were started here end with it."""
    torch = importlib.import_module("torch")
    torch.set_num_threads(threads)
    address, started = f"tcp://127.0.0.1:{_free_port()}", []
    if not world.launched:
        context = multiprocessing.get_context("spawn")
        for rank in range(1, world.ranks):
            arguments = (world._replace(rank=rank), library, threads, address)
            started.append(context.Process(target=_other_rank, args=arguments, daemon=True))
        for process in started:
            process.start()
    try:
        _join(torch, world, library, address)
        yield torch
        torch.distributed.destroy_process_group()
        for process in started:
            process.join(5.0)
    finally:
        for process in started:
            if process.is_alive():
                process.terminate()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
