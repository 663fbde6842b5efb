"""Connections to Postgres, and the error that an outage raises in the rest of the package."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
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
from persistence.outage import Outage

# Wrong statements, as opposed to an unavailable database.
_MISTAKES = (DataError, IntegrityError, NotSupportedError, ProgrammingError)
# An outage raises any of these: SQLAlchemy wraps the errors of statements, but not those of connecting.
_OUTAGES = (OSError, TimeoutError, PoolTimeout, DBAPIError, asyncpg.PostgresError, asyncpg.InterfaceError)


class Database:
    """Transactions under a deadline, and notifications."""

    def __init__(self, engine: AsyncEngine, deadline_seconds: float, unpooled: AsyncEngine | None = None) -> None:
        self._engine = engine
        self._deadline_seconds = deadline_seconds
        self._unpooled = unpooled or engine
        """For long-lived connections, which are not taken from the pool."""
        self.outage = Outage()
        """Since when transactions fail because Postgres does not answer."""

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """One transaction, committed at the end of the block and rolled back by an exception.

        Raises:
            StorageUnavailable: Postgres is unavailable, or the block did not end within the deadline.
        """
        try:
            async with asyncio.timeout(self._deadline_seconds), self._engine.begin() as connection:
                yield connection
        except _MISTAKES:
            raise
        except _OUTAGES as error:
            self.outage.failed()
            raise DatabaseUnavailable("the database does not answer") from error
        self.outage.answered()

    @asynccontextmanager
    async def listening(
        self, channels: Mapping[str, Callable[[str], None]], lost: Callable[[], None]
    ) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """Listens over a connection of its own.

        Args:
            channels: what is called with the payload of each notification on each channel.
            lost: called when the connection ends. A long-running block also calls the yielded check periodically.

        Yields:
            a check of the connection, which raises StorageUnavailable if Postgres does not answer within the deadline.

        Raises:
            StorageUnavailable: Postgres is unavailable.
        """
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(self._deadline_seconds):
                    connection = await self._unpooled.connect()
                    # Closing it gracefully could hang.
                    stack.push_async_callback(connection.close)
                    stack.push_async_callback(connection.invalidate)
                    driver: Any = (await connection.get_raw_connection()).driver_connection
                    for channel, on_notification in channels.items():
                        await driver.add_listener(channel, _with_payload(on_notification))
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
        """Checks that Postgres answers.

        Raises:
            StorageUnavailable: it does not.
        """
        async with self.transaction() as connection:
            await connection.execute(text("SELECT 1"))


def _with_payload(on_notification: Callable[[str], None]) -> Callable[..., None]:
    return lambda *notified: on_notification(notified[-1])


@asynccontextmanager
async def open_database(settings: PersistenceSettings) -> AsyncIterator[Database]:
    """A pool of connections for the block; the first transaction opens the first of them."""
    engine = _engine(
        settings,
        pool_size=settings.database_pool_size,
        max_overflow=0,
        pool_timeout=settings.database_deadline_seconds,
        # A restart of Postgres leaves dead connections in the pool; a ping costs less than a failed session.
        pool_pre_ping=True,
    )
    unpooled = _engine(settings, poolclass=NullPool)
    try:
        yield Database(engine, settings.database_deadline_seconds, unpooled)
    finally:
        await engine.dispose()
        await unpooled.dispose()


def _engine(settings: PersistenceSettings, **pool: Any) -> AsyncEngine:
    deadline = settings.database_deadline_seconds
    milliseconds = str(int(deadline * 1000))
    return create_async_engine(
        settings.sqlalchemy_url,
        native_inet_types=False,
        # Errors show their statement; its values, which include addresses, must not be logged.
        hide_parameters=True,
        connect_args={
            "timeout": deadline,
            "command_timeout": deadline,
            "server_settings": {
                "application_name": f"dalston {settings.worker_id}"[:63],
                "statement_timeout": milliseconds,
                "idle_in_transaction_session_timeout": milliseconds,
                # The statements are short and use indexes: compiling them costs more than running them.
                "jit": "off",
            },
        },
        **pool,
    )
