"""The server process: how its parts are wired, and the order in which they start and stop."""

import asyncio
import sys
from contextlib import AsyncExitStack
from typing import Any

import grpc
from dalston.v1 import (
    file_pb2,
    file_pb2_grpc,
    job_pb2,
    job_pb2_grpc,
    key_pb2,
    key_pb2_grpc,
    session_pb2,
    session_pb2_grpc,
    status_pb2,
    status_pb2_grpc,
    transcription_pb2,
    transcription_pb2_grpc,
)
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import SERVICE_NAME as HEALTH_SERVICE
from grpc_health.v1.health import aio as health  # type: ignore[attr-defined]  # missing in its stubs only
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from domain.errors import StorageUnavailable
from domain.tenancy import TenantLimits
from persistence.config import PersistenceSettings
from persistence.errors import LeaseLost, SpoolInUse
from persistence.service import Persistence, open_persistence
from server.access.gate import Gate, KeyGate, OpenGate
from server.access.grants import Grants
from server.config import ServerSettings
from server.inference.config import InferenceSettings
from server.inference.errors import EngineStopped, WeightsError
from server.inference.scheduling.engine import Engine
from server.rpc.audit import AuditInterceptor
from server.rpc.auth import AuthInterceptor
from server.rpc.drain import Drain, DrainInterceptor
from server.rpc.end_requests import EndRequestWatcher
from server.rpc.errors import ErrorInterceptor, end_reason_of
from server.rpc.files import FileLimits, FileServicer
from server.rpc.job_requests import JobRequests
from server.rpc.jobs import JobServicer
from server.rpc.keys import KeyServicer
from server.rpc.reflection import BoundedReflection
from server.rpc.requests import StreamLimits
from server.rpc.server_report import ServerReport
from server.rpc.sessions import SessionServicer
from server.rpc.status import StatusServicer
from server.rpc.telemetry import TelemetryInterceptor
from server.rpc.transcription import TranscriptionServicer
from server.rpc.watch import Watches
from server.rpc.waveforms import Waveforms
from server.session.session import MAX_PENDING
from server.vad.silero import SileroVad
from telemetry.deadline import Deadline
from telemetry.exposure import refusal_to_expose
from telemetry.logs import configure_logging, get_logger
from telemetry.metrics import serve_metrics
from telemetry.settings import InvalidSettings, read_settings
from telemetry.signals import LastResort, exit_on_signals, stop_on_signals
from telemetry.variables import warn_of_unknown_variables

log = get_logger(__name__)

EXIT_UNAVAILABLE = 1
"""A dependency of the server is unavailable: a later restart may succeed."""
EXIT_CONFIGURATION = 2

SERVICES = (
    transcription_pb2.DESCRIPTOR.services_by_name["TranscriptionService"].full_name,
    session_pb2.DESCRIPTOR.services_by_name["SessionService"].full_name,
    job_pb2.DESCRIPTOR.services_by_name["JobService"].full_name,
    file_pb2.DESCRIPTOR.services_by_name["FileService"].full_name,
    key_pb2.DESCRIPTOR.services_by_name["KeyService"].full_name,
    status_pb2.DESCRIPTOR.services_by_name["StatusService"].full_name,
)
_MAX_MESSAGE_BYTES = 1 << 20
"""Far above the limit of the contract, so that the server refuses a message that is too big with a clear error, and not
the transport."""

METADATA_LIMITS = (("grpc.max_metadata_size", 96 * 1024), ("grpc.absolute_max_metadata_size", 128 * 1024))
"""Above the 64 KiB of headers and query that Envoy accepts, which refuses more with a clear error. Between the soft and
the hard limit gRPC refuses calls at random, as RESOURCE_EXHAUSTED."""

_STOP_SECONDS = 20.0
"""From the end of the grace period to the end of the process, whatever hangs. Operators add it to the grace period:
docs/durability.md."""
_STORE_SECONDS = 8.0
"""The part of these that is reserved for storing and closing after the streams have ended or were cancelled."""
_LAST_CALLS_SECONDS = 2.0
"""For calls other than streams that are in progress when the last stream has ended."""


class ConfigurationError(Exception):
    """The server cannot start as configured. The message is one sentence for the operator."""


async def serve(settings: ServerSettings, inference: InferenceSettings, storage: PersistenceSettings) -> None:
    """Serves until SIGTERM or SIGINT.

    Raises:
        ConfigurationError: the settings cannot be served.
        EngineStopped: the engine has died; a new process may succeed.
        LeaseLost: the lease has lapsed and the other servers consider this one dead; a new process may replace it.
    """
    if refusal := refusal_to_expose(settings.server_host, settings.auth, settings.allow_unauthenticated):
        raise ConfigurationError(refusal)
    # Loading a model takes long and leaves nothing to finish, and an interrupted recovery can be repeated.
    exit_on_signals()
    drain, deadline = Drain(), Deadline()
    async with AsyncExitStack() as stack:
        stack.enter_context(serve_metrics(settings.server_host, settings.metrics_port, settings.metrics_socket))
        engine = await stack.enter_async_context(Engine(inference, settings.max_sessions * MAX_PENDING))
        persistence = await stack.enter_async_context(open_persistence(storage, end_reason_of, deadline))
        stack.callback(deadline.begin, _STOP_SECONDS)
        waveforms = Waveforms(persistence)
        stack.push_async_callback(waveforms.close)
        server, health_servicer, report = _build(settings, engine, persistence, waveforms, drain)
        last_resort = LastResort(lambda: EXIT_UNAVAILABLE if _is_unfit(engine, persistence) else 0)
        stop = stop_on_signals(lambda: last_resort.begin(settings.shutdown_seconds + _STOP_SECONDS))
        await server.start()
        stack.push_async_callback(server.stop, _LAST_CALLS_SECONDS)
        await stack.enter_async_context(
            EndRequestWatcher(persistence.end_requests, persistence.interceptor, storage.vanished_grace_seconds)
        )
        for service in ("", *SERVICES):
            await health_servicer.set(service, health_pb2.HealthCheckResponse.SERVING)
        report.is_ready = True
        log.info("server ready", address=_address(settings), models=sorted(engine.models))
        await _first_of(stop, persistence.lost, engine.died)
        log.info("server stopping", streams=drain.streams)
        # After a lost lease the streams have been ended already: the other servers consider this process dead. After
        # the death of the engine only another server can serve them.
        grace_seconds = 0.0 if _is_unfit(engine, persistence) else settings.shutdown_seconds
        deadline.begin(grace_seconds + _STOP_SECONDS)
        last_resort.begin(deadline.left())
        await health_servicer.enter_graceful_shutdown()
        await _end_streams(drain, grace_seconds, deadline)
        if persistence.lost.is_set():
            raise LeaseLost
        if engine.died.is_set():
            raise EngineStopped("the model's thread has died")
    log.info("server stopped")


def _is_unfit(engine: Engine, persistence: Persistence) -> bool:
    """Whether only another process can serve."""
    return engine.died.is_set() or persistence.lost.is_set()


async def _first_of(*events: asyncio.Event) -> None:
    waiting = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()


async def _end_streams(drain: Drain, grace_seconds: float, deadline: Deadline) -> None:
    """Lets streams continue for the grace period, then ends them. Other calls are served meanwhile."""
    drain.begin(grace_seconds)
    if not await drain.wait_empty(deadline.left(_STORE_SECONDS)):
        # Their calls are cancelled. Their sessions are stored all the same, like those of clients that disconnected.
        log.warning("streams did not end in time", streams=drain.streams)


def _build(
    settings: ServerSettings, engine: Engine, persistence: Persistence, waveforms: Waveforms, drain: Drain
) -> tuple[grpc.aio.Server, Any, ServerReport]:
    gate = _gate(settings, persistence)
    server = grpc.aio.server(
        interceptors=(
            TelemetryInterceptor(),
            ErrorInterceptor(),
            AuthInterceptor(gate),
            AuditInterceptor(),
            DrainInterceptor(drain),
            persistence.interceptor,
        ),
        options=(
            ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
            *METADATA_LIMITS,
            ("grpc.so_reuseport", 0),  # a second server on the port must fail, not share it
            # A peer that has disappeared without closing its connection is noticed within 8 s.
            ("grpc.keepalive_time_ms", 5_000),
            ("grpc.keepalive_timeout_ms", 3_000),
            ("grpc.http2.min_ping_interval_without_data_ms", 4_000),
            ("grpc.keepalive_permit_without_calls", 1),
            # Without probing the flow-control window stays small: an unread stream holds little memory.
            ("grpc.http2.bdp_probe", 0),
        ),
    )
    limits = StreamLimits(settings.max_session_seconds, settings.idle_timeout_seconds)
    transcription = TranscriptionServicer(
        engine,
        SileroVad(),
        limits,
        settings.max_sessions,
        settings.max_queue_delay_seconds,
        drain,
        persistence.resumptions,
        settings.tenant_share if settings.auth == "keys" else 1.0,
    )
    persistence.report_load(lambda: transcription.is_behind)
    transcription_pb2_grpc.add_TranscriptionServiceServicer_to_server(transcription, server)
    watches = Watches(persistence.changes, persistence.change_notifier, gate, drain, settings.tenant_max_watches)
    jobs = JobRequests(persistence.jobs, engine, settings.tenant_max_queued_jobs)
    session_pb2_grpc.add_SessionServiceServicer_to_server(
        SessionServicer(persistence, watches, jobs, waveforms, settings.tenant_max_downloads, gate), server
    )
    file_limits = FileLimits(settings.max_upload_bytes, settings.tenant_max_uploads, settings.tenant_max_queued_jobs)
    file_pb2_grpc.add_FileServiceServicer_to_server(
        FileServicer(persistence, watches, engine, limits, file_limits), server
    )
    job_pb2_grpc.add_JobServiceServicer_to_server(JobServicer(persistence.jobs, jobs, watches), server)
    key_pb2_grpc.add_KeyServiceServicer_to_server(
        KeyServicer(persistence.keys, persistence.logins, gate.forget), server
    )
    report = ServerReport(transcription.admission, transcription.recent_partials, drain, persistence.backlog)
    persistence.reports.describe = report.describe
    status_pb2_grpc.add_StatusServiceServicer_to_server(StatusServicer(persistence.reports), server)
    health_servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    reflected = BoundedReflection((*SERVICES, HEALTH_SERVICE, reflection.SERVICE_NAME))
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflected, server)
    address = _address(settings)
    try:
        server.add_insecure_port(address)
    except RuntimeError:
        raise ConfigurationError(
            f"cannot listen on {address}: the port is taken or this machine does not have the address"
        ) from None
    return server, health_servicer, report


def _address(settings: ServerSettings) -> str:
    if settings.server_socket is not None:
        return f"unix:{settings.server_socket}"
    return f"{settings.server_host}:{settings.server_port}"


def _gate(settings: ServerSettings, persistence: Persistence) -> Gate:
    if settings.auth == "none":
        return OpenGate()
    defaults = TenantLimits(
        max_sessions=settings.tenant_max_sessions,
        requests_per_second=settings.tenant_requests_per_second,
        max_storage_bytes=settings.tenant_max_storage_bytes,
    )
    return KeyGate(Grants(persistence.keys.find), persistence.uses, defaults)


def main() -> int:
    """Runs the server. Returns the exit code."""
    try:
        settings = read_settings(ServerSettings)
        inference, storage = read_settings(InferenceSettings), read_settings(PersistenceSettings)
    except InvalidSettings as error:
        print(error, file=sys.stderr)  # noqa: T201  logging is not configured yet
        return EXIT_CONFIGURATION
    configure_logging(settings.log_level, settings.log_format)
    warn_of_unknown_variables()
    try:
        asyncio.run(serve(settings, inference, storage))
    except (ConfigurationError, WeightsError) as error:
        log.error("cannot start", reason=str(error))
        return EXIT_CONFIGURATION
    except (EngineStopped, LeaseLost) as error:
        log.error("server stopped", reason=str(error))
        return EXIT_UNAVAILABLE
    except StorageUnavailable as error:
        log.error("cannot start", reason=str(error), component=error.component)
        return EXIT_UNAVAILABLE
    except SpoolInUse as error:
        log.error("cannot start", reason=str(error))
        return EXIT_UNAVAILABLE
    return 0
