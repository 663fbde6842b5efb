"""JSON output: records as in the REST API, events as in the WebSocket API. Pure."""

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
    events.PartialResult: "transcript.partial",
    events.FinalResult: "transcript.final",
    events.Flushed: "flushed",
    events.Acknowledged: "audio.ack",
    events.Warned: "warning",
    events.Reconnecting: "reconnecting",
    events.Resumed: "resumed",
    events.Ended: "session.end",
}


def document(value: Any) -> Any:
    """Converts a record to JSON values: times in RFC 3339, unset fields omitted."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, events.Word):
        # The API has both names.
        return {
            "word": value.word,
            "text": value.word,
            "start": value.start,
            "end": value.end,
            "confidence": value.confidence,
        }
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
    """Converts an event to the message of the WebSocket API, with `type` first.

    The SDK adds `reconnecting`, `resumed`, the `session_ids` of `session.end` and some codes of warnings.
    """
    return {"type": _TYPES[type(happened)], **_content(happened)}


def _content(happened: events.Event) -> dict[str, Any]:
    shown: dict[str, Any] = document(happened)
    match happened:
        case events.SessionBegan():
            config = {name: shown.pop(name) for name in ("sample_rate", "encoding", "channels", "language", "model")}
            limits = {
                name: shown.pop(name) for name in ("max_session_seconds", "idle_timeout_seconds", "max_message_bytes")
            }
            return {"session_id": shown.pop("session_id"), "config": config, **shown, "limits": limits}
        case events.FinalResult() if not happened.words:
            del shown["words"]
        case events.Acknowledged():
            return {f"{name}_seconds": value for name, value in shown.items()}
        case events.Warned():
            # As in the API, details are next to code and message, which they must not replace.
            details = {name: value for name, value in happened.details.items() if name != "type"}
            return {**details, "code": happened.code, "message": happened.message}
        case events.Ended():
            return _end(happened)
    return shown


def _end(ended: events.Ended) -> dict[str, Any]:
    uris = {name: getattr(ended, name) for name in ("enhancement_job_id", "audio_uri", "transcript_uri")}
    return {
        "session_id": ended.session_id,
        "total_duration": ended.duration,
        "total_speech_duration": ended.speech_duration,
        "transcript": ended.text,
        "segments": [{"start": final.start, "end": final.end, "text": final.text} for final in ended.finals],
        **{name: uri for name, uri in uris.items() if uri is not None},
        "session_ids": list(ended.session_ids),
    }


def dumps(value: Any, *, indent: int | None = None) -> str:
    """Serialises a value as JSON without literal control characters."""
    import json

    return safe_text.json(json.dumps(document(value), ensure_ascii=False, indent=indent))
