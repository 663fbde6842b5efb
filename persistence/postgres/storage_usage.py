"""The amount of audio that tenants store, cached for a while.

Triggers in Postgres keep the sum over the ended sessions; the running ones, which are few, are added to it.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from prometheus_client import Gauge
from sqlalchemy import Uuid, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import StorageQuotaExceeded
from domain.tenancy import REFUSALS

CACHED_SECONDS: Final = 60.0
_FULL_SECONDS: Final = 5.0
"""How long an exceeded quota is cached: shorter, so that a tenant that deletes sessions need not wait for a minute."""
_MOST: Final = 10_000
_RESUME_FACTOR: Final = 1.1
"""How far a resumed session may exceed the quota, so that a broken connection does not end a recording."""

_stored = Gauge("dalston_tenant_stored_bytes", "Stored audio of tenants with a quota, as last counted", ["tenant_id"])

_SUM = text("""
    SELECT coalesce(sum(part), 0) FROM (
        SELECT stored_bytes AS part FROM tenant_usage WHERE tenant_id = :tenant_id
        UNION ALL
        SELECT stored_bytes FROM realtime_sessions
        WHERE tenant_id = :tenant_id AND status = 'active' AND deleted_at IS NULL
    ) AS parts
""").bindparams(bindparam("tenant_id", type_=Uuid))
_SUMS = text("""
    SELECT tenant_id, sum(part) AS total FROM (
        SELECT tenant_id, stored_bytes AS part FROM tenant_usage
        UNION ALL
        SELECT tenant_id, stored_bytes FROM realtime_sessions WHERE status = 'active' AND deleted_at IS NULL
    ) AS parts GROUP BY tenant_id
""")

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class _Count:
    bytes: int
    at: float


class StorageUsage:
    """One per process. A count is at most a minute old."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._counts: OrderedDict[UUID, _Count] = OrderedDict()

    async def refuse_too_much(
        self, connection: AsyncConnection, tenant_id: UUID, limit: int, *, continues: bool
    ) -> None:
        """Refuses a session that is to be stored if its tenant has used up its quota.

        Args:
            continues: whether the session continues another one.

        Raises:
            StorageQuotaExceeded: the quota is used up.
        """
        most = limit * _RESUME_FACTOR if continues else limit
        count = self._counts.get(tenant_id)
        if count is None or self._is_old(count, most):
            count = await self._count(connection, tenant_id)
        if count.bytes >= most:
            REFUSALS.labels("storage").inc()
            raise StorageQuotaExceeded(limit)

    def _is_old(self, count: _Count, most: float) -> bool:
        cached = _FULL_SECONDS if count.bytes >= most else CACHED_SECONDS
        return self._clock() - count.at > cached

    async def _count(self, connection: AsyncConnection, tenant_id: UUID) -> _Count:
        began = self._clock()
        stored = (await connection.execute(_SUM, {"tenant_id": tenant_id})).scalar_one()
        count = self._counts[tenant_id] = _Count(int(stored), began)
        self._counts.move_to_end(tenant_id)
        if len(self._counts) > _MOST:
            evicted, _ = self._counts.popitem(last=False)
            _stored.remove(str(evicted))
        _stored.labels(str(tenant_id)).set(count.bytes)
        return count


async def stored_bytes_by_tenant(connection: AsyncConnection) -> dict[UUID, int]:
    """The bytes of audio that each tenant with sessions stores, running sessions included."""
    return {row.tenant_id: int(row.total) for row in await connection.execute(_SUMS)}
