"""Reads a Hugging Face Whisper directory without transformers.

Importing transformers takes four seconds and a hundred megabytes, and with our own forward pass it would only read four
files.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Tokenizer

from server.inference.errors import WeightsError
from server.inference.whisper.special_tokens import SpecialTokens, read_special_tokens


class WhisperShape(BaseModel, frozen=True):
    """The sizes of a model, under their names in config.json."""

    vocab_size: int
    d_model: int
    num_mel_bins: int
    encoder_layers: int
    decoder_layers: int
    encoder_attention_heads: int
    decoder_attention_heads: int
    max_source_positions: int
    """Encoder frames, of 20 ms, in the full window."""
    max_target_positions: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model as it is stored on disk."""

    shape: WhisperShape
    special_tokens: SpecialTokens
    tokenizer: Tokenizer
    tensors: dict[str, torch.Tensor]
    """Named as in `WhisperForConditionalGeneration`'s state dict, without the leading `model.`."""
    alignment_heads: tuple[tuple[int, int], ...]
    """Layer and number of the decoder heads whose attention follows the speech."""

    def tensor(self, name: str) -> torch.Tensor:
        """The tensor `name`.

        Raises:
            WeightsError: the checkpoint lacks it.
        """
        try:
            return self.tensors[name]
        except KeyError:
            raise WeightsError(f"the model lacks the tensor {name}") from None


def read_checkpoint(directory: Path) -> Checkpoint:
    """Reads the directory; the tensors stay at their stored precision.

    Raises:
        WeightsError: a file is missing, damaged or not of a Whisper model.
    """
    try:
        shape = WhisperShape.model_validate_json((directory / "config.json").read_bytes())
        generation = json.loads((directory / "generation_config.json").read_bytes())
        tensors = _read_tensors(directory)
        tokenizer = _read_tokenizer(directory / "tokenizer.json")
    except (OSError, ValidationError, ValueError, KeyError, SafetensorError) as error:
        raise WeightsError(f"the model in {directory} is damaged or incomplete: {_first_line(error)}") from error
    special_tokens = read_special_tokens(generation, shape.vocab_size)
    return Checkpoint(shape, special_tokens, tokenizer, tensors, _alignment_heads(generation, shape))


def _alignment_heads(generation_config: Mapping[str, Any], shape: WhisperShape) -> tuple[tuple[int, int], ...]:
    """The heads that the model names; for a model that names none, all heads of the upper half of its layers.

    Raises:
        WeightsError: it names heads that it does not have.
    """
    layers, heads = shape.decoder_layers, shape.decoder_attention_heads
    named = generation_config.get("alignment_heads")
    if not named:
        return tuple((layer, head) for layer in range(layers // 2, layers) for head in range(heads))
    try:
        chosen = tuple((int(layer), int(head)) for layer, head in named)
    except (TypeError, ValueError) as error:
        raise WeightsError(f"the model's generation_config.json has no usable alignment_heads: {error!r}") from error
    if not all(0 <= layer < layers and 0 <= head < heads for layer, head in chosen):
        raise WeightsError("the model's generation_config.json names alignment_heads that the model does not have")
    return chosen


def _read_tensors(directory: Path) -> dict[str, torch.Tensor]:
    index = directory / "model.safetensors.index.json"
    single = directory / "model.safetensors"
    names = [single.name] if single.is_file() else sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    tensors: dict[str, torch.Tensor] = {}
    for name in names:
        tensors.update(load_file(directory / name))
    return {name.removeprefix("model."): tensor for name, tensor in tensors.items()}


def _read_tokenizer(path: Path) -> Tokenizer:
    content = path.read_bytes()
    try:
        return Tokenizer.from_buffer(content)
    except Exception as error:  # the Rust library raises bare Exception
        raise ValueError(f"{path.name}: {_first_line(error)}") from error


def _first_line(error: Exception) -> Any:
    return (str(error) or type(error).__name__).splitlines()[0]
