"""Values a thousand times off their class are refused, and facts that contradict each other."""

from __future__ import annotations

from collections.abc import Mapping

from perfmodel.specs.hardware import Cluster, Device
from perfmodel.specs.yamlfile import Document

__all__ = ["check_cluster", "check_device"]


def check_device(device: Device, document: Document) -> None:
    """Raise ``SpecError`` for the first value that cannot be true."""


def check_cluster(cluster: Cluster, document: Document, accelerator: Device, engines: Mapping[str, Device]) -> None:
    """Raise ``SpecError`` for the first value that cannot be true."""
