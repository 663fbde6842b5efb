"""The rule for the audio of one message."""

import pytest

from domain.audio_message import MAX_AUDIO_MESSAGE_BYTES, AudioFault, check_audio


@pytest.mark.parametrize(
    ("size", "frame_bytes", "fault"),
    [
        (0, 2, None),
        (2, 2, None),
        (3, 2, AudioFault.PARTIAL_FRAME),
        (4, 8, AudioFault.PARTIAL_FRAME),
        (MAX_AUDIO_MESSAGE_BYTES, 1, None),
        (MAX_AUDIO_MESSAGE_BYTES, 8, None),
        (MAX_AUDIO_MESSAGE_BYTES + 1, 1, AudioFault.TOO_BIG),
        (MAX_AUDIO_MESSAGE_BYTES + 1, 2, AudioFault.TOO_BIG),
    ],
)
def test_audio_is_whole_frames_and_at_most_the_limit(size: int, frame_bytes: int, fault: AudioFault | None) -> None:
    assert check_audio(size, frame_bytes) is fault
