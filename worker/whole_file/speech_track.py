"""Where a recording has speech: the detector's probability and the power of each window of 32 ms, for all of it."""

from array import array

import numpy as np
from numpy.typing import NDArray

from server.audio.decoder import Samples
from server.vad.silero import WINDOW_SAMPLES, SileroVad


class SpeechTrack:
    """Runs the detector over a recording. Keeps eight bytes for each window, 900 KB for an hour, and no audio."""

    def __init__(self, vad: SileroVad) -> None:
        self._stream = vad.stream()
        self._probabilities = array("f")
        self._powers = array("f")
        self.samples = 0
        """Samples received."""

    def push(self, samples: Samples) -> None:
        """Takes the next samples, any number of them."""
        self.samples += len(samples)
        for window in self._stream.push(samples):
            self._probabilities.append(window.probability)
            self._powers.append(window.power)

    def finish(self) -> None:
        """Completes the last window with silence."""
        if missing := -self.samples % WINDOW_SAMPLES:
            received = self.samples
            self.push(np.zeros(missing, np.float32))
            self.samples = received

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """Of speech, one for each window."""
        return np.array(self._probabilities, np.float32)

    @property
    def powers(self) -> NDArray[np.float32]:
        """Mean square of the samples of each window, full scale 1.0."""
        return np.array(self._powers, np.float32)
