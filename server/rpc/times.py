"""Conversion of times to messages."""

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp


def timestamp(time: datetime | None) -> Timestamp | None:
    """The message of a time. None stays None, which leaves the field unset."""
    if time is None:
        return None
    message = Timestamp()
    message.FromDatetime(time)
    return message
