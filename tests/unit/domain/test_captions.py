from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.captions import Caption, Captioner, CaptionOptions
from domain.transcript import TimedWord, Utterance


def captions(*utterances: Utterance, length: int = 42, lines: int = 2) -> list[Caption]:
    captioner = Captioner(CaptionOptions(length, lines))
    return [caption for utterance in utterances for caption in captioner.push(utterance)] + list(captioner.finish())


def final_of(text: str, start: float = 0.0, end: float = 5.0, words: tuple[TimedWord, ...] = ()) -> Utterance:
    return Utterance(start, end, text, 0.9, "en", words=words)


def timed(text: str, *times: tuple[float, float]) -> Utterance:
    words = tuple(TimedWord(word, *time, 0.9) for word, time in zip(text.split(), times, strict=True))
    return final_of(text, times[0][0], times[-1][1], words)


def test_a_short_utterance_is_one_caption_with_its_times() -> None:
    assert captions(final_of("Hello world.", 1.25, 3.5)) == [Caption(1250, 3500, ("Hello world.",))]


def test_two_lines_are_of_about_one_length() -> None:
    text = "The family of Dashwood had long been settled in Sussex."
    assert captions(final_of(text)) == [
        Caption(0, 5000, ("The family of Dashwood had", "long been settled in Sussex.")),
    ]


def test_a_long_utterance_is_several_captions_timed_by_its_characters() -> None:
    found = captions(final_of("aaaa bbbb cccc dddd", 10.0, 14.0), length=10, lines=1)
    assert [caption.lines for caption in found] == [("aaaa bbbb",), ("cccc dddd",)]
    assert [(caption.start_ms, caption.end_ms) for caption in found] == [(10_000, 12_000), (12_000, 14_000)]


def test_captions_take_the_times_of_their_words() -> None:
    utterance = timed("aaaa bbbb cccc dddd", (0.0, 0.5), (0.5, 1.0), (3.0, 3.5), (3.5, 4.5))
    found = captions(utterance, length=10, lines=1)
    assert [(caption.start_ms, caption.end_ms) for caption in found] == [(0, 1000), (3000, 4500)]


def test_times_of_words_that_do_not_spell_the_text_are_ignored() -> None:
    utterance = final_of("aaaa bbbb", 0.0, 2.0, (TimedWord("zzzz", 1.5, 1.6, 0.9),))
    assert captions(utterance) == [Caption(0, 2000, ("aaaa bbbb",))]


def test_a_caption_that_is_half_full_ends_with_its_sentence() -> None:
    found = captions(final_of("It was a dark and stormy night in all of Sussex. Then the rain fell.", 0.0, 6.0))
    assert [" ".join(caption.lines) for caption in found] == [
        "It was a dark and stormy night in all of Sussex.",
        "Then the rain fell.",
    ]


def test_no_caption_is_shown_longer_than_seven_seconds() -> None:
    found = captions(final_of("one two three four", 0.0, 20.0))
    assert len(found) > 1
    assert all(caption.end_ms - caption.start_ms <= 7000 for caption in found)


def test_a_short_caption_is_shown_for_a_second_if_no_other_follows() -> None:
    assert captions(final_of("Yes.", 0.0, 0.2), final_of("No.", 0.5, 0.6)) == [
        Caption(0, 500, ("Yes.",)),
        Caption(500, 1500, ("No.",)),
    ]


def test_a_script_without_spaces_breaks_between_characters_but_not_before_a_stop() -> None:
    text = "今日はとても良い天気です。"
    (caption,) = captions(final_of(text), length=12)
    assert caption.lines == ("今日はとても良", "い天気です。")
    found = captions(final_of(text), length=12, lines=1)
    assert [each.lines for each in found] == [("今日はとても良い天気で",), ("す。",)]


def test_empty_finals_have_no_captions() -> None:
    assert captions(final_of(""), final_of("  \n"), final_of("\x07")) == []


def test_captions_contain_no_control_characters_or_line_breaks() -> None:
    (caption,) = captions(final_of("one\r\n\r\n2\n00:00\x00 two"))
    assert caption.lines == ("one 2 00:00 two",)


WORDS = st.text("aZé0-'.?!<>&{}今日。、「」ー한ﾊ\u0301\u200b👍🏽", min_size=1, max_size=15)


@st.composite
def utterances(draw: st.DrawFn) -> Utterance:
    words = draw(st.lists(WORDS, max_size=40))
    start = draw(st.floats(0, 1e5))
    length = draw(st.sampled_from([0.0, 0.001, 0.3, 4.0, 28.0]))
    text = " ".join(words)
    if not words or not draw(st.booleans()):
        return final_of(text, start, start + length)
    times = sorted(draw(st.lists(st.floats(0, length), min_size=2 * len(words), max_size=2 * len(words))))
    spoken = tuple(
        TimedWord(word, start + times[2 * at], start + times[2 * at + 1], 0.5) for at, word in enumerate(words)
    )
    return final_of(text, start, start + length, spoken)


@pytest.mark.parametrize("ordered", [True, False])
@given(found=st.lists(utterances(), max_size=6), length=st.integers(10, 60), lines=st.integers(1, 4))
def test_captions_contain_every_word_in_order_and_never_overlap(
    ordered: bool, found: list[Utterance], length: int, lines: int
) -> None:
    if ordered:
        found = sorted(found, key=lambda utterance: utterance.start)
    made = captions(*found, length=length, lines=lines)
    text = "".join(line for caption in made for line in caption.lines)
    assert "".join(text.split()) == "".join("".join(utterance.text.split()) for utterance in found)
    for caption in made:
        assert 1 <= len(caption.lines) <= lines
        assert 0 <= caption.start_ms < caption.end_ms
        assert all(line == line.strip() and line for line in caption.lines)
        assert all(len(line) <= length or " " not in line for line in caption.lines)
    assert all(before.end_ms <= after.start_ms for before, after in pairwise(made))


@given(st.lists(st.from_regex(r"[a-z]{1,30}[.,?]?", fullmatch=True), max_size=60))
def test_words_of_latin_script_stay_whole(words: list[str]) -> None:
    made = captions(final_of(" ".join(words)), length=20)
    assert [word for caption in made for line in caption.lines for word in line.split()] == words
    assert all(len(line) <= 20 or line in words for caption in made for line in caption.lines)
