"""The body of an answer in each format, made of the utterances of a job."""

import json
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from dalston.v1.job_pb2 import Job
from dalston.v1.session_pb2 import Utterance
from google.protobuf.json_format import MessageToDict

from domain import transcript
from domain.captions import CaptionOptions
from domain.export import Renderer, SrtRenderer, VttRenderer
from uploads.languages import name_of
from uploads.parameters import Parameters

_LEAST_CONFIDENCE: Final = 1e-10
"""JSON has no infinity: the logarithm of a confidence of 0 is that of this."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The body of a response, and its media type."""

    text: str
    content_type: str


def answer(parameters: Parameters, job: Job, utterances: Sequence[Utterance]) -> Answer:
    """The answer for a job that has ended, in the format that the request asks for."""
    return _FORMATS[parameters.response_format](parameters, job, utterances)


def job_as_json(job: Job) -> str:
    """A job as `GET /v1/jobs/{id}` returns it."""
    fields = MessageToDict(job, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    return json.dumps(fields, ensure_ascii=False)


def whole_text(utterances: Sequence[Utterance]) -> str:
    """The text of all utterances."""
    return " ".join(text for each in utterances if (text := each.text.strip()))


def logprobs(utterance: Utterance, *, is_first: bool) -> list[dict[str, Any]]:
    """One entry for each word: the tokens of all utterances joined are the text.

    An utterance without words has one entry for each word of its text, all with the utterance's confidence.
    """
    words = [(word.word, word.confidence) for word in utterance.words] or [
        (word, utterance.confidence) for word in utterance.text.split()
    ]
    entries = []
    for number, (word, confidence) in enumerate(words):
        token = word.strip() if is_first and number == 0 else f" {word.strip()}"
        entries.append({"token": token, "bytes": list(token.encode()), "logprob": _logarithm(confidence)})
    return entries


def all_logprobs(utterances: Sequence[Utterance]) -> list[dict[str, Any]]:
    """The entries of all utterances."""
    spoken = [each for each in utterances if each.text.strip()]
    return [entry for number, each in enumerate(spoken) for entry in logprobs(each, is_first=number == 0)]


def _json(parameters: Parameters, job: Job, utterances: Sequence[Utterance]) -> Answer:
    body: dict[str, Any] = {"text": whole_text(utterances)}
    if parameters.with_logprobs:
        body["logprobs"] = all_logprobs(utterances)
    if codes := dict.fromkeys(each.language for each in utterances if each.language):
        body["languages"] = [{"code": code} for code in codes]
    return _as_json({**body, "usage": _usage(job)})


def _text(_parameters: Parameters, _job: Job, utterances: Sequence[Utterance]) -> Answer:
    return Answer(f"{whole_text(utterances)}\n", "text/plain")


def _captions(renderer: Renderer, utterances: Sequence[Utterance]) -> Answer:
    pieces = [renderer.begin(), *(renderer.push(_domain(each)) for each in utterances), renderer.end()]
    return Answer("".join(pieces), renderer.content_type)


def _srt(_parameters: Parameters, _job: Job, utterances: Sequence[Utterance]) -> Answer:
    return _captions(SrtRenderer(CaptionOptions()), utterances)


def _vtt(_parameters: Parameters, _job: Job, utterances: Sequence[Utterance]) -> Answer:
    return _captions(VttRenderer(CaptionOptions()), utterances)


def _verbose_json(parameters: Parameters, job: Job, utterances: Sequence[Utterance]) -> Answer:
    body: dict[str, Any] = {
        "task": "transcribe",
        "language": name_of(_main_language(job, utterances)),
        "duration": job.audio_duration_seconds,
        "text": whole_text(utterances),
    }
    if parameters.with_segments:
        body["segments"] = [_segment(number, each) for number, each in enumerate(utterances)]
    if parameters.with_words:
        body["words"] = [
            {"word": word.word, "start": word.start, "end": word.end} for each in utterances for word in each.words
        ]
    return _as_json({**body, "usage": _usage(job)})


def _segment(number: int, utterance: Utterance) -> dict[str, Any]:
    # The text begins with a space, as Whisper's segments do: clients join them.
    text = f" {utterance.text.strip()}"
    encoded = text.encode()
    return {
        "id": number,
        "seek": 0,
        "start": utterance.start,
        "end": utterance.end,
        "text": text,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": _logarithm(utterance.confidence),
        "compression_ratio": len(encoded) / len(zlib.compress(encoded)),
        "no_speech_prob": 0.0,
    }


def _main_language(job: Job, utterances: Sequence[Utterance]) -> str:
    """The language of most of the speech; without speech the one asked for."""
    seconds: dict[str, float] = {}
    for each in utterances:
        if each.language:
            seconds[each.language] = seconds.get(each.language, 0.0) + max(0.0, each.end - each.start)
    if seconds:
        return max(seconds, key=lambda code: seconds[code])
    return job.language if job.language and job.language != "auto" else "en"


def _usage(job: Job) -> dict[str, Any]:
    return {"type": "duration", "seconds": job.audio_duration_seconds}


def _logarithm(confidence: float) -> float:
    return math.log(min(1.0, max(_LEAST_CONFIDENCE, confidence)))


def _domain(utterance: Utterance) -> transcript.Utterance:
    words = tuple(transcript.TimedWord(word.word, word.start, word.end, word.confidence) for word in utterance.words)
    return transcript.Utterance(
        utterance.start, utterance.end, utterance.text, utterance.confidence, utterance.language, words=words
    )


def _as_json(body: dict[str, Any]) -> Answer:
    return Answer(json.dumps(body, ensure_ascii=False), "application/json")


_FORMATS: Final[Mapping[str, Callable[[Parameters, Job, Sequence[Utterance]], Answer]]] = {
    "json": _json,
    "text": _text,
    "srt": _srt,
    "vtt": _vtt,
    "verbose_json": _verbose_json,
}
