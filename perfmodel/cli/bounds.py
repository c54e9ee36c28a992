"""``perfmodel bounds``: what an operator or a collective must move on a machine, and what known algorithms move."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import typer

from perfmodel.cli.plan import FRAMEWORK, HARDWARE, MODEL, PIN, SET, USE, WIDTH

if TYPE_CHECKING:
    from perfmodel.insight.problems import Problem

__all__ = ["app"]

app = typer.Typer(
    help="I/O lower bounds of an operator at every memory of a device, or of a collective, and what attains them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

FORMAT = typer.Option("bf16", "--format", help="Number format: decides bytes per element and the peak rate.")
JSON = typer.Option(False, "--json", help="Print JSON only (docs/json.md).")
BATCH = typer.Option(1, "--batch", help="How many of them, independent of each other.")


def _show(problem: Problem, hw: str | None, format: str, changes: list[str], json: bool, width: int | None) -> None:
    from perfmodel.cli import options, output
    from perfmodel.insight.bounds import bounds
    from perfmodel.report import bounds as report

    hw = options.required("--hw", hw)
    page = None if json else output.page(width)
    found = bounds(problem, hw, format=format, changes=options.pairs("--set", changes))
    if json:
        output.print_json(report.operator_data(found))
    else:
        output.print_lines(report.operator(found, page or output.page(None)))


@app.command("gemm")
def gemm(
    m: int = typer.Option(..., "--m", help="Rows of A and C."),
    n: int = typer.Option(..., "--n", help="Columns of B and C."),
    k: int = typer.Option(..., "--k", help="Columns of A, rows of B."),
    batch: int = BATCH, hw: str | None = HARDWARE, format: str = FORMAT, set_: list[str] = SET, json: bool = JSON,
    width: int | None = WIDTH,
) -> None:  # fmt: skip
    """Matrix product C[m, n] = A[m, k] B[k, n]."""
    from perfmodel.insight import problems

    _show(problems.gemm(m, n, k, batch), hw, format, set_, json, width)


@app.command("gemv")
def gemv(
    m: int = typer.Option(..., "--m", help="Rows of the matrix."),
    n: int = typer.Option(..., "--n", help="Columns of the matrix."),
    hw: str | None = HARDWARE, format: str = FORMAT, set_: list[str] = SET, json: bool = JSON,
    width: int | None = WIDTH,
) -> None:  # fmt: skip
    """Matrix-vector product."""
    from perfmodel.insight import problems

    _show(problems.gemv(m, n), hw, format, set_, json, width)


@app.command("softmax")
def softmax(
    n: int = typer.Option(..., "--n", help="Length of a row."),
    rows: int = typer.Option(1, "--rows", help="Independent rows."),
    hw: str | None = HARDWARE, format: str = FORMAT, set_: list[str] = SET, json: bool = JSON,
    width: int | None = WIDTH,
) -> None:  # fmt: skip
    """Softmax of rows."""
    from perfmodel.insight import problems

    _show(problems.softmax(n, rows), hw, format, set_, json, width)


@app.command("attention")
def attention(
    seq: int = typer.Option(..., "--seq", help="Tokens of a sequence."),
    head_dim: int = typer.Option(..., "--head-dim", help="Width of a head."),
    heads: int = typer.Option(1, "--heads", help="Query heads."),
    kv_heads: int | None = typer.Option(None, "--kv-heads", help="Key heads; as many as query heads by default."),
    causal: bool = typer.Option(False, "--causal", help="Each query sees itself and what is before it."),
    batch: int = BATCH, hw: str | None = HARDWARE, format: str = FORMAT, set_: list[str] = SET, json: bool = JSON,
    width: int | None = WIDTH,
) -> None:  # fmt: skip
    """Exact softmax attention, forward."""
    from perfmodel.insight import problems

    _show(problems.attention(seq, head_dim, heads, kv_heads, batch, causal=causal), hw, format, set_, json, width)


@app.command("decode-attention")
def decode_attention(
    context: int = typer.Option(..., "--context", help="Cached tokens of a sequence."),
    head_dim: int = typer.Option(..., "--head-dim", help="Width of a head."),
    heads: int = typer.Option(1, "--heads", help="Query heads."),
    kv_heads: int | None = typer.Option(None, "--kv-heads", help="Key heads; as many as query heads by default."),
    queries: int = typer.Option(1, "--queries", help="New tokens per sequence."),
    splits: int = typer.Option(1, "--splits", help="Parts that the cache is cut into."),
    batch: int = BATCH, hw: str | None = HARDWARE, format: str = FORMAT, set_: list[str] = SET, json: bool = JSON,
    width: int | None = WIDTH,
) -> None:  # fmt: skip
    """One decode step of attention over a cache."""
    from perfmodel.insight import problems

    problem = problems.decode_attention(context, head_dim, heads, kv_heads, batch, queries, splits)
    _show(problem, hw, format, set_, json, width)


@app.command("fft")
def fft(
    n: int = typer.Option(..., "--n", help="Complex points, a power of two."),
    batch: int = BATCH, hw: str | None = HARDWARE,
    format: str = typer.Option("fp32", "--format", help="Number format of real and imaginary part."),
    set_: list[str] = SET, json: bool = JSON, width: int | None = WIDTH,
) -> None:  # fmt: skip
    """Fourier transform."""
    from perfmodel.insight import problems

    _show(problems.fft(n, batch), hw, format, set_, json, width)


@app.command("monarch")
def monarch(
    n: int = typer.Option(..., "--n", help="Length of a vector."),
    order: int = typer.Option(2, "--order", help="Stages of block-diagonal products."),
    batch: int = BATCH, hw: str | None = HARDWARE, format: str = FORMAT, set_: list[str] = SET, json: bool = JSON,
    width: int | None = WIDTH,
) -> None:  # fmt: skip
    """Monarch product: block-diagonal stages of side n^(1/order)."""
    from perfmodel.insight import problems

    _show(problems.monarch(n, order, batch), hw, format, set_, json, width)


@app.command("scan")
def scan(
    tokens: int = typer.Option(..., "--tokens", help="Tokens of a sequence."),
    channels: int = typer.Option(..., "--channels", help="Inner width."),
    state: int = typer.Option(16, "--state", help="State numbers per channel."),
    batch: int = BATCH, hw: str | None = HARDWARE, format: str = FORMAT, set_: list[str] = SET, json: bool = JSON,
    width: int | None = WIDTH,
) -> None:  # fmt: skip
    """Selective state-space scan."""
    from perfmodel.insight import problems

    _show(problems.scan(tokens, channels, state, batch), hw, format, set_, json, width)


@app.command("long-context")
def long_context(
    model: str | None = MODEL, hw: str | None = HARDWARE,
    context: str = typer.Option("4096,32768,131072", "--context", metavar="TOKENS", help="Prompts: 4096,50000."),
    output: int = typer.Option(250, "--output", min=1, help="Tokens of an answer."),
    pin: list[str] = PIN, use: list[str] = USE, set_: list[str] = SET, framework: str | None = FRAMEWORK,
    json: bool = JSON, width: int | None = WIDTH,
) -> None:  # fmt: skip
    """A model under long contexts: users at a time, prompt, answer, change of users; at best and as modelled."""
    from perfmodel.cli import options
    from perfmodel.cli import output as out
    from perfmodel.contexts import long_context as study

    model, hw = options.required("--model", model), options.required("--hw", hw)
    lengths = options.counts("--context", context)
    page = None if json else out.page(width)
    found = study(
        model, hw, lengths, output=output, columns=options.pins(pin) or None, use=options.techniques(use),
        changes=options.pairs("--set", set_) or None, framework=framework,
    )  # fmt: skip
    from perfmodel.report import longcontext as report

    if json:
        out.print_json(report.data(found))
    else:
        out.print_lines(report.lines(found, page or out.page(None)))


def _collective(name: str) -> Callable[..., None]:
    def command(
        ranks: int = typer.Option(..., "--ranks", help="Devices that take part, nearest first."),
        size: str = typer.Option(..., "--bytes", metavar="SIZE", help="Bytes of the whole vector: 1 GiB, 64 MB."),
        hw: str | None = HARDWARE, format: str = FORMAT, set_: list[str] = SET, json: bool = JSON,
        width: int | None = WIDTH,
    ) -> None:  # fmt: skip
        from perfmodel.cli import options, output
        from perfmodel.insight.bounds import collective
        from perfmodel.report import bounds as report

        hw = options.required("--hw", hw)
        page = None if json else output.page(width)
        changes = options.pairs("--set", set_)
        found = collective(name, ranks, options.size("--bytes", size), hw, format=format, changes=changes)
        if json:
            output.print_json(report.collective_data(found))
        else:
            output.print_lines(report.collective(found, page or output.page(None)))

    return command


_NAMES = (
    "broadcast", "reduce", "scatter", "gather", "all-gather", "reduce-scatter", "all-reduce", "all-to-all",
    "point-to-point",
)  # fmt: skip
for _name in _NAMES:
    app.command(_name, help=f"Collective {_name} among devices of a machine.")(_collective(_name))
