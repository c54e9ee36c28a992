"""Robust least squares for kernel constants, with priors that pool what devices and frameworks share.

The residual of a row is ``ln(predicted / measured)`` under a soft absolute loss; a parameter is the logarithm of a
constant inside hard bounds, with a Gaussian prior. Three stages, each the prior of the next: all groups of a format
and device family; one framework over the devices of the family; one framework on one device. Groups with few rows
keep the constants of the stage before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perfmodel.calibration.model import Array, Group, Key, OperatorModel, Parameter
from perfmodel.calibration.operators import model_named
from perfmodel.calibration.store import REGIMES, Fitted, Store
from perfmodel.specs.calibration import POOLED, CalibrationGroup

__all__ = ["Fit", "Pool", "fit_groups", "fit_one", "pools_of", "predicted"]

Pool = tuple[str, str, str]
"""Operator class, format and family of groups that share a first fit."""

SCALE = 0.1
"""Relative error at which the loss turns from square to absolute; also the weight of a row against the prior."""
FEW = 5
"""Groups with fewer rows keep the constants of their pool."""
TIGHTER = 0.7
"""Prior of one device around its framework, relative to that of a family around the first guess."""
STEP = 1e-4
"""Relative step of the numerical derivative."""
BLOCK = 8192
"""Rows predicted at a time."""
_COVERED = 0.80
_INFORMED = 0.25
"""A direction is determined when data shrink its prior variance below this share."""


class Fit(NamedTuple):
    """Result of one fit.

    Parameters
    ----------
    values : constants by name.
    residuals : ln(predicted / measured), in the order of the groups' rows.
    undetermined : constants that the data leave to the prior.
    """

    values: dict[str, float]
    residuals: Array
    undetermined: tuple[str, ...] = ()


def predicted(model: OperatorModel, group: Group, values: Mapping[str, Any]) -> Array:
    """Predicted seconds of the rows of a group, in blocks that stay in the cache of the processor."""
    subject, constants, rows = model.subject.build(group.key.device), model.subject.constants(values), len(group)
    parts = []
    for start in range(0, rows, BLOCK):
        columns = {name: values[start : start + BLOCK] for name, values in group.columns.items()}
        parts.append(np.asarray(model.predict(columns, subject, constants, group.key.format), dtype=float))
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)


def _values(parameters: Sequence[Parameter], theta: Array, fixed: Mapping[str, float]) -> dict[str, Any]:
    """Constants of one or, with a trailing axis for the rows, of many trial points."""
    values = np.exp(theta)
    if values.ndim == 1:
        return {**fixed, **{p.name: float(v) for p, v in zip(parameters, values, strict=True)}}
    return {**fixed, **{p.name: values[:, i, None] for i, p in enumerate(parameters)}}


def fit_one(
    model: OperatorModel,
    groups: Sequence[Group],
    parameters: Sequence[Parameter],
    centre: Array,
    sigma: Array,
    fixed: Sequence[Mapping[str, float]] = (),
) -> Fit:
    """Fit one set of constants to the rows of all ``groups``.

    Parameters
    ----------
    parameters : what may move.
    centre, sigma : prior of the logarithms.
    fixed : constants that stay as they are, group by group.
    """
    from scipy.optimize import least_squares

    measured = [np.log(g.seconds) for g in groups]
    count = sum(map(len, measured))
    low, high = np.log([p.low for p in parameters]), np.log([p.high for p in parameters])
    start = np.clip(centre, low + 1e-6, high - 1e-6)

    def logs(theta: Array) -> Array:
        parts = [
            np.log(predicted(model, g, _values(parameters, theta, f))) - m
            for g, m, f in zip(groups, measured, fixed or [{}] * len(groups), strict=True)
        ]
        return np.concatenate(parts, axis=-1)

    def residuals(theta: Array) -> Array:
        return np.concatenate([logs(theta) / SCALE, (theta - centre) / sigma])

    def jacobian(theta: Array) -> Array:
        points = np.vstack([theta, theta + STEP * np.eye(len(theta))])
        values = logs(points)
        slope = (values[1:] - values[0]).T / STEP
        return np.vstack([slope / SCALE, np.diag(1.0 / sigma)])

    def loss(z: Array) -> Array:
        data = np.arange(len(z)) < count
        root = np.sqrt(1.0 + np.where(data, z, 0.0))
        return np.stack(
            [
                np.where(data, 2.0 * (root - 1.0), z),
                np.where(data, 1.0 / root, 1.0),
                np.where(data, -0.5 / root**3, 0.0),
            ]
        )

    found = least_squares(residuals, start, jac=jacobian, bounds=(low, high), loss=loss, max_nfev=60, ftol=1e-5)
    values = {p.name: float(v) for p, v in zip(parameters, np.exp(found.x), strict=True)}
    return Fit(values, logs(found.x), undetermined(parameters, jacobian(found.x)[:count], sigma))


def undetermined(parameters: Sequence[Parameter], slope: Array, sigma: Array) -> tuple[str, ...]:
    """Constants that lie mostly in directions in which the data say less than the prior (by SVD of the slopes)."""
    _, values, directions = np.linalg.svd(slope * sigma, full_matrices=False)
    share_left = 1.0 / (1.0 + values**2)
    variance = 1.0 - np.sum(directions**2, axis=0) + (directions**2).T @ share_left
    return tuple(p.name for p, v in zip(parameters, variance, strict=True) if v > 1.0 - _INFORMED)


class _Prior(NamedTuple):
    """Centre and spread of ln constants by name."""

    centre: dict[str, float]
    scale: float

    def of(self, parameters: Sequence[Parameter]) -> tuple[Array, Array]:
        values = [self.centre.get(p.name, 0.0) or p.default for p in parameters]  # zero: the class states none
        return np.log(values), np.array([p.sigma * self.scale for p in parameters])


def fit_groups(groups: Iterable[Group], *, date: str = "", folds: int = 0, known: Store | None = None) -> list[Fitted]:
    """Fit every group; besides, one pooled set per device and format.

    Parameters
    ----------
    date : day of the fit, kept with its constants.
    folds : parts for cross-validation of the intervals; with 0 groups get none.
    known : earlier fits, whose constants are the centre of the first prior.
    """
    fitted: list[Fitted] = []
    for (operator, _, _), members in pools_of(groups).items():
        fitted += _fit_pool(model_named(operator), members, date, folds, known)
    return fitted


def pools_of(groups: Iterable[Group]) -> dict[Pool, list[Group]]:
    """Sort the groups by (operator, format, family): the fit of a pool needs nothing outside it."""
    pools: dict[Pool, list[Group]] = {}
    for group in groups:
        key = group.key
        model = model_named(key.operator)
        pool = (model.subject.family(key.device) or key.device) if model.pooled_over == "family" else ""
        pools.setdefault((key.operator, key.format, pool), []).append(group)
    return pools


def _fit_pool(model: OperatorModel, groups: list[Group], date: str, folds: int, known: Store | None) -> list[Fitted]:
    """All stages for the groups of one format and device family."""
    centre = {} if known is None else known.choose(model, groups[0].key._replace(variant=POOLED, origin="")).values
    first = _Prior(dict(centre), 1.0)
    staged = _stages(model, groups, first)
    left_out = _cross_validated(model, groups, folds, first) if folds else {}
    result = []
    for key, members in _by_key(groups).items():
        fit = staged.fits[key]
        result.append(_record(key, members, fit, left_out.get(key), date))
    for device in sorted({g.key.device for g in groups}):
        own = [g for g in groups if g.key.device == device]
        key = own[0].key._replace(variant=POOLED, origin="")
        fit = _pooled(model, own, _Prior(staged.base.values, TIGHTER), staged.artefacts)
        result.append(_record(key, own, fit, _in_sample(own, fit), date))
    return result


def _in_sample(groups: Sequence[Group], fit: Fit) -> Array:
    """ln(measured / predicted) and the predicted time of the fitted rows."""
    measured = np.concatenate([g.seconds for g in groups])
    return np.stack([-fit.residuals, measured * np.exp(fit.residuals)])


def _by_key(groups: Iterable[Group]) -> dict[Key, list[Group]]:
    found: dict[Key, list[Group]] = {}
    for group in groups:
        found.setdefault(group.key, []).append(group)
    return found


def _pooled(
    model: OperatorModel, groups: list[Group], prior: _Prior, artefacts: Mapping[tuple[str, str], dict[str, float]]
) -> Fit:
    """One set of constants for several frameworks; each keeps the artefacts of its own benchmark."""
    parameters = [p for p in _union(model, groups) if not p.artefact]
    fixed = [artefacts.get((g.key.variant, g.key.origin), {}) for g in groups]
    return fit_one(model, groups, parameters, *prior.of(parameters), fixed)


def _union(model: OperatorModel, groups: Sequence[Group]) -> tuple[Parameter, ...]:
    """Parameters that all of the groups have."""
    lists = [model.parameters(key) for key in _by_key(groups)]
    common = set.intersection(*({p.name for p in ps} for ps in lists))
    return tuple(p for p in lists[0] if p.name in common)


class _Stages(NamedTuple):
    """Fits of a family, of every key, and the artefacts of every framework's benchmark."""

    base: Fit
    fits: dict[Key, Fit]
    artefacts: dict[tuple[str, str], dict[str, float]]


def _stages(model: OperatorModel, groups: list[Group], first: _Prior) -> _Stages:
    """Fit family, framework, then single groups.

    The family is fitted twice: its first fit cannot know yet what is an artefact of one framework's benchmark.
    """
    variants: dict[tuple[str, str], list[Group]] = {}
    for group in groups:
        variants.setdefault((group.key.variant, group.key.origin), []).append(group)
    parameters = _union(model, groups)
    rough = fit_one(model, groups, parameters, *first.of(parameters))
    prior = _Prior({**first.centre, **rough.values}, 1.0)
    middles = {name: _variant(model, members, prior) for name, members in variants.items()}
    artefacts = {}
    for name, members in variants.items():
        names = {p.name for p in model.parameters(members[0].key) if p.artefact}
        artefacts[name] = {n: v for n, v in middles[name].items() if n in names}
    base = _pooled(model, groups, prior, artefacts)
    fits = {}
    for name, members in variants.items():
        known = {**prior.centre, **base.values, **artefacts[name]}
        several = len(_by_key(members)) > 1
        centre = _Prior(_variant(model, members, _Prior(known, 1.0)), TIGHTER) if several else _Prior(known, 1.0)
        for key, own in _by_key(members).items():
            fits[key] = _own(model, own, model.parameters(key), centre)
    return _Stages(base, fits, artefacts)


def _variant(model: OperatorModel, groups: list[Group], prior: _Prior) -> dict[str, float]:
    """Constants of one framework on all devices of the family; those of the family if there are few rows."""
    parameters = model.parameters(groups[0].key)
    if sum(map(len, groups)) < FEW:
        centre, _ = prior.of(parameters)
        return {p.name: float(v) for p, v in zip(parameters, np.exp(centre), strict=True)}
    return {**prior.centre, **fit_one(model, groups, parameters, *prior.of(parameters)).values}


def _own(model: OperatorModel, groups: list[Group], parameters: Sequence[Parameter], prior: _Prior) -> Fit:
    centre, sigma = prior.of(parameters)
    if sum(map(len, groups)) >= FEW:
        return fit_one(model, groups, parameters, centre, sigma)
    values = {p.name: float(v) for p, v in zip(parameters, np.exp(centre), strict=True)}
    logs = [np.log(predicted(model, g, values) / g.seconds) for g in groups]
    return Fit(values, np.concatenate(logs), tuple(values))


def _cross_validated(model: OperatorModel, groups: list[Group], folds: int, first: _Prior) -> dict[Key, Array]:
    """ln(measured / predicted) of rows left out of the fit, with the predicted time, by key: shape (2, rows)."""
    found: dict[Key, list[Array]] = {}
    parts = [shape_hash(g) % folds for g in groups]
    for fold in range(folds):
        kept = [g.take(p != fold) for g, p in zip(groups, parts, strict=True)]
        kept = [g for g in kept if len(g)]
        fits = _stages(model, kept, first).fits if kept else {}
        for group, part in zip(groups, parts, strict=True):
            rest = group.take(part == fold)
            fit = fits.get(group.key)
            if fit is None or not len(rest):
                continue
            seconds = predicted(model, rest, fit.values)
            found.setdefault(group.key, []).append(np.stack([np.log(rest.seconds / seconds), seconds]))
    return {key: np.concatenate(parts, axis=1) for key, parts in found.items()}


def shape_hash(group: Group) -> NDArray[np.int64]:
    """Reproducible number of every row by its sizes alone, the same on all devices."""
    import zlib

    names = sorted(group.columns)
    table = np.stack([group.columns[n] for n in names], axis=1)
    return np.array([zlib.crc32(row.tobytes()) for row in table], dtype=np.int64)


def _record(key: Key, groups: Sequence[Group], fit: Fit, errors: Array | None, date: str) -> Fitted:
    relative = np.expm1(fit.residuals)
    group = CalibrationGroup(
        operator=key.operator,
        format=key.format,
        variant=key.variant,
        origin=key.origin,
        rows=sum(map(len, groups)),
        date=date,
        median_error=round(float(np.median(np.abs(relative))), 4),
        p90_error=round(float(np.quantile(np.abs(relative), 0.9)), 4),
        mean_error=round(float(np.mean(relative)), 4),
        constants={name: float(f"{value:.4g}") for name, value in fit.values.items()},
        interval={} if errors is None else _interval(errors),
        undetermined=fit.undetermined,
    )
    return Fitted(key.device, model_named(key.operator).subject.family(key.device), group)


def _interval(errors: Array) -> dict[str, tuple[float, float]]:
    """80 % interval by regime, finite-sample corrected; regimes with few rows take that of all rows."""
    logs, seconds = errors
    result, start = {}, 0.0
    for name, end in REGIMES:
        chosen = logs[(seconds >= start) & (seconds < end)]
        start = end
        low, high = _quantiles(chosen if len(chosen) >= FEW else logs)
        result[name] = (round(low, 4), round(high, 4))
    return result


def _quantiles(logs: Array) -> tuple[float, float]:
    """Symmetric conformal interval around the prediction: the quantile of the absolute error [1]_.

    References
    ----------
    .. [1] J. Lei et al., "Distribution-free predictive inference for regression", JASA 113 (2018), arXiv:1604.04173.
    """
    rank = min(1.0, _COVERED * (1.0 + 1.0 / len(logs)))
    half = float(np.quantile(np.abs(logs), rank))
    return -half, half
