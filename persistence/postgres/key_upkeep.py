"""What every server does about keys besides calls: it deletes expired ones, and writes when they were last used."""

import asyncio
import random
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from domain.errors import StorageUnavailable
from persistence.postgres.api_keys import KeyStore
from telemetry.logs import get_logger

log = get_logger(__name__)

_CLEANUP_SECONDS: Final = 600.0
_USE_SECONDS: Final = 60.0
_MOST_USED: Final = 100_000


class KeyCleanup:
    """Deletes expired keys, tokens and logins about every ten minutes.

    Every server runs one; they skip each other's rows.
    """

    def __init__(self, store: KeyStore, pause_seconds: float = _CLEANUP_SECONDS) -> None:
        self._store = store
        self._pause_seconds = pause_seconds

    async def run(self) -> None:
        """Deletes until cancelled."""
        while True:
            await asyncio.sleep(self._pause_seconds * random.uniform(0.7, 1.3))  # noqa: S311 - jitter, not a secret
            try:
                while await self._store.delete_expired():
                    pass
            except StorageUnavailable as error:
                log.warning("expired keys, tokens and logins are not deleted yet", reason=str(error))
            except Exception:
                # A bug must not end the task.
                log.exception("expired keys, tokens and logins cannot be deleted")


class KeyUses:
    """Collects the uses of keys and logins and writes them once a minute, so that no call waits for the write."""

    def __init__(self, store: KeyStore, pause_seconds: float = _USE_SECONDS) -> None:
        self._store = store
        self._pause_seconds = pause_seconds
        self._uses: dict[UUID, datetime] = {}

    def note(self, used: UUID) -> None:
        """Notes that a key or login is used now."""
        if used in self._uses or len(self._uses) < _MOST_USED:
            self._uses[used] = datetime.now(UTC)

    async def run(self) -> None:
        """Writes until cancelled."""
        while True:
            await asyncio.sleep(self._pause_seconds)
            await self.flush()

    async def flush(self) -> None:
        """Writes the noted uses; those that cannot be written now are kept until the next time."""
        uses, self._uses = self._uses, {}
        if not uses:
            return
        try:
            skipped = await self._store.note_uses(uses)
            self._uses = {each: uses[each] for each in skipped} | self._uses
        except StorageUnavailable:
            self._uses = uses | self._uses
        except Exception:
            # A bug must not end the task.
            log.exception("the uses of keys cannot be written")
