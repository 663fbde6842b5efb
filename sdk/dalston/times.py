"""Points in time, for the wire."""

from __future__ import annotations

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp


def timestamp(time: datetime | None) -> Timestamp | None:
    """The message for a time; one without a zone is local time."""
    if time is None:
        return None
    message = Timestamp()
    message.FromDatetime(time.astimezone())
    return message
