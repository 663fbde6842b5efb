"""Reflection: describes the services to tools. It needs no key, so that each client and all together are limited."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Final

from grpc_reflection.v1alpha._async import ReflectionServicer  # public by an alias only

from server.access.errors import RateLimited
from server.access.rates import Rates
from server.rpc.errors import abort
from server.rpc.interceptor import Context

_PER_SECOND: Final = 20.0
_BURST: Final = 400.0
"""For each address. A tool that reads the whole contract sends about fifty requests."""
_ALL_PER_SECOND: Final = 100.0
_ALL_BURST: Final = 1000.0
"""For all addresses together. An answer takes a third of a millisecond."""
_ALL: Final = object()


class BoundedReflection(ReflectionServicer):  # type: ignore[misc]  # it has no types
    """The library's servicer with rate limits: it answers RATE_LIMITED beyond them."""

    def __init__(self, services: tuple[str, ...], rates: Rates | None = None) -> None:
        super().__init__(services)
        self._rates = Rates() if rates is None else rates

    async def ServerReflectionInfo(self, requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
        address = dict(context.invocation_metadata() or ()).get("x-forwarded-for", context.peer().rpartition(":")[0])
        async with aclosing(super().ServerReflectionInfo(requests, context)) as responses:
            async for response in responses:
                yield response
                # Counted before the next answer is made. The proxy limits streams, and so first answers.
                await self._count(address, context)

    async def _count(self, address: str | bytes, context: Context) -> None:
        seconds = self._rates.take(address, _PER_SECOND, _BURST) or self._rates.take(_ALL, _ALL_PER_SECOND, _ALL_BURST)
        if seconds:
            await abort("ServerReflectionInfo", context, RateLimited("too many reflection requests", seconds))
