"""A live transcription, for code without asyncio."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from dalston import background
from dalston.events import Event
from dalston.live.async_transcription import AsyncTranscription
from dalston.records import Transcript


class Transcription:
    """Iterate over it for the events; errors are raised there.

    Its other methods may be called from any thread, and `end` from a signal handler.
    """

    def __init__(self, stream: AsyncTranscription) -> None:
        self._stream = stream

    @property
    def session_ids(self) -> tuple[str, ...]:
        """The sessions it took so far: more than one when a connection was lost."""
        return self._stream.session_ids

    @property
    def audio_seconds(self) -> float | None:
        """How long the audio is, as far as it says so itself; None before it was entered or iterated over."""
        return self._stream.audio_seconds

    @property
    def transcript(self) -> Transcript:
        """What was said so far."""
        return self._stream.transcript

    def flush(self) -> None:
        """Ends the utterance in progress now; `Flushed` comes once all audio taken so far is transcribed."""
        self._tell(self._stream.flush)

    def set_language(self, language: str) -> None:
        """Changes the language from the next utterance on: an ISO 639-1 code or `auto`."""
        self._tell(self._stream.set_language, language)

    def end(self) -> None:
        """Takes no more audio. The last finals and `Ended` follow."""
        self._tell(self._stream.end)

    def wait(self) -> Transcript:
        """Reads all events that are left, and gives the transcript."""
        for _ in self:
            pass
        return self.transcript

    def close(self) -> None:
        """Breaks the transcription off, unless it has ended: the session is `interrupted`."""
        background.run(self._stream.close())

    def _tell(self, what: Callable[..., None], *args: str) -> None:
        if not self._stream.is_started:
            raise RuntimeError("the transcription has not been started: enter it, or iterate over it")
        background.call_soon(what, *args)

    def __iter__(self) -> Iterator[Event]:
        return background.iterate(aiter(self._stream))

    def __enter__(self) -> Self:
        background.run(self._stream.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
