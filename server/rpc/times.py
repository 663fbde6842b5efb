"""Times as messages have them."""

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp


def timestamp(time: datetime | None) -> Timestamp | None:
    """A time as a message; None stays None, which leaves the field unset."""
    if time is None:
        return None
    message = Timestamp()
    message.FromDatetime(time)
    return message
