"""Every formula: arrays agree with numbers, symbols agree with numbers, and rescaled units rescale the result.

The formulas are collected from the modules, so none escapes: a new function in ``operators`` or ``network`` without a
row here fails the first test.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import sympy
from planning import model, system

from perfmodel.machine import kernels
from perfmodel.machine.build import build_machine
from perfmodel.machine.engine import Constants, Engine, MemoryLevel
from perfmodel.machine.kernels import kernel_lower_bound, kernel_time
from perfmodel.network import collectives
from perfmodel.network.topology import Group, Network, NetworkLevel
from perfmodel.operators import attention, convolution, gemm, layers, moe, state, streaming
from perfmodel.operators.work import Work

UNITS = ("s", "B", "FLOP")
Ranges = dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Formula:
    """How to call one formula: the range of every argument, its unit, what is fixed, and the unit of the result.

    ``result`` names the unit of each field of the outcome: ``{"flops": "", "compulsory_bytes": "B"}``; operations that
    are created from counts carry no unit.
    """

    call: Callable[..., Any]
    ranges: Ranges
    units: dict[str, str]
    result: dict[str, str]
    whole: bool = True

    def draw(self, rng: np.random.Generator) -> dict[str, float]:
        values = {n: 2 ** rng.uniform(np.log2(low), np.log2(high)) for n, (low, high) in self.ranges.items()}
        return {n: float(np.floor(v)) if v >= 2 and self.whole else float(v) for n, v in values.items()}


SIZE = (2.0, 4096.0)
HEADS = (1.0, 64.0)
BYTES = (0.5, 4.0)
WORK = {"flops": "", "compulsory_bytes": "B"}


def fields_of(outcome: Any) -> dict[str, Any]:
    if isinstance(outcome, Work):
        return {"flops": outcome.flops, "compulsory_bytes": outcome.compulsory_bytes, "reuse": outcome.reuse}
    if hasattr(outcome, "_asdict"):
        return dict(outcome._asdict())
    return {"value": outcome}


def _sizes(*names: str) -> Ranges:
    return dict.fromkeys(names, SIZE)


LEVELS = Network((NetworkLevel("a", 8.0, 300e9, 2e-6, 0.8), NetworkLevel("b", 4096.0, 25e9, 9e-6, 0.7)))


def on_network(function: Callable[..., Any]) -> Callable[..., Any]:
    """A collective as a formula of near members, size, bytes, and the facts of the outer level."""

    def call(near: Any, far: Any, size: Any, bandwidth: Any, latency: Any) -> Any:
        outer = LEVELS.levels[1]._replace(bandwidth=bandwidth, latency=latency)
        inner = LEVELS.levels[0]._replace(bandwidth=4.0 * bandwidth, latency=latency / 3.0)
        return function(Network((inner, outer)), Group((near, near * far)), size)

    return call


GPT, MOE, MAMBA = (model(n).architecture for n in ("llama-2-7b", "deepseek-v3", "jamba-1.5-mini"))


def _cache(architecture: Any) -> Callable[..., Any]:
    return lambda context, split, width: state.cache_bytes(architecture, context, kv_split=split, kv_bytes=width)


def _kept(architecture: Any) -> Callable[..., Any]:
    return lambda split, sequence, context: state.activations_kept(
        architecture, weight_split=split, sequence_split=sequence, context=context, materialise=True
    )


FORMULAS: dict[str, Formula] = {
    "gemm": Formula(
        gemm.gemm,
        {**_sizes("m", "n", "k", "batch"), "element_bytes": BYTES, "weight_bytes": BYTES},
        {"element_bytes": "B", "weight_bytes": "B"},
        {**WORK, "reuse": "1.5 B"},
    ),
    "moe": Formula(
        lambda tokens, hidden, width, rows, active, element_bytes, weight_bytes: moe.moe(
            tokens, hidden, width, moe.expected_loads(rows, active), experts=active,
            element_bytes=element_bytes, weight_bytes=weight_bytes,
        ),
        {**_sizes("tokens", "hidden", "width", "rows", "active"), "element_bytes": BYTES, "weight_bytes": BYTES},
        {"element_bytes": "B", "weight_bytes": "B"},
        {**WORK, "reuse": "1.5 B"},
    ),
    "expected_loads": Formula(
        lambda rows, active: sum(moe.expected_loads(rows, active).tiles), _sizes("rows", "active"), {}, {"value": ""}
    ),
    "long_convolution": Formula(
        lambda vectors, n, filters: gemm.long_convolution(vectors, n, filters),
        _sizes("vectors", "n", "filters"),
        {},
        {"flops": ""},
    ),
    "convolution": Formula(
        convolution.convolution,
        {**_sizes("pixels", "inputs", "outputs"), "element_bytes": BYTES, "weight_bytes": BYTES},
        {"element_bytes": "B", "weight_bytes": "B"},
        {**WORK, "reuse": "1.5 B"},
    ),
    "gemv": Formula(gemm.gemv, _sizes("n", "k"), {}, {"flops": ""}),
    "attention": Formula(
        lambda q_len, before, **rest: attention.attention(q_len=q_len, kv_len=q_len + before, **rest),
        {**_sizes("batch", "head_dim", "value_dim", "q_len", "before"), "q_heads": HEADS, "kv_heads": HEADS,
         "element_bytes": BYTES, "kv_bytes": BYTES},
        {"element_bytes": "B", "kv_bytes": "B"},
        {**WORK, "reuse": "2 B"},
    ),
    "attention with a window": Formula(
        lambda q_len, before, window, **rest: attention.attention(
            q_len=q_len, kv_len=q_len + before, window=window, **rest
        ),
        {**_sizes("batch", "head_dim", "value_dim", "q_len", "before", "window"), "q_heads": HEADS, "kv_heads": HEADS},
        {},
        {"flops": ""},
    ),
    "attention_pairs": Formula(
        lambda q_len, before, window: attention.attention_pairs(q_len, q_len + before, window=window),
        _sizes("q_len", "before", "window"),
        {},
        {"value": ""},
    ),
    "decode_attention": Formula(
        attention.decode_attention,
        {**_sizes("batch", "head_dim", "value_dim", "context", "queries", "window"), "q_heads": HEADS,
         "kv_heads": HEADS},
        {},
        {"flops": ""},
    ),
    "materialised_attention": Formula(
        attention.materialised_attention,
        {**_sizes("batch", "q_len", "kv_len"), "q_heads": HEADS, "element_bytes": BYTES},
        {"element_bytes": "B"},
        {"value": "B"},
    ),
    "elementwise": Formula(
        lambda elements, element_bytes: streaming.elementwise(
            elements, reads=2.0, writes=1.0, flops_per_element=3.0, element_bytes=element_bytes
        ),
        {"elements": SIZE, "element_bytes": BYTES},
        {"element_bytes": "B"},
        WORK,
    ),
    "cross_entropy": Formula(
        streaming.cross_entropy, {**_sizes("tokens", "vocab"), "logit_bytes": BYTES}, {"logit_bytes": "B"}, WORK
    ),
    "optimizer_update": Formula(
        streaming.optimizer_update,
        {"parameters": SIZE, "bytes_per_parameter": BYTES},
        {"bytes_per_parameter": "B"},
        WORK,
    ),
    "selective_scan": Formula(
        lambda **rest: streaming.selective_scan(carry=True, **rest),
        {**_sizes("sequences", "tokens", "inner", "state"), "stream_bytes": BYTES, "state_bytes": BYTES},
        {"stream_bytes": "B", "state_bytes": "B"},
        WORK,
    ),
    "activation": Formula(
        lambda **rest: streaming.activation(gated=True, **rest),
        {**_sizes("tokens", "width"), "element_bytes": BYTES},
        {"element_bytes": "B"},
        WORK,
    ),
    "conv": Formula(
        lambda **rest: streaming.conv(taps=4, **rest),
        {**_sizes("tokens", "channels"), "element_bytes": BYTES},
        {"element_bytes": "B"},
        WORK,
    ),
    "active_experts": Formula(
        layers.active_experts, {"experts": (16.0, 256.0), "top_k": (1.0, 8.0), "tokens": SIZE}, {}, {"value": ""}
    ),
    "cache_bytes": Formula(
        _cache(GPT), {"context": SIZE, "split": (1.0, 8.0), "width": BYTES}, {"width": "B"}, {"value": "B"}
    ),
    "key_value_bytes": Formula(
        lambda context, reach, width: state.key_value_bytes(GPT, context, kv_split=1.0, kv_bytes=width, reach=reach),
        {"context": SIZE, "reach": (1.0, 63.0), "width": BYTES},
        {"width": "B"},
        {"value": "B"},
    ),
    "recurrent_bytes": Formula(
        lambda split: state.recurrent_bytes(MAMBA, kv_split=split), {"split": (1.0, 8.0)}, {}, {}
    ),
    "cache_bytes of a latent": Formula(_cache(MOE), {"context": SIZE, "split": (1.0, 8.0), "width": BYTES}, {}, {}),
    "cache_bytes of states": Formula(_cache(MAMBA), {"context": SIZE, "split": (1.0, 8.0), "width": BYTES}, {}, {}),
    "activations_kept": Formula(_kept(GPT), {"split": HEADS, "sequence": HEADS, "context": SIZE}, {}, {}),
    "activations_kept of experts": Formula(_kept(MOE), {"split": HEADS, "sequence": HEADS, "context": SIZE}, {}, {}),
}  # fmt: skip
for _name in ("norm", "residual", "add_norm", "embedding"):
    FORMULAS[_name] = Formula(
        getattr(streaming, _name), {**_sizes("tokens", "hidden"), "element_bytes": BYTES}, {"element_bytes": "B"}, WORK
    )
FORMULAS["rotary"] = Formula(
    streaming.rotary, {**_sizes("tokens", "width"), "element_bytes": BYTES}, {"element_bytes": "B"}, WORK
)

COLLECTIVES = [
    name
    for name, function in vars(collectives).items()
    if inspect.isfunction(function) and function.__module__ == collectives.__name__ and not name.startswith("_")
    if name
    not in (
        "gather_lines",
        "gather_time",
        "lines_of",
        "times_by_protocol",
        "narrowest_level",
    )  # the two halves of all_gather
]
for _name in COLLECTIVES:
    FORMULAS[_name] = Formula(
        on_network(getattr(collectives, _name)),
        {"near": (1.0, 8.0), "far": (1.0, 64.0), "size": (1e3, 1e9), "bandwidth": (1e9, 1e11), "latency": (1e-6, 1e-4)},
        {"size": "B", "bandwidth": "B/s", "latency": "s"},
        {"value": "s"},
    )

NOT_FORMULAS = {"layer_calls", "backward_of", "head_calls", "embedding_calls", "layer_parameters", "widest"}
NOT_FORMULAS |= {"busy_experts", "crossing_elements", "product_call", "row_products"}
NOT_FORMULAS |= {"gather_lines", "gather_time", "lines_of", "times_by_protocol", "narrowest_level"}
NOT_FORMULAS |= set(moe.__all__) - {"moe", "expected_loads"}
"""They return lists of calls, counts of a specification or of random routings; what they are made of is tested here."""


def public(module: ModuleType) -> set[str]:
    return {n for n in module.__all__ if inspect.isfunction(getattr(module, n))}


def test_no_formula_escapes() -> None:
    names = set().union(*(public(m) for m in (gemm, attention, moe, streaming, layers, state, collectives)))
    assert names - NOT_FORMULAS <= set(FORMULAS)


SCALES = {"s": 1e3, "B": 8.0, "FLOP": 1e-6}


def factor(unit: str) -> float:
    """Factor by which a number grows when every base unit shrinks: ``B/s``, ``1.5 B``."""
    if not unit:
        return 1.0
    power, _, rest = unit.rpartition(" ")
    top, _, bottom = rest.partition("/")
    return float((SCALES[top] / (SCALES[bottom] if bottom else 1.0)) ** float(power or 1.0))


def evaluated(expression: Any, values: dict[Any, float]) -> float:
    """Number of an expression, through generated code: substitution in a deep ``Min`` takes seconds."""
    return float(sympy.lambdify(list(values), sympy.sympify(expression), modules="math")(*values.values()))


@pytest.mark.parametrize("name", FORMULAS)
def test_arrays_agree_with_numbers(name: str) -> None:
    formula = FORMULAS[name]
    rng = np.random.default_rng(21)
    rows = [formula.draw(rng) for _ in range(40)]
    arrays = {n: np.array([r[n] for r in rows]) for n in formula.ranges}
    together = fields_of(formula.call(**arrays))
    for i, row in enumerate(rows):
        for field, value in fields_of(formula.call(**row)).items():
            assert float(np.broadcast_to(together[field], (40,))[i]) == pytest.approx(float(value), rel=1e-12), field


@pytest.mark.parametrize("name", FORMULAS)
def test_symbols_agree_with_numbers(name: str) -> None:
    formula = FORMULAS[name]
    rng = np.random.default_rng(22)
    symbols = {n: sympy.Symbol(n, positive=True) for n in formula.ranges}
    written = fields_of(formula.call(**symbols))
    for _ in range(2):
        row = formula.draw(rng)
        for field, value in fields_of(formula.call(**row)).items():
            found = evaluated(written[field], {symbols[n]: v for n, v in row.items()})
            assert found == pytest.approx(float(value), rel=1e-9), field


@pytest.mark.parametrize("name", [n for n, f in FORMULAS.items() if f.units and f.result])
def test_units_follow(name: str) -> None:
    """The same quantities in smaller base units: the result is the same quantity in smaller base units."""
    formula = FORMULAS[name]
    rng = np.random.default_rng(23)
    for _ in range(20):
        row = formula.draw(rng)
        rescaled = {n: v * factor(formula.units.get(n, "")) for n, v in row.items()}
        before, after = fields_of(formula.call(**row)), fields_of(formula.call(**rescaled))
        for field, unit in formula.result.items():
            assert after[field] == pytest.approx(before[field] * factor(unit), rel=1e-9), field


# --- kernels ------------------------------------------------------------------------------------------------------


def _constants(scale: float) -> Constants:
    """Every constant away from zero; times in a unit ``scale`` times smaller."""
    values = {"launch": 3e-6, "k_step": 2e-7, "prologue": 1e-6, "kv_step": 3e-7, "split_launch": 2e-6, "row_step": 1e-8}
    times: dict[str, Any] = {n: t * scale for n, t in values.items()}
    return Constants(0.8, 0.85, wave_quantisation=0.4, exponential_cost=0.3, **times)


def engine_of(
    peak: Any = 900e12, bandwidth: Any = 3e12, cache: Any = 5e7, *, s: float = 1.0, b: float = 1.0, f: float = 1.0
) -> Engine:
    return Engine(
        name="main",
        device="test",
        units=132.0,
        matrix={"bf16": peak * f / s},
        vector={"fp32": peak * f / s / 15.0},
        memories=(MemoryLevel("cache", cache * b, None), MemoryLevel("hbm", 8e10 * b, bandwidth * b / s)),
        constants={(o, "any"): _constants(s) for o in kernels.OPERATORS},
    )


WORKS: dict[str, Callable[..., Work]] = {
    "gemm": lambda a, b, c: gemm.gemm(a, b, c),
    "attention": lambda a, b, c: attention.attention(2.0, 16.0, 4.0, 128.0, 128.0, a, a + b),
    "decode_attention": lambda a, b, c: attention.decode_attention(a, 16.0, 4.0, 128.0, 128.0, b),
    "elementwise": lambda a, b, c: streaming.norm(a, b),
    "moe": lambda a, b, c: moe.moe(a, b, c, moe.expected_loads(2.0 * a, 8.0), experts=8.0),
    "latent_attention": lambda a, b, c: attention.attention(2.0, 16.0, 16.0, 192.0, 128.0, a, a + b)._replace(
        operator="latent_attention"
    ),
    "latent_decode": lambda a, b, c: attention.decode_attention(a, 16.0, 1.0, 576.0, 512.0, b, latent=True)._replace(
        operator="latent_decode"
    ),
    "scan": lambda a, b, c: streaming.selective_scan(1.0, a, b, 64.0, stream_bytes=2e3, carry=True),
}


def test_no_operator_class_escapes() -> None:
    assert set(WORKS) == set(kernels.OPERATORS)


@pytest.mark.parametrize("name", WORKS)
def test_kernel_arrays_agree_with_numbers(name: str) -> None:
    rng = np.random.default_rng(24)
    a, b, c = (np.floor(2 ** rng.uniform(1, 14, 60)) for _ in range(3))
    together = kernel_time(WORKS[name](a, b, c), engine_of())
    lower = kernel_lower_bound(WORKS[name](a, b, c), engine_of())
    for i in range(60):
        one = WORKS[name](float(a[i]), float(b[i]), float(c[i]))
        alone = kernel_time(one, engine_of())
        assert float(together.seconds[i]) == pytest.approx(alone.seconds, rel=1e-12)
        assert float(lower[i]) == pytest.approx(kernel_lower_bound(one, engine_of()), rel=1e-12)
        assert isinstance(alone.seconds, float)


@pytest.mark.parametrize("name", WORKS)
def test_kernels_of_symbolic_sizes(name: str) -> None:
    a, b, c = sympy.symbols("a b c", positive=True)
    written = kernel_time(WORKS[name](a, b, c), engine_of()).seconds
    for row in ((64.0, 4096.0, 512.0), (1000.0, 300.0, 8192.0)):
        wanted = kernel_time(WORKS[name](*row), engine_of()).seconds
        assert evaluated(written, dict(zip((a, b, c), row, strict=True))) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("name", WORKS)
def test_kernels_on_a_symbolic_engine(name: str) -> None:
    """What an explanation differentiates: peak, bandwidth and cache as symbols, sizes as numbers."""
    peak, bandwidth, cache = sympy.symbols("peak bandwidth cache", positive=True)
    work = WORKS[name](512.0, 4096.0, 1024.0)
    written = kernel_time(work, engine_of(peak, bandwidth, cache)).seconds
    facts = {peak: 900e12, bandwidth: 3e12, cache: 5e7}
    assert evaluated(written, facts) == pytest.approx(kernel_time(work, engine_of()).seconds, rel=1e-9)


@pytest.mark.parametrize("name", WORKS)
def test_units_of_kernels_follow(name: str) -> None:
    """Seconds, bytes and operations in other units; bytes and operations of the work rescaled alike."""
    rng = np.random.default_rng(25)
    s, b, f = SCALES["s"], SCALES["B"], SCALES["FLOP"]
    constants = {"PARTIAL_BYTES": kernels.PARTIAL_BYTES * b}
    for _ in range(20):
        work = WORKS[name](*(float(np.floor(2 ** rng.uniform(3, 13))) for _ in range(3)))
        before = kernel_time(work, engine_of())
        if name not in ("elementwise", "scan"):
            f = 1.0  # these make their operations from sizes, so the unit of an operation is not theirs to choose
        rescaled = work._replace(
            flops=work.flops * f,
            compulsory_bytes=work.compulsory_bytes * b,
            reuse=work.reuse * b ** (1.0 + work.reuse_power),
            bound=work.bound * b ** (1.0 + work.reuse_power),
        )
        with pytest.MonkeyPatch.context() as patch:
            for constant, value in constants.items():
                patch.setattr(kernels, constant, value)
            after = kernel_time(rescaled, engine_of(s=s, b=b, f=f))
        for field in ("seconds", "compute", "memory", "overhead"):
            wanted = getattr(before, field) * s
            assert getattr(after, field) == pytest.approx(wanted, rel=1e-9), (field, work)


def test_a_shipped_engine_takes_symbols() -> None:
    main = build_machine(system("h100-sxm")).main
    rate = sympy.Symbol("rate", positive=True)
    engine = replace(main, matrix={**main.matrix, "bf16": rate})
    written = kernel_time(gemm.gemm(4096.0, 4096.0, 4096.0), engine).seconds
    wanted = kernel_time(gemm.gemm(4096.0, 4096.0, 4096.0), main).seconds
    assert evaluated(written, {rate: main.matrix["bf16"]}) == pytest.approx(wanted, rel=1e-9)
