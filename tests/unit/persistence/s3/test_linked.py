"""Joining linked sessions, exact to the sample frame."""

import uuid
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import AudioNotStored, SessionActive, TranscriptNotStored
from domain.transcript import TimedWord, Utterance
from persistence.s3.byte_map import ByteMap, ObjectRange
from persistence.s3.keys import audio_key
from persistence.s3.linked import joined_audio, joined_seconds, session_spans
from persistence.session_values import StoredSession
from persistence.transcript_choice import LIVE, join
from persistence.wav import data_bytes
from tests.versions import a_live_version

RATE = 8000


def a_session(frames: int = RATE, resume: float | None = None, **changes: Any) -> StoredSession:
    values: dict[str, Any] = {
        "id": uuid.uuid4(),
        "worker_id": "worker",
        "status": "completed",
        "language": "en",
        "encoding": "mulaw",
        "sample_rate": RATE,
        "channels": 1,
        "store_audio": True,
        "store_transcript": True,
        "audio_uri": "s3://b/a",
        "transcript_uri": "s3://b/t",
        "audio_duration_seconds": frames / RATE,
        "utterance_count": 1,
        "word_count": 1,
        "stored_bytes": frames,
        "processed_seconds": frames / RATE,
        "has_tails": False,
        "recover_after": None,
        "is_deleted": False,
        "resume_from_seconds": resume,
    }
    return StoredSession(**values | changes)


def audio_of(chain: list[StoredSession], numbers: bool = True) -> bytes:
    """The joined audio, where the audio of session n consists of the byte n."""
    objects = {
        audio_key(session.id): bytes(session.wav.header_bytes) + bytes([at]) * session.stored_bytes
        for at, session in enumerate(chain)
    }
    return read(joined_audio(chain), objects)


def read(file: ByteMap, objects: dict[str, bytes]) -> bytes:
    found = []
    for piece in file.pieces:
        if isinstance(piece, ObjectRange):
            found.append(objects[piece.key][piece.first : piece.first + piece.size])
            assert len(found[-1]) == piece.size
        else:
            found.extend(piece.chunks())
    return b"".join(found)


def test_an_earlier_session_ends_where_the_next_begins() -> None:
    chain = [a_session(1000), a_session(500, resume=600 / RATE), a_session(10, resume=100 / RATE)]
    wav = chain[0].wav
    file = audio_of(chain)
    assert file[: wav.header_bytes] == wav.header(710)
    assert data_bytes(file[: wav.header_bytes]) == 710
    assert file[wav.header_bytes :] == b"\0" * 600 + b"\1" * 100 + b"\2" * 10
    assert [span.offset_frames for span in session_spans(chain)] == [0, 600, 700]
    assert joined_seconds(chain) == 710 / RATE


def test_missing_audio_of_an_earlier_session_is_silence() -> None:
    chain = [a_session(100), a_session(10, resume=300 / RATE)]
    audio = audio_of(chain)[chain[0].wav.header_bytes :]
    assert audio == b"\0" * 100 + b"\xff" * 200 + b"\1" * 10


def test_a_session_without_a_resume_point_follows_the_whole_previous_session() -> None:
    assert audio_of([a_session(100), a_session(10)])[-110:] == b"\0" * 100 + b"\1" * 10


def test_an_odd_file_is_padded() -> None:
    chain = [a_session(100), a_session(11)]
    file = audio_of(chain)
    assert file[-2:] == b"\1\0"
    assert len(file) % 2 == 0


def test_stereo_is_divided_between_sample_frames() -> None:
    stereo: dict[str, Any] = {"encoding": "pcm_s16le", "channels": 2, "sample_rate": 44_100}
    chain = [a_session(100, **stereo | {"stored_bytes": 400}), a_session(1, 0.001, **stereo | {"stored_bytes": 4})]
    assert len(audio_of(chain)) == chain[0].wav.header_bytes + 44 * 4 + 4


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 80)), min_size=1, max_size=6), st.data())
def test_any_range_of_a_joined_file_equals_its_slice(shape: list[tuple[int, int]], data: st.DataObject) -> None:
    chain = [a_session(frames, cut / RATE if at else None) for at, (frames, cut) in enumerate(shape)]
    objects = {
        audio_key(session.id): bytes(session.wav.header_bytes) + bytes([at]) * session.stored_bytes
        for at, session in enumerate(chain)
    }
    file = joined_audio(chain)
    whole = read(file, objects)
    assert file.size == len(whole)
    frames = sum(cut for _, cut in shape[1:]) + shape[-1][0]
    assert file.size == chain[0].wav.file_bytes(frames)
    begin = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(begin, len(whole)))
    assert read(file.between(begin, end), objects) == whole[begin:end]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"store_audio": False, "audio_uri": None}, AudioNotStored),
        ({"status": "active", "audio_uri": None}, SessionActive),
        ({"audio_uri": None}, SessionActive),
    ],
)
def test_the_error_names_the_session_without_readable_audio(changes: dict[str, Any], error: type[Exception]) -> None:
    chain = [a_session(), a_session(**changes), a_session()]
    with pytest.raises(error, match=chain[1].session_id):
        joined_audio(chain)


def test_the_error_names_the_session_without_a_transcript() -> None:
    session = a_session(store_transcript=False, transcript_uri=None)
    with pytest.raises(TranscriptNotStored, match=session.session_id):
        session.require_transcript()


def test_audio_of_two_formats_is_not_joined() -> None:
    with pytest.raises(ValueError, match="one audio format"):
        joined_audio([a_session(), a_session(encoding="alaw")])


def test_an_utterance_belongs_to_the_session_that_contains_its_middle() -> None:
    chain = [a_session(RATE * 10), a_session(RATE, resume=6.0)]
    first, second = join(chain, {each.id: [a_live_version(each)] for each in chain}, LIVE).parts
    utterance = Utterance(5.0, 6.9, "hello", 0.5, "en", words=(TimedWord("hello", 5.0, 6.9, 0.5),))
    assert first.includes(utterance)
    assert first.moved(utterance) == utterance
    assert not first.includes(replace(utterance, end=7.0))
    assert second.includes(utterance)
    later = second.moved(replace(utterance, start=0.1, end=0.4))
    assert (later.start, later.end) == (6.1, 6.4)
    assert later.words == (TimedWord("hello", 11.0, 12.9, 0.5),)


def language_of(chain: list[StoredSession]) -> str:
    return join(chain, {each.id: [a_live_version(each)] for each in chain}, LIVE).language


def test_the_joined_language_is_that_of_most_words() -> None:
    chain = [
        a_session(language="es", word_count=3),
        a_session(language="en", word_count=2),
        a_session(language="auto", word_count=0),
    ]
    assert language_of(chain) == "es"
    assert language_of(chain[2:]) == "auto"
