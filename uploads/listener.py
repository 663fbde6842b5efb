"""The HTTP interface: routes, places, and the way from a request to its response."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import grpc
from aiohttp import web
from dalston.grpc_call import GrpcCall
from dalston.v1.file_pb2_grpc import FileServiceStub
from dalston.v1.job_pb2 import Job
from dalston.v1.transcription_pb2 import ListModelsRequest
from dalston.v1.transcription_pb2_grpc import TranscriptionServiceStub

from edge.closing import close_reason_for, close_reason_of_failure
from edge.health import ServerHealth
from edge.metadata import Metadata, authorization, call_metadata, login_metadata
from edge.refusal import Refused
from telemetry.exposure import is_loopback
from telemetry.logs import get_logger
from uploads import events, metrics
from uploads.answers import answer, job_as_json
from uploads.config import UploadsSettings
from uploads.errors import ApiError, busy, error_of_job, error_of_reason, unsupported
from uploads.models import Models
from uploads.parameters import Parameters, read_parameters
from uploads.request_body import MAX_DISCARDED, discard, receive
from uploads.transcription import Result, Transcription

log = get_logger(__name__)

T = TypeVar("T")

TRANSCRIPTIONS_PATH: Final = "/v1/audio/transcriptions"
TRANSLATIONS_PATH: Final = "/v1/audio/translations"
MODELS_PATH: Final = "/v1/models"
LIVENESS_PATH: Final = "/healthz"
HEALTH_PATH: Final = "/health"

COMMENT_SECONDS: Final = 10.0
"""Between two comments of a streamed answer without events."""
UNARY_SECONDS: Final = 5.0
"""For the server to answer a call with one request."""
CLOSE_SECONDS: Final = 5.0
"""For responses to be sent at the end of a graceful shutdown."""
MAX_HEAD_BYTES: Final = 64 * 1024
"""Largest header; Envoy allows as much for all of them."""
MAX_NOTED: Final = 200
"""So many different names of ignored fields are logged."""

STOPPING: Final = close_reason_for(
    "SERVER_SHUTDOWN", "the service is stopping: send the request again, and the same file gets the same job"
)


@asynccontextmanager
async def open_listener(settings: UploadsSettings, channel: grpc.aio.Channel) -> AsyncIterator[int]:
    """Serves requests while the block runs, and yields the port; 0 where it is a Unix socket.

    At the end of the block no further request is admitted. Those that are served get `settings.shutdown_seconds` to
    finish; those that have not are refused with 503. Their jobs continue.

    Raises:
        OSError: the address cannot be listened on.
    """
    listener = _Listener(settings, channel)
    runner = web.AppRunner(
        listener.application(),
        access_log=None,
        # A client that has disconnected does not wait for its job any more.
        handler_cancellation=True,
        auto_decompress=False,
        max_line_size=MAX_HEAD_BYTES,
        max_field_size=MAX_HEAD_BYTES,
        shutdown_timeout=CLOSE_SECONDS,
    )
    await runner.setup()
    try:
        site: web.BaseSite
        if settings.uploads_socket is None:
            site = web.TCPSite(runner, settings.uploads_host, settings.uploads_port)
        else:
            settings.uploads_socket.unlink(missing_ok=True)
            site = web.UnixSite(runner, settings.uploads_socket)
        await site.start()
        try:
            yield runner.addresses[0][1] if settings.uploads_socket is None else 0
        finally:
            await site.stop()
            await listener.drain(settings.shutdown_seconds)
    finally:
        await runner.cleanup()


class _Listener:
    """What all requests share."""

    def __init__(self, settings: UploadsSettings, channel: grpc.aio.Channel) -> None:
        self._settings = settings
        self._limits = settings.limits
        self._models = Models(settings.model_aliases)
        self._files: Any = FileServiceStub(channel)  # Its type requires an iterator of all requests.
        self._transcription = TranscriptionServiceStub(channel)
        self._health = ServerHealth(channel)
        self._open = 0
        self._discarding = 0
        self._is_stopping = False
        self._must_end = asyncio.Event()
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        # Files that are complete, whose clients have left before the server had created the job.
        self._finishing: set[asyncio.Task[Job]] = set()
        self._noted: set[str] = set()

    def application(self) -> web.Application:
        """The routes."""
        application = web.Application(middlewares=[self._answer_errors])
        application.router.add_post(TRANSCRIPTIONS_PATH, self.transcribe)
        application.router.add_post(TRANSLATIONS_PATH, self.translate)
        application.router.add_get(MODELS_PATH, self.list_models)
        application.router.add_get(MODELS_PATH + "/{name:.+}", self.get_model)
        application.router.add_get(LIVENESS_PATH, self.liveness)
        application.router.add_get(HEALTH_PATH, self.readiness)
        return application

    async def drain(self, grace_seconds: float) -> None:
        """Refuses further requests, waits for those that are served, and ends the rest."""
        self._is_stopping = True
        try:
            async with asyncio.timeout(grace_seconds):
                await self._is_idle.wait()
        except TimeoutError:
            log.warning("requests did not end in time", requests=self._open)
        self._must_end.set()
        if self._finishing:
            await asyncio.wait(self._finishing, timeout=CLOSE_SECONDS)

    async def liveness(self, _request: web.Request) -> web.Response:
        """Whether the process runs."""
        return _json(HTTPStatus.OK, {"status": "ok"})

    async def readiness(self, _request: web.Request) -> web.Response:
        """Whether requests are served: here, and by the server."""
        if not self._is_stopping and await self._health.is_serving():
            return _json(HTTPStatus.OK, {"status": "healthy"})
        return _json(HTTPStatus.SERVICE_UNAVAILABLE, {"status": "unhealthy"})

    async def list_models(self, request: web.Request) -> web.Response:
        """The models of the server, and their aliases."""
        return _json(HTTPStatus.OK, {"object": "list", "data": self._models.listing(await self._served(request))})

    async def get_model(self, request: web.Request) -> web.Response:
        """One model, by a name of the server or an alias."""
        name = request.match_info["name"]
        found = self._models.find(name, await self._served(request))
        if found is None:
            raise error_of_reason(close_reason_for("INVALID_MODEL", f"there is no model {name!r}"))
        return _json(HTTPStatus.OK, found)

    async def translate(self, _request: web.Request) -> web.Response:
        """Always an error, which names what works."""
        raise unsupported(
            f"translation is not supported: POST {TRANSCRIPTIONS_PATH} transcribes a file in the language spoken",
            "task",
        )

    async def transcribe(self, request: web.Request) -> web.StreamResponse:
        """Relays a file, and answers in the format asked for."""
        metadata = _metadata(request)
        with self._place():
            limits = self._limits
            call = self._files.TranscribeFile(metadata=metadata, timeout=limits.receive_seconds + limits.wait_seconds)
            transcription = Transcription(GrpcCall(call), limits)
            finishing: asyncio.Task[Job] | None = None
            try:
                parameters = await self._before_end(self._upload(request, transcription), transcription)
                self._note(parameters.ignored)
                finishing = asyncio.create_task(transcription.finish(parameters.config))
                self._finishing.add(finishing)
                finishing.add_done_callback(self._finished)
                # The file is complete: its job is created even if the client leaves now.
                job = await self._before_end(asyncio.shield(finishing))
                if parameters.is_async:
                    return _accepted(job, parameters)
                if parameters.is_streamed:
                    return await self._stream(request, transcription, job, parameters)
                return await self._wait(transcription, job, parameters)
            finally:
                if finishing is None or finishing.done():
                    await transcription.close()
                else:
                    finishing.add_done_callback(lambda _: call.cancel())

    def _finished(self, finishing: asyncio.Task[Job]) -> None:
        self._finishing.discard(finishing)
        if not finishing.cancelled():
            # A client that has left does not read it, and asyncio logs what nothing reads.
            finishing.exception()

    async def _upload(self, request: web.Request, transcription: Transcription) -> Parameters:
        body = await receive(request, self._limits, transcription.send)
        wants_job = "respond-async" in request.headers.get("Prefer", "").lower() or request.query.get("async") == "true"
        return read_parameters(body.fields, body.file_name, self._models, is_async=wants_job)

    async def _wait(self, transcription: Transcription, job: Job, parameters: Parameters) -> web.Response:
        """The whole answer, once the job has ended."""
        result = Result(job)
        with metrics.JOB_SECONDS.time():
            async with self._wait_limit(job):
                while await self._before_end(transcription.follow(result)) is not None:
                    pass
        error = error_of_job(result.job)
        if error is not None:
            raise error
        content = answer(parameters, result.job, result.utterances)
        media_type = content.content_type.partition(";")[0]
        return web.Response(
            text=content.text, content_type=media_type, charset="utf-8", headers=_headers(result.job, parameters)
        )

    async def _stream(
        self, request: web.Request, transcription: Transcription, job: Job, parameters: Parameters
    ) -> web.StreamResponse:
        """The answer as events, while the job runs."""
        headers = {"Content-Type": events.CONTENT_TYPE, "Cache-Control": "no-cache", **_headers(job, parameters)}
        response = web.StreamResponse(headers=headers)
        await self._write(response.prepare(request))
        result = Result(job)
        try:
            with metrics.JOB_SECONDS.time():
                await self._send_deltas(response, transcription, result, parameters)
            if (error := error_of_job(result.job)) is not None:
                raise error
            last = events.done(result.utterances, with_logprobs=parameters.with_logprobs)
        except ApiError as error:
            last = events.failed(error)
        await self._write(response.write(last))
        await self._write(response.write_eof())
        return response

    async def _send_deltas(
        self, response: web.StreamResponse, transcription: Transcription, result: Result, parameters: Parameters
    ) -> None:
        is_first = True
        async with self._wait_limit(result.job):
            following = asyncio.ensure_future(transcription.follow(result))
            try:
                while True:
                    done = await self._before_end(asyncio.wait({following}, timeout=COMMENT_SECONDS))
                    if not done[0]:
                        await self._write(response.write(events.COMMENT))
                        continue
                    utterance = following.result()
                    if utterance is None:
                        return
                    following = asyncio.ensure_future(transcription.follow(result))
                    if utterance.text.strip():
                        event = events.delta(utterance, is_first=is_first, with_logprobs=parameters.with_logprobs)
                        await self._write(response.write(event))
                        is_first = False
            finally:
                following.cancel()

    async def _write(self, writing: Coroutine[Any, Any, Any]) -> None:
        """Raises ConnectionResetError if the client does not take what it is sent."""
        try:
            async with asyncio.timeout(self._limits.stuck_seconds):
                await writing
        except TimeoutError:
            raise ConnectionResetError("the client does not read") from None

    @asynccontextmanager
    async def _wait_limit(self, job: Job) -> AsyncIterator[None]:
        """How long a request waits for its job."""
        try:
            async with asyncio.timeout(self._limits.wait_seconds):
                yield
        except TimeoutError:
            raise ApiError(
                504,
                f"the job has not ended in time and continues: read /v1/jobs/{job.id}, or send the same file again",
                "timeout",
                type="server_error",
            ) from None

    async def _before_end(self, work: Awaitable[T], transcription: Transcription | None = None) -> T:
        """Awaits `work` unless the process has to end before, or the server ends the call of `transcription`.

        Raises:
            ApiError: one of these happened, or `work` raised it.
        """
        working = asyncio.ensure_future(work)
        ending = asyncio.create_task(self._must_end.wait())
        failing = asyncio.create_task(transcription.failed()) if transcription else None
        others = {task for task in (ending, failing) if task is not None}
        try:
            await asyncio.wait({working, *others}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            if failing is not None and failing.done():
                raise failing.result()
            raise error_of_reason(STOPPING)
        finally:
            for task in (working, *others):
                task.cancel()
            await asyncio.gather(working, *others, return_exceptions=True)

    async def _served(self, request: web.Request) -> list[str]:
        """The models of the server.

        Raises:
            ApiError: the key is not valid, or the server does not answer.
        """
        try:
            response = await self._transcription.ListModels(
                ListModelsRequest(), metadata=_metadata(request), timeout=UNARY_SECONDS
            )
        except grpc.aio.AioRpcError as error:
            raise error_of_reason(close_reason_of_failure(error)) from None
        return [model.name for model in response.models]

    @contextmanager
    def _place(self) -> Iterator[None]:
        """A place for one request with a file.

        Raises:
            ApiError: 503, there is none.
        """
        if self._is_stopping:
            raise error_of_reason(STOPPING)
        if self._open >= self._settings.uploads_max_requests:
            raise busy("as many files are being transcribed as can be at once; try again shortly")
        self._open += 1
        self._is_idle.clear()
        metrics.OPEN_REQUESTS.inc()
        try:
            yield
        finally:
            self._open -= 1
            if self._open == 0:
                self._is_idle.set()
            metrics.OPEN_REQUESTS.dec()

    def _check_page(self, request: web.Request) -> None:
        """Raises ApiError: the request is of a web page that is not admitted."""
        if self._settings.is_local_only and not _is_own_page(request, self._settings.origins):
            raise ApiError(403, "pages of this origin are not admitted", "insufficient_permissions")

    def _note(self, ignored: tuple[str, ...]) -> None:
        """Logs the names of ignored fields, each once."""
        fresh = [name for name in ignored if name not in self._noted]
        if fresh and len(self._noted) < MAX_NOTED:
            self._noted.update(fresh)
            log.info("fields of requests are ignored", names=fresh)

    @web.middleware
    async def _answer_errors(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            self._check_page(request)
            response = await handler(request)
        except asyncio.CancelledError:
            metrics.LEFT.inc()
            raise
        except ConnectionError:
            # Only a streamed answer writes in its handler, and nothing more can be sent.
            metrics.LEFT.inc()
            if request.transport is not None:
                request.transport.abort()
            raise asyncio.CancelledError from None  # what aiohttp takes for a client that has left
        except Refused as refused:
            response = await self._error(request, error_of_reason(close_reason_for(refused.reason, refused.message)))
        except ApiError as error:
            response = await self._error(request, error)
        except web.HTTPException as error:
            response = await self._error(request, _error_of_http(request, error))
            if "Allow" in error.headers:
                response.headers["Allow"] = error.headers["Allow"]
        except Exception:
            log.exception("a request failed")
            response = await self._error(request, error_of_reason(close_reason_for("INTERNAL", "internal error")))
        metrics.RESPONSES.labels(status=str(response.status)).inc()
        return response

    async def _error(self, request: web.Request, error: ApiError) -> web.Response:
        if request.can_read_body and self._discarding < MAX_DISCARDED and not self._must_end.is_set():
            self._discarding += 1
            try:
                await discard(request)
            finally:
                self._discarding -= 1
        headers = error.headers()
        if error.status == HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = "Bearer"
        return web.Response(status=error.status, text=error.text(), content_type="application/json", headers=headers)


def _metadata(request: web.Request) -> Metadata:
    def values(name: str) -> list[str]:
        return request.headers.getall(name, [])

    metadata = call_metadata(values, request.remote or "", authorization(values("Authorization"), None))
    return metadata + login_metadata(values)


def _is_own_page(request: web.Request, allowed: frozenset[str]) -> bool:
    """Whether a request is of no page, of one on this machine or of an allowed one."""
    return all(origin in allowed or _is_local(origin) for origin in request.headers.getall("Origin", []))


def _is_local(origin: str) -> bool:
    try:
        return is_loopback(urlsplit(origin).hostname or "")
    except ValueError:
        return False


def _accepted(job: Job, parameters: Parameters) -> web.Response:
    """202: the job exists, and the client reads it later."""
    headers = {**_headers(job, parameters), "Preference-Applied": "respond-async"}
    return web.Response(
        status=HTTPStatus.ACCEPTED, text=job_as_json(job), content_type="application/json", headers=headers
    )


def _headers(job: Job, parameters: Parameters) -> dict[str, str]:
    headers = {"Location": f"/v1/jobs/{job.id}"}
    if parameters.ignored:
        headers["dalston-ignored"] = ", ".join(parameters.ignored)
    return headers


def _error_of_http(request: web.Request, error: web.HTTPException) -> ApiError:
    if error.status == HTTPStatus.METHOD_NOT_ALLOWED:
        return ApiError(error.status, f"{request.path} does not take {request.method}", "method_not_allowed")
    if error.status == HTTPStatus.NOT_FOUND:
        return ApiError(error.status, "there is nothing at this path", "not_found")
    return ApiError(error.status, error.reason or "the request cannot be served", "invalid_value")


def _json(status: HTTPStatus, content: dict[str, Any]) -> web.Response:
    return web.Response(status=status, text=json.dumps(content, ensure_ascii=False), content_type="application/json")
