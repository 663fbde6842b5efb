"""Converts a Hugging Face Whisper directory to whisper.cpp's file format, in half precision.

The format: sizes; the mel filters; the bytes of every token; then every tensor with its number of dimensions, the
length of its name, its type, its dimensions from the last to the first, its name and its values. Numbers are
little-endian and of 32 bits.
"""

import json
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from server.inference.torchaudio_compat import torchaudio

MAGIC = 0x67676D6C
FLOAT32, FLOAT16 = 0, 1
BINS = 201
SIZES = (
    "vocab_size",
    "max_source_positions",
    "d_model",
    "encoder_attention_heads",
    "encoder_layers",
    "max_target_positions",
    "d_model",
    "decoder_attention_heads",
    "decoder_layers",
    "num_mel_bins",
)
NAMES = {
    "model.encoder.embed_positions.weight": "encoder.positional_embedding",
    "model.decoder.embed_positions.weight": "decoder.positional_embedding",
    "model.decoder.embed_tokens.weight": "decoder.token_embedding.weight",
}
PARTS = {
    "model.": "",
    ".layers.": ".blocks.",
    "encoder.layer_norm.": "encoder.ln_post.",
    "decoder.layer_norm.": "decoder.ln.",
    ".self_attn_layer_norm.": ".attn_ln.",
    ".encoder_attn_layer_norm.": ".cross_attn_ln.",
    ".final_layer_norm.": ".mlp_ln.",
    ".self_attn.": ".attn.",
    ".encoder_attn.": ".cross_attn.",
    ".q_proj.": ".query.",
    ".k_proj.": ".key.",
    ".v_proj.": ".value.",
    ".out_proj.": ".out.",
    ".fc1.": ".mlp.0.",
    ".fc2.": ".mlp.2.",
}
"""Parts of a tensor's name in Hugging Face's and in whisper.cpp's naming."""


def write_ggml(directory: Path, target: Path) -> None:
    config = json.loads((directory / "config.json").read_bytes())
    tensors = load_file(directory / "model.safetensors")
    with target.open("wb") as file:
        _write_numbers(file, MAGIC, *(config[name] for name in SIZES), FLOAT16)
        filters = _mel_filters(config["num_mel_bins"])
        _write_numbers(file, *filters.shape)
        file.write(filters.tobytes())
        tokens = _tokens(directory)
        _write_numbers(file, len(tokens))
        for token in tokens:
            _write_numbers(file, len(token))
            file.write(token)
        for name, tensor in tensors.items():
            if name != "proj_out.weight":  # the same as the token embedding
                _write_tensor(file, _renamed(name), tensor)


def _mel_filters(count: int) -> NDArray[np.float32]:
    """[filters, frequency bins]."""
    filters = torchaudio.functional.melscale_fbanks(BINS, 0.0, 8000.0, count, 16_000, norm="slaney", mel_scale="slaney")
    return np.ascontiguousarray(filters.T.numpy(), np.float32)


def _write_numbers(file: BinaryIO, *numbers: int) -> None:
    file.write(struct.pack(f"<{len(numbers)}i", *numbers))


def _write_tensor(file: BinaryIO, name: str, tensor: NDArray[np.float16]) -> None:
    if name in ("encoder.conv1.bias", "encoder.conv2.bias"):
        tensor = tensor[:, None]
    # whisper.cpp stores these in single precision.
    single = tensor.ndim < 2 or name.endswith(("conv1.bias", "conv2.bias", "positional_embedding"))
    _write_numbers(file, tensor.ndim, len(name), FLOAT32 if single else FLOAT16, *reversed(tensor.shape))
    file.write(name.encode())
    file.write(np.ascontiguousarray(tensor, np.float32 if single else np.float16).tobytes())


def _renamed(name: str) -> str:
    if name in NAMES:
        return NAMES[name]
    for there, here in PARTS.items():
        name = name.replace(there, here)
    return name


def _tokens(directory: Path) -> list[bytes]:
    """The bytes of every text token, in the order of their ids; whisper.cpp names the others itself."""
    tokenizer = json.loads((directory / "tokenizer.json").read_bytes())
    special = {token["content"] for token in tokenizer["added_tokens"]}
    numbered = sorted((number, token) for token, number in tokenizer["model"]["vocab"].items() if token not in special)
    byte = _byte_of_letter()
    return [bytes(byte[letter] for letter in token) for _, token in numbered]


def _byte_of_letter() -> dict[str, int]:
    """The letters that a tokenizer's vocabulary uses for bytes: the byte itself if printable, else one from 256 on."""
    seen = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    unseen = [byte for byte in range(256) if byte not in seen]
    return {chr(byte): byte for byte in seen} | {chr(256 + index): byte for index, byte in enumerate(unseen)}
