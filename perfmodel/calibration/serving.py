"""Published serving runs predicted: rows that share a setup are evaluated as one block by the same code as plans."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perfmodel.calibration.serving_rows import ServingRow, Setup
from perfmodel.calibration.serving_sources import sources
from perfmodel.machine.build import Machine, build_machine
from perfmodel.network.build import build_network
from perfmodel.network.topology import Network
from perfmodel.phases.host import decoding_only
from perfmodel.phases.memo import Memo
from perfmodel.phases.serving import Passes, evaluate_passes
from perfmodel.serving.offline import most_batch, waves_of
from perfmodel.serving.pools import Pools
from perfmodel.serving.steady import Replica, evaluate_serving
from perfmodel.specs.architecture import Moe
from perfmodel.specs.framework import ServingFramework, load_framework
from perfmodel.specs.overrides import override
from perfmodel.specs.system import System, load_system
from perfmodel.specs.workload import Slo
from perfmodel.techniques import techniques_for
from perfmodel.techniques.base import Situation, Technique, Term

__all__ = ["Block", "Prediction", "blocks", "framework_of", "predict", "speculated", "stated_constants"]

Array = NDArray[np.float64]
Constants = Mapping[str, Any]
"""Numbers, or trial values of shape ``(trials, 1)``."""
BALANCING = 6
"""Rounds in which the batch of decode workers and the queue of prefill workers settle."""
SETTLING = 2
"""Rounds in which the requests that decode settle."""
SLACK, HARDLY = 1.25, 4.0
"""Requests that fit over those of the ledger, as far as it may be wrong; requests below which it tells nothing."""
ROUNDS = 10.0
"""Requests of a client in one measurement; the first of all clients arrive at once (public benchmark scripts)."""


DRAFTS = Technique(
    name="drafts",
    summary="passes check drafted tokens: runs of published tables that speculate without saying so",
    source="one acceptance length, stated in serving_sources.yaml",
    phases=frozenset({"serving"}),
    neutral={"verified": 1.0, "accepted": 1.0},
    layout=lambda x, situation: {"verify_tokens": x.verified, "tokens_per_pass": x.accepted},
)
"""What :func:`speculated` rows pin."""


def speculated(row: ServingRow) -> ServingRow:
    """The row as a run that drafts tokens, with the one length of ``serving_sources.yaml``."""
    stated = sources().speculation
    gained = stated.accepted / (1.0 + stated.draft_cost)
    return replace(row, columns={**row.columns, "verified": 1.0 + stated.drafted, "accepted": gained})


@dataclass(frozen=True)
class Block:
    """Rows with one setup, ready to be evaluated.

    Parameters
    ----------
    rows : of one file or several.
    order : place of every row in the list that was given.
    situation, machine, network, techniques : what they run on.
    framework, family : name of the software; family of the device.
    x : plan columns, one array each.
    """

    rows: tuple[ServingRow, ...]
    order: tuple[int, ...]
    situation: Situation
    machine: Machine
    network: Network
    techniques: tuple[Technique, ...]
    framework: str
    family: str | None
    x: SimpleNamespace
    prefill: Block | None = None
    """Prefill workers of the same rows, where they are disaggregated."""
    memo: Memo[list[Term]] = field(default_factory=Memo)

    def passes(self, constants: Constants, prompts: Array | float | None = None, **columns: Any) -> Passes:
        """Passes of every row's plan with some columns changed, and so many prompts in a prefill pass of a rank."""
        workload, x = self.situation.workload, SimpleNamespace(**{**vars(self.x), **columns})
        if prompts is not None:
            workload = SimpleNamespace(**{**vars(workload), "prompts_per_pass": prompts})
        situation = self.situation._replace(workload=workload)
        given = (self.techniques, situation, self.machine, self.network, constants, self.memo)
        return evaluate_passes(x, *given, bounds=True)

    def evaluate(self, constants: Constants, **columns: Any) -> Replica:
        """The replica of every row under given framework constants, some columns changed."""
        x = SimpleNamespace(**{**vars(self.x), **columns})
        given = (self.techniques, self.situation, self.machine, self.network, constants, self.memo)
        return evaluate_serving(x, *given, bounds=True)


class Prediction(NamedTuple):
    """Predicted times per token and to the first token [s], output tokens per second, in the order of the rows.

    Beside them what no implementation of the plan betters: every operator at its peak rate or its least traffic at full
    bandwidth, one after the other.
    """

    tpot: Array
    ttft: Array
    throughput: Array
    tpot_bound: Array
    ttft_bound: Array
    throughput_bound: Array


@lru_cache(maxsize=16)
def framework_of(name: str) -> ServingFramework:
    """Return the serving framework of that name."""
    found = load_framework(name)
    if not isinstance(found, ServingFramework):
        raise TypeError(f"{name} does not serve")
    return found


@lru_cache(maxsize=64)
def _system(cluster: str, nodes: int, cap: float) -> System:
    """The cluster with at least so many nodes, its devices at a share of their power limit."""
    system = load_system(cluster)
    power = system.accelerator.power
    if cap < 1.0 and power is not None:
        system = override(system, {"power_cap": f"{cap * power.limit.value} W"})
    return override(system, {"nodes": float(nodes)}) if nodes > system.cluster.nodes.value else system


def blocks(rows: Sequence[ServingRow]) -> list[Block]:
    """Sort rows by setup and build what each needs."""
    members: dict[tuple[Setup, str, bool], list[int]] = {}
    for i, row in enumerate(rows):
        members.setdefault((row.setup, row.mode, "accepted" in row.columns), []).append(i)
    return [_block(setup, [rows[i] for i in order], order) for (setup, *_), order in members.items()]


def _devices(row: ServingRow) -> int:
    return int(row.columns.get("devices", 0.0) or row.columns["tp"] * row.columns["ep"] * row.columns["pp"])


def _one_node(setup: Setup, devices: int) -> int:
    """Devices of the largest replica of a system whose layout is searched."""
    node = load_system(setup.cluster).cluster.node.accelerator.count
    return min(devices, int(node))


def _prompts(row: ServingRow, constants: Constants) -> float:
    """Prompts in one pass: of those that come together, as many as the tokens of a pass hold."""
    if row.mode != "static" and not row.in_step:
        return 1.0
    most = float(constants.get("chunk_tokens", 8192.0)) // row.prompt
    return min(row.columns["batch"], max(most, 1.0))


def _block(setup: Setup, rows: list[ServingRow], order: list[int]) -> Block:
    """Block of rows with one setup and mode, that of their prefill workers inside where they have any."""
    prefill = None
    if rows[0].prefill is not None:
        plans = [{**(row.prefill or {}), "batch": (row.prefill or {})["ep"]} for row in rows]
        others = [replace(row, columns=x, prefill=None) for row, x in zip(rows, plans, strict=True)]
        prefill = _block(setup, others, order)
    most = max(map(_devices, rows))
    if rows[0].mode == "best":
        most = _one_node(setup, most)
    per_node = load_system(setup.cluster).cluster.node.accelerator.count
    system = _system(setup.cluster, -(-most // per_node), setup.cap)
    framework = framework_of(setup.framework)
    chosen = dict(setup.launch.kernels)
    software = (framework.kernels, framework.covers, framework.stand_in)
    machine = build_machine(system, *software, chosen, framework.tuned)
    constants = framework.on(system.accelerator.family, machine.main.capacity) | dict(setup.launch.settings)
    techniques = techniques_for("serving")
    if "accepted" in rows[0].columns:
        techniques = (*techniques, DRAFTS)
    columns: dict[str, Any] = {}
    for technique in techniques:
        for name, value in technique.neutral.items():
            columns[name] = float(value) if isinstance(value, (int, float)) else value
    for name in rows[0].columns:
        columns[name] = np.array([row.columns[name] for row in rows])
    workload = SimpleNamespace(
        prompt=np.array([row.prompt for row in rows]),
        output=np.array([row.output for row in rows]),
        shared_prefix=0.0,
        models=1,
        reused=0.0,
        prompts_per_pass=np.array([_prompts(row, constants) for row in rows]),
        kv_format=setup.kv_format,
        concurrency=None,
        expert_variation=0.0,
        rate=None,
        random_arrivals=False,
        length_variation=0.0,
        slo=Slo(),
    )
    situation = Situation("serving", setup.architecture, machine, workload, most)
    network = build_network(system.cluster, sums=framework.all_reduce)
    x = SimpleNamespace(**columns)
    family = system.accelerator.family
    head = (tuple(rows), tuple(order), situation, machine, network, techniques)
    return Block(*head, setup.framework, family, x, prefill)


def predict(
    prepared: Iterable[Block], constants: Callable[[Block], Constants] | None = None, trials: int = 0
) -> Prediction:
    """Predict the rows of all blocks.

    Parameters
    ----------
    prepared : blocks of one list of rows.
    constants : constants of a block's framework; by default those of its file.
    trials : number of values of the constants, along an axis in front of the rows; 0 without that axis.
    """
    prepared = list(prepared)
    count = sum(len(block.rows) for block in prepared)
    shape = (trials, count) if trials else (count,)
    found = Prediction(*(np.empty(shape) for _ in Prediction._fields))
    for block in prepared:
        chosen = stated_constants(block) if constants is None else constants(block)
        place = list(block.order)
        predicted = _MODES[block.rows[0].mode](block, chosen)
        for values, value in zip(found, predicted, strict=True):
            values[..., place] = value
    return found


def stated_constants(block: Block) -> Constants:
    """Constants of the framework of a block, as its file states them for that device, and what the launch chose."""
    found = framework_of(block.framework).on(block.family, block.machine.main.capacity)
    return found | dict(block.rows[0].setup.launch.settings)


def _least(run: Replica | Passes, batch: Array, output: Array, prompts: Array | float = 1.0) -> tuple[Array, ...]:
    """Bounds on the time of a token, on the first after so many prefill passes, and on output tokens per second."""
    tpot = run.decode.bound() / run.settled.layout.tokens_per_pass
    first = prompts * run.prefill.bound()
    return tpot, first, batch * output / (first + (output - 1.0) * tpot)


def _closed(block: Block, constants: Constants) -> tuple[Array, ...]:
    """Means over all requests of clients that send the next when one is answered, the first of all at once.

    Where requests stay in step, every first token waits for half of the prompts of a round, and every later one only
    for the prompts that came after its own. Where the engine runs fewer requests than the clients send, the others wait
    for a place: what is in service keeps its latencies, and the rate is what the places yield.
    """
    output, clients = block.situation.workload.output, block.x.batch
    replica = block.evaluate(constants)
    batch = np.minimum(clients, _places(block, replica, constants))
    together = np.array([row.in_step for row in block.rows])
    if not constants.get("mixed_batches", 1.0):
        for _ in range(SETTLING):
            decoding = batch * np.where(together, 1.0, _decoding(replica, output))
            replica = block.evaluate(constants, batch=np.maximum(decoding, block.x.ep))
    elif np.any(batch < clients):
        replica = block.evaluate(constants, batch=batch)
    tpot = np.where(together, 0.5 * (replica.pass_seconds + replica.tpot), replica.tpot)
    spread = replica.burst / ROUNDS + replica.ttft * (1.0 - 1.0 / ROUNDS)
    first = np.where(together, replica.burst, spread)
    life = first + (output - 1.0) * tpot
    waited = first + (clients / batch - 1.0) * life
    return tpot, waited, batch * output / life, *_least(replica, batch, output)


def _decoding(replica: Replica, output: Array) -> Array:
    """Share of a request's life in which it decodes, where prompts run in passes of their own (Little's law).

    Trial values of constants lie so near to each other that the first stands for all.
    """
    tokens = output * replica.tpot
    share = np.asarray(tokens / (replica.ttft + tokens), dtype=float)
    found: Array = share.reshape(-1, share.shape[-1])[0]
    return found


def _places(block: Block, replica: Replica, constants: Constants) -> Array:
    """Requests that an engine runs at most: what it admits, and what its memory holds where that is known well enough.

    Memory is taken with :data:`SLACK`; where it holds next to nothing, the weights alone decide, and the run says that
    they did fit.
    """
    admitted = constants.get("most_running", 2048.0) * replica.settled.split("batch")
    held = np.asarray(SLACK * most_batch(replica, block.machine, {**constants, "most_running": np.inf}))
    return np.asarray(np.minimum(admitted, np.where(held < HARDLY * block.x.ep, np.inf, held)), dtype=float)


def _static(block: Block, constants: Constants) -> tuple[Array, ...]:
    """All prompts of the batch, in passes as full as they may be, then decode passes of the whole batch."""
    replica = block.evaluate(constants)
    output, batch = block.situation.workload.output, block.x.batch
    host = constants.get("host_per_iteration", 0.0) + constants.get("host_per_sequence", 0.0) * batch
    passes = batch / block.situation.workload.prompts_per_pass
    first = passes * replica.prefill.elapsed() + host + constants.get("first_token", 0.0)
    rate = batch * output / (first + output * replica.pass_seconds)
    return replica.pass_seconds, first, rate, *_least(replica, batch, output, passes)


def _offline(block: Block, constants: Constants) -> tuple[Array, ...]:
    """Everything is queued: the batch is what the engine admits, or all there is; what is left over comes last."""
    admitted = _numbers(block, "running", constants.get("most_running", 2048.0))
    most = most_batch(block.evaluate(constants), block.machine, {**constants, "most_running": admitted})
    held, waves, left = waves_of(_numbers(block, "requests", np.inf), most)
    full = block.evaluate(constants, batch=held)
    last = block.evaluate(constants, batch=np.maximum(left, block.x.batch))
    rate = (waves * held + left) / (waves * full.tpot + np.where(left > 0.0, last.tpot, 0.0))
    return full.tpot, full.ttft, rate, *_least(full, held, block.situation.workload.output)


def _numbers(block: Block, name: str, unknown: float) -> Array:
    """A number that rows may state, with what stands for it where they do not."""
    found = [getattr(row, name) for row in block.rows]
    return np.array([unknown if value is None else value for value in found])


def _pools(block: Block, constants: Constants) -> tuple[Array, ...]:
    """Prefill and decode workers apart: the decode batch is what Little's law leaves of the requests open."""
    first = block.prefill
    assert first is not None  # noqa: S101 - rows of this mode name both kinds of workers
    output, clients = block.situation.workload.output, block.x.batch
    workers = np.array([row.workers for row in block.rows]).T
    prompts = np.maximum(np.floor(constants.get("chunk_tokens", 8192.0) / block.situation.workload.prompt), 1.0)
    alone, full = first.passes(constants), first.passes(constants, prompts)
    decoding = clients
    for _ in range(BALANCING):
        decode = block.passes(decoding_only(constants), batch=np.maximum(decoding / workers[1], block.x.ep))
        pools = Pools(alone, full, prompts, decode, workers[0], workers[1], block.network, constants)
        load = pools.under(clients)
        decoding = 0.5 * (decoding + np.minimum(load.decoding, clients))
    ttft = load.burst / ROUNDS + load.ttft * (1.0 - 1.0 / ROUNDS)
    tpot_bound = _least(decode, clients, output)[0]
    ttft_bound = _least(alone, clients, output)[1]
    most = clients * output / (ttft_bound + (output - 1.0) * tpot_bound)
    rate = clients * output / (ttft + (output - 1.0) * load.tpot)
    return load.tpot, ttft, rate, tpot_bound, ttft_bound, most


def _best(block: Block, constants: Constants) -> tuple[Array, ...]:
    """Replicas of the layout with the most output, of those that fit: tensor ranks, or data ranks that share experts.

    Beams of a request count as one answer.
    """
    devices, beams = block.x.devices, block.x.beams
    moe = any(isinstance(run.layer.ffn, Moe) for run in block.situation.architecture.runs)
    degrees = [2.0**i for i in range(int(block.situation.devices).bit_length()) if 2**i <= block.situation.devices]
    plans = [(n, 1.0) for n in degrees] + [(1.0, n) for n in degrees[1:] if moe]
    best = tuple(np.zeros(len(block.rows)) for _ in Prediction._fields)
    for tp, ep in plans:
        one = np.ones(len(block.rows))
        layout = {"tp": tp * one, "ep": ep * one, "batch": ep * one}
        alone = block.evaluate(constants, **layout)
        held = most_batch(alone, block.machine, constants)
        full = block.evaluate(constants, **{**layout, "batch": held})
        fits = (alone.ratios[f"{block.machine.main.tier} memory"] <= 1.0) & (devices % (tp * ep) == 0.0)
        replicas = devices / (tp * ep) / beams
        rate = np.where(fits, replicas * held / full.tpot, 0.0)
        tpot, first, most = _least(full, held, block.situation.workload.output)
        found = (full.tpot, full.ttft, rate, tpot, first, replicas * most)
        best = tuple(np.where(rate > best[2], new, old) for new, old in zip(found, best, strict=True))
    return best


_MODES = {"best": _best, "pools": _pools, "closed": _closed, "static": _static, "offline": _offline}
