"""`make demo`: streams speech, prints the text live, and fetches the stored session as curl would."""

import io
import json
import time
import wave
from itertools import zip_longest
from typing import Any

import httpx
import soundfile
from rich.console import Console
from rich.json import JSON
from rich.markup import escape
from rich.table import Table

from stack.errors import StackError
from stack.live_client import transcribe
from stack.process import Pause
from stack.settings import ROOT
from stack.supervisor import Stack

_SAMPLE = ROOT / "samples" / "sense-and-sensibility.flac"
_STREAM = "/v1/audio/transcriptions/stream?store_audio=true&store_transcript=true&enhance_on_end=true"
_SESSIONS = "/v1/realtime/sessions"
_JOB_SECONDS = 300.0
"""How long the demo waits for the batch job of the sample."""
_LOOK_SECONDS = 1.0


class DemoFailed(StackError):
    """The stack runs, but a result is wrong."""


def demo(stack: Stack, pause: Pause, console: Console) -> None:
    """Streams the sample and fetches what was stored.

    Raises:
        StackError: a step failed, or a result is wrong.
    """
    samples, rate = soundfile.read(_SAMPLE, dtype="int16")
    pcm: bytes = samples.tobytes()

    def watch(seconds: float) -> None:
        stack.check()
        pause(seconds)

    session_id, text = _stream(stack, pcm, rate, watch, console)
    _Walk(stack, session_id, console, watch).through(pcm, rate, text)


def _stream(stack: Stack, pcm: bytes, rate: int, pause: Pause, console: Console) -> tuple[str, str]:
    """Shows the stream; returns the session's id and its text."""
    url = f"ws://{stack.public_name}:{stack.port}{_STREAM}"
    total = len(pcm) / 2 / rate
    console.print(
        f"\nStreaming {_SAMPLE.name} ({total:.0f} s), at the pace it is spoken, to\n  {url}\n",
        highlight=False,
        soft_wrap=True,
    )
    session_id = ""
    finals: list[str] = []
    with console.status("connecting") as status:
        for message in transcribe(f"{stack.ws_url}{_STREAM}", pcm, rate, pause):
            match message["type"]:
                case "session.begin":
                    session_id = message["session_id"]
                    status.update("listening")
                case "vad.speech_start":
                    status.update("speech")
                case "vad.speech_end":
                    status.update("recognising")
                case "transcript.partial":
                    status.update(escape(message["text"]))
                case "transcript.final":
                    finals.append(message["text"])
                    status.update("listening")
                    times = f"{message['start']:5.1f} to {message['end']:4.1f} s"
                    console.print(f"  [dim]{times}[/dim]  {escape(message['text'])}", highlight=False, soft_wrap=True)
                case "warning":
                    console.print(f"  [yellow]{escape(message['message'])}[/yellow]", highlight=False)
    if not finals:
        raise DemoFailed("the stream ended without any text")
    return session_id, " ".join(finals)


class _Walk:
    """The requests of the README, made as curl would make them, and shown with their responses."""

    def __init__(self, stack: Stack, session_id: str, console: Console, pause: Pause) -> None:
        self._pause = pause
        self._stack = stack
        self._url = f"http://{stack.public_name}:{stack.port}{_SESSIONS}"
        self._session_id = session_id
        self._console = console

    def through(self, pcm: bytes, rate: int, text: str) -> None:
        """Makes all of them and compares the responses with what was streamed."""
        self._console.print("\nThe session is stored. The same is seen with curl:")
        listed = self._get("?limit=1")
        self._show(listed.json())
        if [session["id"] for session in listed.json()["sessions"]] != [self._session_id]:
            raise DemoFailed("the newest session of the list is not the one just made")
        self._show(self._get(f"/{self._session_id}").json())
        audio = self._get(f"/{self._session_id}/audio", " -o session.wav")
        with wave.open(io.BytesIO(audio.content)) as wav:
            seconds = wav.getnframes() / wav.getframerate()
            if (wav.getframerate(), wav.readframes(wav.getnframes())) != (rate, pcm):
                raise DemoFailed("the stored audio is not what was streamed")
        self._say(f"  {len(audio.content):,} bytes, {seconds:.1f} s: byte for byte what was sent")
        transcript = self._get(f"/{self._session_id}/transcript?version=1").json()
        self._show(transcript)
        if transcript["text"] != text:
            raise DemoFailed("the stored transcript is not what was shown")
        if any(process.name == "worker" for process in self._stack.processes):
            self._enhanced(transcript)
        self._say(f"\nTo delete it: curl -X DELETE {self._url}/{self._session_id}")

    def _enhanced(self, live: dict[str, Any]) -> None:
        """Waits for the batch job of the session, and shows its transcript beside the live one."""
        self._say("\nThe worker transcribes the recording again, now that all of it is known.")
        job = self._ended_job()
        self._show(self._get(f"/{self._session_id}/enhancement").json())
        if not job.get("ended_at"):
            self._say("The machine is busy, so the job takes longer. It would continue when the stack runs again.")
            return
        if job["status"] != "completed":
            raise DemoFailed(f"the batch job has {job['status']}: {job.get('error', '')}")
        better = self._get(f"/{self._session_id}/transcript?version={job['version']}").json()
        table = Table("version 1: live", f"version {better['version']}: enhanced", expand=True)
        for row in zip_longest(live["utterances"], better["utterances"]):
            table.add_row(*(escape(each["text"]) if each else "" for each in row))
        self._console.print(table)
        if not better["text"]:
            raise DemoFailed("the enhanced transcript is empty")

    def _ended_job(self) -> dict[str, Any]:
        """The job as it ended, or as it is after the longest time."""
        deadline = time.monotonic() + _JOB_SECONDS
        with self._console.status("waiting for the worker") as status:
            while True:
                job: dict[str, Any] = self._answer(f"/{self._session_id}/enhancement", self._url).json()
                if job.get("ended_at") or time.monotonic() > deadline:
                    return job
                status.update(f"{job['step']}, {job['progress']:.0%}")
                self._pause(_LOOK_SECONDS)

    def _get(self, path: str, more: str = "") -> httpx.Response:
        url = f"{self._url}{path}"
        self._console.print(f"\n[bold]$ curl {_quoted(url)}{more}[/bold]", highlight=False, soft_wrap=True)
        return self._answer(path, url)

    def _answer(self, path: str, url: str) -> httpx.Response:
        try:
            # A proxy of the environment is not for this machine.
            answer = httpx.get(f"{self._stack.base_url}{_SESSIONS}{path}", timeout=30, trust_env=False)
        except httpx.TransportError as error:
            raise DemoFailed(f"no answer from {url}: {error}") from error
        if answer.status_code != httpx.codes.OK:
            raise DemoFailed(f"{url} answered {answer.status_code}: {answer.text}")
        return answer

    def _show(self, answer: Any) -> None:
        self._console.print(JSON(json.dumps(answer), indent=2), soft_wrap=True)

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False, soft_wrap=True)


def _quoted(url: str) -> str:
    return f'"{url}"' if "?" in url else url
