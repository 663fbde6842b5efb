"""The recording pipeline: connects a running session with its row, its spool and the upload of its audio."""

import asyncio
from collections.abc import Callable

from prometheus_client import Gauge

from domain.session import EndReason
from domain.tenancy import Caller
from domain.transcript import Utterance
from persistence.errors import DiskUnavailable
from persistence.postgres.partials import ObservedPartial, PartialExchange
from persistence.recording.session_recorder import SessionRecorder
from persistence.recording.spool_maintenance import SpoolMaintenance
from persistence.session_values import SessionStart
from persistence.spool.session_spool import SessionSpool
from persistence.spool.spool_home import SpoolHome
from persistence.storing.finisher import Finisher, Finishing
from persistence.storing.shipper import Shipper
from persistence.storing.writer import SessionWriter
from telemetry.logs import get_logger

log = get_logger(__name__)

_active = Gauge("dalston_sessions_active", "Sessions that run now", ["stores"])


class RecordingPipeline:
    """Begins, feeds and finishes the recordings of this process."""

    def __init__(
        self,
        home: SpoolHome,
        writer: SessionWriter,
        shipper: Shipper,
        finisher: Finisher,
        maintenance: SpoolMaintenance,
        *,
        worker_id: str,
        spool_wait_seconds: float,
        partials: PartialExchange | None = None,
    ) -> None:
        """
        Args:
            worker_id: the id of this server process.
            spool_wait_seconds: how long a stream waits for room in a full spool.
            partials: passes partials to those who watch a session.
        """
        self._home = home
        self._writer = writer
        self._shipper = shipper
        self._finisher = finisher
        self._maintenance = maintenance
        self._spool_wait_seconds = spool_wait_seconds
        self._partials = partials
        self.worker_id = worker_id

    async def begin(self, start: SessionStart, caller: Caller | None = None) -> SessionRecorder:
        """Creates the row and, if the session stores anything, the spool, before the first audio is accepted.

        Raises:
            StorageUnavailable: the session asks for storage that is unavailable.
            TooManySessions, TokenSpent, StorageQuotaExceeded: the caller may not begin it.
        """
        recorder = SessionRecorder(start, None, self._spool_wait_seconds)
        await self._writer.begin(start, recorder.progress, caller, recorder.read_finals)
        if start.stores:
            recorder.spool = await self._create_spool(start)
            self._maintenance.add(recorder.spool, recorder.degradations)
            if start.store_audio:
                recorder.upload = self._shipper.begin(recorder.spool, recorder.degradations)
        _active.labels(_label(start)).inc()
        return recorder

    async def append_audio(self, recorder: SessionRecorder, data: bytes) -> None:
        """Records the audio of one message, whole sample frames.

        Raises:
            OSError: the spool's disk is broken, or was full for too long.
        """
        is_first = recorder.received_bytes == 0
        await recorder.append_audio(data)
        if is_first and data:
            # A session counts as a continuation of another only once it has received audio.
            self._writer.flush_soon(recorder.start.id)

    async def append_utterance(self, recorder: SessionRecorder, utterance: Utterance) -> None:
        """Records a final.

        Raises:
            OSError: the spool's disk is broken, or was full for too long.
        """
        await recorder.append_utterance(utterance)
        self._writer.flush_soon(recorder.start.id)
        if recorder.start.store_transcript:
            self._writer.add_final(recorder.start.id, recorder.progress().utterances - 1, utterance)

    def publish_partial(self, recorder: SessionRecorder, spoken: str, start: float, end: float) -> None:
        """Shows a partial to those who watch the session; an empty one where the utterance is no speech."""
        if self._partials is not None and recorder.start.store_transcript:
            self._partials.publish(recorder.start.id, ObservedPartial(recorder.utterance_count, spoken, start, end))

    def flush_soon(self, recorder: SessionRecorder) -> None:
        """Stores figures and audio at once instead of in some seconds, because another session resumes this one."""
        self._writer.flush_soon(recorder.start.id)
        if recorder.upload is not None:
            recorder.upload.flush_soon()

    def finish(self, recorder: SessionRecorder, end_reason: EndReason) -> Finishing:
        """Ends a recording; call it once."""
        _active.labels(_label(recorder.start)).dec()
        if recorder.spool is not None:
            self._maintenance.remove(recorder.spool)
        return self._finisher.finish(recorder.start, recorder.conclude(end_reason), recorder.spool)

    async def _create_spool(self, start: SessionStart) -> SessionSpool:
        try:
            return await asyncio.to_thread(self._home.create, start)
        except OSError as error:
            log.exception("spool directory cannot be created", session_id=start.session_id)
            self._writer.refuse(start.id)
            raise DiskUnavailable("the spool cannot be written") from error


Classify = Callable[[BaseException], EndReason]
"""Returns the end reason of a session that an exception ended."""


def _label(start: SessionStart) -> str:
    return "yes" if start.stores else "no"
