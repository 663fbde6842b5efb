"""Converts Whisper's tensors from CTranslate2's names and layout to Hugging Face's."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from server.inference.errors import WeightsError
from server.inference.weights.ct2_format import BFLOAT16

Tensors = Mapping[str, NDArray[Any]]


def layer_count(tensors: Tensors, stack: str) -> int:
    """The number of layers of `stack` ("encoder" or "decoder")."""
    count = 0
    while f"{stack}/layer_{count}/ffn/linear_0/weight" in tensors:
        count += 1
    return count


def hugging_face_tensors(tensors: Tensors) -> dict[str, torch.Tensor]:
    """Every weight under its name in `WhisperForConditionalGeneration`'s state dict, at its stored precision.

    Quantised weights become float16. The output projection is omitted: it is the token embedding.

    Raises:
        WeightsError: a tensor of a Whisper model is missing or of the wrong shape.
    """
    mapped = _Mapped(tensors)
    for name in ("conv1", "conv2"):
        mapped.linear(f"model.encoder.{name}", f"encoder/{name}")
    for stack in ("encoder", "decoder"):
        mapped.one(f"model.{stack}.embed_positions.weight", f"{stack}/position_encodings/encodings")
        mapped.norm(f"model.{stack}.layer_norm", f"{stack}/layer_norm")
        for index in range(layer_count(tensors, stack)):
            mapped.layer(f"model.{stack}.layers.{index}", f"{stack}/layer_{index}", cross=stack == "decoder")
    mapped.one("model.decoder.embed_tokens.weight", "decoder/embeddings/weight")
    return mapped.result


class _Mapped:
    """Collects tensors under their new names."""

    def __init__(self, tensors: Tensors) -> None:
        self._tensors = tensors
        self.result: dict[str, torch.Tensor] = {}

    def one(self, name: str, source: str) -> None:
        self.result[name] = self._read(source)

    def linear(self, name: str, source: str) -> None:
        self.one(f"{name}.weight", f"{source}/weight")
        self.one(f"{name}.bias", f"{source}/bias")

    def norm(self, name: str, source: str) -> None:
        self.one(f"{name}.weight", f"{source}/gamma")
        self.one(f"{name}.bias", f"{source}/beta")

    def layer(self, name: str, source: str, *, cross: bool) -> None:
        self._fused(f"{name}.self_attn", f"{source}/self_attention/linear_0", "qkv")
        self.linear(f"{name}.self_attn.out_proj", f"{source}/self_attention/linear_1")
        self.norm(f"{name}.self_attn_layer_norm", f"{source}/self_attention/layer_norm")
        if cross:
            self.linear(f"{name}.encoder_attn.q_proj", f"{source}/attention/linear_0")
            self._fused(f"{name}.encoder_attn", f"{source}/attention/linear_1", "kv")
            self.linear(f"{name}.encoder_attn.out_proj", f"{source}/attention/linear_2")
            self.norm(f"{name}.encoder_attn_layer_norm", f"{source}/attention/layer_norm")
        self.linear(f"{name}.fc1", f"{source}/ffn/linear_0")
        self.linear(f"{name}.fc2", f"{source}/ffn/linear_1")
        self.norm(f"{name}.final_layer_norm", f"{source}/ffn/layer_norm")

    def _fused(self, name: str, source: str, parts: str) -> None:
        """Splits rows stacked as `parts`. Whisper's keys have no bias: CTranslate2 fills it with zeros."""
        weight, bias = self._read(f"{source}/weight"), self._read(f"{source}/bias")
        if len(weight) % len(parts) or len(bias) != len(weight):
            raise WeightsError(f"the CTranslate2 model is no Whisper model: {source} has an unexpected shape")
        for part, rows, offsets in zip(parts, weight.chunk(len(parts)), bias.chunk(len(parts)), strict=True):
            self.result[f"{name}.{part}_proj.weight"] = rows.clone()
            if part != "k":
                self.result[f"{name}.{part}_proj.bias"] = offsets.clone()
            elif torch.count_nonzero(offsets):
                raise WeightsError(f"the CTranslate2 model is no Whisper model: {source} has a bias on its keys")

    def _read(self, name: str) -> torch.Tensor:
        if name not in self._tensors:
            raise WeightsError(f"the CTranslate2 model is no Whisper model: it lacks the tensor {name}")
        stored = self._tensors[name]
        if stored.dtype == BFLOAT16:
            return torch.from_numpy(stored.view(np.int16).copy()).view(torch.bfloat16)
        if np.issubdtype(stored.dtype, np.integer):
            return torch.from_numpy(self._dequantised(name, stored)).half()
        return torch.from_numpy(stored.copy())

    def _dequantised(self, name: str, stored: NDArray[Any]) -> NDArray[np.float32]:
        """CTranslate2 stores round(weight * scale), with one scale a row (int8) or one in all (int16)."""
        scale = self._tensors.get(f"{name}_scale")
        if scale is None or scale.shape not in ((), stored.shape[:1]):
            raise WeightsError(f"the CTranslate2 model is damaged: {name} has no usable scale")
        per_row = scale.astype(np.float32).reshape(-1, *[1] * (stored.ndim - 1))
        weights: NDArray[np.float32] = np.divide(stored, per_row, dtype=np.float32)
        return weights
