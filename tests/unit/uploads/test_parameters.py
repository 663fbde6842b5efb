"""The fields of a request: used, ignored by name, or refused by name."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uploads.body import Field
from uploads.errors import ApiError
from uploads.models import Models
from uploads.parameters import Parameters, read_parameters


def read(*fields: tuple[str, str], models: Models | None = None, file_name: str = "a.wav") -> Parameters:
    return read_parameters([Field(*field) for field in fields], file_name, models or Models())


def refused(*fields: tuple[str, str]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        read(*fields)
    assert caught.value.status == 400
    return caught.value


def test_defaults() -> None:
    found = read()
    assert (found.model, found.config.model, found.config.language) == (None, "", "auto")
    assert found.config.HasField("store")
    assert not found.config.store
    assert (found.response_format, found.with_segments, found.with_words) == ("json", True, False)
    assert (found.is_streamed, found.is_async, found.ignored) == (False, False, ())
    assert found.config.file_name == "a.wav"


@pytest.mark.parametrize(
    ("fields", "segments", "words"),
    [
        ([], True, False),
        ([("timestamp_granularities[]", "word")], False, True),
        ([("timestamp_granularities[]", "word"), ("timestamp_granularities[]", "segment")], True, True),
        ([("timestamp_granularities", '["segment", "word"]')], True, True),
        ([("timestamp_granularities", "segment")], True, False),
        ([("timestamp_granularities", "word"), ("timestamp_granularities", "segment")], True, True),
    ],
)
def test_lists_are_taken_as_items_with_and_without_brackets_and_as_arrays(
    fields: list[tuple[str, str]], segments: bool, words: bool
) -> None:
    found = read(("response_format", "verbose_json"), *fields)
    assert (found.with_segments, found.with_words, found.ignored) == (segments, words, ())


@pytest.mark.parametrize(
    ("fields", "language"),
    [
        ([("language", "de")], "de"),
        ([("language", "en-US")], "en"),
        ([("language", "German")], "de"),
        ([("language", "deu")], "de"),
        ([("language", " ")], "auto"),
        ([("languages[]", "de")], "de"),
        ([("languages[]", "de"), ("languages[]", "ger")], "de"),
        ([("languages", '["de", "en"]')], "auto"),
        ([("language", "fr"), ("languages[]", "de")], "fr"),
        ([("language", "klingon")], "klingon"),
    ],
)
def test_languages(fields: list[tuple[str, str]], language: str) -> None:
    assert read(*fields).config.language == language


@pytest.mark.parametrize(
    ("fields", "vocabulary", "ignored"),
    [
        ([("prompt", "Dalston, Hackney\nWood  Green,, ")], ["Dalston", "Hackney", "Wood Green"], ()),
        ([("prompt", f"Dalston, {'a long sentence ' * 5}")], ["Dalston"], ("prompt",)),
        ([("prompt", "x," * 150)], ["x"] * 100, ("prompt",)),
        ([("keywords[]", "a, b"), ("keywords[]", "c"), ("prompt", "p")], ["a, b", "c"], ()),
        ([("keywords", '["a", "b"]')], ["a", "b"], ()),
        ([("prompt", "")], [], ()),
    ],
)
def test_keywords_or_else_the_prompt_are_the_vocabulary(
    fields: list[tuple[str, str]], vocabulary: list[str], ignored: tuple[str, ...]
) -> None:
    found = read(*fields)
    assert list(found.config.vocabulary) == vocabulary
    assert found.ignored == ignored


def test_keywords_over_a_limit_are_refused() -> None:
    assert refused(*[("keywords[]", "x")] * 101).param == "keywords"
    assert refused(("keywords[]", "x" * 51)).param == "keywords"


@pytest.mark.parametrize(
    ("name", "value", "param"),
    [
        ("response_format", "diarized_json", "response_format"),
        ("response_format", "xml", "response_format"),
        ("stream", "maybe", "stream"),
        ("timestamp_granularities[]", "letter", "timestamp_granularities"),
        ("known_speaker_names[]", "agent", "known_speaker_names"),
        ("diarize", "True", "diarize"),
        ("entity_detection", "all", "entity_detection"),
        ("entity_types", "x", "entity_types"),
        ("multichannel", "true", "multichannel"),
        ("webhook", "1", "webhook"),
        ("url", "http://x", "url"),
        ("task", "translate", "task"),
    ],
)
def test_what_cannot_be_promised_is_refused_by_name(name: str, value: str, param: str) -> None:
    error = refused((name, value))
    assert error.param == param
    assert error.code in ("unsupported_value", "invalid_value")


def test_a_format_that_is_not_streamed_is_refused_under_stream() -> None:
    assert refused(("stream", "true"), ("response_format", "srt")).param == "stream"
    assert read(("stream", "true"), ("response_format", "text")).is_streamed


@pytest.mark.parametrize("value", ["false", "", "None", "0", "[]"])
def test_the_empty_and_false_values_of_promises_are_taken(value: str) -> None:
    assert read(("diarize", value), ("multichannel", value)).ignored == ("diarize", "multichannel")


def test_what_has_no_effect_is_named_once_and_in_characters_of_a_header() -> None:
    found = read(
        ("temperature", "0"),
        ("chunking_strategy[type]", "server_vad"),
        ("include[]", "item"),
        ("timestamp_granularities[]", "word"),
        ("temperature", "1"),
        ("evil\r\nx: y", "1"),
        ("x" * 500, ""),
    )
    assert found.ignored == (
        *("temperature", "chunking_strategy[type]", "evil??x??y", "x" * 64, "timestamp_granularities", "include"),
    )


def test_logprobs_belong_to_json() -> None:
    assert read(("include[]", "logprobs")).with_logprobs
    other = read(("include[]", "logprobs"), ("response_format", "text"))
    assert (other.with_logprobs, other.ignored) == (False, ("include",))


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("whisper-1", "accurate"),
        ("gpt-4o-mini-transcribe-2025-12-15", "accurate"),
        ("gpt-4o-transcribe-diarize", "accurate"),
        ("nova-3", "fast"),
        ("scribe_v2", "fast"),
        ("fast", "fast"),
        ("mine", "accurate"),
        ("other", "other"),
    ],
)
def test_vendor_names_are_aliases_and_the_setting_adds_to_them(name: str, model: str) -> None:
    found = read(("model", name), models=Models({"mine": "accurate"}))
    assert (found.model, found.config.model) == (name, model)


def test_models_are_listed_before_aliases() -> None:
    models = Models({"whisper-1": "fast", "mine": "accurate"})
    ids = [entry["id"] for entry in models.listing(["accurate", "fast"])]
    assert ids[:2] == ["accurate", "fast"]
    assert {"whisper-1", "mine", "gpt-4o-transcribe"} <= set(ids)
    assert models.resolve("whisper-1") == "fast"
    assert models.find("nova-2", ["fast"]) == {"id": "nova-2", "object": "model", "created": 0, "owned_by": "dalston"}
    assert models.find("other", ["fast"]) is None
    assert models.find("mine", ["fast"]) is None


def test_a_file_name_has_printable_characters_only() -> None:
    assert read(file_name=f"{'x' * 300}\r\n.wav").config.file_name == f"{'x' * 249}  .wav"


@given(st.lists(st.tuples(st.text(max_size=20), st.text(max_size=40)), max_size=8))
def test_any_fields_are_read_or_refused(fields: list[tuple[str, str]]) -> None:
    found = None
    with suppress(ApiError):
        found = read(*fields)
    assert found is None or all(name.isascii() and name.isprintable() for name in found.ignored)
