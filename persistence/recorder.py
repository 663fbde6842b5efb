"""One session's recording while it runs: its figures, and its spool when it stores anything."""

from collections import Counter
from datetime import UTC, datetime

from prometheus_client import Counter as Metric

from persistence.records import Conclusion, Ending, Progress, SessionStart
from persistence.spool import SessionSpool
from persistence.transcript import Utterance, most_spoken
from persistence.wav import WavFormat

_audio_bytes = Metric("dalston_recorded_audio_bytes_total", "Audio written to the spool")
_received_seconds = Metric("dalston_received_audio_seconds_total", "Audio received, stored or not")
_utterances = Metric("dalston_recorded_utterances_total", "Finals written to the spool")


class Recorder:
    """Takes what a session receives and says."""

    def __init__(self, start: SessionStart, spool: SessionSpool | None) -> None:
        self.start = start
        self.spool = spool
        self._wav = WavFormat(start.encoding, start.sample_rate, start.channels)
        self._received_bytes = 0
        self._utterance_count = 0
        self._words: Counter[str] = Counter()

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of all channels."""
        return self._wav.frame_bytes

    def audio(self, data: bytes) -> None:
        """Records a message of audio, whole frames.

        Raises:
            OSError: the spool's disk is full or broken.
        """
        if self.spool is not None and self.start.store_audio:
            self.spool.append_audio(data)
            _audio_bytes.inc(len(data))
        self._received_bytes += len(data)
        _received_seconds.inc(self._wav.seconds(len(data)))

    def utterance(self, utterance: Utterance) -> None:
        """Records a final.

        Raises:
            OSError: the spool's disk is full or broken.
        """
        if self.spool is not None and self.start.store_transcript:
            self.spool.append_utterance(utterance)
            _utterances.inc()
        self._utterance_count += 1
        self._words[utterance.language] += utterance.word_count

    def progress(self) -> Progress:
        """The figures so far."""
        return Progress(
            audio_seconds=self._wav.seconds(self._received_bytes),
            utterances=self._utterance_count,
            words=self._words.total(),
            language=most_spoken(self.start.language, self._words),
        )

    def conclude(self, ending: Ending) -> Conclusion:
        """The session as it stands, ended now."""
        return Conclusion(ending, datetime.now(UTC), self.progress())
