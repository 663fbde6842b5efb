from pathlib import Path

import httpx
import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

from server.inference.errors import WeightsError
from server.inference.weights.hub import download


def quiet(_: str) -> None:
    pass


def test_a_repository_is_fetched_without_what_is_not_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}

    def snapshot_download(repository: str, **options: object) -> str:
        asked.update(options, repository=repository)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert download("openai/whisper-tiny", tmp_path / "hub", quiet) == tmp_path
    assert asked["repository"] == "openai/whisper-tiny"
    assert asked["cache_dir"] == tmp_path / "hub"
    patterns = asked["allow_patterns"]
    assert isinstance(patterns, list)
    assert "model.safetensors" in patterns
    assert "pytorch_model.bin" not in patterns


NO_ANSWER = httpx.Response(404, request=httpx.Request("GET", "https://hub.invalid"))


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (LocalEntryNotFoundError("x"), "the hub cannot be reached and nothing of it is in"),
        (RepositoryNotFoundError("x", response=NO_ANSWER), "the hub has no model openai/whisper-tiny"),
        (httpx.ConnectTimeout("x"), r"cannot fetch openai/whisper-tiny from the hub \(ConnectTimeout\)"),
        (
            OSError(28, "No space left on device"),
            "cannot fetch openai/whisper-tiny from the hub: No space left on device",
        ),
    ],
)
def test_what_goes_wrong_is_one_clear_sentence(
    error: Exception, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def snapshot_download(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(WeightsError, match=sentence) as caught:
        download("openai/whisper-tiny", tmp_path, quiet)
    assert "\n" not in str(caught.value)
