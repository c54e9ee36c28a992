"""perfmodel: how fast, how much memory, how much money, and why, for any AI machine that can be described."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perfmodel.api import Answers, Comparison, Estimate, estimate, plan
    from perfmodel.contexts import long_context
    from perfmodel.errors import Conflict, PerfmodelError, SpecError, UnknownName
    from perfmodel.imaging import image_estimate, images
    from perfmodel.studies import assign_sequences, fleet, roofline

__all__ = [
    "Answers",
    "Comparison",
    "Conflict",
    "Estimate",
    "PerfmodelError",
    "SpecError",
    "UnknownName",
    "assign_sequences",
    "estimate",
    "fleet",
    "image_estimate",
    "images",
    "long_context",
    "plan",
    "roofline",
]
__version__ = "0.1.0"

_HOME = {name: "perfmodel.errors" for name in ("Conflict", "PerfmodelError", "SpecError", "UnknownName")}
_HOME |= {name: "perfmodel.studies" for name in ("assign_sequences", "fleet", "roofline")}
_HOME |= {name: "perfmodel.imaging" for name in ("image_estimate", "images")}
_HOME["long_context"] = "perfmodel.contexts"


def __getattr__(name: str) -> Any:
    """Import the public names on first use: ``import perfmodel`` stays instant."""
    if name not in __all__:
        raise AttributeError(f"module 'perfmodel' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME.get(name, "perfmodel.api")), name)
