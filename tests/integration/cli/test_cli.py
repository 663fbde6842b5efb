"""The command against the running stack."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from domain.session_id import parse_session_id
from domain.transcript import Utterance
from stack.ports import free_port
from stack.settings import ROOT
from stack.supervisor import Stack
from tests.integration.cli.conftest import SECONDS, Run, environment, runner
from tests.versions import versions_of

pytestmark = pytest.mark.timeout(120)
SESSIONS = "/v1/realtime/sessions"
UNKNOWN_ID = "sess_" + "0" * 32


@pytest.fixture(scope="module")
def env(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return environment(tmp_path_factory.mktemp("home"), stack.base_url)


@pytest.fixture(scope="module")
def dalston(env: dict[str, str], folder: Path) -> Run:
    return runner(env, folder)


@pytest.fixture(scope="module")
def transcribed(dalston: Run) -> subprocess.CompletedProcess[str]:
    return dalston("transcribe", "speech.wav", "--store")


@pytest.fixture(scope="module")
def session_id(transcribed: subprocess.CompletedProcess[str]) -> str:
    """The id of a stored session."""
    (found,) = re.findall(r"^session (sess_[0-9a-f]{32})$", transcribed.stderr, re.MULTILINE)
    return str(found)


@pytest.fixture(scope="module")
def http(stack: Stack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=stack.base_url) as client:
        yield client


def test_stdout_contains_only_the_transcript(transcribed: subprocess.CompletedProcess[str], session_id: str) -> None:
    assert transcribed.returncode == 0, transcribed.stderr
    assert "Dashwood" in transcribed.stdout
    assert "sess_" not in transcribed.stdout
    assert f"session {session_id} ended: {SECONDS}.0 s of audio, stored: audio and transcript" in transcribed.stderr
    assert "\x1b" not in transcribed.stdout + transcribed.stderr


def test_json_of_sessions_equals_the_rest_api(dalston: Run, session_id: str, http: httpx.Client) -> None:
    shown = dalston("sessions", "get", session_id, "--json", "--utterances")
    content = json.loads(shown.stdout)
    utterances = content.pop("utterances")
    assert content == http.get(f"{SESSIONS}/{session_id}").json()
    assert utterances[0]["index"] == 0
    listed = json.loads(dalston("sessions", "list", "--json", "--status", "completed", "--since", "1h").stdout)
    assert content in listed["sessions"]
    assert listed["pagination"]["total"] >= 1


def test_piped_lists_are_lines_without_colours(dalston: Run, session_id: str) -> None:
    listed = dalston("sessions", "list", "--all", FORCE_COLOR="1")
    assert session_id in [row.split("\t")[0] for row in listed.stdout.splitlines()]
    assert "\x1b" not in listed.stdout
    assert session_id in dalston("sessions", "get", session_id).stdout


def test_list_continues_at_its_cursor(dalston: Run, session_id: str) -> None:
    assert dalston("transcribe", "-", "--encoding", "pcm_s16le", stdin="\0" * 3200).returncode == 0
    everything = dalston("sessions", "list", "--all").stdout.splitlines()
    first = dalston("sessions", "list", "--limit", "1")
    (cursor,) = re.findall(r"--cursor (\S+)", first.stderr)
    second = dalston("sessions", "list", "--limit", "1", "--cursor", cursor)
    assert [*first.stdout.splitlines(), *second.stdout.splitlines()] == everything[:2]


def test_export_equals_the_rest_api(dalston: Run, session_id: str, http: httpx.Client, tmp_path: Path) -> None:
    target = tmp_path / "session.srt"
    assert dalston("sessions", "export", session_id, "--format", "srt", "--linked", "-o", str(target)).returncode == 0
    assert target.read_text() == http.get(f"{SESSIONS}/{session_id}/export/srt?linked=true").text
    assert dalston("sessions", "export", session_id, "--format", "srt").stdout == target.read_text()
    assert dalston("sessions", "export", session_id, "-o", str(target)).returncode == 2


def test_download_is_byte_exact_and_resumes(
    dalston: Run, session_id: str, http: httpx.Client, tmp_path: Path, folder: Path
) -> None:
    recording = http.get(f"{SESSIONS}/{session_id}/audio").content
    assert (folder / "speech.raw").read_bytes() in recording
    target = tmp_path / "session.wav"
    marked = b"\xff" * 1000  # Bytes of the part file are not downloaded again.
    (tmp_path / f".session.wav.{session_id}.alone.{len(recording)}.part").write_bytes(marked)
    done = dalston("sessions", "download", session_id, "--audio", "-o", str(target))
    assert done.returncode == 0, done.stderr
    assert target.read_bytes() == marked + recording[1000:]
    (tmp_path / f".session.wav.{session_id}.alone.{len(recording) + 2}.part").write_bytes(marked)
    assert dalston("sessions", "download", session_id, "-o", str(target), "--force").returncode == 0
    assert target.read_bytes() == recording
    assert [path.name for path in tmp_path.iterdir()] == ["session.wav"]
    assert (
        json.loads(dalston("sessions", "download", session_id, "--transcript", "-o", "-").stdout)["session_id"]
        == session_id
    )


def test_versions_of_a_transcript_are_listed_read_chosen_and_deleted(
    dalston: Run, session_id: str, stack: Stack, http: httpx.Client
) -> None:
    async def plant() -> None:
        async with versions_of(stack) as writer:
            better = [Utterance(0.5, 3.0, "Better words.", 0.9, "en")]
            await writer.version(parse_session_id(session_id), 2, better)
            await writer.version(parse_session_id(session_id), 3, better, verdict="doubtful", is_current=False)

    live = dalston("sessions", "export", session_id).stdout
    asyncio.run(plant())
    listed = [line.split("\t") for line in dalston("sessions", "transcripts", session_id).stdout.splitlines()]
    assert [(line[0], line[1], line[2], line[7]) for line in listed] == [
        ("1", "-", "live", "accepted"),
        ("2", "yes", "enhanced", "accepted"),
        ("3", "-", "enhanced", "doubtful"),
    ]
    assert dalston("sessions", "export", session_id).stdout == "Better words.\n"
    assert dalston("sessions", "export", session_id, "--version", "1").stdout == live
    downloaded = json.loads(
        dalston("sessions", "download", session_id, "--transcript", "--version", "3", "-o", "-").stdout
    )
    assert downloaded["version"] == 3
    chosen = json.loads(dalston("sessions", "transcripts", session_id, "--use", "1", "--json").stdout)
    assert chosen == http.get(f"{SESSIONS}/{session_id}/transcripts").json()
    assert dalston("sessions", "export", session_id).stdout == live
    assert dalston("sessions", "transcripts", session_id, "--delete", "2").returncode == 2
    for version in ("2", "3"):
        deleted = dalston("sessions", "transcripts", session_id, "--delete", version, "--yes")
        assert deleted.returncode == 0, deleted.stderr
    assert [line[0] for line in deleted.stdout.splitlines()] == ["1"]
    refused = dalston("sessions", "transcripts", session_id, "--delete", "1", "--yes")
    assert (refused.returncode != 0, "version 1 is deleted together with its session" in refused.stderr) == (True, True)
    assert dalston("sessions", "download", session_id, "--version", "1").returncode == 2
    assert dalston("sessions", "transcripts", session_id, "--use", "1", "--delete", "2").returncode == 2


def test_session_without_stored_objects_has_nothing_to_download(dalston: Run, tmp_path: Path) -> None:
    done = dalston("transcribe", "-", "--encoding", "pcm_s16le", "--json", stdin="\0" * 3200)
    session_id = json.loads(done.stdout.splitlines()[0])["session_id"]
    for what in ("--audio", "--transcript"):
        refused = dalston("sessions", "download", session_id, what, "-o", str(tmp_path))
        assert (refused.returncode, refused.stderr.count("\n")) == (3, 1)
        assert "stored no" in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_sample_recording_is_transcribed_without_conversion(dalston: Run, tmp_path: Path) -> None:
    sample = ROOT / "samples" / "sense-and-sensibility.flac"
    done = dalston("transcribe", str(sample), "-l", "en", "-f", "json", "--word-timestamps", "-o", f"{tmp_path}/")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    content = json.loads((tmp_path / "sense-and-sensibility.json").read_text())
    assert "Dashwood" in content["text"]
    words = [word["word"] for utterance in content["utterances"] for word in utterance["words"]]
    assert " ".join(words) == content["text"]


def test_failed_file_does_not_stop_the_others(dalston: Run, folder: Path, tmp_path: Path) -> None:
    (folder / "noise.mp3").write_bytes(os.urandom(20_000))
    done = dalston("transcribe", "speech.wav", "noise.mp3", "speech.raw.wav", "--output_format", "txt", "-o", "texts")
    assert (done.returncode, done.stderr) == (2, "error: the file speech.raw.wav does not exist\n")
    command = ("transcribe", "noise.mp3", "speech.wav", "--output_format", "txt", "--output_dir", str(tmp_path / "new"))
    done = dalston(*command)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert "error: noise.mp3: the file is damaged or not in a supported audio format" in done.stderr
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["speech.txt"]
    assert "Dashwood" in (tmp_path / "new" / "speech.txt").read_text()
    again = dalston(*command)
    assert (again.returncode, "use --force to overwrite it" in again.stderr) == (2, True)


def test_closed_stdout_ends_the_session_as_completed(env: dict[str, str], folder: Path, http: httpx.Client) -> None:
    command = "dalston transcribe speech.wav --store --json --realtime | head -n 1; exit ${PIPESTATUS[0]}"
    done = subprocess.run(
        ["bash", "-c", command], env=env, cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    begin = json.loads(done.stdout)
    assert done.returncode == 141, done.stderr
    assert "Traceback" not in done.stderr
    assert f"session {begin['session_id']} ended" in done.stderr
    assert http.get(f"{SESSIONS}/{begin['session_id']}").json()["status"] == "completed"


def test_json_events_equal_the_websocket_api(dalston: Run) -> None:
    done = dalston("transcribe", "speech.wav", "--json", "-l", "en")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    begin, end = events[0], events[-1]
    assert set(begin) == {"type", "session_id", "config", "limits"}
    assert begin["config"] == {
        "sample_rate": 16000, "encoding": "pcm_s16le", "channels": 1, "language": "en", "model": "fast"
    }  # fmt: skip
    assert set(begin["limits"]) == {"max_session_seconds", "idle_timeout_seconds", "max_message_bytes"}
    finals = [event for event in events if event["type"] == "transcript.final"]
    assert end["segments"] == [{name: final[name] for name in ("start", "end", "text")} for final in finals]
    assert end["total_speech_duration"] == pytest.approx(sum(s["end"] - s["start"] for s in end["segments"]), abs=1)
    assert end["transcript"] == " ".join(final["text"] for final in finals)


def test_process_substitution_is_transcribed(env: dict[str, str], folder: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", "dalston transcribe <(cat speech.wav)"],
        env=env,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Dashwood" in done.stdout


def test_ctrl_c_ends_a_watch_silently(env: dict[str, str], folder: Path, session_id: str) -> None:
    with subprocess.Popen(
        ["dalston", "sessions", "watch", "--json"],
        env=env,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        while (change := json.loads(process.stdout.readline()))["type"] != "ready":
            assert change["type"] == "snapshot"
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
    assert (process.returncode, stderr) == (130, "")


def test_ctrl_c_aborts_the_confirmation(env: dict[str, str], folder: Path, session_id: str, http: httpx.Client) -> None:
    code, seen = on_terminal(env, folder, "sessions", "delete", session_id, answer=b"\x03")
    assert code == 130
    assert "Traceback" not in seen
    assert http.get(f"{SESSIONS}/{session_id}").status_code == 200


def test_ctrl_c_completes_the_session_and_reports_stored_objects(env: dict[str, str], folder: Path) -> None:
    command = ["dalston", "transcribe", "speech.wav", "--realtime", "--store"]
    with subprocess.Popen(
        command, env=env, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        session_id = process.stderr.readline().split()[-1]
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert re.search(rf"session {session_id} ended: \d\.\d s of audio, stored: audio and transcript", stderr)


def test_second_ctrl_c_exits_immediately(env: dict[str, str], folder: Path) -> None:
    command = ["dalston", "transcribe", "speech.wav", "--realtime"]
    with subprocess.Popen(
        command, env=env, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        session_id = process.stderr.readline().split()[-1]
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    # The session is `interrupted`, or `completed` if it ended first; the message claims neither.
    assert stderr == f"exited before session {session_id} had ended\n"


def test_terminal_shows_a_live_view_and_confirms_deletion(
    env: dict[str, str], folder: Path, http: httpx.Client
) -> None:
    code, seen = on_terminal(env, folder, "transcribe", "speech.wav", "--store-transcript")
    assert code == 0
    assert "\x1b[" in seen
    assert "consider how much there might be prudently in his power to do for them.\r\n" in seen
    session_id = re.findall(r"sess_[0-9a-f]{32}", seen)[0]
    code, seen = on_terminal(env, folder, "sessions", "delete", session_id, answer=b"n\n")
    assert (code, "Permanently delete" in seen) == (1, True)
    assert http.get(f"{SESSIONS}/{session_id}").status_code == 200
    code, _ = on_terminal(env, folder, "sessions", "delete", session_id, answer=b"y\n")
    assert code == 0
    assert http.get(f"{SESSIONS}/{session_id}").status_code == 404


def on_terminal(env: dict[str, str], folder: Path, *arguments: str, answer: bytes = b"") -> tuple[int, str]:
    """Runs the command on a terminal. Returns its exit code and the output."""
    inside, outside = pty.openpty()
    seen, deadline = b"", time.monotonic() + 60
    with subprocess.Popen(
        # In a session of its own on that terminal. `preexec_fn` would fork a process with threads of gRPC.
        ["setsid", "--ctty", "dalston", *arguments],
        env=env | {"TERM": "xterm"},
        cwd=folder,
        stdin=outside,
        stdout=outside,
        stderr=outside,
    ) as process:
        os.close(outside)
        while time.monotonic() < deadline:
            if not select.select([inside], [], [], 0.5)[0]:
                continue
            try:
                seen += os.read(inside, 65536)
            except OSError:  # The other end is closed.
                break
            if answer and b"[y/N]" in seen:
                os.write(inside, answer)
                answer = b""
    os.close(inside)
    return process.returncode, seen.decode(errors="replace")


def test_deletion_without_a_terminal_requires_yes(dalston: Run, http: httpx.Client) -> None:
    done = dalston("transcribe", "-", "--encoding", "pcm_s16le", "--json", "--store", stdin="\0" * 3200)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [events[0]["type"], events[-1]["type"]] == ["session.begin", "session.end"]
    session_id = events[0]["session_id"]
    refused = dalston("sessions", "delete", session_id)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    deleted = dalston("sessions", "delete", UNKNOWN_ID, session_id, "--yes")
    assert (deleted.returncode, deleted.stdout) == (3, f"deleted {session_id}\n")
    assert http.get(f"{SESSIONS}/{session_id}").status_code == 404


def test_live_session_is_ended_by_another_command(env: dict[str, str], folder: Path, dalston: Run) -> None:
    command = ["dalston", "transcribe", "speech.wav", "--realtime", "--store"]
    with subprocess.Popen(
        command, env=env, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        session_id = process.stderr.readline().split()[-1]
        ending = dalston("sessions", "end", session_id, UNKNOWN_ID)
        assert (ending.returncode, ending.stdout) == (3, f"ending {session_id}\n")
        assert ending.stderr == f"error: {UNKNOWN_ID}: session {UNKNOWN_ID} was not found\n"
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "ended on request" in stderr
    again = dalston("sessions", "end", session_id)
    assert (again.returncode, again.stdout) == (0, f"{session_id} has already ended: interrupted\n")
    assert json.loads(dalston("sessions", "end", session_id, "--json").stdout)["status"] == "interrupted"


def test_error_is_one_line_with_an_exit_code(dalston: Run, folder: Path) -> None:
    (folder / "broken.flac").write_bytes(b"fLaC")
    wrong = {
        ("sessions", "get", UNKNOWN_ID): 3,
        ("sessions", "get", "nonsense"): 2,
        ("sessions", "list", "--no-such"): 2,
        ("sessions", "list", "--since", "yesterday"): 2,
        ("--profile", "nobody", "sessions", "list"): 2,
        ("--url", "ftp://somewhere", "status"): 2,
        ("transcribe", "no-such.wav"): 2,
        ("transcribe", "broken.flac"): 2,
        ("transcribe", "speech.wav", "--json", "-f", "srt"): 2,
        ("transcribe", "speech.wav", "--vocabulary-file", "no-such.txt"): 2,
        ("transcribe", "."): 2,
        ("transcribe", "speech.wav", "--model", "none-such"): 2,
        ("keys", "list"): 1,
    }
    for arguments, code in wrong.items():
        done = dalston(*arguments)
        assert (done.returncode, done.stderr.count("\n")) == (code, 1), (arguments, done.stderr)
        assert done.stderr.startswith("error: ")
        assert done.stdout == ""


def test_unavailable_service_is_reported_within_seconds(dalston: Run) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    began = time.monotonic()
    for arguments in (("sessions", "list"), ("transcribe", "speech.wav")):
        done = dalston("--url", away, *arguments)
        assert (done.returncode, done.stderr.count("\n")) == (5, 1), done.stderr
    status = dalston("--url", away, "status", "--json")
    assert (status.returncode, json.loads(status.stdout)["healthy"]) == (1, False)
    assert time.monotonic() - began < 20


def test_status_lists_the_interfaces(dalston: Run) -> None:
    done = dalston("status", "--json")
    content = json.loads(done.stdout)
    assert done.returncode == 0, done.stdout
    assert {each["name"]: each["open"] for each in content["interfaces"]} == {
        "grpc": True,
        "rest": True,
        "websocket": True,
    }
    assert (content["healthy"], content["version"]) == (True, "0.1.0")


def test_status_shows_servers_and_workers(dalston: Run) -> None:
    status = json.loads(dalston("status", "--json").stdout)["status"]
    assert status["view"] == "deployment"
    server = next(each for each in status["processes"] if each["id"] == status["answered_by"])
    assert (server["kind"], server["state"], server["lease_valid"]) == ("server", "ready", True)
    shown = dalston("status").stdout
    assert "active sessions:" in shown
    assert f"{server['id']}\tserver\tready\t" in shown
