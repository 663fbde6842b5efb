"""Begins and ends recordings: the one place where a session meets its row, its spool and its way to S3."""

import asyncio
from collections.abc import Callable

from prometheus_client import Gauge

from domain.session import EndReason
from domain.tenancy import Caller
from domain.transcript import Utterance
from persistence.errors import DiskUnavailable
from persistence.recording.recorder import Recorder
from persistence.recording.upkeep import Upkeep
from persistence.records import SessionStart
from persistence.spool.session_spool import SessionSpool
from persistence.spool.spool_home import SpoolHome
from persistence.storing.finisher import Finisher, Finishing
from persistence.storing.shipper import Shipper
from persistence.storing.writer import SessionWriter
from telemetry.logs import get_logger

log = get_logger(__name__)

_active = Gauge("dalston_sessions_active", "Sessions that run now", ["stores"])


class Recordings:
    """The recordings of this process."""

    def __init__(
        self,
        home: SpoolHome,
        writer: SessionWriter,
        shipper: Shipper,
        finisher: Finisher,
        upkeep: Upkeep,
        *,
        worker_id: str,
        spool_wait_seconds: float,
    ) -> None:
        self._home = home
        self._writer = writer
        self._shipper = shipper
        self._finisher = finisher
        self._upkeep = upkeep
        self._spool_wait_seconds = spool_wait_seconds
        self.worker_id = worker_id

    async def begin(self, start: SessionStart, caller: Caller | None = None) -> Recorder:
        """Creates the row and, when anything is stored, the spool: before the first audio is taken.

        Raises:
            StorageUnavailable: the session asks for storage that is not to be had now.
            TooManySessions, TokenSpent, StorageQuotaExceeded: the caller may not begin it.
        """
        recorder = Recorder(start, None, self._spool_wait_seconds)
        await self._writer.begin(start, recorder.progress, caller, recorder.finals)
        if start.stores:
            recorder.spool = await self._create_spool(start)
            self._upkeep.add(recorder.spool, recorder.degradations)
            if start.store_audio:
                recorder.upload = self._shipper.begin(recorder.spool, recorder.degradations)
        _active.labels(_label(start)).inc()
        return recorder

    async def audio(self, recorder: Recorder, data: bytes) -> None:
        """Records a message of audio, whole frames.

        Raises:
            OSError: the spool's disk is broken, or was full for too long.
        """
        is_first = recorder.received_bytes == 0
        await recorder.audio(data)
        if is_first and data:
            # Whether a session has received anything decides whether it counts as a continuation.
            self._writer.flush_soon(recorder.start.id)

    def flush_soon(self, recorder: Recorder) -> None:
        """Its figures and its audio are stored at once, not in some seconds: another session goes on from them."""
        self._writer.flush_soon(recorder.start.id)
        if recorder.upload is not None:
            recorder.upload.flush_soon()

    async def utterance(self, recorder: Recorder, utterance: Utterance) -> None:
        """Records a final.

        Raises:
            OSError: the spool's disk is broken, or was full for too long.
        """
        await recorder.utterance(utterance)
        self._writer.flush_soon(recorder.start.id)
        if recorder.start.store_transcript:
            self._writer.add_final(recorder.start.id, recorder.progress().utterances - 1, utterance)

    def finish(self, recorder: Recorder, end_reason: EndReason) -> Finishing:
        """Ends a recording; call it once."""
        _active.labels(_label(recorder.start)).dec()
        if recorder.spool is not None:
            self._upkeep.remove(recorder.spool)
        return self._finisher.finish(recorder.start, recorder.conclude(end_reason), recorder.spool)

    async def _create_spool(self, start: SessionStart) -> SessionSpool:
        try:
            return await asyncio.to_thread(self._home.create, start)
        except OSError as error:
            log.exception("spool directory cannot be made", session_id=start.session_id)
            self._writer.refuse(start.id)
            raise DiskUnavailable("the spool cannot be written") from error


Classify = Callable[[BaseException], EndReason]
"""Says how a session ended that an exception ended; given by whoever knows the exceptions."""


def _label(start: SessionStart) -> str:
    return "yes" if start.stores else "no"
