"""What the operator is told when a part of the storage does not do its part."""

import time
from typing import Final

from prometheus_client import Counter

from domain.errors import StorageUnavailable
from telemetry.logs import get_logger

log = get_logger(__name__)

_QUIET_SECONDS: Final = 10.0
"""How long nothing more is logged of a part after a line about it: an outage refuses every call."""

_unavailable = Counter(
    "dalston_storage_unavailable_total",
    "Calls that were refused and steps that wait because a part of the storage does not do its part",
    ["component"],
)
for _component in ("database", "object_store", "disk"):
    _unavailable.labels(_component)
_reported_at: dict[str, float] = {}


def note_outage(error: StorageUnavailable, doing: str) -> None:
    """Counts and logs that something is refused or waits; names the part of the storage that it waits for.

    Args:
        doing: what is refused or waits, without anything private: the name of a method or a step.
    """
    _unavailable.labels(error.component).inc()
    now = time.monotonic()
    if now - _reported_at.get(error.component, float("-inf")) < _QUIET_SECONDS:
        return
    _reported_at[error.component] = now
    log.warning("a part of the storage is not available", component=error.component, doing=doing, reason=str(error))
