"""The position of a reader of changes: a snapshot of the committed transactions of Postgres.

Transactions do not commit in the order of their ids. A position is therefore a snapshot and not an id: every
transaction below `xmin` had ended, none from `xmax` on, and of those in between all but the ones in `running`. The new
changes are exactly those of transactions that the snapshot has not seen.

The encoded text is opaque to the client. A checksum rejects positions of other services, tenants and filters. It is not
a signature: a forged position only leaves out changes of the caller's own sessions.
"""

import base64
import binascii
import itertools
import struct
import zlib
from dataclasses import dataclass
from typing import Final
from uuid import UUID

_HEAD: Final = struct.Struct(">BQQQ")
_CHECKSUM: Final = struct.Struct(">I")
_VERSION: Final = 1
_MOST_RUNNING: Final = 64
"""With more running transactions, all from `xmin` on count as unseen. Some changes are then reported twice, but the
token stays short."""
_MOST_CHARACTERS: Final = 1_000
_LARGEST: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Position:
    """A snapshot, and the time at which it was taken."""

    at: int
    """Unix time in seconds, by the clock of Postgres."""
    xmin: int
    xmax: int
    running: tuple[int, ...] = ()

    @classmethod
    def of(cls, snapshot: str, at: float) -> "Position":
        """Parses the text form of Postgres: `xmin:xmax:xid,xid,...`."""
        xmin, xmax, running = snapshot.split(":")
        return cls(int(at), int(xmin), int(xmax), tuple(int(xid) for xid in running.split(",") if xid))

    @property
    def snapshot(self) -> str:
        """The text form of Postgres."""
        return f"{self.xmin}:{self.xmax}:{','.join(map(str, self.running))}"

    def has_seen(self, xid: int) -> bool:
        """Whether the transaction had ended when the snapshot was taken."""
        return xid < self.xmin or (xid < self.xmax and xid not in self.running)

    def encode(self, tenant_id: UUID, status: str | None) -> str:
        """URL-safe text without padding, at most 400 characters."""
        xmax, running = self.xmax, [xid - self.xmin for xid in self.running]
        if len(running) > _MOST_RUNNING or any(offset >= 2**32 for offset in running):
            xmax, running = self.xmin, []
        data = _HEAD.pack(_VERSION, self.at, self.xmin, xmax) + struct.pack(f">{len(running)}I", *running)
        return base64.urlsafe_b64encode(data + _checksum(data, tenant_id, status)).rstrip(b"=").decode("ascii")

    @classmethod
    def decode(cls, token: str, tenant_id: UUID, status: str | None) -> "Position | None":
        """Parses what `encode` wrote for this tenant and status; None for anything else."""
        if len(token) > _MOST_CHARACTERS:
            return None
        try:
            whole = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
            data = whole[: -_CHECKSUM.size]
            version, at, xmin, xmax = _HEAD.unpack(data[: _HEAD.size])
            offsets = struct.unpack(f">{(len(data) - _HEAD.size) // 4}I", data[_HEAD.size :])
        except (binascii.Error, ValueError, struct.error):
            return None
        if version != _VERSION or whole[-_CHECKSUM.size :] != _checksum(data, tenant_id, status):
            return None
        running = tuple(xmin + offset for offset in offsets)
        if not (0 < xmin <= xmax <= _LARGEST and all(xmin <= xid < xmax for xid in running)):
            return None
        if any(earlier >= later for earlier, later in itertools.pairwise(running)):
            return None  # Postgres accepts them in ascending order only
        return cls(at, xmin, xmax, running)


def _checksum(data: bytes, tenant_id: UUID, status: str | None) -> bytes:
    return _CHECKSUM.pack(zlib.crc32(tenant_id.bytes + (status or "").encode(), zlib.crc32(data)))
