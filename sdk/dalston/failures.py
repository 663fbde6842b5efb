"""From the statuses of calls to the errors of this package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from dalston import errors

_DOMAIN = "dalston.v1"
_STATUS_DETAILS = "grpc-status-details-bin"

# Every reason of error_reason.proto. One that only a newer service knows is told by its status.
REASONS: dict[str, type[errors.DalstonError]] = {
    "INVALID_PARAMETERS": errors.InvalidRequest,
    "INVALID_MESSAGE": errors.InvalidRequest,
    "INVALID_AUDIO": errors.InvalidRequest,
    "INVALID_MODEL": errors.InvalidRequest,
    "MESSAGE_TOO_BIG": errors.InvalidRequest,
    "INVALID_RANGE": errors.InvalidRequest,
    "UNAUTHENTICATED": errors.AuthenticationError,
    "PERMISSION_DENIED": errors.PermissionDenied,
    "SESSION_NOT_FOUND": errors.NotFound,
    "AUDIO_NOT_STORED": errors.NotFound,
    "TRANSCRIPT_NOT_STORED": errors.NotFound,
    "KEY_NOT_FOUND": errors.NotFound,
    "SESSION_ACTIVE": errors.SessionActive,
    "SESSION_RESUMED": errors.SessionResumed,
    "IDLE_TIMEOUT": errors.SessionTimeout,
    "SESSION_TIMEOUT": errors.SessionTimeout,
    "TOO_MANY_SESSIONS": errors.TooManySessions,
    "TOO_MANY_KEYS": errors.TooManyKeys,
    "NO_CAPACITY": errors.NoCapacity,
    "RATE_LIMITED": errors.RateLimited,
    "UNAVAILABLE": errors.Unavailable,
    "SERVER_SHUTDOWN": errors.Unavailable,
    "UNIMPLEMENTED": errors.Unsupported,
    "AUTHENTICATION_OFF": errors.Unsupported,
    "INTERNAL": errors.ServerError,
}

_C = grpc.StatusCode
# A status without ErrorInfo is made by gRPC itself or a proxy. A killed server's streams end with INTERNAL, and what a
# proxy cuts with CANCELLED.
_STATUSES: dict[grpc.StatusCode, type[errors.DalstonError]] = {
    _C.UNAVAILABLE: errors.Unavailable,
    _C.INTERNAL: errors.Unavailable,
    _C.CANCELLED: errors.Unavailable,
    _C.UNKNOWN: errors.Unavailable,
    _C.ABORTED: errors.Unavailable,
    _C.DATA_LOSS: errors.Unavailable,
    _C.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
    _C.RESOURCE_EXHAUSTED: errors.NoCapacity,
    _C.UNAUTHENTICATED: errors.AuthenticationError,
    _C.PERMISSION_DENIED: errors.PermissionDenied,
    _C.INVALID_ARGUMENT: errors.InvalidRequest,
    _C.OUT_OF_RANGE: errors.InvalidRequest,
    _C.NOT_FOUND: errors.NotFound,
    _C.UNIMPLEMENTED: errors.Unsupported,
    _C.FAILED_PRECONDITION: errors.Unsupported,
}


def error_of_reason(reason: str, message: str, metadata: Mapping[str, str]) -> errors.DalstonError:
    """The error for a reason that the service gave, in capitals; `ServerError` for one that is not known here."""
    kind = REASONS.get(reason, errors.ServerError)
    return kind(message or reason.lower().replace("_", " "), reason=reason, metadata=dict(metadata))


def error_of(failure: grpc.aio.AioRpcError) -> errors.DalstonError:
    """The error for the status of a call."""
    info = _error_info(failure.trailing_metadata() or ())
    details = failure.details() or ""
    if info is not None and info.reason in REASONS:
        return error_of_reason(info.reason, details, info.metadata)
    kind = _STATUSES.get(failure.code(), errors.ServerError)
    if issubclass(kind, errors.DeadlineExceeded):
        return kind("the service did not answer in time")
    if issubclass(kind, errors.Unavailable):
        return kind(f"the service cannot be reached: {details or failure.code().name.lower()}")
    return kind(details or failure.code().name.lower().replace("_", " "), reason=info.reason if info else "")


def _error_info(trailing: Any) -> ErrorInfo | None:
    details = next((value for key, value in trailing if key == _STATUS_DETAILS), None)
    if not isinstance(details, bytes):
        return None
    try:
        for detail in Status.FromString(details).details:
            info = ErrorInfo()
            if detail.Unpack(info) and info.domain == _DOMAIN:
                return info
    except DecodeError:
        return None
    return None
