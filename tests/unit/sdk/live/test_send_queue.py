"""What is kept and what is sent next."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from dalston import AudioOverflow, Warned
from dalston.live.audio_format import AudioFormat
from dalston.live.audio_stream import Source
from dalston.live.retransmission_buffer import RetransmissionBuffer
from dalston.live.send_queue import END, FLUSH, SendQueue
from dalston.live.source_reader import SourceReader
from dalston.microphone import Recording
from dalston.v1.transcription_pb2 import TranscribeControl
from hypothesis import given
from hypothesis import strategies as st

SECOND = 32_000


def language(code: str) -> TranscribeControl:
    return TranscribeControl(set_language=TranscribeControl.SetLanguage(language=code))


def sent(send_queue: SendQueue) -> list[bytes | TranscribeControl]:
    items = []
    while (item := send_queue.next(4)) is not None:
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
    kept, whole = RetransmissionBuffer(), b""
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
    send_queue = SendQueue(AudioFormat(), "en")
    send_queue.take(b"123456")
    send_queue.flush()
    send_queue.set_language("de")
    send_queue.take(b"789")
    send_queue.finish()
    assert sent(send_queue) == [b"1234", b"56", FLUSH, language("de"), b"789", END]


def test_a_new_session_gets_what_is_not_done_yet() -> None:
    send_queue = SendQueue(AudioFormat(), "en")
    send_queue.take(b"12")
    send_queue.set_language("de")
    send_queue.take(b"34")
    send_queue.flush()
    send_queue.flush()
    send_queue.take(b"56")
    sent(send_queue)
    send_queue.answered()
    send_queue.begin(0)
    assert send_queue.language_at(0) == "en"
    assert sent(send_queue) == [b"12", language("de"), b"34", FLUSH, b"56"]
    send_queue.begin(4)
    assert send_queue.language_at(4) == "de"
    assert sent(send_queue) == [FLUSH, b"56"]
    send_queue.release(4)
    assert send_queue.language_at(4) == "de"
    send_queue.answered()
    send_queue.begin(5)
    assert sent(send_queue) == [b"6"]


def test_a_session_that_is_left_is_sent_no_more_and_one_at_its_end_is_not_left() -> None:
    send_queue = SendQueue(AudioFormat(), "en")
    send_queue.take(b"1234")
    send_queue.next(2)
    send_queue.leave()
    assert send_queue.next(2) is END
    assert not send_queue.is_told
    send_queue.begin(2)
    send_queue.finish()
    assert sent(send_queue) == [b"34", END]
    send_queue.leave()
    assert not send_queue.is_leaving
    assert send_queue.is_told


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
    send_queue = SendQueue(AudioFormat(), "en")
    warnings: list[Warned] = []

    async def pieces() -> AsyncIterator[bytes]:
        while True:
            yield bytes(SECOND)
            while send_queue.next(SECOND):
                pass

    async def emit(warned: Warned) -> None:
        warnings.append(warned)

    received = 50 * SECOND
    reader = SourceReader(
        Source(AudioFormat(), pieces(), recorded(0)), send_queue, None, 60 * SECOND, lambda: received, emit
    )
    with pytest.raises(AudioOverflow):
        await reader.run()
    assert [warned.code for warned in warnings] == ["unprotected"]
    assert send_queue.audio.start == received
    assert send_queue.audio.size == 60 * SECOND


async def test_a_source_that_can_wait_does() -> None:
    send_queue = SendQueue(AudioFormat(), "en")
    taken = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal taken
        for _ in range(100):
            taken += 1
            yield bytes(SECOND)

    async def emit(_warned: Warned) -> None:
        raise AssertionError

    reading = asyncio.create_task(
        SourceReader(Source(AudioFormat(), pieces()), send_queue, None, 60 * SECOND, lambda: 0, emit).run()
    )
    await asyncio.sleep(0.05)
    ahead = taken
    assert ahead < 12
    for _ in range(10):
        send_queue.next(SECOND)
    await asyncio.sleep(0.05)
    assert ahead < taken <= ahead + 10
    reading.cancel()
