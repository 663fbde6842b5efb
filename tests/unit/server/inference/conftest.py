"""A small random Whisper model, in the formats of Hugging Face and of CTranslate2."""

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import server.inference.torchaudio_compat  # noqa: F401 - before transformers, which imports torchaudio

END = 50257
NO_TIMESTAMPS = 50363
LAYERS = 2
WIDTH = 16


@dataclass(frozen=True)
class SmallWhisper:
    """Random weights with Whisper's real vocabulary, so that every token has its usual id."""

    model: Any
    """transformers' WhisperForConditionalGeneration."""

    def save(self, directory: Path) -> Path:
        """Writes the directory that transformers would save, with a tokenizer that knows two words."""
        self.model.save_pretrained(directory)
        (directory / "generation_config.json").write_text(json.dumps(GENERATION_CONFIG))
        (directory / "tokenizer.json").write_text(json.dumps(TOKENIZER))
        return directory


GENERATION_CONFIG = {
    "eos_token_id": END,
    "decoder_start_token_id": END + 1,
    "no_timestamps_token_id": NO_TIMESTAMPS,
    "is_multilingual": True,
    "lang_to_id": {"<|en|>": 50259, "<|de|>": 50261, "<|jw|>": 50356},
    "task_to_id": {"translate": 50358, "transcribe": 50359},
    "suppress_tokens": [1, 2, 50258],
    "begin_suppress_tokens": [220, END],
    "max_initial_timestamp_index": 50,
}
TOKENIZER: dict[str, Any] = {
    "version": "1.0",
    "added_tokens": [
        {
            "id": number,
            "content": content,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for number, content in (
            (END, "<|endoftext|>"),
            (50259, "<|en|>"),
            (50358, "<|translate|>"),
            (50359, "<|transcribe|>"),
            (50361, "<|startofprev|>"),
            (NO_TIMESTAMPS, "<|notimestamps|>"),
        )
    ],
    "model": {"type": "WordLevel", "vocab": {"hello": 0, "there": 1}, "unk_token": "hello"},
}


@pytest.fixture(scope="session")
def small_whisper() -> SmallWhisper:
    # Here, because the import takes three seconds of CPU time, and every process of `pytest -n` collects this file.
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=51865,
        d_model=WIDTH,
        num_mel_bins=80,
        encoder_layers=LAYERS,
        decoder_layers=LAYERS,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_source_positions=100,
        max_target_positions=448,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    model = WhisperForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    return SmallWhisper(model)


Stored = NDArray[Any]
Store = Callable[[str, NDArray[np.float32]], dict[str, Stored]]
"""The storage format of a weight: its name and values -> the tensors written for it."""

_TYPE_NUMBERS = {"<f4": 0, "|i1": 1, "<i2": 2, "<i4": 3, "<f2": 4, "<u2": 5}


def write_ct2(path: Path, tensors: dict[str, Stored], aliases: dict[str, str] | None = None, version: int = 6) -> Path:
    """Writes a `model.bin` as CTranslate2 does, by the description of the format."""

    def string(text: str) -> bytes:
        raw = text.encode() + b"\0"
        return struct.pack("<H", len(raw)) + raw

    out = [struct.pack("<I", version), string("WhisperSpec"), struct.pack("<II", 3, len(tensors))]
    for name, tensor in tensors.items():
        out += [string(name), struct.pack("<B", tensor.ndim), *(struct.pack("<I", size) for size in tensor.shape)]
        if version >= 4:
            out.append(struct.pack("<BI", _TYPE_NUMBERS[tensor.dtype.str], tensor.nbytes))
        else:
            out.append(struct.pack("<BI", tensor.dtype.itemsize, tensor.size))
        out.append(tensor.tobytes())
    if version >= 3:
        out.append(struct.pack("<I", len(aliases or {})))
        out += [string(alias) + string(name) for alias, name in (aliases or {}).items()]
    path.write_bytes(b"".join(out))
    return path


def as_float32(name: str, values: NDArray[np.float32]) -> dict[str, Stored]:
    return {name: values}


@pytest.fixture(scope="session")
def ct2_tensors(small_whisper: SmallWhisper) -> Callable[[Store], dict[str, Stored]]:
    """The small model under CTranslate2's names, with every weight in the given format."""
    state = {name.removeprefix("model."): value for name, value in small_whisper.model.state_dict().items()}

    def tensors(store: Store = as_float32) -> dict[str, Stored]:
        out: dict[str, Stored] = {}

        def put(name: str, *parts: str) -> None:
            out.update(store(name, torch.cat([_part(state, part) for part in parts]).numpy()))

        def linear(name: str, *parts: str) -> None:
            put(f"{name}/weight", *(f"{part}.weight" for part in parts))
            put(f"{name}/bias", *(f"{part}.bias" for part in parts))

        def norm(name: str, part: str) -> None:
            put(f"{name}/gamma", f"{part}.weight")
            put(f"{name}/beta", f"{part}.bias")

        for stack in ("encoder", "decoder"):
            out[f"{stack}/num_heads"] = np.array(2, np.int16)
            put(f"{stack}/position_encodings/encodings", f"{stack}.embed_positions.weight")
            norm(f"{stack}/layer_norm", f"{stack}.layer_norm")
            for index in range(LAYERS):
                ours, theirs = f"{stack}/layer_{index}", f"{stack}.layers.{index}"
                linear(f"{ours}/self_attention/linear_0", *(f"{theirs}.self_attn.{part}_proj" for part in "qkv"))
                linear(f"{ours}/self_attention/linear_1", f"{theirs}.self_attn.out_proj")
                norm(f"{ours}/self_attention/layer_norm", f"{theirs}.self_attn_layer_norm")
                if stack == "decoder":
                    linear(f"{ours}/attention/linear_0", f"{theirs}.encoder_attn.q_proj")
                    linear(f"{ours}/attention/linear_1", *(f"{theirs}.encoder_attn.{part}_proj" for part in "kv"))
                    linear(f"{ours}/attention/linear_2", f"{theirs}.encoder_attn.out_proj")
                    norm(f"{ours}/attention/layer_norm", f"{theirs}.encoder_attn_layer_norm")
                linear(f"{ours}/ffn/linear_0", f"{theirs}.fc1")
                linear(f"{ours}/ffn/linear_1", f"{theirs}.fc2")
                norm(f"{ours}/ffn/layer_norm", f"{theirs}.final_layer_norm")
        for name in ("conv1", "conv2"):
            linear(f"encoder/{name}", f"encoder.{name}")
        put("decoder/embeddings/weight", "decoder.embed_tokens.weight")
        return out

    return tensors


def _part(state: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    """Whisper's keys have no bias; CTranslate2 stores zeros."""
    return state[name] if name in state else torch.zeros(WIDTH)


@pytest.fixture(scope="session")
def write_ct2_model() -> Callable[..., Path]:
    return write_ct2


@pytest.fixture
def ct2_directory(tmp_path: Path, ct2_tensors: Callable[..., dict[str, Stored]]) -> Path:
    """The small model as a CTranslate2 directory, in float32."""
    directory = tmp_path / "ct2"
    directory.mkdir()
    write_ct2(directory / "model.bin", ct2_tensors(), {"decoder/projection/weight": "decoder/embeddings/weight"})
    (directory / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    (directory / "config.json").write_text(
        json.dumps(
            {
                "alignment_heads": [[1, 0]],
                "lang_ids": [50259],
                "suppress_ids": [1, 2, 50258],
                "suppress_ids_begin": [220, END],
            }
        )
    )
    return directory
