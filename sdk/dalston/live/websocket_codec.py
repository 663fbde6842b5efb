"""Encodes and decodes the messages of a session as WebSocket frames; docs/websocket.md specifies them."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

from google.protobuf.json_format import ParseDict, ParseError

from dalston.errors import DalstonError, ServerError
from dalston.failures import error_of_reason
from dalston.v1.transcription_pb2 import TranscribeConfig, TranscribeControl, TranscribeResponse

_KINDS = {
    "session.begin": "session_begin",
    "vad.speech_start": "speech_start",
    "vad.speech_end": "speech_end",
    "transcript.partial": "partial",
    "transcript.final": "final",
    "flushed": "flushed",
    "audio.ack": "audio_ack",
    "session.terminating": "session_terminating",
    "session.end": "session_end",
}


def encode_config(config: TranscribeConfig) -> str:
    """The query string for a config: the names and values of the fields that are set."""
    fields = {}
    for descriptor, value in config.ListFields():
        if descriptor.is_repeated:
            fields[descriptor.name] = json.dumps(list(value), ensure_ascii=False, separators=(",", ":"))
        elif isinstance(value, bool):
            fields[descriptor.name] = "true" if value else "false"
        else:
            fields[descriptor.name] = str(value)
    return urlencode(fields)


def encode_control(control: TranscribeControl) -> str:
    """The text frame for a control."""
    match control.WhichOneof("control"):
        case "set_language":
            return json.dumps({"type": "config", "language": control.set_language.language})
        case "keep_alive":
            return '{"type":"keepalive"}'
        case kind:
            return json.dumps({"type": kind})


def decode_response(text: str) -> TranscribeResponse | DalstonError | None:
    """Decodes a text frame: a response, the error that it reports, or None for an unknown message type.

    Raises:
        ServerError: the frame is malformed.
    """
    try:
        message = json.loads(text)
        kind = message.pop("type")
        if kind == "error":
            details = {name: str(value) for name, value in message.items() if name not in ("code", "message")}
            return error_of_reason(message["code"].upper(), message["message"], details)
        if kind == "warning":
            return _warning(message)
        if kind not in _KINDS:
            return None
        return ParseDict({_KINDS[kind]: message}, TranscribeResponse(), ignore_unknown_fields=True)
    except (ValueError, KeyError, TypeError, AttributeError, ParseError):
        raise ServerError("the service sent a malformed message") from None


def _warning(message: dict[str, Any]) -> TranscribeResponse:
    code, text = message.pop("code"), message.pop("message")
    response = TranscribeResponse()
    response.warning.code, response.warning.message = code, text
    for name, value in message.items():
        response.warning.details[name] = str(value)
    return response
