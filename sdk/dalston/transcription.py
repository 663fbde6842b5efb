"""A live transcription with a synchronous interface."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from dalston import background
from dalston.events import Event
from dalston.live.async_transcription import AsyncTranscription
from dalston.records import Transcript


class Transcription:
    """Iterate over it for the events; the iteration raises the errors.

    The other methods may be called from any thread, and `end` also from a signal handler.
    """

    def __init__(self, stream: AsyncTranscription) -> None:
        self._stream = stream

    @property
    def session_ids(self) -> tuple[str, ...]:
        """The sessions so far; more than one after a lost connection."""
        return self._stream.session_ids

    @property
    def audio_seconds(self) -> float | None:
        """Length of the audio in seconds if its header states it; None before the transcription has started."""
        return self._stream.audio_seconds

    @property
    def transcript(self) -> Transcript:
        """The transcript so far."""
        return self._stream.transcript

    def flush(self) -> None:
        """Ends the utterance in progress; `Flushed` follows once all audio so far is transcribed."""
        self._schedule(self._stream.flush)

    def set_language(self, language: str) -> None:
        """Changes the language from the next utterance on: an ISO 639-1 code, or `auto`."""
        self._schedule(self._stream.set_language, language)

    def end(self) -> None:
        """Ends the audio. The last finals and `Ended` follow."""
        self._schedule(self._stream.end)

    def wait(self) -> Transcript:
        """Reads the remaining events and returns the transcript."""
        for _ in self:
            pass
        return self.transcript

    def close(self) -> None:
        """Aborts the transcription unless it has ended; its session is recorded as `interrupted`."""
        background.run(self._stream.close())

    def _schedule(self, method: Callable[..., None], *args: str) -> None:
        if not self._stream.is_started:
            raise RuntimeError("the transcription has not been started: enter it, or iterate over it")
        background.call_soon(method, *args)

    def __iter__(self) -> Iterator[Event]:
        return background.iterate(aiter(self._stream))

    def __enter__(self) -> Self:
        background.run(self._stream.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
