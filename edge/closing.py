"""Why a connection ends: from the status of the gRPC stream to a reason, which each protocol shows in its own way."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
from dalston.v1.error_reason_pb2 import ErrorReason
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

ERROR_DOMAIN = "dalston.v1"
STATUS_DETAILS = "grpc-status-details-bin"
_PREFIX = "ERROR_REASON_"
_REASONS = frozenset(ErrorReason.keys())


@dataclass(frozen=True, slots=True)
class CloseReason:
    """Why a connection ends."""

    reason: str
    """`COMPLETED`, `DISCONNECTED`, or a reason of error_reason.proto without its prefix."""
    message: str = ""
    """What went wrong, for a person."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """What ErrorInfo adds to its reason, such as the parameter that is wrong."""

    @property
    def is_error(self) -> bool:
        """Whether the client is sent an error."""
        return self.reason not in ("COMPLETED", "DISCONNECTED")

    @property
    def code(self) -> str:
        """The reason in lower case; empty when it is no error."""
        return self.reason.lower() if self.is_error else ""


COMPLETED = CloseReason("COMPLETED")
DISCONNECTED = CloseReason("DISCONNECTED")
"""Nothing can be sent any more, or the client does not take it."""

_LOST = ("UNAVAILABLE", "the transcription server cannot be reached; try again shortly")

# gRPC or a proxy made a status without ErrorInfo. Its text is about their internals and is not sent to the client.
_BARE_STATUSES: dict[grpc.StatusCode, tuple[str, str]] = {
    grpc.StatusCode.UNAVAILABLE: _LOST,
    # The streams of a killed server end with INTERNAL, those that a proxy resets with CANCELLED or DEADLINE_EXCEEDED,
    # and those that arrive while a server closes its port with CANCELLED.
    grpc.StatusCode.INTERNAL: _LOST,
    grpc.StatusCode.CANCELLED: _LOST,
    grpc.StatusCode.DEADLINE_EXCEEDED: _LOST,
    # The peer is no transcription server, or one of another version: an error of the deployment, not of the client.
    grpc.StatusCode.UNIMPLEMENTED: _LOST,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ("NO_CAPACITY", "the transcription server is busy; try again shortly"),
    grpc.StatusCode.UNAUTHENTICATED: ("UNAUTHENTICATED", "the key was not accepted"),
    grpc.StatusCode.PERMISSION_DENIED: ("PERMISSION_DENIED", "the key does not allow this"),
}


def close_reason_for(reason: str, message: str, metadata: Mapping[str, str] | None = None) -> CloseReason:
    """The close reason for a reason of error_reason.proto; INTERNAL for one that only a newer server knows."""
    if _PREFIX + reason not in _REASONS:
        reason = "INTERNAL"
    return CloseReason(reason, message, metadata or {})


def close_reason_of_failure(error: grpc.aio.AioRpcError) -> CloseReason:
    """The close reason for a stream that failed."""
    info = error_info(error.trailing_metadata() or ())
    if info is not None:
        return close_reason_for(info.reason, error.details() or info.reason.lower(), dict(info.metadata))
    reason, message = _BARE_STATUSES.get(error.code(), ("INTERNAL", "internal error"))
    return close_reason_for(reason, message)


def error_info(trailing: Iterable[Any]) -> ErrorInfo | None:
    """The ErrorInfo of the contract in trailing metadata, pairs of key and value; None if none can be read."""
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
