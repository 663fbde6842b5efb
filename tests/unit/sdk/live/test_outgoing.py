"""What is kept and what is sent next."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from dalston import AudioOverflow, Warned
from dalston.live.feeder import Feeder
from dalston.live.format import AudioFormat
from dalston.live.kept import KeptAudio
from dalston.live.outgoing import END, FLUSH, Outgoing
from dalston.live.source import Source
from dalston.microphone import Recording
from dalston.v1.transcription_pb2 import TranscribeControl
from hypothesis import given
from hypothesis import strategies as st

SECOND = 32_000


def language(code: str) -> TranscribeControl:
    return TranscribeControl(set_language=TranscribeControl.SetLanguage(language=code))


def sent(outgoing: Outgoing) -> list[bytes | TranscribeControl]:
    items = []
    while (item := outgoing.next(4)) is not None:
        items.append(item)
        if item is END:
            break
    return items


@given(
    steps=st.lists(
        st.one_of(st.binary(max_size=50), st.tuples(st.just("release"), st.integers(0, 300)), st.integers(0, 300)),
        max_size=30,
    )
)
def test_what_is_kept_is_what_came(steps: list[bytes | tuple[str, int] | int]) -> None:
    kept, whole = KeptAudio(), b""
    for step in steps:
        if isinstance(step, bytes):
            kept.append(step)
            whole += step
        elif isinstance(step, tuple):
            before = kept.start
            kept.release(step[1])
            assert kept.start == max(before, min(step[1], len(whole)))
        elif kept.start <= step <= len(whole):
            assert kept.read(step, 20) == whole[step : step + 20]
        else:
            with pytest.raises(ValueError, match="is not between"):
                kept.read(step, 1)
        assert kept.end == len(whole)
        assert kept.size == kept.end - kept.start


def test_instructions_are_sent_at_their_place() -> None:
    outgoing = Outgoing(AudioFormat(), "en")
    outgoing.take(b"123456")
    outgoing.flush()
    outgoing.set_language("de")
    outgoing.take(b"789")
    outgoing.finish()
    assert sent(outgoing) == [b"1234", b"56", FLUSH, language("de"), b"789", END]


def test_a_new_session_gets_what_is_not_done_yet() -> None:
    outgoing = Outgoing(AudioFormat(), "en")
    outgoing.take(b"12")
    outgoing.set_language("de")
    outgoing.take(b"34")
    outgoing.flush()
    outgoing.flush()
    outgoing.take(b"56")
    sent(outgoing)
    outgoing.answered()
    outgoing.begin(0)
    assert outgoing.language_at(0) == "en"
    assert sent(outgoing) == [b"12", language("de"), b"34", FLUSH, b"56"]
    outgoing.begin(4)
    assert outgoing.language_at(4) == "de"
    assert sent(outgoing) == [FLUSH, b"56"]
    outgoing.release(4)
    assert outgoing.language_at(4) == "de"
    outgoing.answered()
    outgoing.begin(5)
    assert sent(outgoing) == [b"6"]


def test_a_session_that_is_left_is_sent_no_more_and_one_at_its_end_is_not_left() -> None:
    outgoing = Outgoing(AudioFormat(), "en")
    outgoing.take(b"1234")
    outgoing.next(2)
    outgoing.leave()
    assert outgoing.next(2) is END
    assert not outgoing.is_told
    outgoing.begin(2)
    outgoing.finish()
    assert sent(outgoing) == [b"34", END]
    outgoing.leave()
    assert not outgoing.is_leaving
    assert outgoing.is_told


def recorded(blocks: int, *, most: int = 1000) -> Recording:
    recording = Recording(most, 2, 16_000)
    for number in range(blocks):
        recording.hear(bytes([number % 250 + 1]) * SECOND, 16_000, None, None)
    return recording


def test_what_a_microphone_says_too_fast_is_silence_and_is_counted() -> None:
    recording = recorded(4, most=2)
    blocks = iter(recording)
    assert next(blocks)[:1] == b"\x01"
    recording.hear(b"\x09" * 2, 1, None, None)
    assert recording.dropped_seconds() == 2.0
    assert recording.dropped_seconds() == 0.0
    recording.close()
    recording.close()
    recording.hear(b"late", 2, None, None)
    assert list(blocks) == [b"\x02" * SECOND, bytes(2 * SECOND) + b"\x09" * 2, b""]


async def test_a_live_source_lets_go_of_what_the_service_has_and_overflows_after_that() -> None:
    outgoing = Outgoing(AudioFormat(), "en")
    warnings: list[Warned] = []

    async def pieces() -> AsyncIterator[bytes]:
        while True:
            yield bytes(SECOND)
            while outgoing.next(SECOND):
                pass

    async def emit(warned: Warned) -> None:
        warnings.append(warned)

    received = 50 * SECOND
    feeder = Feeder(Source(AudioFormat(), pieces(), recorded(0)), outgoing, None, 60 * SECOND, lambda: received, emit)
    with pytest.raises(AudioOverflow):
        await feeder.run()
    assert [warned.code for warned in warnings] == ["unprotected"]
    assert outgoing.audio.start == received
    assert outgoing.audio.size == 60 * SECOND


async def test_a_source_that_can_wait_does() -> None:
    outgoing = Outgoing(AudioFormat(), "en")
    taken = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal taken
        for _ in range(100):
            taken += 1
            yield bytes(SECOND)

    async def emit(_warned: Warned) -> None:
        raise AssertionError

    feeding = asyncio.create_task(
        Feeder(Source(AudioFormat(), pieces()), outgoing, None, 60 * SECOND, lambda: 0, emit).run()
    )
    await asyncio.sleep(0.05)
    ahead = taken
    assert ahead < 12
    for _ in range(10):
        outgoing.next(SECOND)
    await asyncio.sleep(0.05)
    assert ahead < taken <= ahead + 10
    feeding.cancel()
