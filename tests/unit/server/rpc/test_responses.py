from domain.transcript import TimedWord, Utterance
from server.rpc.responses import response_of
from server.session.events import ContainerFound, FinalResult, SpeechSuppressed


def test_a_final_has_the_probability_of_a_detected_language() -> None:
    requested, detected = (
        FinalResult(Utterance(1.0, 2.0, "Oh.", 0.9, "en", language_probability=probability))
        for probability in (None, 0.75)
    )
    assert not response_of(requested, "sess_0").final.HasField("language_probability")
    assert response_of(detected, "sess_0").final.language_probability == 0.75


def test_a_final_carries_its_words() -> None:
    words = (TimedWord("Oh", 1.1, 1.25, 0.8), TimedWord("dear.", 1.25, 1.75, 0.95))
    event = FinalResult(Utterance(1.0, 2.0, "Oh dear.", 0.9, "en", words=words))
    final = response_of(event, "sess_0").final
    assert [(word.word, word.start, word.end, word.confidence) for word in final.words] == [
        ("Oh", 1.1, 1.25, 0.8),
        ("dear.", 1.25, 1.75, 0.95),
    ]


def test_suppressed_speech_is_a_warning_with_times_and_reason() -> None:
    warning = response_of(SpeechSuppressed(1.25, 3.0, "no_speech"), "sess_0").warning
    assert warning.code == "speech_suppressed"
    assert dict(warning.details) == {"start": "1.25", "end": "3", "reason": "no_speech"}
    assert warning.message == "an utterance has no final: its text was judged a hallucination"
    assert "returned no text" in response_of(SpeechSuppressed(1.25, 3.0, "empty"), "sess_0").warning.message


def test_long_times_of_suppressed_speech_keep_their_precision() -> None:
    warning = response_of(SpeechSuppressed(14_400.1234375, 0.0, "sparse"), "sess_0").warning
    assert (warning.details["start"], warning.details["end"]) == ("14400.123438", "0")


def test_a_container_sent_as_raw_samples_is_a_warning_with_its_format() -> None:
    warning = response_of(ContainerFound("webm"), "sess_0").warning
    assert (warning.code, dict(warning.details)) == ("container_audio", {"format": "webm"})
