"""The connection, and calls on it with retries and deadlines."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, TypeVar

import grpc

from dalston.backoff import Backoff
from dalston.endpoint import Endpoint
from dalston.errors import Busy, DalstonError, DeadlineExceeded, NotFound, TooManySessions, Unavailable
from dalston.failures import error_of
from dalston.v1 import key_pb2_grpc, session_pb2_grpc, transcription_pb2_grpc

T = TypeVar("T")

ATTEMPT_SECONDS = 10.0
"""For one attempt of a call that may be made again: a frozen server must not use up the time of the others."""
CLOSED = "the client is closed"
FORKED = (
    "gRPC does not work in a process that was forked after gRPC was used: start processes with the method 'spawn' or "
    "'forkserver' of multiprocessing; transcribe(transport='websocket') works in a forked process, too"
)
_BACKOFF = Backoff()
_MAX_RESPONSE_BYTES = 16 * 1024 * 1024
"""A page of a thousand utterances with their words is a few megabytes."""

_OPTIONS: list[tuple[str, Any]] = [
    # gRPC's own pause before it connects again doubles up to two minutes. Who waits here is the caller of each call.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2000),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # A connection that is dead without having been closed is noticed within 25 s, while calls are on it.
    ("grpc.keepalive_time_ms", 15_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", _MAX_RESPONSE_BYTES),
    # Clients of one process do not share a connection, so that closing one does not disturb another.
    ("grpc.use_local_subchannel_pool", 1),
]


class Calls:
    """One connection to a service, made when it is first needed.

    Args:
        timeout: seconds for a call with all its attempts.
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
        """The channel, of the loop that asks first.

        Raises:
            RuntimeError: the client is closed, or this process was forked from one that has used gRPC.
        """
        self.check_open()
        _check_process()
        if self._channel is None:
            self._channel = _open(self.endpoint)
        return self._channel

    # A stub is asked for with every call, so that a call on a closed client says that and nothing else.

    @property
    def sessions(self) -> session_pb2_grpc.SessionServiceStub:
        return session_pb2_grpc.SessionServiceStub(self.channel)

    @property
    def keys(self) -> key_pb2_grpc.KeyServiceStub:
        return key_pb2_grpc.KeyServiceStub(self.channel)

    @property
    def transcription(self) -> transcription_pb2_grpc.TranscriptionServiceStub:
        return transcription_pb2_grpc.TranscriptionServiceStub(self.channel)

    def check_open(self) -> None:
        """Does nothing.

        Raises:
            RuntimeError: the client is closed.
        """
        if self._is_closed:
            raise RuntimeError(CLOSED)

    def metadata(self, *more: tuple[str, str]) -> tuple[tuple[str, str], ...]:
        """What each call carries, and `more`."""
        key = self.endpoint.api_key
        return (*((("authorization", f"Bearer {key}"),) if key else ()), *more)

    async def once(self, method: Any, request: Any) -> Any:
        """Makes a call that must not be made twice.

        Raises:
            DalstonError: it failed. After `Unavailable` it may have happened.
        """
        return await self._attempt(method, request, self.timeout)

    async def again(self, method: Any, request: Any, *, gone_is_done: bool = False) -> Any:
        """Makes a call that may be made twice, until it is answered or the time is over.

        Args:
            gone_is_done: NOT_FOUND after an attempt whose answer was lost means that this attempt had done it; the
                answer is None then.

        Raises:
            DalstonError: the service refused it, or what the last attempt ended with.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.timeout
        attempt, was_lost = 0, False
        while True:
            attempt += 1
            try:
                return await self._attempt(method, request, min(ATTEMPT_SECONDS, deadline - loop.time()))
            except DalstonError as error:
                if gone_is_done and was_lost and isinstance(error, NotFound):
                    return None
                was_lost = was_lost or isinstance(error, Unavailable)
                pause = retry_pause(error, attempt)
                if pause is None or loop.time() + pause >= deadline:
                    raise
                await asyncio.sleep(pause)

    async def stream(
        self, method: Any, request: Any, silence: float, *more: tuple[str, str]
    ) -> AsyncGenerator[Any, None]:
        """The headers of an answer, a dict, and then its messages.

        Args:
            silence: seconds without a message after which the connection is taken for lost.
            more: metadata to send.

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
            raise DeadlineExceeded(f"the service said nothing for {silence:g} seconds") from None
        except asyncio.CancelledError:
            self._check_not_closed_under()
            raise
        finally:
            call.cancel()

    async def close(self) -> None:
        """Closes the connection; calls that run fail."""
        self._is_closed = True
        if self._channel is not None and not _is_forked():
            await self._channel.close(None)

    async def _attempt(self, method: Any, request: Any, seconds: float) -> Any:
        self.check_open()  # It may have been closed since the last attempt.
        try:
            return await method(request, timeout=seconds, metadata=self.metadata())
        except grpc.aio.AioRpcError as failure:
            raise error_of(failure) from None
        except asyncio.CancelledError:
            self._check_not_closed_under()
            raise

    def _check_not_closed_under(self) -> None:
        """Closing the connection cancels the calls on it, which is not for the caller's task to end by.

        Raises:
            RuntimeError: that is what happened.
        """
        task = asyncio.current_task()
        if self._is_closed and not (task and task.cancelling()):
            raise RuntimeError(CLOSED) from None


def retry_pause(error: DalstonError, attempt: int) -> float | None:
    """Seconds to wait before a call that failed is made again, or None where that is no use."""
    if isinstance(error, TooManySessions):
        return None
    if isinstance(error, Busy):
        return _BACKOFF.pause(attempt, error.retry_after)
    return _BACKOFF.pause(attempt) if isinstance(error, Unavailable) else None


_process_of_grpc: int | None = None
"""The process that has made a channel. gRPC's threads are in that one only: in a child of it they are missing, and what
waits for them hangs or aborts."""


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
