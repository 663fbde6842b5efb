"""Connections to Postgres, and what an outage looks like to the rest of the package."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg  # type: ignore[import-untyped]  # published without types
from sqlalchemy import text
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, NotSupportedError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from persistence.config import PersistenceSettings
from persistence.errors import DatabaseUnavailable

# Statements that were wrong, not a database that was away.
_MISTAKES = (DataError, IntegrityError, NotSupportedError, ProgrammingError)
# An outage surfaces as any of these: SQLAlchemy wraps what a statement raises, not what connecting does.
_OUTAGES = (OSError, TimeoutError, PoolTimeout, DBAPIError, asyncpg.PostgresError, asyncpg.InterfaceError)


class Database:
    """Transactions under a deadline, and notifications."""

    def __init__(self, engine: AsyncEngine, deadline_seconds: float, apart: AsyncEngine | None = None) -> None:
        self._engine = engine
        self._deadline_seconds = deadline_seconds
        self._apart = apart or engine
        """For connections that are kept: they are none of the pool's."""

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
        except _OUTAGES as error:
            raise DatabaseUnavailable("the database does not answer") from error

    @asynccontextmanager
    async def listening(
        self, channel: str, heard: Callable[[str], None], lost: Callable[[], None]
    ) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """Calls `heard` with each payload that is notified on the channel, on a connection of its own.

        Args:
            lost: called when the connection ends; a block that lasts asks for a sign of life now and then, too.

        Yields:
            what asks for one: it raises StorageUnavailable if there is none within the deadline.

        Raises:
            StorageUnavailable: Postgres is away.
        """
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(self._deadline_seconds):
                    connection = await self._apart.connect()
                    # Nothing of it is worth a farewell that could hang.
                    stack.push_async_callback(connection.close)
                    stack.push_async_callback(connection.invalidate)
                    driver: Any = (await connection.get_raw_connection()).driver_connection
                    await driver.add_listener(channel, lambda *notified: heard(notified[-1]))
                    driver.add_termination_listener(lambda _: lost())
            except _OUTAGES as error:
                raise DatabaseUnavailable("the database does not answer") from error

            async def check() -> None:
                try:
                    async with asyncio.timeout(self._deadline_seconds):
                        await driver.execute("SELECT 1")
                except _OUTAGES as error:
                    raise DatabaseUnavailable("the database does not answer") from error

            yield check

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
    engine = _engine(
        settings,
        pool_size=settings.database_pool_size,
        max_overflow=0,
        pool_timeout=settings.database_deadline_seconds,
        # A restarted Postgres leaves dead connections in the pool; the ping costs less than a failed session.
        pool_pre_ping=True,
    )
    apart = _engine(settings, poolclass=NullPool)
    try:
        yield Database(engine, settings.database_deadline_seconds, apart)
    finally:
        await engine.dispose()
        await apart.dispose()


def _engine(settings: PersistenceSettings, **pool: Any) -> AsyncEngine:
    deadline = settings.database_deadline_seconds
    milliseconds = str(int(deadline * 1000))
    return create_async_engine(
        settings.sqlalchemy_url,
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
        **pool,
    )
