"""The decoder loop: from the encoder's output to one row of tokens per utterance."""

from collections.abc import Sequence

import torch

from server.inference.decoding import Allowed, RowDecoding
from server.inference.whisper.decoder import Decoder, DecoderState
from server.inference.whisper.vocabulary import Vocabulary


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
        best_text, best_text_token = text.max(dim=-1)
        best_stamp, best_stamp_token = stamps_logits.max(dim=-1)
        stamps_together = stamps_logits.logsumexp(dim=-1)
        total = torch.logaddexp(text.logsumexp(dim=-1), stamps_together)
        stamp_wins = stamps_together > best_text
        tokens = torch.where(stamp_wins, best_stamp_token + vocabulary.first_stamp, best_text_token)
        best = torch.where(stamp_wins, best_stamp, best_text)
        return tokens.tolist(), (best - total).tolist()


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
