"""The client for asyncio."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Self, Unpack
from weakref import WeakSet

from dalston.async_jobs import AsyncJobs
from dalston.async_keys import AsyncKeys, AsyncTokens
from dalston.async_sessions import AsyncSessions
from dalston.calls import CLOSED, Calls
from dalston.endpoint import find_endpoint
from dalston.files.async_file_transcription import AsyncFileTranscription
from dalston.live.async_transcription import AsyncTranscription, open_transcription
from dalston.options import AudioSource, FileOptions, FileSettings, FileSource, TranscribeOptions
from dalston.service_status import ServiceStatus
from dalston.status_messages import service_status
from dalston.v1 import status_pb2

DEFAULT_TIMEOUT = 30.0


class AsyncClient:
    """A client of one service with one key.

    Args:
        url: `http://HOST:PORT` or `https://HOST:PORT`. Default: `DALSTON_URL`, or `http://127.0.0.1:8000`.
        api_key: a key or a token. Default: `DALSTON_API_KEY`, or none.
        timeout: seconds for a whole call, including retries and the pauses between them. A download may take longer
            while data arrives.
        ca_file: certificates to trust instead of the system's.

    Use it in one event loop, and close it, or use it as a context manager.

    Raises:
        ValueError: the URL or the key is malformed.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        ca_file: str | os.PathLike[str] | None = None,
    ) -> None:
        self._calls = Calls(find_endpoint(url, api_key, ca_file), timeout)
        self._transcriptions: WeakSet[AsyncTranscription] = WeakSet()
        self.sessions = AsyncSessions(self._calls)
        self.jobs = AsyncJobs(self._calls)
        self.keys = AsyncKeys(self._calls)
        self.tokens = AsyncTokens(self._calls)

    def transcribe(self, audio: AudioSource, **options: Unpack[TranscribeOptions]) -> AsyncTranscription:
        """Transcribes audio as it arrives: enter the returned object, and iterate over its events.

        After a lost connection the transcription resumes without a gap; see `AsyncTranscription`.

        Raises:
            TypeError, ValueError: an option does not exist or has an invalid value.
            RuntimeError: the client is closed.
        """
        self._calls.check_open()
        transcription = open_transcription(self._calls, audio, options)
        self._transcriptions.add(transcription)
        return transcription

    def transcribe_file(self, source: FileSource, **options: Unpack[FileOptions]) -> AsyncFileTranscription:
        """Transcribes a file as a batch job of the service: await the returned object, or iterate over it.

        The service decodes the file, so that no decoder is required here. See `AsyncFileTranscription`.

        Raises:
            TypeError, ValueError: an option does not exist or has an invalid value, or the source is not a file.
            RuntimeError: the client is closed.
        """
        self._calls.check_open()
        return AsyncFileTranscription(self._calls, source, FileSettings.of(options))

    async def status(self) -> ServiceStatus:
        """The status of the service: its servers and workers, and what waits in all of them together.

        With authentication it requires a key with the scope `admin`; keys of the tenant `default` see the whole
        deployment, and those of other tenants their own totals.
        """
        request = status_pb2.GetStatusRequest()
        return service_status(await self._calls.call_with_retries(self._calls.status.GetStatus, request))

    async def close(self) -> None:
        """Closes the connection. Calls in progress fail with RuntimeError."""
        for transcription in list(self._transcriptions):
            await transcription.fail(RuntimeError(CLOSED))
        await self._calls.close()

    async def __aenter__(self) -> Self:
        self._calls.check_open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
