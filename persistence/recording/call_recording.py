"""The recording of one call: it begins with `session_begin` and is finished once."""

import asyncio
from datetime import UTC, datetime

from dalston.v1.transcription_pb2 import SessionBegin, TranscribeConfig

from domain.session import EndReason
from domain.session_id import parse_session_id
from domain.tenancy import current_caller
from persistence.recording.pipeline import RecordingPipeline
from persistence.recording.session_recorder import SessionRecorder
from persistence.session_values import SessionStart
from persistence.storing.finisher import Finishing


class CallRecording:
    """Holds the recorder of the call's session while there is one."""

    def __init__(self, pipeline: RecordingPipeline, client_ip: str | None) -> None:
        self.pipeline = pipeline
        self._client_ip = client_ip
        self._beginning: asyncio.Task[SessionRecorder] | None = None
        self.recorder: SessionRecorder | None = None
        """None before the session has begun."""
        self.finishing: Finishing | None = None
        """None before the recording is finished."""
        self.begun = asyncio.Event()
        """Set when the client has an answer to its config, or will have none."""

    async def begin(self, begin: SessionBegin, config: TranscribeConfig) -> SessionRecorder:
        """Begins to record the session that the servicer has begun.

        Raises:
            StorageUnavailable: the session asks for storage that is unavailable.
            TooManySessions, TokenSpent, StorageQuotaExceeded: the caller may not begin it.
        """
        caller = current_caller.get()
        start = SessionStart(
            id=parse_session_id(begin.session_id),
            tenant_id=caller.tenant_id,
            worker_id=self.pipeline.worker_id,
            started_at=datetime.now(UTC),
            language=begin.config.language,
            model=begin.config.model,
            encoding=begin.config.encoding,
            sample_rate=begin.config.sample_rate,
            channels=begin.config.channels,
            store_audio=config.store_audio,
            store_transcript=config.store_transcript,
            enhance_on_end=config.enhance_on_end,
            client_ip=self._client_ip,
            previous_session_id=parse_session_id(begin.resumed_from) if begin.resumed_from else None,
            resume_from_seconds=begin.resume_from_seconds if begin.HasField("resume_from_seconds") else None,
            vocabulary=tuple(config.vocabulary) if config.enhance_on_end else (),
        )
        # A task of its own: if it were cancelled halfway, it would leave a row or a directory that nothing ends.
        self._beginning = asyncio.create_task(self.pipeline.begin(start, caller), name="begin of a recording")
        self.recorder = await asyncio.shield(self._beginning)
        return self.recorder

    async def settle(self) -> None:
        """Waits until the recording has begun or failed to begin, if the call ended meanwhile."""
        if self._beginning is not None and self.recorder is None:
            await asyncio.wait({self._beginning})
            if self._beginning.exception() is None:
                self.recorder = self._beginning.result()

    def finish(self, end_reason: EndReason) -> Finishing:
        """Ends the recording, which has begun; call it once."""
        assert self.recorder is not None  # noqa: S101 - its callers have checked it
        self.finishing = self.pipeline.finish(self.recorder, end_reason)
        return self.finishing
