"""Runs the migrations: one process at a time, and never waiting long for a lock that live traffic holds."""

import asyncio
from typing import Any, Literal

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from persistence.config import PersistenceSettings
from persistence.postgres.tables import metadata

# Any number that nothing else in the database uses for an advisory lock.
_ADVISORY_LOCK = 0x64616C73746F6E
_WAIT_FOR_OTHERS = "120s"
# A statement that waits for a table lock blocks all queries after it: it fails soon, and the operator repeats it.
_LOCK_TIMEOUT = "4s"
_STATEMENT_TIMEOUT = "60s"


def _settings() -> PersistenceSettings:
    url = context.config.attributes.get("database_url")
    return PersistenceSettings() if url is None else PersistenceSettings(database_url=url)


def _include(name: str | None, kind: str, _parents: Any) -> bool:
    """Leaves out tables of other programs in the same schema."""
    return kind != "table" or name in metadata.tables


_Kind = Literal["schema", "table", "column", "index", "unique_constraint", "foreign_key_constraint"]


def _migrate(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        include_name=_include,
        compare_type=True,
        compare_server_default=True,
        transaction_per_migration=True,
    )
    connection.execute(text(f"SET lock_timeout = '{_WAIT_FOR_OTHERS}'"))
    connection.execute(text(f"SELECT pg_advisory_lock({_ADVISORY_LOCK})"))
    connection.execute(text(f"SET lock_timeout = '{_LOCK_TIMEOUT}'"))
    connection.execute(text(f"SET statement_timeout = '{_STATEMENT_TIMEOUT}'"))
    # The settings and the lock belong to the connection: they outlive this transaction and end with the connection.
    connection.commit()
    with context.begin_transaction():
        context.run_migrations()


async def _run() -> None:
    engine = create_async_engine(_settings().sqlalchemy_url, poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(_migrate)
    finally:
        await engine.dispose()


if context.is_offline_mode():
    context.configure(url=_settings().sqlalchemy_url, target_metadata=metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    asyncio.run(_run())
