"""`session.json` of a spooled session: everything needed to finish it without the process that began it. Pure."""

import json
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

from domain.errors import InvalidSessionId
from domain.session import EndReason
from domain.session_id import parse_session_id
from persistence.session_values import Conclusion, Progress, SessionStart

_VERSION = 1
# The client's address is in the row only: people may pass the file on.
_START_FIELDS = [field.name for field in fields(SessionStart) if field.name not in ("id", "client_ip")]
_ADDED = frozenset({"resume_from_seconds", "vocabulary"})


@dataclass(frozen=True, slots=True)
class Manifest:
    """The start of a session and, once it has ended, its conclusion."""

    start: SessionStart
    conclusion: Conclusion | None = None

    def to_json(self) -> bytes:
        """Indented UTF-8 JSON."""
        start = {name: _plain(getattr(self.start, name)) for name in _START_FIELDS}
        shape: dict[str, Any] = {"version": _VERSION, "session_id": self.start.session_id, **start}
        if self.conclusion is not None:
            shape["conclusion"] = {
                **asdict(self.conclusion.end_reason),
                "ended_at": self.conclusion.ended_at.isoformat(),
                "progress": asdict(self.conclusion.progress),
            }
        return json.dumps(shape, indent=2, ensure_ascii=False).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> "Manifest":
        """Parses what `to_json` wrote.

        Raises:
            ValueError: the data is damaged, or of another version.
        """
        try:
            shape = json.loads(data)
            if shape["version"] != _VERSION:
                raise ValueError("session.json is of another version")
            return cls(_start(shape), _conclusion(shape.get("conclusion")))
        except (KeyError, TypeError, AttributeError, InvalidSessionId) as error:
            raise ValueError("session.json is incomplete") from error


def _plain(value: object) -> object:
    if isinstance(value, UUID):
        return str(value)
    return value.isoformat() if isinstance(value, datetime) else value


def _start(shape: dict[str, Any]) -> SessionStart:
    # Fields that the previous release did not write have their defaults.
    values = {name: shape[name] for name in _START_FIELDS if name in shape or name not in _ADDED}
    previous = values["previous_session_id"]
    values |= {
        "id": parse_session_id(shape["session_id"]),
        "tenant_id": UUID(values["tenant_id"]),
        "started_at": datetime.fromisoformat(values["started_at"]),
        "previous_session_id": UUID(previous) if previous else None,
        "vocabulary": tuple(values.get("vocabulary", ())),
    }
    return SessionStart(**values)


def _conclusion(shape: dict[str, Any] | None) -> Conclusion | None:
    if shape is None:
        return None
    return Conclusion(
        EndReason(shape["status"], shape["error"]),
        datetime.fromisoformat(shape["ended_at"]),
        Progress(**shape["progress"]),
    )
