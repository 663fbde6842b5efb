"""Converts a CTranslate2 Whisper model to a Hugging Face directory.

The directory is as `WhisperForConditionalGeneration.save_pretrained` would have written it: config, generation config,
safetensors, tokenizer and preprocessor config. Nothing is retrained or rounded: float weights keep their bits.
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from safetensors.torch import save_file

from server.inference.errors import WeightsError
from server.inference.weights.ct2_format import Ct2Model, read_ct2
from server.inference.weights.ct2_tensors import Tensors, hugging_face_tensors, layer_count

CONVERSION_VERSION = 1
"""Part of the name of a cache entry: increase it when the output of `convert` changes."""
_MULTILINGUAL_TOKENS = 51865
_TIMESTAMPS = 1501


@dataclass(frozen=True, slots=True)
class Ct2Source:
    """The files of a CTranslate2 model."""

    label: str
    """A readable name, safe in a file name."""
    identity: str
    """Differs whenever the content of the files may differ."""
    parts: tuple[Path, ...]
    """`model.bin`, or its pieces, in order."""
    config: Path
    tokenizer: Path
    digests: tuple[str, ...] = ()
    """SHA-256 of every part, of the config and of the tokenizer, if they are known; otherwise empty."""

    @property
    def files(self) -> tuple[Path, ...]:
        """All files, in the order of `digests`."""
        return (*self.parts, self.config, self.tokenizer)


class _Ct2Config(BaseModel):
    """The part of CTranslate2's config.json that cannot be derived from the tensors."""

    alignment_heads: list[tuple[int, int]]
    lang_ids: list[int]
    suppress_ids: list[int]
    suppress_ids_begin: list[int]


def convert(source: Ct2Source, target: Path) -> None:
    """Writes the Hugging Face directory `target`, which must exist and be empty.

    Raises:
        WeightsError: the source is damaged, or not a Whisper model.
        OSError: reading or writing failed.
    """
    model = _read(source, target)
    try:
        config = _Ct2Config.model_validate_json(source.config.read_bytes())
        tokenizer = json.loads(source.tokenizer.read_bytes())
        specials = {token["content"]: int(token["id"]) for token in tokenizer["added_tokens"]}
        no_timestamps, previous = specials["<|notimestamps|>"], specials["<|startofprev|>"]
    except (ValidationError, ValueError, TypeError, KeyError) as error:
        raise WeightsError(
            f"{source.label}: {source.config.name} or {source.tokenizer.name} is not of a CTranslate2 Whisper model "
            f"({type(error).__name__})"
        ) from error
    shape = _shape(model.tensors)
    multilingual = shape["vocab_size"] >= _MULTILINGUAL_TOKENS
    end = 50257 if multilingual else 50256
    tokens = {
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": end,
        "decoder_start_token_id": end + 1,
        "suppress_tokens": config.suppress_ids,
        "begin_suppress_tokens": config.suppress_ids_begin,
    }
    generation: dict[str, Any] = {
        **tokens,
        "max_length": shape["max_target_positions"],
        "alignment_heads": config.alignment_heads,
        "no_timestamps_token_id": no_timestamps,
        "prev_sot_token_id": previous,
        "max_initial_timestamp_index": 50,
        "return_timestamps": False,
        "is_multilingual": multilingual,
    }
    if multilingual:
        generation["lang_to_id"] = {name: id_ for name, id_ in specials.items() if id_ in set(config.lang_ids)}
        generation["task_to_id"] = {task: specials[f"<|{task}|>"] for task in ("transcribe", "translate")}
    save_file(hugging_face_tensors(model.tensors), target / "model.safetensors", metadata={"format": "pt"})
    _write(target / "config.json", _model_config(shape, tokens))
    _write(target / "generation_config.json", generation)
    _write(target / "tokenizer.json", _with_timestamps(tokenizer, no_timestamps + 1))
    _write(target / "tokenizer_config.json", _TOKENIZER_CONFIG)
    _write(target / "preprocessor_config.json", _preprocessor_config(shape["num_mel_bins"]))


def _read(source: Ct2Source, scratch: Path) -> Ct2Model:
    """Reads the model; pieces are joined in `scratch` first, and removed from there before this returns."""
    if len(source.parts) == 1:
        model = read_ct2(source.parts[0])
    else:
        joined = scratch / "model.bin"
        with joined.open("wb") as out:
            for part in source.parts:
                with part.open("rb") as piece:
                    shutil.copyfileobj(piece, out, 1 << 20)
        model = read_ct2(joined)
        joined.unlink()  # the memory mapping keeps the bytes until the tensors are freed
    if model.specification != "WhisperSpec":
        raise WeightsError(f"{source.label} is a CTranslate2 model of another kind than Whisper")
    return model


def _shape(tensors: Tensors) -> dict[str, int]:
    """The sizes of the model, under their names in Hugging Face's config."""
    try:
        vocabulary, width = tensors["decoder/embeddings/weight"].shape
        return {
            "vocab_size": vocabulary,
            "d_model": width,
            "num_mel_bins": tensors["encoder/conv1/weight"].shape[1],
            "encoder_layers": layer_count(tensors, "encoder"),
            "decoder_layers": layer_count(tensors, "decoder"),
            "encoder_attention_heads": int(tensors["encoder/num_heads"]),
            "decoder_attention_heads": int(tensors["decoder/num_heads"]),
            "encoder_ffn_dim": tensors["encoder/layer_0/ffn/linear_0/weight"].shape[0],
            "decoder_ffn_dim": tensors["decoder/layer_0/ffn/linear_0/weight"].shape[0],
            "max_source_positions": tensors["encoder/position_encodings/encodings"].shape[0],
            "max_target_positions": tensors["decoder/position_encodings/encodings"].shape[0],
        }
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise WeightsError(f"the CTranslate2 model is no Whisper model: {error}") from error


def _model_config(shape: Mapping[str, int], tokens: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "is_encoder_decoder": True,
        "activation_function": "gelu",
        "scale_embedding": False,
        "tie_word_embeddings": True,
        **shape,
        **tokens,
    }


_TOKENIZER_CONFIG = {
    "tokenizer_class": "WhisperTokenizer",
    "bos_token": "<|endoftext|>",
    "eos_token": "<|endoftext|>",
    "pad_token": "<|endoftext|>",
    "unk_token": "<|endoftext|>",
    "model_max_length": 1024,
}


def _preprocessor_config(mel_bins: int) -> dict[str, Any]:
    return {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "processor_class": "WhisperProcessor",
        "feature_size": mel_bins,
        "sampling_rate": 16000,
        "hop_length": 160,
        "n_fft": 400,
        "chunk_length": 30,
        "n_samples": 480000,
        "nb_max_frames": 3000,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": False,
    }


def _with_timestamps(tokenizer: dict[str, Any], first: int) -> dict[str, Any]:
    """The tokenizer with all timestamp tokens: some CTranslate2 directories omit them."""
    present = {token["id"] for token in tokenizer["added_tokens"]}
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    missing = [
        {"id": first + index, "content": f"<|{index * 0.02:.2f}|>", **plain}
        for index in range(_TIMESTAMPS)
        if first + index not in present
    ]
    return {**tokenizer, "added_tokens": [*tokenizer["added_tokens"], *missing]}


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def fsync_tree(directory: Path) -> None:
    """Syncs every file directly in `directory`, and the directory itself, to disk."""
    for path in (*directory.iterdir(), directory):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
