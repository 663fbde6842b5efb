"""One `TranscribeFile` call: the file is written as it arrives, and the job and its utterances are read."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import grpc
from dalston.grpc_call import GrpcCall
from dalston.v1.file_pb2 import FileConfig, TranscribeFileRequest, TranscribeFileResponse
from dalston.v1.job_pb2 import Job
from dalston.v1.session_pb2 import Utterance

from edge.closing import close_reason_for, close_reason_of_failure
from uploads import metrics
from uploads.config import UploadLimits
from uploads.errors import ApiError, error_of_reason

FileCall: TypeAlias = GrpcCall[TranscribeFileRequest, TranscribeFileResponse]

MESSAGE_BYTES: Final = 256 * 1024
"""The size of the messages that carry the file; the contract allows twice as much."""

HELD_SECONDS: Final = 5.0
"""A smaller message is sent after this time: the server ends a call that is idle, and a client may be slow."""

NOT_ANSWERING: Final = close_reason_for("UNAVAILABLE", "the transcription server does not answer; try again shortly")
ENDED_EARLY: Final = close_reason_for("UNAVAILABLE", "the transcription server ended the stream; try again shortly")


@dataclass(slots=True)
class Result:
    """What a job has transcribed so far."""

    job: Job
    utterances: list[Utterance] = field(default_factory=list)


class Transcription:
    """The call of one request. At most one message of the file is kept."""

    def __init__(self, call: FileCall, limits: UploadLimits) -> None:
        self._call = call
        self._limits = limits
        self._unsent = bytearray()
        self._sent_at = time.monotonic()

    async def send(self, data: bytes) -> None:
        """Takes the next bytes of the file; waits until there is room for them.

        Raises:
            ApiError: the server ended the call, or does not take the file.
        """
        self._unsent += data
        while len(self._unsent) >= MESSAGE_BYTES:
            await self._write_data()
        if self._unsent and time.monotonic() - self._sent_at >= HELD_SECONDS:
            await self._write_data()

    async def finish(self, config: FileConfig) -> Job:
        """Sends the rest of the file and how to transcribe it, and returns the job once it exists.

        Raises:
            ApiError: the server refused the file, or does not answer.
        """
        if self._unsent:
            await self._write_data()
        await self._write(TranscribeFileRequest(config=config))
        await self._call.half_close()
        try:
            async with asyncio.timeout(self._limits.stall_seconds):
                response = await self._read()
        except TimeoutError:
            raise error_of_reason(NOT_ANSWERING) from None
        if response is None or not response.HasField("job"):
            raise error_of_reason(ENDED_EARLY)
        return response.job

    async def follow(self, result: Result) -> Utterance | None:
        """Adds the next utterance to the result and returns it; None once the job of the result has ended.

        Raises:
            ApiError: the call failed; the job may continue.
        """
        while (response := await self._read()) is not None:
            if response.HasField("utterance"):
                result.utterances.append(response.utterance)
                return response.utterance
            result.job = response.job
        if result.job.status not in ("completed", "failed", "canceled"):
            raise error_of_reason(ENDED_EARLY)
        return None

    async def failed(self) -> ApiError:
        """Waits until the server ends the call while the file is being sent, and returns why."""
        return await self._error()

    async def close(self) -> None:
        """Ends the call. The job, once there is one, continues."""
        await self._call.close()

    async def _write_data(self) -> None:
        await self._write(TranscribeFileRequest(data=bytes(self._unsent[:MESSAGE_BYTES])))
        del self._unsent[:MESSAGE_BYTES]
        self._sent_at = time.monotonic()

    async def _write(self, request: TranscribeFileRequest) -> None:
        try:
            async with asyncio.timeout(self._limits.stall_seconds):
                is_written = await self._call.write(request)
        except TimeoutError:
            raise error_of_reason(NOT_ANSWERING) from None
        if not is_written:
            raise await self._error()
        metrics.FILE_BYTES.inc(len(request.data))

    async def _read(self) -> TranscribeFileResponse | None:
        try:
            return await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise error_of_reason(close_reason_of_failure(error)) from None

    async def _error(self) -> ApiError:
        """Waits until the server ends the call, and returns why."""
        failure = await self._call.failure()
        return error_of_reason(ENDED_EARLY if failure is None else close_reason_of_failure(failure))
