"""The server process with a recogniser that costs nothing: `python -m tests.faults.fault_server`.

`server.app` runs as it is: gRPC, interceptors, sessions, segmenter, storage, signals. Only the two models are replaced,
before it is imported: a detector finds speech by the clock, and a recogniser reads the pattern and reports which bytes
it received. So a hundred streams fit on two cores, and every final states which audio it covers. Other tests cover the
real models with real speech.
"""

import asyncio
import sys
import types
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from server.inference.recognition import Recognition
from server.vad.silero import WINDOW_SAMPLES, Window
from tests.faults.pattern import MARK_BYTES
from tests.recognizers import Asked, Recognizer

_SPEECH_WINDOWS = 32
"""About a second of speech..."""
_PAUSE_WINDOWS = 18
"""...and then 0.58 s of silence, enough to end the utterance."""
CYCLE_BYTES = (_SPEECH_WINDOWS + _PAUSE_WINDOWS) * WINDOW_SAMPLES * 2
"""Audio from the beginning of one utterance to that of the next, in 16-bit samples at 16 kHz."""


class ScriptedEngine(Recognizer):
    """Reports which bytes of which session it received."""

    models = frozenset({"fast", "accurate"})

    def __init__(self, settings: object, queue_limit: int) -> None:
        self.died = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def supports(self, model: str, language: str) -> bool:
        return model in self.models

    def languages(self, model: str) -> tuple[str, ...]:
        return ("en", "es")

    async def answer(self, asked: Asked) -> Recognition:
        return Recognition(describe(asked.samples), asked.language or "en", 0.9, 0.0, None)

    async def answer_partial(self, asked: Asked) -> Recognition | None:
        return Recognition("so far", asked.language or "en", 0.9, 0.0, None)


def describe(samples: NDArray[np.float32]) -> str:
    """`tag 7 bytes 6400 to 38400`, read from the marks; what is no pattern is `noise`."""
    marks = np.round(samples[: len(samples) // 2 * 2] * 32768).astype("<i2").view("<u4")
    if not len(marks) or (len(marks) > 1 and not np.all(np.diff(marks) == 1)):
        return "noise"
    start = int(marks[0] & 0x3FFFFFF) * MARK_BYTES
    return f"tag {int(marks[0]) >> 26} bytes {start} to {start + len(marks) * MARK_BYTES}"


class ScriptedVad:
    """Speech and silence in turns, by position."""

    def stream(self) -> "ScriptedStream":
        return ScriptedStream()


class ScriptedStream:
    def __init__(self) -> None:
        self._samples = 0

    def push(self, samples: NDArray[np.float32]) -> list[Window]:
        first = self._samples // WINDOW_SAMPLES
        self._samples += len(samples)
        return [_window(number) for number in range(first, self._samples // WINDOW_SAMPLES)]


def _window(number: int) -> Window:
    speaks = number % (_SPEECH_WINDOWS + _PAUSE_WINDOWS) < _SPEECH_WINDOWS
    return Window(0.9 if speaks else 0.0, 0.1)


def main() -> int:
    engine = types.ModuleType("server.inference.scheduling.engine")
    engine.Engine = ScriptedEngine  # type: ignore[attr-defined]
    sys.modules["server.inference.scheduling.engine"] = engine  # torch takes 4 s to import
    from server import app

    app.SileroVad = ScriptedVad  # type: ignore[attr-defined]
    return app.main()


if __name__ == "__main__":
    sys.exit(main())
