"""The sample clock of a session: it counts the sample frames on the wire. Pure."""

from server.audio.decoder import MODEL_RATE


class SampleClock:
    """Measures the received audio, and converts positions in the decoded audio to seconds of it."""

    def __init__(self, sample_rate: int) -> None:
        """`sample_rate`: sample frames per second on the wire."""
        self._sample_rate = sample_rate
        self._sample_frames = 0

    @property
    def duration(self) -> float:
        """Length of the audio received, in seconds."""
        return self._sample_frames / self._sample_rate

    def advance(self, sample_frames: int) -> None:
        """Counts received sample frames."""
        self._sample_frames += sample_frames

    def seconds(self, position: int) -> float:
        """Seconds from the start of the audio to a sample at the rate of the models, at most `duration`."""
        # The silence that completes the last window is not audio of the session.
        return min(position / MODEL_RATE, self.duration)
