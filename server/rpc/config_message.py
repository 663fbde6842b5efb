"""Conversion between TranscribeConfig and the options of a session."""

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

from dalston.v1.transcription_pb2 import SessionBegin, SessionConfig, SessionLimits, TranscribeConfig

from domain.job import DEFAULT_MODEL
from domain.session_id import format_session_id
from server.audio.format import AudioFormat, Encoding
from server.rpc.language_tag import language_of
from server.session.errors import InvalidModel, InvalidParameter
from server.session.options import AUTO, SessionOptions, VadOptions

_MAX_TERMS, _MAX_TERM_LENGTH = 100, 50
_MAX_SHOWN = 40


class ModelCatalog(Protocol):
    """The models and the languages that they support."""

    @property
    def models(self) -> frozenset[str]: ...

    def supports(self, model: str, language: str) -> bool: ...


def parse_config(config: TranscribeConfig, catalog: ModelCatalog) -> SessionOptions:
    """Checks a config and fills in its defaults.

    Raises:
        InvalidParameter, InvalidModel: a value is wrong.
    """
    defaults, vad_defaults, audio_defaults = SessionOptions(), VadOptions(), AudioFormat()
    model = parse_model(config.model or defaults.model, catalog)
    options = SessionOptions(
        language=parse_language(config.language, model, catalog),
        model=model,
        audio=AudioFormat(
            encoding=_encoding(config.encoding),
            sample_rate=config.sample_rate if config.HasField("sample_rate") else audio_defaults.sample_rate,
            channels=config.channels if config.HasField("channels") else audio_defaults.channels,
        ),
        vad=VadOptions(
            threshold=config.vad_threshold if config.HasField("vad_threshold") else vad_defaults.threshold,
            min_speech_ms=(
                config.min_speech_duration_ms
                if config.HasField("min_speech_duration_ms")
                else vad_defaults.min_speech_ms
            ),
            min_silence_ms=(
                config.min_silence_duration_ms
                if config.HasField("min_silence_duration_ms")
                else vad_defaults.min_silence_ms
            ),
            max_utterance_seconds=(
                config.max_utterance_duration
                if config.HasField("max_utterance_duration")
                else vad_defaults.max_utterance_seconds
            ),
        ),
        bias_terms=parse_vocabulary(config.vocabulary),
        words=config.word_timestamps,
        vad_events=config.enable_vad if config.HasField("enable_vad") else defaults.vad_events,
        partials=config.interim_results if config.HasField("interim_results") else defaults.partials,
        acks=config.acks,
    )
    _check_combinations(config)
    if config.enhance_on_end:
        _check_enhancement(config, catalog)
    return options


def parse_model(model: str, catalog: ModelCatalog) -> str:
    """The name of a model.

    Raises:
        InvalidModel: there is none of this name.
    """
    if model not in catalog.models:
        raise InvalidModel(f"no model {quoted(model)}: use one of {', '.join(sorted(catalog.models))}")
    return model


def parse_vocabulary(terms: Sequence[str]) -> tuple[str, ...]:
    """The words that a client expects.

    Raises:
        InvalidParameter: there are too many, or one is empty or too long.
    """
    if len(terms) > _MAX_TERMS:
        raise InvalidParameter("vocabulary", f"has {len(terms)} terms, at most {_MAX_TERMS} are allowed")
    if any(not 0 < len(term) <= _MAX_TERM_LENGTH for term in terms):
        raise InvalidParameter("vocabulary", f"a term must have 1 to {_MAX_TERM_LENGTH} characters")
    return tuple(terms)


def parse_language(language: str, model: str, catalog: ModelCatalog) -> str:
    """The language code for `language`, which may be empty, or a tag such as `en-US`.

    Raises:
        InvalidParameter: the model does not support it.
    """
    code = language_of(language or AUTO)
    if not catalog.supports(model, code):
        raise InvalidParameter(
            "language",
            f"model {model} does not know {quoted(language)}: use an ISO 639-1 code, a tag such as en-US, or auto",
        )
    return code


def begin_message(session_id: UUID, options: SessionOptions, limits: SessionLimits) -> SessionBegin:
    """The answer to an accepted config."""
    return SessionBegin(
        session_id=format_session_id(session_id),
        config=SessionConfig(
            sample_rate=options.audio.sample_rate,
            encoding=options.audio.encoding,
            channels=options.audio.channels,
            language=options.language,
            model=options.model,
        ),
        limits=limits,
    )


def quoted(value: str) -> str:
    """Text of a client, quoted and shortened, for an error message."""
    return repr(value if len(value) <= _MAX_SHOWN else value[:_MAX_SHOWN] + "…")


def _encoding(name: str) -> Encoding:
    try:
        return Encoding(name) if name else AudioFormat().encoding
    except ValueError:
        raise InvalidParameter("encoding", f"must be one of {', '.join(Encoding)}, is {quoted(name)}") from None


def _check_combinations(config: TranscribeConfig) -> None:
    if config.enhance_on_end and not config.store_audio:
        raise InvalidParameter("enhance_on_end", "needs store_audio")
    if config.HasField("resume_from_seconds"):
        if not config.resume_session_id:
            raise InvalidParameter("resume_from_seconds", "needs resume_session_id")
        if not config.resume_from_seconds >= 0:
            raise InvalidParameter("resume_from_seconds", "must not be negative")


def _check_enhancement(config: TranscribeConfig, catalog: ModelCatalog) -> None:
    """Checks whether this server has the model of the batch job; workers have models of their own."""
    if DEFAULT_MODEL not in catalog.models:
        raise InvalidParameter("enhance_on_end", f"needs the model {DEFAULT_MODEL}, which this server does not have")
    parse_language(config.language, DEFAULT_MODEL, catalog)
