"""Counts and times every call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from prometheus_client import Counter, Gauge, Histogram

from server.rpc.handlers import wrap_behaviors
from telemetry.logs import get_logger

log = get_logger(__name__)

CALLS = Counter("dalston_rpc_calls_total", "Calls ended.", ["method", "code"])
RUNNING = Gauge("dalston_rpc_running", "Calls in progress.", ["method"])
SECONDS = Histogram(
    "dalston_rpc_seconds",
    "Length of calls.",
    ["method"],
    buckets=(0.005, 0.02, 0.1, 0.5, 2, 10, 60, 600, 3600, 14400),
)


class TelemetryInterceptor(grpc.aio.ServerInterceptor):
    """The outermost interceptor: sees what the client sees."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        handler = await continuation(details)
        if not details.method.startswith("/dalston."):  # health checks would drown the rest
            return handler
        method = details.method.rpartition("/")[2]

        async def observe(call: Callable[[], Awaitable[Any]], context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            return await _observe(method, call, context)

        return wrap_behaviors(handler, observe)


async def _observe(method: str, call: Callable[[], Awaitable[Any]], context: grpc.aio.ServicerContext[Any, Any]) -> Any:
    started = time.monotonic()
    code = "OK"
    RUNNING.labels(method).inc()
    try:
        return await call()
    except asyncio.CancelledError:
        code = "CANCELLED"
        raise
    except grpc.aio.AbortError:
        code = _status_name(context)
        raise
    finally:
        seconds = time.monotonic() - started
        RUNNING.labels(method).dec()
        CALLS.labels(method, code).inc()
        SECONDS.labels(method).observe(seconds)
        log.info("call ended", method=method, code=code, seconds=round(seconds, 3))


def _status_name(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    code = context.code()
    if isinstance(code, grpc.StatusCode):
        return code.name
    return next((status.name for status in grpc.StatusCode if status.value[0] == code), "UNKNOWN")
