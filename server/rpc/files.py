"""FileService: transcription of files."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from dalston.v1 import file_pb2 as pb
from dalston.v1 import file_pb2_grpc

from domain.client_address import client_ip
from domain.errors import UnsupportedMedia
from domain.job import DEFAULT_MODEL, JobRecord, JobRequest
from domain.tenancy import REFUSALS, Caller, current_caller
from persistence.service import Persistence
from persistence.uploading.file_upload import FileUpload
from server.access.errors import RateLimited
from server.audio.media import MEDIA_TYPES, SNIFF_BYTES, SUPPORTED_FORMATS, sniff
from server.rpc.auth import authorization_of
from server.rpc.config_message import ModelCatalog, parse_language, parse_model, parse_vocabulary
from server.rpc.interceptor import Context
from server.rpc.job_message import job_message
from server.rpc.job_watch import job_states
from server.rpc.places import Places
from server.rpc.requests import StreamLimits
from server.rpc.utterance_message import utterance_message
from server.rpc.watch import Watches, write_in_time
from server.session.errors import IdleTimeout, InvalidMessage, MessageTooBig, NoCapacity

_MOST_DATA_BYTES: Final = 512 * 1024
_SLOWEST_RATE: Final = 4 * 1024
"""Bytes per second, on average: a file that arrives more slowly occupies its place for too long."""
_MOST_UPLOADS: Final = 64
"""Files that are uploaded to this server at a time. Each holds up to two parts of 5 MiB in memory."""
_RETRY_SECONDS: Final = 5.0
_MOST_NAME: Final = 255
_PAGE: Final = 100
_FIRST_VERSION: Final = 1
_METHOD: Final = "TranscribeFile"


@dataclass(frozen=True, slots=True)
class FileLimits:
    """The limits of uploads, where the tenant has none of its own."""

    max_bytes: int
    """Of one file."""
    max_uploads: int
    """Of one tenant at a time, on this server."""
    max_queued_jobs: int


class FileServicer(file_pb2_grpc.FileServiceServicer):
    """Every method sees the caller's tenant only; errors are raised, not answered."""

    def __init__(
        self,
        persistence: Persistence,
        watches: Watches,
        catalog: ModelCatalog,
        stream_limits: StreamLimits,
        limits: FileLimits,
    ) -> None:
        self._persistence = persistence
        self._watches = watches
        self._catalog = catalog
        self._stream_limits = stream_limits
        self._limits = limits
        self._places = Places()

    async def TranscribeFile(self, requests: AsyncIterator[pb.TranscribeFileRequest], context: Context) -> None:  # type: ignore[override]
        """Stores a file, and answers with the states of its job and with its utterances."""
        caller = current_caller.get()
        with self._place(caller.tenant_id):
            job_id = await self._upload(caller, requests, context)
        states = job_states(
            self._persistence.jobs, self._watches, caller.tenant_id, job_id, _METHOD, authorization_of(context)
        )
        sent, is_first = 0, True
        async with aclosing(states):
            async for job in states:
                if is_first:
                    # The client learns which job to look for, whatever happens next.
                    await write_in_time(context, pb.TranscribeFileResponse(job=job_message(job)))
                if job.done_seconds or job.ended_at is not None:
                    sent = await self._send_utterances(job, sent, context)
                if not is_first or job.ended_at is not None:
                    await write_in_time(context, pb.TranscribeFileResponse(job=job_message(job)))
                is_first = False

    async def _upload(
        self, caller: Caller, requests: AsyncIterator[pb.TranscribeFileRequest], context: Context
    ) -> UUID:
        """Stores the file; returns the id of its job."""
        messages = _Messages(requests, self._stream_limits.of(caller.limits).idle_timeout_seconds)
        head, media = await self._recognise(messages)
        most = caller.limits.max_upload_bytes
        async with self._persistence.uploads.begin(
            caller, self._limits.max_bytes if most is None else most, client_ip(context)
        ) as upload:
            await upload.write(head)
            async for data in messages:
                await upload.write(data)
            # The requests of a client that disconnects end, too: part of a file is not the file.
            if not messages.is_complete:
                raise InvalidMessage("the stream ended before its config or end")
            return await self._complete(upload, messages.config, media, caller)

    async def _complete(self, upload: FileUpload, config: pb.FileConfig | None, media: str, caller: Caller) -> UUID:
        if config is None:
            raise InvalidMessage("end was sent without config")
        request = _request(config, self._catalog)
        most = caller.limits.max_queued_jobs
        return await upload.complete(
            MEDIA_TYPES[media],
            _shown_name(config.file_name),
            request,
            is_kept=config.store if config.HasField("store") else True,
            max_queued=self._limits.max_queued_jobs if most is None else most,
        )

    async def _recognise(self, messages: "_Messages") -> tuple[bytes, str]:
        """The first bytes, and the format that they have."""
        head = bytearray()
        async for data in messages:
            head += data
            if len(head) >= SNIFF_BYTES:
                break
        if messages.config is not None:
            # A wrong configuration is refused before the file is sent.
            _request(messages.config, self._catalog)
        if not head:
            raise InvalidMessage("the file is empty" if messages.is_complete else "the stream ended without a file")
        media = sniff(bytes(head))
        if media is None:
            raise UnsupportedMedia(SUPPORTED_FORMATS)
        return bytes(head), media

    async def _send_utterances(self, job: JobRecord, sent: int, context: Context) -> int:
        """Sends the utterances from the index `sent` on that the job has transcribed so far; returns the next index."""
        has_more = True
        while has_more:
            page, has_more = await self._persistence.utterances.page(job.session_id, _FIRST_VERSION, sent, _PAGE)
            for each in page:
                await write_in_time(context, pb.TranscribeFileResponse(utterance=utterance_message(each)))
                sent = each.index + 1
        return sent

    @contextmanager
    def _place(self, tenant_id: UUID) -> Iterator[None]:
        if len(self._places) >= _MOST_UPLOADS:
            raise NoCapacity("this server has reached its limit of uploads: try again")
        if self._places.of(tenant_id) >= self._limits.max_uploads:
            REFUSALS.labels("uploads").inc()
            raise RateLimited(
                f"{self._limits.max_uploads} files are being uploaded, which is the limit", _RETRY_SECONDS
            )
        with self._places.taken(tenant_id):
            yield


class _Messages:
    """The bytes of a file, in their order; `config` is set once the message has arrived."""

    def __init__(self, requests: AsyncIterator[pb.TranscribeFileRequest], idle_seconds: float) -> None:
        self._requests = aiter(requests)
        self._idle_seconds = idle_seconds
        self._began = asyncio.get_running_loop().time()
        self._size = 0
        self.config: pb.FileConfig | None = None
        self.is_complete = False
        """Whether the client has sent all of the file."""

    def __aiter__(self) -> "_Messages":
        return self

    async def __anext__(self) -> bytes:
        while (request := await self._next()) is not None:
            kind = request.WhichOneof("request")
            if self.is_complete:
                raise InvalidMessage(f"{kind or 'a message'} was sent after the end of the file")
            match kind:
                case "config":
                    self._take(request.config)
                case "end":
                    self.is_complete = True
                case "data":
                    return self._checked(request.data)
                case _:
                    raise InvalidMessage("a message has neither config, data nor end")
        raise StopAsyncIteration

    def _take(self, config: pb.FileConfig) -> None:
        if self.config is not None:
            raise InvalidMessage("config may be sent once")
        self.config = config
        self.is_complete = self._size > 0

    def _checked(self, data: bytes) -> bytes:
        if len(data) > _MOST_DATA_BYTES:
            raise MessageTooBig(f"a message of {len(data)} bytes, at most {_MOST_DATA_BYTES} are allowed")
        self._size += len(data)
        return data

    async def _next(self) -> pb.TranscribeFileRequest | None:
        loop = asyncio.get_running_loop()
        until = self._began + self._idle_seconds + self._size / _SLOWEST_RATE
        try:
            async with asyncio.timeout_at(min(loop.time() + self._idle_seconds, until)):
                return await anext(self._requests, None)
        except TimeoutError:
            raise IdleTimeout("the file was sent too slowly, or not to its end") from None


def _request(config: pb.FileConfig, catalog: ModelCatalog) -> JobRequest:
    """The job of a configuration.

    Raises:
        InvalidParameter, InvalidModel: a value is wrong.
    """
    model = parse_model(config.model or DEFAULT_MODEL, catalog)
    return JobRequest(
        model=model,
        language=parse_language(config.language, model, catalog),
        vocabulary=parse_vocabulary(config.vocabulary),
    )


def _shown_name(name: str) -> str | None:
    """The name of the file without its folders, as far as it can be shown."""
    shown = "".join(each for each in name.replace("\\", "/").rpartition("/")[2] if each.isprintable())
    return shown[:_MOST_NAME] or None
