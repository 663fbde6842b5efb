"""Converted weights against the model they were made from."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from server.inference.errors import WeightsError
from server.inference.weights.conversion import Ct2Source, convert
from server.inference.weights.ct2_tensors import hugging_face_tensors

Tensors = Callable[..., dict[str, NDArray[Any]]]


def source(directory: Path, *parts: str) -> Ct2Source:
    files = tuple(directory / part for part in parts or ("model.bin",))
    return Ct2Source("small", "1", files, directory / "config.json", directory / "tokenizer.json")


def original(small_whisper: Any) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = small_whisper.model.state_dict()
    return {name: value for name, value in state.items() if name != "proj_out.weight"}


def as_half(name: str, values: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    return {name: values.astype("<f2")}


def as_bfloat16(name: str, values: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    return {name: torch.from_numpy(values).bfloat16().view(torch.int16).numpy().view("<u2")}


def as_int8(name: str, values: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    if values.ndim != 2 or "position" in name:
        return {name: values}
    scale = (127 / np.abs(values).max(axis=1)).astype("<f4")
    return {name: np.round(values * scale[:, None]).astype("i1"), f"{name}_scale": scale}


def as_int16(name: str, values: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    if values.ndim != 2 or "position" in name:
        return {name: values}
    scale = np.float32(1000)
    return {name: np.round(values * scale).astype("<i2"), f"{name}_scale": np.array(scale)}


def test_every_float32_tensor_is_the_original(small_whisper: Any, ct2_tensors: Tensors) -> None:
    converted = hugging_face_tensors(ct2_tensors())
    expected = original(small_whisper)
    assert converted.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(converted[name], tensor, rtol=0, atol=0)


@pytest.mark.parametrize(("store", "dtype"), [(as_half, torch.float16), (as_bfloat16, torch.bfloat16)])
def test_every_half_precision_tensor_keeps_its_bits(
    store: Callable[..., Any], dtype: torch.dtype, small_whisper: Any, ct2_tensors: Tensors
) -> None:
    converted = hugging_face_tensors(ct2_tensors(store))
    for name, tensor in original(small_whisper).items():
        torch.testing.assert_close(converted[name], tensor.to(dtype), rtol=0, atol=0)


@pytest.mark.parametrize("store", [as_int8, as_int16])
def test_quantised_tensors_are_restored_within_a_step(
    store: Callable[..., Any], small_whisper: Any, ct2_tensors: Tensors
) -> None:
    converted = hugging_face_tensors(ct2_tensors(store))
    for name, tensor in original(small_whisper).items():
        torch.testing.assert_close(converted[name].float(), tensor, rtol=0, atol=0.006)


def test_transformers_loads_what_was_converted(small_whisper: Any, ct2_directory: Path, tmp_path: Path) -> None:
    from transformers import WhisperForConditionalGeneration  # as in conftest.py

    target = tmp_path / "hf"
    target.mkdir()
    convert(source(ct2_directory), target)
    loaded = WhisperForConditionalGeneration.from_pretrained(target, dtype=torch.float32)
    for name, tensor in small_whisper.model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], tensor, rtol=0, atol=0)
    assert loaded.generation_config.lang_to_id == {"<|en|>": 50259}


def test_a_model_in_pieces_is_joined_without_temporary_files(ct2_directory: Path, tmp_path: Path) -> None:
    whole = (ct2_directory / "model.bin").read_bytes()
    (ct2_directory / "1").write_bytes(whole[:1000])
    (ct2_directory / "2").write_bytes(whole[1000:])
    outputs = []
    for name, parts in (("whole", ("model.bin",)), ("joined", ("1", "2"))):
        target = tmp_path / name
        target.mkdir()
        convert(source(ct2_directory, *parts), target)
        outputs.append({path.name: path.read_bytes() for path in target.iterdir()})
    assert outputs[0] == outputs[1]


def test_the_tokenizer_gets_the_timestamps_that_it_lacks(ct2_directory: Path, tmp_path: Path) -> None:
    convert(source(ct2_directory), tmp_path)
    tokens = {
        token["content"]: token["id"] for token in json.loads((tmp_path / "tokenizer.json").read_text())["added_tokens"]
    }
    assert tokens["<|0.00|>"] == 50364
    assert tokens["<|30.00|>"] == 51864


def test_float_weights_stay_at_their_precision(ct2_directory: Path, tmp_path: Path) -> None:
    convert(source(ct2_directory), tmp_path)
    assert {tensor.dtype for tensor in load_file(tmp_path / "model.safetensors").values()} == {torch.float32}


def test_a_missing_tensor_is_named(ct2_tensors: Tensors) -> None:
    tensors = ct2_tensors()
    del tensors["decoder/layer_1/ffn/linear_1/bias"]
    with pytest.raises(WeightsError, match="decoder/layer_1/ffn/linear_1/bias"):
        hugging_face_tensors(tensors)


def test_a_model_without_any_whisper_tensor_is_refused(
    tmp_path: Path, ct2_directory: Path, write_ct2_model: Any
) -> None:
    write_ct2_model(ct2_directory / "model.bin", {"x": np.zeros(3, "<f4")})
    with pytest.raises(WeightsError, match="no Whisper model"):
        convert(source(ct2_directory), tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"alignment_heads": 3}'])
def test_a_config_of_another_kind_is_refused(content: str, tmp_path: Path, ct2_directory: Path) -> None:
    (ct2_directory / "config.json").write_text(content)
    with pytest.raises(WeightsError, match=r"config\.json"):
        convert(source(ct2_directory), tmp_path)
