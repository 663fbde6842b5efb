"""Metrics and a log line of every call."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc
from prometheus_client import Counter, Gauge, Histogram

from server.rpc.interceptor import Call, CallInterceptor, Context
from telemetry.logs import get_logger

log = get_logger(__name__)

CALLS = Counter("dalston_rpc_calls_total", "Calls ended.", ["method", "code"])
RUNNING = Gauge("dalston_rpc_running", "Calls in progress.", ["method"])
SECONDS = Histogram(
    "dalston_rpc_seconds",
    "Duration of calls.",
    ["method"],
    buckets=(0.005, 0.02, 0.1, 0.5, 2, 10, 60, 600, 3600, 14400),
)


class TelemetryInterceptor(CallInterceptor):
    """The outermost interceptor: it observes the status that the client receives."""

    async def around(self, method: str, call: Call, context: Context) -> Any:
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


def _status_name(context: Context) -> str:
    code = context.code()
    if isinstance(code, grpc.StatusCode):
        return code.name
    return next((status.name for status in grpc.StatusCode if status.value[0] == code), "UNKNOWN")
