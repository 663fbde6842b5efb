"""Parts that are read from the spool while they are sent."""

import io
from pathlib import Path

import pytest

from persistence.s3.spooled_part import SpooledPart


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "audio.00001"
    path.write_bytes(bytes(range(200)))
    return path


@pytest.mark.parametrize("step", [1, 7, 64, 1000])
@pytest.mark.parametrize(("before", "after"), [(b"", b""), (b"header", b"\0")])
def test_a_part_reads_as_its_range_with_the_bytes_around_it(file: Path, step: int, before: bytes, after: bytes) -> None:
    part = SpooledPart(file, 50, 100, before, after)
    with part.open() as reader:
        data = b"".join(iter(lambda: reader.read(step), b""))
    assert data == before + bytes(range(50, 150)) + after
    assert len(part) == len(data)


def test_a_part_has_a_length_and_is_seekable(file: Path) -> None:
    with SpooledPart(file, 50, 100, b"header", b"\0").open() as reader:
        assert reader.seek(0, io.SEEK_END) == 107
        assert reader.read(10) == b""
        assert reader.seek(4) == reader.tell() == 4
        assert reader.read() == b"er" + bytes(range(50, 150)) + b"\0"


def test_a_part_without_audio_needs_no_file(tmp_path: Path) -> None:
    with SpooledPart(tmp_path / "none", 0, 0, b"header").open() as reader:
        assert reader.read() == b"header"


@pytest.mark.parametrize("size", [151, 300])
def test_a_part_with_missing_audio_cannot_be_opened(file: Path, size: int) -> None:
    with pytest.raises(FileNotFoundError):
        SpooledPart(file, 50, size).open()
    with pytest.raises(FileNotFoundError):
        SpooledPart(file.with_name("gone"), 0, size).open()
