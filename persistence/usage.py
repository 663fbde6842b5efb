"""How much audio tenants store, remembered for a while: the sum over a tenant's sessions costs as much as it has of
them."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from prometheus_client import Gauge
from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from persistence.errors import StorageQuotaExceeded
from persistence.tables import realtime_sessions
from persistence.tenancy import REFUSALS

REMEMBERED_SECONDS: Final = 60.0
_FULL_SECONDS: Final = 5.0
"""How long it is remembered that a tenant stores too much: whoever deletes sessions does not wait for a minute."""
_COST: Final = 100.0
"""A sum that took long is remembered for so many times as long at least."""
_MOST: Final = 10_000
_SPARE: Final = 1.1
"""Whoever continues a session may go so far beyond the quota: a broken connection does not end a recording."""

_stored = Gauge("dalston_tenant_stored_bytes", "Stored audio of tenants with a quota, as last counted", ["tenant_id"])

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class _Count:
    bytes: int
    at: float
    seconds: float
    """How long it took."""


class StorageUsage:
    """One for a process. A count is a minute old at most, unless it took more than 0.6 s."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._counts: OrderedDict[UUID, _Count] = OrderedDict()

    async def refuse_too_much(
        self, connection: AsyncConnection, tenant_id: UUID, limit: int, *, continues: bool
    ) -> None:
        """Refuses a session that is to store something if its tenant stores as much as it may.

        Args:
            continues: whether it continues another session.

        Raises:
            StorageQuotaExceeded: it does.
        """
        most = limit * _SPARE if continues else limit
        count = self._counts.get(tenant_id)
        if count is None or self._is_old(count, most):
            count = await self._count(connection, tenant_id)
        if count.bytes >= most:
            REFUSALS.labels("storage").inc()
            raise StorageQuotaExceeded(limit)

    def _is_old(self, count: _Count, most: float) -> bool:
        kept = _FULL_SECONDS if count.bytes >= most else REMEMBERED_SECONDS
        return self._clock() - count.at > max(kept, _COST * count.seconds)

    async def _count(self, connection: AsyncConnection, tenant_id: UUID) -> _Count:
        began = self._clock()
        stored = (await connection.execute(_sum_of(tenant_id))).scalar_one()
        count = self._counts[tenant_id] = _Count(int(stored), began, self._clock() - began)
        self._counts.move_to_end(tenant_id)
        if len(self._counts) > _MOST:
            forgotten, _ = self._counts.popitem(last=False)
            _stored.remove(str(forgotten))
        _stored.labels(str(tenant_id)).set(count.bytes)
        return count


def _sum_of(tenant_id: UUID) -> Select[int]:
    """Over the sessions that run, too."""
    sessions = realtime_sessions.c
    stored = func.coalesce(func.sum(sessions.stored_bytes), 0)
    return select(stored).where(sessions.tenant_id == tenant_id, sessions.deleted_at.is_(None))
