"""The health of the server, cached for all clients."""

import asyncio
import time

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

ANSWER_SECONDS = 2.0
"""How long the server may take."""
CACHE_SECONDS = 1.0
"""How long the server's health is cached: it is checked at most once a second for all clients."""


class ServerHealth:
    """Whether a server takes new calls."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._health = health_pb2_grpc.HealthStub(channel)
        self._checking = asyncio.Lock()
        self._is_serving = False
        self._checked_at = float("-inf")

    async def is_serving(self) -> bool:
        """Whether the server's health is SERVING; False if it does not answer."""
        async with self._checking:
            if time.monotonic() - self._checked_at >= CACHE_SECONDS:
                try:
                    response = await self._health.Check(health_pb2.HealthCheckRequest(), timeout=ANSWER_SECONDS)
                    self._is_serving = response.status == health_pb2.HealthCheckResponse.SERVING
                except grpc.aio.AioRpcError:
                    self._is_serving = False
                self._checked_at = time.monotonic()
            return self._is_serving
