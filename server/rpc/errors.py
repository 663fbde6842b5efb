"""Conversion of errors to gRPC statuses and end reasons: one table, applied by one interceptor."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any, NamedTuple

import grpc
from dalston.v1.error_reason_pb2 import ErrorReason
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from domain import errors as domain
from domain.session import EndReason
from persistence.errors import LeaseLost, NotOwner
from persistence.outage_report import note_outage
from server.access import errors as access
from server.inference import errors as inference
from server.rpc.byte_range import RangeNotSatisfiable
from server.rpc.interceptor import Call, CallInterceptor, Context
from server.session import errors as session
from telemetry.logs import get_logger

log = get_logger(__name__)

DOMAIN = "dalston.v1"
ELSEWHERE = "dalston-try-elsewhere"
"""Trailing metadata of a call that another server may serve: the server is full, and not the tenant at its limit."""
_SESSION_ENDS_SECONDS = 5
"""The pause before another attempt; how long the tenant's running sessions will take is not known."""


class Answer(NamedTuple):
    """The status and the reason that a client receives for an error."""

    code: grpc.StatusCode
    reason: ErrorReason.ValueType


_C, _R = grpc.StatusCode, ErrorReason

# Looked up along the class's MRO: the most specific entry wins.
ANSWERS: dict[type[Exception], Answer] = {
    DecodeError: Answer(_C.INVALID_ARGUMENT, _R.ERROR_REASON_INVALID_MESSAGE),
    session.InvalidParameter: Answer(_C.INVALID_ARGUMENT, _R.ERROR_REASON_INVALID_PARAMETERS),
    session.InvalidModel: Answer(_C.INVALID_ARGUMENT, _R.ERROR_REASON_INVALID_MODEL),
    session.InvalidMessage: Answer(_C.INVALID_ARGUMENT, _R.ERROR_REASON_INVALID_MESSAGE),
    session.InvalidAudio: Answer(_C.INVALID_ARGUMENT, _R.ERROR_REASON_INVALID_AUDIO),
    session.MessageTooBig: Answer(_C.INVALID_ARGUMENT, _R.ERROR_REASON_MESSAGE_TOO_BIG),
    RangeNotSatisfiable: Answer(_C.OUT_OF_RANGE, _R.ERROR_REASON_INVALID_RANGE),
    session.NotBuilt: Answer(_C.UNIMPLEMENTED, _R.ERROR_REASON_UNIMPLEMENTED),
    session.NoCapacity: Answer(_C.RESOURCE_EXHAUSTED, _R.ERROR_REASON_NO_CAPACITY),
    session.IdleTimeout: Answer(_C.DEADLINE_EXCEEDED, _R.ERROR_REASON_IDLE_TIMEOUT),
    session.SessionTimeout: Answer(_C.DEADLINE_EXCEEDED, _R.ERROR_REASON_SESSION_TIMEOUT),
    session.SessionEnded: Answer(_C.ABORTED, _R.ERROR_REASON_SESSION_ENDED),
    session.KeyEnded: Answer(_C.UNAUTHENTICATED, _R.ERROR_REASON_UNAUTHENTICATED),
    session.ServerStopping: Answer(_C.UNAVAILABLE, _R.ERROR_REASON_SERVER_SHUTDOWN),
    inference.QueueFull: Answer(_C.RESOURCE_EXHAUSTED, _R.ERROR_REASON_NO_CAPACITY),
    inference.EngineStopped: Answer(_C.UNAVAILABLE, _R.ERROR_REASON_SERVER_SHUTDOWN),
    domain.InvalidSessionId: Answer(_C.INVALID_ARGUMENT, _R.ERROR_REASON_INVALID_PARAMETERS),
    domain.InvalidFilter: Answer(_C.INVALID_ARGUMENT, _R.ERROR_REASON_INVALID_PARAMETERS),
    domain.SessionNotFound: Answer(_C.NOT_FOUND, _R.ERROR_REASON_SESSION_NOT_FOUND),
    domain.SessionResumed: Answer(_C.ABORTED, _R.ERROR_REASON_SESSION_RESUMED),
    domain.InvalidResumption: Answer(_C.INVALID_ARGUMENT, _R.ERROR_REASON_INVALID_PARAMETERS),
    domain.AudioNotStored: Answer(_C.NOT_FOUND, _R.ERROR_REASON_AUDIO_NOT_STORED),
    domain.TranscriptNotStored: Answer(_C.NOT_FOUND, _R.ERROR_REASON_TRANSCRIPT_NOT_STORED),
    domain.SessionActive: Answer(_C.ABORTED, _R.ERROR_REASON_SESSION_ACTIVE),
    domain.TranscriptNotFound: Answer(_C.NOT_FOUND, _R.ERROR_REASON_TRANSCRIPT_NOT_FOUND),
    domain.InvalidJobId: Answer(_C.INVALID_ARGUMENT, _R.ERROR_REASON_INVALID_PARAMETERS),
    domain.JobNotFound: Answer(_C.NOT_FOUND, _R.ERROR_REASON_JOB_NOT_FOUND),
    domain.NoEnhancement: Answer(_C.NOT_FOUND, _R.ERROR_REASON_NO_ENHANCEMENT),
    domain.EnhancementRunning: Answer(_C.ALREADY_EXISTS, _R.ERROR_REASON_ENHANCEMENT_RUNNING),
    domain.JobActive: Answer(_C.ABORTED, _R.ERROR_REASON_JOB_ACTIVE),
    domain.UnsupportedMedia: Answer(_C.INVALID_ARGUMENT, _R.ERROR_REASON_UNSUPPORTED_MEDIA),
    domain.FileTooBig: Answer(_C.INVALID_ARGUMENT, _R.ERROR_REASON_FILE_TOO_BIG),
    domain.TooManyJobs: Answer(_C.RESOURCE_EXHAUSTED, _R.ERROR_REASON_TOO_MANY_JOBS),
    domain.InvalidKeyId: Answer(_C.INVALID_ARGUMENT, _R.ERROR_REASON_INVALID_PARAMETERS),
    domain.KeyNotFound: Answer(_C.NOT_FOUND, _R.ERROR_REASON_KEY_NOT_FOUND),
    domain.InvalidLoginId: Answer(_C.INVALID_ARGUMENT, _R.ERROR_REASON_INVALID_PARAMETERS),
    domain.LoginNotFound: Answer(_C.NOT_FOUND, _R.ERROR_REASON_LOGIN_NOT_FOUND),
    domain.KeyEnded: Answer(_C.UNAUTHENTICATED, _R.ERROR_REASON_UNAUTHENTICATED),
    domain.StorageQuotaExceeded: Answer(_C.RESOURCE_EXHAUSTED, _R.ERROR_REASON_STORAGE_QUOTA_EXCEEDED),
    domain.TooManyKeys: Answer(_C.RESOURCE_EXHAUSTED, _R.ERROR_REASON_TOO_MANY_KEYS),
    domain.TooManySessions: Answer(_C.RESOURCE_EXHAUSTED, _R.ERROR_REASON_TOO_MANY_SESSIONS),
    domain.TokenSpent: Answer(_C.UNAUTHENTICATED, _R.ERROR_REASON_UNAUTHENTICATED),
    LeaseLost: Answer(_C.UNAVAILABLE, _R.ERROR_REASON_UNAVAILABLE),
    NotOwner: Answer(_C.UNAVAILABLE, _R.ERROR_REASON_UNAVAILABLE),
    domain.StorageUnavailable: Answer(_C.UNAVAILABLE, _R.ERROR_REASON_UNAVAILABLE),
    access.Unauthenticated: Answer(_C.UNAUTHENTICATED, _R.ERROR_REASON_UNAUTHENTICATED),
    access.PermissionDenied: Answer(_C.PERMISSION_DENIED, _R.ERROR_REASON_PERMISSION_DENIED),
    access.KeyNeeded: Answer(_C.PERMISSION_DENIED, _R.ERROR_REASON_PERMISSION_DENIED),
    access.RateLimited: Answer(_C.RESOURCE_EXHAUSTED, _R.ERROR_REASON_RATE_LIMITED),
    access.AuthenticationOff: Answer(_C.FAILED_PRECONDITION, _R.ERROR_REASON_AUTHENTICATION_OFF),
}
_INTERNAL = Answer(_C.INTERNAL, _R.ERROR_REASON_INTERNAL)

# Errors that end a session as interrupted: neither the client nor the server is at fault.
_INTERRUPTIONS = (
    session.IdleTimeout,
    session.SessionTimeout,
    session.SessionEnded,
    session.KeyEnded,
    session.ServerStopping,
    inference.EngineStopped,
    LeaseLost,
)


def answer_to(error: BaseException) -> Answer:
    """The entry of the table for `error`; INTERNAL for an error that has none."""
    return next((ANSWERS[kind] for kind in type(error).__mro__ if kind in ANSWERS), _INTERNAL)


def reason_name(reason: ErrorReason.ValueType) -> str:
    """The reason as in ErrorInfo: without the prefix of the enum."""
    return ErrorReason.Name(reason).removeprefix("ERROR_REASON_")


def _public(error: BaseException) -> str:
    """The message for a client and its tenant, which does not name the unavailable component."""
    return error.PUBLIC if isinstance(error, domain.StorageUnavailable) else str(error)


def end_reason_of(error: BaseException) -> EndReason:
    """The end reason of a session that `error` ended."""
    answer = answer_to(error)
    text = reason_name(answer.reason).lower()
    if answer is not _INTERNAL:
        text = f"{text}: {_public(error)}"
    return EndReason("interrupted" if isinstance(error, _INTERRUPTIONS) else "error", text)


def describe(error: Exception) -> tuple[str, str]:
    """The reason in lower case and a sentence, for streams that report their error in a message of their own."""
    answer = answer_to(error)
    return reason_name(answer.reason).lower(), "internal error" if answer is _INTERNAL else _public(error)


class ErrorInterceptor(CallInterceptor):
    """Answers every error with a status and an ErrorInfo. The text of an unexpected exception is never sent."""

    def accept(self, request: Any) -> Any:
        if isinstance(request, DecodeError):
            raise request
        return request

    async def around(self, method: str, call: Call, context: Context) -> Any:
        try:
            return await _answered(method, call, context)
        except grpc.aio.InternalError:
            # The transport refuses to write to a call that is over: there is no client to answer any more.
            raise asyncio.CancelledError from None


async def _answered(method: str, call: Call, context: Context) -> Any:
    try:
        return await call()
    except (grpc.aio.AbortError, grpc.aio.InternalError):
        raise
    except Exception as error:
        await abort(method, context, error)


async def abort(method: str, context: Context, error: Exception) -> None:
    """Ends the call with the status of an error."""
    answer = answer_to(error)
    message = _public(error)
    if isinstance(error, domain.StorageUnavailable):
        note_outage(error, method)
    if answer is _INTERNAL:
        incident = uuid.uuid4().hex
        log.error("internal error", method=method, incident=incident, exc_info=error)
        message = f"internal error, incident {incident}"
    status = Status(code=answer.code.value[0], message=message)
    _add(status, ErrorInfo(reason=reason_name(answer.reason), domain=DOMAIN, metadata=_particulars(error)))
    trailing: list[tuple[str, str | bytes]] = []
    if (seconds := _retry_after(error)) is not None:
        _add(status, RetryInfo(retry_delay=Duration(seconds=seconds)))
        trailing.append(("retry-after", str(seconds)))
    if answer.code == _C.UNAUTHENTICATED:
        trailing.append(("www-authenticate", "Bearer"))  # required by HTTP with a 401
    if answer.reason == _R.ERROR_REASON_NO_CAPACITY:
        trailing.append((ELSEWHERE, "1"))
    if isinstance(error, RangeNotSatisfiable):
        trailing.append(("content-range", f"bytes */{error.size}"))
    trailing.append(("grpc-status-details-bin", status.SerializeToString()))
    await context.abort(answer.code, message, tuple(trailing))


def _add(status: Status, detail: Message) -> None:
    packed = AnyMessage()
    packed.Pack(detail)
    status.details.append(packed)


def _particulars(error: Exception) -> dict[str, str]:
    match error:
        case session.InvalidParameter() | domain.InvalidFilter() | domain.InvalidResumption():
            return {"parameter": error.parameter}
        case domain.InvalidKeyId():
            return {"parameter": "key_id"}
        case domain.InvalidLoginId():
            return {"parameter": "login_id"}
        case domain.InvalidJobId():
            return {"parameter": "job_id"}
        case domain.EnhancementRunning():
            return {"job_id": error.job_id}
        case domain.SessionResumed(resumed_by=str(resumed_by)):
            return {"resumed_by": resumed_by}
        case access.PermissionDenied():
            return {"scope": error.scope}
        case access.RateLimited():
            return {"retry_after_seconds": str(error.retry_after_seconds)}
    return {}


def _retry_after(error: Exception) -> int | None:
    match error:
        case access.RateLimited():
            return error.retry_after_seconds
        case domain.TooManySessions():
            return _SESSION_ENDS_SECONDS
    return None
