"""The send queue, the retransmission buffer and the source reader."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from dalston import AudioOverflow, Warned
from dalston.live.audio_format import AudioFormat
from dalston.live.audio_stream import AudioStream
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
    while (item := send_queue.next_item(4)) is not None:
        items.append(item)
        if item is END:
            break
    return items


@given(
    steps=st.lists(
        st.one_of(st.binary(max_size=50), st.tuples(st.just("discard"), st.integers(0, 300)), st.integers(0, 300)),
        max_size=30,
    )
)
def test_buffer_contains_the_appended_audio(steps: list[bytes | tuple[str, int] | int]) -> None:
    buffer, whole = RetransmissionBuffer(), b""
    for step in steps:
        if isinstance(step, bytes):
            buffer.append(step)
            whole += step
        elif isinstance(step, tuple):
            before = buffer.start
            buffer.discard_before(step[1])
            assert buffer.start == max(before, min(step[1], len(whole)))
        elif buffer.start <= step <= len(whole):
            assert buffer.read(step, 20) == whole[step : step + 20]
        else:
            with pytest.raises(ValueError, match="is not between"):
                buffer.read(step, 1)
        assert buffer.end == len(whole)
        assert buffer.size == buffer.end - buffer.start


def test_controls_are_sent_at_their_position() -> None:
    send_queue = SendQueue(AudioFormat(), "en")
    send_queue.append_audio(b"123456")
    send_queue.flush()
    send_queue.set_language("de")
    send_queue.append_audio(b"789")
    send_queue.finish()
    assert sent(send_queue) == [b"1234", b"56", FLUSH, language("de"), b"789", END]


def test_new_session_receives_pending_items() -> None:
    send_queue = SendQueue(AudioFormat(), "en")
    send_queue.append_audio(b"12")
    send_queue.set_language("de")
    send_queue.append_audio(b"34")
    send_queue.flush()
    send_queue.flush()
    send_queue.append_audio(b"56")
    sent(send_queue)
    send_queue.flush_answered()
    send_queue.begin_session(0)
    assert send_queue.language_at(0) == "en"
    assert sent(send_queue) == [b"12", language("de"), b"34", FLUSH, b"56"]
    send_queue.begin_session(4)
    assert send_queue.language_at(4) == "de"
    assert sent(send_queue) == [FLUSH, b"56"]
    send_queue.discard_before(4)
    assert send_queue.language_at(4) == "de"
    send_queue.flush_answered()
    send_queue.begin_session(5)
    assert sent(send_queue) == [b"6"]


def test_handover_ends_the_current_session_unless_its_end_was_sent() -> None:
    send_queue = SendQueue(AudioFormat(), "en")
    send_queue.append_audio(b"1234")
    send_queue.next_item(2)
    send_queue.hand_over()
    assert send_queue.next_item(2) is END
    assert not send_queue.is_delivered
    send_queue.begin_session(2)
    send_queue.finish()
    assert sent(send_queue) == [b"34", END]
    send_queue.hand_over()
    assert not send_queue.is_handing_over
    assert send_queue.is_delivered


def recorded(blocks: int, *, most: int = 1000) -> Recording:
    recording = Recording(most, 2, 16_000)
    for number in range(blocks):
        recording.append_block(bytes([number % 250 + 1]) * SECOND, 16_000, None, None)
    return recording


def test_dropped_microphone_audio_is_replaced_by_silence_and_counted() -> None:
    recording = recorded(4, most=2)
    blocks = iter(recording)
    assert next(blocks)[:1] == b"\x01"
    recording.append_block(b"\x09" * 2, 1, None, None)
    assert recording.dropped_seconds() == 2.0
    assert recording.dropped_seconds() == 0.0
    recording.close()
    recording.close()
    recording.append_block(b"late", 2, None, None)
    assert list(blocks) == [b"\x02" * SECOND, bytes(2 * SECOND) + b"\x09" * 2, b""]


async def test_live_source_discards_received_audio_before_it_overflows() -> None:
    send_queue = SendQueue(AudioFormat(), "en")
    warnings: list[Warned] = []

    async def pieces() -> AsyncIterator[bytes]:
        while True:
            yield bytes(SECOND)
            while send_queue.next_item(SECOND):
                pass

    async def emit(warned: Warned) -> None:
        warnings.append(warned)

    received = 50 * SECOND
    reader = SourceReader(
        AudioStream(AudioFormat(), pieces(), recorded(0)), send_queue, None, 60 * SECOND, lambda: received, emit
    )
    with pytest.raises(AudioOverflow):
        await reader.run()
    assert [warned.code for warned in warnings] == ["unprotected"]
    assert send_queue.audio.start == received
    assert send_queue.audio.size == 60 * SECOND


async def test_source_that_can_wait_is_paused() -> None:
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
        SourceReader(AudioStream(AudioFormat(), pieces()), send_queue, None, 60 * SECOND, lambda: 0, emit).run()
    )
    await asyncio.sleep(0.05)
    read_ahead = taken
    assert read_ahead < 12
    for _ in range(10):
        send_queue.next_item(SECOND)
    await asyncio.sleep(0.05)
    assert read_ahead < taken <= read_ahead + 10
    reading.cancel()
