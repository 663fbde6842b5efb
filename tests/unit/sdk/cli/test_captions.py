from __future__ import annotations

import re

from dalston.cli.captions import Captions
from dalston.events import FinalResult


def final(text: str, start: float = 0.0, end: float = 10.0) -> FinalResult:
    return FinalResult(text, start, end, 0.9, "en")


def test_captions_are_numbered_consecutively() -> None:
    captions = Captions(is_vtt=False)
    written = captions.begin() + captions.push(final("One.", 0.5, 1.25)) + captions.push(final("Two.", 3661, 3662.5))
    assert written == "1\n00:00:00,500 --> 00:00:01,250\nOne.\n\n2\n01:01:01,000 --> 01:01:02,500\nTwo.\n\n"


def test_long_utterance_is_split_into_captions_that_share_its_time() -> None:
    written = Captions(is_vtt=True).push(final("word " * 40))
    cues = re.findall(r"(\S+) --> (\S+)\n((?:.+\n)+)\n", written)
    assert len(cues) > 1
    assert all(len(line) <= 42 for _, _, text in cues for line in text.splitlines())
    assert all(text.count("\n") <= 2 for _, _, text in cues)
    assert [cues[0][0], cues[-1][1]] == ["00:00:00.000", "00:00:10.000"]
    assert [end for _, end, _ in cues[:-1]] == [start for start, _, _ in cues[1:]]


def test_markup_in_text_is_escaped() -> None:
    assert "&lt;b&gt; --&gt; &amp;" in Captions(is_vtt=True).push(final("<b> --> &"))
    assert Captions(is_vtt=False).push(final("<b> a --> b")).count("-->") == 1


def test_empty_utterance_has_no_caption() -> None:
    assert Captions(is_vtt=False).push(final(" \x1b ")) == ""
