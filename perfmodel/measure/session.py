"""One run of ``perfmodel measure``: what is asked, checked before anything is timed, and what came of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import perfmodel
from perfmodel.errors import PerfmodelError, SpecError, UnknownName
from perfmodel.measure.backend import Backend, open_backend
from perfmodel.measure.collectives import (
    CollectiveBackend,
    World,
    collective_jobs,
    follow,
    gathered,
    world_of,
)
from perfmodel.measure.describe import MARK, accelerator_text, label, processor_text
from perfmodel.measure.jobs import OPERATORS, Job, jobs
from perfmodel.measure.processor import Processor, detect, slug
from perfmodel.measure.run import Outcome, Progress, measure, unsteady
from perfmodel.measure.table import Table

__all__ = ["Request", "Result", "session", "use_threads"]

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
BUSY = 0.3
"""Load of other programs per core beyond which a warning is given."""


@dataclass(frozen=True)
class Request:
    """What to measure.

    Parameters
    ----------
    out : table to write or continue.
    backend, device : library (by default NumPy, for collectives PyTorch), and ``cpu`` or ``cuda``.
    dtypes, operators : number formats and operators; empty for what the library has.
    threads : threads on the processor; 0 for its cores.
    limit : time to use [s].
    quick : a third of the shapes.
    describe : device file to write; by default beside the table.
    name : name of the device; by default that of the processor.
    ranks : processes that time collectives; 0 for none.
    """

    out: Path
    backend: str = ""
    device: str = "cpu"
    dtypes: tuple[str, ...] = ()
    operators: tuple[str, ...] = ()
    threads: int = 0
    limit: float = 90.0
    quick: bool = False
    describe: Path | None = None
    name: str = ""
    ranks: int = 0


@dataclass(frozen=True)
class Result:
    """What a run did: counts, the device file (``None`` where none was written) and remarks for the user."""

    device: str
    framework: str
    version: str
    blas: str
    threads: int
    table: Path
    hardware: str
    rows: Sequence[Mapping[str, str]]
    outcome: Outcome
    notes: tuple[str, ...]

    def data(self) -> dict[str, Any]:
        """Plain values for JSON."""
        names = ("device", "framework", "version", "blas", "threads", "hardware", "notes")
        plain = {name: getattr(self, name) for name in names}
        return {**plain, "table": str(self.table), "rows": len(self.rows), **asdict(self.outcome)}


def use_threads(threads: int) -> None:
    """Tell the libraries how many threads to use; they read it when they are loaded.

    Raises
    ------
    SpecError
        If NumPy is loaded already with another number.
    """
    if "numpy" in sys.modules and any(os.environ.get(name) != str(threads) for name in THREAD_VARIABLES[:1]):
        message = "the number of threads cannot change after NumPy was loaded; start a new process"
        raise SpecError(message, field="--threads", found=threads)
    for name in THREAD_VARIABLES:
        os.environ[name] = str(threads)


def threads_for(wanted: int, processor: Processor) -> int:
    """Threads to use: as asked, else as the environment says, else one per core."""
    if wanted < 0 or wanted > processor.cores:
        allowed = f"1 to {processor.cores}, the cores this process may use"
        raise SpecError("a number of cores is needed", field="--threads", found=wanted, allowed=allowed)
    said = os.environ.get(THREAD_VARIABLES[0], "")
    return wanted or (int(said) if said.isdigit() and int(said) else processor.cores)


def session(request: Request, *, date: str, progress: Progress | None = None) -> Result | None:
    """Measure, and describe the machine.

    Returns
    -------
    Result or None
        ``None`` in a process that only takes part in collectives: rank 0 reports.

    Raises
    ------
    PerfmodelError
        Before anything is timed: wrong options, a missing library, a file that cannot be written or continued.
    """
    _check(request)
    world = world_of(request.ranks)
    processor = detect()
    threads = threads_for(request.threads, processor)
    if world is not None:
        return _collectives(request, world, processor, threads, date, progress)
    use_threads(threads)
    backend = open_backend(
        request.backend or "numpy",
        device=request.device,
        threads=threads,
        cache=processor.last_cache,
        memory=processor.free,
    )
    wanted = request.dtypes or backend.formats[:1]
    for dtype in wanted:
        if dtype not in backend.formats:
            remedy = f"{backend.framework} is timed in {', '.join(backend.formats)}"
            raise UnknownName("format", dtype, backend.formats, remedy=remedy)
    todo = jobs(request.operators or OPERATORS, wanted, large=bool(backend.accelerator), quick=request.quick)
    device, known = _named(request, backend.accelerator, processor, threads)
    notes = [] if backend.accelerator else _busy(processor, threads)
    table, outcome = _timed(request, backend, device, todo, date, progress, notes)
    hardware = known
    if known is None or request.describe:
        hardware = _describe(request, processor, backend, table, date, notes)
    return _result(request, backend, table, outcome, hardware or "", notes)


def _collectives(
    request: Request, world: World, processor: Processor, threads: int, date: str, progress: Progress | None
) -> Result | None:
    """Time collectives between processes; a process that is not rank 0 follows."""
    if request.backend == "numpy" or find_spec("torch") is None:
        message = "collectives are timed by PyTorch: pip install 'perfmodel[torch]', and --backend torch"
        raise SpecError(message, field="--ranks", found=world.ranks)
    each = max(1, processor.cores // world.per_node)
    use_threads(each)
    library = "nccl" if request.device == "cuda" else "gloo"
    with gathered(world, library, each) as torch:
        if world.rank > 0:
            follow(torch, world)
            return None
        backend = CollectiveBackend(torch, world, library, each, processor.free)
        accelerator = str(torch.cuda.get_device_name(0)) if library == "nccl" else ""
        device, _ = _named(request, accelerator, processor, threads)
        notes = [] if accelerator else _busy(processor, world.per_node)
        todo = collective_jobs(world, library, device)
        try:
            table, outcome = _timed(request, backend, device, todo, date, progress, notes)
        except PerfmodelError:
            backend.close()
            raise
        if not outcome.interrupted:
            backend.close()
    return _result(request, backend, table, outcome, "", notes)


def _named(request: Request, accelerator: str, processor: Processor, threads: int) -> tuple[str, str | None]:
    """Name of the device, and that of the shipped device file it has, if any."""
    if request.name:
        return request.name, None
    return _shipped_name(slug(accelerator)) if accelerator else (label(slug(processor.name), threads), None)


def _timed(
    request: Request,
    backend: Backend,
    device: str,
    todo: Sequence[Job],
    date: str,
    progress: Progress | None,
    notes: list[str],
) -> tuple[Table, Outcome]:
    """Time what the table does not hold yet."""
    about = {"device": device, "framework": backend.framework, "version": backend.version}
    table = Table(request.out, {**about, "blas": backend.blas, "threads": backend.threads})
    if table.dropped:
        notes.append("the last line of the table was cut off in the middle and was taken out")
    library = ", ".join(part for part in (f"{backend.framework} {backend.version}", backend.blas) if part)
    source = f"perfmodel measure: {perfmodel.__version__}, {library}"
    try:
        outcome = measure(todo, backend, table, limit=request.limit, source=source, date=date, progress=progress)
    finally:
        table.close()
    return table, outcome


def _result(
    request: Request, backend: Backend, table: Table, outcome: Outcome, hardware: str, notes: list[str]
) -> Result:
    return Result(
        device=table.about["device"],
        framework=backend.framework,
        version=backend.version,
        blas=backend.blas,
        threads=backend.threads,
        table=request.out,
        hardware=hardware,
        rows=table.rows,
        outcome=outcome,
        notes=(*notes, *_remarks(table, outcome)),
    )


def _check(request: Request) -> None:
    if not 1.0 <= request.limit <= 86400.0:
        raise SpecError("a time is needed", field="--time-limit", found=request.limit, allowed="1 to 86400 seconds")
    if request.device not in ("cpu", "cuda"):
        allowed = "cpu, cuda (NVIDIA, and AMD with ROCm)"
        raise SpecError("no such kind of device", field="--device", found=request.device, allowed=allowed)
    for path, flag in ((request.out, "--output"), (request.describe, "--describe")):
        if path is None:
            continue
        if path.is_dir():
            raise SpecError("is a folder; give the name of a file in it", field=flag, found=str(path))
        if not path.parent.is_dir():
            raise SpecError(f"the folder {path.parent} does not exist", field=flag, found=str(path))
    if request.out.suffix.lower() != ".csv":
        raise SpecError("a table ends in .csv", field="--output", found=str(request.out), allowed="e.g. mine.csv")


def _busy(processor: Processor, threads: int) -> list[str]:
    """Say so if other programs run: threads that wait for each other then wait for those too."""
    if threads == 1 or not hasattr(os, "getloadavg"):
        return []
    load = os.getloadavg()[0]
    if load < BUSY * processor.cores:
        return []
    return [
        f"other programs keep about {load:.1f} of {processor.cores} cores busy, and {threads} threads or ranks wait; "
        "end them, or use --threads 1, where only the time on the core counts"
    ]


def _shipped_name(own: str) -> tuple[str, str | None]:
    """Name of the shipped device that an accelerator is, if any."""
    from perfmodel.specs.locate import find_device

    for name in (own, own.removeprefix("nvidia-"), own.removeprefix("amd-"), own.removeprefix("amd-instinct-")):
        try:
            found = find_device(name)
        except UnknownName:
            continue
        if found.is_file() and found.suffix == ".yaml":
            return found.stem, found.stem
    return own, None


def _describe(
    request: Request, processor: Processor, backend: Backend, table: Table, date: str, notes: list[str]
) -> str:
    """Write the device file, unless there is one that somebody wrote."""
    path = request.describe or request.out.with_suffix(".base.yaml")
    if not any(row["operator"] == "gemm" for row in table.rows):
        notes.append("no device file was written: it needs matrix products in the table")
        return ""
    if path.exists() and MARK not in path.read_text(encoding="utf-8", errors="replace"):
        notes.append(f"{path} is not overwritten: it is not a file of this command, or was made yours")
        return str(path)
    device = table.about["device"]
    if backend.accelerator:
        facts = getattr(backend, "facts", {})
        text = accelerator_text(facts, device, table.rows, date, facts.get("clock"))
    else:
        text = processor_text(processor, device, backend.threads, table.rows, date)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise SpecError(error.strerror or str(error), field="--describe", found=str(path)) from error
    return str(path)


def _remarks(table: Table, outcome: Outcome) -> list[str]:
    """What the user should know about the rows."""
    notes = []
    if outcome.left:
        notes.append(f"{outcome.left} shapes are left; the same command goes on with them")
    if outcome.too_long:
        notes.append(f"{outcome.too_long} shapes were left out, too long for the time limit; --time-limit raises it")
    if outcome.too_large:
        notes.append(f"{outcome.too_large} shapes were left out, too large for the free memory")
    if outcome.failed:
        shape, reason = next(iter(outcome.failed.items()))
        notes.append(f"{len(outcome.failed)} shapes failed, the first: {shape}: {reason}")
    shaken = unsteady(table.rows)
    if shaken:
        notes.append(
            f"{shaken} of {len(table.rows)} rows were measured while the reference call took more than a tenth "
            "longer or shorter than at first (column drift): another program, or the clock"
        )
    return notes
