"""WebSocket frames to `TranscribeRequest`, `TranscribeResponse` to WebSocket frames."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dalston.v1.transcription_pb2 import (
    Final,
    SessionBegin,
    SessionEnd,
    TranscribeConfig,
    TranscribeControl,
    TranscribeRequest,
    TranscribeResponse,
    Warning,  # noqa: A004 - the contract's name
)

from bridge.protocols.interface import MAX_FRAME_BYTES
from bridge.protocols.native.close_codes import RECOVERABLE
from bridge.protocols.native.parameters import UNSUPPORTED
from edge.closing import CloseReason
from edge.refusal import Refused, too_big

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ClientFrame:
    """One decoded WebSocket frame of a client."""

    request: TranscribeRequest
    unsupported: tuple[str, ...] = ()
    """Requested parameters and messages that other Dalston services support and this one does not. The session
    continues with a warning."""


def decode_frame(frame: bytes | str) -> ClientFrame:
    """Translates one WebSocket frame of a client: a binary frame is audio, a text frame is an instruction in JSON.

    Raises:
        Refused: MESSAGE_TOO_BIG or INVALID_MESSAGE, with the mistake in the message.
    """
    if isinstance(frame, bytes):
        if len(frame) > MAX_FRAME_BYTES:
            raise too_big(MAX_FRAME_BYTES)
        return ClientFrame(TranscribeRequest(audio=frame))
    return _decode_text(frame)


def unsupported_warning(name: str) -> TranscribeResponse:
    """The warning that a requested feature is not supported. The session continues."""
    why = _UNSUPPORTED.get(name, "it cannot be changed in mid-stream; open another session with it")
    message = f"{name} is not supported: {why}"
    return TranscribeResponse(warning=Warning(code="unsupported", message=message, details={"name": name}))


def encode_response(response: TranscribeResponse) -> str | None:
    """Translates one message of the server; None for a kind that this bridge is too old to know.

    Seconds and probabilities are rounded to a millionth, which is finer than a sample.
    """
    kind = response.WhichOneof("response")
    if kind is None:
        return None
    name, encode = _ENCODERS[kind]
    return _dump({"type": name, **encode(getattr(response, kind))})


def encode_error(close_reason: CloseReason) -> str:
    """The `error` message that comes before a close."""
    own = {
        "type": "error",
        "code": close_reason.code,
        "message": close_reason.message,
        "recoverable": close_reason.reason in RECOVERABLE,
    }
    return _dump({**close_reason.metadata, **own})


def _decode_text(text: str) -> ClientFrame:
    if len(text) > MAX_FRAME_BYTES:
        raise too_big(MAX_FRAME_BYTES)
    try:
        message = json.loads(text, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError):
        raise _invalid("a text message must be JSON; audio goes into binary messages") from None
    if not isinstance(message, dict):
        raise _invalid('a text message must be a JSON object, such as {"type":"end"}')
    kind = message.pop("type", None)
    if not isinstance(kind, str):
        raise _invalid(f"a text message needs a type: {_KNOWN_TYPES}")
    if kind not in _CONTROLS:
        raise _invalid(f"unknown message type {_shown(kind)}; known are {_KNOWN_TYPES}")
    keys, build = _CONTROLS[kind]
    unsupported = (kind,) if kind in _UNSUPPORTED else ()
    if kind == "config":
        unsupported = tuple(key for key in message if key in _FIXED)
        message = {key: value for key, value in message.items() if key not in _FIXED}
        if unsupported and not message:
            kind, build = "keepalive", _keep_alive
    unknown = [key for key in message if key not in keys]
    if unknown:
        allowed = f"only {', '.join(keys)}" if keys else "nothing"
        raise _invalid(f"{kind} has an unknown key {_shown(unknown[0])}; beside type it takes {allowed}")
    return ClientFrame(TranscribeRequest(control=build(message)), unsupported)


def _without_repeats(pairs: list[tuple[str, Any]]) -> Json:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise _invalid("a JSON object has the same key twice")
    return result


def _set_language(message: Json) -> TranscribeControl:
    language = message.get("language")
    if not isinstance(language, str) or not language:
        raise _invalid('config needs a language: an ISO 639-1 code such as "es", or "auto"')
    try:
        return TranscribeControl(set_language=TranscribeControl.SetLanguage(language=language))
    except (ValueError, UnicodeError):
        # JSON can spell half of a surrogate pair, protobuf cannot.
        raise _invalid("language is not valid Unicode") from None


def _keep_alive(_message: Json) -> TranscribeControl:
    return TranscribeControl(keep_alive=TranscribeControl.KeepAlive())


def _invalid(message: str) -> Refused:
    return Refused("INVALID_MESSAGE", message)


def _shown(value: str) -> str:
    """A value for an error message: quoted, cut where it is long, and always valid Unicode."""
    return json.dumps(value if len(value) <= 60 else value[:60] + "...")


_CONTROLS: dict[str, tuple[tuple[str, ...], Callable[[Json], TranscribeControl]]] = {
    "config": (("language",), _set_language),
    "flush": ((), lambda _: TranscribeControl(flush=TranscribeControl.Flush())),
    "keepalive": ((), _keep_alive),
    "end": ((), lambda _: TranscribeControl(end=TranscribeControl.End())),
}
_KNOWN_TYPES = ", ".join(_CONTROLS)
# It only keeps the session alive: the audio before it is recorded.
_CONTROLS["clear"] = ((), _keep_alive)

_UNSUPPORTED = {
    "clear": "what was received is transcribed and recorded",
    "retention": "what is stored is kept until it is deleted",
}
"""Features of other Dalston services that this one does not have, with the reason."""

_CRUCIAL = {
    *("encoding", "sample_rate", "channels"),
    *("store_audio", "store_transcript", "enhance_on_end"),
    *("resume_session_id", "resume_from_seconds"),
}
"""A change of these is refused rather than ignored: a client that relied on it would send audio that is decoded as
noise, or be recorded against its will."""

_FIXED = {field.name for field in TranscribeConfig.DESCRIPTOR.fields} - {"language"} - _CRUCIAL | {*UNSUPPORTED}
"""Parameters that hold for a whole session. A change of these is ignored with a warning."""


def _numbers(*names: str) -> Callable[[Any], Json]:
    return lambda message: {name: _rounded(getattr(message, name)) for name in names}


def _texts_and_numbers(texts: tuple[str, ...], numbers: tuple[str, ...]) -> Callable[[Any], Json]:
    return lambda message: {name: getattr(message, name) for name in texts} | _numbers(*numbers)(message)


def _present(message: Any, *names: str) -> Json:
    return {name: getattr(message, name) for name in names if message.HasField(name)}


def _session_begin(begin: SessionBegin) -> Json:
    config, limits = begin.config, begin.limits
    result: Json = {
        "session_id": begin.session_id,
        "config": {
            "sample_rate": config.sample_rate,
            "encoding": config.encoding,
            "channels": config.channels,
            "language": config.language,
            "model": config.model,
        },
        **_present(begin, "resumed_from"),
    }
    if begin.HasField("resume_from_seconds"):
        result["resume_from_seconds"] = _rounded(begin.resume_from_seconds)
    result["limits"] = {
        "max_session_seconds": _rounded(limits.max_session_seconds),
        "idle_timeout_seconds": _rounded(limits.idle_timeout_seconds),
        "max_message_bytes": limits.max_message_bytes,
    }
    return result


def _final(final: Final) -> Json:
    result: Json = {
        "text": final.text,
        **_numbers("start", "end", "confidence")(final),
        "language": final.language,
    }
    if final.HasField("language_probability"):
        result["language_probability"] = _rounded(final.language_probability)
    if final.words:
        encode = _texts_and_numbers(("word", "text"), ("start", "end", "confidence"))
        # A server that is older than `text` does not send it.
        result["words"] = [encode(word) | {"text": word.word} for word in final.words]
    return result


def _warning(warning: Warning) -> Json:
    # The details are keys of the same object as code and message, which they must not replace.
    details = {key: value for key, value in warning.details.items() if key != "type"}
    return {**details, "code": warning.code, "message": warning.message}


def _session_end(end: SessionEnd) -> Json:
    return {
        "session_id": end.session_id,
        **_numbers("total_duration", "total_speech_duration")(end),
        "transcript": end.transcript,
        "segments": [_numbers("start", "end")(segment) | {"text": segment.text} for segment in end.segments],
        **_present(end, "enhancement_job_id", "audio_uri", "transcript_uri"),
    }


_ENCODERS: dict[str, tuple[str, Callable[[Any], Json]]] = {
    "session_begin": ("session.begin", _session_begin),
    "speech_start": ("vad.speech_start", _numbers("timestamp")),
    "speech_end": ("vad.speech_end", _numbers("timestamp")),
    "partial": ("transcript.partial", _texts_and_numbers(("text",), ("start", "end"))),
    "final": ("transcript.final", _final),
    "flushed": ("flushed", _numbers("timestamp")),
    "audio_ack": ("audio.ack", _numbers("received_seconds", "processed_seconds", "stored_seconds")),
    "warning": ("warning", _warning),
    "session_terminating": (
        "session.terminating",
        _texts_and_numbers(("reason", "resume_session_id"), ("grace_seconds",)),
    ),
    "session_end": ("session.end", _session_end),
}


def _rounded(value: float) -> float:
    return round(value, 6) + 0.0  # which turns -0.0 into 0.0


def _dump(message: Json) -> str:
    return json.dumps(message, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
