"""Metric and log of outages of Postgres, S3 and the spool's disk."""

import time
from typing import Final

from prometheus_client import Counter

from domain.errors import StorageUnavailable
from telemetry.logs import get_logger

log = get_logger(__name__)

_QUIET_SECONDS: Final = 10.0
"""The shortest interval between log lines about a component: an outage refuses every call."""

_unavailable = Counter(
    "dalston_storage_unavailable_total",
    "Calls that were refused and steps that wait because a component of the storage is unavailable",
    ["component"],
)
for _component in ("database", "object_store", "disk"):
    _unavailable.labels(_component)
_reported_at: dict[str, float] = {}


def note_outage(error: StorageUnavailable, doing: str) -> None:
    """Counts and logs an operation that is refused or waits, with the unavailable component.

    Args:
        doing: the operation, the name of a method or a step. Nothing private.
    """
    _unavailable.labels(error.component).inc()
    now = time.monotonic()
    if now - _reported_at.get(error.component, float("-inf")) < _QUIET_SECONDS:
        return
    _reported_at[error.component] = now
    log.warning("a component of the storage is unavailable", component=error.component, doing=doing, reason=str(error))
