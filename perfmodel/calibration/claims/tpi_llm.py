"""Links between edge devices, the slot rule on the published times of four laptops, and the ledger of an fp32 model."""

from __future__ import annotations

from perfmodel.calibration.claims.run import Run
from perfmodel.network.build import build_network
from perfmodel.network.collectives import point_to_point
from perfmodel.network.topology import Group
from perfmodel.operators.bounds.collectives import ring_link_latency, star_link_latency, tree_link_latency
from perfmodel.phases.compose import Serial, Slot
from perfmodel.specs.system import load_system
from perfmodel.techniques.base import Term

__all__ = ["data", "hidden", "link_latencies", "peak"]

PATH = 4.0
"""Links between two devices."""
OWN = 2.0
"""Of them those that belong to the two devices."""
LAPTOPS = {"attention": 11.0, "feed-forward": 17.0, "all-reduce": 14.0}
DRIVES = {"attention": 18.0, "feed-forward": 30.0}
"""Times per block on four laptops, Llama 2 7B with p = 0.25 and a window of 4 [ms]."""


def link_latencies(run: Run, algorithm: str) -> float:
    """Link latency of an all-reduce over the devices of the machine, in latencies of one link."""
    system = load_system(str(run.asked().hw))
    devices = system.cluster.nodes.value
    link = build_network(system.cluster).levels[-1].latency / PATH
    found = {
        "star": star_link_latency(PATH, link),
        "tree": tree_link_latency(2.0, PATH, link),
        "ring": ring_link_latency(devices, PATH, link),
    }
    return float(found[algorithm] / link)


def data(run: Run, hidden: int) -> float:
    """Transfer of a hidden state to the master and back, over the devices' own links one after the other [ms]."""
    network = build_network(load_system(str(run.asked().hw)).cluster)
    pair = Group((2.0,))
    once = point_to_point(network, pair, 4.0 * hidden) - point_to_point(network, pair, 0.0)
    return float(2.0 * OWN * once) * 1e3


def _slot(computed: list[str], read: list[str]) -> Slot:
    """Blocks computed one after the other while the drive reads the next ones."""
    busy = [Term(name, "layer", "compute", LAPTOPS[name]) for name in computed]
    drive = [Term(f"{name} from drive", "layer", "storage", DRIVES[name], "storage", prefetch=True) for name in read]
    return Slot((*busy, *drive))


def hidden(run: Run, *, by_block: bool) -> float:
    """1 where reading the next weights never lengthens a layer, block by block or over both blocks."""
    del run
    whole = _slot(["attention", "all-reduce", "feed-forward", "all-reduce"], ["attention", "feed-forward"])
    first = _slot(["attention", "all-reduce"], ["feed-forward"])
    second = _slot(["feed-forward", "all-reduce"], ["attention"])
    tree = Serial((first, second)) if by_block else whole
    computing = LAPTOPS["attention"] + LAPTOPS["feed-forward"] + 2.0 * LAPTOPS["all-reduce"]
    return float(tree.elapsed() <= computing)


def peak(run: Run, devices: int) -> float:
    """Weights of Llama 2 7B in fp32 on the master of so many devices, twice those of the plan's 16 bits [GB]."""
    asked = run.asked().model_copy(update={"columns": {"batch": 1, "tp": devices}})
    found = run.estimate(asked)
    weights = sum(line.bytes for line in found.plan.ledgers[0].lines if line.name == "weights")
    ends = 2.0 * found.model.architecture.embedding_parameters * 2.0
    return 2.0 * (weights + ends * (1.0 - 1.0 / devices)) / 1e9
