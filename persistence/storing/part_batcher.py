"""Records the parts that S3 has taken in Postgres, in one statement for all sessions."""

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
        """Records a part; it is in Postgres when this returns. One at a time for each session.

        Raises:
            RowLost: Postgres has lost the session's row; call again when it is inserted.
            StorageUnavailable: Postgres is unavailable; call again.
            NotOwner, LeaseLost: another process owns the session.
        """
        recorded = asyncio.get_running_loop().create_future()
        self._pending[session_id] = (part, recorded)
        self._added.set()
        try:
            await recorded
        finally:
            if self._pending.get(session_id) == (part, recorded):
                del self._pending[session_id]

    async def run(self) -> None:
        """Writes the parts that are added, until cancelled."""
        while True:
            await self._added.wait()
            self._added.clear()
            await asyncio.sleep(COLLECT_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Writes the parts that were added, and has their `add` return or raise."""
        batch, self._pending = self._pending, {}
        if not batch:
            return
        try:
            recorded = await self._rows.add_parts([(session_id, part) for session_id, (part, _) in batch.items()])
        except Exception as error:
            # Whatever the error is, no caller may wait forever.
            for _, future in batch.values():
                _settle(future, error)
            return
        for session_id, (_, future) in batch.items():
            _settle(future, None if session_id in recorded else await self._refusal(session_id))

    async def _refusal(self, session_id: UUID) -> Exception:
        try:
            # The row exists after all: it was inserted again meanwhile.
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
