"""Invalid arguments are rejected before anything is sent."""

from pathlib import Path
from typing import Any

import pytest
from dalston import Client, InvalidRequest, Microphone, TranscribeOptions
from dalston.endpoint import find_endpoint
from dalston.options import Behaviour
from dalston.v1.transcription_pb2 import TranscribeConfig


def test_every_parameter_of_the_api_is_an_option() -> None:
    own = set(Behaviour.__dataclass_fields__)
    assert set(TranscribeOptions.__annotations__) - own == set(TranscribeConfig.DESCRIPTOR.fields_by_name) - {"acks"}


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"langauge": "en"}, TypeError),
        ({"language": 7}, TypeError),
        ({"vocabulary": "Dalston"}, TypeError),
        ({"pace": 0}, ValueError),
        ({"transport": "pigeon"}, ValueError),
        ({"max_kept_seconds": 10}, ValueError),
        ({"wait": -1}, ValueError),
        ({"sample_rate": 1 << 40}, ValueError),
    ],
)
def test_invalid_option_is_rejected_immediately(options: dict[str, Any], error: type[Exception]) -> None:
    with Client() as client, pytest.raises(error):
        client.transcribe(b"", **options)


@pytest.mark.parametrize(
    ("audio", "options", "error"),
    [
        (b"no wav", {}, InvalidRequest),
        (b"", {}, InvalidRequest),
        (b"RIFF....WAVE", {"sample_rate": 8000}, ValueError),
        (iter([b""]), {"encoding": "mp3"}, ValueError),
        (iter([b""]), {"sample_rate": 100}, ValueError),
        (17, {}, TypeError),
        (Microphone(), {"sample_rate": 8000}, ValueError),
        (Path("/nowhere/at/all.wav"), {}, OSError),
    ],
)
def test_invalid_audio_is_rejected_before_connecting(audio: Any, options: Any, error: type[Exception]) -> None:
    with Client("http://127.0.0.1:9") as client, pytest.raises(error):
        list(client.transcribe(audio, **options))


def test_environment_sets_url_and_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DALSTON_URL", raising=False)
    monkeypatch.delenv("DALSTON_API_KEY", raising=False)
    assert find_endpoint(None, None, None).address == "127.0.0.1:8000"
    monkeypatch.setenv("DALSTON_URL", "https://speech.example")
    monkeypatch.setenv("DALSTON_API_KEY", "k1")
    endpoint = find_endpoint(None, None, None)
    assert (endpoint.address, endpoint.is_secure, endpoint.api_key) == ("speech.example:443", True, "k1")
    assert not endpoint.is_loopback
    endpoint = find_endpoint("http://[::1]:81/", "k2", None)
    assert (endpoint.address, endpoint.is_secure, endpoint.api_key) == ("[::1]:81", False, "k2")
    assert endpoint.is_loopback
    assert "k2" not in repr(endpoint)


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://a", "http://", "http://a:0", "http://a:99999", "http://a/v1", "http://u@a"]
)
def test_malformed_url_is_rejected(url: str) -> None:
    with pytest.raises(ValueError, match="URL"):
        find_endpoint(url, None, None)


def test_malformed_key_is_rejected_without_being_shown() -> None:
    with pytest.raises(ValueError, match="key") as error:
        find_endpoint("http://a", "se cret\n", None)
    assert "cret" not in str(error.value)
