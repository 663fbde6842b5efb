"""The views of a terminal: utterances in progress, and the progress of files."""

import io
from typing import Any

import pytest
from dalston import FileProgress, events
from dalston.cli.file_view import FileView
from dalston.cli.format import Format
from dalston.cli.live_view import LiveView
from dalston.cli.run import Run
from dalston.cli.transcript_output import Writer
from rich.console import Console


@pytest.mark.parametrize(
    "event",
    [events.SpeechStarted(9.0), events.FinalResult("word", 1.0, 2.0, 0.9, "en", ())],
    ids=["the next", "its final"],
)
def test_partial_is_shown_until_its_final_or_the_next_utterance(event: events.Event) -> None:
    view, run = LiveView(None), Run(Writer(Format.text, json=True))
    run._show(events.PartialResult("words", 1.0, 2.0), view, {})
    assert view._partial == "words"
    run._show(event, view, {})
    assert view._partial == ""


def test_suppressed_speech_is_summarised_once_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    view, run = LiveView(None), Run(Writer(Format.text))
    run._show(events.PartialResult("words", 1.0, 2.0), view, {})
    suppressed = events.Warned("speech_suppressed", "no final", {"start": "1", "end": "2", "reason": "no_speech"})
    for _ in range(3):
        run._show(suppressed, view, {})
    assert view._partial == ""
    assert capsys.readouterr() == ("", "")
    options = {"store_audio": False, "store_transcript": False}
    run._show(events.Ended("sess_0", ("sess_0",), 3.0, ""), view, options)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "text was suppressed 3 times" in shown.err


def test_views_are_shown_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("dalston.cli.output.is_terminal", lambda _stream: True)
    monkeypatch.setenv("TERM", "xterm")
    with LiveView(60.0) as live:
        live.partial("words so far")
        live.processed(30.0)
        assert "0:30 of 1:00" in shown(live._render())
    with FileView("talk.m4a") as view:
        view.show(FileProgress(250, 1000))
        assert "talk.m4a: uploading 25 % of 1.0 kB" in shown(view._render())
    assert capsys.readouterr().out


def shown(renderable: Any) -> str:
    console = Console(file=io.StringIO(), width=100)
    console.print(renderable)
    return str(console.file.getvalue())  # type: ignore[attr-defined]
