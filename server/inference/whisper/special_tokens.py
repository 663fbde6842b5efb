"""The special tokens of one Whisper model, and its languages. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from server.inference.errors import WeightsError

SECONDS_PER_TIMESTAMP = 0.02
"""Timestamp tokens count in steps of 20 ms, which is also one encoder frame."""

_MULTILINGUAL_SIZE = 51865
# Whisper's code for Javanese is `jw`, which ISO 639-1 has withdrawn.
_ISO_TO_WHISPER = {"jv": "jw"}
_WHISPER_TO_ISO = {value: key for key, value in _ISO_TO_WHISPER.items()}


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """Token ids. Text is below `end`; special tokens follow; timestamps are the last, from `first_timestamp` on."""

    size: int
    end: int
    start: int
    transcribe: int | None
    """The task token of a multilingual model."""
    previous: int
    """Introduces preceding text."""
    no_speech: int
    first_timestamp: int
    languages: Mapping[str, int]
    """ISO 639-1 code (639-2 for a few) -> token; empty for a model that knows English only."""
    suppressed: tuple[int, ...]
    """Text tokens that are never decoded: symbols for sounds that are not speech."""
    suppressed_first: tuple[int, ...]
    """Tokens that no text begins with."""
    last_initial_timestamp: int
    """The latest timestamp that a transcript may begin with."""

    @property
    def multilingual(self) -> bool:
        return bool(self.languages)

    @property
    def no_timestamps(self) -> int:
        """Requests a transcript without timestamps."""
        return self.first_timestamp - 1

    @property
    def codes(self) -> tuple[str, ...]:
        """The ISO 639-1 codes of the languages that the model transcribes, in their order."""
        return tuple(sorted(self.languages)) if self.multilingual else ("en",)

    def supports(self, language: str) -> bool:
        return language in self.languages if self.multilingual else language == "en"

    def prompt(self, language: str) -> list[int]:
        """The tokens that request a transcript with timestamps in `language`.

        Raises:
            KeyError: the model does not know the language.
        """
        if self.transcribe is None:
            return [self.start]
        return [self.start, self.languages[language], self.transcribe]


def read_special_tokens(generation_config: Mapping[str, Any], size: int) -> SpecialTokens:
    """The special tokens that a Hugging Face generation_config.json describes, for a model with `size` tokens.

    Raises:
        WeightsError: something Whisper needs is missing from it, or is outside the vocabulary.
    """
    try:
        no_timestamps = int(generation_config["no_timestamps_token_id"])
        multilingual = bool(generation_config.get("is_multilingual", size >= _MULTILINGUAL_SIZE))
        languages = _languages(generation_config["lang_to_id"]) if multilingual else {}
        end = _first(generation_config["eos_token_id"])
        special_tokens = SpecialTokens(
            size=size,
            end=end,
            start=int(generation_config["decoder_start_token_id"]),
            transcribe=int(generation_config["task_to_id"]["transcribe"]) if multilingual else None,
            previous=int(generation_config.get("prev_sot_token_id", no_timestamps - 2)),
            no_speech=no_timestamps - 1,
            first_timestamp=no_timestamps + 1,
            languages=languages,
            suppressed=tuple(token for token in generation_config.get("suppress_tokens") or () if 0 <= token < end),
            suppressed_first=tuple(
                token for token in generation_config.get("begin_suppress_tokens") or () if 0 <= token <= end
            ),
            last_initial_timestamp=no_timestamps + 1 + int(generation_config.get("max_initial_timestamp_index") or 50),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"the model's generation_config.json is not a Whisper model's: {error!r}") from error
    specials = (
        special_tokens.start,
        special_tokens.previous,
        special_tokens.transcribe or special_tokens.start,
        *languages.values(),
    )
    if (
        not 0
        < end
        < min(specials)
        <= max(specials)
        < special_tokens.no_speech
        < special_tokens.last_initial_timestamp
        < size
    ):
        raise WeightsError("the model's generation_config.json names tokens that its vocabulary does not have")
    return special_tokens


def _languages(tokens: Mapping[str, int]) -> dict[str, int]:
    codes = {name.strip("<|>"): int(token) for name, token in tokens.items()}
    return {_WHISPER_TO_ISO.get(code, code): token for code, token in codes.items()}


def _first(value: int | Sequence[int]) -> int:
    return int(value) if isinstance(value, int) else int(value[0])
