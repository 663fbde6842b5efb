"""Parts that S3 has taken reach Postgres in one statement for all sessions."""

import asyncio
from typing import Final
from uuid import UUID

from persistence.errors import NotOwner, RowLost
from persistence.postgres.rows import SessionRows
from persistence.session_values import StoredPart

COLLECT_SECONDS: Final = 0.2


class PartBatcher:
    """Collects parts for a moment, then writes them together."""

    def __init__(self, rows: SessionRows) -> None:
        self._rows = rows
        self._pending: dict[UUID, tuple[StoredPart, asyncio.Future[None]]] = {}
        self._added = asyncio.Event()

    async def add(self, session_id: UUID, part: StoredPart) -> None:
        """Notes a part; it is in Postgres when this returns. One at a time for each session.

        Raises:
            RowLost: Postgres has lost the session's row; call again when it is inserted.
            StorageUnavailable: Postgres is away; call again.
            NotOwner, LeaseLost: the session is not this process's any more.
        """
        noted = asyncio.get_running_loop().create_future()
        self._pending[session_id] = (part, noted)
        self._added.set()
        try:
            await noted
        finally:
            if self._pending.get(session_id) == (part, noted):
                del self._pending[session_id]

    async def run(self) -> None:
        """Writes what is added until cancelled."""
        while True:
            await self._added.wait()
            self._added.clear()
            await asyncio.sleep(COLLECT_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Writes what was added; whoever added it learns how that went."""
        batch, self._pending = self._pending, {}
        if not batch:
            return
        try:
            noted = await self._rows.add_parts([(session_id, part) for session_id, (part, _) in batch.items()])
        except Exception as error:
            # Whatever it is, nobody may wait for ever.
            for _, future in batch.values():
                _settle(future, error)
            return
        for session_id, (_, future) in batch.items():
            _settle(future, None if session_id in noted else await self._why_not(session_id))

    async def _why_not(self, session_id: UUID) -> Exception:
        try:
            # There after all: inserted again in between.
            return RowLost() if await self._rows.exists(session_id) else NotOwner()
        except Exception as error:
            return error


def _settle(future: asyncio.Future[None], error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
