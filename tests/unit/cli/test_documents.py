from __future__ import annotations

import json
from datetime import UTC, datetime

from dalston import events
from dalston.cli import documents
from dalston.records import Key, Scope


def test_times_are_rfc_3339_scopes_a_list_and_what_is_unset_is_left_out() -> None:
    made = datetime(2026, 5, 1, 9, 30, tzinfo=UTC)
    key = Key("key_1", "ci", "dk_ab", frozenset({Scope.SESSIONS_READ, Scope.REALTIME}), made)
    assert documents.document(key) == {
        "id": "key_1",
        "name": "ci",
        "prefix": "dk_ab",
        "scopes": ["realtime", "sessions:read"],
        "created_at": "2026-05-01T09:30:00Z",
    }


def test_events_have_the_names_of_the_websocket() -> None:
    final = events.Final("Hello.", 0.5, 1.0, 0.9, "en", (events.Word("Hello.", 0.5, 1.0, 0.8),))
    assert documents.event(final) == {
        "type": "transcript.final",
        "text": "Hello.",
        "start": 0.5,
        "end": 1.0,
        "confidence": 0.9,
        "language": "en",
        "words": [{"word": "Hello.", "start": 0.5, "end": 1.0, "confidence": 0.8}],
    }
    assert documents.event(events.Acknowledged(3.0, 2.0, 1.0)) == {
        "type": "audio.ack",
        "received_seconds": 3.0,
        "processed_seconds": 2.0,
        "stored_seconds": 1.0,
    }
    ended = documents.event(events.Ended("s2", ("s1", "s2"), 4.0, "Hello."))
    assert (ended["type"], ended["total_duration"], ended["transcript"]) == ("session.end", 4.0, "Hello.")


def test_every_event_has_a_name() -> None:
    kinds = events.Event.__args__  # type: ignore[attr-defined]
    assert {kind.__name__ for kind in kinds} == {kind.__name__ for kind in documents._TYPES}


def test_json_of_what_was_said_moves_no_terminal() -> None:
    written = documents.dumps({"text": "\x1b[31m\x9b\u202e"})
    assert written.isascii()
    assert json.loads(written) == {"text": "\x1b[31m\x9b\u202e"}
