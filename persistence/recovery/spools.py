"""The directories of the spool that a server has: its own, and those that dead processes left on this machine."""

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

# Whoever has the directory may be about to give it back: a process of the same name that was told to stop takes up to
# 50 s, another server or `verify --repair` as long as storing what a dead one left.
_IN_USE_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.2


class Spools:
    """One server's directories, each locked for it."""

    def __init__(self, own: SpoolHome, spool_dir: Path, finisher: Finisher, ownership: Ownership) -> None:
        self.own = own
        self._spool_dir = spool_dir
        self._finisher = finisher
        self._ownership = ownership
        self._left: list[SpoolHome] = []

    @classmethod
    async def open(cls, settings: PersistenceSettings, finisher: Finisher, ownership: Ownership) -> "Spools":
        """Makes or takes the server's own directory, and waits a while for whoever has it.

        Raises:
            SpoolInUse: another process has it and keeps it.
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
        """Takes over what this server's own earlier process and dead ones of this machine have left.

        Raises:
            StorageUnavailable: Postgres is away, or the spool's disk is broken.
        """
        try:
            self._left += await asyncio.to_thread(list, SpoolHome.take_over(self._spool_dir, self.own.budget))
            await recover((self.own, *self._left), self._finisher, self._ownership)
        except OSError as error:
            raise DiskUnavailable("the spool cannot be read") from error

    async def take(self, worker_ids: Sequence[str]) -> None:
        """Takes over what these dead servers have left here, which is more than S3 has of it.

        Gives back what was taken before and is empty by now: a server of that name may start and wait for it.

        Raises:
            StorageUnavailable: Postgres is away, or the spool's disk is broken.
        """
        try:
            await asyncio.to_thread(self._give_back_empty)
            for worker_id in worker_ids:
                left = await asyncio.to_thread(SpoolHome.claim, self._spool_dir, worker_id, self.own.budget)
                if left is not None:
                    self._left.append(left)
                    await recover([left], self._finisher, self._ownership)
        except OSError as error:
            raise DiskUnavailable("the spool cannot be read") from error

    def release(self) -> None:
        """Gives all of them back, and removes those that are empty unless a session is left for the next start."""
        # A session left unfinished, spooled or not, needs its directory: by its name the worker's rows are ended.
        for each in (self.own, *self._left):
            each.release(delete=not self._finisher.has_left_work)

    def _give_back_empty(self) -> None:
        for each in [home for home in self._left if not home.session_directories()]:
            self._left.remove(each)
            each.release(delete=True)
