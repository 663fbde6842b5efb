"""The transcription of a file with a synchronous interface."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Self

from dalston import background
from dalston.files.async_file_transcription import AsyncFileTranscription
from dalston.records import Job, Transcript, Utterance


class FileTranscription:
    """Iterate over it for the utterances as they are transcribed, or call `wait()` for the transcript.

    It behaves like `AsyncFileTranscription` and raises its errors.
    """

    def __init__(self, transcription: AsyncFileTranscription) -> None:
        self._transcription = transcription

    @property
    def job(self) -> Job | None:
        """The job as it was last seen; None before the file is sent."""
        return self._transcription.job

    @property
    def session_id(self) -> str | None:
        """The session that stores the file and its transcript; None before the file is sent."""
        return self._transcription.session_id

    @property
    def transcript(self) -> Transcript:
        """The transcript so far."""
        return self._transcription.transcript

    def submit(self) -> Job:
        """Sends the file, unless it is sent already. Returns the job, which continues without this client."""
        return background.run(self._transcription.submit())

    def wait(self) -> Transcript:
        """Waits for the remaining utterances. Returns the transcript."""
        return background.run(self._transcription.wait())

    def close(self) -> None:
        """Leaves the job, which continues. A later iteration finds it again."""
        background.run(self._transcription.close())

    def __iter__(self) -> Iterator[Utterance]:
        return background.iterate(aiter(self._transcription))

    def __enter__(self) -> Self:
        background.run(self._transcription.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
