"""The committed prefix of an utterance in progress: LocalAgreement-2. Pure.

A model that receives only the beginning of an utterance gets its end wrong, and corrects it half a second later. The
words that two passes in a row agree on, from the beginning, are committed, and so are the words that one pass alone is
certain of: Liu, Spanakis and Niehues, "Low-latency sequence-to-sequence speech recognition and translation by partial
hypothesis selection", Interspeech 2020; Macháček, Dabre and Bojar, "Turning Whisper into a real-time transcription
system", IJCNLP 2023 (`whisper_streaming`).
"""

import re
from collections.abc import Sequence

# Scripts that put no spaces between words: Thai and Lao, Burmese, Khmer, kana and Han.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_UNIT = re.compile(rf"\s*(?:[{_UNSPACED}]|[^\s{_UNSPACED}]+)")
_NO_LETTER = re.compile(r"[\W_]+")
_CLOSING = ".,;:!?…。、\uff01\uff1f"


class Agreement:
    """The passes over one utterance."""

    def __init__(self) -> None:
        self.committed = ""
        """The committed prefix. It gets no shorter, and changes a word only when two later passes agree on another."""
        self._committed_units = 0
        self._last_pass: list[str] = []

    def add_pass(self, text: str, certain_prefix: str = "") -> bool:
        """Adds the text of the next pass, over more audio. Returns whether `committed` has changed.

        Args:
            text: the hypothesis.
            certain_prefix: the beginning of the text that counts without the agreement of another pass.
        """
        before, self._last_pass = self._last_pass, _UNIT.findall(text)
        common = max(_common(before, self._last_pass), _common(_UNIT.findall(certain_prefix), self._last_pass))
        if not common or common < self._committed_units:
            return False
        self._committed_units = common
        previous, self.committed = self.committed, self._text_of(common)
        return self.committed != previous

    def _text_of(self, units: int) -> str:
        text = "".join(self._last_pass[:units]).strip()
        # The model takes the end of the audio for the end of a sentence.
        return text.rstrip(_CLOSING) if units == len(self._last_pass) else text


def _common(before: Sequence[str], now: Sequence[str]) -> int:
    """The number of words that both begin with, whatever their case and punctuation."""
    for count, (one, other) in enumerate(zip(before, now, strict=False)):
        if _key(one) != _key(other):
            return count
    return min(len(before), len(now))


def _key(unit: str) -> str:
    return _NO_LETTER.sub("", unit).casefold()
