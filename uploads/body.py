"""What the body of a request consists of, whatever its media type: named fields, and the bytes of one file."""

from dataclasses import dataclass
from typing import Protocol, TypeAlias

MAX_FIELDS = 300
"""The most fields of a request."""
MAX_FIELDS_BYTES = 256 * 1024
"""The most bytes of all names and values together."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field; one that is a list comes once for each of its items."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class FileBegin:
    """The file begins."""

    name: str
    """As the client has it; may be empty."""


@dataclass(frozen=True, slots=True)
class FileData:
    """The next bytes of the file; never empty."""

    data: bytes


BodyEvent: TypeAlias = Field | FileBegin | FileData


class BodyParser(Protocol):
    """Parses a body that arrives in pieces of any size. It does no I/O and keeps no file."""

    def feed(self, data: bytes) -> list[BodyEvent]:
        """What the next piece contains.

        Raises:
            ApiError: the body is malformed or over a limit.
        """

    def finish(self) -> list[BodyEvent]:
        """What is left when the body has ended.

        Raises:
            ApiError: the body is incomplete.
        """


class Budget:
    """Counts the fields of a body against the limits."""

    def __init__(self) -> None:
        self._fields = 0
        self._bytes = 0

    def has_room(self, *, fields: int = 0, size: int = 0) -> bool:
        """Adds to the counts; False once a limit is passed."""
        self._fields += fields
        self._bytes += size
        return self._fields <= MAX_FIELDS and self._bytes <= MAX_FIELDS_BYTES
