from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.inference.errors import WeightsError
from server.inference.weights.ct2_format import read_ct2

Write = Callable[..., Path]
TENSORS = {
    "a/weight": np.arange(12, dtype="<f4").reshape(3, 4),
    "b/scalar": np.array(6, dtype="<i2"),
    "c/quantised": np.arange(-4, 4, dtype="i1").reshape(2, 4),
}


@pytest.mark.parametrize("version", [2, 3, 4, 5, 6])
def test_every_version_is_read_back_as_written(version: int, tmp_path: Path, write_ct2_model: Write) -> None:
    model = read_ct2(write_ct2_model(tmp_path / "model.bin", TENSORS, {"alias": "a/weight"}, version=version))
    assert model.specification == "WhisperSpec"
    assert model.revision == 3
    for name, tensor in TENSORS.items():
        np.testing.assert_array_equal(model.tensors[name], tensor)
    if version >= 3:
        np.testing.assert_array_equal(model.tensors["alias"], TENSORS["a/weight"])


def test_a_file_cut_off_anywhere_is_one_clear_error(tmp_path: Path, write_ct2_model: Write) -> None:
    path = write_ct2_model(tmp_path / "model.bin", TENSORS, {"alias": "a/weight"})
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(WeightsError, match="truncated or damaged"):
            read_ct2(path)


def test_bytes_after_the_end_are_an_error(tmp_path: Path, write_ct2_model: Write) -> None:
    path = write_ct2_model(tmp_path / "model.bin", TENSORS)
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(WeightsError, match="is damaged"):
        read_ct2(path)


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n" * 8, b"\0" * 64, b"\xff" * 64])
def test_another_kind_of_file_is_an_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(content)
    with pytest.raises(WeightsError):
        read_ct2(path)


@given(position=st.integers(0, 10_000), value=st.integers(0, 255))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_flipped_byte_never_does_more_than_raise(
    position: int, value: int, tmp_path: Path, write_ct2_model: Write
) -> None:
    path = write_ct2_model(tmp_path / "model.bin", TENSORS, {"alias": "a/weight"})
    content = bytearray(path.read_bytes())
    content[position % len(content)] = value
    path.write_bytes(content)
    try:
        model = read_ct2(path)
    except WeightsError:
        return
    assert sum(tensor.nbytes for tensor in model.tensors.values()) <= 2 * len(content)
