"""``perfmodel simulate``: a trace or a synthetic load through replicas of one plan, iteration by iteration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from perfmodel.cli.plan import FRAMEWORK, HARDWARE, JSON, MODEL, SET, SET_WORKLOAD, USE, WIDTH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from perfmodel.specs.trace import Arrival

__all__ = ["EPILOG", "command", "requests_of"]

EPILOG = (
    "Example: perfmodel simulate --model llama8b --hw h100 --trace azure.csv --rate-scale 2 --replicas 2. "
    "Without a trace: perfmodel simulate --model llama8b --hw h100 --rate 10 --requests 20000"
)


def command(
    model: str | None = MODEL,
    hw: str | None = HARDWARE,
    trace: Path | None = typer.Option(None, "--trace", metavar="FILE", help="Requests: CSV or .jsonl."),
    prefix_hashes: Path | None = typer.Option(
        None, "--prefix-hashes", metavar="FILE", help="Prefix hashes of the trace: CSV with row,hash_ids."
    ),
    rate_scale: float = typer.Option(1.0, "--rate-scale", help="Let the trace come so many times as fast."),
    limit: int | None = typer.Option(None, "--limit", help="Only the first requests of the trace."),
    rate: float | None = typer.Option(
        None, "--rate", help="Synthetic load: requests/s; inf for all at once. By default the workload's."
    ),
    requests: int = typer.Option(10_000, "--requests", help="Synthetic load: number of requests."),
    burstiness: float = typer.Option(
        1.0, "--burstiness", help="Synthetic load: variation of the gaps; 0 even, 1 Poisson."
    ),
    length_variation: float | None = typer.Option(
        None, "--length-variation", help="Synthetic load: variation of the lengths. By default the workload's."
    ),
    prefix_groups: int = typer.Option(1, "--prefix-groups", help="Synthetic load: number of shared prefixes."),
    seed: int = typer.Option(0, "--seed", help="Synthetic load: seed of its random numbers."),
    workload: str = typer.Option(
        "chat", "--workload", "-w", help="Lengths of a synthetic load, latency limits, format of the cache."
    ),
    scheduler: str | None = typer.Option(
        None, "--scheduler", help="vllm, sglang, trtllm-no-evict, trtllm-max-utilization, temporal-fusion or static."
    ),
    replicas: int = typer.Option(1, "--replicas", "-r", help="Replicas; of decode, with --prefill-replicas."),
    prefill_replicas: int = typer.Option(
        0, "--prefill-replicas", help="Replicas of a pool of their own that computes the prompts; --pin prefill.tp=2."
    ),
    router: str = typer.Option("round-robin", "--router", help="round-robin, least-loaded or cache-aware."),
    max_sequences: int | None = typer.Option(None, "--max-num-seqs", help="Most sequences in flight on a replica."),
    token_budget: int | None = typer.Option(None, "--max-num-batched-tokens", help="Most new tokens of an iteration."),
    block: int | None = typer.Option(None, "--block-size", help="Tokens of a KV block."),
    prefix_cache: bool = typer.Option(True, "--prefix-cache/--no-prefix-cache", help="Keep prompts for others."),
    flop_aware: float = typer.Option(
        0.0, "--flop-aware", help="Models with recurrent states: weight of saved FLOP per byte in what is evicted."
    ),
    kv_tokens: float | None = typer.Option(None, "--kv-tokens", help="Tokens of a replica's KV cache, from a log."),
    checkpoint: Path | None = typer.Option(
        None, "--checkpoint", metavar="FILE", help="Save here now and then; the same command goes on from it."
    ),
    pin: list[str] = typer.Option([], "--pin", metavar="COLUMN=VALUE", help="A column of the plan: tp=2."),
    use: list[str] = USE,
    set_: list[str] = SET,
    set_workload: list[str] = SET_WORKLOAD,
    framework: str | None = FRAMEWORK,
    json: bool = JSON,
    width: int | None = WIDTH,
) -> None:  # fmt: skip
    """Serve a trace or a synthetic load: percentiles of the latencies, throughput, cache, and whether it holds."""
    from perfmodel.cli import options, output
    from perfmodel.errors import SpecError

    model, hw = options.required("--model", model), options.required("--hw", hw)
    columns = options.pins(pin)
    for name, value in columns.items():
        if isinstance(value, tuple):
            raise SpecError("one plan has one value", field="--pin", found=f"{name}={value}")
    page = None if json else output.page(width)
    fields = options.workload_changes(set_workload)
    if trace is not None:
        arrivals, source, hashed, total = requests_of(trace, prefix_hashes, rate_scale, limit)
    else:
        shape: dict[str, Any] = {"variation": burstiness, "length_variation": length_variation, "groups": prefix_groups}
        arrivals, source = _synthetic(workload, fields, rate, requests, {**shape, "seed": seed})
        hashed, total = 16, requests

    from perfmodel import services

    with output.Progress(what="requests of") as bar, _stopping() as stop:
        done = services.simulate(
            model, hw, arrivals, workload, scheduler=scheduler, replicas=replicas, router=router,  # type: ignore[arg-type]
            prefill_replicas=prefill_replicas, max_sequences=max_sequences, token_budget=token_budget, block=block,
            prefix_cache=prefix_cache, hashed=hashed, flop_aware=flop_aware, kv_tokens=kv_tokens, columns=columns,
            use=options.techniques(use),
            changes=options.pairs("--set", set_) or None, workload_changes=fields or None, framework=framework,
            checkpoint=checkpoint, source=source, progress=lambda n: bar("simulation", n, total, source), stop=stop,
        )  # fmt: skip
    from perfmodel.report import simulate as report

    if json:
        output.print_json(report.simulation_data(done))
    else:
        output.print_lines(report.lines(done, page or output.page(None)))


def requests_of(
    path: Path, hashes: Path | None, scale: float, limit: int | None
) -> tuple[Iterable[Arrival], str, int, int]:
    """Requests of a file, what to call them, tokens of a hash block, and about how many there are."""
    from perfmodel.errors import SpecError
    from perfmodel.specs.trace import HASHED_TOKENS, prefix_hashes, read_trace

    if limit is not None and limit < 1:
        raise SpecError("one or more is needed", field="--limit", found=limit)
    try:
        with path.open("rb") as file:
            total = sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))
    except OSError:
        total = 0
    known = None if hashes is None else prefix_hashes(hashes)
    arrivals = read_trace(path, rate_scale=scale, limit=limit, hashes=known)
    said = path.name + ("" if scale == 1.0 else f" at {scale:g} times its rate")
    return arrivals, said, HASHED_TOKENS, total if limit is None else min(total, limit)


def _synthetic(
    workload: str, fields: dict[str, Any], rate: float | None, requests: int, shape: dict[str, Any]
) -> tuple[Iterable[Arrival], str]:
    """Requests with the lengths of a workload."""
    from perfmodel.errors import SpecError
    from perfmodel.serving.arrivals import Synthetic
    from perfmodel.specs.workload import ServingWorkload, load_workload, revise

    asked = load_workload(workload)
    if fields:
        asked = revise(asked, fields)
    if not isinstance(asked, ServingWorkload):
        raise SpecError("a serving workload is needed", field="--workload", found=workload)
    pace = rate if rate is not None else asked.rate
    if pace is None:
        raise SpecError("how many requests come per second?", field="--rate", allowed="--rate 10, or --trace FILE")
    if shape["length_variation"] is None:
        shape = {**shape, "length_variation": asked.length_variation}
    load = Synthetic(pace, asked.prompt, asked.output, requests, shared_prefix=asked.shared_prefix, **shape)
    said = f"{asked.name}: {asked.prompt:,} + {asked.output:,} tokens, seed {load.seed}"
    return load, said


class _stopping:
    """Lets an interrupt end the simulation after a save, a second one at once."""

    def __enter__(self) -> Callable[[], bool]:
        import signal

        self.asked = False
        self.before = signal.getsignal(signal.SIGINT)

        def note(number: int, frame: object) -> None:
            if self.asked:
                raise KeyboardInterrupt
            self.asked = True

        signal.signal(signal.SIGINT, note)
        return lambda: self.asked

    def __exit__(self, *_: object) -> None:
        import signal

        signal.signal(signal.SIGINT, self.before)
