"""A body of `multipart/form-data`, parsed as it arrives. Its parts come in any order."""

import logging
from typing import Final

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from uploads.body import BodyEvent, Budget, Field, FileBegin, FileData
from uploads.errors import ApiError, invalid

_FILE: Final = "file"
# The encodings that leave the bytes as they are.
_PLAIN_ENCODINGS: Final = (b"", b"binary", b"8bit", b"7bit")

# At WARNING the library logs a line for each malformed body, with bytes of it.
logging.getLogger("python_multipart.multipart").setLevel(logging.ERROR)


def boundary_of(content_type: str) -> bytes:
    """The boundary in a `Content-Type` of `multipart/form-data`.

    Raises:
        ApiError: there is none, or it is too long.
    """
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if not 0 < len(boundary) <= 200:
        raise invalid("the content type multipart/form-data needs a boundary of 1 to 200 characters", None)
    return boundary


class MultipartBody:
    """Parses one body. See `BodyParser`."""

    def __init__(self, boundary: bytes) -> None:
        self._events: list[BodyEvent] = []
        self._budget = Budget()
        self._headers: dict[bytes, bytes] = {}
        self._header_name = b""
        self._header_value = b""
        self._part: str | None = None
        self._value = bytearray()
        self._has_file = False
        self._is_complete = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin_part,
                "on_header_field": self._extend_header_name,
                "on_header_value": self._extend_header_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._end_headers,
                "on_part_data": self._part_data,
                "on_part_end": self._end_part,
                "on_end": self._end,
            },
            max_header_count=16,
            max_header_size=8192,
        )

    def feed(self, data: bytes) -> list[BodyEvent]:
        if not self._is_complete:  # What follows the last boundary means nothing.
            try:
                self._parser.write(data)
            except FormParserError as error:
                raise _malformed(str(error)) from None
        events, self._events = self._events, []
        return events

    def finish(self) -> list[BodyEvent]:
        if not self._is_complete:
            raise _malformed("it ends before its last boundary")
        return []

    def _begin_part(self) -> None:
        self._headers = {}
        self._header_name = self._header_value = b""
        self._part = None

    def _extend_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _extend_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        self._headers[self._header_name.lower()] = self._header_value
        self._header_name = self._header_value = b""

    def _end_headers(self) -> None:
        kind, options = parse_options_header(self._headers.get(b"content-disposition", b"").decode("latin-1"))
        name = options.get(b"name")
        if kind != b"form-data" or name is None:
            raise _malformed("a part has no name")
        if self._headers.get(b"content-transfer-encoding", b"").strip().lower() not in _PLAIN_ENCODINGS:
            raise _malformed("a part has a transfer encoding, which multipart/form-data does not have")
        self._part = _text(name, None)
        if not self._budget.has_room(fields=1, size=len(name)):
            raise _too_many()
        if self._part == _FILE:
            if self._has_file:
                raise invalid("there is more than one file", _FILE)
            self._has_file = True
            self._events.append(FileBegin(options.get(b"filename", b"").decode(errors="replace")))

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._part == _FILE:
            self._events.append(FileData(data[start:end]))
            return
        if not self._budget.has_room(size=end - start):
            raise _too_many(self._part)
        self._value += data[start:end]

    def _end_part(self) -> None:
        if self._part is None:
            raise _malformed("a part has no name")
        if self._part != _FILE:
            self._events.append(Field(self._part, _text(bytes(self._value), self._part)))
            self._value.clear()

    def _end(self) -> None:
        self._is_complete = True


def _text(data: bytes, param: str | None) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise invalid("a field is not UTF-8", param) from None


def _too_many(param: str | None = None) -> ApiError:
    return invalid("the fields other than the file are too many or too large", param)


def _malformed(what: str) -> ApiError:
    return invalid(f"the body is not multipart/form-data of the boundary in the content type: {what}", None)
