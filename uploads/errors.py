"""Errors as clients of OpenAI read them: HTTP status, type, code and the parameter that is wrong."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from dalston.v1.job_pb2 import Job

from edge.closing import CloseReason

FORMATS: Final = "flac, mp3, mp4, m4a, ogg, opus, wav or webm"
"""The file formats that the server takes. Its own refusal names them; a job that fails later does not."""

_INVALID: Final = "invalid_request_error"
_OVERLOADED: Final = "server_error"
_LIMITED: Final = "rate_limit_error"


@dataclass(eq=False)
class ApiError(Exception):
    """A request that is refused or has failed."""

    status: int
    message: str
    """What was wrong, and what is right, for a person."""
    code: str
    type: str = _INVALID
    param: str | None = None
    """The field of the request that is wrong."""
    retry_after: int | None = None
    """Seconds after which the same request may succeed."""
    should_retry: bool = False
    """Whether the clients, which repeat some requests by themselves, are asked to repeat this one."""

    def __str__(self) -> str:
        return self.message

    def body(self) -> dict[str, Any]:
        """The body, and the content of the event of a stream that fails."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    def text(self) -> str:
        """The body as JSON."""
        return json.dumps(self.body(), ensure_ascii=False)

    def headers(self) -> dict[str, str]:
        """The headers of the response."""
        headers = {"x-should-retry": "true" if self.should_retry else "false"}
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        return headers


def invalid(message: str, param: str | None, *, code: str = "invalid_value") -> ApiError:
    """400: a parameter is wrong."""
    return ApiError(400, message, code, param=param)


def unsupported(message: str, param: str | None) -> ApiError:
    """400: a parameter asks for what the server cannot do."""
    return invalid(message, param, code="unsupported_value")


def too_big(max_bytes: int) -> ApiError:
    """413: the file is over the limit."""
    return ApiError(413, f"the file is larger than {max_bytes} bytes", "file_too_large", param="file")


def busy(message: str) -> ApiError:
    """503: this process has no place for the request now."""
    return ApiError(503, message, "server_overloaded", type=_OVERLOADED, retry_after=2, should_retry=True)


def not_an_audio_file(message: str) -> ApiError:
    """400: the file cannot be decoded."""
    return invalid(f"{message}; the formats that are taken are {FORMATS}", "file")


@dataclass(frozen=True, slots=True)
class _Shape:
    status: int
    type: str
    code: str
    param: str | None = None
    retry_seconds: int | None = None


_INTERNAL = _Shape(500, _OVERLOADED, "internal_error")
_SHAPES: Final[Mapping[str, _Shape]] = {
    "UNAUTHENTICATED": _Shape(401, _INVALID, "invalid_api_key"),
    "PERMISSION_DENIED": _Shape(403, _INVALID, "insufficient_permissions"),
    "ORIGIN_NOT_ALLOWED": _Shape(403, _INVALID, "insufficient_permissions"),
    "AUTHENTICATION_OFF": _Shape(400, _INVALID, "invalid_value"),
    "INVALID_PARAMETERS": _Shape(400, _INVALID, "invalid_value"),
    "INVALID_MESSAGE": _Shape(400, _INVALID, "invalid_value"),
    "INVALID_AUDIO": _Shape(400, _INVALID, "invalid_value", "file"),
    "INVALID_RANGE": _Shape(400, _INVALID, "invalid_value"),
    "UNIMPLEMENTED": _Shape(400, _INVALID, "unsupported_value"),
    "UNSUPPORTED_MEDIA": _Shape(400, _INVALID, "invalid_value", "file"),
    "INVALID_MODEL": _Shape(404, _INVALID, "model_not_found", "model"),
    "SESSION_NOT_FOUND": _Shape(404, _INVALID, "not_found"),
    "JOB_NOT_FOUND": _Shape(404, _INVALID, "not_found"),
    "TRANSCRIPT_NOT_FOUND": _Shape(404, _INVALID, "not_found"),
    "PATH_NOT_FOUND": _Shape(404, _INVALID, "not_found"),
    "MESSAGE_TOO_BIG": _Shape(413, _INVALID, "file_too_large", "file"),
    "FILE_TOO_BIG": _Shape(413, _INVALID, "file_too_large", "file"),
    "IDLE_TIMEOUT": _Shape(408, _INVALID, "request_timeout", retry_seconds=1),
    "SESSION_TIMEOUT": _Shape(408, _INVALID, "request_timeout", retry_seconds=1),
    "TOO_MANY_SESSIONS": _Shape(429, _LIMITED, "rate_limit_exceeded", retry_seconds=5),
    "TOO_MANY_JOBS": _Shape(429, _LIMITED, "rate_limit_exceeded", retry_seconds=10),
    "RATE_LIMITED": _Shape(429, _LIMITED, "rate_limit_exceeded", retry_seconds=1),
    # No repetition helps: something must be deleted first.
    "STORAGE_QUOTA_EXCEEDED": _Shape(429, "insufficient_quota", "insufficient_quota"),
    "NO_CAPACITY": _Shape(503, _OVERLOADED, "server_overloaded", retry_seconds=2),
    "UNAVAILABLE": _Shape(503, _OVERLOADED, "server_overloaded", retry_seconds=2),
    "SERVER_SHUTDOWN": _Shape(503, _OVERLOADED, "server_overloaded", retry_seconds=2),
}

_PARAMETERS: Final = {"vocabulary": "keywords", "file_name": "file", "data": "file"}
"""Fields of `FileConfig` that the clients call by another name."""


def error_of_reason(reason: CloseReason) -> ApiError:
    """The error for a reason of the contract."""
    shape = _SHAPES.get(reason.reason, _INTERNAL)
    named = reason.metadata.get("parameter")
    return ApiError(
        shape.status,
        reason.message,
        shape.code,
        type=shape.type,
        param=_PARAMETERS.get(named, named) if named else shape.param,
        retry_after=_seconds(reason.metadata.get("retry_after_seconds"), shape.retry_seconds),
        should_retry=shape.retry_seconds is not None,
    )


def error_of_job(job: Job) -> ApiError | None:
    """The error for a job that has ended; None if it has a transcript, which may be empty."""
    if job.status == "completed" or job.error_code == "no_speech":
        return None
    message = job.error or "the transcription failed"
    match job.error_code:
        case "undecodable" | "audio_damaged" | "unsupported_media":
            return not_an_audio_file(message)
        case "file_too_big":
            return ApiError(413, message, "file_too_large", param="file")
        case "invalid_model":
            return ApiError(404, message, "model_not_found", param="model")
    if job.status == "canceled":
        return ApiError(409, f"job {job.id} was canceled", "job_canceled")
    return ApiError(500, message, "internal_error", type=_OVERLOADED)


def _seconds(text: str | None, otherwise: int | None) -> int | None:
    try:
        return otherwise if text is None else max(1, math.ceil(float(text)))
    except (ValueError, OverflowError):
        return otherwise
