"""The interface of client protocols. The relay and the listener know this interface only.

A protocol translates: frames of a client to requests of `Transcribe`, and its responses to text frames. It does no I/O
and knows no clock, so that it can be tested with recorded dialogues. The relay does the rest: flow control, pings,
graceful shutdown, timeouts, and the report to the server that a client broke the protocol.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import ClassVar, TypeAlias

from dalston.v1.transcription_pb2 import TranscribeConfig, TranscribeRequest, TranscribeResponse
from websockets.datastructures import Headers

from edge.closing import CloseReason

MAX_QUERY_BYTES = 60 * 1024
"""Longest query string that the listener takes. The largest vocabulary of the contract fits in most scripts,
percent-encoded; Envoy takes no larger request head either."""

MAX_FRAME_BYTES = 65536
"""Largest chunk of audio that the server takes, and so the largest WebSocket frame unless a protocol encodes audio."""


@dataclass(frozen=True, slots=True)
class Opening:
    """The result of reading the handshake of one connection."""

    config: TranscribeConfig | None
    """The parameters of the session; None where the client sends them in a message (`Begin`)."""
    authorization: str = field(default="", repr=False)
    """The caller's key as the server expects it in `authorization`, such as `Bearer KEY`. It must not be logged."""
    subprotocol: str | None = None
    """Which of the offered WebSocket subprotocols is accepted; never one that holds a key."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Further headers of the 101 response."""


@dataclass(frozen=True, slots=True)
class ClientText:
    """A text frame for the client."""

    text: str


@dataclass(frozen=True, slots=True)
class Begin:
    """The client has configured the session: it begins now. Once a connection, before any `TranscribeRequest`."""

    config: TranscribeConfig


@dataclass(frozen=True, slots=True)
class End:
    """The client has ended the session. Frames that follow are ignored; responses still come."""


Action: TypeAlias = TranscribeRequest | ClientText | Begin | End
"""What a frame of a client causes. A `TranscribeRequest` is audio or a control other than `end`."""


@dataclass(frozen=True, slots=True)
class Closing:
    """How a protocol closes a WebSocket."""

    code: int
    """The close code."""
    reason: str = ""
    """The reason in the close frame, at most 123 bytes."""
    message: str | None = None
    """The text frame before it, such as an error."""


@dataclass(frozen=True, slots=True)
class HandshakeRefusal:
    """The HTTP response to a handshake that is refused."""

    status: HTTPStatus
    headers: Mapping[str, str] = field(default_factory=dict)
    """Beside `Content-Length` and `Connection`."""
    body: bytes = b""


class ClientProtocol(ABC):
    """One connection of one client.

    `opening` is called first and once. From then on `receive` and `send` are called in the order of the frames and of
    the responses, and the client gets all texts in the order in which the two returned them.
    """

    max_frame_bytes: ClassVar[int] = MAX_FRAME_BYTES
    """Largest WebSocket frame that is read; a larger one is refused with MESSAGE_TOO_BIG."""
    close_is_end: ClassVar[bool] = False
    """Whether a client that closes with 1000 or 1001 has ended its session, where others must send an end."""
    refuses_at_handshake: ClassVar[bool] = False
    """Whether a refusal is an HTTP response (`refuse`), where others are accepted and closed with an error."""
    begins_in_handshake: ClassVar[bool] = False
    """Whether the session begins before the 101 response, so that the server's refusals are HTTP responses, too. It
    needs `refuses_at_handshake`, and a config in the opening."""
    parks_idle_sessions: ClassVar[bool] = False
    """Whether the session of a client that sends no audio is ended and begun again at its next audio. The relay does
    not do it yet."""

    @abstractmethod
    def opening(self, path: str, query: str, headers: Headers) -> Opening:
        """Reads the handshake. `query` is percent-encoded.

        Raises:
            Refused: with the reason.
        """

    @abstractmethod
    def receive(self, frame: bytes | str) -> Sequence[Action]:
        """Translates one frame of the client.

        Raises:
            Refused: the frame breaks the protocol; the session ends with an error.
        """

    @abstractmethod
    def send(self, response: TranscribeResponse) -> Sequence[str]:
        """Translates one response of the server to text frames: none, one or several.

        `session_terminating` comes from the bridge too, when it stops.
        """

    def tick(self, _audio_seconds: float) -> Sequence[str]:
        """Text frames that are due because the server has processed so much audio.

        It is called with `processed_seconds` after each `audio_ack`, so a protocol that needs it sets `acks`.
        """
        return ()

    @abstractmethod
    def close(self, reason: CloseReason) -> Closing:
        """How the connection is closed for a reason."""

    def refuse(self, reason: CloseReason) -> HandshakeRefusal:
        """The response to a handshake, where `refuses_at_handshake`."""
        raise NotImplementedError(f"{type(self).__name__} does not refuse at the handshake ({reason.code})")


Protocols: TypeAlias = Mapping[str, Callable[[], ClientProtocol]]
"""What makes the protocol of a connection, by the path of its handshake."""
