"""Reads `StoredSession` from a row of `realtime_sessions`."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final

from persistence.postgres.tables import realtime_sessions
from persistence.session_values import StoredSession

_NAMES: Final = tuple(field.name for field in fields(StoredSession))
_COMPUTED: Final = "is_deleted"

STORED_SESSION_COLUMNS: Final = (
    *(realtime_sessions.c[name] for name in _NAMES if name != _COMPUTED),
    realtime_sessions.c.deleted_at.is_not(None).label(_COMPUTED),
)
"""What `stored_session` reads, for a query of `realtime_sessions`."""

STORED_SESSION_SQL: Final = ", ".join(
    [*(f"s.{name}" for name in _NAMES if name != _COMPUTED), f"s.deleted_at IS NOT NULL AS {_COMPUTED}"]
)
"""The same in SQL, of the table `s`."""


def stored_session(row: Mapping[Any, Any]) -> StoredSession:
    """The value of a row that has these columns, and perhaps others."""
    return StoredSession(**{name: row[name] for name in _NAMES})
