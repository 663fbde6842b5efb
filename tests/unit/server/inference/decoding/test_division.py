import numpy as np
import pytest

from server.inference.decoding.coverage import Stretch
from server.inference.decoding.division import LEAST_SECONDS, Division, divided, joined
from server.inference.decoding.hypothesis import Hypothesis, UtteranceAudio
from server.inference.recognition import RecognitionOptions, Word
from server.inference.whisper.features import SAMPLE_RATE

STAMP = 50364


def utterance(seconds: float = 20.0, *quiet: float) -> UtteranceAudio:
    """Noise that is still for a tenth of a second at the given points, all of it taken for speech."""
    samples = np.random.default_rng(0).normal(0, 0.1, int(seconds * SAMPLE_RATE)).astype(np.float32)
    for point in quiet:
        samples[int((point - 0.05) * SAMPLE_RATE) : int((point + 0.05) * SAMPLE_RATE)] = 0
    return UtteranceAudio(samples, None, RecognitionOptions(words=True, speech=((0.0, seconds),)))


def hypothesis(text: str, seconds: float = 20.0, **changes: object) -> Hypothesis:
    """A text with a token for each of its words."""
    count = len(text.split())
    fields: dict[str, object] = {
        "tokens": tuple(range(count)),
        "log_probabilities": (-0.2,) * count,
        "language": "fr",
        "language_probability": 0.9,
        "ending": "closed",
        "no_speech_probability": 0.01,
        "written": (STAMP, *range(count), STAMP + int(seconds / 0.02)),
        "words": tuple(Word(word, number, number + 0.5, 0.8) for number, word in enumerate(text.split())),
    }
    return Hypothesis(text, seconds=seconds, **(fields | changes))  # type: ignore[arg-type]


def parts(division: Division | None) -> list[tuple[float, float]]:
    """From when to when, in the utterance."""
    assert division
    return [
        (round(part.offset, 1), round(part.offset + len(part.utterance.samples) / SAMPLE_RATE, 1))
        for part in division.parts
    ]


def test_what_the_model_got_through_is_not_divided() -> None:
    assert divided(utterance(), hypothesis("all of it"), STAMP) is None


def test_speech_that_is_left_out_before_the_end_divides_the_whole_at_a_quiet_point_in_its_middle() -> None:
    division = divided(utterance(20.0, 2.0, 11.0), hypothesis("the end", uncovered=Stretch(1.9, 16.0)), STAMP)
    assert parts(division) == [(0.0, 11.0), (11.0, 20.0)]
    assert division
    assert not division.keeps_text
    first, second = (part.utterance for part in division.parts)
    assert first.language == second.language == "fr"
    assert first.options.speech
    assert second.options.speech
    assert first.options.speech[0] == pytest.approx((0.0, 11.0), abs=0.1)
    assert second.options.speech[0] == pytest.approx((0.0, 9.0), abs=0.1)


def test_what_comes_after_the_text_is_done_alone() -> None:
    left_out = hypothesis("the beginning", uncovered=Stretch(15.4, 20.0))
    division = divided(utterance(20.0, 15.6), left_out, STAMP)
    assert parts(division) == [(15.6, 20.0)]
    assert division
    assert division.keeps_text


def test_what_comes_after_the_last_stamp_is_done_alone() -> None:
    stopped = hypothesis("the beginning", ending="end", unheard_seconds=3.0, written=(STAMP, 1, 2, STAMP + 850))
    division = divided(utterance(20.0, 17.1), stopped, STAMP)
    assert parts(division) == [(17.1, 20.0)]
    assert division
    assert division.keeps_text


@pytest.mark.parametrize("ending", ["loop", "cap"])
def test_what_does_not_come_to_an_end_is_divided(ending: str) -> None:
    assert parts(divided(utterance(10.0, 5.0), hypothesis("no", 10.0, ending=ending), STAMP)) == [(0, 5), (5, 10)]


def test_a_text_that_is_not_believed_is_not_gone_on_from() -> None:
    nonsense = hypothesis("the end", log_probabilities=(-2.0, -2.0), uncovered=Stretch(0.0, 20.0))
    assert parts(divided(utterance(20.0, 9.0), nonsense, STAMP)) == [(0.0, 9.0), (9.0, 20.0)]


def test_what_is_short_is_not_divided() -> None:
    short = LEAST_SECONDS - 0.1
    assert divided(utterance(short), hypothesis("no", short, ending="loop"), STAMP) is None


def test_the_parts_make_one_text_with_its_words_tokens_and_confidence() -> None:
    whole = hypothesis("c d", uncovered=Stretch(1.0, 15.0))
    division = divided(utterance(20.0, 10.0), whole, STAMP)
    assert division
    found = [hypothesis("a b", 10.0, log_probabilities=(-0.1, -0.3)), hypothesis("c d e", 10.0)]
    text = joined(whole, division, found, STAMP)
    assert text.text == "a b c d e"
    assert text.tokens == (0, 1, 0, 1, 2)
    assert text.log_probabilities == (-0.1, -0.3, -0.2, -0.2, -0.2)
    assert [(word.word, round(word.start, 1)) for word in text.words] == [
        ("a", 0.0), ("b", 1.0), ("c", 10.0), ("d", 11.0), ("e", 12.0),
    ]  # fmt: skip
    assert [token for token in text.written if token >= STAMP] == [STAMP, STAMP + 500, STAMP + 500, STAMP + 1000]
    assert (text.seconds, text.language_probability, text.failing) == (20.0, 0.9, "sparse")
    assert text.incomplete is None


def test_the_rest_comes_after_the_text() -> None:
    whole = hypothesis("a b", uncovered=Stretch(15.0, 20.0))
    division = divided(utterance(20.0, 15.0), whole, STAMP)
    assert division
    assert joined(whole, division, [hypothesis("c", 5.0)], STAMP).text == "a b c"


def test_languages_without_spaces_are_joined_without() -> None:
    whole = hypothesis("a b", uncovered=Stretch(15.0, 20.0), language="ja")
    division = divided(utterance(20.0, 15.0), whole, STAMP)
    assert division
    assert joined(whole, division, [hypothesis("c", 5.0)], STAMP).text == "a bc"


def test_the_whole_stays_where_its_parts_have_no_more_text() -> None:
    whole = hypothesis("a b c", uncovered=Stretch(1.0, 15.0))
    division = divided(utterance(), whole, STAMP)
    assert division
    assert joined(whole, division, [hypothesis("a", 10.0), hypothesis("c", 10.0)], STAMP) is whole


def test_what_is_invented_is_in_no_joined_text() -> None:
    invented = hypothesis("thank you for watching", 10.0, no_speech_probability=0.9, log_probabilities=(-1.0,) * 4)
    nonsense = hypothesis("x", log_probabilities=(-3.0,), uncovered=Stretch(0.0, 20.0))
    division = divided(utterance(), nonsense, STAMP)
    assert division
    assert joined(nonsense, division, [invented, hypothesis("a b", 10.0)], STAMP).text == "a b"
    assert joined(nonsense, division, [invented, invented], STAMP) is nonsense
