"""What is shown of an utterance that goes on."""

import pytest
from dalston import events
from dalston.cli.live_view import LiveView
from dalston.cli.transcribe import Format, _Printer, _Run


@pytest.mark.parametrize(
    "event", [events.SpeechStarted(9.0), events.Final("word", 1.0, 2.0, 0.9, "en", ())], ids=["the next", "its final"]
)
def test_a_partial_is_shown_until_its_final_or_the_next_utterance(event: events.Event) -> None:
    view, run = LiveView(None), _Run(None, _Printer(Format.text, json=True))
    run._take(events.Partial("words", 1.0, 2.0), view, {})
    assert view._partial == "words"
    run._take(event, view, {})
    assert view._partial == ""
