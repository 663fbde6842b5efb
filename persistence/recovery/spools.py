"""The spool directories of a server: its own, and those that dead processes left on this machine."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from persistence.config import PersistenceSettings
from persistence.errors import DiskUnavailable, SpoolInUse
from persistence.postgres.ownership import Ownership
from persistence.recovery.spool_recovery import recover
from persistence.spool.budget import SpoolBudget
from persistence.spool.spool_home import SpoolHome
from persistence.storing.finisher import Finisher
from telemetry.logs import get_logger

log = get_logger(__name__)

# The process that holds the directory may be about to release it: one of the same name that is stopping takes up to
# 50 s, another server or `verify --repair` as long as storing the sessions of a dead server.
_IN_USE_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.2


class Spools:
    """One server's directories, each locked for it."""

    def __init__(self, own: SpoolHome, spool_dir: Path, finisher: Finisher, ownership: Ownership) -> None:
        self.own = own
        self._spool_dir = spool_dir
        self._finisher = finisher
        self._ownership = ownership
        self._abandoned: list[SpoolHome] = []

    @classmethod
    async def open(cls, settings: PersistenceSettings, finisher: Finisher, ownership: Ownership) -> "Spools":
        """Creates or locks the server's own directory, and waits a while if another process holds it.

        Raises:
            SpoolInUse: another process holds it and does not release it.
            StorageUnavailable: the disk is full or broken.
        """
        budget = SpoolBudget(settings.spool_bytes)
        give_up_at, is_waiting = time.monotonic() + _IN_USE_SECONDS, False
        while True:
            try:
                own = await asyncio.to_thread(SpoolHome.open, settings.spool_dir, settings.worker_id, budget)
            except OSError as error:
                what = f"the spool in {settings.spool_dir} cannot be used: {error.strerror}"
                raise DiskUnavailable(what) from error
            except SpoolInUse as error:
                if time.monotonic() >= give_up_at:
                    raise
                if not is_waiting:
                    log.warning("the start waits for the spool", reason=str(error), seconds=_IN_USE_SECONDS)
                is_waiting = True
            else:
                return cls(own, settings.spool_dir, finisher, ownership)
            await asyncio.sleep(_LOOK_SECONDS)

    async def recover(self) -> None:
        """Takes over the spools of this server's earlier process and of dead processes of this machine.

        Raises:
            StorageUnavailable: Postgres is unavailable, or the spool's disk is broken.
        """
        try:
            self._abandoned += await asyncio.to_thread(list, SpoolHome.take_over(self._spool_dir, self.own.budget))
            await recover((self.own, *self._abandoned), self._finisher, self._ownership)
        except OSError as error:
            raise DiskUnavailable("the spool cannot be read") from error

    async def take(self, worker_ids: Sequence[str]) -> None:
        """Takes over the spools that these dead servers left on this machine, which have more than S3.

        Releases directories that were taken over before and are empty by now: a server of that name may wait for one.

        Raises:
            StorageUnavailable: Postgres is unavailable, or the spool's disk is broken.
        """
        try:
            await asyncio.to_thread(self._release_empty)
            for worker_id in worker_ids:
                abandoned = await asyncio.to_thread(SpoolHome.claim, self._spool_dir, worker_id, self.own.budget)
                if abandoned is not None:
                    self._abandoned.append(abandoned)
                    await recover([abandoned], self._finisher, self._ownership)
        except OSError as error:
            raise DiskUnavailable("the spool cannot be read") from error

    def release(self) -> None:
        """Releases all directories, and deletes empty ones unless a session is left for the next start."""
        # An unfinished session, spooled or not, needs its directory: its name leads to the rows of the worker.
        for each in (self.own, *self._abandoned):
            each.release(delete=not self._finisher.has_left_work)

    def _release_empty(self) -> None:
        for each in [home for home in self._abandoned if not home.session_directories()]:
            self._abandoned.remove(each)
            each.release(delete=True)
