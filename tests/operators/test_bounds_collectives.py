"""Collectives as messages: one send and one receive per process and round; results, rounds and bytes checked."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from perfmodel.operators.bounds import collectives as col

Chunks = dict[int, float]
"""What a process holds: chunk number to value (or sum)."""


class Wire:
    """Rounds of messages between processes; the critical path is the sum over rounds of the largest message."""

    def __init__(self, processes: int) -> None:
        self.processes, self.rounds, self.sent, self.added = processes, 0, 0, 0

    def round(self, messages: list[tuple[int, int, Chunks]], held: list[Chunks], *, add: bool = False) -> None:
        """Deliver (from, to, chunks) all at once; nobody sends or receives two messages."""
        for end in (0, 1):
            used = [m[end] for m in messages]
            assert len(used) == len(set(used)), "one port each"
        largest = max((len(m[2]) for m in messages), default=0)
        self.rounds += 1
        self.sent += largest
        self.added += largest if add else 0
        for source, _, chunks in messages:
            assert chunks.keys() <= held[source].keys()
        for _, target, chunks in messages:
            for number, value in chunks.items():
                held[target][number] = held[target][number] + value if add else value


def part(held: Chunks, numbers: object) -> Chunks:
    return {int(i): held[int(i)] for i in numbers}  # type: ignore[attr-defined]


# Every loop starts from its own state of ``held`` and says what it ends in; a vector is ``p`` chunks.


def tree(wire: Wire, p: int) -> bool:
    held: list[Chunks] = [dict.fromkeys(range(p), 1.0)] + [{} for _ in range(p - 1)]
    have = 1
    while have < p:
        messages = [(i, i + have, dict(held[i])) for i in range(min(have, p - have))]
        wire.round(messages, held)
        have *= 2
    return all(h == held[0] for h in held)


def tree_reduce(wire: Wire, p: int) -> bool:
    held: list[Chunks] = [dict.fromkeys(range(p), float(i + 1)) for i in range(p)]
    gap = 1
    while gap < p:
        wire.round([(i + gap, i, dict(held[i + gap])) for i in range(0, p - gap, 2 * gap)], held, add=True)
        gap *= 2
    return held[0] == dict.fromkeys(range(p), p * (p + 1) / 2)


def tree_scatter(wire: Wire, p: int) -> bool:
    held: list[Chunks] = [dict(enumerate(range(p)))] + [{} for _ in range(p - 1)]
    gap = p // 2
    while gap >= 1:
        wire.round([(i, i + gap, part(held[i], range(i + gap, i + 2 * gap))) for i in range(0, p, 2 * gap)], held)
        gap //= 2
    return all(h[i] == i for i, h in enumerate(held))


def ring(wire: Wire, p: int, held: list[Chunks] | None = None) -> bool:
    held = held or [{i: float(i)} for i in range(p)]
    start = [next(iter(h)) if len(h) == 1 else i for i, h in enumerate(held)]
    for step in range(p - 1):
        wire.round([(i, (i + 1) % p, part(held[i], [(start[i] - step) % p])) for i in range(p)], held)
    return all(h.keys() == set(range(p)) and h == held[0] for h in held)


def recursive_doubling(wire: Wire, p: int, held: list[Chunks] | None = None) -> bool:
    held = held or [{i: float(i)} for i in range(p)]
    gap = 1
    while gap < p:
        wire.round([(i, i ^ gap, dict(held[i])) for i in range(p)], held)
        gap *= 2
    return all(len(h) == p and h == held[0] for h in held)


def _vectors(p: int) -> list[Chunks]:
    return [{c: float((i + 1) * (c + 1)) for c in range(p)} for i in range(p)]


def _sum(p: int) -> Chunks:
    return {c: (c + 1) * p * (p + 1) / 2 for c in range(p)}


def ring_adding(wire: Wire, p: int) -> bool:
    return _is_scattered(_ring_scatter(wire, p), p, 1)


def _ring_scatter(wire: Wire, p: int) -> list[Chunks]:
    held = _vectors(p)
    for step in range(p - 1):
        wire.round([(i, (i + 1) % p, part(held[i], [(i - step) % p])) for i in range(p)], held, add=True)
    return held


def _is_scattered(held: list[Chunks], p: int, shift: int) -> bool:
    return all(h[(i + shift) % p] == _sum(p)[(i + shift) % p] for i, h in enumerate(held))


def _halving(wire: Wire, p: int) -> list[Chunks]:
    held, gap = _vectors(p), p // 2
    while gap >= 1:
        mates = [(i, i ^ gap) for i in range(p)]
        # each sends the half that its mate keeps: chunks that agree with the mate in this and all higher bits
        wire.round(
            [(i, j, part(held[i], [c for c in range(p) if c // gap == j // gap])) for i, j in mates], held, add=True
        )
        gap //= 2
    return held


def recursive_halving(wire: Wire, p: int) -> bool:
    return _is_scattered(_halving(wire, p), p, 0)


def ring_all_reduce(wire: Wire, p: int) -> bool:
    held = [part(h, [(i + 1) % p]) for i, h in enumerate(_ring_scatter(wire, p))]
    return ring(wire, p, held) and held[0] == _sum(p)


def rabenseifner(wire: Wire, p: int) -> bool:
    held = [part(h, [i]) for i, h in enumerate(_halving(wire, p))]
    return recursive_doubling(wire, p, held) and held[0] == _sum(p)


def doubling_all_reduce(wire: Wire, p: int) -> bool:
    held, gap = _vectors(p), 1
    while gap < p:
        wire.round([(i, i ^ gap, dict(held[i])) for i in range(p)], held, add=True)
        gap *= 2
    return all(h == _sum(p) for h in held)


def pairwise(wire: Wire, p: int) -> bool:
    """Chunk ``i * p + j`` goes from process i to process j."""
    held: list[Chunks] = [{i * p + j: float(i * p + j) for j in range(p)} for i in range(p)]
    for step in range(1, p):
        wire.round([(i, (i + step) % p, part(held[i], [i * p + (i + step) % p])) for i in range(p)], held)
    return all(i * p + j in held[j] for i in range(p) for j in range(p))


def bruck(wire: Wire, p: int) -> bool:
    """Blocks travel by the bits of the distance they have to go."""
    held: list[Chunks] = [{i * p + j: 1.0 for j in range(p)} for i in range(p)]
    gap = 1
    while gap < p:
        messages = []
        for i in range(p):
            moving = [c for c in held[i] if ((c % p - c // p) % p) & gap]
            messages.append((i, (i + gap) % p, part(held[i], moving)))
        assert all(len(chunks) == p // 2 for _, _, chunks in messages)
        copies = [dict(h) for h in held]
        wire.round(messages, copies)
        for i, _, chunks in messages:
            for c in chunks:
                if c not in messages[(i - gap) % p][2]:
                    del copies[i][c]
        held = copies
        gap *= 2
    return all({i * p + j for i in range(p)} == held[j].keys() for j in range(p))


def successors(wire: Wire, p: int) -> bool:
    held: list[Chunks] = [dict.fromkeys(range(i * p, i * p + p), 1.0) for i in range(p)]
    wire.round([(i, (i + 1) % p, dict(held[i])) for i in range(p)], held)
    return all({(i - 1) % p * p + c for c in range(p)} <= held[i].keys() for i in range(p))


LOOPS: dict[tuple[str, str], Callable[[Wire, int], bool]] = {
    ("broadcast", "minimum spanning tree"): tree,
    ("reduce", "minimum spanning tree"): tree_reduce,
    ("scatter", "minimum spanning tree"): tree_scatter,
    ("all-gather", "ring"): ring,
    ("all-gather", "recursive doubling"): recursive_doubling,
    ("reduce-scatter", "ring"): ring_adding,
    ("reduce-scatter", "recursive halving"): recursive_halving,
    ("all-reduce", "ring"): ring_all_reduce,
    ("all-reduce", "recursive halving and doubling"): rabenseifner,
    ("all-reduce", "recursive doubling"): doubling_all_reduce,
    ("all-to-all", "pairwise"): pairwise,
    ("all-to-all", "Bruck"): bruck,
    ("point-to-point", "every process to its successor"): successors,
}
ANY_COUNT = {"ring", "pairwise"}


@pytest.mark.parametrize("name", LOOPS, ids="-".join)
def test_messages_are_counted_as_stated(name: tuple[str, str]) -> None:
    counts = (2, 3, 5, 8, 16) if name[1] in ANY_COUNT or name[0] in ("broadcast", "reduce") else (2, 4, 8, 32)
    for p in counts:
        wire = Wire(p)
        assert LOOPS[name](wire, p)
        cost = col.ALGORITHMS[name[0]][name[1]](p, float(p), 1.0, 1.0, 1.0)  # a byte per chunk
        assert (wire.rounds, wire.sent, wire.added) == pytest.approx(tuple(cost)), p
        least = col.BOUNDS[name[0]](p, float(p), 1.0, 1.0, 1.0)
        assert all(a >= b - 1e-12 for a, b in zip(cost, least, strict=True))


def test_every_collective_has_a_bound_and_no_algorithm_beats_it() -> None:
    assert col.BOUNDS.keys() == col.ALGORITHMS.keys()
    rng = np.random.default_rng(1)
    for name, algorithms in col.ALGORITHMS.items():
        for _ in range(50):
            p, size = float(2 ** rng.integers(0, 12)), float(10 ** rng.uniform(0, 10))
            alpha, beta, gamma = 10 ** rng.uniform(-7, -3), 10 ** rng.uniform(-12, -8), 10 ** rng.uniform(-13, -10)
            least = col.collective_lower_bound(name, p, size, alpha, beta, gamma)
            for algorithm in algorithms.values():
                cost = algorithm(p, size, alpha, beta, gamma)
                assert all(a >= b * (1 - 1e-12) for a, b in zip(cost, least, strict=True))
                assert cost.seconds >= least.largest * (1 - 1e-12)


def test_both_parts_are_attained_where_the_table_says_so() -> None:
    for name, algorithm in (
        ("scatter", "minimum spanning tree"),
        ("all-gather", "recursive doubling"),
        ("reduce-scatter", "recursive halving"),
    ):
        assert col.ALGORITHMS[name][algorithm](64.0, 1e6, 1e-6, 1e-9, 1e-12) == col.BOUNDS[name](
            64.0, 1e6, 1e-6, 1e-9, 1e-12
        )
    rabenseifner = col.ALGORITHMS["all-reduce"]["recursive halving and doubling"](64.0, 1e6, 1e-6, 1e-9, 0.0)
    least = col.BOUNDS["all-reduce"](64.0, 1e6, 1e-6, 1e-9, 0.0)
    assert rabenseifner.transfer == least.transfer
    assert rabenseifner.latency == 2 * least.latency
    adding = col.collective_lower_bound("all-reduce", 64.0, 1e6, 1e-6, 1e-9, in_network=True)
    assert adding.transfer < least.transfer


@pytest.mark.parametrize("p", [8.0, 64.0, 1024.0])
def test_ring_and_doubling_cross_where_stated(p: float) -> None:
    alpha, beta = 5e-6, 1e-10
    size = col.all_reduce_crossover(p, alpha, beta)
    ring_, doubling = (col.ALGORITHMS["all-reduce"][n] for n in ("ring", "recursive doubling"))
    assert ring_(p, size, alpha, beta, 0.0).seconds == pytest.approx(doubling(p, size, alpha, beta, 0.0).seconds)
    assert ring_(p, 2 * size, alpha, beta, 0.0).seconds < doubling(p, 2 * size, alpha, beta, 0.0).seconds
    assert ring_(p, size / 2, alpha, beta, 0.0).seconds > doubling(p, size / 2, alpha, beta, 0.0).seconds


def test_edge_and_serving_figures() -> None:
    """Eight devices on links of latency 1: star 8, tree of depth two 16, ring 56 (arXiv:2410.00531); NanoFlow 31 ms."""
    assert col.star_link_latency(4, 1.0) == 8
    assert col.tree_link_latency(2, 4, 1.0) == 16
    assert col.ring_link_latency(8, 4, 1.0) == 56
    assert col.star_data_time(4 * 8192, 8 / 300e6) == pytest.approx(3.5e-3, rel=0.01)
    assert col.tensor_parallel_decode_time(80, 2048, 8192, 2.0, 8, 1 / 300e9) == pytest.approx(31.3e-3, rel=2e-3)
