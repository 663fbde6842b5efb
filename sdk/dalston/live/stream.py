"""A live transcription."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, Self

from dalston.calls import Calls
from dalston.events import Event
from dalston.options import AudioSource, Behaviour
from dalston.records import Transcript


def open_transcription(calls: Calls, audio: AudioSource, options: Mapping[str, Any]) -> AsyncTranscription:
    """See `AsyncClient.transcribe`."""
    behaviour, asked = Behaviour.split(options)
    return AsyncTranscription(calls, audio, behaviour, asked)


class AsyncTranscription:
    """Enter it, then iterate over it for the events; errors are raised there."""

    def __init__(self, calls: Calls, audio: AudioSource, behaviour: Behaviour, asked: Mapping[str, Any]) -> None:
        raise NotImplementedError

    @property
    def session_ids(self) -> tuple[str, ...]:
        """The sessions it took so far: more than one when a connection was lost."""
        raise NotImplementedError

    @property
    def transcript(self) -> Transcript:
        """What was said so far; `session_id` is the last session's."""
        raise NotImplementedError

    def flush(self) -> None:
        """Ends the utterance in progress now; `Flushed` comes once all audio taken so far is transcribed."""
        raise NotImplementedError

    def set_language(self, language: str) -> None:
        """Changes the language from the next utterance on: an ISO 639-1 code or `auto`."""
        raise NotImplementedError

    def end(self) -> None:
        """Takes no more audio. The last finals and `Ended` follow."""
        raise NotImplementedError

    async def wait(self) -> Transcript:
        """Reads all events that are left, and gives the transcript."""
        async for _ in self:
            pass
        return self.transcript

    async def close(self) -> None:
        """Breaks the transcription off, unless it has ended: the session is `interrupted`."""
        raise NotImplementedError

    def __aiter__(self) -> AsyncIterator[Event]:
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        raise NotImplementedError

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
