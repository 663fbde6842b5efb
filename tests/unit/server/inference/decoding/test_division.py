import numpy as np
import pytest

from server.inference.decoding.coverage import Stretch
from server.inference.decoding.division import MIN_SECONDS, Division, divided, joined
from server.inference.decoding.hypothesis import Hypothesis, UtteranceAudio
from server.inference.recognition import RecognitionOptions, Word
from server.inference.whisper.features import SAMPLE_RATE

TIMESTAMP = 50364


def utterance(seconds: float = 20.0, *quiet: float) -> UtteranceAudio:
    """Noise with a tenth of a second of silence at the given points, all of it marked as speech."""
    samples = np.random.default_rng(0).normal(0, 0.1, int(seconds * SAMPLE_RATE)).astype(np.float32)
    for point in quiet:
        samples[int((point - 0.05) * SAMPLE_RATE) : int((point + 0.05) * SAMPLE_RATE)] = 0
    return UtteranceAudio(samples, None, RecognitionOptions(words=True, speech=((0.0, seconds),)))


def hypothesis(text: str, seconds: float = 20.0, **changes: object) -> Hypothesis:
    """A text with one token per word."""
    count = len(text.split())
    fields: dict[str, object] = {
        "tokens": tuple(range(count)),
        "log_probabilities": (-0.2,) * count,
        "language": "fr",
        "language_probability": 0.9,
        "ending": "closed",
        "no_speech_probability": 0.01,
        "decoded_tokens": (TIMESTAMP, *range(count), TIMESTAMP + int(seconds / 0.02)),
        "words": tuple(Word(word, number, number + 0.5, 0.8) for number, word in enumerate(text.split())),
    }
    return Hypothesis(text, seconds=seconds, **(fields | changes))  # type: ignore[arg-type]


def parts(division: Division | None) -> list[tuple[float, float]]:
    """The start and end of each part, in seconds of the utterance."""
    assert division
    return [
        (round(part.offset, 1), round(part.offset + len(part.utterance.samples) / SAMPLE_RATE, 1))
        for part in division.parts
    ]


def test_a_complete_hypothesis_is_not_divided() -> None:
    assert divided(utterance(), hypothesis("all of it"), TIMESTAMP) is None


def test_speech_left_out_before_the_end_divides_at_a_quiet_point() -> None:
    division = divided(utterance(20.0, 2.0, 11.0), hypothesis("the end", uncovered=Stretch(1.9, 16.0)), TIMESTAMP)
    assert parts(division) == [(0.0, 11.0), (11.0, 20.0)]
    assert division
    assert not division.keeps_text
    first, second = (part.utterance for part in division.parts)
    assert first.language == second.language == "fr"
    assert first.options.speech
    assert second.options.speech
    assert first.options.speech[0] == pytest.approx((0.0, 11.0), abs=0.1)
    assert second.options.speech[0] == pytest.approx((0.0, 9.0), abs=0.1)


def test_speech_after_the_text_is_transcribed_alone() -> None:
    left_out = hypothesis("the beginning", uncovered=Stretch(15.4, 20.0))
    division = divided(utterance(20.0, 15.6), left_out, TIMESTAMP)
    assert parts(division) == [(15.6, 20.0)]
    assert division
    assert division.keeps_text


def test_audio_after_the_last_timestamp_is_transcribed_alone() -> None:
    stopped = hypothesis(
        "the beginning",
        ending="end",
        seconds_after_last_timestamp=3.0,
        decoded_tokens=(TIMESTAMP, 1, 2, TIMESTAMP + 850),
    )
    division = divided(utterance(20.0, 17.1), stopped, TIMESTAMP)
    assert parts(division) == [(17.1, 20.0)]
    assert division
    assert division.keeps_text


@pytest.mark.parametrize("ending", ["loop", "cap"])
def test_a_loop_or_a_text_at_its_limit_is_divided(ending: str) -> None:
    assert parts(divided(utterance(10.0, 5.0), hypothesis("no", 10.0, ending=ending), TIMESTAMP)) == [(0, 5), (5, 10)]


def test_a_hallucination_is_not_continued() -> None:
    nonsense = hypothesis("the end", log_probabilities=(-2.0, -2.0), uncovered=Stretch(0.0, 20.0))
    assert parts(divided(utterance(20.0, 9.0), nonsense, TIMESTAMP)) == [(0.0, 9.0), (9.0, 20.0)]


def test_a_short_utterance_is_not_divided() -> None:
    short = MIN_SECONDS - 0.1
    assert divided(utterance(short), hypothesis("no", short, ending="loop"), TIMESTAMP) is None


def test_the_parts_are_joined_with_their_words_tokens_and_probabilities() -> None:
    whole = hypothesis("c d", uncovered=Stretch(1.0, 15.0))
    division = divided(utterance(20.0, 10.0), whole, TIMESTAMP)
    assert division
    found = [hypothesis("a b", 10.0, log_probabilities=(-0.1, -0.3)), hypothesis("c d e", 10.0)]
    text = joined(whole, division, found, TIMESTAMP)
    assert text.text == "a b c d e"
    assert text.tokens == (0, 1, 0, 1, 2)
    assert text.log_probabilities == (-0.1, -0.3, -0.2, -0.2, -0.2)
    assert [(word.word, round(word.start, 1)) for word in text.words] == [
        ("a", 0.0), ("b", 1.0), ("c", 10.0), ("d", 11.0), ("e", 12.0),
    ]  # fmt: skip
    assert [token for token in text.decoded_tokens if token >= TIMESTAMP] == [
        TIMESTAMP,
        TIMESTAMP + 500,
        TIMESTAMP + 500,
        TIMESTAMP + 1000,
    ]
    assert (text.seconds, text.language_probability, text.failing) == (20.0, 0.9, "sparse")
    assert text.incomplete is None


def test_the_text_of_the_rest_follows_the_text() -> None:
    whole = hypothesis("a b", uncovered=Stretch(15.0, 20.0))
    division = divided(utterance(20.0, 15.0), whole, TIMESTAMP)
    assert division
    assert joined(whole, division, [hypothesis("c", 5.0)], TIMESTAMP).text == "a b c"


def test_languages_without_spaces_are_joined_without_spaces() -> None:
    whole = hypothesis("a b", uncovered=Stretch(15.0, 20.0), language="ja")
    division = divided(utterance(20.0, 15.0), whole, TIMESTAMP)
    assert division
    assert joined(whole, division, [hypothesis("c", 5.0)], TIMESTAMP).text == "a bc"


def test_the_whole_is_kept_if_its_parts_have_no_more_text() -> None:
    whole = hypothesis("a b c", uncovered=Stretch(1.0, 15.0))
    division = divided(utterance(), whole, TIMESTAMP)
    assert division
    assert joined(whole, division, [hypothesis("a", 10.0), hypothesis("c", 10.0)], TIMESTAMP) is whole


def test_hallucinations_are_in_no_joined_text() -> None:
    invented = hypothesis("thank you for watching", 10.0, no_speech_probability=0.9, log_probabilities=(-1.0,) * 4)
    nonsense = hypothesis("x", log_probabilities=(-3.0,), uncovered=Stretch(0.0, 20.0))
    division = divided(utterance(), nonsense, TIMESTAMP)
    assert division
    assert joined(nonsense, division, [invented, hypothesis("a b", 10.0)], TIMESTAMP).text == "a b"
    assert joined(nonsense, division, [invented, invented], TIMESTAMP) is nonsense
