"""The recording of one session while it runs: its figures, and its spool if the session stores anything."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from prometheus_client import Counter as Metric

from domain.session import EndReason
from domain.transcript import Utterance, most_spoken
from persistence.resume_point import ResumePoint
from persistence.session_values import Conclusion, Progress, SessionStart
from persistence.spool.budget import FULL
from persistence.spool.session_spool import SessionSpool
from persistence.storing.audio_upload import AudioUpload
from persistence.storing.degradations import DISK, Degradations
from telemetry.logs import get_logger

log = get_logger(__name__)

_RETRY_SECONDS: Final = 0.2

_received_bytes = Metric("dalston_received_audio_bytes_total", "Audio received, stored or not")
_received_seconds = Metric("dalston_received_audio_seconds_total", "Audio received, stored or not")
_audio_bytes = Metric("dalston_recorded_audio_bytes_total", "Audio written to the spool")
_audio_seconds = Metric("dalston_recorded_audio_seconds_total", "Audio written to the spool")
_utterances = Metric("dalston_recorded_utterances_total", "Finals written to the spool")
_waits = Metric("dalston_spool_full_total", "Times that a full spool paused a stream")


class SessionRecorder:
    """Appends the audio and the finals of a session to its spool, and counts them."""

    def __init__(self, start: SessionStart, spool: SessionSpool | None, room_wait_seconds: float = 0.0) -> None:
        """`room_wait_seconds`: how long an append waits for room on a full disk."""
        self.start = start
        self.spool = spool
        self.upload: AudioUpload | None = None
        """The upload of its audio to S3, if the audio is stored."""
        self.degradations = Degradations()
        self._room_wait_seconds = room_wait_seconds
        self._wav = start.wav
        self._received_bytes = 0
        self._utterance_count = 0
        self._words: Counter[str] = Counter()
        self._resume_point = ResumePoint()

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample frame."""
        return self._wav.frame_bytes

    @property
    def utterance_count(self) -> int:
        """Finals so far."""
        return self._utterance_count

    @property
    def received_bytes(self) -> int:
        """Audio received so far. All of it is in the spool if the session stores audio."""
        return self._received_bytes

    @property
    def received_seconds(self) -> float:
        """The same in seconds."""
        return self._wav.seconds(self._received_bytes)

    @property
    def stored_bytes(self) -> int:
        """Audio, from the first byte on, that survives the loss of this machine."""
        return self.upload.stored_bytes if self.upload is not None else 0

    @property
    def stored_seconds(self) -> float:
        """The same in seconds."""
        return self._wav.seconds(self.stored_bytes)

    async def append_audio(self, data: bytes) -> None:
        """Records whole sample frames as soon as there is room for them. If it is cancelled, it records nothing.

        Raises:
            OSError: the spool's disk is broken, or was full for too long.
        """
        if self.spool is not None and self.start.store_audio:
            spool = self.spool
            await self._append(lambda: spool.append_audio(data))
            _audio_bytes.inc(len(data))
            _audio_seconds.inc(self._wav.seconds(len(data)))
            if self.upload is not None:
                self.upload.appended()
        self._received_bytes += len(data)
        _received_bytes.inc(len(data))
        _received_seconds.inc(self._wav.seconds(len(data)))

    async def append_utterance(self, utterance: Utterance) -> None:
        """Records a final as soon as there is room for it. If it is cancelled, it records nothing.

        Raises:
            OSError: the spool's disk is broken, or was full for too long.
        """
        if self.spool is not None and self.start.store_transcript:
            spool = self.spool
            await self._append(lambda: spool.append_utterance(utterance))
            _utterances.inc()
        self._utterance_count += 1
        self._words[utterance.language] += utterance.word_count
        self._resume_point.note_utterance(utterance.start, utterance.end)

    def note_suppressed(self, start: float, end: float) -> None:
        """Notes speech without a final. A session that resumes begins before it if the end of the audio cut it."""
        self._resume_point.note_utterance(start, end)

    def note_processed(self, seconds: float) -> None:
        """Notes that all speech before `seconds` is recorded."""
        self._resume_point.note_processed(seconds)

    def read_finals(self) -> list[Utterance]:
        """The finals in the spool, if the session stores its transcript. Reads the disk."""
        return self.spool.utterances() if self.spool is not None and self.start.store_transcript else []

    def progress(self) -> Progress:
        """The figures so far."""
        return Progress(
            audio_seconds=self.received_seconds,
            utterances=self._utterance_count,
            words=self._words.total(),
            language=most_spoken(self.start.language, self._words),
            stored_bytes=self.stored_bytes,
            processed_seconds=self._resume_point.seconds(self.received_seconds, self._stored_limit()),
        )

    def conclude(self, end_reason: EndReason) -> Conclusion:
        """The conclusion of the session if it ends now."""
        progress = self.progress()
        if end_reason.status == "completed":
            # The client ended the session: no utterance continues in another one.
            progress = replace(progress, processed_seconds=self.received_seconds)
        return Conclusion(end_reason, datetime.now(UTC), progress)

    def _stored_limit(self) -> float | None:
        # Without a transcript the rows have no utterances, so that a resumed session cannot know that a point is inside
        # of one.
        return self.stored_seconds if self.start.store_audio and not self.start.store_transcript else None

    async def _append(self, write: Callable[[], None]) -> None:
        """Writes to the spool. A full disk pauses the stream, a broken one ends it."""
        give_up_at = time.monotonic() + self._room_wait_seconds
        while True:
            try:
                write()
            except OSError as error:
                if error.errno not in FULL or time.monotonic() >= give_up_at:
                    raise
                self._note_full()
            else:
                self.degradations.end(DISK)
                return
            await asyncio.sleep(_RETRY_SECONDS)

    def _note_full(self) -> None:
        if not self.degradations.has(DISK):
            _waits.inc()
            log.warning("the spool is full: a stream is paused", session_id=self.start.session_id)
        self.degradations.begin(DISK)
