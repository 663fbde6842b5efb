"""What the bridge itself refuses, in the words of the contract."""

from typing import Literal

Reason = Literal["INVALID_PARAMETERS", "INVALID_MESSAGE", "MESSAGE_TOO_BIG", "UNAUTHENTICATED"]


class Refused(Exception):
    """What a client sent is none of the contract's.

    `reason` is an `ErrorReason` without its prefix, `message` says to the client what was wrong and how it must be.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason
        self.message = message
