"""Refusals by a process of the edge itself, with reasons of the contract."""

from typing import Literal

Reason = Literal[
    "INVALID_PARAMETERS",
    "INVALID_MESSAGE",
    "INVALID_AUDIO",
    "INVALID_MODEL",
    "MESSAGE_TOO_BIG",
    "UNAUTHENTICATED",
    "UNIMPLEMENTED",
]


class Refused(Exception):
    """A client sent something that its protocol does not allow.

    `reason` is an `ErrorReason` without its prefix; `message` is for the client: what was wrong, and what is right.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason
        self.message = message


def too_big(max_bytes: int) -> Refused:
    """The refusal of a WebSocket frame over the limit."""
    return Refused("MESSAGE_TOO_BIG", f"a message is over {max_bytes} bytes; send audio in smaller pieces")
