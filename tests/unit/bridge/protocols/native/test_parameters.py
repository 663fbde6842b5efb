import json
from contextlib import suppress
from urllib.parse import quote, urlencode

import pytest
from dalston.v1.transcription_pb2 import TranscribeConfig
from hypothesis import given
from hypothesis import strategies as st

from bridge.protocols.interface import MAX_QUERY_BYTES
from bridge.protocols.native.parameters import parse_query
from edge.refusal import Refused

CONTRACT_NAMES = {
    "language",
    "model",
    "encoding",
    "sample_rate",
    "channels",
    "enable_vad",
    "interim_results",
    "word_timestamps",
    "vocabulary",
    "vad_threshold",
    "min_speech_duration_ms",
    "min_silence_duration_ms",
    "max_utterance_duration",
    "store_audio",
    "store_transcript",
    "enhance_on_end",
    "resume_session_id",
    "resume_from_seconds",
    "acks",
}


def refusal(query: str) -> str:
    with pytest.raises(Refused) as caught:
        parse_query(query)
    assert caught.value.reason == "INVALID_PARAMETERS"
    return caught.value.message


def test_every_parameter_of_the_contract_is_a_field_of_the_config():
    assert {field.name for field in TranscribeConfig.DESCRIPTOR.fields} == CONTRACT_NAMES


def test_an_empty_query_sets_nothing():
    opening = parse_query("")
    assert opening.config == TranscribeConfig()
    assert opening.key is None
    assert not opening.config.HasField("sample_rate")


def test_every_type_is_read():
    opening = parse_query(
        "language=es&sample_rate=8000&enable_vad=false&store_audio=true&vad_threshold=.4&vocabulary=" + quote('["a b"]')
    )
    assert opening.config == TranscribeConfig(
        language="es", sample_rate=8000, enable_vad=False, store_audio=True, vad_threshold=0.4, vocabulary=["a b"]
    )


@pytest.mark.parametrize("name", ["api_key", "token"])
def test_the_key_is_taken_out_and_not_shown(name: str):
    opening = parse_query(f"{name}=s3cret&language=en")
    assert opening.key == "s3cret"
    assert opening.config == TranscribeConfig(language="en")
    assert "s3cret" not in repr(opening)


def test_an_empty_field_of_a_form_is_the_default() -> None:
    assert parse_query("model=&language=&encoding=&vocabulary=&acks=true").config == TranscribeConfig(acks=True)


@pytest.mark.parametrize("value", ["30", "-1", "", "forever"])
def test_a_retention_is_accepted_and_named_as_unsupported(value: str) -> None:
    opening = parse_query(f"retention={value}&language=en")
    assert opening.config == TranscribeConfig(language="en")
    assert opening.unsupported == ("retention",)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("sample-rate=1", 'unknown parameter "sample-rate"'),
        ("Language=en", "unknown parameter"),
        ("language=en&language=es", "language is given more than once"),
        ("api_key=a&token=b", "not both"),
        ("token=a&token=a", "token is given more than once"),
        ("sample_rate=", "sample_rate is empty"),
        ("resume_session_id=", "resume_session_id is empty"),
        ("api_key=", "api_key is empty"),
        ("store_audio=1", 'store_audio must be true or false, not "1"'),
        ("store_audio=True", "must be true or false"),
        ("sample_rate=16k", 'sample_rate must be a whole number, not "16k"'),
        ("sample_rate=16000.0", "whole number"),
        ("sample_rate=99999999999999", "whole number"),
        ("sample_rate=2147483648", "whole number"),
        ("sample_rate=1_000", "whole number"),
        ("sample_rate=%D9%A1", "whole number"),
        ("vad_threshold=half", "vad_threshold must be a number"),
        ("vad_threshold=nan", "must be a number"),
        ("vad_threshold=inf", "must be a number"),
        ("vad_threshold=1e999", "must be a number"),
        ("vocabulary=Dalston", "JSON array of strings"),
        ("vocabulary={}", "JSON array of strings"),
        ("vocabulary=[1]", "JSON array of strings"),
        ("vocabulary=" + "[" * 20000, "JSON array of strings"),
        ('vocabulary=["\\ud800"]', "JSON array of strings"),
        ("language=%ff", "UTF-8"),
        ("sk-123", "NAME=VALUE"),
        ("language=en&", "NAME=VALUE"),
        ("x" * (MAX_QUERY_BYTES + 1), "longer than"),
    ],
)
def test_the_refusal_of_a_query_names_its_mistake(query: str, words: str):
    assert words in refusal(query)


def test_a_bare_key_is_not_repeated_in_the_message():
    assert "sk-123" not in refusal("sk-123")


def test_a_long_value_is_not_repeated_in_full():
    assert len(refusal("sample_rate=" + "9" * 5000)) < 200


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=50), max_size=100))
def test_any_vocabulary_is_unchanged(terms: list[str]):
    query = urlencode({"vocabulary": json.dumps(terms, ensure_ascii=False)})
    if len(query) <= MAX_QUERY_BYTES:
        assert list(parse_query(query).config.vocabulary) == terms


@given(st.integers(-(2**31), 2**31 - 1), st.floats(allow_nan=False, allow_infinity=False))
def test_any_number_is_unchanged(whole: int, number: float):
    config = parse_query(urlencode({"sample_rate": whole, "vad_threshold": repr(number)})).config
    assert config.sample_rate == whole
    assert config.vad_threshold == number


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=200))
def test_any_query_is_parsed_or_refused(query: str):
    with suppress(Refused):
        parse_query(query)
