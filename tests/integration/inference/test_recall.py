"""Clear speech that is lost without a second attempt with the full window, or with only the most probable beam."""

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from numpy.typing import NDArray

from server.inference.scheduling.engine import Engine

CLIPS = Path(__file__).parent / "clips"
RATE = 16_000


def clip(name: str, start: float = 0.0, end: float = 30.0) -> NDArray[np.float32]:
    samples, rate = soundfile.read(CLIPS / name, dtype="float32")
    whole = soxr.resample(samples, rate, RATE).astype(np.float32)
    return whole[int(start * RATE) : int(end * RATE)]


@pytest.mark.parametrize("model", ["fast", "accurate"])
async def test_a_row_of_digits_is_not_lost(model: str, beams: Engine) -> None:
    recognition = await beams.recognize(model, clip("digits.flac", 0.31, 3.88), "en")
    assert re.sub(r"\D", "", recognition.text) == "0000"
    assert recognition.suppressed is None


@pytest.mark.parametrize("model", ["fast", "accurate"])
async def test_a_single_word_is_not_lost(model: str, beams: Engine) -> None:
    recognition = await beams.recognize(model, clip("word.flac"), "en")
    assert recognition.text.casefold().strip(" .") == "second"


async def test_beams_leave_no_sentences_out(beams: Engine) -> None:
    recognition = await beams.recognize("accurate", clip("menu.ogg"), "fr")
    assert recognition.text.startswith("Pour é")
    assert len(recognition.text.split()) >= 50
