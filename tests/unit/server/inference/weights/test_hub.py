import hashlib
from pathlib import Path

import httpx2
import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

from server.inference.errors import WeightsError
from server.inference.weights.hub import download


def quiet(_: str) -> None:
    pass


def test_only_the_needed_files_of_a_repository_are_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requests: dict[str, object] = {}

    def snapshot_download(repository: str, **options: object) -> str:
        requests.update(options, repository=repository)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert download("openai/whisper-tiny", tmp_path / "hub", quiet) == tmp_path
    assert requests["repository"] == "openai/whisper-tiny"
    assert requests["cache_dir"] == tmp_path / "hub"
    patterns = requests["allow_patterns"]
    assert isinstance(patterns, list)
    assert "model.safetensors" in patterns
    assert "pytorch_model.bin" not in patterns


NO_ANSWER = httpx2.Response(404, request=httpx2.Request("GET", "https://hub.invalid"))


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (LocalEntryNotFoundError("x"), "the hub cannot be reached and nothing of it is in"),
        (RepositoryNotFoundError("x", response=NO_ANSWER), "the hub has no model openai/whisper-tiny"),
        (httpx2.ConnectTimeout("x"), r"cannot fetch openai/whisper-tiny from the hub \(ConnectTimeout\)"),
        (
            OSError(28, "No space left on device"),
            "cannot fetch openai/whisper-tiny from the hub: No space left on device",
        ),
    ],
)
def test_a_failed_download_is_one_clear_sentence(
    error: Exception, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def snapshot_download(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(WeightsError, match=sentence) as caught:
        download("openai/whisper-tiny", tmp_path, quiet)
    assert "\n" not in str(caught.value)


REVISION = "169d4a4341b33bc18d8881c4b69c2e104e1cc0af"
LARGE, SMALL = b"tensors", b"{}"
LARGE_DIGEST = hashlib.sha256(LARGE).hexdigest()
SMALL_DIGEST = hashlib.sha1(b"blob %d\0%s" % (len(SMALL), SMALL)).hexdigest()  # noqa: S324 - git's choice


@pytest.fixture
def fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Lays out the hub's cache as the hub's library does. Returns the list of requested revisions."""
    requests: list[object] = []
    repository = tmp_path / "models--openai--whisper-tiny"
    (repository / "blobs").mkdir(parents=True)

    def snapshot_download(_: str, *, revision: str | None, **__: object) -> str:
        requests.append(revision)
        snapshot = repository / "snapshots" / (revision or REVISION)
        snapshot.mkdir(parents=True, exist_ok=True)
        for name, content, digest in (
            ("model.safetensors", LARGE, LARGE_DIGEST),
            ("config.json", SMALL, SMALL_DIGEST),
        ):
            blob = repository / "blobs" / digest
            if not blob.exists():
                blob.write_bytes(content)
                (snapshot / name).symlink_to(blob)
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return requests


def test_a_restart_requests_the_recorded_revision(tmp_path: Path, fetched: list[object]) -> None:
    assert download("openai/whisper-tiny", tmp_path, quiet) == download("openai/whisper-tiny", tmp_path, quiet)
    assert fetched == [None, REVISION]


def test_a_revision_can_be_named(tmp_path: Path, fetched: list[object]) -> None:
    named = "a" * 40
    assert download(f"openai/whisper-tiny@{named}", tmp_path, quiet).name == named
    assert fetched == [named]


@pytest.mark.parametrize("digest", [LARGE_DIGEST, SMALL_DIGEST])
def test_a_file_that_is_not_the_hubs_is_refused(digest: str, tmp_path: Path, fetched: list[object]) -> None:
    download("openai/whisper-tiny", tmp_path, quiet)
    blob = tmp_path / "models--openai--whisper-tiny" / "blobs" / digest
    blob.write_bytes(blob.read_bytes().swapcase() + b"!")
    with pytest.raises(WeightsError, match="is not the file that the hub has, or is damaged: it is not loaded"):
        download("openai/whisper-tiny", tmp_path, quiet)
