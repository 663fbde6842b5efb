"""The calls of openai-python that matter here, each with what it returned, as one JSON object on standard output.

`python openai_python.py BASE_URL KEY FILE`, in an environment that has the package and nothing of this project.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai

BASE_URL, KEY, FILE = sys.argv[1:]
RESULTS: dict[str, Any] = {"version": openai.__version__}
client = openai.OpenAI(base_url=BASE_URL, api_key=KEY, max_retries=0, timeout=120)


def step(name: str, call: Callable[[], Any]) -> None:
    try:
        result = call()
    except openai.APIStatusError as error:
        result = {
            "raised": type(error).__name__,
            "status": error.status_code,
            "code": error.code,
            "param": error.param,
            "message": error.message,
        }
    except openai.APIError as error:
        result = {"raised": type(error).__name__, "code": error.code, "message": error.message}
    RESULTS[name] = result
    print(f"{name}: {json.dumps(result, ensure_ascii=False)}", file=sys.stderr)


def create(**more: Any) -> Any:
    options: dict[str, Any] = {"model": "whisper-1", "file": Path(FILE), **more}
    result = client.audio.transcriptions.create(**options)
    return result if isinstance(result, str) else result.model_dump(mode="json", exclude_none=True)


def raw() -> Any:
    response = client.audio.transcriptions.with_raw_response.create(model="whisper-1", file=Path(FILE), temperature=0.2)
    return {name: response.headers.get(name) for name in ("dalston-ignored", "location", "x-request-id")}


def stream(file: Any = Path(FILE)) -> Any:
    events = client.audio.transcriptions.create(model="gpt-4o-mini-transcribe", file=file, stream=True)
    return [event.model_dump(mode="json", exclude_none=True) for event in events]


def with_key(key: str) -> openai.OpenAI:
    return client.with_options(api_key=key)


for each in ("json", "text", "srt", "vtt", "verbose_json"):
    step(each, lambda each=each: create(response_format=each))
step("words", lambda: create(response_format="verbose_json", timestamp_granularities=["word", "segment"]))
step("logprobs", lambda: create(model="gpt-4o-transcribe", response_format="json", include=["logprobs"]))
step("language and prompt", lambda: create(language="en", prompt="Dalston, Hackney"))
step("bytes without a name", lambda: create(file=Path(FILE).read_bytes()))
step("chunking_strategy", lambda: create(chunking_strategy={"type": "server_vad", "threshold": 0.5}))
step("stream", stream)
step("headers", raw)
step("models", lambda: [model.id for model in client.models.list()])
step("one model", lambda: client.models.retrieve("whisper-1").model_dump(mode="json"))
step("wrong key", lambda: with_key("wrong").audio.transcriptions.create(model="whisper-1", file=Path(FILE)).text)
step("wrong model", lambda: create(model="gpt-5"))
step("unknown model", lambda: client.models.retrieve("gpt-5").model_dump(mode="json"))
step("wrong language", lambda: create(language="klingon"))
step("diarized", lambda: create(response_format="diarized_json"))
step("not audio", lambda: create(file=("a.mp3", b"not audio at all" * 100)))
step("not audio, streamed", lambda: stream(("a.mp3", b"not audio at all" * 100)))
step("empty", lambda: create(file=("a.wav", b"")))
step("translation", lambda: client.audio.translations.create(model="whisper-1", file=Path(FILE)).text)
print(json.dumps(RESULTS, ensure_ascii=False))
