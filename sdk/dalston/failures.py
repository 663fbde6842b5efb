"""Converts gRPC statuses and error reasons to the errors of this package."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from dalston import errors

_DOMAIN = "dalston.v1"
_STATUS_DETAILS = "grpc-status-details-bin"

# Every reason of error_reason.proto. The status determines the error for a reason of a newer service.
REASONS: dict[str, type[errors.DalstonError]] = {
    "INVALID_PARAMETERS": errors.InvalidRequest,
    "INVALID_MESSAGE": errors.InvalidRequest,
    "INVALID_AUDIO": errors.InvalidRequest,
    "INVALID_MODEL": errors.InvalidRequest,
    "MESSAGE_TOO_BIG": errors.InvalidRequest,
    "INVALID_RANGE": errors.InvalidRequest,
    "UNSUPPORTED_MEDIA": errors.UnsupportedMedia,
    "FILE_TOO_BIG": errors.FileTooBig,
    "UNAUTHENTICATED": errors.AuthenticationError,
    "PERMISSION_DENIED": errors.PermissionDenied,
    "ORIGIN_NOT_ALLOWED": errors.PermissionDenied,
    "SESSION_NOT_FOUND": errors.NotFound,
    "AUDIO_NOT_STORED": errors.NotFound,
    "TRANSCRIPT_NOT_STORED": errors.NotFound,
    "TRANSCRIPT_NOT_FOUND": errors.NotFound,
    "JOB_NOT_FOUND": errors.NotFound,
    "NO_ENHANCEMENT": errors.NotFound,
    "KEY_NOT_FOUND": errors.NotFound,
    "LOGIN_NOT_FOUND": errors.NotFound,
    "PATH_NOT_FOUND": errors.NotFound,
    "SESSION_ACTIVE": errors.SessionActive,
    "SESSION_RESUMED": errors.SessionResumed,
    "SESSION_ENDED": errors.SessionEnded,
    "IDLE_TIMEOUT": errors.SessionTimeout,
    "SESSION_TIMEOUT": errors.SessionTimeout,
    "ENHANCEMENT_RUNNING": errors.JobRunning,
    "JOB_ACTIVE": errors.JobActive,
    "TOO_MANY_JOBS": errors.TooManyJobs,
    "TOO_MANY_SESSIONS": errors.TooManySessions,
    "TOO_MANY_KEYS": errors.TooManyKeys,
    "STORAGE_QUOTA_EXCEEDED": errors.StorageQuotaExceeded,
    "NO_CAPACITY": errors.NoCapacity,
    "RATE_LIMITED": errors.RateLimited,
    "UNAVAILABLE": errors.Unavailable,
    "SERVER_SHUTDOWN": errors.Unavailable,
    "UNIMPLEMENTED": errors.Unsupported,
    "AUTHENTICATION_OFF": errors.Unsupported,
    "INTERNAL": errors.ServerError,
}

_C = grpc.StatusCode
# gRPC itself or a proxy sends a status without ErrorInfo. The streams of a killed server end with INTERNAL, and those
# that a proxy cuts with CANCELLED.
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

# gRPC's messages about failed connections. Messages in another form are shown unchanged.
_NOT_CONNECTED = re.compile(
    r"failed to connect to all addresses; last error: \w+: "
    r"(?:ipv[46]:)?(?P<where>\S+): (?:Failed to connect to remote host: )?(?P<why>.*)",
    re.DOTALL,
)
_NOT_RESOLVED = re.compile(r"address lookup failed for (?P<where>\S+): (?P<why>[^\]]+)")
_HANDSHAKE = re.compile(r"SSL routines:OPENSSL_internal:(.*?)(?:: Invalid certificate verification context)?(?:: OK)?$")
_HTTP_STATUS = re.compile(r"(?:http2 header with status: |HTTP status )(\d{3})")


# gRPC's and Envoy's messages about a service to which there was no connection at all.
_UNREACHED = re.compile(r"no healthy upstream|connection failure|[Cc]onnection refused|failed to connect|lookup failed")


def is_unreached(error: errors.DalstonError) -> bool:
    """Whether the message states that no server received the call."""
    return isinstance(error, errors.Unavailable) and _UNREACHED.search(error.message) is not None


def error_of_reason(reason: str, message: str, metadata: Mapping[str, str]) -> errors.DalstonError:
    """The error for a reason that the service sent, in capitals; `ServerError` for an unknown reason."""
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
        return kind("the service did not respond in time")
    if issubclass(kind, errors.Unavailable):
        return kind(f"the service cannot be reached: {plain(details) or failure.code().name.lower()}")
    if info is None and (status := _HTTP_STATUS.search(details)):
        return kind(f"there is no Dalston service at this address; the response was HTTP status {status[1]}")
    if info is None and kind is errors.Unsupported:
        suffix = f" ({details})" if details else ""
        return kind(f"the service does not support this request; it may be older than this client{suffix}")
    return kind(details or failure.code().name.lower().replace("_", " "), reason=info.reason if info else "")


def plain(details: str) -> str:
    """Rewrites gRPC's message about a failed connection in plain words."""
    if found := _NOT_CONNECTED.match(details):
        where, why = unquote(found["where"]), found["why"]
        if handshake := _HANDSHAKE.search(why):
            why = f"TLS failed: {handshake[1].strip(': ').replace('_', ' ').lower()}"
        elif http := _HTTP_STATUS.search(why):
            why = f"it does not speak gRPC (HTTP status {http[1]})"
        return f"{where}: {why}"
    if found := _NOT_RESOLVED.search(details):
        return f"{found['where']}: {found['why']}"
    return details


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
