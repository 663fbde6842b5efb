"""How a WebSocket ends: from the status of the gRPC stream to an `error` message and a close code."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

ERROR_DOMAIN = "dalston.v1"
STATUS_DETAILS = "grpc-status-details-bin"


@dataclass(frozen=True, slots=True)
class CloseReason:
    """The last words to a client: an `error` message, where there is one, and a close frame."""

    close_code: int
    """The WebSocket close code. 1006 is never sent: nobody is there to hear it."""
    code: str = ""
    """The `code` of the `error` message; empty when the end is no error."""
    message: str = ""
    """What went wrong, for a person."""
    recoverable: bool = False
    """Whether the same request may succeed when it is made again, after a while."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """What ErrorInfo adds to its reason, such as the parameter that is wrong."""


COMPLETED = CloseReason(1000)
GONE = CloseReason(1006)

# Every reason of error_reason.proto: the close code, and whether trying again may help.
_REASONS: dict[str, tuple[int, bool]] = {
    "INVALID_PARAMETERS": (4400, False),
    "INVALID_MESSAGE": (4400, False),
    "INVALID_AUDIO": (4400, False),
    "INVALID_MODEL": (4400, False),
    "UNIMPLEMENTED": (4400, False),
    "MESSAGE_TOO_BIG": (1009, False),
    "UNAUTHENTICATED": (4001, False),
    "PERMISSION_DENIED": (4003, False),
    "SESSION_NOT_FOUND": (4404, False),
    "AUDIO_NOT_STORED": (4404, False),
    "TRANSCRIPT_NOT_STORED": (4404, False),
    "KEY_NOT_FOUND": (4404, False),
    "PATH_NOT_FOUND": (4404, False),
    "SESSION_ACTIVE": (4409, True),
    "SESSION_RESUMED": (4409, False),
    "SESSION_ENDED": (4410, False),
    "AUTHENTICATION_OFF": (4400, False),
    "INVALID_RANGE": (4400, False),
    "IDLE_TIMEOUT": (4408, True),
    "SESSION_TIMEOUT": (4408, True),
    "TOO_MANY_SESSIONS": (4429, True),
    "TOO_MANY_KEYS": (4429, False),
    "STORAGE_QUOTA_EXCEEDED": (4429, False),
    "RATE_LIMITED": (4429, True),
    "NO_CAPACITY": (4503, True),
    "UNAVAILABLE": (4503, True),
    "SERVER_SHUTDOWN": (1012, True),
    "INTERNAL": (1011, False),
}

_LOST = ("UNAVAILABLE", "the transcription server cannot be reached; try again shortly")

# A status without ErrorInfo was made by gRPC or a proxy. Its text is about their insides and stays here.
_BARE_STATUSES: dict[grpc.StatusCode, tuple[str, str]] = {
    grpc.StatusCode.UNAVAILABLE: _LOST,
    # A killed server's streams end with INTERNAL, a proxy's resets with CANCELLED or DEADLINE_EXCEEDED, and what comes
    # while a server closes its port with CANCELLED.
    grpc.StatusCode.INTERNAL: _LOST,
    grpc.StatusCode.CANCELLED: _LOST,
    grpc.StatusCode.DEADLINE_EXCEEDED: _LOST,
    # The other end is no transcription server, or one of another version: a matter of deployment, not of the client.
    grpc.StatusCode.UNIMPLEMENTED: _LOST,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ("NO_CAPACITY", "the transcription server is busy; try again shortly"),
    grpc.StatusCode.UNAUTHENTICATED: ("UNAUTHENTICATED", "the key was not accepted"),
    grpc.StatusCode.PERMISSION_DENIED: ("PERMISSION_DENIED", "the key does not allow this"),
}


def close_reason_for(reason: str, message: str, metadata: Mapping[str, str] | None = None) -> CloseReason:
    """The ending for a reason of error_reason.proto; one that a newer server knows and we do not is `internal`."""
    if reason not in _REASONS:
        reason = "INTERNAL"
    close_code, recoverable = _REASONS[reason]
    return CloseReason(close_code, reason.lower(), message, recoverable, metadata or {})


def close_reason_of_failure(error: grpc.aio.AioRpcError) -> CloseReason:
    """The ending for a stream that failed."""
    info = error_info(error.trailing_metadata() or ())
    if info is not None:
        return close_reason_for(info.reason, error.details() or info.reason.lower(), dict(info.metadata))
    reason, message = _BARE_STATUSES.get(error.code(), ("INTERNAL", "internal error"))
    return close_reason_for(reason, message)


def error_info(trailing: Iterable[Any]) -> ErrorInfo | None:
    """Our ErrorInfo out of trailing metadata, pairs of key and value; None where there is none that can be read."""
    details = next((value for key, value in trailing if key == STATUS_DETAILS), None)
    if not isinstance(details, bytes):
        return None
    try:
        status = Status.FromString(details)
        for detail in status.details:
            info = ErrorInfo()
            if detail.Unpack(info) and info.domain == ERROR_DOMAIN:
                return info
    except DecodeError:
        return None
    return None
