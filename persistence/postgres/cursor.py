"""The list's cursor: the place after a session in the order newest first, opaque to the client.

It holds the tenant's own started_at and id, which are not secret. A checksum detects typing errors. It is not a
signature: a forged cursor only names another place in the caller's own list.
"""

import base64
import binascii
import struct
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from domain.errors import InvalidFilter

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PLACE = struct.Struct(">Bq16s")
_CHECKSUM = struct.Struct(">I")
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Cursor:
    """The place right after the session with this start and id."""

    started_at: datetime
    id: UUID

    def encode(self) -> str:
        """URL-safe text without padding."""
        microseconds = (self.started_at - _EPOCH) // timedelta(microseconds=1)
        place = _PLACE.pack(_VERSION, microseconds, self.id.bytes)
        return base64.urlsafe_b64encode(place + _CHECKSUM.pack(zlib.crc32(place))).rstrip(b"=").decode("ascii")

    @classmethod
    def decode(cls, text: str) -> "Cursor":
        """Reads what `encode` wrote.

        Raises:
            InvalidFilter: the text is not a cursor.
        """
        refusal = InvalidFilter("cursor", "the cursor is none that this server made")
        try:
            data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            place = data[: -_CHECKSUM.size]
            version, microseconds, identifier = _PLACE.unpack(place)
            started_at = _EPOCH + timedelta(microseconds=microseconds)
        except (binascii.Error, ValueError, struct.error, OverflowError):
            raise refusal from None
        if version != _VERSION or data[-_CHECKSUM.size :] != _CHECKSUM.pack(zlib.crc32(place)):
            raise refusal
        return cls(started_at, UUID(bytes=identifier))
