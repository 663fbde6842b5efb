"""Conversion of times to protobuf."""

from __future__ import annotations

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp


def timestamp(time: datetime | None) -> Timestamp | None:
    """Converts a time to a message; a time without a zone is local time."""
    if time is None:
        return None
    message = Timestamp()
    message.FromDatetime(time.astimezone())
    return message
