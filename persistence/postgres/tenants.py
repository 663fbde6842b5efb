"""Tenants and their limits, as the operator sets them."""

from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Any
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert

from domain.errors import TenantNotFound
from domain.session_id import new_uuid7
from domain.tenancy import TenantLimits
from persistence.postgres.database import Database
from persistence.postgres.storage_usage import stored_bytes_by_tenant
from persistence.postgres.tables import tenants


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant, with the limits that were set for it."""

    id: UUID
    name: str
    limits: TenantLimits
    stored_bytes: int | None = None
    """Audio of all sessions together; None where it was not counted."""

    def as_values(self) -> dict[str, Any]:
        """The values for JSON."""
        values = {"id": str(self.id), "name": self.name, **asdict(self.limits)}
        return values if self.stored_bytes is None else {**values, "stored_bytes": self.stored_bytes}


_t = tenants.c
_COLUMNS = [_t.id, _t.name, *(_t[name] for name in TenantLimits.__slots__)]


class TenantStore:
    """Reads and writes tenants. All methods raise StorageUnavailable while Postgres is unavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ensure(self, name: str, limits: dict[str, float | None] | None = None) -> Tenant:
        """The tenant of this name, created if there is none. Sets the given limits; None is the default."""
        async with self._database.transaction() as connection:
            new = insert(tenants).values(id=new_uuid7(), name=name).on_conflict_do_nothing(index_elements=["name"])
            await connection.execute(new)
            if limits:
                await connection.execute(update(tenants).where(_t.name == name).values(**limits))
            row = (await connection.execute(select(*_COLUMNS).where(_t.name == name))).one()
        return Tenant(row.id, row.name, TenantLimits(*row[2:]))

    async def set_limits(self, name: str, limits: dict[str, float | None]) -> Tenant:
        """Sets the given limits of a tenant, None for the default; returns the changed tenant.

        Raises:
            TenantNotFound: there is no tenant of this name.
        """
        async with self._database.transaction() as connection:
            if limits:
                await connection.execute(update(tenants).where(_t.name == name).values(**limits))
            row = (await connection.execute(select(*_COLUMNS).where(_t.name == name))).one_or_none()
            if row is None:
                names = (await connection.execute(select(_t.name))).scalars().all()
                raise TenantNotFound(name, get_close_matches(name, names, n=1))
        return Tenant(row.id, row.name, TenantLimits(*row[2:]))

    async def list(self) -> list[Tenant]:
        """All tenants by name, with their stored bytes."""
        async with self._database.transaction() as connection:
            rows = (await connection.execute(select(*_COLUMNS).order_by(_t.name))).all()
            totals = await stored_bytes_by_tenant(connection)
        return [Tenant(row.id, row.name, TenantLimits(*row[2:]), totals.get(row.id, 0)) for row in rows]
