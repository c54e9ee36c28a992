"""Most requests of a replica whose passes mix prompts and decodes, or alternate."""

from __future__ import annotations

from functools import cache

import numpy as np

from perfmodel.api import Request, load, plan_columns, settings_of
from perfmodel.calibration.claims.run import Run
from perfmodel.insight.setting import Question, Setting
from perfmodel.phases.iteration import Iteration
from perfmodel.solver.problems import ServingProblem
from perfmodel.solver.search import search

__all__ = ["convexity", "most_requests", "over_alternating"]

PASS_TOKENS = np.arange(32.0, 4096.0, 32.0)


def _setting(run: Run, mixed: float) -> tuple[Setting, ServingProblem]:
    asked = run.claim.common
    question = Question(pinned=dict(asked.columns))
    request = Request(
        str(asked.model), str(asked.hw), asked.workload, question, None, asked.workload_changes, asked.framework
    )
    setting = settings_of(request, *load(request))[0]
    problem = setting.problem
    if not isinstance(problem, ServingProblem):
        raise TypeError("a service is needed")
    problem.framework = {**problem.framework, "mixed_batches": float(mixed)}
    return setting, problem


@cache
def most_requests(run: Run, mixed: float = 1.0) -> float:
    """Requests per second of a replica at its best batch."""
    setting, problem = _setting(run, mixed)
    best = search(setting.space, problem).best[0].plan
    return float(problem.evaluate(best).rate)


def over_alternating(run: Run) -> float:
    """Requests per second of mixing over alternating passes."""
    return most_requests(run, 1.0) / most_requests(run, 0.0)


def convexity(run: Run) -> float:
    """Largest second difference of tokens per second over the tokens of a pass, over the speed of the largest."""
    setting, problem = _setting(run, 1.0)
    x = plan_columns(setting, run.claim.common.columns, None)
    model = Iteration(x, problem.techniques, problem.situation, problem.machine, problem.network, problem.framework)
    ones = np.ones_like(PASS_TOKENS)
    speed = PASS_TOKENS / np.asarray(model.mixed(PASS_TOKENS, ones, 0.0 * ones), dtype=float)
    return float(np.max(np.diff(speed, 2)) / speed[-1])
