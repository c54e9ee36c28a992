"""Prefill and decode together or apart: both planned, the better one chosen, the other a rival."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from perfmodel.insight.confidence import Draws, draw
from perfmodel.insight.kernels import kernels_in_use
from perfmodel.insight.links import network_spread
from perfmodel.insight.setting import Setting
from perfmodel.serving.open_pools import POOLS, Pool
from perfmodel.solver.pooled import Pair, Pairs, PoolProblem, pool_problems, pool_space
from perfmodel.solver.pooled_plan import evaluate_lone, evaluate_pair
from perfmodel.solver.problems import ServingProblem
from perfmodel.solver.result import Answer, EvaluatedPlan, Rejected, Rival
from perfmodel.solver.search import search
from perfmodel.solver.space import Space, build_space

__all__ = ["beside_pools"]

WORTH_IT = 0.99
"""Cost of two pools over that of replicas that do both, up to which they are worth a second kind of replica [1]."""


def beside_pools(setting: Setting, found: Answer, score: float | None) -> Answer:
    """The answer with the other arrangement beside it, or in its place where that is better.

    Parameters
    ----------
    setting : the question; pools are planned where requests come at random and a machine has room for both.
    found : the answer with prefill and decode on the same replicas.
    score : of its best plan.
    """
    problem, wanted = setting.problem, setting.question.pools
    if not isinstance(problem, ServingProblem) or wanted == "together":
        return found
    if wanted == "either" and (problem.situation.devices < 2 or not problem.situation.workload.random_arrivals):
        return found
    problems = pool_problems(problem)
    spaces = [_space(setting, pool) for pool in POOLS]
    pairs = Pairs(problems, spaces)
    pair = pairs.best
    if pair is None:
        return found if wanted == "either" else _no_pair(found, problems, spaces, pairs)
    plan = evaluate_pair(problems, pair)
    if found.best is None or score is None:
        return _chosen(found, plan, pair, None, _odds(setting, plan, pair, None))
    together = found.best
    ratio = pair.score / score
    if ratio > WORTH_IT and wanted == "either":
        return replace(found, other_arrangement=Rival(plan, ratio, _losses(together, plan)))
    odds = _odds(setting, plan, pair, (together, score))
    return _chosen(found, plan, pair, Rival(together, 1.0 / ratio, _losses(plan, together)), odds)


def _odds(setting: Setting, plan: EvaluatedPlan, pair: Pair, other: tuple[EvaluatedPlan, float] | None) -> Draws:
    """Draws of the constants: the interval of the time per token, and how often pools cost less than the other way.

    Devices of a pool are taken to scale with the time of its passes.
    """
    uses, others = (kernels_in_use(setting, pair.plans[i], pool) for i, pool in ((1, "decode"), (0, "prefill")))
    spread = network_spread(setting.system)
    pools = plan.pools or {}
    decode = replace(plan, pools=None, seconds=plan.timed_seconds / plan.gain)
    interval = draw([decode], [1.0], uses, network_spread=spread).interval
    low, high = (bound / decode.seconds * plan.seconds for bound in interval[:2])
    interval = interval._replace(low=low, high=high)
    if other is None:
        return Draws(interval, None, None)
    whole = decode.seconds * plan.devices / pools["decode"].devices
    both = [replace(decode, seconds=whole), other[0]]
    return draw(both, [pair.score, other[1]], uses, others, network_spread=spread)._replace(interval=interval)


def _no_pair(found: Answer, problems: Sequence[PoolProblem], spaces: Sequence[Space], pairs: Pairs) -> Answer:
    """No pools of their own: what the nearest pair lacks, or the pool of which no replica keeps its own limits."""
    lonely = [_closest(problems[i], spaces[i]) for i in pairs.empty]
    nearest = tuple(r for r in lonely if r is not None)
    pair = pairs.nearest
    if pair is not None:
        name, ratio = max(pair.ratios.items(), key=lambda item: item[1])
        nearest = (Rejected(name, ratio, evaluate_pair(problems, pair), 1, ""),)
    other = None if found.best is None else Rival(found.best, 1.0, ())
    return replace(found, best=None, rejected=nearest, runners_up=(), possible_with=(), other_arrangement=other)


def _closest(problem: PoolProblem, space: Space) -> Rejected | None:
    """The replica of a pool that comes nearest to its limits."""
    closest = search(space, problem).closest
    if closest is None:
        return None
    ratio, name, candidate = closest
    plan = evaluate_lone(problem, candidate.plan)
    columns = {f"{problem.pool}.{column}": value for column, value in plan.columns.items()}
    return Rejected(name, ratio, replace(plan, columns=columns, summary=(f"a {problem.pool} replica",)), 1, "")


def _space(setting: Setting, pool: Pool) -> Space:
    """The plans of a pool, with what the user holds for it alone."""
    problem = setting.problem
    whole = build_space(problem.techniques, problem.situation, setting.question.pool_pins(pool))
    return pool_space(whole, pool)


def _chosen(found: Answer, plan: EvaluatedPlan, pair: Pair, other: Rival | None, odds: Draws) -> Answer:
    """The answer with pools as its best plan; the search of both counts, the odds are those of the arrangements."""
    plan = replace(plan, interval=odds.interval)
    certificate = found.certificate._replace(
        candidates=found.certificate.candidates + pair.cells, legal=found.certificate.legal + pair.legal,
        runner_up_gap=None if other is None else other.score_ratio - 1.0, win_probability=odds.win_probability,
        regret=odds.regret,
    )  # fmt: skip
    return replace(found, best=plan, other_arrangement=other, runners_up=(), certificate=certificate)


def _losses(best: EvaluatedPlan, plan: EvaluatedPlan) -> tuple[tuple[str, float], ...]:
    """Device seconds of a request that a plan spends more than the best one, by what for; largest first."""
    mine, theirs = _spent(best), _spent(plan)
    more = [(name, theirs[name] - mine[name]) for name in mine if theirs[name] > mine[name]]
    return tuple(sorted(more, key=lambda item: -item[1]))


def _spent(plan: EvaluatedPlan) -> dict[str, float]:
    """Device seconds of a request: computing prompts, decoding, and devices that wait for the load to come."""
    m = plan.metrics
    rate = m["requests_per_second"] or 1.0
    whole = plan.devices / rate
    if plan.pools is None:
        size, most = m["devices_per_replica"] or 1.0, m["requests_per_second_at_most"] or rate
        used = (m["replicas"] or 1.0) * size / most
        share = m["prefill_share"] or 0.0
        return {"prefill": used * share, "decode": used * (1.0 - share), "unused devices": max(whole - used, 0.0)}
    parts = {name: pool.devices * (pool.metrics["load"] or 0.0) / rate for name, pool in plan.pools.items()}
    return {**parts, "unused devices": max(whole - sum(parts.values()), 0.0)}
