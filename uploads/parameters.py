"""The fields of a request: which are used, which are ignored, and which are refused."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from dalston.v1.file_pb2 import FileConfig

from uploads.body import Field
from uploads.errors import invalid, unsupported
from uploads.languages import code_of
from uploads.models import Models

FORMATS: Final = ("json", "text", "srt", "vtt", "verbose_json")
STREAMED_FORMATS: Final = ("json", "text")
MAX_TERMS: Final = 100
MAX_TERM_LENGTH: Final = 50
_MAX_FILE_NAME: Final = 255
_MAX_IGNORED: Final = 30

_USED: Final = (
    *("model", "language", "languages", "prompt", "keywords", "response_format", "timestamp_granularities"),
    *("include", "stream", "async", "store"),
)
_PROMISES: Final = {
    "speakers are not distinguished": (
        *("diarize", "diarization", "speaker_labels", "speakers", "num_speakers", "min_speakers", "max_speakers"),
        *("known_speaker_names", "known_speaker_references", "diarize_version", "diarization_config"),
    ),
    "the text is not changed after its transcription": (
        *("redact", "profanity_filter", "replace", "search", "transcript_edit", "filter_profanity", "redact_pii"),
    ),
    "entities are not detected": ("detect_entities", "entity_detection", "entity_redaction"),
    "channels are not transcribed apart": ("multichannel", "use_multi_channel"),
    "no address is called when a job has ended: send `Prefer: respond-async`, and read the job": (
        *("callback", "callback_url", "webhook", "webhook_url", "webhook_id"),
    ),
    "no file is fetched from an address: send the file": (
        *("url", "file_url", "source_url", "cloud_storage_url", "audio_url"),
    ),
    "translation is not supported: the text is in the language spoken": ("translate", "translation", "target_language"),
}
"""What a field would promise about the content, and the names of such fields."""
_REASONS: Final = {name: reason for reason, names in _PROMISES.items() for name in names}
_NO: Final = ("", "false", "0", "no", "off", "none", "null", "[]", "{}")
_YES: Final = ("true", "1", "yes", "on")
# `chunking_strategy[type]` is a part of `chunking_strategy`; `languages[]` is a list.
_BASE: Final = re.compile(r"[^\[]*")
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_.\[\]-]")


@dataclass(frozen=True, slots=True)
class Parameters:
    """A request for a transcription."""

    model: str | None
    """As the client named it."""
    config: FileConfig
    response_format: str
    with_segments: bool
    with_words: bool
    with_logprobs: bool
    is_streamed: bool
    is_async: bool
    """Whether the client wants the job and does not wait for its end."""
    ignored: tuple[str, ...]
    """The fields that had no effect, each name once, in characters that a header may have."""


def check_field(field: Field) -> None:
    """Refuses a field that asks for what the server cannot promise. It can be checked before the others are there.

    Raises:
        ApiError: 400 with the field's name.
    """
    name = _base(field.name)
    if name.startswith("entity_"):
        reason: str | None = _REASONS["detect_entities"]
    else:
        reason = _REASONS.get(name)
    if name == "task" and field.value.strip().lower() == "translate":
        reason = _REASONS["translate"]
    if reason is not None and field.value.strip().lower() not in _NO:
        raise unsupported(f"{_shown(name)} is not supported: {reason}", _shown(name))


def read_parameters(fields: Iterable[Field], file_name: str, models: Models, *, is_async: bool = False) -> Parameters:
    """Reads all fields of a request.

    Args:
        is_async: whether the request asks for the job by a header or its query.

    Raises:
        ApiError: a field is wrong or not supported; it names the field.
    """
    values: dict[str, list[str]] = {}
    ignored: list[str] = []
    for field in fields:
        check_field(field)
        name = _base(field.name)
        if name not in _USED:
            ignored.append(field.name)
        elif name in ("languages", "keywords", "timestamp_granularities", "include"):
            values.setdefault(name, []).extend(_items(field.value))
        else:
            values.setdefault(name, []).append(field.value)

    def last(name: str) -> str:
        return values[name][-1].strip() if name in values else ""

    response_format = last("response_format") or "json"
    if response_format == "diarized_json":
        raise unsupported(
            "response_format diarized_json is not supported: speakers are not distinguished", "response_format"
        )
    if response_format not in FORMATS:
        raise invalid(f"response_format must be one of {', '.join(FORMATS)}", "response_format")
    is_streamed = _boolean(last("stream"), "stream")
    if is_streamed and response_format not in STREAMED_FORMATS:
        raise unsupported(
            f"response_format {response_format} is not streamed: ask for json or text, or without stream", "stream"
        )
    granularities = [each for each in values.get("timestamp_granularities", ()) if each]
    for each in granularities:
        if each not in ("word", "segment"):
            raise invalid("timestamp_granularities must be word or segment", "timestamp_granularities")
    if granularities and response_format != "verbose_json":
        ignored.append("timestamp_granularities")
    include = values.get("include", [])
    with_logprobs = "logprobs" in include and response_format == "json"
    if any(each and (each != "logprobs" or not with_logprobs) for each in include):
        ignored.append("include")
    vocabulary, is_cut = _vocabulary(values)
    if is_cut:
        ignored.append("prompt")
    model = last("model") or None
    return Parameters(
        model=model,
        config=FileConfig(
            model=models.resolve(model) if model else "",
            language=_language(values),
            vocabulary=vocabulary,
            file_name=_printable(file_name)[-_MAX_FILE_NAME:],
            store=_boolean(last("store"), "store"),
        ),
        response_format=response_format,
        with_segments="segment" in granularities or "word" not in granularities,
        with_words="word" in granularities,
        with_logprobs=with_logprobs,
        is_streamed=is_streamed,
        is_async=not is_streamed and (is_async or _boolean(last("async"), "async")),
        ignored=tuple(dict.fromkeys(map(_shown, ignored)))[:_MAX_IGNORED],
    )


def _language(values: dict[str, list[str]]) -> str:
    """One language is expected; of several each utterance may have another."""
    one = values.get("language", [""])[-1].strip()
    several = list(dict.fromkeys(code_of(each) for each in values.get("languages", ()) if each.strip()))
    if one:
        return code_of(one)
    return several[0] if len(several) == 1 else "auto"


def _vocabulary(values: dict[str, list[str]]) -> tuple[list[str], bool]:
    """The terms, and whether something of a prompt was left out."""
    keywords = [term for each in values.get("keywords", ()) if (term := _one_line(each))]
    if keywords:
        if len(keywords) > MAX_TERMS:
            raise invalid(f"keywords has {len(keywords)} terms, and may have {MAX_TERMS}", "keywords")
        if any(len(term) > MAX_TERM_LENGTH for term in keywords):
            raise invalid(f"a keyword may have {MAX_TERM_LENGTH} characters", "keywords")
        return keywords, False
    # A prompt may be any text, such as the transcript so far: what is no term is left out.
    terms = [term for each in re.split(r"[,\n\r]", " ".join(values.get("prompt", ()))) if (term := _one_line(each))]
    short = [term for term in terms if len(term) <= MAX_TERM_LENGTH]
    return short[:MAX_TERMS], len(short) < len(terms) or len(short) > MAX_TERMS


def _items(value: str) -> list[str]:
    """A list as a JSON array, or one of its items."""
    if value.lstrip().startswith("["):
        try:
            parsed = json.loads(value)
        except (ValueError, RecursionError):
            return [value]
        if isinstance(parsed, list):
            return [each if isinstance(each, str) else json.dumps(each) for each in parsed]
    return [value]


def _boolean(value: str, param: str) -> bool:
    text = value.lower()
    if text not in (*_YES, *_NO):
        raise invalid(f"{param} must be true or false", param)
    return text in _YES


def _base(name: str) -> str:
    found = _BASE.match(name)
    return found[0] if found else name


def _one_line(text: str) -> str:
    return " ".join(_printable(text).split())


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)


def _shown(name: str) -> str:
    return _UNSAFE.sub("?", name[:64])
