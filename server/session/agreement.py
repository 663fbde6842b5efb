"""What can be told of an utterance that goes on: LocalAgreement-2. Pure.

A model that hears the beginning of an utterance writes its end wrong, and another end half a second later. What two
tries in a row agree on, from the beginning, is told, and what one of them is certain of: Liu, Spanakis
and Niehues, "Low-latency sequence-to-sequence speech recognition and translation by partial hypothesis selection",
Interspeech 2020; Macháček, Dabre and Bojar, "Turning Whisper into a real-time transcription system", IJCNLP 2023
(`whisper_streaming`).
"""

import re
from collections.abc import Sequence

# Scripts that put no spaces between words: Thai and Lao, Burmese, Khmer, kana and Han.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_UNIT = re.compile(rf"\s*(?:[{_UNSPACED}]|[^\s{_UNSPACED}]+)")
_NO_LETTER = re.compile(r"[\W_]+")
_CLOSING = ".,;:!?…。、\uff01\uff1f"


class Agreement:
    """One utterance's tries so far."""

    def __init__(self) -> None:
        self.text = ""
        """What can be told. Gets no shorter, and changes a word only when two later tries agree on another."""
        self._agreed = 0
        self._last: list[str] = []

    def hear(self, text: str, certain: str = "") -> bool:
        """Takes what the next try, on more audio, gave; whether `text` has changed.

        Args:
            certain: how the text begins, as far as this try alone is believed.
        """
        before, self._last = self._last, _UNIT.findall(text)
        common = max(_common(before, self._last), _common(_UNIT.findall(certain), self._last))
        if not common or common < self._agreed:
            return False
        self._agreed = common
        told, self.text = self.text, self._told(common)
        return self.text != told

    def _told(self, units: int) -> str:
        text = "".join(self._last[:units]).strip()
        # The model takes the end of what it hears for the end of a sentence.
        return text.rstrip(_CLOSING) if units == len(self._last) else text


def _common(before: Sequence[str], now: Sequence[str]) -> int:
    """How many words both begin with, whatever their case and punctuation."""
    for count, (one, other) in enumerate(zip(before, now, strict=False)):
        if _key(one) != _key(other):
            return count
    return min(len(before), len(now))


def _key(unit: str) -> str:
    return _NO_LETTER.sub("", unit).casefold()
