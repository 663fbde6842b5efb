import pytest

from domain.transcript import TimedWord, Utterance
from worker.whole_file.guard import Recording, Verdict, compare

SPEECH = ((0.0, 100.0),)
ENGLISH = Recording(SPEECH, "en", 1.0)


def transcript(words: int, seconds: float = 100.0, start: float = 0.0, language: str = "en") -> list[Utterance]:
    """So many different words, evenly over the time."""
    step = (seconds - start) / words
    timed = tuple(TimedWord(f"word{n}", start + n * step, start + (n + 1) * step, 0.9) for n in range(words))
    return [Utterance(start, seconds, " ".join(word.word for word in timed), 0.9, language, words=timed)]


def test_a_transcript_like_the_live_one_is_accepted() -> None:
    assert compare(transcript(95), transcript(100), ENGLISH, "en") == Verdict("accepted")


def test_a_transcript_with_far_fewer_words_is_doubtful() -> None:
    verdict = compare(transcript(59), transcript(100), ENGLISH, "en")
    assert (verdict.outcome, verdict.defect) == ("doubtful", "few_words")
    assert verdict.reason == "The new transcript has 59 words, and the live one has 100."
    assert compare(transcript(60), transcript(100), ENGLISH).outcome == "accepted"


def test_speech_without_words_is_doubtful_where_the_live_transcript_has_text() -> None:
    new = [*transcript(50, 40.0), *transcript(50, 100.0, 55.0)]
    verdict = compare(new, transcript(100), ENGLISH)
    assert verdict.defect == "speech_without_words"
    assert verdict.reason == "The new transcript has no words for 15 of 100 seconds of speech."
    live = [*transcript(50, 41.0), *transcript(50, 100.0, 54.0)]
    assert compare(new, live, ENGLISH).outcome == "accepted", "the detector took music for speech"
    assert compare(new, [], ENGLISH).defect == "speech_without_words", "of an upload all speech counts"


def test_a_transcript_that_ends_early_is_doubtful() -> None:
    quiet_end = Recording(((0.0, 65.0), (98.0, 100.0)), "en", 1.0)
    verdict = compare(transcript(100, 65.0), transcript(100, 100.0), quiet_end)
    assert (verdict.defect, verdict.reason) == (
        "ends_early",
        "The new transcript ends 35 seconds before the live one does.",
    )


def test_repeated_phrases_are_doubtful_unless_the_live_transcript_has_them() -> None:
    loop = Utterance(0.0, 100.0, " ".join(["thank you for watching this"] * 20), 0.9, "en")
    assert compare([loop], transcript(100), ENGLISH).defect == "repetitive"
    assert compare([loop], [loop], ENGLISH).outcome == "accepted"


def test_another_language_is_doubtful_unless_the_model_is_sure() -> None:
    for probability, outcome in ((0.85, "doubtful"), (0.95, "accepted")):
        french = Recording(SPEECH, "fr", probability)
        verdict = compare(transcript(100, language="fr"), transcript(100), french, "en")
        assert verdict.outcome == outcome
    unsure = Recording(SPEECH, "fr", 0.5)
    assert compare(transcript(9), transcript(9), unsure, "auto").outcome == "accepted"
    assert compare(transcript(9), transcript(9), unsure, "fr").outcome == "accepted"


def test_an_empty_transcript_is_no_speech_if_the_live_one_has_text() -> None:
    verdict = compare([], transcript(1), ENGLISH)
    assert (verdict.outcome, verdict.defect) == ("no_speech", "no_speech")
    assert verdict.reason == "The new transcript is empty, and the live one has 1 word."
    assert compare([], [], ENGLISH) == Verdict("accepted")


@pytest.mark.parametrize(("characters", "outcome"), [(5, "doubtful"), (8, "accepted")])
def test_a_language_without_spaces_is_counted_by_characters(characters: int, outcome: str) -> None:
    def of(count: int) -> list[Utterance]:
        return [Utterance(0.0, 9.0, "天地玄黄宇宙洪荒日月"[:count], 0.9, "zh")]

    assert compare(of(characters), of(10), Recording(((0.0, 9.0),), "zh", 1.0)).outcome == outcome
