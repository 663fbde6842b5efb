"""The live view of utterances in progress."""

import pytest
from dalston import events
from dalston.cli.format import Format
from dalston.cli.live_view import LiveView
from dalston.cli.run import Run
from dalston.cli.transcript_output import Writer


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
