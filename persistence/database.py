"""Connections to Postgres, and what an outage looks like to the rest of the package."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg  # type: ignore[import-untyped]  # published without types
from sqlalchemy import text
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, NotSupportedError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from persistence.config import PersistenceSettings
from persistence.errors import StorageUnavailable

# Statements that were wrong, not a database that was away.
_MISTAKES = (DataError, IntegrityError, NotSupportedError, ProgrammingError)


class Database:
    """Transactions under a deadline."""

    def __init__(self, engine: AsyncEngine, deadline_seconds: float) -> None:
        self._engine = engine
        self._deadline_seconds = deadline_seconds

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """One transaction, committed at the end of the block and rolled back by an exception.

        Raises:
            StorageUnavailable: Postgres is away, or the block did not end within the deadline.
        """
        try:
            async with asyncio.timeout(self._deadline_seconds), self._engine.begin() as connection:
                yield connection
        except _MISTAKES:
            raise
        except (OSError, TimeoutError, PoolTimeout, DBAPIError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            # An outage surfaces as any of these: SQLAlchemy wraps what a statement raises, not what connecting does.
            raise StorageUnavailable("the database does not answer") from error

    async def check(self) -> None:
        """Asks for a sign of life.

        Raises:
            StorageUnavailable: there is none.
        """
        async with self.transaction() as connection:
            await connection.execute(text("SELECT 1"))


@asynccontextmanager
async def open_database(settings: PersistenceSettings) -> AsyncIterator[Database]:
    """A pool of connections for the block; none is made before the first transaction."""
    deadline = settings.database_deadline_seconds
    milliseconds = str(int(deadline * 1000))
    engine = create_async_engine(
        settings.sqlalchemy_url,
        pool_size=settings.database_pool_size,
        max_overflow=0,
        pool_timeout=deadline,
        # A restarted Postgres leaves dead connections in the pool; the ping costs less than a failed session.
        pool_pre_ping=True,
        native_inet_types=False,
        # An error shows its statement; the values in it, addresses among them, are not for the log.
        hide_parameters=True,
        connect_args={
            "timeout": deadline,
            "command_timeout": deadline,
            "server_settings": {
                "application_name": f"dalston {settings.worker_id}"[:63],
                "statement_timeout": milliseconds,
                "idle_in_transaction_session_timeout": milliseconds,
                # Short statements by index: compiling them costs more than running them.
                "jit": "off",
            },
        },
    )
    try:
        yield Database(engine, deadline)
    finally:
        await engine.dispose()
