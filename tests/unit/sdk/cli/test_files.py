"""`dalston transcribe` uploads files, as a separate process and against a fake service."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from dalston.cli.file_view import state
from dalston.cli.main import main
from dalston.records import FileProgress, Job, JobStatus
from dalston.v1 import session_pb2

from tests.integration.sdk.conftest import wav_of
from tests.unit.sdk.file_service import TEXTS, FileService, breaking, serving
from tests.unit.sdk.service import LOST, Failure, Service, speech

C = grpc.StatusCode
TEXT = "".join(f"{text}\n" for text in TEXTS)
CONTENT = b"a file that no decoder reads" * 20_000


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


class Runner:
    """Runs `dalston` in a folder with the file `talk.m4a`."""

    def __init__(self, folder: Path, url: str) -> None:
        self._folder = folder
        self._environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(each for each in sys.path if each),
            "XDG_CONFIG_HOME": str(folder),
            "DALSTON_URL": url,
        }

    async def start(self, line: str, **streams: int) -> asyncio.subprocess.Process:
        command = f'dalston() {{ exec "{sys.executable}" -W error -m dalston.cli.main "$@"; }}; {line}'
        return await asyncio.create_subprocess_exec(
            *("bash", "-c", command),
            cwd=self._folder,
            env=self._environment,
            **{
                "stdin": subprocess.DEVNULL,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
            }
            | streams,
        )

    async def __call__(self, line: str) -> Done:
        return await self.ended(await self.start(line))

    async def ended(self, process: asyncio.subprocess.Process) -> Done:
        out, err = await asyncio.wait_for(process.communicate(), 50)
        assert process.returncode is not None
        assert b"Traceback" not in err, err.decode()
        return Done(process.returncode, out.decode(), err.decode())


@pytest.fixture
def service() -> FileService:
    return FileService()


@pytest.fixture
async def dalston(service: FileService, tmp_path: Path) -> AsyncIterator[Runner]:
    (tmp_path / "talk.m4a").write_bytes(CONTENT)
    async with serving(service) as url:
        yield Runner(tmp_path, url)


@pytest.fixture(autouse=True)
def _ctrl_c_is_received() -> object:
    """Restores the handling of Ctrl-C, which a background job of a shell ignores and its children inherit."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


async def test_file_is_uploaded_and_its_transcript_written(dalston: Runner, service: FileService) -> None:
    options = "--vocabulary 'Norland, Dashwood' -l en -m fast"
    done = await dalston(f"dalston transcribe talk.m4a {options}")
    job = service.job
    assert (done.code, done.out) == (0, TEXT), done.err
    assert done.err == (
        f"session {job.session_id}\njob {job.id}\njob {job.id} completed: 3.0 s of audio, nothing stored\n"
    )
    (upload,) = service.uploads
    config = upload.config
    assert bytes(upload.content) == CONTENT
    assert (config.model, config.language, list(config.vocabulary)) == ("fast", "en", ["Norland", "Dashwood"])
    assert (config.file_name, config.store) == ("talk.m4a", False)
    done = await dalston("dalston transcribe talk.m4a --store")
    assert service.uploads[-1].config.store
    assert "stored as session sess_" in done.err


async def test_every_format_is_written(dalston: Runner, service: FileService, tmp_path: Path) -> None:
    done = await dalston("dalston transcribe talk.m4a -f srt -o talk.srt")
    assert (done.code, done.out) == (0, ""), done.err
    assert "wrote talk.srt\n" in done.err
    assert (tmp_path / "talk.srt").read_text().startswith("1\n00:00:00,000 --> 00:00:01,000\nIt is a truth\n\n2\n")
    done = await dalston("dalston transcribe talk.m4a -f vtt")
    assert done.out.startswith("WEBVTT\n\n00:00:00.000 --> 00:00:01.000\n")
    content = json.loads((await dalston("dalston transcribe talk.m4a -f json")).out)
    assert content["text"] == " ".join(TEXTS)
    assert content["session_ids"] == [content["session_id"]]
    assert (content["language"], content["duration"]) == ("en", 3.0)
    assert [each["text"] for each in content["utterances"]] == list(TEXTS)


@pytest.mark.parametrize("option", ["", "--word-timestamps"])
async def test_words_are_written_if_requested(
    option: str, dalston: Runner, service: FileService, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = service._utterance

    def with_words(index: int) -> session_pb2.Utterance:
        utterance = plain(index)
        utterance.words.add(word="It", start=0.0, end=0.5, confidence=0.9)
        return utterance

    monkeypatch.setattr(service, "_utterance", with_words)
    content = json.loads((await dalston(f"dalston transcribe talk.m4a -f json {option}")).out)
    assert [len(each["words"]) for each in content["utterances"]] == ([1, 1, 1] if option else [0, 0, 0])


async def test_utterances_are_written_as_they_are_transcribed(dalston: Runner, service: FileService) -> None:
    service.transcribed = 1
    process = await dalston.start("dalston transcribe talk.m4a")
    assert process.stdout is not None
    assert (await process.stdout.readline()).decode() == f"{TEXTS[0]}\n"
    await service.advance(2)
    assert (await process.stdout.readline()).decode() == f"{TEXTS[1]}\n"
    await service.advance(3)
    done = await dalston.ended(process)
    assert (done.code, done.out) == (0, f"{TEXTS[2]}\n")


async def test_several_files_are_uploaded_before_the_first_is_waited_for(
    dalston: Runner, service: FileService, tmp_path: Path
) -> None:
    (tmp_path / "other.mp3").write_bytes(b"other")
    service.transcribed = 0
    process = await dalston.start("dalston transcribe talk.m4a other.mp3 -o texts")
    while len(service.jobs) < 2:  # noqa: ASYNC110 - the fake service has no event for it
        await asyncio.sleep(0.02)
    await service.advance(3)
    done = await dalston.ended(process)
    assert (done.code, done.out) == (0, ""), done.err
    assert "other.mp3 (2 of 2)\n" in done.err
    assert {path.name: path.read_text() for path in (tmp_path / "texts").iterdir()} == {
        "talk.txt": TEXT,
        "other.txt": TEXT,
    }
    assert len(service.uploads) == 2
    assert (await dalston("dalston transcribe talk.m4a talk.m4a")).out == TEXT * 2


async def test_refused_file_does_not_stop_the_others(dalston: Runner, service: FileService, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_bytes(b"text")
    refused = Failure(C.INVALID_ARGUMENT, "UNSUPPORTED_MEDIA")
    service.script = lambda service, moment: (
        refused if moment == "data" and service.uploads[-1].config.file_name == "notes.txt" else None
    )
    done = await dalston("dalston transcribe notes.txt talk.m4a")
    assert (done.code, done.out) == (2, TEXT)
    assert "error: notes.txt: unsupported_media\n" in done.err
    done = await dalston("dalston transcribe notes.txt -o out.txt")
    assert (done.code, done.out, done.err) == (2, "", "error: notes.txt: unsupported_media\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "talk.m4a"]  # noqa: ASYNC240 - at the end


EXITS: list[tuple[str, Failure, int]] = [
    ("data", Failure(C.INVALID_ARGUMENT, "FILE_TOO_BIG"), 2),
    ("config", Failure(C.INVALID_ARGUMENT, "INVALID_MODEL"), 2),
    ("config", Failure(C.UNAUTHENTICATED, "UNAUTHENTICATED"), 4),
    ("config", Failure(C.PERMISSION_DENIED, "PERMISSION_DENIED"), 4),
    ("complete", Failure(C.RESOURCE_EXHAUSTED, "TOO_MANY_JOBS"), 6),
    ("complete", Failure(C.UNAVAILABLE, "UNAVAILABLE"), 5),
]


@pytest.mark.parametrize(("moment", "failure", "code"), EXITS, ids=[failure.reason for _, failure, _ in EXITS])
async def test_error_is_one_line_with_an_exit_code(
    moment: str, failure: Failure, code: int, dalston: Runner, service: FileService
) -> None:
    service.script = lambda _service, at: failure if at == moment else None
    done = await dalston("dalston transcribe talk.m4a")
    assert (done.code, done.out) == (code, ""), done.err
    assert done.err.splitlines()[-1].startswith("error: ") or code == 5
    assert sum(line.startswith("error: ") for line in done.err.splitlines()) == 1


async def test_failed_job_keeps_the_transcript_so_far(dalston: Runner, service: FileService, tmp_path: Path) -> None:
    service.end = {"status": "failed", "error": "the file is damaged", "error_code": "audio_damaged"}
    done = await dalston("dalston transcribe talk.m4a -o out.txt")
    assert (done.code, done.out) == (1, "")
    assert "error: talk.m4a: the file is damaged\n" in done.err
    assert "the incomplete transcript is in out.txt.part" in done.err
    assert "continues" not in done.err
    service.end = {"status": "canceled"}
    done = await dalston("dalston transcribe talk.m4a")
    assert (done.code, f"job {service.job.id} was canceled" in done.err) == (1, True)


async def test_lost_connection_is_reported_and_the_job_found_again(dalston: Runner, service: FileService) -> None:
    service.script = breaking(("complete", 1, LOST), ("utterance", 1, LOST), ("get job", 1, LOST))
    done = await dalston("dalston transcribe talk.m4a")
    assert (done.code, done.out) == (0, TEXT), done.err
    assert done.err.count("reconnecting in ") >= 2
    assert len(service.jobs) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_interrupt_leaves_the_job(number: signal.Signals, dalston: Runner, service: FileService) -> None:
    service.transcribed = 1
    process = await dalston.start("dalston transcribe talk.m4a")
    assert process.stdout is not None
    assert (await process.stdout.readline()).decode() == f"{TEXTS[0]}\n"
    process.send_signal(number)
    done = await dalston.ended(process)
    job_id = service.job.id
    assert (done.code, done.out) == (130, ""), done.err
    assert done.err.splitlines()[-1] == (
        f"job {job_id} continues; its transcript is kept for a day: dalston jobs show {job_id}"
    )


async def test_interrupted_upload_is_reported(dalston: Runner, service: FileService, tmp_path: Path) -> None:
    waiting = asyncio.Event()
    receive = service._receive

    async def stuck(requests: object) -> object:
        await anext(requests)  # type: ignore[call-overload]
        await anext(requests)  # type: ignore[call-overload]
        waiting.set()
        await asyncio.sleep(60)
        return await receive(requests)  # type: ignore[arg-type]

    service._receive = stuck  # type: ignore[method-assign, assignment]
    (tmp_path / "long.m4a").write_bytes(bytes(64 * 1024 * 1024))
    process = await dalston.start("dalston transcribe long.m4a")
    await waiting.wait()
    process.send_signal(signal.SIGINT)
    done = await dalston.ended(process)
    assert (done.code, done.out, done.err) == (130, "", "long.m4a was not uploaded completely\n")


async def test_no_wait_prints_the_job(dalston: Runner, service: FileService, tmp_path: Path) -> None:
    service.transcribed = 0
    (tmp_path / "other.mp3").write_bytes(b"other")
    done = await dalston("dalston transcribe --no-wait --store talk.m4a other.mp3")
    assert (done.code, done.out) == (0, "".join(f"{job_id}\n" for job_id in service.jobs)), done.err
    assert "kept for a day" not in done.err
    assert "kept for a day" in (await dalston("dalston transcribe --no-wait talk.m4a")).err


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["/dev/null"], "/dev/null is none"),
        (["--live"], "--live streams them"),
        (["--json"], "--json streams them"),
        (["-o", "out.txt"], "omit --output and --format"),
        (["-f", "srt"], "omit --output and --format"),
    ],
)
def test_no_wait_excludes_what_it_cannot_do(
    options: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "talk.m4a").write_bytes(CONTENT)
    assert main(["transcribe", "--no-wait", str(tmp_path / "talk.m4a"), *options]) == 2
    assert expected in capsys.readouterr().err


async def test_closed_stdout_leaves_the_job(dalston: Runner, service: FileService) -> None:
    done = await dalston("(dalston transcribe talk.m4a) | true; exit ${PIPESTATUS[0]}")
    assert done.code == 141, done.err
    assert "error" not in done.err
    assert f"job {service.job.id} continues" in done.err


@pytest.mark.parametrize(
    "arguments",
    ["--live speech.wav", "--realtime speech.wav", "--json speech.wav", "--store-audio speech.wav", "- <speech.wav",
     "<(cat speech.wav)", "--encoding pcm_s16le speech.wav"],
)  # fmt: skip
async def test_streams_are_streamed(arguments: str, tmp_path: Path) -> None:
    live, files = Service(), FileService()
    (tmp_path / "speech.wav").write_bytes(wav_of(speech([(0.1, 0.3)])))
    async with serving(files, live) as url:
        done = await Runner(tmp_path, url)(f"dalston transcribe {arguments}")
    assert done.code == 0, done.err
    assert len(live.sessions) == 1
    assert files.calls == []


@pytest.mark.parametrize("has_reason", [True, False])
async def test_service_without_files_receives_streams(has_reason: bool, tmp_path: Path) -> None:
    live = Service()
    unsupported = Failure(C.UNIMPLEMENTED, "UNIMPLEMENTED" if has_reason else "")
    files = FileService(lambda _service, _moment: unsupported)
    for name in ("speech.wav", "other.wav"):
        (tmp_path / name).write_bytes(wav_of(speech([(0.1, 0.3)])))
    async with serving(files, live) as url:
        run = Runner(tmp_path, url)
        for arguments, count in (("speech.wav", 1), ("speech.wav other.wav", 3)):
            done = await run(f"dalston transcribe {arguments}")
            assert done.code == 0, done.err
            assert done.err.count("takes no files: they are streamed instead\n") == 1
            assert len(live.sessions) == count
        done = await run("dalston transcribe --no-wait speech.wav")
        assert (done.code, done.err) == (1, "error: the service is older than this command and takes no files\n")


async def test_lack_of_a_worker_is_reported_once(dalston: Runner, service: FileService) -> None:
    service.transcribed = 0
    service.begin = {"status": "queued", "step": "worker"}
    process = await dalston.start("dalston transcribe talk.m4a")
    assert process.stderr is not None
    lines = [(await process.stderr.readline()).decode() for _ in range(3)]
    assert lines[2] == "the job waits, because no worker is running\n"
    await service.advance(3)
    done = await dalston.ended(process)
    assert (done.code, done.out) == (0, TEXT), done.err
    assert "worker" not in done.err


async def test_terminal_shows_the_progress(dalston: Runner, service: FileService) -> None:
    service.transcribed = 2
    inside, outside = pty.openpty()
    process = await dalston.start("TERM=xterm dalston transcribe talk.m4a", stderr=outside)
    os.close(outside)
    assert process.stdout is not None
    loop, seen = asyncio.get_running_loop(), b""
    while b"transcribing 66 %" not in seen:
        seen += await asyncio.wait_for(loop.run_in_executor(None, os.read, inside, 4096), 50)
    await service.advance(3)
    out, _ = await asyncio.wait_for(process.communicate(), 50)
    assert (process.returncode, out.decode()) == (0, TEXT)
    os.close(inside)


async def test_upload_imports_neither_a_decoder_nor_numpy(tmp_path: Path) -> None:
    service = FileService()
    (tmp_path / "talk.m4a").write_bytes(CONTENT)
    code = (
        "import sys; from dalston.cli.main import main; code = main(['transcribe', 'talk.m4a']);"
        "heavy = {'av', 'numpy', 'soundfile', 'sounddevice', 'rich', 'websockets'} & set(sys.modules);"
        "sys.exit(f'{code} {heavy}' if code or heavy else 0)"
    )
    async with serving(service) as url:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", code),
            cwd=tmp_path,
            env={"PYTHONPATH": os.pathsep.join(each for each in sys.path if each), "DALSTON_URL": url},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), 50)
    assert (process.returncode, out.decode()) == (0, TEXT), err.decode()


def job(status: JobStatus, step: str, **more: object) -> FileProgress:
    values: dict[str, object] = {"progress": 0.0, "queue_position": None, "eta_seconds": None} | more
    made = Job("job_1", "sess_1", "upload", status, step, model="", language="", vocabulary=(), linked=False,
               audio_duration_seconds=3.0, created_at=None, **values)  # type: ignore[arg-type]  # fmt: skip
    return FileProgress(10, 10, made)


@pytest.mark.parametrize(
    ("progress", "shown"),
    [
        (FileProgress(0, None), "uploading: 0 bytes"),
        (FileProgress(300_000, 1_200_000), "uploading 25 % of 1.2 MB"),
        (FileProgress(1_200_000, 1_200_000), "uploaded; the service stores the file"),
        (job(JobStatus.QUEUED, "turn", queue_position=0), "queued: it is the next"),
        (job(JobStatus.QUEUED, "turn", queue_position=1), "queued: 1 job is before it"),
        (job(JobStatus.QUEUED, "turn", queue_position=7), "queued: 7 jobs are before it"),
        (job(JobStatus.QUEUED, "worker", queue_position=0), "queued: no worker is running"),
        (job(JobStatus.QUEUED, "retry"), "queued: an attempt failed, and another follows"),
        (job(JobStatus.QUEUED, "capacity"), "queued: live sessions need the machine"),
        (job(JobStatus.RUNNING, "listening"), "listening"),
        (job(JobStatus.RUNNING, "transcribing", progress=0.43), "transcribing 43 %"),
        (job(JobStatus.RUNNING, "transcribing", progress=0.43, eta_seconds=130.0), "transcribing 43 %, 2:10 left"),
        (job(JobStatus.RUNNING, "storing"), "storing"),
        (job(JobStatus.COMPLETED, ""), "completed"),
    ],
)
def test_state_is_shown_in_words(progress: FileProgress, shown: str) -> None:
    assert state(progress)[0] == shown
