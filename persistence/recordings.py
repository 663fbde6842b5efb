"""Begins and ends recordings: the one place where a session meets its row, its spool and its way to S3."""

import asyncio
from collections.abc import Callable

from prometheus_client import Gauge

from persistence.errors import StorageUnavailable
from persistence.finisher import Finisher, Finishing
from persistence.recorder import Recorder
from persistence.records import Ending, SessionStart
from persistence.spool import SessionSpool
from persistence.spool_home import SpoolHome
from persistence.transcript import Utterance
from persistence.writer import SessionWriter
from telemetry.logs import get_logger

log = get_logger(__name__)

_active = Gauge("dalston_sessions_active", "Sessions that run now", ["stores"])


class Recordings:
    """The recordings of this process."""

    def __init__(self, home: SpoolHome, writer: SessionWriter, finisher: Finisher, worker_id: str) -> None:
        self._home = home
        self._writer = writer
        self._finisher = finisher
        self.worker_id = worker_id

    async def begin(self, start: SessionStart) -> Recorder:
        """Creates the row and, when anything is stored, the spool: before the first audio is taken.

        Raises:
            StorageUnavailable: the session asks for storage that is not to be had now.
        """
        recorder = Recorder(start, None)
        await self._writer.begin(start, recorder.progress)
        if start.stores:
            recorder.spool = await self._create_spool(start, recorder)
        _active.labels(_label(start)).inc()
        return recorder

    def utterance(self, recorder: Recorder, utterance: Utterance) -> None:
        """Records a final.

        Raises:
            OSError: the spool's disk is full or broken.
        """
        recorder.utterance(utterance)
        self._writer.spoke(recorder.start.id)

    def finish(self, recorder: Recorder, ending: Ending) -> Finishing:
        """Ends a recording; call it once."""
        _active.labels(_label(recorder.start)).dec()
        return self._finisher.finish(recorder.start, recorder.conclude(ending), recorder.spool)

    async def _create_spool(self, start: SessionStart, recorder: Recorder) -> SessionSpool:
        try:
            return await asyncio.to_thread(self._home.create, start)
        except OSError as error:
            log.exception("spool directory cannot be made", session_id=start.session_id)
            self._finisher.finish(start, recorder.conclude(Ending("error", "the recording could not be started")), None)
            raise StorageUnavailable("the spool cannot be written") from error


Classify = Callable[[BaseException], Ending]
"""Says how a session ended that an exception ended; given by whoever knows the exceptions."""


def _label(start: SessionStart) -> str:
    return "yes" if start.stores else "no"
