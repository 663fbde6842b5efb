"""What can be wrong with a session.

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
    """The client sent something it must not."""


class InvalidParameter(BadInput):
    """A parameter is out of range or contradicts another."""

    def __init__(self, parameter: str, message: str) -> None:
        super().__init__(f"{parameter}: {message}")
        self.parameter = parameter


class InvalidModel(BadInput):
    """No model of this name is configured."""


class InvalidMessage(BadInput):
    """A message is none of the contract's, or out of turn."""


class InvalidAudio(BadInput):
    """An audio message is not a whole number of samples."""


class MessageTooBig(BadInput):
    """An audio message is over the limit."""


class NotBuilt(SessionError):
    """The contract has it, this server does not have it yet."""


class NoCapacity(SessionError):
    """This server cannot take another stream now."""


class IdleTimeout(SessionError):
    """Nothing was received for too long."""


class SessionTimeout(SessionError):
    """The session grew too long."""


class SessionEnded(SessionError):
    """Somebody asked for the session's end."""

    def __init__(self) -> None:
        super().__init__("the session was ended on request")


class KeyEnded(SessionError):
    """The key that began the session is not good any more."""

    def __init__(self) -> None:
        super().__init__("the key of this session was revoked or has expired")


class ServerStopping(SessionError):
    """The server is about to stop; another, or this one in a while, takes the session up again."""
