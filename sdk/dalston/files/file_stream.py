"""One `TranscribeFile` call: sends a file, then reads its job and its utterances."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, TypeAlias

import grpc

from dalston.calls import Calls
from dalston.errors import DeadlineExceeded, InvalidRequest, ServerError, Unavailable, Unsupported
from dalston.failures import error_of
from dalston.grpc_call import GrpcCall
from dalston.live.cancellation import cancel_and_wait
from dalston.v1.file_pb2 import FileConfig, FileEnd, TranscribeFileRequest, TranscribeFileResponse
from dalston.v1.job_pb2 import Job

_STALL_SECONDS = 60.0
"""For the service to take one piece of the file."""
_ACCEPT_SECONDS = 120.0
"""For the service to store a complete file and to create its job."""

_Call: TypeAlias = GrpcCall[TranscribeFileRequest, TranscribeFileResponse]


class FileStream:
    """A call whose job exists. One task may read it; a read that is cancelled loses no message."""

    def __init__(self, calls: Calls, call: _Call) -> None:
        self._calls = calls
        self._call = call
        self._reading: asyncio.Task[TranscribeFileResponse | None] | None = None

    async def read(self, seconds: float | None) -> TranscribeFileResponse | None:
        """The next message; None after the last.

        Args:
            seconds: how long to wait; None: without limit.

        Raises:
            TimeoutError: nothing arrived in this time. The stream can still be read.
            DalstonError: the stream failed.
        """
        if self._reading is None:
            self._reading = asyncio.create_task(_read(self._call), name="dalston file")
        done, _ = await asyncio.wait((self._reading,), timeout=seconds)
        if not done:
            raise TimeoutError
        task, self._reading = self._reading, None
        if task.cancelled():  # The channel was closed.
            self._calls.check_open()
            raise Unavailable("the connection was closed")
        return task.result()

    async def close(self) -> None:
        """Leaves the stream. Its job continues."""
        if self._reading is not None:
            await cancel_and_wait(self._reading)
            self._reading = None
        await self._call.close()


async def send_file(
    calls: Calls, config: FileConfig, pieces: AsyncGenerator[bytes, None], on_sent: Callable[[int], None]
) -> tuple[FileStream, Job]:
    """Sends a file. Returns the stream and the job once the service has created it.

    Args:
        on_sent: called with the bytes sent so far, after each piece.

    Raises:
        DalstonError: the service rejected the file, or the connection was lost.
        Exception: any error of reading the file.
    """
    transcribe: Any = calls.files.TranscribeFile  # Its type requires an iterator of all requests.
    call: _Call = GrpcCall(transcribe(metadata=calls.metadata()))
    stream = FileStream(calls, call)
    try:
        await _send(call, config, pieces, on_sent)
        return stream, await _job_of(stream)
    except BaseException as error:
        await stream.close()
        if isinstance(error, asyncio.CancelledError):
            calls.raise_if_closed()
        raise


async def _job_of(stream: FileStream) -> Job:
    try:
        response = await stream.read(_ACCEPT_SECONDS)
    except TimeoutError:
        raise DeadlineExceeded(f"the service did not accept the file within {_ACCEPT_SECONDS:g} s") from None
    except InvalidRequest as error:
        if error.reason:
            raise
        # The service states a reason. A proxy of an older one limits the length of all calls that it does not know.
        raise Unsupported(f"the service takes no files; it may be older than this client ({error.message})") from None
    if response is None or not response.HasField("job"):
        raise ServerError("the service did not answer the file with its job")
    return response.job


async def _send(
    call: _Call, config: FileConfig, pieces: AsyncGenerator[bytes, None], on_sent: Callable[[int], None]
) -> None:
    """Sends the config and the file, unless the service ends the stream before; reading it then raises the reason."""
    if not await _write(call, TranscribeFileRequest(config=config)):
        return
    sent = 0
    async with aclosing(pieces):
        async for piece in pieces:
            if not await _write(call, TranscribeFileRequest(data=piece)):
                return
            sent += len(piece)
            on_sent(sent)
    if await _write(call, TranscribeFileRequest(end=FileEnd())):
        await call.half_close()


async def _write(call: _Call, request: TranscribeFileRequest) -> bool:
    try:
        async with asyncio.timeout(_STALL_SECONDS):
            return await call.write(request)
    except TimeoutError:
        raise DeadlineExceeded(f"the service accepted nothing of the file for {_STALL_SECONDS:g} s") from None


async def _read(call: _Call) -> TranscribeFileResponse | None:
    try:
        return await call.read()
    except grpc.aio.AioRpcError as failure:
        raise error_of(failure) from None
