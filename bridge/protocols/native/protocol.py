"""The native protocol: one object per connection."""

from collections.abc import Sequence

from dalston.v1.transcription_pb2 import TranscribeResponse
from websockets.datastructures import Headers

from bridge.protocols.interface import Action, ClientProtocol, ClientText, Closing, End, Opening
from bridge.protocols.native.close_codes import CLOSE_CODES
from bridge.protocols.native.frames import decode_frame, encode_error, encode_response, unsupported_warning
from bridge.protocols.native.parameters import parse_query
from edge.closing import CloseReason
from edge.metadata import authorization

PATH = "/v1/audio/transcriptions/stream"


class NativeProtocol(ClientProtocol):
    """Configured by the query string. No message comes before `session.begin`; a refusal is an `error` message."""

    def __init__(self) -> None:
        self._has_begun = False
        self._pending_warnings: list[str] = []  # Parameters and messages to warn of once the session has begun.

    def opening(self, path: str, query: str, headers: Headers) -> Opening:
        parameters = parse_query(query)
        self._pending_warnings += parameters.unsupported
        key = authorization(headers.get_all("Authorization"), parameters.key)
        return Opening(parameters.config, key)

    def receive(self, frame: bytes | str) -> Sequence[Action]:
        decoded = decode_frame(frame)
        if decoded.request.control.HasField("end"):
            return (End(),)
        if not self._has_begun:
            self._pending_warnings += decoded.unsupported
            return (decoded.request,)
        return (decoded.request, *(ClientText(_warning(name)) for name in decoded.unsupported))

    def send(self, response: TranscribeResponse) -> Sequence[str]:
        text = encode_response(response)
        texts = [text] if text is not None else []
        if not self._has_begun:
            self._has_begun = True
            if not response.HasField("session_end"):
                texts += [_warning(name) for name in self._pending_warnings]
        return texts

    def close(self, reason: CloseReason) -> Closing:
        code = CLOSE_CODES[reason.reason]
        return Closing(code, reason.code, encode_error(reason) if reason.is_error else None)


def _warning(name: str) -> str:
    text = encode_response(unsupported_warning(name))
    assert text is not None  # noqa: S101 - a warning has an encoder
    return text
