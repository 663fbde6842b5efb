"""A client that watches sessions and remembers what it received."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
from dalston.v1 import session_pb2 as pb
from dalston.v1 import session_pb2_grpc


class Watcher:
    """One stream, read as fast as it comes."""

    def __init__(self, channel: grpc.aio.Channel, *, token: str = "", status: str = "", metadata: Any = None) -> None:
        stub: Any = session_pb2_grpc.SessionServiceStub(channel)  # type: ignore[no-untyped-call]
        self.call = stub.WatchSessions(
            pb.WatchSessionsRequest(resume_token=token, status=status), metadata=metadata, wait_for_ready=True
        )
        self.messages: list[pb.WatchSessionsResponse] = []
        self.known: dict[str, pb.Session] = {}
        self.longest_silence = 0.0
        """In seconds, between two messages."""
        self._took_at: float | None = None
        self.error: grpc.aio.AioRpcError | None = None
        self._came = asyncio.Condition()
        self._reading = asyncio.create_task(self._read())

    @property
    def token(self) -> str:
        """The token with which the next watch resumes."""
        return next((each.resume_token for each in reversed(self.messages) if each.resume_token), "")

    @property
    def kinds(self) -> list[str]:
        return [each.type for each in self.messages]

    @property
    def statuses(self) -> dict[str, str]:
        return {session_id: session.status for session_id, session in self.known.items()}

    async def until(self, condition: Callable[[Watcher], bool], seconds: float = 20) -> None:
        """Waits until the condition holds after a message."""
        async with asyncio.timeout(seconds), self._came:
            await self._came.wait_for(lambda: condition(self))

    async def ended(self, seconds: float = 20) -> grpc.aio.AioRpcError:
        """The status with which the server ended it."""
        await self.until(lambda watcher: watcher.error is not None, seconds)
        assert self.error is not None
        return self.error

    async def close(self) -> None:
        self.call.cancel()
        await asyncio.wait({self._reading})

    async def _read(self) -> None:
        try:
            async for message in self.call:
                self._take(message)
                await self._notify()
        except grpc.aio.AioRpcError as error:
            self.error = error
            await self._notify()
        except asyncio.CancelledError:
            return

    def _take(self, message: pb.WatchSessionsResponse) -> None:
        now = asyncio.get_running_loop().time()
        self.longest_silence = max(self.longest_silence, now - (self._took_at or now))
        self._took_at = now
        self.messages.append(message)
        if message.type in ("snapshot", "changed"):
            self.known[message.session.id] = message.session
        elif message.type == "deleted":
            self.known.pop(message.session.id, None)

    async def _notify(self) -> None:
        async with self._came:
            self._came.notify_all()
