"""Silero's voice activity detector, called directly: its ONNX model for sequences of windows.

The package's iterator costs three to five times as much per window. One call processes all windows that a piece of
audio completes, which costs a third less than one call for each, with the same results (docs/adr/0072).
"""

from dataclasses import dataclass, field
from importlib.resources import files

import numpy as np
import onnxruntime
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

WINDOW_SAMPLES = 512
"""Samples of one window at 16 kHz: 32 ms."""

_CONTEXT_SAMPLES = 64
"""The model receives each window together with so many samples before it."""
_STATE_SHAPE = (1, 1, 128)


@dataclass(frozen=True, slots=True)
class Window:
    """The result for one window."""

    probability: float
    """Of speech, 0 to 1."""
    power: float
    """Mean square of the samples, full scale 1.0."""


@dataclass(frozen=True, slots=True)
class VadState:
    """The state of the model after a part of a stream."""

    hidden: NDArray[np.float32]
    cell: NDArray[np.float32]

    @classmethod
    def of_silence(cls) -> "VadState":
        return cls(np.zeros(_STATE_SHAPE, np.float32), np.zeros(_STATE_SHAPE, np.float32))


class SileroVad:
    """The model. It holds no state of a stream, so one instance serves all streams."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        # A window takes 0.1 ms: threads would cost more than they save.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        model = files("silero_vad") / "data" / "silero_vad_16k_sequence.onnx"
        self._session = onnxruntime.InferenceSession(model.read_bytes(), options, providers=["CPUExecutionProvider"])

    def stream(self) -> "VadStream":
        """A new stream, which begins after silence."""
        return VadStream(self)

    def run(self, windows: NDArray[np.float32], state: VadState) -> tuple[NDArray[np.float32], VadState]:
        """Processes consecutive windows of one stream.

        Args:
            windows: shape [windows, 64 + 512], at least one: the last samples of the previous window, then the window.
            state: the state after the previous windows.

        Returns:
            Probabilities of speech, shape [windows], and the state after them.
        """
        feed = {"input": windows, "h": state.hidden, "c": state.cell}
        probabilities, hidden, cell = self._session.run(None, feed)
        return probabilities, VadState(hidden, cell)


@dataclass(slots=True)
class VadStream:
    """The detector's state for one stream."""

    model: SileroVad
    _state: VadState = field(default_factory=VadState.of_silence)
    _pending: NDArray[np.float32] = field(default_factory=lambda: np.zeros(_CONTEXT_SAMPLES, np.float32))
    """The context of the next window, and the samples of it that have arrived."""

    def push(self, samples: NDArray[np.float32]) -> list[Window]:
        """Processes the next samples (mono, 16 kHz). Returns the result for each window that they complete."""
        pending = np.concatenate((self._pending, samples))
        count = (len(pending) - _CONTEXT_SAMPLES) // WINDOW_SAMPLES
        self._pending = pending[count * WINDOW_SAMPLES :].copy()
        if not count:
            return []
        length = _CONTEXT_SAMPLES + WINDOW_SAMPLES
        rows = np.ascontiguousarray(sliding_window_view(pending, length)[::WINDOW_SAMPLES][:count])
        probabilities, self._state = self.model.run(rows, self._state)
        powers = np.square(rows[:, _CONTEXT_SAMPLES:]).mean(axis=1)
        return [Window(p, power) for p, power in zip(probabilities.tolist(), powers.tolist(), strict=True)]
