"""The server process: what is made of what, in which order it starts and stops."""

import asyncio
import signal
import sys
from contextlib import AsyncExitStack
from typing import Any

import grpc
from dalston.v1 import session_pb2, session_pb2_grpc, transcription_pb2, transcription_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import SERVICE_NAME as HEALTH_SERVICE
from grpc_health.v1.health import aio as health  # type: ignore[attr-defined]  # missing in its stubs only
from grpc_reflection.v1alpha import reflection

from persistence.config import PersistenceSettings
from persistence.errors import SpoolInUse, StorageUnavailable
from persistence.service import Persistence, open_persistence
from server.config import ServerSettings
from server.inference.config import InferenceSettings
from server.inference.engine import Engine
from server.inference.errors import WeightsError
from server.rpc.auth import AuthInterceptor
from server.rpc.errors import ErrorInterceptor, ending_of
from server.rpc.requests import StreamLimits
from server.rpc.sessions import SessionServicer
from server.rpc.telemetry import TelemetryInterceptor
from server.rpc.transcription import TranscriptionServicer
from server.vad.silero import SileroVad
from telemetry.exposure import refusal_to_expose
from telemetry.logs import configure_logging, get_logger
from telemetry.metrics import serve_metrics
from telemetry.settings import InvalidSettings, read_settings

log = get_logger(__name__)

EXIT_UNAVAILABLE = 1
"""A part the server needs is not there now: starting it again later may help."""
EXIT_CONFIGURATION = 2

SERVICES = (
    transcription_pb2.DESCRIPTOR.services_by_name["TranscriptionService"].full_name,
    session_pb2.DESCRIPTOR.services_by_name["SessionService"].full_name,
)
_MAX_MESSAGE_BYTES = 1 << 20
"""Far above what the contract allows, so that a message too big is refused in words and not by the transport."""


class ConfigurationError(Exception):
    """The server cannot start as configured. The message is one sentence for the operator."""


async def serve(settings: ServerSettings, inference: InferenceSettings, storage: PersistenceSettings) -> None:
    """Serves until SIGTERM or SIGINT.

    Raises:
        ConfigurationError: the settings cannot be served.
    """
    if refusal := refusal_to_expose(settings.server_host, settings.auth, settings.allow_unauthenticated):
        raise ConfigurationError(refusal)
    stop = _stop_on_signals()
    async with AsyncExitStack() as stack:
        stack.enter_context(serve_metrics(settings.server_host, settings.metrics_port))
        engine = await stack.enter_async_context(Engine(inference))
        persistence = await stack.enter_async_context(open_persistence(storage, ending_of))
        server, health_servicer = _build(settings, engine, persistence)
        await server.start()
        stack.push_async_callback(server.stop, settings.shutdown_seconds)
        for service in ("", *SERVICES):
            await health_servicer.set(service, health_pb2.HealthCheckResponse.SERVING)
        log.info("server ready", host=settings.server_host, port=settings.server_port, models=sorted(engine.models))
        await stop.wait()
        log.info("server stopping")
        await health_servicer.enter_graceful_shutdown()


def _build(settings: ServerSettings, engine: Engine, persistence: Persistence) -> tuple[grpc.aio.Server, Any]:
    server = grpc.aio.server(
        interceptors=(
            TelemetryInterceptor(),
            ErrorInterceptor(),
            AuthInterceptor(),
            persistence.interceptor,
        ),
        options=(
            ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
            ("grpc.so_reuseport", 0),  # a second server on the port must fail, not share it
            # A peer that is gone without a word is noticed within 8 s.
            ("grpc.keepalive_time_ms", 5_000),
            ("grpc.keepalive_timeout_ms", 3_000),
            ("grpc.http2.min_ping_interval_without_data_ms", 4_000),
            ("grpc.keepalive_permit_without_calls", 1),
            # Without probing the flow-control window stays small: a stream that is not read holds little memory.
            ("grpc.http2.bdp_probe", 0),
        ),
    )
    limits = StreamLimits(settings.max_session_seconds, settings.idle_timeout_seconds)
    transcription_pb2_grpc.add_TranscriptionServiceServicer_to_server(
        TranscriptionServicer(engine, SileroVad(), limits, settings.max_sessions), server
    )
    session_pb2_grpc.add_SessionServiceServicer_to_server(SessionServicer(persistence), server)
    health_servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    reflection.enable_server_reflection((*SERVICES, HEALTH_SERVICE, reflection.SERVICE_NAME), server)
    address = f"{settings.server_host}:{settings.server_port}"
    try:
        server.add_insecure_port(address)
    except RuntimeError:
        raise ConfigurationError(f"cannot listen on {address}: the port is taken or the address not ours") from None
    return server, health_servicer


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


def main() -> int:
    """Runs the server; gives the exit code."""
    try:
        settings = read_settings(ServerSettings)
        inference, storage = read_settings(InferenceSettings), read_settings(PersistenceSettings)
    except InvalidSettings as error:
        print(error, file=sys.stderr)  # noqa: T201  logging is not configured yet
        return EXIT_CONFIGURATION
    configure_logging(settings.log_level, settings.log_format)
    try:
        asyncio.run(serve(settings, inference, storage))
    except (ConfigurationError, WeightsError, SpoolInUse) as error:
        log.error("cannot start", reason=str(error))
        return EXIT_CONFIGURATION
    except StorageUnavailable as error:
        log.error("cannot start", reason=str(error))
        return EXIT_UNAVAILABLE
    return 0
