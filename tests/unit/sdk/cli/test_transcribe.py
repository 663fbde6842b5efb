"""`dalston transcribe --live` as a separate process, against a fake service."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.sdk.conftest import wav_of
from tests.unit.sdk.service import LOST, Failure, Recorded, Service, serving, speech

TEXT = "Привет, 世界 🙂 naïve"
SPEECH = speech([(0.2, 0.5), (0.5, 0.7)])


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


Command = Callable[..., Awaitable[Done]]


@pytest.fixture
async def service() -> Service:
    service = Service()
    service.text = TEXT
    return service


@pytest.fixture
async def command(service: Service, tmp_path: Path) -> AsyncIterator[Command]:
    """Runs a bash command line in a folder with `speech.wav`, where `dalston` is the command of this checkout.

    `dalston transcribe` streams its files.
    """
    (tmp_path / "speech.wav").write_bytes(wav_of(SPEECH))
    async with serving(service) as url:
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(each for each in sys.path if each),
            "XDG_CONFIG_HOME": str(tmp_path),
            "DALSTON_URL": url,
        }

        async def run(line: str, **more: str) -> Done:
            live = line.replace("dalston transcribe", "dalston transcribe --live")
            process = await asyncio.create_subprocess_exec(
                *("bash", "-c", f'dalston() {{ "{sys.executable}" -W error -m dalston.cli.main "$@"; }}; {live}'),
                cwd=tmp_path,
                env=environment | more,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            out, err = await asyncio.wait_for(process.communicate(), 50)
            assert process.returncode is not None
            assert b"Traceback" not in err, err.decode()
            return Done(process.returncode, out.decode(), err.decode())

        yield run


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "cp1252"},
        {"PYTHONIOENCODING": "ascii:strict", "PYTHONUTF8": "0"},
        {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
@pytest.mark.parametrize("options", ["", "--json", "-f json"])
async def test_transcript_is_complete_in_every_locale(
    environment: dict[str, str], options: str, command: Command, service: Service
) -> None:
    done = await command(f"dalston transcribe speech.wav {options}", **environment)
    assert (done.code, TEXT in done.out) == (0, True), done.err
    if "json" in options:
        lines = done.out.splitlines() if options == "--json" else [done.out]
        assert TEXT in json.dumps([json.loads(line) for line in lines], ensure_ascii=False)
    assert service.last.is_completed


@pytest.mark.parametrize("options", ["", "--json"])
async def test_closed_stdout_ends_the_session_without_an_error(
    options: str, command: Command, service: Service
) -> None:
    done = await command(f"dalston transcribe speech.wav {options} | true; exit ${{PIPESTATUS[0]}}")
    assert done.code == 141, done.err
    assert "error" not in done.err
    assert f"session {service.last.id} ended" in done.err
    assert service.last.is_completed


async def test_closed_stderr_is_not_an_error(command: Command, service: Service) -> None:
    done = await command("dalston transcribe speech.wav 2> >(true)")
    assert (done.code, done.out) == (0, f"{TEXT}\n{TEXT}\n")
    assert service.last.is_completed


async def test_standard_streams_may_be_closed(command: Command, service: Service) -> None:
    done = await command("dalston transcribe - <&-")
    assert (done.code, done.err) == (2, "error: standard input is closed: pipe audio into it or name a file\n")
    assert (await command("dalston transcribe speech.wav <&- 2>&-")).out == f"{TEXT}\n{TEXT}\n"
    assert (await command("dalston transcribe speech.wav >&-")).code == 0
    assert (await command("dalston sessions delete sess_00000000000000000000000000000000 <&-")).code == 2
    assert len(service.sessions) == 2


async def test_audio_is_read_from_a_file_a_pipe_or_standard_input(command: Command, service: Service) -> None:
    for line in ("transcribe - <speech.wav", "transcribe <(cat speech.wav)", "transcribe speech.wav"):
        assert (await command(f"dalston {line}")).out == f"{TEXT}\n{TEXT}\n"
    assert (await command("cat speech.wav | dalston transcribe -")).out == f"{TEXT}\n{TEXT}\n"
    assert {bytes(session.audio) for session in service.sessions} == {SPEECH}


async def test_truncated_file_has_a_warning(command: Command) -> None:
    done = await command("head -c 30000 speech.wav >cut.wav; dalston transcribe cut.wav")
    assert (done.code, done.out) == (0, f"{TEXT}\n")
    assert "warning: the file is incomplete: it ends " in done.err


async def test_options_are_sent_in_the_config(command: Command, service: Service, tmp_path: Path) -> None:
    (tmp_path / "terms.txt").write_text("\ufeffNorland Park\n\nDashwood\n", encoding="utf-8")
    options = "--vocabulary 'Dashwood, Marianne' --vocabulary Elinor --vocabulary-file terms.txt --word-timestamps"
    assert (await command(f"dalston transcribe speech.wav {options} -l en -m accurate")).code == 0
    config = service.configs[-1]
    assert list(config.vocabulary) == ["Dashwood", "Marianne", "Elinor", "Norland Park"]
    assert (config.word_timestamps, config.language, config.model) == (True, "en", "accurate")
    assert (await command("dalston transcribe speech.wav --word_timestamps --language=en")).code == 0
    assert (service.configs[-1].word_timestamps, list(service.configs[-1].vocabulary)) == (True, [])


async def test_format_and_json_exclude_each_other(command: Command, service: Service) -> None:
    for format_ in ("srt", "json", "text"):
        done = await command(f"dalston transcribe speech.wav -f {format_} --json")
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert "choose one of them" in done.err
    assert not service.configs


@pytest.mark.parametrize("name", ["text", "txt"])
async def test_text_is_written_to_a_file_or_a_folder(name: str, command: Command, tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    for to, path in (("out.md", "out.md"), ("texts", "texts/speech.txt"), ("new/", "new/speech.txt")):
        done = await command(f"dalston transcribe speech.wav -f {name} -o {to}", PYTHONIOENCODING="cp1252")
        assert (done.code, done.out) == (0, ""), done.err
        assert f"wrote {path}\n" in done.err
        assert (tmp_path / path).read_text(encoding="utf-8") == f"{TEXT}\n{TEXT}\n"
    assert not [name for _, _, names in os.walk(tmp_path) for name in names if name.endswith(".part")]


async def test_each_of_several_files_has_a_transcript(command: Command, service: Service, tmp_path: Path) -> None:
    prepared = "cp speech.wav other.wav; mkdir sub; cp speech.wav sub/speech.wav;"
    done = await command(f"{prepared} dalston transcribe speech.wav other.wav --json -o out")
    assert done.code == 0, done.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["other.jsonl", "speech.jsonl"]
    events = [json.loads(line) for line in (tmp_path / "out" / "other.jsonl").read_text().splitlines()]
    assert {event["file"] for event in events} == {"other.wav"}
    done = await command("dalston transcribe speech.wav other.wav")
    assert done.out == f"{TEXT}\n" * 4
    assert "other.wav (2 of 2)\n" in done.err
    wrong = {
        "speech.wav sub/speech.wav -o elsewhere": "two transcripts would be named speech.wav.txt",
        "speech.wav other.wav -f srt": "name a folder with -o",
        "speech.wav other.wav -o speech.wav": "speech.wav is a file",
        "speech.wav other.wav --json -o out": "use --force to overwrite it",
        "- -": "standard input can be given only once",
    }
    sessions = len(service.sessions)
    for arguments, message in wrong.items():
        done = await command(f"dalston transcribe {arguments}")
        assert (done.code, done.out, message in done.err) == (2, "", True), done.err
    assert len(service.sessions) == sessions
    assert not (tmp_path / "elsewhere").exists()
    assert (await command("cp speech.wav speech.wave; dalston transcribe speech.wav speech.wave -o both")).code == 0
    assert sorted(path.name for path in (tmp_path / "both").iterdir()) == ["speech.wav.txt", "speech.wave.txt"]


async def test_failed_file_sets_the_exit_code_and_others_are_transcribed(command: Command, tmp_path: Path) -> None:
    done = await command("head -c 9000 /dev/urandom >noise.mp3; dalston transcribe noise.mp3 speech.wav -o out")
    assert done.code == 2
    assert "error: noise.mp3: the file is damaged or not in a supported audio format" in done.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["speech.txt"]


async def test_unavailable_service_is_not_called_for_every_file(command: Command, service: Service) -> None:
    service.script = lambda _service, _session, moment: LOST if moment == "config" else None
    done = await command("cp speech.wav other.wav; dalston transcribe speech.wav other.wav")
    assert (done.code, done.err.count("error: ")) == (5, 1)


async def test_incomplete_transcript_keeps_a_part_file_name(command: Command, service: Service, tmp_path: Path) -> None:
    finals = 0

    def script(_service: Service, _session: Recorded | None, moment: str) -> Failure | None:
        nonlocal finals
        finals += moment == "final"
        return Failure(LOST.code.PERMISSION_DENIED, "PERMISSION_DENIED") if finals == 2 else None

    service.script = script
    done = await command("dalston transcribe speech.wav -o out.txt")
    assert done.code == 4, done.err
    assert not (tmp_path / "out.txt").exists()
    assert "the incomplete transcript is in out.txt.part" in done.err
    assert (tmp_path / "out.txt.part").read_text().startswith(TEXT)


async def test_ctrl_c_writes_the_transcript_so_far(command: Command, service: Service, tmp_path: Path) -> None:
    (tmp_path / "long.wav").write_bytes(wav_of(SPEECH * 20))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # A child would inherit an ignored signal.
    try:
        run = '"$PYTHON" -m dalston.cli.main transcribe --realtime -o out long.wav speech.wav'
        done = await command(f"timeout --preserve-status --foreground -s INT 4 {run}", PYTHON=sys.executable)
    finally:
        signal.signal(signal.SIGINT, before)
    assert done.code == 130, done.err
    assert service.last.is_completed
    assert len(service.sessions) == 1
    assert (tmp_path / "out" / "long.txt").exists()
    assert not (tmp_path / "out" / "speech.txt").exists()


@pytest.mark.parametrize("content", ["", "head -c 1000 speech.wav;", "head -c 10 speech.wav;"])
async def test_ctrl_c_does_not_wait_for_blocked_input(content: str, command: Command) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run = '"$PYTHON" -m dalston.cli.main transcribe -'
        line = f"mkfifo pipe; ({content} exec sleep 40) >pipe & timeout --preserve-status -s INT 3 {run}"
        began = time.monotonic()
        done = await command(f"{line} <pipe; code=$?; kill $!; exit $code", PYTHON=sys.executable)
    finally:
        signal.signal(signal.SIGINT, before)
    assert done.code == 130, done.err
    assert time.monotonic() - began < 20
