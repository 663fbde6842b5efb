"""The channel to the server."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

_CHANNEL_OPTIONS = (
    # A frozen server is noticed within 8 seconds. Its option grpc.http2.min_ping_interval_without_data_ms must allow
    # pings this frequent, or it cancels every stream that is idle for 15 seconds.
    ("grpc.keepalive_time_ms", 5000),
    ("grpc.keepalive_timeout_ms", 3000),
    ("grpc.http2.max_pings_without_data", 0),
    # A restarted server is found again within 2 seconds, where the default is up to 2 minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # The HTTP/2 window of a stream stays at 64 KiB. An adaptive window grows to megabytes, which a client that reads
    # slowly would fill.
    ("grpc.http2.bdp_probe", 0),
    # The server is on this machine or in this network; the environment's proxy is for other hosts.
    ("grpc.enable_http_proxy", 0),
    # If the target name has several addresses, streams are spread over all servers whose health is SERVING: one that
    # drains keeps its streams and gets no further ones.
    (
        "grpc.service_config",
        json.dumps({"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}}),
    ),
)


@asynccontextmanager
async def open_channel(target: str) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to the server at `target`. All streams share one connection to each of its addresses."""
    async with grpc.aio.insecure_channel(target, options=_CHANNEL_OPTIONS) as channel:
        yield channel
