from importlib.resources import files

import numpy as np
import onnxruntime
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from server.vad.silero import WINDOW_SAMPLES, SileroVad, VadStream, Window

VAD = SileroVad()
SPEECH = soundfile.read("samples/sense-and-sensibility.flac", frames=5 * 16_000, dtype="float32")[0]


def processed(stream: VadStream, samples: NDArray[np.float32], pieces: list[int]) -> list[Window]:
    """The results for samples that arrive in pieces of these sizes, and then the rest."""
    windows, at = [], 0
    for size in [*pieces, len(samples)]:
        windows += stream.push(samples[at : at + size])
        at += size
    return windows


WHOLE = processed(VAD.stream(), SPEECH, [])


def test_every_whole_window_is_processed() -> None:
    assert len(WHOLE) == len(SPEECH) // WINDOW_SAMPLES
    assert max(window.probability for window in WHOLE) > 0.9
    assert WHOLE[10].power == pytest.approx(float(np.square(SPEECH[5120:5632]).mean()))


def test_windows_in_one_call_equal_the_model_for_single_windows() -> None:
    model = (files("silero_vad") / "data" / "silero_vad_16k_op15.onnx").read_bytes()
    single = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    state, padded = np.zeros((2, 1, 128), np.float32), np.concatenate((np.zeros(64, np.float32), SPEECH))
    expected = []
    for start in range(0, len(SPEECH) - WINDOW_SAMPLES + 1, WINDOW_SAMPLES):
        row = padded[None, start : start + 64 + WINDOW_SAMPLES]
        probability, state = single.run(None, {"input": row, "state": state, "sr": np.array(16_000, np.int64)})
        expected.append(float(probability[0, 0]))
    assert [window.probability for window in WHOLE] == pytest.approx(expected, abs=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 4000), max_size=40))
def test_the_sizes_of_pieces_make_no_difference(pieces: list[int]) -> None:
    windows = processed(VAD.stream(), SPEECH, pieces)
    assert [window.power for window in windows] == [window.power for window in WHOLE]
    assert [window.probability for window in windows] == pytest.approx([w.probability for w in WHOLE], abs=1e-5)


def test_streams_of_one_model_are_independent() -> None:
    one, other = VAD.stream(), VAD.stream()
    windows = []
    for start in range(0, len(SPEECH), 1600):
        windows += one.push(SPEECH[start : start + 1600])
        other.push(np.zeros(1600, np.float32))
    assert [window.probability for window in windows] == pytest.approx([w.probability for w in WHOLE], abs=1e-5)
