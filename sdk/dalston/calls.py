"""The gRPC connection, and calls with retries and deadlines."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, TypeVar

import grpc

from dalston.backoff import Backoff
from dalston.endpoint import Endpoint
from dalston.errors import Busy, DalstonError, DeadlineExceeded, NotFound, TooManyJobs, TooManySessions, Unavailable
from dalston.failures import error_of
from dalston.v1 import (
    file_pb2_grpc,
    job_pb2_grpc,
    key_pb2_grpc,
    session_pb2_grpc,
    status_pb2_grpc,
    transcription_pb2_grpc,
)

T = TypeVar("T")

ATTEMPT_SECONDS = 10.0
"""Deadline of one attempt of a retried call, so that a frozen server leaves time for further attempts."""
CLOSED = "the client is closed"
FORKED = (
    "gRPC does not work in a process that was forked after gRPC was used: start processes with the multiprocessing "
    "method 'spawn' or 'forkserver', or use transcribe(transport='websocket'), which works in forked processes"
)
_BACKOFF = Backoff()
_MAX_RESPONSE_BYTES = 16 * 1024 * 1024
"""A page of a thousand utterances with words takes a few megabytes."""

_OPTIONS: list[tuple[str, Any]] = [
    # gRPC's pause between connection attempts grows to two minutes by default. Here the retries of each call pause.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2000),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # Detects a broken connection that was never closed within 25 s while calls are in progress.
    ("grpc.keepalive_time_ms", 15_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", _MAX_RESPONSE_BYTES),
    # Clients in one process do not share a connection, so that closing one does not affect another.
    ("grpc.use_local_subchannel_pool", 1),
]


class Calls:
    """One connection to a service, established when it is first needed.

    Args:
        timeout: seconds for a call, including retries.
    """

    def __init__(self, endpoint: Endpoint, timeout: float) -> None:
        if not timeout > 0:
            raise ValueError("timeout must be more than 0")
        self.endpoint = endpoint
        self.timeout = timeout
        self._channel: grpc.aio.Channel | None = None
        self._is_closed = False

    @property
    def channel(self) -> grpc.aio.Channel:
        """The channel; it belongs to the event loop that first uses it.

        Raises:
            RuntimeError: the client is closed, or this process was forked from one that has used gRPC.
        """
        self.check_open()
        _check_process()
        if self._channel is None:
            self._channel = _open(self.endpoint)
        return self._channel

    # Every call fetches its stub, so that calls on a closed client raise the error that states so.

    @property
    def sessions(self) -> session_pb2_grpc.SessionServiceStub:
        return session_pb2_grpc.SessionServiceStub(self.channel)

    @property
    def jobs(self) -> job_pb2_grpc.JobServiceStub:
        return job_pb2_grpc.JobServiceStub(self.channel)

    @property
    def keys(self) -> key_pb2_grpc.KeyServiceStub:
        return key_pb2_grpc.KeyServiceStub(self.channel)

    @property
    def transcription(self) -> transcription_pb2_grpc.TranscriptionServiceStub:
        return transcription_pb2_grpc.TranscriptionServiceStub(self.channel)

    @property
    def files(self) -> file_pb2_grpc.FileServiceStub:
        return file_pb2_grpc.FileServiceStub(self.channel)

    @property
    def status(self) -> status_pb2_grpc.StatusServiceStub:
        return status_pb2_grpc.StatusServiceStub(self.channel)

    def check_open(self) -> None:
        """Raises if the client is closed.

        Raises:
            RuntimeError: the client is closed.
        """
        if self._is_closed:
            raise RuntimeError(CLOSED)

    def metadata(self, *more: tuple[str, str]) -> tuple[tuple[str, str], ...]:
        """The metadata of every call, followed by `more`."""
        key = self.endpoint.api_key
        return (*((("authorization", f"Bearer {key}"),) if key else ()), *more)

    async def call_once(self, method: Any, request: Any, seconds: float | None = None) -> Any:
        """Makes a call that must not be repeated, or that the caller repeats.

        Args:
            seconds: its deadline, at most the timeout.

        Raises:
            DalstonError: it failed. After `Unavailable` it may nevertheless have been executed.
        """
        return await self._attempt(method, request, min(self.timeout, seconds or self.timeout))

    async def call_with_retries(self, method: Any, request: Any, *, not_found_is_success: bool = False) -> Any:
        """Makes an idempotent call, and retries it until it succeeds or the timeout expires.

        Args:
            not_found_is_success: NOT_FOUND after an attempt whose response was lost means that this attempt succeeded;
                the call then returns None.

        Raises:
            DalstonError: the service rejected the call, or the error of the last attempt.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.timeout
        attempt, was_lost = 0, False
        while True:
            attempt += 1
            try:
                return await self._attempt(method, request, min(ATTEMPT_SECONDS, deadline - loop.time()))
            except DalstonError as error:
                if not_found_is_success and was_lost and isinstance(error, NotFound):
                    return None
                was_lost = was_lost or isinstance(error, Unavailable)
                pause = retry_pause(error, attempt)
                if pause is None or loop.time() + pause >= deadline:
                    raise
                await asyncio.sleep(pause)

    async def stream(
        self, method: Any, request: Any, silence: float, *more: tuple[str, str]
    ) -> AsyncGenerator[Any, None]:
        """Yields the headers of the response, a dict, and then its messages.

        Args:
            silence: seconds without a message after which the connection counts as lost.
            more: additional metadata.

        Raises:
            DalstonError: the call failed.
        """
        self.check_open()
        call = method(request, metadata=self.metadata(*more))
        try:
            async with aclosing(call.__aiter__()) as messages:
                async with asyncio.timeout(silence):
                    headers = await call.initial_metadata()
                yield {key: value for key, value in headers or () if isinstance(value, str)}
                while True:
                    async with asyncio.timeout(silence):
                        message = await anext(messages, None)
                    if message is None:
                        return
                    yield message
        except grpc.aio.AioRpcError as failure:
            raise error_of(failure) from None
        except TimeoutError:
            raise DeadlineExceeded(f"the service sent nothing for {silence:g} seconds") from None
        except asyncio.CancelledError:
            self.raise_if_closed()
            raise
        finally:
            call.cancel()

    async def close(self) -> None:
        """Closes the connection; calls in progress fail."""
        self._is_closed = True
        if self._channel is not None and not _is_forked():
            await self._channel.close(None)

    async def _attempt(self, method: Any, request: Any, seconds: float) -> Any:
        self.check_open()  # The client may have been closed since the last attempt.
        try:
            return await method(request, timeout=seconds, metadata=self.metadata())
        except grpc.aio.AioRpcError as failure:
            raise error_of(failure) from None
        except asyncio.CancelledError:
            self.raise_if_closed()
            raise

    def raise_if_closed(self) -> None:
        """Converts the cancellation of a call by a closing connection, which must not cancel the caller's task.

        Raises:
            RuntimeError: the client was closed, and the task itself was not cancelled.
        """
        task = asyncio.current_task()
        if self._is_closed and not (task and task.cancelling()):
            raise RuntimeError(CLOSED) from None


def retry_pause(error: DalstonError, attempt: int) -> float | None:
    """Seconds to wait before the next attempt of a failed call, or None if a retry is useless."""
    if isinstance(error, TooManySessions | TooManyJobs):
        return None
    if isinstance(error, Busy):
        return _BACKOFF.pause(attempt, error.retry_after)
    return _BACKOFF.pause(attempt) if isinstance(error, Unavailable) else None


_process_of_grpc: int | None = None
"""The process that created a channel. Only that process has gRPC's threads: in a forked child they are missing, and
calls that wait for them hang or abort."""


def _is_forked() -> bool:
    return _process_of_grpc not in (None, os.getpid())


def _check_process() -> None:
    global _process_of_grpc
    if _is_forked():
        raise RuntimeError(FORKED)
    _process_of_grpc = os.getpid()


def _open(endpoint: Endpoint) -> grpc.aio.Channel:
    options = [*_OPTIONS, ("grpc.primary_user_agent", "dalston-python")]
    if endpoint.is_loopback:
        options.append(("grpc.enable_http_proxy", 0))
    if not endpoint.is_secure:
        return grpc.aio.insecure_channel(endpoint.address, options=options)
    roots = endpoint.ca_file.read_bytes() if endpoint.ca_file else None
    return grpc.aio.secure_channel(endpoint.address, grpc.ssl_channel_credentials(roots), options=options)
