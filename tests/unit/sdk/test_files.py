"""The SDK transcribes files, against a fake service that fails where a script requires it."""

from __future__ import annotations

import asyncio
import io
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import grpc
import pytest
from dalston import (
    AsyncClient,
    Client,
    DalstonError,
    FileProgress,
    FileTooBig,
    InvalidRequest,
    JobCanceled,
    JobFailed,
    JobStatus,
    PermissionDenied,
    RateLimited,
    Reconnecting,
    TooManyJobs,
    Transcript,
    Unavailable,
    Unsupported,
    UnsupportedMedia,
)
from dalston.backoff import Backoff

from tests.unit.sdk.file_service import SECONDS, TEXTS, FileService, breaking, serving
from tests.unit.sdk.service import LOST, Failure

C = grpc.StatusCode
CONTENT = bytes(range(256)) * 3000
"""Three messages."""
PIECE = 256 * 1024


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dalston.files.outage._BACKOFF", Backoff(first=0.005, longest=0.02))
    monkeypatch.setattr("dalston.files.async_file_transcription._SHORTEST_POLL", 0.01)


async def transcribe(service: FileService, source: Any = CONTENT, **options: Any) -> Transcript:
    async with serving(service) as url, AsyncClient(url) as client:
        return await client.transcribe_file(source, **options)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - the fake service has no event for it
        await asyncio.sleep(0.01)


def check_whole(transcript: Transcript, service: FileService) -> None:
    """Asserts that no utterance is missing or duplicated."""
    assert tuple(each.text for each in transcript.utterances) == TEXTS
    assert [each.index for each in transcript.utterances] == [0, 1, 2]
    assert (transcript.text, transcript.language) == (" ".join(TEXTS), "en")
    assert (transcript.session_id, transcript.duration) == (service.job.session_id, SECONDS)


async def test_config_is_sent_first_and_then_the_file_in_pieces(tmp_path: Path) -> None:
    service, path = FileService(), tmp_path / "talk.m4a"
    path.write_bytes(CONTENT)
    options = {"model": "fast", "language": "en", "vocabulary": ("Norland", "Dashwood"), "store": False}
    check_whole(await transcribe(service, path, **options), service)
    (upload,) = service.uploads
    assert bytes(upload.content) == CONTENT
    assert upload.sizes == [PIECE, PIECE, len(CONTENT) - 2 * PIECE]
    config = upload.config
    assert (config.model, config.language, list(config.vocabulary)) == ("fast", "en", ["Norland", "Dashwood"])
    assert (config.file_name, config.store) == ("talk.m4a", False)


async def test_defaults_leave_the_choice_to_the_service() -> None:
    service = FileService()
    await transcribe(service)
    config = service.uploads[0].config
    assert (config.model, config.language, list(config.vocabulary), config.file_name) == ("", "", [], "")
    assert config.store


def opened(path: Path) -> io.BufferedReader:
    file = path.open("rb")
    file.seek(7)
    return file


def pipe_of(content: bytes) -> BinaryIO:
    """The end of a pipe from which the content can be read."""
    reading, writing = os.pipe()

    def write() -> None:
        with os.fdopen(writing, "wb") as file:
            file.write(content)

    threading.Thread(target=write, daemon=True).start()
    return os.fdopen(reading, "rb")


SOURCES: dict[str, Callable[[Path], Any]] = {
    "path": lambda path: path,
    "string": str,
    "bytes": lambda _path: CONTENT,
    "bytearray": lambda _path: bytearray(CONTENT),
    "memoryview": lambda _path: memoryview(CONTENT),
    "BytesIO": lambda _path: io.BytesIO(CONTENT),
    "open file": opened,
    "pipe": lambda _path: pipe_of(CONTENT),
}


@pytest.mark.parametrize("kind", SOURCES)
async def test_source_may_be_of_any_kind(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "talk.m4a"
    path.write_bytes(CONTENT)
    source = SOURCES[kind](path)
    service = FileService()
    seen: list[FileProgress] = []
    check_whole(await transcribe(service, source, on_progress=seen.append), service)
    expected = CONTENT[7:] if kind == "open file" else CONTENT
    assert bytes(service.uploads[0].content) == expected
    assert service.uploads[0].config.file_name == ("talk.m4a" if kind in ("path", "string", "open file") else "")
    assert seen[-1].total_bytes == (None if kind == "pipe" else len(expected))
    if hasattr(source, "close"):
        assert not source.closed
        source.close()


@pytest.mark.parametrize(
    ("source", "options", "error"),
    [
        (7, {}, TypeError),
        (io.StringIO("text"), {}, TypeError),
        (b"", {"vocabulary": "Dalston"}, TypeError),
        (b"", {"vocabulary": [7]}, TypeError),
        (b"", {"langauge": "en"}, TypeError),
        (b"", {"model": 7}, TypeError),
        (b"", {"wait": -1}, ValueError),
    ],
)
def test_invalid_argument_is_rejected_immediately(source: Any, options: Any, error: type[Exception]) -> None:
    with Client() as client, pytest.raises(error):
        client.transcribe_file(source, **options)


async def test_missing_file_is_an_error_of_the_system(tmp_path: Path) -> None:
    service = FileService()
    with pytest.raises(FileNotFoundError):
        await transcribe(service, tmp_path / "none.m4a")
    assert service.metadata == {}


async def test_job_is_known_before_its_first_utterance() -> None:
    service = FileService()
    service.transcribed = 0
    async with serving(service) as url, AsyncClient(url) as client:
        async with client.transcribe_file(CONTENT) as transcription:
            assert transcription.job is not None
            assert (transcription.job.id, transcription.session_id) == (service.job.id, service.job.session_id)
            assert transcription.transcript.utterances == ()
            texts = []
            await service.advance(1)
            async for utterance in transcription:
                texts.append(utterance.text)
                await service.advance(len(texts) + 1)
        assert tuple(texts) == TEXTS
        assert transcription.job.status is JobStatus.COMPLETED
        check_whole(await transcription.wait(), service)
    assert service.calls.count("get job") == service.calls.count("list") == 0


async def test_submitted_file_needs_no_stream_and_is_found_again() -> None:
    service = FileService()
    service.transcribed = 0
    async with serving(service) as url, AsyncClient(url) as client:
        transcription = client.transcribe_file(CONTENT)
        job = await transcription.submit()
        assert (job.id, job.status) == (service.job.id, JobStatus.RUNNING)
        assert await transcription.submit() == job
        await service.advance(3)
        check_whole(await transcription, service)
    assert len(service.uploads) == 1
    assert "get job" in service.calls


async def test_an_iteration_that_is_left_continues_later() -> None:
    service = FileService()
    async with serving(service) as url, AsyncClient(url) as client:
        transcription = client.transcribe_file(CONTENT)
        async for utterance in transcription:
            assert utterance.text == TEXTS[0]
            break
        check_whole(await transcription.wait(), service)
    assert len(service.uploads) == 1


@pytest.mark.parametrize(
    ("moment", "count", "sent"), [("data", 1, 2), ("data", 3, 2), ("complete", 1, 2), ("config", 1, 1)]
)
async def test_file_is_sent_again_after_a_loss_before_its_job(moment: str, count: int, sent: int) -> None:
    service = FileService(breaking((moment, count, LOST)))
    seen: list[Reconnecting] = []
    check_whole(await transcribe(service, on_reconnect=seen.append, wait=5.0), service)
    assert bytes(service.uploads[-1].content) == CONTENT
    assert len(service.jobs) == 1
    assert [each.attempt for each in seen] == [1]


async def test_file_is_sent_again_without_wait_once_a_part_was_taken() -> None:
    service = FileService(breaking(("complete", 1, LOST), ("complete", 2, LOST)))
    check_whole(await transcribe(service), service)
    assert [bytes(each.content) for each in service.uploads] == [CONTENT] * 3


async def test_pipe_cannot_be_sent_again() -> None:
    service = FileService(breaking(("complete", 1, LOST)))
    with pipe_of(CONTENT) as pipe, pytest.raises(Unavailable):
        await transcribe(service, pipe)
    assert len(service.uploads) == 1


async def test_service_that_is_away_is_an_error_at_once() -> None:
    async with serving(FileService()) as url:
        pass
    async with AsyncClient(url) as client:
        with pytest.raises(Unavailable):
            await client.transcribe_file(CONTENT)
        seen: list[Reconnecting] = []
        with pytest.raises(Unavailable):
            await client.transcribe_file(CONTENT, wait=0.1, on_reconnect=seen.append)
        assert seen


async def test_give_up_after_bounds_the_attempts() -> None:
    service = FileService(lambda _service, moment: LOST if moment == "complete" else None)
    with pytest.raises(Unavailable):
        await transcribe(service, give_up_after=0.1)
    assert len(service.uploads) > 1
    service = FileService(lambda _service, moment: LOST if moment in ("job", "get job") else None)
    with pytest.raises(Unavailable, match=r"the connection to job job_\w+ could not be restored"):
        await transcribe(service, give_up_after=0.1)
    assert len(service.uploads) == 1


@pytest.mark.parametrize(("moment", "count"), [("job", 1), ("utterance", 1), ("utterance", 3)])
async def test_job_is_found_again_after_a_loss(moment: str, count: int) -> None:
    service = FileService(breaking((moment, count, LOST), ("get job", 1, LOST), ("list", 1, LOST)))
    seen: list[Reconnecting] = []
    check_whole(await transcribe(service, on_reconnect=seen.append), service)
    assert len(service.uploads) == 1
    assert len(seen) == 2


async def test_job_is_polled_until_it_ends() -> None:
    service = FileService(breaking(("utterance", 1, LOST)))
    service.transcribed = 1

    def script(_service: FileService, moment: str) -> Failure | None:
        if moment == "list" and _service.calls.count("list") > 2:
            _service.transcribed += 1
        return LOST if moment == "utterance" and _service.calls.count("utterance") == 1 else None

    service.script = script
    check_whole(await transcribe(service), service)


async def test_transcript_may_be_readable_only_once_the_job_has_ended() -> None:
    none = Failure(C.NOT_FOUND, "TRANSCRIPT_NOT_FOUND")
    service = FileService(lambda service, at: none if at == "list" and service.job.status != "completed" else None)
    service.transcribed = 1
    async with serving(service) as url, AsyncClient(url) as client:
        transcription = client.transcribe_file(CONTENT)
        await transcription.submit()
        waiting = asyncio.create_task(transcription.wait())
        await until(lambda: service.calls.count("list") > 2)
        await service.advance(3)
        check_whole(await waiting, service)


async def test_key_without_the_right_to_read_sends_the_file_again() -> None:
    denied = Failure(C.PERMISSION_DENIED, "PERMISSION_DENIED")

    def script(service: FileService, moment: str) -> Failure | None:
        if moment in ("get job", "list"):
            return denied
        return LOST if moment == "utterance" and service.calls.count("utterance") == 2 else None

    service = FileService(script)
    check_whole(await transcribe(service), service)
    assert len(service.uploads) == 2
    assert len(service.jobs) == 1


async def test_key_without_the_right_to_read_receives_no_progress_and_no_error() -> None:
    denied = Failure(C.PERMISSION_DENIED, "PERMISSION_DENIED")
    service = FileService(lambda _service, moment: denied if moment == "get job" else None)
    service.transcribed = 2
    seen: list[FileProgress] = []
    async with serving(service) as url, AsyncClient(url) as client:
        waiting = asyncio.create_task(client.transcribe_file(CONTENT, on_progress=seen.append).wait())
        await until(lambda: "get job" in service.calls)
        await service.advance(3)
        check_whole(await waiting, service)
    assert service.calls.count("get job") == 1


async def test_progress_counts_bytes_and_then_follows_the_job() -> None:
    service = FileService()
    service.transcribed = 1
    seen: list[FileProgress] = []
    async with serving(service) as url, AsyncClient(url) as client:
        waiting = asyncio.create_task(client.transcribe_file(CONTENT, on_progress=seen.append).wait())
        await until(lambda: any(each.job and each.job.progress == pytest.approx(1 / 3) for each in seen))
        service.transcribed = 2  # Without a message on the stream.
        await until(lambda: any(each.job and each.job.progress == pytest.approx(2 / 3) for each in seen))
        await service.advance(3)
        check_whole(await waiting, service)
    assert [each.sent_bytes for each in seen if each.job is None] == [PIECE, 2 * PIECE, len(CONTENT)]
    assert {each.total_bytes for each in seen} == {len(CONTENT)}
    assert seen[-1].job is not None
    assert seen[-1].job.status is JobStatus.COMPLETED


REFUSALS: list[tuple[str, Failure, type[DalstonError]]] = [
    ("data", Failure(C.INVALID_ARGUMENT, "UNSUPPORTED_MEDIA"), UnsupportedMedia),
    ("data", Failure(C.INVALID_ARGUMENT, "FILE_TOO_BIG"), FileTooBig),
    ("config", Failure(C.INVALID_ARGUMENT, "INVALID_MODEL"), InvalidRequest),
    ("complete", Failure(C.RESOURCE_EXHAUSTED, "TOO_MANY_JOBS"), TooManyJobs),
    ("config", Failure(C.RESOURCE_EXHAUSTED, "RATE_LIMITED", retry_after_seconds="5"), RateLimited),
    ("config", Failure(C.PERMISSION_DENIED, "PERMISSION_DENIED"), PermissionDenied),
    ("config", Failure(C.UNIMPLEMENTED, "UNIMPLEMENTED"), Unsupported),
]


@pytest.mark.parametrize(("moment", "failure", "error"), REFUSALS, ids=[failure.reason for _, failure, _ in REFUSALS])
async def test_refused_file_raises_the_reason(moment: str, failure: Failure, error: type[DalstonError]) -> None:
    service = FileService(lambda _service, at: failure if at == moment else None)
    with pytest.raises(error) as refused:
        await transcribe(service, CONTENT * 8)
    assert type(refused.value) is error
    assert refused.value.reason == failure.reason
    assert len(service.uploads) == 1


async def test_full_queue_is_not_a_reason_to_send_the_file_again() -> None:
    service = FileService(lambda _service, at: REFUSALS[3][1] if at == "complete" else None)
    with pytest.raises(TooManyJobs):
        await transcribe(service, wait=5.0)
    assert len(service.uploads) == 1


@pytest.mark.parametrize("is_polled", [False, True])
async def test_failed_job_raises_after_its_utterances(is_polled: bool) -> None:
    service = FileService(breaking(("utterance", 1, LOST)) if is_polled else None)
    service.end = {"status": "failed", "error": "the file is damaged", "error_code": "audio_damaged"}
    texts = []
    async with serving(service) as url, AsyncClient(url) as client:
        transcription = client.transcribe_file(CONTENT)
        with pytest.raises(JobFailed, match=r"^the file is damaged$") as failed:
            async for utterance in transcription:
                texts.append(utterance.text)  # noqa: PERF401 - the iteration raises
        assert (failed.value.code, failed.value.job.id) == ("audio_damaged", service.job.id)
        assert tuple(texts) == TEXTS
        with pytest.raises(JobFailed):
            await transcription


async def test_canceled_job_raises() -> None:
    service = FileService()
    service.end = {"status": "canceled"}
    with pytest.raises(JobCanceled) as canceled:
        await transcribe(service)
    assert canceled.value.job.status is JobStatus.CANCELED


async def test_cancelled_wait_leaves_the_job() -> None:
    service = FileService()
    service.transcribed = 1
    async with serving(service) as url, AsyncClient(url) as client:
        transcription = client.transcribe_file(CONTENT)
        waiting = asyncio.create_task(transcription.wait())
        await until(lambda: bool(transcription.transcript.utterances))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await service.advance(3)
        check_whole(await transcription, service)
    assert len(service.uploads) == 1


@pytest.mark.parametrize("is_polled", [False, True])
async def test_closed_transcription_ends_the_wait_and_leaves_the_job(is_polled: bool) -> None:
    service = FileService()
    service.transcribed = 1
    async with serving(service) as url, AsyncClient(url) as client:
        transcription = client.transcribe_file(CONTENT)
        if is_polled:
            await transcription.submit()
        waiting = asyncio.create_task(transcription.wait())
        await until(lambda: bool(transcription.transcript.utterances))
        await transcription.close()
        with pytest.raises(RuntimeError, match="its job continues"):
            await waiting
        await service.advance(3)
        check_whole(await transcription, service)
    assert len(service.uploads) == 1


async def test_closed_client_ends_the_wait() -> None:
    service = FileService()
    service.transcribed = 1
    async with serving(service) as url, AsyncClient(url) as client:
        transcription = client.transcribe_file(CONTENT)
        waiting = asyncio.create_task(transcription.wait())
        await until(lambda: bool(transcription.transcript.utterances))
        await client.close()
        for call in (waiting, transcription.submit(), transcription.wait()):
            with pytest.raises(RuntimeError, match=r"^the client is closed$"):
                await call


async def test_synchronous_client_transcribes_files(tmp_path: Path) -> None:
    (tmp_path / "talk.m4a").write_bytes(CONTENT)
    service = FileService()

    def use(url: str) -> None:
        seen: list[FileProgress] = []
        with Client(url, api_key="dk_1") as client:
            with client.transcribe_file(tmp_path / "talk.m4a", on_progress=seen.append) as transcription:
                assert transcription.job is not None
                assert transcription.session_id == service.job.session_id
                assert tuple(utterance.text for utterance in transcription) == TEXTS
            check_whole(transcription.transcript, service)
            check_whole(client.transcribe_file(tmp_path / "talk.m4a").wait(), service)
            job = client.transcribe_file(tmp_path / "talk.m4a").submit()
            assert job.id == service.job.id
            assert seen[0].sent_bytes == PIECE
        with pytest.raises(RuntimeError):
            client.transcribe_file(b"")

    async with serving(service) as url:
        await asyncio.to_thread(use, url)
    assert service.metadata["authorization"] == "Bearer dk_1"
