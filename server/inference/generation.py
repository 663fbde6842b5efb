"""The decoder loop: from the encoder's output to one row of tokens per utterance."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from server.inference.decoding import Allowed, RowDecoding
from server.inference.whisper.decoder import Decoder, DecoderState
from server.inference.whisper.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class _Stamp:
    """The likeliest stamp of each row, [rows] each."""

    token: torch.Tensor
    best: torch.Tensor
    """Its logit."""
    together: torch.Tensor
    """The log of the sum over all stamps."""


class TokenChooser:
    """Picks the likeliest token that is allowed, and writes a stamp once stamps together outweigh any other token."""

    def __init__(self, vocabulary: Vocabulary, device: torch.device) -> None:
        self._vocabulary = vocabulary
        self._never = torch.zeros(vocabulary.size, device=device)
        self._never[list(vocabulary.suppressed)] = -torch.inf
        self._never[vocabulary.end + 1 : vocabulary.first_stamp] = -torch.inf
        self._first = torch.tensor(vocabulary.suppressed_first, dtype=torch.long, device=device)

    def __call__(self, logits: torch.Tensor, allowed: Sequence[Allowed]) -> tuple[list[int], list[float]]:
        """The chosen token of each row and its log probability among those allowed.

        Args:
            logits: [rows, vocabulary]; overwritten.
        """
        text, stamp, total = self._weigh(logits, allowed)
        best_text, best_text_token = text.max(dim=-1)
        stamp_wins = stamp.together > best_text
        tokens = torch.where(stamp_wins, stamp.token, best_text_token)
        best = torch.where(stamp_wins, stamp.best, best_text)
        return tokens.tolist(), (best - total).tolist()

    def several(self, logits: torch.Tensor, allowed: Sequence[Allowed], count: int) -> list[list[tuple[int, float]]]:
        """The likeliest tokens of each row with their log probabilities, best first.

        One stamp stands for all: texts that differ by when they are said do not differ. Where a stamp wins, it is the
        only one.
        """
        text, stamp, total = self._weigh(logits, allowed)
        best, tokens = text.topk(count, dim=-1)
        chances = torch.cat([stamp.together[:, None], best], dim=-1) - total[:, None]
        choices = torch.cat([stamp.token[:, None], tokens], dim=-1)
        chances[:, 1:].masked_fill_((stamp.together > best[:, 0])[:, None], -torch.inf)
        return [
            sorted(
                ((token, chance) for token, chance in zip(row, of_row, strict=True) if chance > -math.inf),
                key=lambda choice: -choice[1],
            )
            for row, of_row in zip(choices.tolist(), chances.tolist(), strict=True)
        ]

    def _weigh(self, logits: torch.Tensor, allowed: Sequence[Allowed]) -> tuple[torch.Tensor, "_Stamp", torch.Tensor]:
        """Of each row the logits of what is no stamp, the best stamp, and the log of the sum over both."""
        vocabulary = self._vocabulary
        logits += self._never
        for row, rules in zip(logits, allowed, strict=True):
            if not rules.text:
                row[: vocabulary.end] = -torch.inf
            elif rules.opens_text:
                row[self._first] = -torch.inf
            if not rules.end:
                row[vocabulary.end] = -torch.inf
            stamps = rules.stamps or range(vocabulary.size, vocabulary.size)
            row[vocabulary.first_stamp : stamps.start] = -torch.inf
            row[stamps.stop :] = -torch.inf
        text, stamps_logits = logits[:, : vocabulary.first_stamp], logits[:, vocabulary.first_stamp :]
        best, token = stamps_logits.max(dim=-1)
        together = stamps_logits.logsumexp(dim=-1)
        total = torch.logaddexp(text.logsumexp(dim=-1), together)
        return text, _Stamp(token + vocabulary.first_stamp, best, together), total


def generate(
    decoder: Decoder, state: DecoderState, choose: TokenChooser, logits: torch.Tensor, rows: Sequence[RowDecoding]
) -> None:
    """Decodes greedily until every row is done.

    Args:
        logits: of each row's last prompt token, [rows, vocabulary]; overwritten.
        rows: each with nothing written yet; filled in.
    """
    while True:
        tokens, log_probabilities = choose(logits, [row.allowed() for row in rows])
        for row, token, log_probability in zip(rows, tokens, log_probabilities, strict=True):
            if row.ending is None:
                row.accept(token, log_probability)
        if all(row.ending is not None for row in rows):
            return
        hidden = decoder.step(state, torch.tensor(tokens, device=logits.device)[:, None])
        logits = decoder.logits(hidden[:, -1])
