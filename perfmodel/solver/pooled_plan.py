"""A pair of pools as a plan with everything known about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from perfmodel.machine.power import Shares, average_power
from perfmodel.serving.moments import Moments
from perfmodel.serving.steady import Replica
from perfmodel.solver.evaluate import describe_plan
from perfmodel.solver.pooled import Pair, PoolProblem
from perfmodel.solver.result import EvaluatedPlan
from perfmodel.solver.running import device_power, headroom, plan_power, serving_power
from perfmodel.techniques.settled import Plan

__all__ = ["evaluate_lone", "evaluate_pair"]


def evaluate_pair(problems: Sequence[PoolProblem], pair: Pair) -> EvaluatedPlan:
    """Both pools with their terms and ledgers, and the service that they make."""
    replicas = [problem.evaluate(x) for problem, x in zip(problems, pair.plans, strict=True)]
    pools: dict[str, EvaluatedPlan] = {}
    for problem, x, replica, count in zip(problems, pair.plans, replicas, pair.replicas, strict=True):
        pools[problem.pool] = _pool(problem, x, replica, count, pair.rate * problem.peak)
    prefill, decode = pools["prefill"], pools["decode"]
    columns = {f"{name}.{column}": v for name, pool in pools.items() for column, v in pool.columns.items()}
    power = {n: sum((pool.power or {}).get(n, 0.0) for pool in pools.values()) for n in decode.power or {}}
    ledgers = tuple(
        ledger._replace(stage=name if ledger.stage == "only" else f"{name} {ledger.stage}")
        for name, pool in pools.items()
        for ledger in pool.ledgers
    )
    return replace(
        decode,
        columns=columns,
        summary=("prefill and decode on pools of their own",),
        devices=pair.devices,
        seconds=pair.request.tpot.mean,
        metrics=_metrics(problems, pair, pools, replicas),
        ledgers=ledgers,
        quality=_worse(prefill.quality, decode.quality),
        constraints={**(prefill.constraints or {}), **(decode.constraints or {}), **pair.ratios},
        extra_terms={"prefill": prefill.terms},
        power=power,
        pools=pools,
    )


def evaluate_lone(problem: PoolProblem, x: Plan) -> EvaluatedPlan:
    """One replica of a pool, at its full load."""
    replica = problem.evaluate(x)
    return _pool(problem, x, replica, 1, float(replica.rate))


def _worse(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else max(a, b)


def _load(replica: Replica, count: int, rate: float) -> float:
    """Share of what the replicas of a pool carry that the service asks of them [1]."""
    return min(rate / (count * float(replica.rate)), 1.0)


def _pool(problem: PoolProblem, x: Plan, replica: Replica, count: int, rate: float) -> EvaluatedPlan:
    """One pool, all its replicas."""
    machine, load = problem.machine, _load(replica, count, rate)
    devices = round(float(replica.devices)) * count
    shares = serving_power(machine, replica, load)
    node = replica.prefill if problem.pool == "prefill" else replica.decode
    metrics: dict[str, float | None] = {
        "replicas": float(count),
        "devices_per_replica": float(replica.devices),
        "batch_per_replica": float(replica.settled.batch * replica.settled.split("batch")),
        "requests_per_second_at_most": count * float(replica.rate),
        "load": load * float(replica.busy),
    }
    found = describe_plan(problem, x, replica.settled, node, replica.ledgers, replica.ratios)
    seconds = float(replica.ttft) if problem.pool == "prefill" else float(replica.tpot)
    return replace(found, devices=devices, seconds=seconds, metrics=metrics, power=plan_power(machine, shares, devices))


def _metrics(
    problems: Sequence[PoolProblem], pair: Pair, pools: dict[str, EvaluatedPlan], replicas: Sequence[Replica]
) -> dict[str, float | None]:
    """What a user asks for, of the whole service."""
    workload, machine, request = problems[0].situation.workload, problems[0].machine, pair.request
    made, read = pair.rate * workload.output, pair.rate * workload.prompt
    watts = [
        float(device_power(machine, serving_power(machine, r, _load(r, n, pair.rate)))) * pools[p.pool].devices
        for p, r, n in zip(problems, replicas, pair.replicas, strict=True)
    ]
    price = machine.price
    paid = [None if price is None else price * pools[p.pool].devices * 1e6 for p in problems]
    whole = None if price is None else price * pair.devices / made * 1e6
    first, second = (pools[p.pool].metrics for p in problems)
    latencies = {"ttft": request.ttft, "tpot": request.tpot, "e2e": request.e2e}
    return {
        **{f"{n}_seconds": m.mean for n, m in latencies.items()},
        "pass_seconds": pools["decode"].timed_seconds,
        "tokens_per_second_per_user": 1.0 / request.tpot.mean,
        "output_tokens_per_second_per_device": made / pair.devices,
        "output_tokens_per_second": made,
        "total_tokens_per_second_per_device": (made + read) / pair.devices,
        "requests_per_second": pair.rate,
        "prefill_replicas": first["replicas"],
        "decode_replicas": second["replicas"],
        "devices_per_prefill_replica": first["devices_per_replica"],
        "devices_per_decode_replica": second["devices_per_replica"],
        "batch_per_replica": second["batch_per_replica"],
        "prefill_load": first["load"],
        "decode_load": second["load"],
        "hand_over_seconds": pair.moved,
        "prefill_share": pools["prefill"].devices / pair.devices,
        "usd_per_million_output_tokens": whole,
        "usd_per_million_input_tokens": None if paid[0] is None else paid[0] / read,
        "usd_per_million_generated_tokens": None if paid[1] is None else paid[1] / made,
        "joules_per_output_token": sum(watts) / made,
        "joules_per_input_token": watts[0] / read,
        "joules_per_generated_token": watts[1] / made,
        **_percentiles(latencies),
        "tbt_p99_seconds": request.gap,
        "average_power_kw": sum(watts) / 1e3,
        **headroom(machine, pair.devices, _peak(problems, pair, replicas)),
    }


def _percentiles(latencies: dict[str, Moments]) -> dict[str, float | None]:
    return {
        f"{name}_p{share}_seconds": float(moments.percentile(share))
        for name, moments in latencies.items()
        for share in (50, 90, 95, 99)
    }


def _peak(problems: Sequence[PoolProblem], pair: Pair, replicas: Sequence[Replica]) -> float:
    """Mean power per device while every replica of both pools computes [W]."""
    draw = problems[0].machine.main.draw
    total = 0.0
    for problem, replica, count in zip(problems, replicas, pair.replicas, strict=True):
        node = replica.prefill if problem.pool == "prefill" else replica.decode
        drawn: Shares = average_power(draw, node.use(), max(float(node.elapsed()), 1e-30))
        total += float(drawn.total) * float(replica.devices) * count
    return total / pair.devices
