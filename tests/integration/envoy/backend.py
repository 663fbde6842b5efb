"""The upstream of Envoy in these tests: a SessionService with fixed responses that keeps its requests."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

import grpc
from dalston.v1 import (
    job_pb2,
    job_pb2_grpc,
    key_pb2,
    key_pb2_grpc,
    session_pb2,
    session_pb2_grpc,
    transcription_pb2,
    transcription_pb2_grpc,
)
from google.api import httpbody_pb2
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status

from server.app import METADATA_LIMITS

SERVICES = ("dalston.v1.SessionService", "dalston.v1.JobService", "dalston.v1.TranscriptionService")
AUDIO_CHUNKS = [bytes([n]) * 60_000 for n in range(50)]
AUDIO_BYTES = 50 * 60_000
AUDIO_TAG = '"tag"'
WAVEFORM = bytes(range(26))
SLOW_CHUNKS = 5
"""So many chunks of the session `sess_slow` take half a second each."""


@dataclass
class SessionServicer(session_pb2_grpc.SessionServiceServicer):
    requests: list[Any] = field(default_factory=list)
    metadata: list[dict[str, str | bytes]] = field(default_factory=list)

    def _keep(self, request: Any, context: grpc.ServicerContext) -> None:
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))

    def ListSessions(self, request: Any, context: grpc.ServicerContext) -> session_pb2.ListSessionsResponse:
        self._keep(request, context)
        return session_pb2.ListSessionsResponse(
            sessions=[session_pb2.Session(id="sess_1", status="completed", audio_duration_seconds=1.5)],
            pagination=session_pb2.Pagination(limit=50, total=1),
        )

    def GetSession(self, request: Any, context: grpc.ServicerContext) -> session_pb2.Session:
        self._keep(request, context)
        if request.session_id == "sess_full":
            _refuse(context, code_pb2.RESOURCE_EXHAUSTED, "not now", "NO_CAPACITY", ("dalston-try-elsewhere", "1"))
        if request.session_id == "sess_limit":
            _refuse(context, code_pb2.RESOURCE_EXHAUSTED, "not now", "RATE_LIMITED")
        if request.session_id == "sess_stopping":
            # gRPC's own status for a call that arrives while it closes its port.
            context.abort(grpc.StatusCode.CANCELLED, "CANCELLED")
        _refuse(context, code_pb2.NOT_FOUND, "no such session", "SESSION_NOT_FOUND")

    def DeleteSession(self, request: Any, context: grpc.ServicerContext) -> session_pb2.DeleteSessionResponse:
        self._keep(request, context)
        _refuse(context, code_pb2.ABORTED, "the session is active", "SESSION_ACTIVE")

    def EndSession(self, request: Any, context: grpc.ServicerContext) -> session_pb2.Session:
        self._keep(request, context)
        return session_pb2.Session(id=request.session_id)

    def EnhanceSession(self, request: Any, context: grpc.ServicerContext) -> job_pb2.Job:
        self._keep(request, context)
        return job_pb2.Job(session_id=request.session_id)

    def SetCurrentTranscript(self, request: Any, context: grpc.ServicerContext) -> session_pb2.TranscriptVersion:
        self._keep(request, context)
        return session_pb2.TranscriptVersion(version=request.version)

    def GetAudio(self, request: Any, context: grpc.ServicerContext) -> Iterator[httpbody_pb2.HttpBody]:
        self._keep(request, context)
        if request.session_id == "sess_none":
            _refuse(context, code_pb2.NOT_FOUND, "no such session", "SESSION_NOT_FOUND")
        asked = self.metadata[-1]
        if asked.get("range") == "bytes=9000000-":
            context.set_trailing_metadata((("content-range", f"bytes */{AUDIO_BYTES}"),))
            context.abort(grpc.StatusCode.OUT_OF_RANGE, "no such bytes")
        if asked.get("if-none-match") == AUDIO_TAG:
            context.send_initial_metadata((("etag", AUDIO_TAG), ("x-not-modified", "1")))
            yield httpbody_pb2.HttpBody(content_type="audio/wav")
            return
        headers = [("accept-ranges", "bytes"), ("x-content-length", str(AUDIO_BYTES)), ("etag", AUDIO_TAG)]
        if asked.get("range") == "bytes=0-59999":
            headers = [("content-range", f"bytes 0-59999/{AUDIO_BYTES}"), ("x-content-length", "60000")]
            context.send_initial_metadata(tuple(headers))
            yield httpbody_pb2.HttpBody(content_type="audio/wav", data=AUDIO_CHUNKS[0])
            return
        context.send_initial_metadata(tuple(headers))
        if asked.get("x-head"):
            yield httpbody_pb2.HttpBody(content_type="audio/wav")
            return
        for number, chunk in enumerate(AUDIO_CHUNKS):
            if request.session_id == "sess_slow" and number < SLOW_CHUNKS:
                time.sleep(0.5)
            if number == 20 and request.session_id == "sess_breaks":
                _refuse(context, code_pb2.UNAVAILABLE, "the store is away", "UNAVAILABLE")
            yield httpbody_pb2.HttpBody(content_type="audio/wav", data=chunk)

    def GetWaveform(self, request: Any, context: grpc.ServicerContext) -> Iterator[httpbody_pb2.HttpBody]:
        self._keep(request, context)
        if request.session_id == "sess_none":
            _refuse(context, code_pb2.NOT_FOUND, "no such session", "SESSION_NOT_FOUND")
        if self.metadata[-1].get("if-none-match") == AUDIO_TAG:
            context.send_initial_metadata((("etag", AUDIO_TAG), ("x-not-modified", "1")))
            yield httpbody_pb2.HttpBody(content_type="application/octet-stream")
            return
        context.send_initial_metadata((("x-content-length", str(len(WAVEFORM))), ("etag", AUDIO_TAG)))
        data = b"" if self.metadata[-1].get("x-head") else WAVEFORM
        yield httpbody_pb2.HttpBody(content_type="application/octet-stream", data=data)

    def WatchUtterances(
        self, request: Any, context: grpc.ServicerContext
    ) -> Iterator[session_pb2.WatchUtterancesResponse]:
        self._keep(request, context)
        if request.session_id == "sess_none":
            _refuse(context, code_pb2.NOT_FOUND, "no such session", "SESSION_NOT_FOUND")
        response = session_pb2.WatchUtterancesResponse
        spoken = session_pb2.Utterance(index=request.offset, text="spoken")
        yield response(type="utterance", utterance=spoken)
        yield response(type="partial", partial=transcription_pb2.Partial(text="spo", start=1.0, end=1.5))
        yield response(type="ended")


@dataclass
class JobServicer(job_pb2_grpc.JobServiceServicer):
    requests: list[Any]

    def ListJobs(self, request: Any, context: grpc.ServicerContext) -> job_pb2.ListJobsResponse:
        self.requests.append(request)
        return job_pb2.ListJobsResponse(jobs=[job_pb2.Job(id="job_1", status="queued", queue_position=0)])

    def GetJob(self, request: Any, context: grpc.ServicerContext) -> job_pb2.Job:
        self.requests.append(request)
        if request.job_id == "job_none":
            _refuse(context, code_pb2.NOT_FOUND, "no such job", "JOB_NOT_FOUND")
        return job_pb2.Job(id=request.job_id)

    def WatchJob(self, request: Any, context: grpc.ServicerContext) -> Iterator[job_pb2.Job]:
        self.requests.append(request)
        if request.job_id == "job_none":
            _refuse(context, code_pb2.NOT_FOUND, "no such job", "JOB_NOT_FOUND")
        for status in ("queued", "running", "completed"):
            yield job_pb2.Job(id=request.job_id, status=status)

    def CancelJob(self, request: Any, context: grpc.ServicerContext) -> job_pb2.Job:
        self.requests.append(request)
        return job_pb2.Job(id=request.job_id, status="canceled")

    def RetryJob(self, request: Any, context: grpc.ServicerContext) -> job_pb2.Job:
        self.requests.append(request)
        if request.job_id == "job_waits":
            _refuse(context, code_pb2.ALREADY_EXISTS, "another job runs", "ENHANCEMENT_RUNNING")
        return job_pb2.Job(id="job_2", status="queued")


@dataclass
class KeyServicer(key_pb2_grpc.KeyServiceServicer):
    requests: list[Any]

    def CreateKey(self, request: Any, context: grpc.ServicerContext) -> key_pb2.CreateKeyResponse:
        self.requests.append(request)
        return key_pb2.CreateKeyResponse(secret="dk_")

    def RevokeKey(self, request: Any, context: grpc.ServicerContext) -> key_pb2.Key:
        self.requests.append(request)
        return key_pb2.Key(id=request.key_id)

    def CreateToken(self, request: Any, context: grpc.ServicerContext) -> key_pb2.CreateTokenResponse:
        self.requests.append(request)
        return key_pb2.CreateTokenResponse(token="t_")

    def CreateLogin(self, request: Any, context: grpc.ServicerContext) -> key_pb2.Login:
        self.requests.append(request)
        return key_pb2.Login(id="login_1")


class TranscriptionServicer(transcription_pb2_grpc.TranscriptionServiceServicer):
    def Transcribe(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        """Answers every message, so that a test notices if a direction is buffered."""
        for request in requests:
            if request.WhichOneof("request") == "config":
                yield transcription_pb2.TranscribeResponse(
                    session_begin=transcription_pb2.SessionBegin(session_id="sess_1")
                )
            else:
                yield transcription_pb2.TranscribeResponse(
                    final=transcription_pb2.Final(text=str(len(request.audio)), language="en")
                )


def _refuse(
    context: grpc.ServicerContext, code: int, message: str, reason: str, *trailing: tuple[str, str]
) -> NoReturn:
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason=reason, domain="dalston.v1"))
    status = rpc_status.to_status(status_pb2.Status(code=code, message=message, details=[detail]))
    context.abort_with_status(status._replace(trailing_metadata=(*status.trailing_metadata, *trailing)))
    raise AssertionError


@contextmanager
def backend(port: int) -> Iterator[SessionServicer]:
    server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0), *METADATA_LIMITS])
    servicer = SessionServicer()
    session_pb2_grpc.add_SessionServiceServicer_to_server(servicer, server)
    job_pb2_grpc.add_JobServiceServicer_to_server(JobServicer(servicer.requests), server)
    key_pb2_grpc.add_KeyServiceServicer_to_server(KeyServicer(servicer.requests), server)
    transcription_pb2_grpc.add_TranscriptionServiceServicer_to_server(TranscriptionServicer(), server)
    health_servicer = health.HealthServicer()
    health_servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield servicer
    finally:
        server.stop(grace=None).wait()
