import errno
import os
from pathlib import Path

import pytest

from server.inference.errors import WeightsError
from server.inference.weights import cache
from server.inference.weights.cache import converted
from server.inference.weights.conversion import Ct2Source
from server.inference.weights.digest import sha256_of


def quiet(_: str) -> None:
    pass


@pytest.fixture
def source(tmp_path: Path) -> Ct2Source:
    part = tmp_path / "model.bin"
    part.write_bytes(b"weights")
    return Ct2Source("small", "1", (part,), part, part)


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Replaces the conversion by one that writes one file. Returns the list of its targets."""
    targets: list[Path] = []

    def convert(_: Ct2Source, target: Path) -> None:
        targets.append(target)
        (target / "config.json").write_text("{}")

    monkeypatch.setattr(cache, "convert", convert)
    return targets


def test_weights_are_converted_once(source: Ct2Source, tmp_path: Path, conversions: list[Path]) -> None:
    first, second = converted(source, tmp_path, quiet), converted(source, tmp_path, quiet)
    assert first == second
    assert (first / "config.json").read_text() == "{}"
    assert len(conversions) == 1


def test_changed_weights_are_converted_again(source: Ct2Source, tmp_path: Path, conversions: list[Path]) -> None:
    changed = Ct2Source("small", "2", source.parts, source.config, source.tokenizer)
    assert converted(source, tmp_path, quiet) != converted(changed, tmp_path, quiet)


def test_a_conversion_that_fails_leaves_nothing(
    source: Ct2Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Ct2Source, target: Path) -> None:
        (target / "model.safetensors").write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cache, "convert", fail)
    with pytest.raises(WeightsError, match="the disk is full"):
        converted(source, tmp_path, quiet)
    assert [path.name for path in (tmp_path / "weights").iterdir() if path.is_dir()] == []


def test_files_of_a_killed_process_are_not_used_and_removed(
    source: Ct2Source, tmp_path: Path, conversions: list[Path]
) -> None:
    entry = converted(source, tmp_path, quiet)
    abandoned = entry.with_name(f".{entry.name}-dead")
    entry.rename(abandoned)
    assert converted(source, tmp_path, quiet) == entry
    assert len(conversions) == 2
    assert not abandoned.exists()


def test_an_entry_that_was_cut_off_is_rebuilt(source: Ct2Source, tmp_path: Path, conversions: list[Path]) -> None:
    entry = converted(source, tmp_path, quiet)
    (entry / "config.json").write_text("")
    converted(source, tmp_path, quiet)
    assert (entry / "config.json").read_text() == "{}"
    assert len(conversions) == 2


def test_an_entry_that_was_changed_is_rebuilt(source: Ct2Source, tmp_path: Path, conversions: list[Path]) -> None:
    entry = converted(source, tmp_path, quiet)
    (entry / "config.json").write_text("[]")
    converted(source, tmp_path, quiet)
    assert (entry / "config.json").read_text() == "{}"
    assert len(conversions) == 2


def test_a_source_that_does_not_match_its_digests_is_refused(tmp_path: Path, conversions: list[Path]) -> None:
    part, other = tmp_path / "model.bin", tmp_path / "config.json"
    part.write_bytes(b"weights")
    other.write_bytes(b"{}")
    known = (sha256_of(part), sha256_of(other), sha256_of(other))
    source = Ct2Source("small", "1", (part,), other, other, known)
    part.write_bytes(b"Weights")
    with pytest.raises(WeightsError, match=r"model\.bin is not the file that the model small is known to have"):
        converted(source, tmp_path, quiet)
    assert conversions == []
    part.write_bytes(b"weights")
    converted(source, tmp_path, quiet)
    assert len(conversions) == 1


def test_too_little_disk_space_is_reported_before_anything_is_written(
    source: Ct2Source, tmp_path: Path, conversions: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = cache.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: usage._replace(free=1 << 20))
    with pytest.raises(WeightsError, match="it takes 16 MiB, 1 are free"):
        converted(source, tmp_path, quiet)
    assert conversions == []


def test_a_cache_that_cannot_be_written_is_one_clear_error(source: Ct2Source, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WeightsError, match="cannot convert small into"):
        converted(source, tmp_path / "file", quiet)


def test_progress_is_reported_only_if_there_is_work(source: Ct2Source, tmp_path: Path, conversions: list[Path]) -> None:
    lines: list[str] = []
    converted(source, tmp_path, lines.append)
    assert lines == ["converting small (once)", "converted small"]
    converted(source, tmp_path, lines.append)
    assert len(lines) == 2
