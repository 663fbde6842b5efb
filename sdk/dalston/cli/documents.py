"""What programs read: the names and shapes of the REST API, and of the WebSocket for events. Pure."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from dalston import events
from dalston.cli import safe_text

_TYPES: dict[type[Any], str] = {
    events.SessionBegan: "session.begin",
    events.SpeechStarted: "vad.speech_start",
    events.SpeechEnded: "vad.speech_end",
    events.Partial: "transcript.partial",
    events.Final: "transcript.final",
    events.Flushed: "flushed",
    events.Acknowledged: "audio.ack",
    events.Warned: "warning",
    events.Reconnecting: "reconnecting",
    events.Resumed: "resumed",
    events.Ended: "session.end",
}
_NAMES = {
    events.Acknowledged: {name: f"{name}_seconds" for name in ("received", "processed", "stored")},
    events.Ended: {"duration": "total_duration", "text": "transcript"},
}


def document(value: Any) -> Any:
    """A record as JSON has it: times in RFC 3339, nothing for what is unset."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if is_dataclass(value) and not isinstance(value, type):
        pairs = ((field.name, getattr(value, field.name)) for field in fields(value))
        return {name: document(each) for name, each in pairs if each is not None}
    if isinstance(value, frozenset):
        return sorted(document(each) for each in value)
    if isinstance(value, tuple | list):
        return [document(each) for each in value]
    if isinstance(value, dict):
        return {name: document(each) for name, each in value.items()}
    return value


def event(happened: events.Event) -> dict[str, Any]:
    """An event as the WebSocket has it, with `type` first. `reconnecting` and `resumed` are the SDK's own."""
    names = _NAMES.get(type(happened), {})
    content = {names.get(name, name): value for name, value in document(happened).items()}
    return {"type": _TYPES[type(happened)], **content}


def dumps(value: Any, *, indent: int | None = None) -> str:
    """JSON that is safe to look at, too."""
    import json

    return safe_text.json(json.dumps(document(value), ensure_ascii=False, indent=indent))
