"""A JSON body whose file is text: `{"model", ..., "input_audio": {"data": BASE64, "format"}}`, parsed as it arrives.

The text of `input_audio.data` is decoded piece by piece; the rest of the body, which is small, is kept and parsed at
its end.
"""

import base64
import binascii
import json
import re
from enum import Enum, auto
from typing import Any, Final

from uploads.body import MAX_FIELDS, MAX_FIELDS_BYTES, BodyEvent, Field, FileBegin, FileData
from uploads.errors import ApiError, invalid

_AUDIO: Final = "input_audio"
_PATH: Final = [_AUDIO, "data"]
_STRUCTURAL: Final = re.compile(rb'["{}\[\],:]')
_STRING_END: Final = re.compile(rb'["\\]')
_MAX_DEPTH: Final = 32
_DECODED_BYTES: Final = 64 * 1024


class _State(Enum):
    STRUCTURE = auto()
    STRING = auto()
    AUDIO = auto()


class JsonBody:
    """Parses one body. See `BodyParser`: all fields are returned by `finish`."""

    def __init__(self) -> None:
        self._rest = bytearray()
        """The body without the text of the file."""
        self._state = _State.STRUCTURE
        self._is_escaped = False
        self._string_from = 0
        # For each open object or array its last key; None in an array, and in an object before its first.
        self._keys: list[str | None] = []
        self._is_object: list[bool] = []
        self._is_key = False
        self._encoded = bytearray()
        self._has_file = False

    def feed(self, data: bytes) -> list[BodyEvent]:
        events: list[BodyEvent] = []
        position = 0
        while position < len(data):
            match self._state:
                case _State.STRUCTURE:
                    position = self._structure(data, position, events)
                case _State.STRING:
                    position = self._string(data, position)
                case _State.AUDIO:
                    position = self._audio(data, position, events)
        return events

    def finish(self) -> list[BodyEvent]:
        try:
            # A body that ends inside of a string is no JSON either.
            body = json.loads(self._rest.decode())
        except (ValueError, RecursionError):
            raise invalid("the body is not JSON in UTF-8", None) from None
        if not isinstance(body, dict):
            raise invalid("the body must be a JSON object", None)
        if not self._has_file:
            raise invalid("input_audio.data must have the file, in base64", _AUDIO)
        events: list[BodyEvent] = [
            Field(name, text) for name, value in body.items() if name != _AUDIO for text in _texts(value)
        ]
        if len(events) > MAX_FIELDS:
            raise _too_many()
        return events

    def _keep(self, data: bytes) -> None:
        self._rest += data
        if len(self._rest) > MAX_FIELDS_BYTES:
            raise _too_many()

    def _structure(self, data: bytes, position: int, events: list[BodyEvent]) -> int:
        found = _STRUCTURAL.search(data, position)
        if found is None:
            self._keep(data[position:])
            return len(data)
        self._keep(data[position : found.end()])
        match found[0]:
            case b"{" | b"[":
                if len(self._keys) == _MAX_DEPTH:
                    raise invalid("the body is nested too deeply", None)
                self._keys.append(None)
                self._is_object.append(found[0] == b"{")
                self._is_key = self._is_object[-1]
            case b"}" | b"]":
                if not self._keys:
                    raise invalid("the body is not JSON in UTF-8", None)
                self._keys.pop()
                self._is_object.pop()
                self._is_key = False
            case b",":
                self._is_key = bool(self._is_object) and self._is_object[-1]
            case b":":
                self._is_key = False
            case _:
                self._begin_string(events)
        return found.end()

    def _begin_string(self, events: list[BodyEvent]) -> None:
        self._string_from = len(self._rest)
        if self._is_key or self._keys != _PATH or not all(self._is_object):
            self._state = _State.STRING
            return
        if self._has_file:
            raise invalid("there is more than one file", _AUDIO)
        self._state, self._has_file = _State.AUDIO, True
        events.append(FileBegin(""))

    def _string(self, data: bytes, position: int) -> int:
        if self._is_escaped:
            self._is_escaped = False
            self._keep(data[position : position + 1])
            return position + 1
        found = _STRING_END.search(data, position)
        if found is None:
            self._keep(data[position:])
            return len(data)
        self._keep(data[position : found.end()])
        if found[0] == b"\\":
            self._is_escaped = True
        else:
            self._end_string()
        return found.end()

    def _end_string(self) -> None:
        self._state = _State.STRUCTURE
        if self._is_key:
            # An escape in a key is no reason to read it: none of the keys that count has one.
            self._keys[-1] = self._rest[self._string_from : -1].decode(errors="replace")

    def _audio(self, data: bytes, position: int, events: list[BodyEvent]) -> int:
        if self._is_escaped:
            self._is_escaped = False
            # Of the escapes that base64 may have: a slash, and line breaks, which mean nothing.
            if data[position : position + 1] not in (b"/", b"n", b"r"):
                raise _not_base64()
            self._encoded += b"/" if data[position : position + 1] == b"/" else b""
            return position + 1
        found = _STRING_END.search(data, position)
        end = len(data) if found is None else found.start()
        self._encoded += data[position:end]
        if found is not None and found[0] == b"\\":
            self._is_escaped = True
        elif found is not None:
            self._decode(events, is_last=True)
            self._keep(b'"')
            self._state = _State.STRUCTURE
        if len(self._encoded) >= _DECODED_BYTES:
            self._decode(events, is_last=False)
        return len(data) if found is None else found.end()

    def _decode(self, events: list[BodyEvent], *, is_last: bool) -> None:
        size = len(self._encoded) if is_last else len(self._encoded) // 4 * 4
        encoded = bytes(self._encoded[:size])
        del self._encoded[:size]
        try:
            data = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            raise _not_base64() from None
        # Padding before the end would be two files in one.
        if not is_last and encoded.endswith(b"="):
            raise _not_base64()
        if data:
            events.append(FileData(data))


def _texts(value: Any) -> list[str]:
    """The texts of a value; a list is one for each of its items."""
    match value:
        case None:
            return []
        case str():
            return [value]
        case bool() | int() | float():
            return [json.dumps(value)]
        case list():
            return [text for item in value for text in _texts(item)]
    return [json.dumps(value)]


def _not_base64() -> ApiError:
    return invalid("input_audio.data is not base64", _AUDIO)


def _too_many() -> ApiError:
    return invalid("the fields other than the file are too many or too large", None)
