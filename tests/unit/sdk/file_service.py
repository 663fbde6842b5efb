"""A fake service that takes files, and fails where a script requires it. The transcript of every file is the same."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from dalston.v1 import file_pb2 as pb
from dalston.v1 import (
    file_pb2_grpc,
    job_pb2,
    job_pb2_grpc,
    session_pb2,
    session_pb2_grpc,
    transcription_pb2_grpc,
)

from tests.unit.sdk.service import Failure, Service, abort

TEXTS = ("It is a truth", "universally acknowledged,", "that a single man")
SECONDS = 3.0


@dataclass
class Upload:
    """A file that was received."""

    config: pb.FileConfig
    content: bytearray = field(default_factory=bytearray)
    sizes: list[int] = field(default_factory=list)
    """Of each message."""


Script = Callable[["FileService", str], "Failure | None"]


class FileService(
    file_pb2_grpc.FileServiceServicer, job_pb2_grpc.JobServiceServicer, session_pb2_grpc.SessionServiceServicer
):
    """Records its requests.

    `script` is called at `config`, `data`, `complete`, `job` (the first answer), `utterance` (after each), `get job`
    and `list`, and may return a failure.
    """

    def __init__(self, script: Script | None = None) -> None:
        self.script = script
        self.texts: tuple[str, ...] = TEXTS
        self.uploads: list[Upload] = []
        self.calls: list[str] = []
        self.jobs: dict[str, job_pb2.Job] = {}
        self.metadata: dict[str, str] = {}
        self.transcribed = len(TEXTS)
        """How many utterances are transcribed. A test that lowers it raises it with `advance`."""
        self.begin = {"status": "running", "step": "transcribing"}
        """The state of a job until its utterances are transcribed,"""
        self.end = {"status": "completed"}
        """and then."""
        self._changed = asyncio.Condition()
        self.port = 0

    async def advance(self, transcribed: int) -> None:
        async with self._changed:
            self.transcribed = transcribed
            self._changed.notify_all()

    @property
    def job(self) -> job_pb2.Job:
        """The only job, as it is now."""
        (job,) = self.jobs.values()
        return self._now(job)

    async def TranscribeFile(self, requests: AsyncIterator[pb.TranscribeFileRequest], context: Any) -> None:  # type: ignore[override]
        self.metadata = dict(context.invocation_metadata())
        try:
            job = await self._receive(requests)
            await context.write(pb.TranscribeFileResponse(job=self._now(job)))
            self._break("job")
            await self._send_utterances(context)
            await context.write(pb.TranscribeFileResponse(job=self._now(job)))
        except Failure as failure:
            await abort(context, failure)

    async def _receive(self, requests: AsyncIterator[pb.TranscribeFileRequest]) -> job_pb2.Job:
        upload: Upload | None = None
        is_complete = False
        async for request in requests:
            if request.HasField("config"):
                assert upload is None, "the config is not the first message"
                upload = Upload(request.config)
                self.uploads.append(upload)
                self._break("config")
                continue
            assert upload is not None, "the config is not the first message"
            if request.HasField("end"):
                is_complete = True
                continue
            upload.content += request.data
            upload.sizes.append(len(request.data))
            self._break("data")
        assert upload is not None
        assert is_complete, "the file has no end"
        self._break("complete")
        key = hashlib.sha256(bytes(upload.content) + upload.config.SerializeToString()).hexdigest()[:32]
        job_id = f"job_{key}"
        return self.jobs.setdefault(
            job_id,
            job_pb2.Job(
                id=job_id,
                session_id=f"sess_{key}",
                kind="upload",
                model=upload.config.model or "accurate",
                language=upload.config.language or "auto",
                audio_duration_seconds=SECONDS,
            ),
        )

    async def _send_utterances(self, context: Any) -> None:
        for index in range(len(self.texts)):
            async with self._changed:
                await self._changed.wait_for(lambda index=index: index < self.transcribed)
            await context.write(pb.TranscribeFileResponse(utterance=self._utterance(index)))
            self._break("utterance")

    async def GetJob(self, request: job_pb2.GetJobRequest, context: Any) -> job_pb2.Job:  # type: ignore[override]
        await self._answer("get job", context)
        return self._now(self.jobs[request.job_id])

    async def ListUtterances(  # type: ignore[override]
        self, request: session_pb2.ListUtterancesRequest, context: Any
    ) -> session_pb2.ListUtterancesResponse:
        await self._answer("list", context)
        assert request.version == 1
        assert request.session_id in {job.session_id for job in self.jobs.values()}
        indices = range(request.offset, min(self.transcribed, len(self.texts)))
        return session_pb2.ListUtterancesResponse(utterances=map(self._utterance, indices), has_more=False)

    async def _answer(self, call: str, context: Any) -> None:
        try:
            self._break(call)
        except Failure as failure:
            await abort(context, failure)

    def _now(self, job: job_pb2.Job) -> job_pb2.Job:
        now = job_pb2.Job()
        now.CopyFrom(job)
        now.progress = self.transcribed / len(self.texts)
        now.MergeFrom(job_pb2.Job(**self.begin))
        if self.transcribed >= len(self.texts):
            now.MergeFrom(job_pb2.Job(**self.end))
        return now

    def _utterance(self, index: int) -> session_pb2.Utterance:
        return session_pb2.Utterance(
            index=index, start=index, end=index + 1, text=self.texts[index], confidence=0.9, language="en"
        )

    def _break(self, moment: str) -> None:
        self.calls.append(moment)
        if self.script and (failure := self.script(self, moment)):
            raise failure


def breaking(*moments: tuple[str, int, Failure]) -> Script:
    """A script that fails at the n-th occurrence of a moment, counted over all calls."""
    counts: dict[str, int] = {}

    def script(_service: FileService, moment: str) -> Failure | None:
        counts[moment] = counts.get(moment, 0) + 1
        return next((f for name, count, f in moments if name == moment and count == counts[moment]), None)

    return script


@asynccontextmanager
async def serving(service: FileService, live: Service | None = None) -> AsyncIterator[str]:
    """Runs the service, and the live one beside it, and yields the URL."""
    server = grpc.aio.server()
    file_pb2_grpc.add_FileServiceServicer_to_server(service, server)
    job_pb2_grpc.add_JobServiceServicer_to_server(service, server)
    session_pb2_grpc.add_SessionServiceServicer_to_server(service, server)
    if live is not None:
        transcription_pb2_grpc.add_TranscriptionServiceServicer_to_server(live, server)
    service.port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"http://127.0.0.1:{service.port}"
    finally:
        await server.stop(None)
