"""What a plan costs to run: power by what draws it, and a training run with its failures and checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from perfmodel.elementwise import Scalar, ceil, is_nothing, maximum, minimum
from perfmodel.machine.build import Machine
from perfmodel.machine.power import Shares, average_power
from perfmodel.machine.reliability import (
    failure_rate,
    goodput,
    optimal_goodput,
    optimal_interval,
)
from perfmodel.phases.training import Step
from perfmodel.serving.steady import Replica
from perfmodel.specs.workload import TrainingWorkload
from perfmodel.units import Bytes, Fraction, Seconds, Watts

__all__ = [
    "Interruptions",
    "device_power",
    "expected_metrics",
    "headroom",
    "interruptions",
    "plan_power",
    "prefill_share",
    "run_metrics",
    "serving_bill",
    "serving_peak",
    "serving_power",
    "stall_share",
    "training_power",
]

HOUR = 3600.0
DEVIATIONS = 3.0
"""Standard deviations above the mean that the power of a fleet of independent replicas is provisioned for."""


def training_power(machine: Machine, step: Step) -> Shares:
    """Average power of one device over a step [W]; the busiest stage stands for all."""
    return average_power(machine.main.draw, step.tree.use(), step.seconds)


def serving_power(machine: Machine, replica: Replica, load: Scalar = 1.0) -> Shares:
    """Average power of one device of a replica in steady state, prefills included, at ``load`` of its rate [W]."""
    share, load = prefill_share(replica), load * replica.busy
    decode = replica.decode.use().scaled(load * (1.0 - share) / replica.pass_seconds)
    prefill = replica.prefill.use().scaled(load * share / maximum(replica.prefill.elapsed(), 1e-30))
    return average_power(machine.main.draw, decode.plus(prefill), 1.0)


def serving_bill(machine: Machine, replica: Replica, rate: float, price: float | None) -> dict[str, float | None]:
    """Money and energy of a token read and of a token made, by the device time that prefills and decode passes take.

    Input tokens times their price and generated ones times theirs add up to the bill, and so do the energies.

    Parameters
    ----------
    machine, replica : what serves.
    rate : requests per second of the replica.
    price : of a device [USD/s], ``None`` where unknown.
    """
    workload = replica.settled.situation.workload
    share = float(prefill_share(replica))
    load = min(rate / float(replica.rate), 1.0)
    prefill, decode = replica.prefill, replica.decode
    draws = [
        float(average_power(machine.main.draw, p.use(), maximum(p.elapsed(), 1e-30)).total) for p in (prefill, decode)
    ]
    parts = (share * draws[0], (1.0 - share) * draws[1])
    power = float(device_power(machine, serving_power(machine, replica, load)))
    energy = [power * part / sum(parts) if sum(parts) else 0.0 for part in parts]
    devices = float(replica.devices)
    read, made = devices / (rate * workload.prompt), devices / (rate * workload.output)
    return {
        "usd_per_million_input_tokens": None if price is None else price * share * read * 1e6,
        "usd_per_million_generated_tokens": None if price is None else price * (1.0 - share) * made * 1e6,
        "joules_per_output_token": stated(machine, power * devices / (rate * workload.output)),
        "joules_per_input_token": stated(machine, energy[0] * read),
        "joules_per_generated_token": stated(machine, energy[1] * made),
    }


def stated(machine: Machine, energy: float | None) -> float | None:
    """An energy, ``None`` where the file of the device states no power."""
    return energy if machine.main.draw.limit else None


def prefill_share(replica: Replica) -> Fraction:
    """Share of a device's time that prefills take [1].

    In a closed loop a request spends on prompts its own prefill and what those of the others add to its tokens.
    """
    if replica.prompts is not None:
        return replica.prompts
    s, stalled = replica.settled, stall_share(replica) * replica.tpot
    if replica.tails is not None:
        return stalled / replica.tpot
    own, output = replica.prefill.elapsed() / s.stages, 1.0 * s.situation.workload.output
    return (output * stalled + own) / (output * replica.tpot + own)


def stall_share(replica: Replica) -> Fraction:
    """Share of the time per token in which the prompts of others are computed [1]."""
    decode = replica.pass_seconds / replica.settled.layout.tokens_per_pass
    return maximum(replica.tpot - decode, 0.0) / replica.tpot


def device_power(machine: Machine, shares: Shares) -> Watts:
    """Power of one device with its part of the node and of the facility [W]."""
    return machine.pue * (shares.total + machine.node_power)


def plan_power(machine: Machine, shares: Shares, devices: Scalar) -> Mapping[str, float]:
    """Average power of a plan by what draws it [kW]; the parts add up to all of it."""
    parts = {**shares._asdict(), "node": machine.node_power}
    facility = (machine.pue - 1.0) * (shares.total + machine.node_power)
    return {n: float(w * devices) / 1e3 for n, w in {**parts, "facility": facility}.items()}


class Interruptions(NamedTuple):
    """Failures and checkpoints of a training run. Shares are of the expected time and add up to 1."""

    mtbf_seconds: Seconds
    """Mean time between interruptions of the whole job."""
    checkpoint_bytes: Bytes
    """Weights and optimizer state of the model."""
    write_seconds: Seconds
    """Time that one checkpoint stops the job for."""
    interval_seconds: Seconds
    """Computing time between checkpoints."""
    repair_seconds: Seconds
    """From a failure until the job computes again: detection, restart, reading the checkpoint."""
    goodput: Fraction
    checkpoint_share: Fraction
    repair_share: Fraction
    redo_share: Fraction
    """Work done twice, because it came after the last checkpoint."""
    drain_seconds: Seconds = 0.0
    """From then until the checkpoint is durable, beside training."""

    @property
    def stretch(self) -> Scalar:
        """Expected time over the time without failures and checkpoints [1]."""
        return 1.0 / self.goodput


def interruptions(machine: Machine, step: Step, workload: TrainingWorkload, devices: float) -> Interruptions:
    """Failures and checkpoints of a run on so many devices; the interval is the workload's, or the best.

    A checkpoint that is staged in host memory stops the job for the copy, or for what of it sticks out of the passes;
    the next one waits until the last is written.
    """
    s = step.settled
    rate = failure_rate(machine.failures, devices, ceil(devices / machine.per_node))
    size = s.architecture.parameters * float(s.weights_bytes + s.optimizer_bytes)
    written = size / minimum(machine.file_write[0], machine.file_write[1] * devices)
    read = size / minimum(machine.file_read[0], machine.file_read[1] * devices)
    repair = machine.failures.detection + machine.failures.restart + read
    staged = s.layout.checkpoint_staged
    stall = (1.0 - staged) * written + staged * _copy_seconds(machine, step)
    drain, given = staged * written, workload.checkpoint_interval
    if given is not None:
        every, stall = given, stall + maximum(drain - given, 0.0)
    elif rate == 0.0:
        every = float("inf")
    else:
        every = maximum(optimal_interval(stall, rate), drain)
    if rate == 0.0:
        good = every / (every + stall) if given else 1.0
        return Interruptions(float("inf"), size, stall, every, repair, good, 1.0 - good, 0.0, 0.0, drain)
    if given is None and drain == 0.0:
        good = optimal_goodput(stall, repair, rate)
    else:
        good = goodput(every, stall, repair, rate, drain)
    up = 1.0 / (1.0 + rate * repair)
    writing = good * stall / every
    return Interruptions(1.0 / rate, size, stall, every, repair, good, writing, 1.0 - up, up - good - writing, drain)


def _copy_seconds(machine: Machine, step: Step) -> Seconds:
    """Copy of a device's share of the checkpoint to host memory: what it stops the job for [s].

    Beside the passes of a step, which leave weights and optimizer state as they are, all of it that they last hides.
    """
    layout = step.settled.layout
    if is_nothing(layout.checkpoint_staged):
        return 0.0
    host = machine.engines["host"].bandwidth if "host" in machine.engines else float("inf")
    copied = step.settled.saved_bytes * (1.0 - layout.optimizer_off) / minimum(machine.host_link or host, host)
    return maximum(copied - layout.checkpoint_hidden * step.micro_batches_seconds, 0.0)


def run_metrics(machine: Machine, devices: float, seconds: float, kilowatts: float) -> dict[str, float | None]:
    """Days, hours, energy, money and carbon of a run of ``seconds`` without failures."""
    device_hours, energy = devices * seconds / HOUR, kilowatts * seconds / HOUR / 1e3
    return {
        "run_days": seconds / 86400.0,
        "run_device_hours": device_hours,
        "run_node_hours": device_hours / machine.per_node,
        "run_energy_mwh": stated(machine, energy),
        "run_cost_usd": None if machine.price is None else device_hours * machine.price * HOUR,
        "run_co2_tonnes": stated(machine, None if machine.carbon is None else energy * machine.carbon),
    }


def expected_metrics(
    machine: Machine, devices: float, seconds: float, kilowatts: float, found: Interruptions
) -> dict[str, float | None]:
    """The same with failures and checkpoints; devices that wait for a repair or a checkpoint draw their floor."""
    waiting = (found.repair_share + found.checkpoint_share) * found.stretch
    floor = machine.pue * (machine.main.draw.active + machine.node_power) * devices / 1e3
    whole = run_metrics(machine, devices, seconds * found.stretch, kilowatts)
    energy = (kilowatts * (found.stretch - waiting) + floor * waiting) * seconds / HOUR / 1e3
    whole["run_energy_mwh"] = stated(machine, energy)
    whole["run_co2_tonnes"] = stated(machine, None if machine.carbon is None else energy * machine.carbon)
    expected = {n.replace("run_", "expected_"): float(v) if v is not None else None for n, v in whole.items()}
    running = seconds * found.stretch * (1.0 - found.repair_share)
    failures = running / found.mtbf_seconds
    return {**expected, "goodput": float(found.goodput), "expected_failures": float(failures)}


def serving_peak(machine: Machine, replica: Replica, replicas: float) -> Watts:
    """Power per device that so many independent replicas together hardly ever exceed [W].

    A replica is in a prefill for a share of its time, else in a decode pass; the sum over replicas spreads by the root
    of their number. One replica alone peaks in its prefill.
    """
    draw, share = machine.main.draw, float(prefill_share(replica))
    passes = (replica.decode, replica.prefill)
    low, high = (float(average_power(draw, p.use(), maximum(p.elapsed(), 1e-30)).total) for p in passes)
    mean, spread = low + (high - low) * share, abs(high - low) * (share * (1.0 - share)) ** 0.5
    return min(mean + DEVIATIONS * spread / max(replicas, 1.0) ** 0.5, max(low, high))


def headroom(machine: Machine, devices: float, peak: Watts) -> dict[str, float | None]:
    """Peak and provisioned power, and how many more servers the same provision would carry [1]."""
    provisioned = machine.provisioned + machine.node_power
    drawn = peak + machine.node_power
    return {
        "peak_power_kw": drawn * devices / 1e3,
        "provisioned_power_kw": provisioned * devices / 1e3,
        "power_headroom": provisioned / drawn - 1.0 if drawn else None,
    }
