"""Whisper's decoder, one step at a time. All memory of a batch is allocated at its start."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from server.inference.whisper.checkpoint import Checkpoint
from server.inference.whisper.largest import largest
from server.inference.whisper.layers import LayerFactory, Linear, Norm
from server.inference.whisper.precision import Precision

_EXACT = 32
"""The number of most probable tokens whose logits are computed again with the stored weights. int8 alone changes logits
by 3 % of their spread; the gap between two tokens is often smaller."""

_FEW_QUERIES = 10
"""The most tokens of an utterance, in all its beams, that a step of decoding reads."""


@dataclass(frozen=True, slots=True)
class _Layer:
    self_norm: Norm
    query_key_value: Linear
    self_out: Linear
    cross_norm: Norm
    cross_query: Linear
    cross_key_value: Linear
    cross_out: Linear
    feed_norm: Norm
    feed_in: Linear
    feed_out: Linear


@dataclass(slots=True)
class DecoderState:
    """The state of a batch: the keys and values of the audio and of the tokens so far."""

    audio: list[tuple[torch.Tensor, torch.Tensor]]
    """Per layer, keys and values of the encoder's output, in its format: [utterances, heads, encoder frames,
    head_width] each. Each utterance may have several adjacent rows."""
    tokens: torch.Tensor
    """[2, layers, rows, heads, capacity, head_width]"""
    length: int
    """Tokens read so far, padding included: the index of the next token."""
    padding: torch.Tensor | None
    """[rows], padding tokens before each row, or None without padding."""


class Decoder:
    def __init__(self, checkpoint: Checkpoint, device: torch.device, precision: Precision) -> None:
        make = LayerFactory(checkpoint, device, precision.decoder, precision.quantised_decoder)
        # The audio's keys and values are computed once, for hundreds of encoder frames: int8 would gain nothing there.
        for_audio = LayerFactory(checkpoint, device, precision.encoder)
        self._device = device
        self._dtype = precision.decoder
        self._heads = checkpoint.shape.decoder_attention_heads
        self._width = checkpoint.shape.d_model
        self.capacity = checkpoint.shape.max_target_positions
        """The most tokens, prompt included, that a row can have."""
        # Kept at its stored precision, because a step reads one row of it per utterance; a copy, so that the file can
        # be closed.
        self._embeddings = checkpoint.tensor("decoder.embed_tokens.weight").to(device, copy=True)
        self._positions = make.tensor("decoder.embed_positions.weight")
        names = [f"decoder.layers.{index}" for index in range(checkpoint.shape.decoder_layers)]
        self._layers = [_layer(make, for_audio, name) for name in names]
        self._alignment_heads = {
            layer: torch.tensor([head for of, head in checkpoint.alignment_heads if of == layer], device=device)
            for layer in sorted({layer for layer, _ in checkpoint.alignment_heads})
        }
        self._norm = make.norm("decoder.layer_norm")
        self._projection = make.make(self._embeddings, None)
        self._is_quantised = precision.quantised_decoder

    def start(self, audio: torch.Tensor, capacity: int, padding: Sequence[int] | None = None) -> DecoderState:
        """The state before the first token.

        Args:
            audio: the encoder's output, [rows, encoder frames, width].
            capacity: the most tokens a row will have, prompt and padding included.
            padding: the number of padding tokens at the start of each row, for prompts of unequal length.
        """
        rows, encoder_frames, _ = audio.shape
        head_width = self._width // self._heads
        keys_values = []
        for layer in self._layers:
            both = layer.cross_key_value(audio).view(rows, encoder_frames, 2, self._heads, head_width)
            key, value = both.permute(2, 0, 3, 1, 4).contiguous()
            keys_values.append((key, value))
        return self._begin(keys_values, capacity, padding)

    def start_again(
        self, state: DecoderState, rows: Sequence[int], capacity: int, padding: Sequence[int] | None = None
    ) -> DecoderState:
        """The state before the first token, for the audio of some rows of another state."""
        if list(rows) == list(range(state.tokens.shape[2])):
            return self._begin(state.audio, capacity, padding)
        chosen = torch.tensor(rows, device=self._device)
        return self._begin([(keys[chosen], values[chosen]) for keys, values in state.audio], capacity, padding)

    def _begin(
        self, audio: list[tuple[torch.Tensor, torch.Tensor]], capacity: int, padding: Sequence[int] | None
    ) -> DecoderState:
        rows, heads, _, head_width = audio[0][0].shape
        shape = (2, len(self._layers), rows, heads, capacity, head_width)
        return DecoderState(
            audio=audio,
            tokens=torch.zeros(shape, dtype=self._dtype, device=self._device),
            length=0,
            padding=torch.tensor(padding, device=self._device) if padding and any(padding) else None,
        )

    def fan_out(self, state: DecoderState, rows: int) -> None:
        """Repeats every row `rows` times, as adjacent rows."""
        state.tokens = state.tokens.repeat_interleave(rows, dim=2)
        if state.padding is not None:
            state.padding = state.padding.repeat_interleave(rows)

    def keep(self, state: DecoderState, utterances: Sequence[int]) -> None:
        """Drops all rows but those of these utterances, whose state is copied."""
        fan = state.tokens.shape[2] // len(state.audio[0][0])
        chosen = torch.tensor(utterances, device=self._device)
        rows = (chosen[:, None] * fan + torch.arange(fan, device=self._device)).flatten()
        state.audio = [(keys[chosen], values[chosen]) for keys, values in state.audio]
        seen = state.tokens[:, :, rows, :, : state.length]
        state.tokens = state.tokens.new_empty((*seen.shape[:4], *state.tokens.shape[4:]))
        state.tokens[..., : state.length, :] = seen
        if state.padding is not None:
            state.padding = state.padding[rows]

    def follow(self, state: DecoderState, rows: torch.Tensor) -> None:
        """Replaces the state of row i by that of row `rows[i]`, which belongs to the same utterance."""
        (changed,) = (rows != torch.arange(len(rows), device=rows.device)).nonzero(as_tuple=True)
        if not len(changed):
            return
        sources = rows[changed]
        # Layer by layer: copying everything at once would double the memory of the batch.
        for part in state.tokens.flatten(0, 1):
            seen = part[..., : state.length, :]
            seen[changed] = seen[sources]

    def forget(self, state: DecoderState, counts: Sequence[int]) -> None:
        """Removes the last `counts[i]` tokens of row i."""
        least = min(counts)
        state.length -= least
        if max(counts) == least:
            return
        if state.padding is None:
            state.padding = torch.zeros(len(counts), dtype=torch.long, device=self._device)
        for row, gap in enumerate(count - least for count in counts):
            # Rows end together: the rest of a row moves to the end, with more padding before it.
            if gap:
                seen = state.tokens[:, :, row, :, : state.length]
                seen[..., gap:, :] = seen[..., :-gap, :].clone()
                state.padding[row] += gap

    def step(
        self, state: DecoderState, tokens: torch.Tensor, observe_scores: Callable[[torch.Tensor], None] | None = None
    ) -> torch.Tensor:
        """Reads the next tokens of every row, [rows, new], and returns their hidden states, [rows, new, width].

        Args:
            observe_scores: called with the scores of the alignment heads before the softmax, for each layer that has
                any: [rows, heads, new, encoder frames].
        """
        new, first = tokens.shape[1], state.length
        state.length += new
        mask = _mask(state.padding, first, new, tokens.device)
        positions = _positions(state.padding, first, new, self.capacity)
        x = self._embeddings[tokens].to(self._dtype) + self._positions[positions]
        for index, layer in enumerate(self._layers):
            keys, values = state.tokens[0, index], state.tokens[1, index]
            x = x + self._attend_tokens(layer, layer.self_norm(x), keys, values, first, mask)
            heads = None if observe_scores is None else self._alignment_heads.get(index)
            x = x + self._attend_audio(layer, layer.cross_norm(x), state.audio[index], heads, observe_scores)
            x = x + layer.feed_out(functional.gelu(layer.feed_in(layer.feed_norm(x))))
        return self._norm(x)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[rows, width] -> [rows, vocabulary], in float32; with int8 weights the most probable ones are exact."""
        logits = self._projection(hidden).float()
        if self._is_quantised:
            likeliest = largest(logits, _EXACT)
            weights = self._embeddings[likeliest].to(hidden.dtype)
            logits.scatter_(-1, likeliest, (weights @ hidden[..., None])[..., 0])
        return logits

    def _attend_tokens(
        self,
        layer: _Layer,
        x: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        first: int,
        mask: torch.Tensor | None,
    ) -> torch.Tensor:
        rows, new, _ = x.shape
        query, key, value = layer.query_key_value(x).view(rows, new, 3, self._heads, -1).permute(2, 0, 3, 1, 4)
        last = first + new
        keys[:, :, first:last] = key
        values[:, :, first:last] = value
        mixed = functional.scaled_dot_product_attention(query, keys[:, :, :last], values[:, :, :last], attn_mask=mask)
        return layer.self_out(mixed.transpose(1, 2).reshape(rows, new, self._width))

    def _attend_audio(
        self,
        layer: _Layer,
        x: torch.Tensor,
        audio: tuple[torch.Tensor, torch.Tensor],
        heads: torch.Tensor | None,
        observe_scores: Callable[[torch.Tensor], None] | None,
    ) -> torch.Tensor:
        rows, new, _ = x.shape
        utterances = len(audio[0])  # the rows of an utterance share its keys
        query = layer.cross_query(x).view(utterances, rows // utterances * new, self._heads, -1).transpose(1, 2)
        if heads is not None and observe_scores is not None:
            keys = audio[0][:, heads].to(query.dtype).transpose(-1, -2)
            observe_scores(query[:, heads] @ keys / math.sqrt(query.shape[-1]))
        mixed = _attend(query, *audio)
        return layer.cross_out(mixed.to(query.dtype).transpose(1, 2).reshape(rows, new, self._width))


def _attend(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """The attention of a few queries to the audio, in the format of its keys.

    On a CPU torch's own function takes three to seven times as long for a single query if the keys are bfloat16. For
    many queries, as when words are timed, it is fast enough, and more exact.
    """
    if keys.dtype != torch.bfloat16 or keys.device.type != "cpu" or query.shape[-2] > _FEW_QUERIES:
        return functional.scaled_dot_product_attention(query.to(keys.dtype), keys, values)
    scaled = (query / math.sqrt(query.shape[-1])).to(keys.dtype)
    weights = torch.softmax(scaled @ keys.transpose(-1, -2), dim=-1, dtype=torch.float32)
    return weights.to(values.dtype) @ values


def _positions(padding: torch.Tensor | None, first: int, new: int, capacity: int) -> torch.Tensor | slice:
    """The positions of the new tokens in their rows; padding has position 0, and is masked.

    A row that is full stays at its last position while others continue: its further tokens are ignored.
    """
    if padding is None:
        return slice(first, first + new)
    index = torch.arange(first, first + new, device=padding.device)
    return (index[None] - padding[:, None]).clamp(0, capacity - 1)


def _mask(padding: torch.Tensor | None, first: int, new: int, device: torch.device) -> torch.Tensor | None:
    """The tokens that each new token attends to: itself and those before it, without padding. None for no mask."""
    if new == 1 and padding is None:
        return None
    keys = torch.arange(first + new, device=device)
    queries = keys[first:, None]
    seen = keys <= queries
    if padding is None:
        return seen
    # Padding attends to itself: a softmax over nothing is NaN, and would spread.
    return (seen & (keys >= padding[:, None, None]) | (keys == queries))[:, None]


def _layer(make: LayerFactory, for_audio: LayerFactory, name: str) -> _Layer:
    return _Layer(
        self_norm=make.norm(f"{name}.self_attn_layer_norm"),
        query_key_value=make.fused([f"{name}.self_attn.{part}_proj" for part in "qkv"]),
        self_out=make.linear(f"{name}.self_attn.out_proj"),
        cross_norm=make.norm(f"{name}.encoder_attn_layer_norm"),
        cross_query=make.linear(f"{name}.encoder_attn.q_proj"),
        cross_key_value=for_audio.fused([f"{name}.encoder_attn.{part}_proj" for part in "kv"]),
        cross_out=make.linear(f"{name}.encoder_attn.out_proj"),
        feed_norm=make.norm(f"{name}.final_layer_norm"),
        feed_in=make.linear(f"{name}.fc1"),
        feed_out=make.linear(f"{name}.fc2"),
    )
