"""The errors that refuse or end a session.

SessionError
├── BadInput
│   ├── InvalidParameter
│   ├── InvalidModel
│   ├── InvalidMessage
│   ├── InvalidAudio
│   └── MessageTooBig
├── NotBuilt
├── NoCapacity
├── IdleTimeout
├── SessionTimeout
├── SessionEnded
├── KeyEnded
└── ServerStopping
"""


class SessionError(Exception):
    """A session is refused or ended. The message is for the client."""


class BadInput(SessionError):
    """The client sent invalid input."""


class InvalidParameter(BadInput):
    """A parameter is out of range or contradicts another."""

    def __init__(self, parameter: str, message: str) -> None:
        super().__init__(f"{parameter}: {message}")
        self.parameter = parameter


class InvalidModel(BadInput):
    """No model of this name is configured."""


class InvalidMessage(BadInput):
    """A message is not part of the contract, or is not allowed at this point."""


class InvalidAudio(BadInput):
    """An audio message is not a whole number of samples."""


class MessageTooBig(BadInput):
    """An audio message is over the limit."""


class NotBuilt(SessionError):
    """The contract has this feature, and the server does not support it yet."""


class NoCapacity(SessionError):
    """This server cannot admit another session now."""


class IdleTimeout(SessionError):
    """Nothing was received for longer than the idle timeout."""


class SessionTimeout(SessionError):
    """The session exceeded its longest duration."""


class SessionEnded(SessionError):
    """The end of the session was requested by another call."""

    def __init__(self) -> None:
        super().__init__("the session was ended on request")


class KeyEnded(SessionError):
    """The key that began the session is no longer valid."""

    def __init__(self) -> None:
        super().__init__("the key of this session was revoked or has expired")


class ServerStopping(SessionError):
    """The server is shutting down. The session can be resumed on another server, or on this one later."""
