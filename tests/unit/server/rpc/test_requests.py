import asyncio
from collections.abc import AsyncIterator

import pytest
from dalston.v1.transcription_pb2 import TranscribeConfig, TranscribeControl, TranscribeRequest

from domain.audio_message import MAX_AUDIO_MESSAGE_BYTES, AudioFault, Checked
from server.audio.format import AudioFormat
from server.rpc.requests import Request, RequestStream, StreamLimits
from server.session.errors import IdleTimeout, InvalidAudio, InvalidMessage, MessageTooBig, SessionTimeout

CONFIG = TranscribeRequest(config=TranscribeConfig())
AUDIO = TranscribeRequest(audio=b"ab")
END = TranscribeRequest(control=TranscribeControl(end=TranscribeControl.End()))
LIMITS = StreamLimits(max_session_seconds=10, idle_timeout_seconds=10)


async def stream(*requests: Request, pause: float = 0) -> AsyncIterator[Request]:
    for request in requests:
        await asyncio.sleep(pause)
        yield request


async def read(*requests: Request, limits: StreamLimits = LIMITS, pause: float = 0) -> list[object]:
    reader = RequestStream(stream(*requests, pause=pause), limits)
    await reader.read_config()
    return [item async for item in reader.read(AudioFormat())]


async def test_audio_follows_config_until_end() -> None:
    assert await read(CONFIG, AUDIO, END, AUDIO) == [b"ab"]


async def test_half_close_ends_like_end() -> None:
    assert await read(CONFIG, AUDIO) == [b"ab"]


@pytest.mark.parametrize("first", [[], [AUDIO], [END], [TranscribeRequest()]])
async def test_a_first_message_other_than_config_is_refused(first: list[TranscribeRequest]) -> None:
    with pytest.raises(InvalidMessage, match="config"):
        await read(*first)


async def test_a_second_config_is_refused() -> None:
    with pytest.raises(InvalidMessage, match="only once"):
        await read(CONFIG, CONFIG)


async def test_an_empty_message_is_refused() -> None:
    with pytest.raises(InvalidMessage, match="without"):
        await read(CONFIG, TranscribeRequest())


async def test_audio_over_the_limit_is_refused_and_at_the_limit_is_not() -> None:
    at_limit = b"x" * MAX_AUDIO_MESSAGE_BYTES
    assert await read(CONFIG, TranscribeRequest(audio=at_limit)) == [at_limit]
    with pytest.raises(MessageTooBig):
        await read(CONFIG, TranscribeRequest(audio=at_limit + b"x"))


async def test_audio_that_ends_inside_of_a_frame_is_refused() -> None:
    with pytest.raises(InvalidAudio, match="2-byte frames"):
        await read(CONFIG, TranscribeRequest(audio=b"odd"))


async def test_the_result_of_an_earlier_check_is_used() -> None:
    odd, even = TranscribeRequest(audio=b"odd"), TranscribeRequest(audio=b"even")
    assert await read(Checked(CONFIG), Checked(odd)) == [b"odd"]
    with pytest.raises(InvalidAudio):
        await read(Checked(CONFIG), Checked(even, AudioFault.PARTIAL_FRAME))
    with pytest.raises(MessageTooBig):
        await read(Checked(CONFIG), Checked(even, AudioFault.TOO_BIG))


async def test_a_silent_client_times_out() -> None:
    with pytest.raises(IdleTimeout):
        await read(CONFIG, AUDIO, pause=0.1, limits=StreamLimits(10, 0.05))


async def test_a_session_ends_at_its_limit() -> None:
    with pytest.raises(SessionTimeout):
        await read(CONFIG, *[AUDIO] * 50, pause=0.01, limits=StreamLimits(0.1, 10))


async def test_requests_received_before_the_deadline_are_read_after_it() -> None:
    async def received() -> AsyncIterator[TranscribeRequest]:
        for request in (CONFIG, AUDIO, AUDIO, AUDIO):
            yield request
        await asyncio.sleep(60)

    reader = RequestStream(received(), StreamLimits(0.05, 10))
    await reader.read_config()
    received_audio = []
    with pytest.raises(SessionTimeout):
        async for audio in reader.read(AudioFormat()):
            received_audio.append(audio)
            await asyncio.sleep(0.1)
    assert len(received_audio) == 3


async def test_a_stream_without_pauses_ends_at_its_limit() -> None:
    async def endless() -> AsyncIterator[TranscribeRequest]:
        yield CONFIG
        while True:
            yield AUDIO
            await asyncio.sleep(0)

    reader = RequestStream(endless(), StreamLimits(0.1, 10))
    await reader.read_config()
    with pytest.raises(SessionTimeout):
        async for _ in reader.read(AudioFormat()):
            pass
