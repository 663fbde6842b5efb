import math
from typing import Any

import pytest
from dalston.v1.transcription_pb2 import SessionLimits, TranscribeConfig

from domain.session_id import new_uuid7
from server.audio.format import AudioFormat, Encoding
from server.rpc.config_message import begin_message, parse_config, parse_language
from server.rpc.language_tag import language_of
from server.session.errors import InvalidModel, InvalidParameter
from server.session.options import SessionOptions, VadOptions


class Catalog:
    models = frozenset({"fast", "accurate"})

    def supports(self, model: str, language: str) -> bool:
        return language in {"auto", "en", "es"}


def parse(**fields: Any) -> SessionOptions:
    return parse_config(TranscribeConfig(**fields), Catalog())


def test_an_empty_config_means_the_defaults_of_the_contract() -> None:
    assert parse() == SessionOptions(
        language="auto",
        model="fast",
        audio=AudioFormat(Encoding.PCM_S16LE, 16_000, 1),
        vad=VadOptions(threshold=0.5, min_speech_ms=250, min_silence_ms=500, max_utterance_seconds=28),
        vad_events=True,
        partials=True,
    )


def test_every_parameter_is_taken_over() -> None:
    options = parse(
        language="es",
        model="accurate",
        encoding="mulaw",
        sample_rate=8000,
        channels=2,
        enable_vad=False,
        interim_results=False,
        vad_threshold=0.3,
        min_speech_duration_ms=50,
        min_silence_duration_ms=2000,
        max_utterance_duration=1,
        store_audio=True,
        store_transcript=True,
    )
    assert options == SessionOptions(
        language="es",
        model="accurate",
        audio=AudioFormat(Encoding.MULAW, 8000, 2),
        vad=VadOptions(0.3, 50, 2000, 1),
        vad_events=False,
        partials=False,
    )


@pytest.mark.parametrize(
    ("parameter", "values"),
    [
        ("language", ["english", "xx", "xx-US", "en-", "-en", "en US", "e", "a" * 1000, "en-" + "a" * 1000]),
        ("encoding", ["mp3", "PCM_S16LE"]),
        ("sample_rate", [0, -1, 7999, 48_001]),
        ("channels", [0, 3, -1]),
        ("vad_threshold", [0.0, 1.0, -0.5, math.nan, math.inf]),
        ("min_speech_duration_ms", [0, 49, 2001]),
        ("min_silence_duration_ms", [0, 49, 2001]),
        ("max_utterance_duration", [0.0, 0.99, 28.5, math.nan, math.inf]),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(parameter: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(InvalidParameter) as raised:
            parse(**{parameter: value})
        assert raised.value.parameter == parameter
        assert len(str(raised.value)) < 300


@pytest.mark.parametrize("tag", ["en", "EN", "en-US", "en-us", "En_GB", "en-Latn-US", "en-US-x-private"])
def test_a_language_tag_counts_as_its_language(tag: str) -> None:
    assert parse(language=tag).language == "en"
    assert parse_language(tag, "fast", Catalog()) == "en"
    begin = begin_message(new_uuid7(), parse(language=tag), SessionLimits())
    assert begin.config.language == "en"


def test_the_language_to_be_detected_may_be_spelt_in_capitals() -> None:
    assert parse(language="AUTO").language == "auto"


def test_an_unknown_language_tag_is_refused_by_name() -> None:
    with pytest.raises(InvalidParameter, match="does not know 'xx-US': use an ISO 639-1 code"):
        parse(language="xx-US")


@pytest.mark.parametrize(("tag", "language"), [("nb-NO", "no"), ("fil-PH", "tl"), ("iw", "he"), ("cmn-Hans-CN", "zh")])
def test_language_codes_of_browsers_are_converted(tag: str, language: str) -> None:
    assert language_of(tag) == language


def test_the_refusal_of_an_unknown_model_lists_the_known_ones() -> None:
    with pytest.raises(InvalidModel, match="no model 'huge': use one of accurate, fast"):
        parse(model="huge")


@pytest.mark.parametrize(
    ("fields", "parameter"),
    [
        ({"enhance_on_end": True}, "enhance_on_end"),
        ({"resume_from_seconds": 1.0}, "resume_from_seconds"),
        ({"resume_session_id": "x", "resume_from_seconds": -1.0}, "resume_from_seconds"),
        ({"vocabulary": ["a"] * 101}, "vocabulary"),
        ({"vocabulary": ["a" * 51]}, "vocabulary"),
        ({"vocabulary": [""]}, "vocabulary"),
    ],
)
def test_parameters_that_contradict_each_other_are_refused(fields: dict[str, Any], parameter: str) -> None:
    with pytest.raises(InvalidParameter) as raised:
        parse(**fields)
    assert raised.value.parameter == parameter


def test_a_batch_job_needs_its_model_and_its_language() -> None:
    parse(enhance_on_end=True, store_audio=True, language="es")

    class Small(Catalog):
        models = frozenset({"fast"})

    class English(Catalog):
        def supports(self, model: str, language: str) -> bool:
            return language in {"auto", "en"} or model == "fast"

    config = TranscribeConfig(enhance_on_end=True, store_audio=True, language="es")
    for catalog, parameter in ((Small(), "enhance_on_end"), (English(), "language")):
        with pytest.raises(InvalidParameter, match="accurate") as raised:
            parse_config(config, catalog)
        assert raised.value.parameter == parameter
