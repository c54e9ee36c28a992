"""Published training runs predicted: rows that share a setup are evaluated as one block by the same code as plans."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.calibration.training_rows import Setup, TrainingRow
from perfmodel.machine.build import Machine, build_machine
from perfmodel.network.build import build_network
from perfmodel.network.topology import Network
from perfmodel.phases.training import Step, evaluate_training
from perfmodel.specs.framework import TrainingFramework, load_framework
from perfmodel.specs.overrides import override
from perfmodel.specs.system import System, load_system
from perfmodel.specs.workload import Recipe
from perfmodel.techniques import techniques_for
from perfmodel.techniques.base import Situation, Technique

__all__ = ["Block", "Prediction", "blocks", "framework_of", "predict", "stated_constants"]

Array = NDArray[np.float64]
TENSORS = ("weights", "gradients", "optimizer", "activations")
"""Lines of the memory ledger that a paper counts by formula."""
Constants = Mapping[str, float]


@dataclass(frozen=True)
class Block:
    """Rows with one setup, ready to be evaluated.

    Parameters
    ----------
    rows : of one file or several.
    order : place of every row in the list that was given.
    situation, machine, network, techniques : what they run on.
    framework, release : name of the software and of its release.
    family, formats : of the device; format of the matrix products and its scaling recipe.
    x : plan columns, one array each.
    """

    rows: tuple[TrainingRow, ...]
    order: tuple[int, ...]
    situation: Situation
    machine: Machine
    network: Network
    techniques: tuple[Technique, ...]
    framework: str
    release: str
    family: str | None
    formats: tuple[str, ...]
    x: SimpleNamespace
    kernels: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)
    """Kernel times, which no constant of a framework changes."""

    def evaluate(self, constants: Constants) -> Step:
        """The step of every row under given framework constants."""
        return evaluate_training(
            self.x, self.techniques, self.situation, self.machine, self.network, constants, known=self.kernels
        )


@dataclass(frozen=True)
class Prediction:
    """Predicted step times [s] and peak memory of the fullest stage [B], in the order of the rows (the last axis)."""

    seconds: Array
    memory: Array


@lru_cache(maxsize=64)
def framework_of(name: str) -> TrainingFramework:
    """Return the training framework of that name."""
    found = load_framework(name)
    if not isinstance(found, TrainingFramework):
        raise TypeError(f"{name} does not train")
    return found


@lru_cache(maxsize=64)
def _system(cluster: str, nodes: int, node_bandwidth: float | None) -> System:
    """The cluster with at least so many nodes and the interfaces a table states."""
    system = load_system(cluster)
    changes: dict[str, str | float] = {}
    if nodes > system.cluster.nodes.value:
        changes["nodes"] = float(nodes)
    if node_bandwidth is not None:
        name, level = next(((n, v) for n, v in system.cluster.levels.items() if v.nics), (None, None))
        if level is not None and level.nics is not None:
            changes[f"levels.{name}.nics.bandwidth"] = f"{node_bandwidth / level.nics.count.value!r} B/s"
    return override(system, changes) if changes else system


def _column(values: list[float]) -> Any:
    """An array, or for a single row its number, which is evaluated faster."""
    return values[0] if len(values) == 1 else np.array(values)


def _workload(setup: Setup, rows: Sequence[TrainingRow]) -> SimpleNamespace:
    """A training workload whose sequences and batches are arrays, one entry per row."""
    optimizer = {"master": 4.0, "momentum": 4.0, "variance": 4.0}
    wide = {name: f"{size:g} B" for name, size in optimizer.items()}
    recipe: Any = {
        "compute": setup.compute,
        "weights": "bf16",
        "gradients": f"{setup.gradients:g} B",
        "optimizer": wide,
    }
    sequence = _column([float(row.sequence) for row in rows])
    tokens = sequence * _column([float(row.global_batch) for row in rows])
    return SimpleNamespace(
        sequence=sequence,
        global_batch=tokens,
        fused_attention=setup.fused,
        documents=(),
        expert_variation=0.0,
        expert_capacity=None,
        data=None,
        features=None,
        recipe=Recipe.model_validate(recipe),
    )


def blocks(rows: Sequence[TrainingRow]) -> list[Block]:
    """Sort rows by setup and build what each needs."""
    members: dict[Setup, list[int]] = {}
    for i, row in enumerate(rows):
        members.setdefault(row.setup, []).append(i)
    return [_block(setup, [rows[i] for i in order], order) for setup, order in members.items()]


def _block(setup: Setup, rows: list[TrainingRow], order: list[int]) -> Block:
    most = int(max(row.columns["devices"] for row in rows))
    per_node = load_system(setup.cluster).cluster.node.accelerator.count
    system = _system(setup.cluster, -(-most // per_node), setup.node_bandwidth)
    machine, network = build_machine(system), build_network(system.cluster)
    techniques = techniques_for("training")
    columns: dict[str, Any] = {}
    for technique in techniques:
        for name, value in technique.neutral.items():
            columns[name] = float(value) if isinstance(value, (int, float)) else value
    for name in rows[0].columns:
        columns[name] = _column([row.columns[name] for row in rows])
    situation = Situation("training", setup.architecture, machine, _workload(setup, rows), most)
    return Block(
        tuple(rows),
        tuple(order),
        situation,
        machine,
        network,
        techniques,
        setup.framework,
        setup.release,
        system.accelerator.family,
        (setup.compute, setup.recipe),
        SimpleNamespace(**columns),
    )


def predict(prepared: Iterable[Block], constants: Callable[[Block], Constants] | None = None) -> Prediction:
    """Predict the rows of all blocks.

    Parameters
    ----------
    prepared : blocks of one list of rows.
    constants : constants of a block's framework; by default those of its file. Values may be trial points along an
        axis in front, ``(trials, 1)``.
    """
    prepared = list(prepared)
    count = sum(len(block.rows) for block in prepared)
    chosen = [stated_constants(block) if constants is None else constants(block) for block in prepared]
    trials = max((np.shape(v)[:-1] for values in chosen for v in values.values()), default=(), key=len)
    seconds, memory = np.empty((*trials, count)), np.empty((*trials, count))
    for block, values in zip(prepared, chosen, strict=True):
        step = block.evaluate(values)
        place = list(block.order)
        seconds[..., place] = step.seconds
        memory[..., place] = peak_memory(step, block.machine.main.tier, block.rows[0].setup.memory_of)
    return Prediction(seconds, memory)


def stated_constants(block: Block) -> Constants:
    """Constants of the framework of a block, as its file states them for that release."""
    return framework_of(block.framework).on(block.family, *block.formats, release=block.release)


def peak_memory(step: Step, tier: str, stage: str = "fullest") -> Array | float:
    """Memory of the fullest stage, of the ``first``, or only its states and activations (``tensors``) [B]."""
    totals: Array | float = 0.0
    for name, lines in step.ledgers.items():
        if stage == "first" and name != "first":
            continue
        total: Any = 0.0
        for entry in lines:
            if entry.tier == tier and (stage != "tensors" or entry.name in TENSORS):
                total = total + entry.bytes
        totals = np.maximum(totals, total)
    return totals
