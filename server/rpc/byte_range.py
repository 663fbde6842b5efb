"""The Range header: the requested part of a file (RFC 9110, section 14). Pure."""

import re
from dataclasses import dataclass
from typing import Final

_LONGEST: Final = 100
_RANGE: Final = re.compile(r"bytes=\s*(?:(\d+)-(\d*)|-(\d+))\s*", re.ASCII | re.IGNORECASE)


class RangeNotSatisfiable(Exception):
    """The range contains no byte of the file; `size` is the file's length."""

    def __init__(self, size: int) -> None:
        super().__init__(f"no byte of the range is in the file, which has {size} bytes")
        self.size = size


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes of a file, from `begin` to the one before `end`."""

    begin: int
    end: int

    def content_range(self, size: int) -> str:
        """The Content-Range header for this part of a file of `size` bytes."""
        return f"bytes {self.begin}-{self.end - 1}/{size}"


def requested_range(header: str, size: int) -> ByteRange | None:
    """The part of a file of `size` bytes that a Range header requests; None is the whole file.

    A header that cannot be parsed, or that requests several parts, is ignored.

    Raises:
        RangeNotSatisfiable: it requests bytes that the file does not have.
    """
    match = _RANGE.fullmatch(header) if len(header) <= _LONGEST else None
    if match is None:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        begin, end = max(0, size - int(suffix)), size
    else:
        begin, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < begin:
            return None
    if begin >= end:
        raise RangeNotSatisfiable(size)
    return ByteRange(begin, end)
