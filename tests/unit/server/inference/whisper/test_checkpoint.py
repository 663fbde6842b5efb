import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from server.inference.errors import WeightsError
from server.inference.whisper.checkpoint import read_checkpoint


@pytest.fixture
def directory(small_whisper: Any, tmp_path: Path) -> Path:
    saved: Path = small_whisper.save(tmp_path / "hf")
    return saved


def test_every_tensor_is_read_at_its_stored_precision(directory: Path, small_whisper: Any) -> None:
    checkpoint = read_checkpoint(directory)
    for name, tensor in small_whisper.model.model.state_dict().items():
        torch.testing.assert_close(checkpoint.tensor(name), tensor, rtol=0, atol=0)


def test_a_checkpoint_in_shards_is_read_like_one_file(directory: Path) -> None:
    single = directory / "model.safetensors"
    tensors = load_file(single)
    names = sorted(tensors)
    shards = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, part in shards.items():
        save_file({name: tensors[name] for name in part}, directory / file)
    weight_map = {name: file for file, part in shards.items() for name in part}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    expected = read_checkpoint(directory).tensors
    single.unlink()
    sharded = read_checkpoint(directory).tensors
    assert sharded.keys() == expected.keys()
    assert all(torch.equal(sharded[name], expected[name]) for name in expected)


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer.json", "model.safetensors"])
@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\x00garbage"])
def test_a_damaged_file_is_one_clear_error(name: str, content: bytes, directory: Path) -> None:
    (directory / name).write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        read_checkpoint(directory).tensor("encoder.conv1.weight")
    assert "\n" not in str(caught.value)


def test_a_truncated_safetensors_file_is_one_clear_error(directory: Path) -> None:
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(WeightsError, match="damaged or incomplete"):
        read_checkpoint(directory)


def configure(directory: Path, **fields: Any) -> None:
    file = directory / "generation_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def test_the_alignment_heads_are_those_the_model_names(directory: Path) -> None:
    configure(directory, alignment_heads=[[0, 1], [1, 0]])
    assert read_checkpoint(directory).alignment_heads == ((0, 1), (1, 0))


def test_without_named_alignment_heads_the_upper_half_is_used(directory: Path) -> None:
    assert read_checkpoint(directory).alignment_heads == ((1, 0), (1, 1))


@pytest.mark.parametrize("heads", [[[2, 0]], [[0, 2]], [[-1, 0]], [1, 2], "all", [[0]]])
def test_impossible_alignment_heads_are_one_clear_error(heads: Any, directory: Path) -> None:
    configure(directory, alignment_heads=heads)
    with pytest.raises(WeightsError, match="alignment_heads"):
        read_checkpoint(directory)
