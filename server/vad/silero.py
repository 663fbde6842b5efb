"""Silero VAD (v6), run as ONNX for one window at a time.

Called directly rather than through the package's iterator, which costs two to three times as much a window. The model
takes a batch of streams, each with its own state; rows do not influence each other.
"""

from dataclasses import dataclass, field
from importlib.resources import files

import numpy as np
import onnxruntime
from numpy.typing import NDArray

WINDOW_SAMPLES = 512
"""Samples of one window at 16 kHz: 32 ms."""

_CONTEXT_SAMPLES = 64
_STATE_SHAPE = (2, 1, 128)
_SAMPLE_RATE = np.array(16_000, np.int64)


@dataclass(frozen=True, slots=True)
class Window:
    """What was heard in one window."""

    probability: float
    """Of speech, 0 to 1."""
    power: float
    """Mean square of the samples, full scale 1.0."""


class SileroVad:
    """The model. Holds no stream's state, so that one instance serves all streams."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        # A window is 0.1 ms of work: threads would cost more than they bring.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        model = files("silero_vad") / "data" / "silero_vad_16k_op15.onnx"
        self._session = onnxruntime.InferenceSession(model.read_bytes(), options, providers=["CPUExecutionProvider"])

    def stream(self) -> "VadStream":
        """A new stream, from silence."""
        return VadStream(self)

    def run(
        self, windows: NDArray[np.float32], states: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Judges one window of each stream.

        Args:
            windows: shape [streams, 64 + 512]: the last samples of the window before, then the window.
            states: shape [2, streams, 128].

        Returns:
            Probabilities of speech, shape [streams], and the states after, shape [2, streams, 128].
        """
        probabilities, states = self._session.run(None, {"input": windows, "state": states, "sr": _SAMPLE_RATE})
        return probabilities[:, 0], states


@dataclass(slots=True)
class VadStream:
    """One stream's place in its audio."""

    model: SileroVad
    _state: NDArray[np.float32] = field(default_factory=lambda: np.zeros(_STATE_SHAPE, np.float32))
    _context: NDArray[np.float32] = field(default_factory=lambda: np.zeros(_CONTEXT_SAMPLES, np.float32))
    _rest: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))

    def push(self, samples: NDArray[np.float32]) -> list[Window]:
        """Takes the next samples (mono, 16 kHz); judges each window they complete."""
        pending = np.concatenate((self._rest, samples)) if len(self._rest) else samples
        whole = len(pending) // WINDOW_SAMPLES * WINDOW_SAMPLES
        windows = []
        for start in range(0, whole, WINDOW_SAMPLES):
            window = pending[start : start + WINDOW_SAMPLES]
            row = np.concatenate((self._context, window))[None]
            probability, self._state = self.model.run(row, self._state)
            windows.append(Window(float(probability[0]), float(np.dot(window, window)) / WINDOW_SAMPLES))
            self._context = window[-_CONTEXT_SAMPLES:]
        self._rest = pending[whole:].copy()
        return windows
