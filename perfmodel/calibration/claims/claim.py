"""What a claim file says."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from perfmodel.specs.facts import Spec
from perfmodel.specs.load import parse
from perfmodel.specs.yamlfile import read

__all__ = ["Asked", "Claim", "Setting", "load_claim"]


class Asked(Spec):
    """Arguments of one evaluation; what is left out comes from the claim's ``common``."""

    model: str | None = None
    hw: str | None = None
    workload: str | None = None
    framework: str | None = None
    devices: int | None = None
    use: tuple[str, ...] = ()
    columns: dict[str, Any] = Field(default_factory=dict)
    """Plan columns; ``all`` is the group of every replica."""
    workload_changes: dict[str, Any] = Field(default_factory=dict)
    changes: dict[str, Any] = Field(default_factory=dict)

    def over(self, common: Asked) -> Asked:
        """These arguments where given, else the common ones; mappings are merged key by key."""
        given: dict[str, Any] = {}
        for name in type(self).model_fields:
            mine, shared = getattr(self, name), getattr(common, name)
            given[name] = {**shared, **mine} if isinstance(mine, dict) else mine or shared
        return Asked(**given)


class Setting(Spec):
    """One published number, and what predicts it: a metric, a ratio of two, or a function of the file beside."""

    setting: str
    published: float
    unit: str = ""
    metric: str | None = None
    """``PLAN.METRIC``."""
    ratio: tuple[str, str] | None = None
    """``[PLAN.METRIC, PLAN.METRIC]``: the first over the second."""
    function: str | None = None
    """Name of a function ``f(run, **arguments) -> float`` in the Python file of the same name."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """What that function is given beside the run."""
    side: Literal["both", "at_most", "at_least"] = "both"
    """Whether the published number is met from both sides, or is the most or the least that may be predicted."""
    relative: float | None = None
    """Largest relative difference that holds [1]."""
    absolute: float | None = None
    """Largest difference that holds, in the unit of the number."""
    read_in: str | None = None
    note: str = ""

    @model_validator(mode="after")
    def _one_way(self) -> Setting:
        if sum(x is not None for x in (self.metric, self.ratio, self.function)) != 1:
            raise ValueError("write one of `metric`, `ratio` and `function`")
        if self.arguments and self.function is None:
            raise ValueError("`arguments` belong to a `function`")
        if (self.relative is None) == (self.absolute is None):
            raise ValueError("write one of `relative` and `absolute`")
        return self

    @property
    def tolerance(self) -> float:
        """Largest relative difference that holds [1]; the absolute one where 0 was published."""
        if self.relative is not None:
            return self.relative
        return (self.absolute or 0.0) / (abs(self.published) or 1.0)

    def holds(self, predicted: float) -> bool:
        """Whether a prediction lies within the tolerance of the published number, on the side that is asked for."""
        slack = (self.absolute if self.relative is None else self.relative * abs(self.published)) or 0.0
        above = predicted - self.published
        too_high, too_low = above > slack + 1e-12, -above > slack + 1e-12
        if predicted != predicted:
            return False
        return not (too_high and self.side != "at_least") and not (too_low and self.side != "at_most")


class Claim(Spec):
    """A published result."""

    id: str
    title: str
    source: str
    machine: str
    read_in: str
    """Where the numbers were read; a setting may name another place."""
    acceptance: str
    """What has to be reproduced, in words."""
    assumptions: tuple[str, ...] = ()
    """What the source leaves open, and what was taken."""
    notes: str = ""
    common: Asked = Asked()
    plans: dict[str, Asked] = Field(default_factory=dict)
    settings: tuple[Setting, ...]


def load_claim(path: Path) -> Claim:
    """Return the claim of a file.

    Raises
    ------
    SpecError
        If the file is not a claim, or its id is not its name.
    """
    document = read(path)
    claim = parse(Claim, document)
    if claim.id != path.stem:
        raise document.error("the id must be the name of the file", ("id",), found=claim.id, allowed=path.stem)
    return claim
